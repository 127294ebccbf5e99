//! What is in etcd, whose it is, and what it refuses.

use registry_plugin_api::{Backend, Change, ErrorKind, Outcome, Position, Put, Record, Renew};
use serde_json::json;

use crate::common::{Place, open};
use crate::stores::{commit, contents, ids, put, remove};

#[tokio::test]
async fn a_group_larger_than_a_transaction_is_made_in_order() {
    let Some(place) = Place::new().await else { return };
    let store = place.open().await.unwrap();
    commit(&store, 1, &[put("old", 1)]).await.unwrap();
    // 3,000 changes of which many are of one id, as the host may send them.
    let mut changes = Vec::new();
    for number in 0..1000_u64 {
        changes.push(put(&format!("service-{number:04}"), 2 + 3 * number));
        changes.push(put("busy", 3 + 3 * number));
        changes.push(remove("busy", 4 + 3 * number));
    }
    changes.extend([remove("old", 3002), put("old", 3003), Renew::new("old", 7).into(), Renew::new("none", 8).into()]);
    changes.extend([remove("none", 3004), put("last", 3005)]);
    let outcomes = commit(&store, 3005, &changes).await.unwrap();
    let (of_many, of_last) = outcomes.split_at(3000);
    assert!(of_many.iter().all(|outcome| *outcome == Outcome::Done));
    use Outcome::{Done, Missing};
    assert_eq!(of_last, [Done, Done, Done, Missing, Missing, Done]);
    let found = contents(&store).await;
    assert_eq!(found.0, Some(Position::new("epoch", 3005)));
    assert_eq!(found.1.len(), 1002);
    let old = found.1.iter().find(|record| record.id == "old").unwrap();
    assert_eq!((old.revision, old.last_heartbeat_ms), (3003, 7));
    assert!(!ids(&found).contains(&"busy"));
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_service_that_etcd_cannot_take_is_refused_alone() {
    let Some(place) = Place::new().await else { return };
    let store = place.open().await.unwrap();
    commit(&store, 1, &[]).await.unwrap();
    let large = |id, bytes| -> Change { Put::new(Record::new(id, "x".repeat(bytes))).into() };
    // The second is larger than a request may be; the third is not, but does not fit beside others.
    let changes =
        [put("a", 2), large("largest", 2 << 20), large("large", 1 << 20), put("b", 5), large("huge", 3 << 20)];
    let outcomes = commit(&store, 6, &changes).await.unwrap();
    for refused in [&outcomes[1], &outcomes[4]] {
        let Outcome::Refused(error) = refused else { panic!("{outcomes:?}") };
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    assert_eq!([&outcomes[0], &outcomes[2], &outcomes[3]], [&Outcome::Done; 3]);
    let found = contents(&store).await;
    assert_eq!(ids(&found), ["a", "b", "large"]);
    assert_eq!(found.0, Some(Position::new("epoch", 6)));
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_part_of_a_group_that_turns_out_too_large_is_made_in_smaller_ones() {
    let Some(place) = Place::new().await else { return };
    let store = place.open().await.unwrap();
    commit(&store, 1, &[]).await.unwrap();
    // Each takes six times as much in etcd as it has.
    let put = |number: u64| -> Change {
        let mut record = Record::new(format!("service-{number}"), "{}");
        record.types = vec!["\u{1}".repeat(100_000)];
        record.revision = number;
        Put::new(record).into()
    };
    let changes: Vec<Change> = (2..12).map(put).collect();
    assert_eq!(commit(&store, 11, &changes).await.unwrap(), vec![Outcome::Done; 10]);
    assert_eq!(contents(&store).await.1.len(), 10);
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_heartbeat_counts_until_the_service_registers_again() {
    let Some(place) = Place::new().await else { return };
    let store = place.open().await.unwrap();
    let heartbeats = async || {
        let found = contents(&store).await.1;
        found.iter().map(|record| (record.id.clone(), record.last_heartbeat_ms)).collect::<Vec<_>>()
    };
    commit(&store, 2, &[put("a/b", 1), put("a", 2)]).await.unwrap();
    commit(&store, 2, &[Renew::new("a", 5).into(), Renew::new("a/b", 6).into()]).await.unwrap();
    assert_eq!(heartbeats().await, [("a/b".to_string(), 6), ("a".to_string(), 5)]);
    commit(&store, 3, &[put("a", 3)]).await.unwrap();
    assert_eq!(heartbeats().await, [("a/b".to_string(), 6), ("a".to_string(), 0)]);
    // Nothing of a service outlives it.
    commit(&store, 5, &[remove("a", 4), remove("a/b", 5)]).await.unwrap();
    assert_eq!(place.services().await, Vec::<String>::new());
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_store_that_comes_from_a_snapshot_has_no_position() {
    let Some(place) = Place::new().await else { return };
    let store = place.open().await.unwrap();
    commit(&store, 1, &[put("a", 1)]).await.unwrap();
    store.close().await.unwrap();
    let store = place.open().await.unwrap();
    assert_eq!(contents(&store).await.0, Some(Position::new("epoch", 1)));
    store.close().await.unwrap();
    // As it is in a cluster that was made from a snapshot.
    place.put("head", r#"{"epoch":"epoch","revision":1,"cluster":"abc"}"#).await;
    let store = place.open().await.unwrap();
    let found = contents(&store).await;
    assert_eq!((found.0.as_ref(), ids(&found)), (None, vec!["a"]));
    store.close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn a_prefix_of_another_program_or_another_format_is_refused_and_left_as_it_is() {
    let Some(place) = Place::new().await else { return };
    place.put("somebody", "else's").await;
    let error = place.open().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("belongs to another program"), "{error}");
    assert!(!place.has("owner").await && !place.has("format").await);
    place.put("format", "2").await;
    let error = place.open().await.err().unwrap();
    assert!(error.message().contains("another version of the registry (format 2, expected 1)"), "{error}");
    place.remove().await;
}

#[tokio::test]
async fn a_second_host_is_refused_until_the_first_has_closed_the_store() {
    let Some(place) = Place::new().await else { return };
    let first = place.open().await.unwrap();
    let error = place.open().await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let who = format!("is in use by another registry host (process {} on ", std::process::id());
    assert!(error.message().contains(&who), "{error}");
    commit(&first, 1, &[put("a", 1)]).await.unwrap();
    first.close().await.unwrap();
    assert!(!place.has("owner").await);
    place.open().await.unwrap().close().await.unwrap();
    place.remove().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_options_is_named() {
    let refused = async |options| open(options).await.err().unwrap();
    let endpoint = "http://127.0.0.1:1";
    for (options, name) in [
        (json!({ "endpoints": " , " }), "\"endpoints\""),
        (json!({ "endpoints": "http://a b:1" }), "\"endpoints\""),
        (json!({ "endpoints": "http://user:sesame@127.0.0.1:1" }), "\"endpoints\""),
        (json!({ "endpoints": endpoint, "prefix": "/" }), "\"prefix\""),
        (json!({ "endpoints": endpoint, "password": "sesame" }), "\"user\""),
        (json!({ "endpoints": endpoint, "ca": "/no/such.pem" }), "\"ca\""),
        (json!({ "endpoints": endpoint, "cert": "/no/such.pem" }), "\"key\""),
        (json!({ "endpoints": endpoint, "key": "/no/such.pem" }), "\"cert\""),
    ] {
        let error = refused(options).await;
        assert_eq!(error.kind(), ErrorKind::InvalidOption, "{error}");
        assert!(error.message().contains(name) && !error.message().contains("sesame"), "{error}");
    }
    let error = refused(json!({ "endpoints": endpoint })).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().starts_with("cannot reach etcd at http://127.0.0.1:1: "), "{error}");
}
