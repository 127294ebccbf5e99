//! What outlives a host, and what a host does when it is stopped, killed, suspended or started in another's place.

mod harness;

use std::path::Path;
use std::time::Duration;

use harness::{Host, eventually, plugin_dir, register, registry};
use registry_host::plugin::{Plugin, find};
use registry_host::store::{self, Contents};
use serde_json::{Map, Value, json};

const SQLITE: &str = "[server]\ncleanup_interval = 0.1\n";

fn fresh() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn list(host: &Host) -> Value {
    host.client().call(json!({"action": "list"}))
}

fn ids(list: &Value) -> Vec<&str> {
    let services = list["services"].as_array().expect("a list of services");
    let mut ids: Vec<&str> = services.iter().filter_map(|service| service["id"].as_str()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let directory = fresh();
    let host = Host::start(directory.path(), SQLITE);
    let mut client = host.client();
    for number in 0..50 {
        assert_eq!(client.call(register(&format!("s{number:02}"), "web", 30.0))["success"], true);
    }
    client.call(json!({"action": "deregister", "service_id": "s00"}));
    let before = list(&host);
    host.kill();
    let host = Host::start(directory.path(), SQLITE);
    let after = list(&host);
    assert_eq!(ids(&after).len(), 49);
    assert_eq!(ids(&after), ids(&before));
    assert_eq!((&after["epoch"], &after["revision"]), (&before["epoch"], &before["revision"]));
    assert_eq!(after["services"][0]["health"], "passing");
}

#[test]
fn whoever_does_not_come_back_after_a_restart_expires_after_one_ttl() {
    let directory = fresh();
    let host = Host::start(directory.path(), SQLITE);
    host.client().call(register("gone", "web", 1.0));
    host.client().call(register("back", "web", 1.0));
    host.kill();
    // The ttl passes while no host runs, and does not count.
    std::thread::sleep(Duration::from_millis(1200));
    let host = Host::start(directory.path(), SQLITE);
    let mut client = host.client();
    assert_eq!(ids(&list(&host)), ["back", "gone"]);
    assert_eq!(client.call(json!({"action": "get", "service_id": "gone"}))["service"]["health"], "passing");
    let mut events = host.subscriber();
    let beat = json!({"action": "renew", "service_id": "back"});
    let gone = json!({"action": "get", "service_id": "gone"});
    eventually(&mut client, gone, |reply| {
        assert_eq!(host.client().call(beat.clone())["success"], true);
        reply["code"] == "not_found"
    });
    let (topic, event) = events.next();
    assert_eq!((topic.as_str(), &event["data"]["service_id"]), ("expire", &json!("gone")));
    assert_eq!(ids(&list(&host)), ["back"]);
}

#[test]
fn a_host_that_was_suspended_for_longer_than_a_ttl_expires_nobody_for_that() {
    let directory = fresh();
    let host = Host::start(directory.path(), SQLITE);
    let mut client = host.client();
    client.call(register("x", "web", 1.5));
    client.call(register("quiet", "mail", 1.5));
    let mut heartbeats = host.heartbeat_client();
    host.signal("STOP");
    // Heartbeats go on, and wait in the network.
    for _ in 0..6 {
        heartbeats.send(&[br#"{"service_id":"x"}"#]);
        std::thread::sleep(Duration::from_millis(500));
    }
    host.signal("CONT");
    // The time that the host was away does not count for anybody.
    assert_eq!(client.call(json!({"action": "discover", "service_type": "mail"}))["success"], true);
    for _ in 0..6 {
        let reply: Value = serde_json::from_slice(&heartbeats.receive()[0]).unwrap();
        assert_eq!(reply["success"], true, "{reply}");
    }
    host.wait_for_log("the host was held up for");
    assert_eq!(client.call(json!({"action": "discover", "service_type": "web"}))["success"], true);
}

#[test]
fn the_signals_end_a_host_in_good_order() {
    for signal in ["INT", "TERM"] {
        let directory = fresh();
        let host = Host::start(directory.path(), SQLITE);
        let mut client = host.client();
        client.call(register("x", "web", 30.0));
        // Taken before the signal, and so answered after it.
        for _ in 0..200 {
            client.send(&[b"REQ", br#"{"action":"renew","service_id":"x"}"#]);
        }
        for _ in 0..200 {
            client.receive();
        }
        let (status, log) = host.terminate(signal);
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains(&format!("stopping: SIG{signal} received")), "{log}");
        assert!(log.contains("stopped, with 1 service registered"), "{log}");
        assert!(!directory.path().join("service_registry.db-wal").exists(), "the database is closed");
    }
}

#[test]
fn heartbeats_are_flushed_when_the_host_stops() {
    let directory = fresh();
    let host = Host::start(directory.path(), SQLITE);
    let mut client = host.client();
    client.call(register("x", "web", 30.0));
    let shown = |reply: &Value| reply["service"]["last_heartbeat"].as_u64().unwrap();
    let get = json!({"action": "get", "service_id": "x"});
    let registered = shown(&client.call(get.clone()));
    std::thread::sleep(Duration::from_millis(1100));
    client.call(json!({"action": "renew", "service_id": "x"}));
    let renewed = shown(&client.call(get.clone()));
    assert!(renewed > registered);
    host.stop();
    let host = Host::start(directory.path(), SQLITE);
    assert_eq!(shown(&host.client().call(get)), renewed);
}

#[test]
fn a_second_host_on_the_same_file_is_refused_and_the_first_goes_on() {
    let directory = fresh();
    let host = Host::start(directory.path(), SQLITE);
    host.client().call(register("x", "web", 30.0));
    let mut second = registry(directory.path());
    second.args(["serve", "-s", "server.req_port=0", "-s", "server.pub_port=0", "-s", "server.heartbeat_port=0"]);
    let output = second.output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("registry: ") && last.contains("service_registry.db"), "{log}");
    assert!(last.contains("in use"), "{log}");
    assert_eq!(host.client().call(register("y", "web", 30.0))["success"], true);
}

#[test]
fn a_port_in_use_is_named_before_anything_has_started() {
    let directory = fresh();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for key in ["req_port", "pub_port", "heartbeat_port"] {
        let mut command = registry(directory.path());
        command.arg("serve");
        for other in ["req_port", "pub_port", "heartbeat_port"] {
            let port = if other == key { port } else { 0 };
            command.args(["-s".into(), format!("server.{other}={port}")]);
        }
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{log}");
        let last = log.lines().last().unwrap_or_default();
        let expected = format!("registry: cannot listen on tcp://127.0.0.1:{port} (server.{key})");
        assert!(last.starts_with(&expected), "{log}");
        assert!(!directory.path().join("service_registry.db").exists(), "no database is made");
    }
}

#[test]
fn the_ports_are_free_again_at_once() {
    let directory = fresh();
    let host = Host::start(directory.path(), SQLITE);
    let ports = host.ports();
    host.client().call(register("x", "web", 30.0));
    host.kill();
    let host = Host::start_on(directory.path(), SQLITE, ports);
    assert_eq!(ids(&list(&host)), ["x"]);
}

#[test]
fn storage_is_swapped_by_one_line() {
    let directory = fresh();
    let host = Host::start(directory.path(), SQLITE);
    host.client().call(register("kept", "web", 30.0));
    host.stop();
    let host = Host::start(directory.path(), &format!("{SQLITE}[backend]\nplugin = \"memory\"\n"));
    assert_eq!(ids(&list(&host)), [""; 0]);
    host.client().call(register("volatile", "web", 30.0));
    host.stop();
    let host = Host::start(directory.path(), SQLITE);
    assert_eq!(ids(&list(&host)), ["kept"]);
}

fn migrate(directory: &Path, from: &str, to: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let output = registry(directory).args(["migrate", "--from", from, "--to", to]).args(more).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What a host finds in a database.
fn contents(database: &Path) -> Contents {
    let plugin = Plugin::load(find("sqlite", Some(&plugin_dir())).unwrap()).unwrap();
    let options = Map::from_iter([("path".to_string(), json!(database))]);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let (backend, contents) = store::open(&plugin, options).await.unwrap();
        backend.close().await.unwrap();
        contents
    })
}

#[test]
fn migrate_copies_every_service_and_says_how_many() {
    let directory = fresh();
    let host = Host::start(directory.path(), SQLITE);
    let mut client = host.client();
    for number in 0..2500 {
        client.send(&[b"REQ", register(&format!("s{number}"), "web", 60.0).to_string().as_bytes()]);
    }
    for _ in 0..2500 {
        client.receive();
    }
    let before = list(&host);
    std::fs::write(directory.path().join("other.toml"), "[backend.options]\npath = \"other.db\"\n").unwrap();
    let (code, _, error) = migrate(directory.path(), "registry.toml", "other.toml", &[]);
    assert_eq!(code, Some(1), "a store that a host uses is not copied");
    assert!(error.lines().last().unwrap_or_default().contains("in use"), "{error}");
    host.stop();

    let (code, out, error) = migrate(directory.path(), "registry.toml", "other.toml", &[]);
    assert_eq!((code, out.as_str()), (Some(0), "2500 services copied\n"), "{error}");
    let copied = contents(&directory.path().join("other.db"));
    let (code, _, error) = migrate(directory.path(), "registry.toml", "other.toml", &[]);
    assert_eq!(code, Some(1));
    assert!(error.contains("2500 services are in it already; --merge copies over them"), "{error}");
    let (code, ..) = migrate(directory.path(), "registry.toml", "other.toml", &["--merge"]);
    assert_eq!(code, Some(0));
    let merged = contents(&directory.path().join("other.db"));
    for (contents, revision) in [(&copied, 2500), (&merged, 5000)] {
        // The target counts on for itself, and no history claims to have what was copied.
        assert_eq!((contents.position.revision, contents.records.len()), (revision, 2500));
        assert_eq!((contents.history.complete_after, contents.history.events.len()), (revision, 0));
    }
    assert_ne!(copied.position.epoch, merged.position.epoch, "what was copied is no event that clients could follow");

    std::fs::write(directory.path().join("memory.toml"), "[backend]\nplugin = \"memory\"\n").unwrap();
    let (code, out, error) = migrate(directory.path(), "registry.toml", "memory.toml", &[]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "a copy of which nothing is left is none");
    assert!(error.contains("memory.toml: the storage memory is not durable"), "{error}");

    let config = format!("{SQLITE}[backend.options]\npath = \"other.db\"\n");
    let host = Host::start(directory.path(), &config);
    let after = list(&host);
    assert_eq!(ids(&after), ids(&before));
    let service = |list: &Value| {
        let services = list["services"].as_array().unwrap();
        services.iter().find(|service| service["id"] == "s7").cloned().unwrap()
    };
    assert_eq!(service(&after), service(&before));
    assert_ne!(after["epoch"], before["epoch"], "another store is another history");
}
