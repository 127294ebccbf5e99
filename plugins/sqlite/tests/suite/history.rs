//! Recent changes are kept with the changes, forgotten when they may be, and are those of one epoch.

use std::path::Path;

use registry_plugin_api::{Backend, Event, Position, Put, Renew};
use registry_sqlite::Sqlite;
use rusqlite::Connection;

use crate::common::{commit, group, history, now, open, put, record, remove};

/// A new store to which the host has committed its first, empty group.
fn begun(path: impl AsRef<Path>) -> Sqlite {
    let store = open(path).unwrap();
    commit(&store, []).unwrap();
    store
}

fn kept(events: &[(u64, &str)]) -> Vec<Event> {
    events.iter().map(|(revision, text)| Event::new(*revision, *text)).collect()
}

#[test]
fn every_change_is_kept_with_its_text_and_none_without_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let store = begun(&path);
    let silent = Put::new(record("restored")).into();
    commit(&store, [put(record("a")), put(record("a")), remove("none"), Renew::new("a", 1).into(), silent]).unwrap();
    commit(&store, [remove("a")]).unwrap();
    let expected = kept(&[(1, "put a"), (2, "put a"), (3, "remove none"), (5, "remove a")]);
    assert_eq!(history(&store), (0, expected.clone()));
    now(store.close()).unwrap();
    drop(store);
    assert_eq!(history(&open(&path).unwrap()), (0, expected));
}

#[test]
fn what_may_be_forgotten_is_forgotten_by_and_by() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let mut store = begun(&path);
    for _ in 0..10 {
        commit(&store, (0..1000).map(|id| put(record(&id.to_string())))).unwrap();
    }
    assert_eq!(history(&store).1.len(), 10_000);
    for rows in [10_000 - 4096, 10_000 - 2 * 4096, 10, 10] {
        let mut group = group(&store, []);
        group.forget_before = 9_991;
        now(store.commit(group)).unwrap();
        let (complete_after, events) = history(&store);
        assert_eq!(complete_after, 9_990);
        assert!(events.iter().map(|event| event.revision).eq(9_991..=10_000), "those count, whatever is still there");
        drop(store);
        let count = "SELECT count(*) FROM events";
        let count: i64 = Connection::open(&path).unwrap().query_row(count, [], |row| row.get(0)).unwrap();
        assert_eq!(count, rows, "a group forgets no more than 4096");
        store = open(&path).unwrap();
    }
    let mut group = group(&store, []);
    group.forget_before = 5;
    now(store.commit(group)).unwrap();
    assert_eq!(history(&store).0, 9_990, "what was forgotten stays so");
}

#[test]
fn a_host_that_gives_no_events_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = begun(directory.path().join("services.db"));
    let mut group = group(&store, [Put::new(record("a")).into()]);
    group.forget_before = group.position.revision + 1;
    now(store.commit(group)).unwrap();
    assert_eq!(history(&store), (1, vec![]));
    commit(&store, [put(record("b"))]).unwrap();
    assert_eq!(history(&store), (1, kept(&[(2, "put b")])));
}

#[test]
fn what_was_undone_never_happened() {
    let directory = tempfile::tempdir().unwrap();
    let store = begun(directory.path().join("services.db"));
    commit(&store, [put(record("a")), put(record("b")), put(record("c"))]).unwrap();
    let mut group = group(&store, [remove("b")]);
    group.undone = vec![2, 3, 77];
    now(store.commit(group)).unwrap();
    assert_eq!(history(&store), (0, kept(&[(1, "put a"), (4, "remove b")])));
}

#[test]
fn another_epoch_is_another_history() {
    let directory = tempfile::tempdir().unwrap();
    let store = begun(directory.path().join("services.db"));
    commit(&store, [put(record("a")), put(record("b"))]).unwrap();
    let mut group = group(&store, []);
    group.position = Position::new("another", 7);
    now(store.commit(group)).unwrap();
    assert_eq!(history(&store), (7, vec![]));
    commit(&store, [put(record("c"))]).unwrap();
    assert_eq!(history(&store), (7, kept(&[(8, "put c")])));
}

#[test]
fn a_store_whose_position_was_removed_begins_a_history() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let store = begun(&path);
    commit(&store, [put(record("a"))]).unwrap();
    drop(store);
    Connection::open(&path).unwrap().execute("DELETE FROM position", []).unwrap();
    let store = begun(&path);
    assert_eq!(history(&store), (0, vec![]));
}

#[test]
fn long_histories_come_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let store = begun(directory.path().join("services.db"));
    for _ in 0..3 {
        commit(&store, (0..3000).map(|id| put(record(&id.to_string())))).unwrap();
    }
    let first = now(store.history(registry_plugin_api::Cursor::start())).unwrap();
    assert!(first.next.is_some());
    assert!(history(&store).1.iter().map(|event| event.revision).eq(1..=9000));
}
