//! Every call of a backend, with all that goes in and comes out, and what the host makes of answers that cannot be.

use registry_plugin_api::{Change, Cursor, ErrorKind, Observed, Outcome, Query, Record, RemoveReason};
use serde_json::{Map, json};

use crate::{assert_works, block_on, chaos, commit, in_time, load, options, poll_once, put};

#[tokio::test]
async fn load_is_forwarded_with_all_fields() {
    let page = in_time(chaos().await.load(Cursor::after("here"))).await.unwrap();
    let mut record = Record::new("after here", "{\"chaos\":true}");
    record.types = vec!["one".to_string(), "two".to_string()];
    (record.ttl_ms, record.last_heartbeat_ms, record.revision) = (1, 2, 3);
    assert_eq!((page.epoch.as_str(), page.revision), ("chaos", 42));
    assert_eq!(page.records, [record]);
    assert_eq!(page.next, Some(Cursor::after("next")));
}

#[tokio::test]
async fn commit_is_forwarded_with_all_fields() {
    let mut record = Record::new("chaos:echo", "{}");
    record.types = vec!["one".to_string(), "zwei".to_string()];
    (record.ttl_ms, record.last_heartbeat_ms, record.revision) = (u64::MAX, 2, 0);
    let id = || "chaos:echo".to_string();
    let changes = vec![
        Change::Put { record: record.clone(), unique: Some("one".to_string()) },
        Change::Put { record, unique: None },
        Change::Remove { id: id(), reason: RemoveReason::Deregistered },
        Change::Remove { id: id(), reason: RemoveReason::Expired },
        Change::Renew { id: id(), last_heartbeat_ms: 7 },
    ];
    let outcomes = in_time(chaos().await.commit(changes.clone())).await.unwrap();
    for (change, outcome) in changes.iter().zip(outcomes) {
        let Outcome::Refused(echo) = outcome else { panic!("{outcome:?}") };
        assert_eq!((echo.kind(), echo.message()), (ErrorKind::Corrupt, format!("{change:?}").as_str()));
    }
}

#[tokio::test]
async fn outcomes_come_back_in_order() {
    let changes = vec![put("chaos:missing", ""), put("id", ""), put("chaos:conflict", "")];
    let outcomes = in_time(chaos().await.commit(changes)).await.unwrap();
    let conflict = Outcome::Conflict { id: "other".to_string() };
    assert_eq!(outcomes, [Outcome::Missing, Outcome::Done { revision: 42 }, conflict]);
}

#[tokio::test]
async fn watch_is_forwarded() {
    let backend = chaos().await;
    let id = || "watched".to_string();
    let expected = [
        Observed::new(8, put("watched", "{}")),
        Observed::new(9, Change::Renew { id: id(), last_heartbeat_ms: 5 }),
        Observed::new(10, Change::Remove { id: id(), reason: RemoveReason::Deregistered }),
        Observed::new(11, Change::Remove { id: id(), reason: RemoveReason::Expired }),
    ];
    assert_eq!(in_time(backend.watch(7)).await.unwrap(), expected);
    assert_eq!(in_time(backend.watch(0)).await.unwrap_err().kind(), ErrorKind::HistoryLost);
}

#[tokio::test]
async fn discover_is_forwarded() {
    let backend = chaos().await;
    let query = |service_type: &str| Query::new(service_type, vec!["a".to_string(), "b".to_string()]);
    assert_eq!(in_time(backend.discover(query("type"))).await, Ok(Some("b".to_string())));
    assert_eq!(in_time(backend.discover(query("chaos:none"))).await, Ok(None));
}

#[tokio::test]
async fn close_is_forwarded() {
    let backend = in_time(load("chaos").open(options(json!({"close": "error"})))).await.unwrap();
    let error = in_time(backend.close()).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "close failed"));
    assert_eq!(in_time(chaos().await.close()).await, Ok(()));
}

#[tokio::test]
async fn what_a_backend_does_not_have_is_answered_for_it() {
    let memory = in_time(load("memory").open(Map::new())).await.unwrap();
    assert_eq!(in_time(memory.watch(0)).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(in_time(memory.discover(Query::new("type", vec![]))).await, Ok(None));
    assert_eq!(in_time(memory.close()).await, Ok(()));
}

#[tokio::test]
async fn an_error_comes_back_with_its_kind_and_in_one_line() {
    let error = commit(&chaos().await, "error").await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "commit failed in two lines"));
    let error = in_time(load("chaos").open(options(json!({"open": "error"})))).await.err().unwrap();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "open failed"));
}

#[tokio::test]
async fn a_wrong_number_of_outcomes_is_an_error() {
    let backend = chaos().await;
    for (misdeed, given) in [("too_few", 0), ("too_many", 2)] {
        let error = commit(&backend, misdeed).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains(&format!("gave {given} outcomes, expected 1")), "{error}");
    }
    assert_works(&backend).await;
}

#[tokio::test]
async fn a_load_that_does_not_move_on_is_an_error() {
    let error = in_time(chaos().await.load(Cursor::after("chaos:stuck"))).await.unwrap_err();
    assert!(error.message().contains("does not move on"), "{error}");
}

#[tokio::test]
async fn a_choice_that_is_no_candidate_is_an_error() {
    let query = Query::new("chaos:stranger", vec!["a".to_string(), "b".to_string()]);
    let error = in_time(chaos().await.discover(query)).await.unwrap_err();
    assert!(error.message().contains("\"stranger\", which is not a candidate"), "{error}");
}

#[tokio::test]
async fn a_call_that_hangs_can_be_given_up_and_the_next_call_works() {
    let backend = chaos().await;
    let mut call = Box::pin(backend.commit(vec![put("id", "chaos:hang")]));
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    assert_works(&backend).await;
}

#[tokio::test]
async fn a_plugin_can_use_tokio_and_the_timer_of_the_host() {
    let backend = chaos().await;
    for misdeed in ["tokio_sleep", "tokio_spawn", "tokio_blocking", "tokio_tcp", "host_sleep"] {
        assert_eq!(commit(&backend, misdeed).await, Ok(vec![Outcome::Done { revision: 42 }]), "{misdeed}");
    }
}

/// The store lane need not be a tokio thread.
#[test]
fn a_plugin_can_use_tokio_when_the_host_has_no_runtime_there() {
    let plugin = load("chaos");
    let backend = block_on(plugin.open(Map::new())).unwrap();
    for misdeed in ["tokio_sleep", "tokio_tcp", "host_sleep"] {
        let change = put("id", &format!("chaos:{misdeed}"));
        assert!(block_on(backend.commit(vec![change])).is_ok(), "{misdeed}");
    }
}
