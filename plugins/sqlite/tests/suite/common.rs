//! What all tests here need: opening a store, waiting for its calls, and reading everything back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use registry_plugin_api::{
    Backend, Change, Cursor, Event, Group, Host, Options, Outcome, Page, Position, Put, Record, Remove, Result,
};
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
    let event = format!("put {}", record.id);
    Put::new(record).with_event(event).into()
}

pub(crate) fn remove(id: &str) -> Change {
    Remove::new(id, 0).with_event(format!("remove {id}")).into()
}

/// The position, as the first page has it.
pub(crate) fn position(store: &Sqlite) -> Option<Position> {
    now(store.load(Cursor::start())).unwrap().position
}

/// A group of these changes, with the revisions that a host would give them.
pub(crate) fn group(store: &Sqlite, changes: impl IntoIterator<Item = Change>) -> Group {
    let mut group = Group::new(position(store).unwrap_or(Position::new("epoch", 0)), changes.into_iter().collect());
    let mut next = || {
        group.position.revision += 1;
        group.position.revision
    };
    for change in &mut group.changes {
        match change {
            Change::Put(put) => put.record.revision = next(),
            Change::Remove(remove) => remove.revision = next(),
            _ => {}
        }
    }
    group
}

pub(crate) fn commit(store: &Sqlite, changes: impl IntoIterator<Item = Change>) -> Result<Vec<Outcome>> {
    now(store.commit(group(store, changes)))
}

/// From where on the events are complete, and all of them.
pub(crate) fn history(store: &Sqlite) -> (u64, Vec<Event>) {
    let mut page = now(store.history(Cursor::start())).unwrap();
    let (complete_after, mut events) = (page.complete_after, page.events);
    while let Some(next) = page.next {
        page = now(store.history(next)).unwrap();
        assert_eq!(page.complete_after, complete_after);
        events.extend(page.events);
    }
    (complete_after, events)
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
