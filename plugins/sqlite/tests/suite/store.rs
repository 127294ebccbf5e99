//! What is stored comes back, whole groups at a time, whatever happens in between.

use std::collections::BTreeSet;
use std::fs;

use registry_plugin_api::Outcome::{Done, Missing};
use registry_plugin_api::{Backend, Capabilities, Change, ErrorKind, Options, Position, Renew};
use registry_sqlite::Sqlite;
use rusqlite::Connection;

use crate::common::{
    commit, copy_as_after_a_crash, group, history, now, open, pages, position, put, record, records, remove, snapshot,
};
use crate::process::{GROUP_SERVICES, Process};

#[test]
fn it_promises_to_be_durable_and_to_keep_recent_changes() {
    assert_eq!(Sqlite::capabilities(&Options::default()), Capabilities::NONE.durable().history());
}

#[test]
fn every_change_has_its_outcome_and_goes_by_what_the_one_before_has_left() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path().join("services.db")).unwrap();
    assert_eq!(position(&store), None);
    let renew = |id: &str, ms| Change::from(Renew::new(id, ms));

    let first = commit(&store, [put(record("a")), remove("none"), put(record("b")), renew("a", 4), renew("none", 4)]);
    assert_eq!(first.unwrap(), [Done, Missing, Done, Done, Missing]);
    let second = commit(&store, [put(record("a")), remove("b"), remove("b"), renew("b", 5), put(record("a"))]);
    assert_eq!(second.unwrap(), [Done, Done, Missing, Missing, Done]);
    assert_eq!(commit(&store, [renew("a", 5)]).unwrap(), [Done]);
    assert_eq!(commit(&store, []).unwrap(), []);

    let mut left = record("a");
    left.revision = 7;
    left.last_heartbeat_ms = 5;
    assert_eq!(records(&store), [left]);
    assert_eq!(position(&store), Some(Position::new("epoch", 7)));
}

#[test]
fn revisions_are_the_host_s_with_gaps_and_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let store = open(&path).unwrap();
    let mut first = group(&store, [put(record("a"))]);
    let Change::Put(put) = &mut first.changes[0] else { unreachable!() };
    put.record.revision = 1 << 52;
    first.position.revision = (1 << 52) + 5;
    now(store.commit(first)).unwrap();
    drop(store);
    let store = open(&path).unwrap();
    assert_eq!(records(&store)[0].revision, 1 << 52);
    assert_eq!(position(&store), Some(Position::new("epoch", (1 << 52) + 5)));
}

#[test]
fn opening_again_keeps_position_and_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let store = open(&path).unwrap();
    let mut odd = record("\u{1F600} \u{0} é 'quoted' \u{10FFFF}");
    odd.ttl_ms = u64::MAX;
    odd.types.clear();
    let mut large = record("large");
    large.document = format!(r#"{{"a":"{}"}}"#, "\u{2603}".repeat(400_000));
    commit(&store, [put(record("a")), put(odd), put(large)]).unwrap();
    let before = pages(&store);
    assert_eq!(before[0].position, Some(Position::new("epoch", 3)));
    assert_eq!(before[0].records.len(), 3);
    now(store.close()).unwrap();
    drop(store);
    assert_eq!(snapshot(directory.path()).into_keys().collect::<Vec<_>>(), ["services.db"]);

    assert_eq!(pages(&open(&path).unwrap()), before);
}

#[test]
fn a_position_that_was_removed_makes_it_a_new_store_with_the_old_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let store = open(&path).unwrap();
    commit(&store, [put(record("a"))]).unwrap();
    let before = records(&store);
    drop(store);
    Connection::open(&path).unwrap().execute("DELETE FROM position", []).unwrap();
    let store = open(&path).unwrap();
    assert_eq!((position(&store), records(&store)), (None, before));
}

#[test]
fn a_hundred_thousand_records_come_in_pages_and_each_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path().join("services.db")).unwrap();
    for group in 0..10 {
        commit(&store, (0..10_000).map(|index| put(record(&format!("{index}-{group}"))))).unwrap();
    }
    let pages = pages(&store);
    assert!((10..=100).contains(&pages.len()), "{} pages", pages.len());
    assert!(pages.iter().all(|page| page.position == Some(Position::new("epoch", 100_000))));
    let loaded: Vec<_> = pages.into_iter().flat_map(|page| page.records).map(|record| record.id).collect();
    assert_eq!(loaded.len(), 100_000);
    assert_eq!(loaded.into_iter().collect::<BTreeSet<_>>().len(), 100_000);
}

#[test]
fn a_page_of_large_documents_holds_fewer_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path().join("services.db")).unwrap();
    for id in 0..20 {
        let mut large = record(&id.to_string());
        large.document = "x".repeat(1 << 20);
        commit(&store, [put(large)]).unwrap();
    }
    let pages = pages(&store);
    assert_eq!(pages.iter().map(|page| page.records.len()).sum::<usize>(), 20);
    assert!(pages.iter().all(|page| page.records.len() <= 8));
}

#[test]
fn a_group_that_fails_leaves_nothing_and_the_next_one_works() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    drop(open(&path).unwrap());
    let trigger = "CREATE TRIGGER fail BEFORE INSERT ON services WHEN NEW.id = 'bad'
                   BEGIN SELECT RAISE(ABORT, 'no bad ones'); END";
    Connection::open(&path).unwrap().execute_batch(trigger).unwrap();

    let store = open(&path).unwrap();
    commit(&store, [put(record("kept"))]).unwrap();
    let before = pages(&store);
    let error = commit(&store, [put(record("good")), remove("kept"), put(record("bad"))]).unwrap_err();
    assert_eq!(error.message(), format!("cannot write {}: no bad ones", path.display()));
    assert_eq!(pages(&store), before);
    assert_eq!(commit(&store, [put(record("good"))]).unwrap(), [Done]);
}

#[test]
fn a_crash_keeps_what_was_committed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let store = open(&path).unwrap();
    commit(&store, [put(record("a")), put(record("b"))]).unwrap();
    let copy = directory.path().join("copy.db");
    copy_as_after_a_crash(&path, &copy);
    assert_eq!(pages(&open(&copy).unwrap()), pages(&store));
}

#[test]
fn a_killed_host_has_stored_every_group_that_it_acknowledged_and_no_half_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let process = Process::start("commit", &path);
    process.wait_for("committed 50");
    let acknowledged = process.kill().iter().filter(|line| line.starts_with("committed ")).count() + 51;

    let store = open(&path).unwrap();
    let pages = pages(&store);
    let records: Vec<_> = pages.iter().flat_map(|page| &page.records).collect();
    let groups = records.len() / GROUP_SERVICES;
    assert_eq!(records.len() % GROUP_SERVICES, 0, "half a group of {}", records.len());
    assert!((acknowledged..=acknowledged + 1).contains(&groups), "{groups} groups of {acknowledged}");
    assert_eq!(pages[0].position, Some(Position::new("epoch", records.len() as u64)));
    assert_eq!(records.iter().map(|record| record.revision).max(), Some(records.len() as u64));
    let (complete_after, events) = history(&store);
    assert_eq!(complete_after, 0);
    assert!(events.iter().map(|event| event.revision).eq(1..=records.len() as u64), "each change has its event");
}

#[test]
fn a_file_that_is_moved_away_takes_no_more_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let store = open(&path).unwrap();
    commit(&store, [put(record("a"))]).unwrap();
    fs::rename(&path, directory.path().join("moved.db")).unwrap();
    let error = commit(&store, [put(record("b"))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("services.db has been moved, removed or replaced"), "{error}");
    fs::rename(directory.path().join("moved.db"), &path).unwrap();
    assert_eq!(commit(&store, [put(record("b"))]).unwrap(), [Done]);
}
