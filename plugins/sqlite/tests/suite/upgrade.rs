//! Databases of earlier schema versions become ones of this version, whole or not at all, and a copy of each as it was is
//! beside it. Later ones are refused, by a line that says what to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use registry_plugin_api::ErrorKind::{Corrupt, Unavailable};
use registry_plugin_api::{Event, Position, Record};
use registry_sqlite::Sqlite;
use rusqlite::Connection;

use crate::common::{commit, copy_as_after_a_crash, history, open, position, put, record, records, snapshot};
use crate::process::Process;

const SERVICES: &str = "
    CREATE TABLE services (
        id TEXT NOT NULL PRIMARY KEY,
        document TEXT NOT NULL,
        types TEXT NOT NULL,
        ttl_ms INTEGER NOT NULL,
        last_heartbeat_ms INTEGER NOT NULL,
        revision INTEGER NOT NULL
    ) STRICT;
";

/// As schema version 1 was made.
const SCHEMA_1: &str = "
    CREATE TABLE history (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch TEXT NOT NULL,
        revision INTEGER NOT NULL
    ) STRICT;
    INSERT INTO history VALUES (1, '0123456789abcdef', 41);
    PRAGMA application_id = 0x53526567;
    PRAGMA user_version = 1;
";

/// As schema version 2 was made.
const SCHEMA_2: &str = "
    CREATE TABLE position (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch TEXT NOT NULL,
        revision INTEGER NOT NULL,
        events_after INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE events (
        revision INTEGER PRIMARY KEY,
        text TEXT NOT NULL
    ) STRICT;
    INSERT INTO position VALUES (1, '0123456789abcdef', 41, 39);
    INSERT INTO events VALUES (40, 'forty'), (41, 'forty-one');
    PRAGMA application_id = 0x53526567;
    PRAGMA user_version = 2;
";

/// Some pages of services, the last field of whose documents the host reads, and nobody here.
const ROWS: &str = r#"
    WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 40)
    INSERT INTO services
    SELECT printf('s%02d', number), printf('{"id":"s%02d","of_a_later_one":[1.50],"crc32":"0badcafe"}', number),
        '["web","CM"]', 30000, 1795473796123, number FROM numbers;
"#;

/// The schema versions before this one, and the events of each database.
const OLDER: [(i32, &str, &[u64]); 2] = [(1, SCHEMA_1, &[]), (2, SCHEMA_2, &[40, 41])];

fn make(path: &Path, schema: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(&format!("{SERVICES}{ROWS}{schema}")).unwrap();
    connection
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// All that a store has to say.
fn contents(store: &Sqlite) -> (Option<Position>, Vec<Record>, (u64, Vec<Event>)) {
    (position(store), records(store), history(store))
}

/// Everything in the tables of a database, and its schema version, as another program sees it.
fn dump(path: &Path) -> (i32, BTreeMap<String, Vec<String>>) {
    let connection = Connection::open(path).unwrap();
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let mut tables = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap().map(Result::unwrap);
    let rows = |table: &String| {
        let mut select = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = select.column_count();
        let shown = |row: &rusqlite::Row<'_>| {
            Ok((0..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap())).collect::<String>())
        };
        select.query_map([], shown).unwrap().map(Result::unwrap).collect()
    };
    (version, tables.map(|table| (table.clone(), rows(&table))).collect())
}

/// It is what it was, or upgraded, and in any case opens with everything in it.
#[track_caller]
fn assert_whole(path: &Path, older: i32, events: &[u64]) {
    let store = open(path).unwrap();
    let (position, records, (after, history)) = contents(&store);
    assert_eq!(position, Some(Position::new("0123456789abcdef", 41)));
    assert_eq!(records.len(), 40);
    let seventh = &records[6];
    assert_eq!(seventh.document, r#"{"id":"s07","of_a_later_one":[1.50],"crc32":"0badcafe"}"#);
    let moving = (seventh.ttl_ms, seventh.last_heartbeat_ms, seventh.revision);
    assert_eq!((seventh.types.join(" "), moving), ("web CM".into(), (30_000, 1_795_473_796_123, 7)));
    assert_eq!(after, if events.is_empty() { 41 } else { 39 });
    assert!(history.iter().map(|event| event.revision).eq(events.iter().copied()), "{history:?}");
    drop(store);
    assert_eq!(dump(path).0, 3);
    assert!(!beside(path, &format!(".schema-{older}.part")).exists());
}

#[test]
fn older_ones_keep_everything_and_so_does_a_copy_of_them() {
    for (older, schema, events) in OLDER {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services.db");
        drop(make(&path, schema));
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let before = dump(&path);
        assert_whole(&path, older, events);
        let copy = beside(&path, &format!(".schema-{older}"));
        let (version, mut tables) = dump(&copy);
        assert_eq!(version, older);
        assert_eq!(tables["services"], before.1["services"], "the earlier registry finds what it had");
        // Clients have to list again: what has happened since is not in it.
        match older {
            1 => assert!(tables["history"][0].contains("Integer(41)") && tables["history"] != before.1["history"]),
            _ => assert_eq!(tables.insert("position".into(), before.1["position"].clone()), Some(Vec::new())),
        }
        assert!(tables.keys().eq(before.1.keys()), "{tables:?}");
        #[cfg(unix)]
        assert_eq!(fs::metadata(&copy).unwrap().permissions(), fs::metadata(&path).unwrap().permissions());

        assert_whole(&path, older, events);
        let store = open(&path).unwrap();
        commit(&store, [put(record("b"))]).unwrap();
        let (after, told) = history(&store);
        assert_eq!((after, told.len()), (if events.is_empty() { 41 } else { 39 }, events.len() + 1));
        drop(store);
        let made_by = &dump(&path).1["versions"];
        assert_eq!(made_by.len(), 1);
        assert!(made_by[0].contains("Integer(3)"), "{made_by:?}");
        // Back, and once more: the copy is of this time.
        fs::copy(&copy, &path).unwrap();
        Connection::open(&path).unwrap().execute_batch("DELETE FROM services WHERE id = 's40'").unwrap();
        assert_eq!(records(&open(&path).unwrap()).len(), 39);
        assert_eq!(dump(&copy).1["services"].len(), 39);
    }
}

#[test]
fn a_log_and_a_journal_that_were_left_behind_count() {
    for (older, schema, events) in OLDER {
        let directory = tempfile::tempdir().unwrap();
        let [path, left] = ["from.db", "left.db"].map(|name| directory.path().join(name));
        let connection = make(&path, "PRAGMA journal_mode = WAL;");
        connection.execute_batch(schema).unwrap();
        copy_as_after_a_crash(&path, &left);
        assert!(beside(&left, "-wal").exists());
        assert_whole(&left, older, events);
        drop(connection);

        let [path, left] = ["journal.db", "hot.db"].map(|name| directory.path().join(name));
        let connection = make(&path, schema);
        // So little room in memory that what is not committed is in the file already.
        let unfinished = "PRAGMA cache_size = 1; PRAGMA cache_spill = 1; BEGIN;
            UPDATE services SET document = printf('%.*c', 3000, 'x'); DELETE FROM services WHERE id < 's20';";
        connection.execute_batch(unfinished).unwrap();
        fs::copy(&path, &left).unwrap();
        fs::copy(beside(&path, "-journal"), beside(&left, "-journal")).unwrap();
        assert!(fs::read(&left).unwrap().windows(100).any(|bytes| bytes == [b'x'; 100]));
        assert_whole(&left, older, events);
    }
}

#[cfg(unix)]
#[test]
fn killed_at_any_write_it_is_whole() {
    for (older, schema, events) in OLDER {
        let (mut killed, mut is_open) = (0, false);
        for blocks in (1..400).step_by(3) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("services.db");
            drop(make(&path, schema));
            let lines = Process::start_with_short_files("open", &path, blocks, true).wait_for_end();
            assert!(lines.iter().any(|line| line == "opening"), "{lines:?}");
            is_open = lines.iter().any(|line| line == "open");
            assert_whole(&path, older, events);
            if is_open {
                break;
            }
            killed += 1;
        }
        assert!(killed > 3 && is_open, "killed {killed} times");
    }
}

#[test]
fn killed_at_any_time_it_is_whole() {
    for (older, schema, events) in OLDER {
        for step in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("services.db");
            drop(make(&path, schema));
            let process = Process::start("open", &path);
            process.wait_for("opening");
            thread::sleep(Duration::from_micros(step * 400));
            process.kill();
            assert_whole(&path, older, events);
        }
    }
}

#[cfg(unix)]
#[test]
fn without_room_it_is_refused_as_it_was() {
    for (_, schema, _) in OLDER {
        let mut refused = 0;
        for blocks in (1..400).step_by(3) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("services.db");
            drop(make(&path, schema));
            let (before, tables) = (snapshot(directory.path()), dump(&path));
            let lines = Process::start_with_short_files("open", &path, blocks, false).wait_for_end();
            if lines.iter().any(|line| line == "open") {
                break;
            }
            refused += 1;
            let told =
                |what: &str| lines.iter().any(|line| line.contains(&format!("cannot {what} {}", path.display())));
            match told("copy") {
                true => assert!(snapshot(directory.path()) == before, "the files have changed, at {blocks} blocks"),
                // There was room for the copy.
                false => assert!(told("upgrade") && dump(&path) == tables, "at {blocks} blocks: {lines:?}"),
            }
        }
        assert!(refused > 3, "refused {refused} times");
    }
}

#[test]
fn what_is_in_the_way_of_the_copy_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    drop(make(&path, SCHEMA_2));
    fs::create_dir(beside(&path, ".schema-2")).unwrap();
    let before = snapshot(directory.path());
    let error = open(&path).err().unwrap();
    assert_eq!(error.kind(), Unavailable);
    let expected = format!("cannot copy {0} to {0}.schema-2, which is done before it is upgraded: ", path.display());
    assert!(error.message().starts_with(&expected), "{error}");
    assert!(snapshot(directory.path()) == before, "the files have changed");
    fs::remove_dir(beside(&path, ".schema-2")).unwrap();
    // What a kill has left behind is not.
    fs::write(beside(&path, ".schema-2.part"), "half").unwrap();
    assert_whole(&path, 2, &[40, 41]);
}

#[test]
fn a_newer_one_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("services.db");
    drop(open(&path).unwrap());
    let refused = |sql: &str| {
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let before = snapshot(directory.path());
        let error = open(&path).err().unwrap();
        assert_eq!(error.kind(), Corrupt);
        assert!(snapshot(directory.path()) == before, "the files have changed");
        error.message().replace(path.to_str().unwrap(), "~")
    };
    let does = "(schema version 7; this is 0.1.0, which reads 1 to 3): use that one, or run `registry backup` with it and \
         `registry restore` with this one, into another file";
    let told = refused("PRAGMA user_version = 7");
    assert_eq!(told, format!("~ was written by a newer registry {does}"));
    let told = refused("INSERT INTO versions VALUES (7, '0.4.2\n')");
    assert_eq!(told, format!("~ was written by the newer registry 0.4.2 {does}"));
    fs::write(beside(&path, ".schema-3"), "").unwrap();
    let told = refused("DROP TABLE versions");
    let copy = "; as it was before the upgrade it is in ~.schema-3";
    assert_eq!(told, format!("~ was written by a newer registry {does}{copy}"));
}
