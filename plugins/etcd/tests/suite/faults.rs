//! Connections that are lost, frozen or deaf, and hosts that come in between: what was acknowledged is there, and what
//! was given up never lands.

use std::time::Duration;

use registry_etcd::Etcd;
use registry_plugin_api::{Backend, ErrorKind};
use tokio::time::{sleep, timeout};

use crate::common::Place;
use crate::stores::{Proxy, Wire, commit, contents, given_up, ids, lost, put};

/// A store that is reached by a wire which can fail.
async fn begin() -> Option<(Place, Proxy, Etcd)> {
    let place = Place::new().await?;
    let proxy = Proxy::to(place.endpoint.trim_start_matches("http://").to_string()).await;
    let store = place.open_at(&format!("http://127.0.0.1:{}", proxy.port)).await.unwrap();
    commit(&store, 1, &[put("first", 1)]).await.unwrap();
    Some((place, proxy, store))
}

#[tokio::test]
async fn a_commit_that_was_given_up_does_not_land_after_the_next_one() {
    let Some((place, proxy, store)) = begin().await else { return };
    given_up(&store, &proxy).await;
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_an_error_and_the_next_one_goes_on_from_what_is_there() {
    let Some((place, proxy, store)) = begin().await else { return };
    let stored = async || place.services().await == ["first", "lost"];
    lost(&store, &proxy, stored, "cannot reach etcd at http://127.0.0.1:").await;
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_host_that_was_cut_off_does_not_write_where_another_one_has_come() {
    let Some((place, proxy, store)) = begin().await else { return };
    proxy.set(Wire::Frozen);
    // The lease runs out.
    while place.has("owner").await {
        sleep(Duration::from_millis(50)).await;
    }
    let second = place.open().await.unwrap();
    commit(&second, 2, &[put("second", 2)]).await.unwrap();
    second.close().await.unwrap();
    drop(second);
    proxy.set(Wire::Passes);
    for _ in 0..2 {
        let error = commit(&store, 2, &[put("stale", 2)]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("another host has taken over the store"), "{error}");
    }
    assert_eq!(place.services().await, ["first", "second"]);
    // Nor does it keep others out.
    drop(store);
    let third = place.open().await.unwrap();
    third.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_host_whose_lease_has_run_out_goes_on_if_nobody_has_come() {
    let Some((place, proxy, store)) = begin().await else { return };
    proxy.set(Wire::Frozen);
    while place.has("owner").await {
        sleep(Duration::from_millis(50)).await;
    }
    proxy.set(Wire::Passes);
    commit(&store, 2, &[put("second", 2)]).await.unwrap();
    // And takes a lease again.
    while !place.has("owner").await {
        sleep(Duration::from_millis(50)).await;
    }
    let error = place.open().await.err().unwrap();
    assert!(error.message().contains("in use by another registry host"), "{error}");
    store.close().await.unwrap();
    assert!(!place.has("owner").await);
    place.remove().await;
}

#[tokio::test]
async fn a_host_that_died_without_a_word_keeps_others_out_until_its_lease_ends() {
    let Some((place, _proxy, store)) = begin().await else { return };
    drop(store);
    assert!(place.has("owner").await);
    let second = place.open().await.unwrap();
    assert_eq!(ids(&contents(&second).await), ["first"]);
    second.close().await.unwrap();
    place.remove().await;
}

/// Two wires stand for two members.
#[tokio::test]
async fn a_member_that_is_dead_or_frozen_costs_one_call() {
    let Some((place, first, store)) = begin().await else { return };
    store.close().await.unwrap();
    let second = Proxy::to(place.endpoint.trim_start_matches("http://").to_string()).await;
    let endpoints = [1, first.port, second.port].map(|port| format!("http://127.0.0.1:{port}")).join(",");
    // With nobody at the first.
    let store = place.open_at(&endpoints).await.unwrap();
    for revision in 2..20 {
        commit(&store, revision, &[put("dead", revision)]).await.unwrap();
    }
    first.set(Wire::Frozen);
    let given_up = timeout(Duration::from_millis(300), commit(&store, 20, &[put("late", 20)])).await;
    assert!(given_up.is_err());
    for revision in 21..40 {
        commit(&store, revision, &[put("frozen", revision)]).await.unwrap();
    }
    // The lease is kept by another member as well, or taken again there.
    sleep(Duration::from_secs(4)).await;
    while !place.has("owner").await {
        sleep(Duration::from_millis(50)).await;
    }
    first.set(Wire::Passes);
    second.set(Wire::Cut);
    commit(&store, 40, &[put("cut", 40)]).await.unwrap_err();
    commit(&store, 40, &[put("cut", 40)]).await.unwrap();
    assert_eq!(ids(&contents(&store).await), ["cut", "dead", "first", "frozen"]);
    store.close().await.unwrap();
    place.remove().await;
}

/// As when a cluster is restored from a snapshot while a host runs.
#[tokio::test]
async fn a_cluster_that_has_lost_what_it_had_acknowledged_is_not_written_to() {
    let Some((place, proxy, store)) = begin().await else { return };
    let head = place.etcd.kv_client().get(place.key("head"), None).await.unwrap();
    let head = head.kvs()[0].value_str().unwrap().to_string();
    commit(&store, 2, &[put("second", 2)]).await.unwrap();
    proxy.set(Wire::Cut);
    commit(&store, 3, &[put("third", 3)]).await.unwrap_err();
    place.put("head", &head).await;
    proxy.set(Wire::Passes);
    let error = commit(&store, 3, &[put("third", 3)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("has lost changes that it had acknowledged"), "{error}");
    assert_eq!(place.services().await, ["first", "second"]);
    store.close().await.unwrap();
    drop(store);
    // Whoever comes begins a new epoch.
    let store = place.open().await.unwrap();
    assert_eq!(contents(&store).await.0, None);
    store.close().await.unwrap();
    place.remove().await;
}
