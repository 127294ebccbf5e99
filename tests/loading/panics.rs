//! Panics in a plugin, wherever they happen: an error of the call, a line in the log, and a host that goes on.

use registry_plugin_api::{Cursor, ErrorKind, Query};
use serde_json::{Map, json};

use crate::logs::Log;
use crate::{assert_works, chaos, commit, group, in_time, load, options, poll_once, put};

/// File and line as the author knows them, in one line.
pub(crate) fn assert_panicked<T>(result: registry_plugin_api::Result<T>, message: &str) {
    let error = result.err().expect("a panic is an error");
    assert_eq!(error.kind(), ErrorKind::Panicked);
    let expected = format!("panicked: {message} (at ");
    assert!(error.message().starts_with(&expected), "{error}");
    assert!(error.message().contains("chaos/src/lib.rs:"), "{error}");
    assert_eq!(error.message().lines().count(), 1);
}

#[tokio::test]
async fn a_panic_in_open_is_an_error_and_the_next_open_works() {
    let plugin = load("chaos");
    assert_panicked(in_time(plugin.open(options(json!({"open": "panic"})))).await, "open panicked");
    assert_panicked(in_time(plugin.open(options(json!({"open": "panic_later"})))).await, "open panicked later");
    assert_works(&in_time(plugin.open(Map::new())).await.unwrap()).await;
}

#[tokio::test]
async fn a_panic_in_any_call_is_an_error_and_the_next_call_works() {
    let backend = in_time(load("chaos").open(options(json!({"close": "panic"})))).await.unwrap();
    assert_panicked(commit(&backend, "panic").await, "commit panicked in two lines");
    assert_works(&backend).await;
    assert_panicked(commit(&backend, "panic_after_await").await, "commit panicked later");
    assert_works(&backend).await;
    assert_panicked(in_time(backend.load(Cursor::after("chaos:panic"))).await, "load panicked");
    assert_panicked(in_time(backend.history(Cursor::after("chaos:panic"))).await, "history panicked");
    let query = Query::new("chaos:panic", vec![]);
    assert_panicked(in_time(backend.discover(query)).await, "discover panicked");
    assert_panicked(in_time(backend.close()).await, "close panicked");
    assert_works(&backend).await;
}

#[tokio::test]
async fn a_panic_whose_payload_panics_when_dropped_is_an_error() {
    let backend = chaos().await;
    let error = commit(&backend, "panic_with_bomb").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_works(&backend).await;
}

#[tokio::test]
async fn a_panic_in_a_task_of_the_plugin_is_logged_and_the_next_call_works() {
    let backend = chaos().await;
    let error = commit(&backend, "panic_in_task").await.unwrap_err();
    assert!(error.message().contains("a task panicked"), "{error}");
    assert_works(&backend).await;
}

#[tokio::test]
async fn a_panic_in_the_drop_of_a_call_that_was_given_up_is_logged() {
    let backend = chaos().await;
    let log = Log::with_filter("error");
    let mut call = Box::pin(backend.commit(group(vec![put("id", "chaos:panic_in_future_drop")])));
    assert!(poll_once(&mut call).is_pending());
    drop(call);
    let lines = log.lines();
    assert!(
        lines.iter().any(|line| line.contains("panicked: a bomb was dropped") && line.contains("lib.rs:")),
        "{lines:?}"
    );
    assert_works(&backend).await;
}

#[tokio::test]
async fn a_panic_in_the_drop_of_the_backend_is_logged() {
    let backend = in_time(load("chaos").open(options(json!({"bomb": true})))).await.unwrap();
    let log = Log::with_filter("error");
    drop(backend);
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.contains("registry_chaos: panicked: a bomb was dropped")), "{lines:?}");
    assert_works(&chaos().await).await;
}

#[tokio::test]
async fn an_option_that_the_plugin_forgot_to_declare_is_an_error_that_says_so() {
    let error = commit(&chaos().await, "wrong_option").await.unwrap_err();
    assert!(error.message().contains("the text option \"undeclared\", which it does not declare"), "{error}");
}
