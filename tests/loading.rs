//! Storage plugins through their real libraries: which files are refused and how, and what reaches the host from a
//! plugin that behaves, and from one that does not.
//!
//! Cargo builds the plugins beside this test, because the host's package has them as development dependencies.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use registry_host::plugin::{LoadError, OpenBackend, Plugin, find};
use registry_plugin_api::{Capabilities, Change, Cursor, ErrorKind, Group, Outcome, Position, Put, Record};
use serde_json::{Map, Value, json};

#[path = "loading/calls.rs"]
mod calls;
#[path = "loading/logs.rs"]
mod logs;
#[path = "loading/panics.rs"]
mod panics;
#[path = "loading/refused.rs"]
mod refused;

/// The directory of this test, where cargo puts the libraries that it depends on.
fn plugin_dir() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_path_buf()
}

fn plugin_file(name: &str) -> PathBuf {
    find(name, Some(&plugin_dir())).unwrap()
}

fn load(name: &str) -> Plugin {
    Plugin::load(plugin_file(name)).unwrap()
}

fn options(options: Value) -> Map<String, Value> {
    options.as_object().unwrap().clone()
}

async fn chaos() -> OpenBackend {
    load("chaos").open(Map::new()).await.unwrap()
}

const TIMEOUT: Duration = Duration::from_secs(20);

/// Nothing here takes long: what hangs is to fail.
async fn in_time<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, call).await.expect("a call hangs")
}

fn put(id: &str, document: &str) -> Change {
    Put::new(Record::new(id, document)).into()
}

/// A group of these changes.
fn group(changes: Vec<Change>) -> Group {
    Group::new(Position::new("epoch", 1), changes)
}

/// A commit of one change that asks for a misdeed.
async fn commit(backend: &OpenBackend, misdeed: &str) -> registry_plugin_api::Result<Vec<Outcome>> {
    in_time(backend.commit(group(vec![put("id", &format!("{{\"note\":\"chaos:{misdeed}\"}}"))]))).await
}

fn poll_once<F: Future>(call: &mut Pin<Box<F>>) -> Poll<F::Output> {
    call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs a call with no runtime around it.
fn block_on<F: Future>(call: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let started = Instant::now();
    let mut call = Box::pin(call);
    loop {
        if let Poll::Ready(output) = call.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(started.elapsed() < TIMEOUT, "a call hangs");
        thread::park_timeout(TIMEOUT);
    }
}

/// The plugin answers as if nothing had been.
async fn assert_works(backend: &OpenBackend) {
    let outcomes = in_time(backend.commit(group(vec![put("id", "{}")]))).await;
    assert_eq!(outcomes, Ok(vec![Outcome::Done]));
}

#[test]
fn a_plugin_says_what_it_is() {
    let plugin = load("chaos");
    let info = plugin.info();
    assert_eq!((info.name.as_str(), info.package.as_str()), ("chaos", "registry_chaos"));
    assert_eq!(info.version, "0.1.0");
    assert_eq!(info.api_version, registry_plugin_api::abi::load::API_VERSION);
    assert!(info.rustc.starts_with("rustc "), "{:?}", info.rustc);
    assert!(info.unwinds);
    assert_eq!(info.capabilities, Capabilities::NONE.durable().balances().history());
    assert_eq!(plugin.path(), plugin_file("chaos"));
    let options: Vec<_> = info.options.iter().map(|o| (o.name(), o.kind(), o.default_value())).collect();
    let expected = [
        ("open", "text", Some(json!("calm"))),
        ("close", "text", Some(json!("calm"))),
        ("bomb", "boolean", Some(json!(false))),
        ("count", "integer", Some(json!(-7))),
        ("ratio", "number", Some(json!(0.5))),
        ("capabilities", "text", Some(json!("all"))),
        ("password", "text", Some(json!("hunter2"))),
    ];
    assert_eq!(options, expected);
    let secret: Vec<_> = info.options.iter().filter(|option| option.is_secret()).map(|option| option.name()).collect();
    assert_eq!(secret, ["password"]);
    assert_eq!(info.options[0].help(), "calm, panic, panic_later, error");
}

#[test]
fn what_a_plugin_promises_may_depend_on_its_options() {
    let chaos = load("chaos");
    let capabilities = |given| chaos.capabilities(&options(given));
    assert_eq!(capabilities(json!({})), Ok(chaos.info().capabilities));
    assert_eq!(capabilities(json!({"capabilities": "none"})), Ok(Capabilities::NONE));
    panics::assert_panicked(capabilities(json!({"capabilities": "panic"})), "capabilities panicked");
    assert_eq!(capabilities(json!({"capability": 1})).unwrap_err().kind(), ErrorKind::InvalidOption);
}

#[tokio::test]
async fn options_are_checked_before_anything_is_opened() {
    let chaos = load("chaos");
    for (given, expected) in [
        (json!({"opne": "panic"}), "unknown option \"opne\" (did you mean \"open\"?)"),
        (
            json!({"zzzzzz": 1}),
            "unknown option \"zzzzzz\": this backend knows open, close, bomb, count, ratio, capabilities, password",
        ),
        (json!({"count": "many", "open": "panic"}), "option \"count\" is \"many\", expected integer"),
        (json!({"bomb": 1}), "option \"bomb\" is 1, expected boolean"),
        (json!({"password": 1234}), "option \"password\" is (secret), expected text"),
    ] {
        let given = options(given);
        let checked = chaos.check_options(&given).unwrap_err();
        assert!(checked.message().contains(expected), "{checked}");
        assert_eq!(checked.kind(), ErrorKind::InvalidOption);
        assert_eq!(in_time(chaos.open(given)).await.err(), Some(checked));
    }
    let memory = load("memory");
    let error = memory.check_options(&options(json!({"path": "x"}))).unwrap_err();
    assert_eq!(error.message(), "unknown option \"path\": this backend has no options");
}

#[tokio::test]
async fn options_reach_the_plugin_with_defaults_filled_in() {
    let backend = in_time(load("chaos").open(options(json!({"count": 3})))).await.unwrap();
    let outcomes = commit(&backend, "options").await.unwrap();
    let [Outcome::Refused(told)] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert_eq!(told.message(), format!("count 3 ratio 0.5 host {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn different_plugins_work_side_by_side() {
    let (memory, chaos) = (load("memory"), load("chaos"));
    assert_eq!((memory.info().name.as_str(), chaos.info().name.as_str()), ("memory", "chaos"));
    assert_eq!(load("sqlite").info().name, "sqlite");
    let (memory, chaos) =
        (in_time(memory.open(Map::new())).await.unwrap(), in_time(chaos.open(Map::new())).await.unwrap());
    in_time(memory.commit(group(vec![put("id", "{}")]))).await.unwrap();
    assert_eq!(in_time(memory.load(Cursor::start())).await.unwrap().records[0].id, "id");
    assert_eq!(in_time(chaos.load(Cursor::start())).await.unwrap().position.unwrap().epoch, "chaos");
    panics::assert_panicked(commit(&chaos, "panic").await, "commit panicked in two lines");
    assert_eq!(in_time(memory.commit(group(vec![put("id", "{}")]))).await, Ok(vec![Outcome::Done]));
}

#[tokio::test]
async fn the_same_plugin_can_be_loaded_and_opened_twice() {
    let first = in_time(load("memory").open(Map::new())).await.unwrap();
    let second = in_time(load("memory").open(Map::new())).await.unwrap();
    in_time(first.commit(group(vec![put("id", "{}")]))).await.unwrap();
    let (first, second) = (in_time(first.load(Cursor::start())).await, in_time(second.load(Cursor::start())).await);
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.records.len(), second.records.len()), (1, 0));
    assert_eq!((first.position, second.position), (Some(Position::new("epoch", 1)), None));
}

/// The system's loader searches directories of its own for a name that has no separator.
#[cfg(unix)]
#[test]
fn a_relative_path_is_made_absolute_before_the_system_gets_it() {
    let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    let file = plugin_file("memory");
    let relative = up.join(file.strip_prefix("/").unwrap());
    let plugin = Plugin::load(&relative).unwrap();
    assert!(relative.is_relative() && plugin.path().is_absolute(), "{}", plugin.path().display());
    assert!(matches!(Plugin::load("libc.so.6"), Err(LoadError::Missing { .. })));
}

#[test]
fn an_open_backend_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<OpenBackend>();
    shared::<Plugin>();
}
