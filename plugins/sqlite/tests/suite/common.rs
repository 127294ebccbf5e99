//! What all tests here need: opening a store, waiting for its calls, and reading everything back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use registry_plugin_api::{Backend, Change, Cursor, Host, Options, Outcome, Page, Record, Result};
use registry_sqlite::Sqlite;
use serde_json::{Map, Value};

/// The result of a call that never waits.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a call of the SQLite backend waits"),
    }
}

pub(crate) fn open(path: impl AsRef<Path>) -> Result<Sqlite> {
    let path = path.as_ref().to_str().unwrap();
    let given = Map::from_iter([("path".to_string(), Value::from(path))]);
    now(Sqlite::open(Options::check(Sqlite::OPTIONS, given)?, Host::for_tests()))
}

/// A record with a value in every field.
pub(crate) fn record(id: &str) -> Record {
    let mut record = Record::new(id, format!(r#"{{"id":{},"port":1}}"#, Value::from(id)));
    record.types = vec!["CM".to_string(), "\u{2603} \"quoted\"".to_string()];
    record.ttl_ms = 30_000;
    record.last_heartbeat_ms = 1_795_473_796_123;
    record
}

pub(crate) fn put(record: Record) -> Change {
    Change::Put { record, unique: None }
}

pub(crate) fn commit(store: &Sqlite, changes: impl IntoIterator<Item = Change>) -> Result<Vec<Outcome>> {
    now(store.commit(changes.into_iter().collect()))
}

pub(crate) fn done(revision: u64) -> Outcome {
    Outcome::Done { revision }
}

/// All pages of the store.
pub(crate) fn pages(store: &Sqlite) -> Vec<Page> {
    let mut pages = vec![now(store.load(Cursor::start())).unwrap()];
    while let Some(next) = pages.last().unwrap().next.clone() {
        assert!(pages.len() < 10_000, "loading does not end");
        pages.push(now(store.load(next)).unwrap());
    }
    pages
}

pub(crate) fn records(store: &Sqlite) -> Vec<Record> {
    pages(store).into_iter().flat_map(|page| page.records).collect()
}

/// Every file of a directory with its bytes.
pub(crate) fn snapshot(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|entry| entry.path().is_file());
    files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

/// A copy of the database and its log, as a crash at this moment would leave them.
pub(crate) fn copy_as_after_a_crash(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
    let log = |path: &Path| format!("{}-wal", path.display());
    if Path::new(&log(from)).exists() {
        fs::copy(log(from), log(to)).unwrap();
    }
}
