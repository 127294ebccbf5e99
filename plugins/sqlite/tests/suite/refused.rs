//! Files that are not a sound database of this registry: each is refused in one line that names it, and keeps every
//! byte, as do the files beside it.

use std::fs;
use std::path::{Path, PathBuf};

use registry_plugin_api::ErrorKind::{Corrupt, InvalidOption, Unavailable};
use registry_plugin_api::{ErrorKind, Options};
use registry_sqlite::Sqlite;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::common::{commit, copy_as_after_a_crash, open, put, record, snapshot};

/// A directory with room for one database.
fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    (directory, path)
}

/// A database of ours with some pages, closed.
fn store() -> (TempDir, PathBuf) {
    let (directory, path) = directory();
    let store = open(&path).unwrap();
    commit(&store, []).unwrap();
    commit(&store, (0..500).map(|id| put(record(&id.to_string())))).unwrap();
    drop(store);
    (directory, path)
}

/// Another program's database, closed.
fn foreign(sql: &str) -> (TempDir, PathBuf) {
    let (directory, path) = directory();
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    (directory, path)
}

/// Writes over a few bytes of the file.
fn overwrite(path: &Path, offset: usize, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).unwrap();
}

/// Opening is refused with `name`, then `message`, where `~` stands for the name, and changes no file.
#[track_caller]
fn assert_refused(path: &Path, kind: ErrorKind, message: &str) {
    let directory = path.parent().unwrap();
    let before = snapshot(directory);
    let error = open(path).err().expect("it should be refused");
    assert_eq!(error.message(), message.replace('~', path.to_str().unwrap()));
    assert_eq!(error.kind(), kind);
    assert!(snapshot(directory) == before, "the files have changed");
}

#[test]
fn no_path_and_memory_are_refused() {
    for name in ["", ":memory:"] {
        let expected = "expected a file: to store nothing, use the memory backend";
        assert_eq!(open(name).err().unwrap().message(), format!("option \"path\" is {name:?}, {expected}"));
        assert!(!Path::new(":memory:").exists());
    }
}

#[test]
fn the_default_is_a_file_in_the_working_directory() {
    let options = Options::check(<Sqlite as registry_plugin_api::Backend>::OPTIONS, serde_json::Map::new()).unwrap();
    assert_eq!(options.text("path"), "service_registry.db");
}

#[test]
fn a_directory_is_refused() {
    let (directory, _) = directory();
    let inner = directory.path().join("inner");
    fs::create_dir(&inner).unwrap();
    assert_refused(&inner, InvalidOption, "~ is a directory, expected a database file");
}

#[test]
fn a_missing_directory_is_refused() {
    let (directory, _) = directory();
    let missing = directory.path().join("missing");
    let expected = format!("cannot open ~: there is no directory {}, expected one that exists", missing.display());
    let error = open(missing.join("services.db")).err().unwrap();
    assert_eq!(error.message(), expected.replace('~', missing.join("services.db").to_str().unwrap()));
    assert!(!missing.exists());
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_refused() {
    let (directory, path) = directory();
    std::os::unix::fs::symlink(directory.path().join("missing"), &path).unwrap();
    assert_refused(&path, InvalidOption, "~ is a symbolic link to nothing, expected a database file");
}

#[cfg(unix)]
#[test]
fn a_device_is_refused() {
    let error = open("/dev/null").err().unwrap();
    assert_eq!(error.message(), "/dev/null is a device or pipe, expected a database file");
}

#[test]
fn a_read_only_file_is_refused() {
    let (_directory, path) = store();
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    assert_refused(&path, Unavailable, "~ is read-only, expected a file that the registry may write");
}

#[cfg(unix)]
#[test]
fn a_read_only_directory_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, path) = store();
    let set_mode = |mode| fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    set_mode(0o555);
    let shown = directory.path().display();
    for path in [path, directory.path().join("new.db")] {
        let reason = format!("the directory {shown} is read-only, expected one that the registry may write");
        assert_refused(&path, Unavailable, &format!("cannot open ~: {reason}"));
    }
    set_mode(0o755);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let not_a_database = "~ is not an SQLite database, expected a registry's: name another file, or move this one away";
    for content in [b"x".to_vec(), b"[backend]\nname = \"sqlite\"\n".to_vec(), vec![0xA5; 20_000]] {
        let (_directory, path) = directory();
        fs::write(&path, content).unwrap();
        assert_refused(&path, Corrupt, not_a_database);
    }
    let (_directory, path) = store();
    overwrite(&path, 3, b"!");
    assert_refused(&path, Corrupt, not_a_database);
}

/// What a damaged file is refused with.
fn damaged(reason: &str) -> String {
    format!("~ is damaged ({reason}): restore it from a backup, or move it and ~-wal away to begin anew")
}

#[test]
fn a_truncated_file_is_refused() {
    for (length, reason) in [
        (50, "it ends in the middle of its header"),
        (4096, "database disk image is malformed"),
        (3 * 4096, "database disk image is malformed"),
        (3 * 4096 + 100, "database disk image is malformed"),
    ] {
        let (_directory, path) = store();
        fs::write(&path, &fs::read(&path).unwrap()[..length]).unwrap();
        assert_refused(&path, Corrupt, &damaged(reason));
    }
}

#[test]
fn a_header_with_flipped_bytes_is_refused() {
    let not_a_database = damaged("file is not a database");
    let page_size_of_3 = (16, [0, 3]);
    let read_version_9 = (18, [2, 9]);
    for (offset, bytes) in [page_size_of_3, read_version_9] {
        let (_directory, path) = store();
        overwrite(&path, offset, &bytes);
        assert_refused(&path, Corrupt, &not_a_database);
    }
}

#[test]
fn damage_to_any_page_is_refused() {
    let (_directory, path) = store();
    let sound = fs::read(&path).unwrap();
    let pages = sound.len() / 4096;
    assert!(pages > 10);
    for page in 1..pages {
        fs::write(&path, &sound).unwrap();
        overwrite(&path, page * 4096, &[0xFF; 4096]);
        let before = snapshot(path.parent().unwrap());
        let error = open(&path).err().unwrap_or_else(|| panic!("damage to page {page} should be found"));
        let start = format!("{} is damaged (", path.display());
        assert!(error.kind() == Corrupt && error.message().starts_with(&start), "{error}");
        assert!(!error.message().contains('\n'), "{error}");
        assert!(snapshot(path.parent().unwrap()) == before, "the files have changed");
    }
}

#[test]
fn a_registry_without_its_tables_is_refused() {
    for (damage, reason) in [
        ("DROP TABLE services", "no such table: services"),
        ("ALTER TABLE services RENAME COLUMN types TO tags", "no such column: types"),
        ("DROP TABLE position", "no such table: position"),
        ("DROP TABLE events", "no such table: events"),
        ("PRAGMA user_version = 1", "no such table: history"),
        ("PRAGMA user_version = 2", "table versions already exists"),
        ("PRAGMA user_version = 0", "schema version 0, expected 1 to 3"),
        ("DROP TABLE versions", "no such table: versions"),
    ] {
        let (_directory, path) = store();
        Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        let before = snapshot(path.parent().unwrap());
        let error = open(&path).err().unwrap();
        assert!(error.message().contains(&format!("is damaged ({reason}")), "{error}");
        assert!(snapshot(path.parent().unwrap()) == before, "the files have changed");
    }
}

#[test]
fn a_database_of_another_program_is_refused() {
    for (sql, signs) in [
        ("CREATE TABLE contacts (a); CREATE VIEW v AS SELECT 1", r#"id 0x0, version 0, it holds "contacts", "v""#),
        ("PRAGMA application_id = 0x1234", "id 0x1234, version 0, it holds nothing"),
        ("PRAGMA user_version = 3", "id 0x0, version 3, it holds nothing"),
        ("CREATE TABLE services (id TEXT PRIMARY KEY, name TEXT)", r#"id 0x0, version 0, it holds "services""#),
        (
            "PRAGMA journal_mode = WAL; CREATE TABLE a (a); CREATE TABLE b (a); CREATE TABLE c (a);
             CREATE TABLE d (a); CREATE TABLE e (a); CREATE TABLE f (a);",
            r#"id 0x0, version 0, it holds "a", "b", "c", "d", "e", 1 more"#,
        ),
    ] {
        let (_directory, path) = foreign(sql);
        let reason = format!("belongs to another program (application {signs}), expected a registry's database");
        assert_refused(&path, Corrupt, &format!("~ {reason}: name another file"));
    }
}

#[test]
fn another_program_s_database_with_a_log_keeps_the_log() {
    let (_from, path) = directory();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE contacts (a)").unwrap();
    let (to, copy) = directory();
    copy_as_after_a_crash(&path, &copy);
    assert_eq!(snapshot(to.path()).len(), 2);
    let reason = r#"belongs to another program (application id 0x0, version 0, it holds "contacts")"#;
    assert_refused(&copy, Corrupt, &format!("~ {reason}, expected a registry's database: name another file"));
}

#[cfg(unix)]
#[test]
fn a_log_is_kept_that_is_not_beside_the_link_but_beside_the_file() {
    let (_from, path) = directory();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE contacts (a)").unwrap();
    let (to, copy) = directory();
    copy_as_after_a_crash(&path, &copy);
    let (_links, link) = directory();
    std::os::unix::fs::symlink(&copy, &link).unwrap();
    let before = snapshot(to.path());
    let reason = r#"belongs to another program (application id 0x0, version 0, it holds "contacts")"#;
    assert_refused(&link, Corrupt, &format!("~ {reason}, expected a registry's database: name another file"));
    assert!(snapshot(to.path()) == before, "the files have changed");
}

#[test]
fn another_program_s_unfinished_transaction_is_left_to_it() {
    let (_from, path) = directory();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE a (a); INSERT INTO a VALUES (zeroblob(100000))").unwrap();
    // Enough to be written before the commit.
    connection.execute_batch("PRAGMA cache_size = 1; BEGIN; UPDATE a SET a = randomblob(100000)").unwrap();
    connection.execute_batch("CREATE TABLE b AS SELECT a FROM a").unwrap();
    let (_to, copy) = directory();
    for suffix in ["", "-journal"] {
        fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", copy.display())).unwrap();
    }
    let reason = "belongs to another program, which has not finished a transaction (~-journal), expected a registry's \
                  database: open it with that program once, or name another file";
    assert_refused(&copy, Corrupt, &format!("~ {reason}"));
}

#[test]
fn a_log_without_its_database_is_refused() {
    let reason = "is missing or empty but its log ~-wal is not, expected both: put ~ back, or move the log away to \
                  begin anew";
    let (_directory, path) = directory();
    fs::write(format!("{}-wal", path.display()), "all that was stored").unwrap();
    assert_refused(&path, Corrupt, &format!("~ {reason}"));
    fs::write(&path, "").unwrap();
    assert_refused(&path, Corrupt, &format!("~ {reason}"));
}
