//! Stores that earlier versions have written are served on, backups go both ways, and what a later version has written is
//! kept by an earlier one.

mod harness;

use std::path::Path;
use std::process::Output;

use harness::{Host, register, registry};
use rusqlite::Connection;
use serde_json::{Value, json};

const SQLITE: &str = "[backend]\nplugin = \"sqlite\"\n";
const EPOCH: &str = "0123456789abcdef0123456789abcdef";

const SERVICES: &str = "
    CREATE TABLE services (id TEXT NOT NULL PRIMARY KEY, document TEXT NOT NULL, types TEXT NOT NULL, ttl_ms INTEGER NOT NULL,
        last_heartbeat_ms INTEGER NOT NULL, revision INTEGER NOT NULL) STRICT;
    PRAGMA application_id = 0x53526567;
";

/// As schema version 1 was made.
const SCHEMA_1: &str = "
    CREATE TABLE history (one INTEGER PRIMARY KEY CHECK (one = 1), epoch TEXT NOT NULL, revision INTEGER NOT NULL) STRICT;
    INSERT INTO history VALUES (1, '0123456789abcdef0123456789abcdef', 41);
    PRAGMA user_version = 1;
";

/// As schema version 2 was made.
const SCHEMA_2: &str = "
    CREATE TABLE position (one INTEGER PRIMARY KEY CHECK (one = 1), epoch TEXT NOT NULL, revision INTEGER NOT NULL,
        events_after INTEGER NOT NULL) STRICT;
    CREATE TABLE events (revision INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;
    INSERT INTO position VALUES (1, '0123456789abcdef0123456789abcdef', 41, 40);
    PRAGMA user_version = 2;
";

/// A service as it is stored, without its last brace: with something that only a later version knows.
const DOCUMENT: &str = r#"{"id":"lamp-1","name":"Lamp","host":"10.0.0.8","port":7000,"type":"lamp","tags":["lamp"],"metadata":{"type":"lamp"},"ttl":600,"generation":1764115200000,"of_a_later_one":{"n":1.50,"big":12345678901234567890123}"#;
/// How a later version's fields are written.
const LATER: &str = r#""of_a_later_one":{"n":1.50,"big":12345678901234567890123}"#;
/// The change that has made it, without its last brace.
const EVENT: &str = r#"{"type":"register","timestamp":1764115200,"types":["lamp"],"was":false,"by":{"address":"127.0.0.1:54238"},"of_a_later_one":1.50,"service":{"id":"lamp-1","name":"Lamp","host":"10.0.0.8","port":7000,"type":"lamp","tags":["lamp"],"metadata":{"type":"lamp"},"ttl":600,"generation":1764115200000,"of_a_later_one":{"n":1.50,"big":12345678901234567890123},"last_heartbeat":1764115200,"health":"passing"}"#;
/// How both end with a seal, and without.
const SEALS: (&str, &str) = (r#","crc32":"bef212b4"}"#, r#","crc32":"be555906"}"#);
const UNSEALED: (&str, &str) = ("}", "}");

/// A database that an earlier version has left in a directory.
fn make(directory: &Path, schema: &str, (seal, event_seal): (&str, &str)) -> Connection {
    let connection = Connection::open(directory.join("service_registry.db")).unwrap();
    connection.execute_batch(&format!("{SERVICES}{schema}")).unwrap();
    let insert = "INSERT INTO services VALUES ('lamp-1', ?1, '[\"lamp\"]', 600000, 1764115200123, 41)";
    connection.execute(insert, [format!("{DOCUMENT}{seal}")]).unwrap();
    if schema == SCHEMA_2 {
        connection.execute("INSERT INTO events VALUES (41, ?1)", [format!("{EVENT}{event_seal}")]).unwrap();
    }
    connection
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    registry(directory).args(arguments).output().expect("the program can be started")
}

fn backup(directory: &Path, host: &Host) -> String {
    let saved = run(directory, &["backup", "-", "--connect", &format!("127.0.0.1:{}", host.requests)]);
    assert!(saved.status.success(), "{saved:?}");
    String::from_utf8(saved.stdout).unwrap()
}

/// What a client reads of the service, as it is written.
fn shown(host: &Host) -> String {
    let mut client = host.client();
    client.send(&[b"", br#"{"action": "get", "service_id": "lamp-1"}"#]);
    String::from_utf8(client.receive().pop().expect("a reply has a frame")).unwrap()
}

#[test]
fn what_earlier_versions_have_stored_is_served_on() {
    for (schema, seals) in [(SCHEMA_1, UNSEALED), (SCHEMA_2, UNSEALED), (SCHEMA_2, SEALS), (SCHEMA_2, (SEALS.0, "}"))] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        drop(make(directory, schema, seals));
        let host = Host::start(directory, SQLITE);
        let mut client = host.client();
        let list = client.call(json!({"action": "list"}));
        assert_eq!((&list["epoch"], &list["revision"]), (&json!(EPOCH), &json!(41)), "clients notice nothing");
        let text = shown(&host);
        assert!(text.contains(LATER) && !text.contains("crc32"), "{text}");
        let watch = |after: u64| json!({"action": "watch", "epoch": EPOCH, "after": after, "wait": 0});
        let told = client.call(watch(40));
        match schema == SCHEMA_2 {
            true => assert_eq!(told["changes"][0]["data"]["service_info"]["of_a_later_one"]["n"], 1.5, "{told}"),
            false => assert_eq!(told["code"], "compacted", "it kept no changes"),
        }
        assert_eq!(client.call(watch(41))["changes"], json!([]));
        assert_eq!(client.call(json!({"action": "discover", "service_type": "lamp"}))["service"]["id"], "lamp-1");
        assert_eq!(client.call(register("lamp-2", "lamp", 600.0))["success"], true);
        assert_eq!(client.call(watch(41))["changes"][0]["revision"], 42);
        host.stop();
        // Whoever goes back to the earlier version finds what that one had.
        let copy = directory.join(format!("service_registry.db.schema-{}", if schema == SCHEMA_1 { 1 } else { 2 }));
        let kept = Connection::open(copy).unwrap();
        let document = kept.query_row("SELECT document FROM services", [], |row| row.get::<_, String>(0)).unwrap();
        assert_eq!(document, format!("{DOCUMENT}{}", seals.0));
    }
}

#[test]
fn what_was_damaged_before_an_upgrade_is_found_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let made = make(directory.path(), SCHEMA_2, SEALS);
    made.execute_batch("UPDATE services SET document = replace(document, '7000', '7001')").unwrap();
    drop(made);
    let host = Host::start(directory.path(), SQLITE);
    assert_eq!(host.client().call(json!({"action": "list"}))["services"], json!([]));
    host.wait_for_log("lamp-1");
}

#[test]
fn an_earlier_version_keeps_what_it_does_not_know() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    drop(make(directory, SCHEMA_2, SEALS));
    let host = Host::start(directory, SQLITE);
    let mut client = host.client();
    for request in [
        json!({"action": "update", "service_id": "lamp-1", "metadata": {"room": 4}}),
        json!({"action": "drain", "service_id": "lamp-1"}),
        json!({"action": "undrain", "service_id": "lamp-1"}),
        json!({"action": "renew", "service_id": "lamp-1"}),
    ] {
        assert_eq!(client.call(request)["success"], true);
        assert!(shown(&host).contains(LATER));
    }
    let saved = backup(directory, &host);
    assert!(saved.contains(LATER) && !saved.contains("crc32"), "{saved}");
    host.kill();
    let host = Host::start(directory, SQLITE);
    assert!(shown(&host).contains(LATER));
    host.stop();
    // A backup is the way back: fields of its first line that only a later version knows do no harm.
    let saved = saved
        .replacen('{', r#"{"of_a_later_one":true,"#, 1)
        .replace("\"registry\":\"0.1.0\"", "\"registry\":\"9.1.0\"");
    assert!(saved.contains("9.1.0"), "{saved}");
    std::fs::write(directory.join("saved.jsonl"), saved).unwrap();
    let restored = run(directory, &["restore", "saved.jsonl", "--offline", "--replace"]);
    assert!(restored.status.success(), "{restored:?}");
    let host = Host::start(directory, SQLITE);
    let text = shown(&host);
    assert!(text.contains(LATER) && text.contains("\"room\":4"), "{text}");
    assert_eq!(text.matches("last_heartbeat").count(), 1, "{text}");
}

#[test]
fn a_later_store_is_refused_by_a_line_that_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    Host::start(directory, SQLITE).stop();
    let path = directory.join("service_registry.db");
    let set = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let refused = |arguments: &[&str]| {
        let output = run(directory, arguments);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    set("INSERT INTO versions VALUES (4, '0.9.0'); PRAGMA user_version = 4");
    for command in [&["serve"][..], &["config", "check"]] {
        let told = refused(command);
        assert!(
            told.contains("service_registry.db was written by the newer registry 0.9.0 (schema version 4"),
            "{told}"
        );
        assert!(told.contains("run `registry backup` with it and `registry restore` with this one"), "{told}");
    }
    // One whose plugin is as it was, and whose host is not.
    set("PRAGMA user_version = 3; UPDATE position SET epoch = 'registry:of-a-later-one'");
    let told = refused(&["serve"]);
    assert!(told.contains("was left by a newer registry in a state (\"registry:of-a-later-one\")"), "{told}");
}

#[test]
fn what_a_schema_1_host_was_killed_over_is_upgraded_with_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
    [&from, &to].into_iter().for_each(|directory| std::fs::create_dir(directory).unwrap());
    let open = Connection::open(from.join("service_registry.db")).unwrap();
    open.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    let _made = make(&from, SCHEMA_1, UNSEALED);
    for name in ["service_registry.db", "service_registry.db-wal"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let host = Host::start(&to, SQLITE);
    let list: Value = host.client().call(json!({"action": "list"}));
    assert_eq!((&list["epoch"], list["services"].as_array().map(Vec::len)), (&json!(EPOCH), Some(1)));
}
