//! Services that are kept registered.

use std::sync::{Arc, Mutex};

use registry_client::{Service, State};
use serde_json::json;

use super::proxy::{Mode, Proxy};
use super::*;

/// With heartbeats that are not far apart.
fn lively(id: &str) -> ServiceInfo {
    camera(id).ttl(900 * MILLISECOND)
}

#[tokio::test]
async fn a_service_stays_for_as_long_as_it_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), &format!("server.cleanup_interval = 0.1\n{MEMORY}"));
    let registry = client_of(host.requests);
    let kept = registry.register(lively("a")).await.unwrap();
    for _ in 0..15 {
        tokio::time::sleep(200 * MILLISECOND).await;
        assert!(registry.get("a").await.unwrap().is_passing());
    }
    assert_eq!(kept.registrations(), 1);
    kept.close().await.unwrap();
    assert!(!is_there(&registry, "a").await);
}

#[tokio::test]
async fn a_host_that_has_forgotten_a_service_gets_it_again_with_all_that_belongs_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let (registry, ports) = (client_of(host.requests), host.ports());
    let info = lively("a").tag("north").metadata("room", 4).metadata("floor", 1).field("protocol", "tcp");
    let kept = registry.register(info.singleton(true)).await.unwrap();
    kept.update(json!({"room": 5, "floor": null}).as_object().unwrap().clone()).await.unwrap();
    let shown = |record: registry_client::Record| {
        let mut fields = record.fields().clone();
        fields.retain(|field, _| !["last_heartbeat", "generation", "instance"].contains(&field.as_str()));
        fields
    };
    let before = shown(registry.get("a").await.unwrap());
    assert_eq!(before["metadata"], json!({"room": 5, "type": "camera"}));
    host.kill();
    let host = start_again(directory.path(), MEMORY, ports).await;
    eventually("it is registered again", || is_there(&registry, "a")).await;
    assert_eq!(shown(registry.get("a").await.unwrap()), before);
    assert_eq!(kept.state(), State::Registered);
    drop(host);
}

#[tokio::test]
async fn a_service_that_somebody_else_deregistered_is_not_brought_back() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    let kept = registry.register(lively("a")).await.unwrap();
    client_of(host.requests).deregister("a", None).await.unwrap();
    let state = tokio::time::timeout(PATIENCE, kept.over()).await.unwrap();
    assert_eq!(state, State::Deregistered);
    tokio::time::sleep(SECOND).await;
    assert!(!is_there(&registry, "a").await);
    kept.close().await.unwrap();
}

#[tokio::test]
async fn of_two_processes_with_one_id_the_first_gives_way() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let first = client_of(host.requests).register(lively("a")).await.unwrap();
    let registry = client_of(host.requests);
    let second = registry.register(lively("a").metadata("is", "second")).await.unwrap();
    let state = tokio::time::timeout(PATIENCE, first.over()).await.unwrap();
    assert_eq!(state, State::Replaced);
    // Whatever the first one does, it is not the second one's end.
    first.close().await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(registry.get("a").await.unwrap().metadata("is"), Some(&json!("second")));
    assert_eq!(second.state(), State::Registered);
}

#[tokio::test]
async fn a_registration_that_is_dropped_is_deregistered() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    drop(registry.register(camera("a")).await.unwrap());
    eventually("it is gone", || async { !is_there(&registry, "a").await }).await;
    // A runtime that ends at once has no time for it, and does it all the same.
    let port = host.requests;
    blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { drop(client_of(port).register(camera("b")).await.unwrap()) });
    })
    .await;
    eventually("it is gone", || async { !is_there(&registry, "b").await }).await;
}

#[tokio::test]
async fn a_client_that_is_closed_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    let (first, _second) =
        (registry.register(camera("a")).await.unwrap(), registry.register(camera("b")).await.unwrap());
    let mut watch = registry.watch("camera").await.unwrap();
    let watching = tokio::spawn(async move { while watch.next().await.transpose().unwrap().is_some() {} });
    let same = registry.clone();
    registry.close().await;
    assert_eq!(first.over().await, State::Closed);
    tokio::time::timeout(PATIENCE, watching).await.expect("it ends").unwrap();
    assert!(matches!(same.health().await, Err(Error::Closed)));
    assert!(matches!(same.register(camera("c")).await, Err(Error::Closed)));
    assert!(client_of(host.requests).list("camera").await.unwrap().services.is_empty());
}

#[tokio::test]
async fn a_service_does_not_need_a_registry_to_begin_with() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let ports = host.ports();
    host.kill();
    let registry = hasty_client_of(ports[0], 300 * MILLISECOND);
    let service = Service::start_with(registry.clone(), camera("a")).await.unwrap();
    assert_eq!(service.registration().state(), State::Unsure);
    let _host = start_again(directory.path(), MEMORY, ports).await;
    eventually("it is registered", || is_there(&registry, "a")).await;
    assert_eq!(service.registration().state(), State::Registered);
    let other = Service::start_with(client_of(ports[0]), camera("b").singleton(true)).await.unwrap_err();
    assert_eq!(other.code(), Some(&Code::DuplicateServiceType));
    service.close().await.unwrap();
    assert!(!is_there(&client_of(ports[0]), "a").await);
}

#[tokio::test]
async fn a_service_whose_address_changes_is_registered_with_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let own = client_of(host.requests).register(ServiceInfo::new("a", 1)).await.unwrap();
    assert_eq!(own.host().as_deref(), Some("127.0.0.1"), "towards the registry");
    let address = Arc::new(Mutex::new("10.0.0.1".to_string()));
    let found = address.clone();
    let builder = Registry::builder().host(format!("127.0.0.1:{}", host.requests));
    let registry = builder.address(move || Some(found.lock().unwrap().clone())).connect().unwrap();
    let kept = registry.register(ServiceInfo::new("b", 1).id("b").ttl(900 * MILLISECOND)).await.unwrap();
    assert_eq!(registry.get("b").await.unwrap().host(), Some("10.0.0.1"));
    *address.lock().unwrap() = "10.0.0.2".to_string();
    eventually("it has moved", || async { registry.get("b").await.unwrap().host() == Some("10.0.0.2") }).await;
    assert_eq!((kept.host().as_deref(), kept.registrations()), (Some("10.0.0.2"), 2));
}

#[tokio::test]
async fn a_service_that_is_not_taken_back_is_tried_again_until_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), &format!("server.cleanup_interval = 0.1\n{MEMORY}"));
    let network = Proxy::to(host.requests).await;
    let mut first = client_of(network.port).register(lively("a").singleton(true)).await.unwrap();
    network.set(Mode::Hang);
    let registry = client_of(host.requests);
    eventually("it expires", || async { !is_there(&registry, "a").await }).await;
    let second = registry.register(lively("b").singleton(true)).await.unwrap();
    network.set(Mode::Forward);
    while first.state() != State::Refused {
        tokio::time::timeout(PATIENCE, first.changed()).await.expect("it is refused");
    }
    second.close().await.unwrap();
    eventually("it is taken back", || is_there(&registry, "a")).await;
    eventually("it knows", || async { first.state() == State::Registered }).await;
}

#[tokio::test]
async fn who_was_never_registered_removes_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let network = Proxy::to(host.requests).await;
    network.set(Mode::Hang);
    // It does not know whether it is registered.
    let registry = hasty_client_of(network.port, 300 * MILLISECOND);
    let never = Service::start_with(registry, camera("a")).await.unwrap();
    assert_eq!(never.registration().state(), State::Unsure);
    let other = client_of(host.requests);
    let kept = other.register(camera("a").metadata("is", "other")).await.unwrap();
    let closing = tokio::spawn(async move { never.registration().close_within(PATIENCE).await });
    tokio::time::sleep(50 * MILLISECOND).await;
    network.set(Mode::Forward);
    closing.await.unwrap().unwrap();
    assert!(is_there(&other, "a").await);
    kept.close().await.unwrap();
}

#[tokio::test]
async fn a_service_that_ends_while_the_registry_is_away_has_not_failed() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = hasty_client_of(host.requests, 300 * MILLISECOND);
    let service = Service::start_with(registry, camera("a")).await.unwrap();
    assert_eq!(service.registration().state(), State::Registered);
    host.kill();
    service.run_until(async {}).await.unwrap();
}

#[tokio::test]
async fn a_service_ends_within_one_timeout_however_many_others_its_client_keeps() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = hasty_client_of(host.requests, 2 * SECOND);
    let others = [registry.register(camera("b")).await.unwrap(), registry.register(camera("c")).await.unwrap()];
    let service = Service::start_with(registry, camera("a")).await.unwrap();
    host.kill();
    // One of them has something to do that takes its time.
    let patch = json!({"a": 1}).as_object().unwrap().clone();
    let _ = tokio::time::timeout(50 * MILLISECOND, others[0].update(patch)).await;
    let begin = std::time::Instant::now();
    let error = service.close().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(begin.elapsed() < 3 * SECOND, "{:?}", begin.elapsed());
    assert_eq!(others[1].state(), State::Closed);
}
