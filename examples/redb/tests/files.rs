//! Files that are not this plugin's, or are damaged: refused in one line, and left as they are.

use std::fs;
use std::path::Path;

use redb::{Database, TableDefinition};
use registry_plugin_api::{
    Backend, Change, Cursor, Error, ErrorKind, Group, Host, Options, Page, Position, Put, Record, Result,
};
use registry_redb::Redb;
use serde_json::json;

async fn open(path: &Path) -> Result<Redb> {
    let given = [("path".to_string(), json!(path))];
    Redb::open(Options::check(Redb::OPTIONS, given.into_iter().collect())?, Host::for_tests()).await
}

fn put(id: &str) -> Change {
    let mut record = Record::new(id, format!(r#"{{"id":"{id}"}}"#));
    record.types = vec!["web".to_string()];
    Put::new(record).into()
}

/// Why these bytes are not opened. They are still there afterwards.
async fn refusal(path: &Path, bytes: &[u8]) -> Option<Error> {
    fs::write(path, bytes).unwrap();
    let error = open(path).await.err()?;
    assert!(fs::read(path).unwrap() == bytes, "the file was changed, and refused: {error}");
    assert_eq!(error.message().lines().count(), 1, "{error}");
    Some(error)
}

#[tokio::test]
async fn a_file_of_somebody_else_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes");
    let other = directory.path().join("other.redb");
    let database = Database::create(&other).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<&str, u64>::new("notes")).unwrap().insert("a", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    for bytes in [b"Dear Ada,\n".to_vec(), b"redb\x1A".to_vec(), fs::read(other).unwrap()] {
        let error = refusal(&path, &bytes).await.expect("it is refused");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.message().contains("notes is not a database of registry_redb"), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is_or_nothing_is_wrong_with_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services");
    let store = open(&path).await.unwrap();
    let changes = (0..100).map(|number| put(&format!("service-{number}"))).collect();
    store.commit(Group::new(Position::new("epoch", 100), changes)).await.unwrap();
    let before: Page = store.load(Cursor::start()).await.unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let cuts = (16..whole.len()).step_by(9973).map(|end| whole[..end].to_vec());
    // Pages that are in use have something in them. Others may say what they like.
    let flips = (16..whole.len()).step_by(101).filter(|at| whole[*at] != 0).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        bytes
    });
    let (mut refused, mut opened) = (0, 0);
    for bytes in cuts.chain(flips) {
        if let Some(error) = refusal(&path, &bytes).await {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.message().contains("services is damaged"), "{error}");
            refused += 1;
        } else {
            assert_eq!(open(&path).await.unwrap().load(Cursor::start()).await.unwrap(), before);
            opened += 1;
        }
    }
    assert!(refused > 20 && opened > 0, "{refused} refused, {opened} opened");
}
