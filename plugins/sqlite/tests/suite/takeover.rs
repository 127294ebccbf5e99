//! A database that the Python registry wrote becomes this registry's, with all that made sense in it.

use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use registry_plugin_api::{Outcome, Record};
use rusqlite::Connection;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};

use crate::common::{commit, copy_as_after_a_crash, open, pages, position, put, record, records};

/// As `egse.registry.backend.AsyncSQLiteBackend` makes it.
const TABLE: &str = "
    PRAGMA journal_mode=WAL;
    CREATE TABLE IF NOT EXISTS services (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        host TEXT NOT NULL,
        port INTEGER NOT NULL,
        metadata TEXT,
        ttl INTEGER NOT NULL,
        last_heartbeat INTEGER NOT NULL,
        tags TEXT
    );
";

const ROWS: &str = r#"
    INSERT INTO services VALUES ('z-first', 'cm', '10.0.0.1', 5556,
        '{"device": {"b": 1, "a": 1.50}, "\u00fc": "\u2603", "type": "CM"}', 30, 1795473796, '["core", "CM"]');
    INSERT INTO services VALUES ('a-second', 'no type', 'localhost', 8000, '{}', 10, 1795473797, '[]');
    INSERT INTO services VALUES ('null', 'nulls', 'localhost', 1, NULL, 10, 1, NULL);
    INSERT INTO services VALUES ('tag', 'type is no tag', 'localhost', 2, '{"type": "X"}', 2.5, 1, '["a", "a"]');
"#;

/// The Python registry's database with its connection, which is open.
fn python(path: &Path, rows: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(TABLE).unwrap();
    connection.execute_batch(rows).unwrap();
    connection
}

fn find<'a>(records: &'a [Record], id: &str) -> &'a Record {
    records.iter().find(|record| record.id == id).unwrap()
}

fn document(record: &Record) -> Value {
    serde_json::from_str(&record.document).unwrap()
}

#[test]
fn its_services_are_taken_over_and_its_table_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service_registry.db");
    drop(python(&path, ROWS));
    let (store, log) = logged(|| open(&path).unwrap());
    assert!(log.contains("INFO took over the services of the Python registry"), "{log}");
    assert!(log.contains("taken=4 skipped=0 kept_as=\"services_cgse\""), "{log}");
    assert!(log.contains("INFO opened the database"), "{log}");
    assert!(log.contains("schema_version=3 services=4 journal_mode=\"wal\""), "{log}");

    let taken = records(&store);
    assert_eq!(position(&store), None);
    let first = find(&taken, "z-first");
    assert_eq!((first.revision, first.ttl_ms, first.last_heartbeat_ms), (1, 30_000, 1_795_473_796_000));
    assert_eq!(first.types, ["core", "CM"]);
    assert_eq!(
        first.document,
        "{\"id\":\"z-first\",\"name\":\"cm\",\"host\":\"10.0.0.1\",\"port\":5556,\"type\":\"CM\",\
         \"tags\":[\"core\",\"CM\"],\
         \"metadata\":{\"device\":{\"b\":1,\"a\":1.50},\"\u{fc}\":\"\u{2603}\",\"type\":\"CM\"},\"ttl\":30}"
    );
    let second = find(&taken, "a-second");
    assert_eq!((second.revision, second.types.len()), (2, 0));
    assert_eq!(document(second)["type"], Value::Null);
    let nulls = document(find(&taken, "null"));
    assert_eq!((&nulls["metadata"], &nulls["tags"]), (&json!({}), &json!([])));
    let tag = find(&taken, "tag");
    assert_eq!((tag.types.as_slice(), tag.ttl_ms), (["a".to_string(), "X".to_string()].as_slice(), 2500));
    assert_eq!(document(tag)["tags"], json!(["a", "a", "X"]));
    assert_eq!(document(tag)["ttl"], json!(2.5));

    assert_eq!(commit(&store, [put(record("new"))]).unwrap(), [Outcome::Done]);
    let before = pages(&store);
    drop(store);
    let kept = "SELECT count(*) FROM services_cgse WHERE name <> ''";
    let kept: i64 = Connection::open(&path).unwrap().query_row(kept, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 4);
    let (store, log) = logged(|| open(&path).unwrap());
    assert_eq!(pages(&store), before);
    assert!(!log.contains("took over"), "{log}");
}

#[test]
fn what_is_only_in_its_log_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let [path, copy] = ["killed.db", "copy.db"].map(|name| directory.path().join(name));
    let _open = python(&path, ROWS);
    copy_as_after_a_crash(&path, &copy);
    assert!(std::fs::metadata(&copy).unwrap().len() <= 4096, "the rows should be in the log");
    assert_eq!(records(&open(&copy).unwrap()).len(), 4);
}

#[test]
fn an_empty_table_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service_registry.db");
    drop(python(&path, ""));
    let store = open(&path).unwrap();
    assert_eq!((records(&store).len(), position(&store)), (0, None));
}

#[test]
fn while_the_python_registry_runs_its_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service_registry.db");
    let python = python(&path, ROWS);
    let error = open(&path).err().unwrap();
    assert!(error.message().ends_with("is in use by another process (another registry host?)"), "{error}");
    drop(python);
    assert_eq!(records(&open(&path).unwrap()).len(), 4);
}

#[test]
fn a_row_that_makes_no_sense_is_skipped_with_a_warning_and_kept() {
    let bad = [
        (r"('m1', 'n', 'h', 1, '{', 30, 1, '[]')", "metadata is no JSON object: EOF"),
        (r"('m2', 'n', 'h', 1, '[1]', 30, 1, '[]')", "metadata is no JSON object: invalid type"),
        (r"('m3', 'n', 'h', 1, x'00', 30, 1, '[]')", "metadata is Blob, expected text"),
        (r"('g1', 'n', 'h', 1, '{}', 30, 1, '[1]')", "tags is no JSON array of strings"),
        (r"('p1', 'n', 'h', 70000, '{}', 30, 1, '[]')", "port is 70000, expected a number from 0 to 65535"),
        (r"('p2', 'n', 'h', 'http', '{}', 30, 1, '[]')", "port is Text, expected a whole number"),
        (r"('t1', 'n', 'h', 1, '{}', 0, 1, '[]')", "ttl is 0, expected a positive number of seconds"),
        (r"('t2', 'n', 'h', 1, '{}', -1.5, 1, '[]')", "ttl is -1.5, expected a positive number of seconds"),
        (r"('t3', 'n', 'h', 1, '{}', 9223372036854775807, 1, '[]')", "ttl is 9223372036854775807, expected a"),
        (r"('l1', 'n', 'h', 1, '{}', 30, -1, '[]')", "last_heartbeat is -1, expected seconds since 1970"),
        (r"('m4', 'n', 'h', 1, CAST(x'FF' AS TEXT), 30, 1, '[]')", "metadata cannot be read: "),
        (r"('', 'n', 'h', 1, '{}', 30, 1, '[]')", "id is empty, expected text"),
        (r"(Null, 'n', 'h', 1, '{}', 30, 1, '[]')", "id is empty, expected text"),
    ];
    let mut rows = ROWS.to_string();
    for (row, _) in bad {
        writeln!(rows, "INSERT INTO services VALUES {row};").unwrap();
    }
    rows.push_str("INSERT INTO services VALUES ('last', 'n', 'h', 1, '{}', 30, 1, '[]')");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("service_registry.db");
    drop(python(&path, &rows));
    let (store, log) = logged(|| open(&path).unwrap());
    assert_eq!(find(&records(&store), "last").revision, 5);
    for (row, reason) in bad {
        let id = row.split(['(', ',']).nth(1).unwrap().trim_matches('\'');
        let told = log
            .lines()
            .any(|line| line.starts_with("WARN") && line.contains(&format!("id={id:?}")) && line.contains(reason));
        assert!(told, "{row}: {log}");
    }
    assert!(log.contains("taken=5 skipped=13"), "{log}");
    drop(store);
    let kept = "SELECT count(*) FROM services_cgse";
    let kept: i64 = Connection::open(&path).unwrap().query_row(kept, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 18);
}

/// Does something and returns what it has logged, a line for each event: level, message, fields.
fn logged<T>(run: impl FnOnce() -> T) -> (T, String) {
    let log = Log::default();
    let output = tracing::subscriber::with_default(log.clone(), run);
    let lines = log.lines.lock().unwrap().clone();
    (output, lines)
}

#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<String>>,
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Fields(String, String);
        impl Visit for Fields {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                match field.name() {
                    "message" => write!(self.0, "{value:?}").unwrap(),
                    name => write!(self.1, " {name}={value:?}").unwrap(),
                }
            }
        }
        let mut fields = Fields(String::new(), String::new());
        event.record(&mut fields);
        let line = format!("{} {}{}\n", event.metadata().level(), fields.0, fields.1);
        self.lines.lock().unwrap().push_str(&line);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
