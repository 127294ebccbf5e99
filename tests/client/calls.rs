//! Calls, when all is well.

use std::collections::HashSet;

use registry_client::{Filter, Registry, keys};
use serde_json::{Value, json};

use super::*;

/// Registers services and leaves them to their ttl, which is long.
async fn register_all(registry: &Registry, services: impl IntoIterator<Item = ServiceInfo>) {
    for service in services {
        let reply = registry.request("register", service.ttl(600 * SECOND).as_request()).await.unwrap();
        assert_eq!(reply["success"], true);
    }
}

#[tokio::test]
async fn a_list_has_every_service_once_however_many_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    register_all(&registry, (0..1234).map(|number| camera(&format!("camera-{number}")))).await;
    let listing = registry.list("camera").await.unwrap();
    let ids: HashSet<&str> = listing.services.iter().map(|record| record.id()).collect();
    assert_eq!((listing.services.len(), ids.len()), (1234, 1234));
    assert_eq!(listing.position.unwrap().revision, 1234);
    let types = registry.types().await.unwrap();
    assert_eq!(types["camera"].passing, 1234);
}

#[tokio::test]
async fn filters_mean_the_same_in_list_and_discover() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    register_all(
        &registry,
        [
            camera("a").tag("north").metadata("room", 4).field("version", "1.2.3"),
            camera("b").tag("north").metadata("room", 5).field("version", "1.9.0"),
            camera("c").tag("south").metadata("room", 4).field("version", "2.0.0"),
        ],
    )
    .await;
    let cases = [
        (Filter::of_type("camera"), "abc"),
        (Filter::all().tag("north"), "ab"),
        (Filter::of_type("camera").metadata("room", 4), "ac"),
        (Filter::of_type("camera").version("^1.2"), "ab"),
        (Filter::of_type("camera").tag("north").metadata("room", 4).version("<2"), "a"),
        (Filter::of_type("stage"), ""),
    ];
    for (filter, expected) in cases {
        let mut listed: Vec<String> =
            registry.list(filter.clone()).await.unwrap().services.iter().map(|record| record.id().into()).collect();
        listed.sort();
        assert_eq!(listed.concat(), expected, "{filter:?}");
        if filter != Filter::all().tag("north") {
            let mut found: Vec<String> = registry
                .discover_many(filter.clone(), 10)
                .await
                .unwrap()
                .iter()
                .map(|record| record.id().into())
                .collect();
            found.sort();
            assert_eq!(found.concat(), expected, "{filter:?}");
        }
    }
    let few = registry.list(Filter::of_type("camera").field("port")).await.unwrap().services;
    assert_eq!(Value::from(few[0].clone()), json!({"id": "a", "port": 7000}));
    let none = registry.discover(Filter::of_type("camera").version(">9")).await.unwrap_err();
    assert_eq!(none.code(), Some(&Code::NoneHealthy));
}

#[tokio::test]
async fn many_ask_at_once_and_each_gets_its_own_answer() {
    let directory = tempfile::tempdir().unwrap();
    // Registrations wait for the disk, and reads do not: so answers come in another order than questions.
    let host = Host::start(directory.path(), SQLITE);
    let registry = client_of(host.requests);
    register_all(&registry, (0..20).map(|number| camera(&format!("camera-{number}")))).await;
    let asking = (0..1000).map(|number| {
        let registry = registry.clone();
        tokio::spawn(async move {
            let id = format!("camera-{}", number % 25);
            if number % 10 == 3 {
                let new = format!("new-{number}");
                return registry.request("register", camera(&new).as_request()).await.unwrap()["service_id"] == new;
            }
            match registry.get(&id).await {
                Ok(record) => record.id() == id,
                Err(error) => number % 25 >= 20 && error.code() == Some(&Code::NotFound),
            }
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        assert!(asked.await.unwrap());
    }
}

#[tokio::test]
async fn a_service_that_comes_later_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    let begun = Instant::now();
    let none = registry.discover_within("camera", 300 * MILLISECOND).await.unwrap_err();
    assert_eq!(none.code(), Some(&Code::NoneHealthy));
    assert!(begun.elapsed() >= 250 * MILLISECOND);
    let waiting = tokio::spawn({
        let registry = registry.clone();
        async move { registry.discover_within("camera", PATIENCE).await }
    });
    tokio::time::sleep(300 * MILLISECOND).await;
    register_all(&registry, [camera("a")]).await;
    assert_eq!(waiting.await.unwrap().unwrap().id(), "a");
}

#[tokio::test]
async fn refusals_are_told_by_code_words_and_field() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    let Err(Error::Refused(refusal)) = registry.register(ServiceInfo::new("", 1).host("h")).await else {
        panic!("a service without a name is registered");
    };
    assert_eq!((&refusal.code, refusal.field.as_deref()), (&Code::InvalidRequest, Some("service_info.name")));
    let one = registry.register(camera("a").singleton(true)).await.unwrap();
    let other = registry.register(camera("b").singleton(true)).await.unwrap_err();
    assert_eq!(other.code(), Some(&Code::DuplicateServiceType));
    one.close().await.unwrap();
    assert!(registry.health().await.unwrap().ready);
    assert_eq!(registry.info().await.unwrap()["req_port"], host.requests);
}

#[tokio::test]
async fn keys_and_unix_sockets_are_spoken() {
    let directory = tempfile::tempdir().unwrap();
    let config = harness::keys::make(directory.path()) + MEMORY;
    let host = Host::start(directory.path(), &config);
    let file = |name: &str| directory.path().join(name).display().to_string();
    let builder = |who: &str| {
        let keys = keys::load(file(&format!("{who}.key_secret")), &file("registry.key")).unwrap();
        Registry::builder().keys(keys).timeout(SECOND)
    };
    let over_tcp = builder("camera").host(format!("127.0.0.1:{}", host.requests)).connect().unwrap();
    let camera = over_tcp.register(camera("a")).await.unwrap();
    let over_ipc = builder("stage").host(format!("ipc://{}", file("ipc/requests"))).connect().unwrap();
    assert_eq!(over_ipc.discover("camera").await.unwrap().id(), "a");
    let own = over_ipc.register(ServiceInfo::new("here", 1)).await.unwrap();
    assert_eq!(own.host().as_deref(), Some("127.0.0.1"));
    let forbidden = over_ipc.deregister("a", None).await.unwrap_err();
    assert_eq!(forbidden.code(), Some(&Code::Forbidden));
    camera.close().await.unwrap();
    let stranger = builder("stranger").host(format!("127.0.0.1:{}", host.requests)).connect().unwrap();
    let error = stranger.health().await.unwrap_err().to_string();
    assert!(error.ends_with("does not know this client's public key"), "{error}");
    let plain = hasty_client_of(host.requests, SECOND).health().await.unwrap_err().to_string();
    assert!(plain.ends_with("asks for keys"), "{plain}");
}

#[tokio::test]
async fn what_happened_to_a_service_can_be_asked() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let registry = client_of(host.requests);
    registry.register(camera("a")).await.unwrap().close().await.unwrap();
    let history = registry.history("a").await.unwrap();
    let what: Vec<&str> = history.iter().map(|entry| entry.what.as_str()).collect();
    assert_eq!(what, ["registered", "deregistered"]);
    assert!(history.iter().all(|entry| entry.address.as_ref().is_some_and(|by| by.starts_with("127.0.0.1:"))));
}
