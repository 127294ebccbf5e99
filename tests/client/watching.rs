//! Watches and caches.

use std::sync::Arc;

use registry_client::{Change, ChangeKind, Filter, Watch};

use super::*;

async fn next(watch: &mut Watch) -> Change {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("a change comes").expect("it goes on").unwrap()
}

/// What and to whom, of the next changes.
async fn told(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..count {
        let change = next(watch).await;
        told.push(format!("{} {}", change.kind.as_str(), change.id()));
    }
    told
}

async fn is_quiet(watch: &mut Watch) {
    let more = tokio::time::timeout(300 * MILLISECOND, watch.next()).await;
    assert!(more.is_err(), "there is no other change: {more:?}");
}

async fn register(registry: &Registry, id: &str) {
    registry.request("register", camera(id).ttl(600 * SECOND).as_request()).await.unwrap();
}

#[tokio::test]
async fn every_change_is_told_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    register(&registry, "a").await;
    let mut watch = registry.watch("camera").await.unwrap();
    let mut existing = registry.watch_existing("camera").await.unwrap();
    assert_eq!(told(&mut existing, 1).await, ["register a"]);
    let from = existing.position().unwrap().clone();
    for id in ["b", "c"] {
        register(&registry, id).await;
    }
    registry.deregister("b", None).await.unwrap();
    registry.request("register", ServiceInfo::new("other", 1).host("h").as_request()).await.unwrap();
    register(&registry, "a").await;
    let expected = ["register b", "register c", "deregister b", "register a"];
    assert_eq!(told(&mut watch, 4).await, expected);
    assert_eq!(told(&mut existing, 4).await, expected);
    assert_eq!(told(&mut registry.watch_after("camera", from), 4).await, expected);
    is_quiet(&mut watch).await;
}

#[tokio::test]
async fn a_watch_goes_on_over_a_restart_where_it_was_even_if_nobody_polled_it_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), SQLITE);
    let (registry, ports) = (client_of(host.requests), host.ports());
    let mut polled = registry.watch("camera").await.unwrap();
    let mut left_alone = registry.watch("camera").await.unwrap();
    register(&registry, "a").await;
    assert_eq!(told(&mut polled, 1).await, ["register a"]);
    let polled = tokio::spawn(async move { told(&mut polled, 3).await });
    host.kill();
    let host = start_again(directory.path(), SQLITE, ports).await;
    register(&registry, "b").await;
    host.kill();
    let _host = start_again(directory.path(), SQLITE, ports).await;
    register(&registry, "c").await;
    registry.deregister("a", None).await.unwrap();
    assert_eq!(polled.await.unwrap(), ["register b", "register c", "deregister a"]);
    let all = ["register a", "register b", "register c", "deregister a"];
    assert_eq!(told(&mut left_alone, 4).await, all);
    is_quiet(&mut left_alone).await;
}

#[tokio::test]
async fn changes_that_are_not_known_any_more_are_told_as_the_difference() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let (registry, ports) = (client_of(host.requests), host.ports());
    for id in ["a", "b"] {
        register(&registry, id).await;
    }
    let mut watch = registry.watch_existing("camera").await.unwrap();
    let mut before = told(&mut watch, 2).await;
    before.sort();
    assert_eq!(before, ["register a", "register b"]);
    let from = watch.position().unwrap().clone();
    host.kill();
    // It has forgotten all of them.
    let _host = start_again(directory.path(), MEMORY, ports).await;
    for id in ["b", "c"] {
        register(&registry, id).await;
    }
    let mut difference = Vec::new();
    while difference.len() < 2 {
        let change = next(&mut watch).await;
        // The beginning of the new history may be told by its own changes.
        if change.kind == ChangeKind::Leave {
            assert!(change.synthesized && change.position.epoch != from.epoch);
        }
        difference.push(format!("{} {}", change.kind.as_str(), change.id()));
    }
    assert!(
        difference.contains(&"leave a".to_string()) || difference.contains(&"leave b".to_string()),
        "{difference:?}"
    );
    // Nothing to compare with.
    let error = registry.watch_after("camera", from).next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(&Code::Compacted));
}

#[tokio::test]
async fn a_service_that_does_not_meet_the_filter_any_more_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    let mut watch = registry.watch(Filter::of_type("camera").metadata("room", 4)).await.unwrap();
    let with = |room: u64| camera("a").metadata("room", room).ttl(600 * SECOND).as_request();
    for room in [4, 5, 4] {
        registry.request("register", with(room)).await.unwrap();
    }
    assert_eq!(told(&mut watch, 3).await, ["register a", "leave a", "register a"]);
}

#[tokio::test]
async fn a_watch_is_refused_what_it_may_not_see_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    let wrong = Filter::all().version("no version");
    assert_eq!(registry.watch(wrong.clone()).await.unwrap_err().code(), Some(&Code::InvalidRequest));
    let position = registry.list(Filter::all()).await.unwrap().position.unwrap();
    let mut watch = registry.watch_after(wrong, position);
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Some(&Code::InvalidRequest));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_cache_answers_while_the_registry_is_away_and_says_how_old_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), SQLITE);
    let (registry, ports) = (client_of(host.requests), host.ports());
    for id in ["a", "b"] {
        register(&registry, id).await;
    }
    let cache = Arc::new(registry.cache("camera"));
    assert!(cache.age().is_none() && cache.discover("camera").is_err(), "nobody can tell yet");
    cache.ready(PATIENCE).await.unwrap();
    assert_eq!(cache.list().unwrap().len(), 2);
    let there = |id: &'static str| {
        let cache = cache.clone();
        move || {
            let found = cache.get(id).unwrap().is_some();
            async move { found }
        }
    };
    register(&registry, "c").await;
    eventually("it is in the cache", there("c")).await;
    host.kill();
    let before = cache.age().unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(cache.age().unwrap() >= before + 900 * MILLISECOND);
    assert_eq!(cache.list().unwrap().len(), 3);
    assert!(cache.discover("camera").unwrap().is_some() && cache.discover("stage").unwrap().is_none());
    let _host = start_again(directory.path(), SQLITE, ports).await;
    let back = Instant::now();
    eventually("that is still all", || async { cache.age().unwrap() < 900 * MILLISECOND }).await;
    assert!(back.elapsed() < 8 * SECOND, "{:?}: it is asked with the first request", back.elapsed());
    register(&registry, "d").await;
    eventually("it is in the cache", there("d")).await;
    registry.deregister("a", None).await.unwrap();
    eventually("it is out of the cache", || async { cache.get("a").unwrap().is_none() }).await;
    assert!(cache.age().unwrap() < 5 * SECOND);
}

#[tokio::test]
async fn a_cache_of_a_registry_that_was_never_there_says_that_nobody_knows() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cache = hasty_client_of(port, 200 * MILLISECOND).cache(Filter::all());
    let error = cache.ready(400 * MILLISECOND).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    assert!(matches!(cache.list(), Err(Error::Unreachable { .. })));
}
