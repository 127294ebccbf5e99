//! One host at a time has the file, by whatever path, and a dead one has it no longer.

use std::fs;
use std::path::{Path, PathBuf};

use registry_plugin_api::{Error, ErrorKind, Outcome};
use rusqlite::Connection;

use crate::common::{commit, open, put, record, records, snapshot};
use crate::process::Process;

fn assert_in_use(path: &Path, error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let expected = format!("{} is in use by another process (another registry host?)", path.display());
    assert_eq!(error.message(), expected);
}

#[test]
fn a_second_process_is_refused_until_the_first_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let process = Process::start("hold", &path);
    process.wait_for("open");
    let before = snapshot(directory.path());
    assert_in_use(&path, &open(&path).err().unwrap());
    assert_eq!(snapshot(directory.path()), before);
    process.kill();
    assert_eq!(commit(&open(&path).unwrap(), [put(record("a"))]).unwrap(), [Outcome::Done]);
}

#[test]
fn a_program_that_has_the_file_open_keeps_the_host_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    drop(open(&path).unwrap());
    let process = Process::start("read", &path);
    process.wait_for("open");
    let before = snapshot(directory.path());
    assert_in_use(&path, &open(&path).err().unwrap());
    assert_eq!(snapshot(directory.path()), before);
    process.kill();
    open(&path).unwrap();
}

#[test]
fn no_other_process_gets_in_while_a_host_has_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let _store = open(&path).unwrap();
    let refused = format!("{} is in use by another process (another registry host?)", path.display());
    for (job, answer) in [("hold", refused.as_str()), ("read", "database is locked")] {
        let lines = Process::start(job, &path).wait_for_end();
        assert!(lines.iter().any(|line| line == answer), "{job}: {lines:?}");
    }
}

#[test]
fn a_second_backend_of_the_same_process_is_refused_by_every_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    let store = open(&path).unwrap();
    let mut paths = vec![path.clone(), directory.path().join(".").join("services.db"), relative_to_here(&path)];
    #[cfg(unix)]
    {
        let [symbolic, hard] = ["symbolic.db", "hard.db"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink(&path, &symbolic).unwrap();
        fs::hard_link(&path, &hard).unwrap();
        paths.extend([symbolic, hard]);
    }
    for other in paths {
        let error = open(&other).err().unwrap();
        let expected = format!("{} is in use by this process already, by another backend", other.display());
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, expected.as_str()));
    }
    // A handle that was opened and closed meanwhile would have dropped the lock.
    let lines = Process::start("read", &path).wait_for_end();
    assert!(lines.iter().any(|line| line == "database is locked"), "{lines:?}");
    commit(&store, [put(record("a"))]).unwrap();
    drop(store);
    assert_eq!(records(&open(&path).unwrap()).len(), 1);
}

#[test]
fn a_file_that_was_refused_can_be_opened_once_it_is_right() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    open(&path).err().unwrap();
    fs::remove_file(&path).unwrap();
    open(&path).unwrap();
}

/// The same file, by a path that begins at the working directory.
fn relative_to_here(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap();
    let up = here.components().skip(1).map(|_| "..").collect::<PathBuf>();
    up.join(path.strip_prefix("/").unwrap())
}
