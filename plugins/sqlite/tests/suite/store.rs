//! What is stored comes back, whole groups at a time, whatever happens in between.

use std::collections::BTreeSet;
use std::fs;

use registry_plugin_api::{Backend, Capabilities, Change, ErrorKind, Outcome, RemoveReason};
use registry_sqlite::Sqlite;
use rusqlite::Connection;

use crate::common::{commit, copy_as_after_a_crash, done, now, open, pages, put, record, records, snapshot};
use crate::process::{GROUP_SERVICES, Process};

#[test]
fn it_promises_to_be_durable_and_nothing_else() {
    assert_eq!(Sqlite::CAPABILITIES, Capabilities::NONE.durable());
}

#[test]
fn every_change_has_its_outcome_and_its_revision() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path().join("services.db")).unwrap();
    let remove = |id: &str| Change::Remove { id: id.to_string(), reason: RemoveReason::Expired };
    let renew = |id: &str| Change::Renew { id: id.to_string(), last_heartbeat_ms: 5 };

    let first = commit(&store, [put(record("a")), remove("none"), put(record("b")), renew("a"), renew("none")]);
    assert_eq!(first.unwrap(), [done(1), Outcome::Missing, done(2), done(2), Outcome::Missing]);
    let second = commit(&store, [put(record("a")), remove("b")]);
    assert_eq!(second.unwrap(), [done(3), done(4)]);
    assert_eq!(commit(&store, [renew("a")]).unwrap(), [done(4)]);
    assert_eq!(commit(&store, []).unwrap(), []);

    let mut left = record("a");
    left.revision = 3;
    left.last_heartbeat_ms = 5;
    assert_eq!(records(&store), [left]);
}

#[test]
fn opening_again_keeps_epoch_revision_and_records() {
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
    assert_eq!(before[0].revision, 3);
    assert_eq!(before[0].records.len(), 3);
    now(store.close()).unwrap();
    drop(store);
    assert_eq!(snapshot(directory.path()).into_keys().collect::<Vec<_>>(), ["services.db"]);

    assert_eq!(pages(&open(&path).unwrap()), before);
}

#[test]
fn another_store_is_another_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let epochs = ["a", "b"].map(|name| pages(&open(directory.path().join(name)).unwrap()).remove(0).epoch);
    assert_ne!(epochs[0], epochs[1]);
    assert!(!epochs[0].is_empty());
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
    assert!(pages.iter().all(|page| page.revision == 100_000));
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
    let remove = Change::Remove { id: "kept".to_string(), reason: RemoveReason::Deregistered };
    let error = commit(&store, [put(record("good")), remove, put(record("bad"))]).unwrap_err();
    assert_eq!(error.message(), format!("cannot write {}: no bad ones", path.display()));
    assert_eq!(pages(&store), before);
    assert_eq!(commit(&store, [put(record("good"))]).unwrap(), [done(2)]);
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
    assert_eq!(pages[0].revision, records.len() as u64);
    assert_eq!(records.iter().map(|record| record.revision).max(), Some(pages[0].revision));
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
    assert_eq!(commit(&store, [put(record("b"))]).unwrap(), [done(2)]);
}
