//! Every call of a backend, with all that goes in and comes out, and what the host makes of answers that cannot be.

use registry_plugin_api::{
    Capabilities, Cursor, ErrorKind, Event, History, Outcome, Position, Put, Query, Record, Remove, Renew,
};
use serde_json::{Map, json};

use crate::{assert_works, block_on, chaos, commit, group, in_time, load, options, poll_once, put};

#[tokio::test]
async fn load_is_forwarded_with_all_fields() {
    let page = in_time(chaos().await.load(Cursor::after("here"))).await.unwrap();
    let mut record = Record::new("after here", "{\"chaos\":true}");
    record.types = vec!["one".to_string(), "two".to_string()];
    (record.ttl_ms, record.last_heartbeat_ms, record.revision) = (1, 2, 3);
    assert_eq!(page.position, Some(Position::new("chaos", 42)));
    assert_eq!(page.records, [record]);
    assert_eq!(page.next, Some(Cursor::after("next")));
}

#[tokio::test]
async fn commit_is_forwarded_with_all_fields() {
    let mut record = Record::new("chaos:echo", "{}");
    record.types = vec!["one".to_string(), "zwei".to_string()];
    (record.ttl_ms, record.last_heartbeat_ms, record.revision) = (u64::MAX, 2, 3);
    let changes = vec![
        Put::new(record.clone()).into(),
        Put::new(record).with_event("an event").into(),
        Remove::new("chaos:echo", 4).with_event("another").into(),
        Renew::new("chaos:echo", 7).into(),
    ];
    let outcomes = in_time(chaos().await.commit(group(changes.clone()))).await.unwrap();
    for (change, outcome) in changes.iter().zip(outcomes) {
        let Outcome::Refused(echo) = outcome else { panic!("{outcome:?}") };
        assert_eq!((echo.kind(), echo.message()), (ErrorKind::Corrupt, format!("{change:?}").as_str()));
    }
}

#[tokio::test]
async fn what_a_group_has_besides_its_changes_is_forwarded() {
    let mut group = group(vec![put("chaos:group", "")]);
    (group.position, group.forget_before, group.undone) = (Position::new("name", 9), 5, vec![6, 7]);
    let outcomes = in_time(chaos().await.commit(group.clone())).await.unwrap();
    let [Outcome::Refused(echo)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!(echo.message(), format!("{group:?}"));
}

#[tokio::test]
async fn outcomes_come_back_in_order() {
    let changes = vec![put("chaos:missing", ""), put("id", ""), put("chaos:missing", "")];
    let outcomes = in_time(chaos().await.commit(group(changes))).await.unwrap();
    assert_eq!(outcomes, [Outcome::Missing, Outcome::Done, Outcome::Missing]);
}

#[tokio::test]
async fn history_is_forwarded() {
    let history = in_time(chaos().await.history(Cursor::after("here"))).await.unwrap();
    let events = vec![Event::new(8, "after here"), Event::new(11, "eleven")];
    assert_eq!(history, History::new(7).with_events(events).with_next(Cursor::after("11")));
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
    assert_eq!(in_time(memory.history(Cursor::start())).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(load("memory").info().capabilities, Capabilities::NONE);
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
    let chaos = chaos().await;
    let loaded = in_time(chaos.load(Cursor::after("chaos:stuck"))).await.map(drop);
    let history = in_time(chaos.history(Cursor::after("chaos:stuck"))).await.map(drop);
    for (result, call) in [(loaded, "load"), (history, "history")] {
        let error = result.unwrap_err();
        assert!(error.message().contains(&format!("the plugin's {call} does not move on")), "{error}");
    }
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
    let mut call = Box::pin(backend.commit(group(vec![put("id", "chaos:hang")])));
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    assert_works(&backend).await;
}

#[tokio::test]
async fn a_plugin_can_use_tokio_and_the_timer_of_the_host() {
    let backend = chaos().await;
    for misdeed in ["tokio_sleep", "tokio_spawn", "tokio_blocking", "tokio_tcp", "host_sleep"] {
        assert_eq!(commit(&backend, misdeed).await, Ok(vec![Outcome::Done]), "{misdeed}");
    }
}

/// The store lane need not be a tokio thread.
#[test]
fn a_plugin_can_use_tokio_when_the_host_has_no_runtime_there() {
    let plugin = load("chaos");
    let backend = block_on(plugin.open(Map::new())).unwrap();
    for misdeed in ["tokio_sleep", "tokio_tcp", "host_sleep"] {
        let change = put("id", &format!("chaos:{misdeed}"));
        assert!(block_on(backend.commit(group(vec![change]))).is_ok(), "{misdeed}");
    }
}
