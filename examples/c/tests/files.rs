//! The files of the store in C: what a crash leaves of the last frame is dropped; what is damaged, or somebody else's,
//! is refused in one line and left as it is.

use std::fs;
use std::path::{Path, PathBuf};

use registry_c::InC;
use registry_plugin_api::{
    Backend, Change, Cursor, ErrorKind, Group, Host, Options, Outcome, Page, Position, Put, Record, Remove, Renew,
    Result,
};
use serde_json::json;

async fn open(path: &Path) -> Result<InC> {
    let given = [("path".to_string(), json!(path))];
    InC::open(Options::check(InC::OPTIONS, given.into_iter().collect())?, Host::for_tests()).await
}

fn put(id: &str) -> Change {
    let mut record = Record::new(id, format!(r#"{{"id":"{id}"}}"#));
    record.types = vec!["web".to_string()];
    (record.ttl_ms, record.last_heartbeat_ms) = (30_000, 1_700_000_000_000);
    Put::new(record).into()
}

fn group(revision: u64, changes: Vec<Change>) -> Group {
    Group::new(Position::new("epoch", revision), changes)
}

/// A log of a head, a group and another group: its bytes, where the last frame begins, and what was loaded before and
/// after that group.
async fn log(path: &Path) -> (Vec<u8>, usize, Page, Page) {
    let store = open(path).await.unwrap();
    store.commit(group(2, vec![put("a"), put("b")])).await.unwrap();
    let first = store.load(Cursor::start()).await.unwrap();
    let last_frame = fs::metadata(path).unwrap().len() as usize;
    let changes = vec![put("c"), Remove::new("a", 4).into(), Renew::new("b", 1_700_000_007_000).into()];
    store.commit(group(4, changes)).await.unwrap();
    let second = store.load(Cursor::start()).await.unwrap();
    (fs::read(path).unwrap(), last_frame, first, second)
}

async fn load(path: &Path) -> Page {
    open(path).await.unwrap().load(Cursor::start()).await.unwrap()
}

async fn expect_refused(path: &Path, bytes: &[u8], message: &str) {
    fs::write(path, bytes).unwrap();
    let error = open(path).await.err().expect("it is refused");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains(message) && error.message().lines().count() == 1, "{error}");
    assert!(fs::read(path).unwrap() == bytes, "the file was changed, and refused: {error}");
}

fn path_in(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("services.log")
}

#[tokio::test]
async fn the_rest_of_a_last_frame_that_was_cut_anywhere_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = path_in(&directory);
    let (whole, last_frame, first, second) = log(&path).await;
    assert_eq!(load(&path).await, second);
    for end in last_frame..whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let store = open(&path).await.unwrap();
        assert_eq!(store.load(Cursor::start()).await.unwrap(), first, "cut at {end}");
        assert_eq!(store.commit(group(3, vec![put("d")])).await.unwrap(), [Outcome::Done], "cut at {end}");
        drop(store);
        assert_eq!(load(&path).await.records.len(), 3, "cut at {end}");
    }
    // After a power cut the file may have its length and none of the bytes.
    fs::write(&path, [&whole[..last_frame], &vec![0; whole.len() - last_frame]].concat()).unwrap();
    assert_eq!(load(&path).await, first);
}

#[tokio::test]
async fn a_byte_that_has_changed_anywhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = path_in(&directory);
    let (whole, ..) = log(&path).await;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let message = if at < 8 { "services.log is not a file of registry_c" } else { "services.log is damaged" };
        expect_refused(&path, &damaged, message).await;
    }
}

#[tokio::test]
async fn a_file_of_somebody_else_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = path_in(&directory);
    for bytes in [&b""[..], b"REG", b"Dear Ada,\nthis is a letter.\n", &[0; 4096]] {
        expect_refused(&path, bytes, "services.log is not a file of registry_c").await;
    }
    // A log is made under another name, so that one without its first frame is nobody's unfinished one.
    let (whole, ..) = log(&directory.path().join("other")).await;
    expect_refused(&path, &whole[..20], "services.log is damaged").await;
}
