//! Hosts and networks that fail.

use super::proxy::{Mode, Proxy};
use super::*;

#[tokio::test]
async fn a_reply_that_comes_late_answers_no_other_question() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let direct = client_of(host.requests);
    let mut kept = Vec::new();
    for number in 0..10 {
        kept.push(direct.register(camera(&format!("camera-{number}"))).await.unwrap());
    }
    let network = Proxy::to(host.requests).await;
    let registry = hasty_client_of(network.port, 300 * MILLISECOND);
    registry.health().await.unwrap();
    network.set(Mode::Late(400 * MILLISECOND));
    for number in 0..5 {
        assert!(registry.get(&format!("camera-{number}")).await.is_err(), "it cannot have come in time");
    }
    network.set(Mode::Forward);
    // Old answers arrive while others are asked for.
    let begun = Instant::now();
    let mut answered = 0;
    while begun.elapsed() < 3 * SECOND {
        for number in 5..10 {
            let id = format!("camera-{number}");
            if let Ok(record) = registry.get(&id).await {
                assert_eq!(record.id(), id);
                answered += 1;
            }
        }
    }
    assert!(answered > 10, "{answered}");
}

#[tokio::test]
async fn a_network_that_hangs_keeps_nobody_longer_than_the_time_out() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let network = Proxy::to(host.requests).await;
    let registry = hasty_client_of(network.port, 400 * MILLISECOND);
    registry.health().await.unwrap();
    network.set(Mode::Hang);
    for _ in 0..3 {
        let begun = Instant::now();
        let error = registry.list("camera").await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. } | Error::Unreachable { .. }), "{error}");
        assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    }
    network.set(Mode::Forward);
    eventually("it answers", || async { registry.health().await.is_ok() }).await;
}

#[tokio::test]
async fn a_host_that_is_stopped_is_noticed_although_nobody_asks_for_anything() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let builder = Registry::builder().host(format!("127.0.0.1:{}", host.requests)).dead_after(600 * MILLISECOND);
    let registry = builder.connect_timeout(300 * MILLISECOND).connect().unwrap();
    registry.health().await.unwrap();
    let mut connectivity = registry.connectivity();
    connectivity.borrow_and_update();
    // As long as it lives, silence is none.
    tokio::time::sleep(2 * SECOND).await;
    assert!(!connectivity.has_changed().unwrap());
    host.signal("STOP");
    let is_away = |now: &registry_client::Connectivity| matches!(now, registry_client::Connectivity::Away { .. });
    tokio::time::timeout(PATIENCE, connectivity.wait_for(is_away)).await.expect("it is noticed").unwrap();
    host.signal("CONT");
    eventually("it answers", || async { registry.health().await.is_ok() }).await;
}

#[tokio::test]
async fn of_several_hosts_one_that_answers_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    // One that refuses, one that says nothing, and one that is there.
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [refusing, silent.local_addr().unwrap().port(), host.requests];
    let hosts = ports.map(|port| format!("127.0.0.1:{port}"));
    let registry = Registry::builder().hosts(hosts).connect_timeout(300 * MILLISECOND).connect().unwrap();
    let begun = Instant::now();
    registry.health().await.unwrap();
    assert!(begun.elapsed() < 3 * SECOND);
}

#[tokio::test]
async fn where_no_registry_is_a_call_says_why() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let begun = Instant::now();
    let error = hasty_client_of(port, 300 * MILLISECOND).health().await.unwrap_err();
    assert_eq!(error.to_string(), format!("connection refused by 127.0.0.1:{port}: nothing listens"));
    assert!(matches!(error, Error::Unreachable { .. }) && begun.elapsed() >= 250 * MILLISECOND);
}

#[tokio::test]
async fn calls_wait_for_a_host_that_is_being_restarted() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), SQLITE);
    let (registry, ports) = (client_of(host.requests), host.ports());
    let kept = registry.register(camera("a")).await.unwrap();
    host.kill();
    let asking = tokio::spawn(async move { registry.get("a").await });
    let _host = start_again(directory.path(), SQLITE, ports).await;
    assert_eq!(asking.await.unwrap().unwrap().id(), "a");
    kept.close().await.unwrap();
}
