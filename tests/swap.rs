//! Storage swapped while it serves: nothing is lost, no watcher notices, and one store is in charge whatever happens.

#[path = "swap/failing.rs"]
mod failing;
mod harness;
#[path = "swap/kill.rs"]
mod kill;
#[path = "swap/load.rs"]
mod load;

use std::path::Path;
use std::process::Output;

use harness::{Host, eventually, register, registry};
use serde_json::{Value, json};

const FROM: &str = "[server]\nallow_swap = true\n[backend]\nplugin = \"sqlite\"\n";
const TO: &str = "[backend]\nplugin = \"sqlite\"\n[backend.options]\npath = \"other.db\"\n";

fn run(directory: &Path, host: &Host, arguments: &[&str]) -> Output {
    let connect = format!("127.0.0.1:{}", host.requests);
    registry(directory).args(arguments).args(["--connect", &connect]).output().expect("the program can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a registry says of a configuration that it does not start with.
fn refused(directory: &Path, config: &str) -> String {
    std::fs::write(directory.join("refused.toml"), config).unwrap();
    let mut command = registry(directory);
    command.args(["config", "check", "--config", "refused.toml"]);
    for port in ["req_port", "pub_port", "heartbeat_port"] {
        command.args(["--set", &format!("server.{port}=0")]);
    }
    let output = command.output().expect("the program can be started");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    text(&output.stderr).lines().last().unwrap_or_default().to_string()
}

fn ids(client: &mut harness::Client) -> Vec<String> {
    let list = client.call(json!({"action": "list"}));
    let mut ids: Vec<String> =
        list["services"].as_array().unwrap().iter().map(|of| of["id"].as_str().unwrap().to_string()).collect();
    ids.sort();
    ids
}

#[test]
fn a_registry_moves_with_all_its_services_and_closes_the_store_before() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, FROM);
    let mut client = host.client();
    for number in 0..3000 {
        client.send(&[b"", register(&format!("s{number}"), "web", 600.0).to_string().as_bytes()]);
    }
    for _ in 0..3000 {
        client.receive();
    }
    let mut watcher = host.client();
    let before = client.call(json!({"action": "list", "fields": ["id"]}));
    let position = |list: &Value| (list["epoch"].clone(), list["revision"].clone());
    let (epoch, revision) = position(&before);
    let watch = json!({"action": "watch", "epoch": epoch, "after": revision, "wait": 60});
    watcher.send(&[b"", watch.to_string().as_bytes()]);
    std::fs::write(directory.join("to.toml"), TO).unwrap();
    let moved = run(directory, &host, &["swap", "--to", "to.toml"]);
    assert!(moved.status.success(), "{moved:?}\n{}", host.log());
    let said = text(&moved.stdout);
    assert!(said.starts_with("moved to sqlite (other.db) with 3000 services; changes waited "), "{said}");
    let diff = text(&run(directory, &host, &["config", "diff"]).stdout);
    let line =
        "[backend]: the registry has been moved to the storage sqlite (other.db), which the file has to name before";
    assert!(diff.starts_with(line), "{diff}");
    std::fs::write(directory.join("registry.toml"), TO).unwrap();
    let diff = text(&run(directory, &host, &["config", "diff"]).stdout);
    assert!(!diff.contains("[backend]"), "{diff}");
    assert_eq!(position(&client.call(json!({"action": "list", "fields": ["id"]}))), (epoch.clone(), revision));
    assert_eq!(client.call(register("late", "web", 600.0))["success"], true);
    let told: Value = serde_json::from_slice(&watcher.receive()[1]).unwrap();
    assert_eq!(told["changes"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["changes"][0]["data"]["service_id"], "late");
    host.wait_for_log("a storage that is not in charge is closed");
    host.kill();

    let line = refused(directory, FROM);
    assert!(line.contains("this store is closed: a store of the plugin sqlite has taken its place"), "{line}");
    let host = Host::start(directory, TO);
    let mut client = host.client();
    assert_eq!(ids(&mut client).len(), 3001);
    assert_eq!(client.call(json!({"action": "info"}))["epoch"], epoch, "the history goes on");
    host.stop();
    let host = Host::start(directory, &format!("{FROM}reopen_closed = true\n"));
    let mut client = host.client();
    assert_eq!(ids(&mut client).len(), 3000);
    assert_ne!(client.call(json!({"action": "info"}))["epoch"], epoch, "it must not fork");
}

#[test]
fn a_reload_moves_to_the_storage_that_is_configured_now_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, "[backend]\nplugin = \"memory\"\n");
    let mut client = host.client();
    assert_eq!(client.call(register("a", "web", 600.0))["success"], true);
    for (round, (config, plugin)) in
        [(TO, "sqlite"), ("[backend]\nplugin = \"memory\"\n", "memory")].iter().cycle().take(4).enumerate()
    {
        std::fs::write(directory.join("registry.toml"), config).unwrap();
        let diff = text(&run(directory, &host, &["config", "diff"]).stdout);
        assert_eq!(diff, format!("[backend]: the registry would move to the storage {plugin}\n"));
        let reload = text(&run(directory, &host, &["reload"]).stdout);
        assert_eq!(reload, format!("[backend]: the registry moves to the storage {plugin}\n"));
        eventually(&mut client, json!({"action": "health"}), |health| health["backend"]["plugin"] == *plugin);
        assert_eq!(client.call(register(&format!("s{round}"), "web", 600.0))["success"], true);
        assert_eq!(
            client.call(json!({"action": "deregister", "service_id": format!("s{}", round.wrapping_sub(1))}))["success"],
            round > 0
        );
    }
    assert_eq!(ids(&mut client), ["a", "s3"]);
    assert_eq!(text(&run(directory, &host, &["config", "diff"]).stdout), "nothing has changed\n");
}

#[test]
fn what_cannot_be_moved_to_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let other = Host::start(directory, TO);
    assert_eq!(other.client().call(register("of-another", "web", 600.0))["success"], true);
    other.stop();
    let host = Host::start(directory, FROM);
    let mut client = host.client();
    assert_eq!(client.call(register("a", "web", 600.0))["success"], true);
    let attempt = |config: &str| {
        std::fs::write(directory.join("to.toml"), config).unwrap();
        let refused = run(directory, &host, &["swap", "--to", "to.toml"]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        text(&refused.stderr)
    };
    assert!(attempt(TO).contains("1 service of another registry in it"));
    assert!(attempt("[backend]\nplugin = \"nothing\"\n").contains("nothing"));
    assert!(attempt(FROM).contains("in use"));
    assert!(attempt("[backend]\nplugin = \"moody\"\noptions.outage = \"to.toml\"\n").contains("the power is out"));
    assert_eq!(client.call(register("b", "web", 600.0))["success"], true);
    assert_eq!(ids(&mut client), ["a", "b"]);
    host.kill();
    let host = Host::start(directory, FROM);
    assert_eq!(ids(&mut host.client()), ["a", "b"]);
    host.stop();
    let host = Host::start(directory, &FROM.replace("allow_swap = true", "allow_swap = false"));
    let refused = run(directory, &host, &["swap", "--to", "to.toml"]);
    assert!(text(&refused.stderr).contains("swap is not allowed: the server's allow_swap is off"), "{refused:?}");
}

#[test]
fn a_move_that_was_given_up_leaves_nothing_that_could_be_taken_for_a_store_in_charge() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let sqlite = harness::plugin_dir().join("libregistry_sqlite.so");
    let slow = format!(
        "[backend]\nplugin = \"faulty\"\noptions.path = \"other.db\"\noptions.library = {sqlite:?}\noptions.control = \"control\"\n"
    );
    std::fs::write(directory.join("to.toml"), slow).unwrap();
    std::fs::write(directory.join("control"), "slow 500").unwrap();
    let host = Host::start(directory, FROM);
    let mut client = host.client();
    assert_eq!(client.call(register("old", "web", 600.0))["success"], true);
    let refused = run(directory, &host, &["swap", "--to", "to.toml"]);
    assert!(text(&refused.stderr).contains("one of both storages takes too long to answer"), "{refused:?}");
    assert_eq!(client.call(register("after", "web", 600.0))["success"], true);
    host.wait_for_log("a storage that is not in charge is closed");
    let line = self::refused(directory, TO);
    assert!(line.contains("this store is not whole"), "{line}");
    host.stop();
    let host = Host::start(directory, FROM);
    assert_eq!(ids(&mut host.client()), ["after", "old"]);
}

#[test]
fn what_a_client_has_had_moved_stays_there_when_the_configuration_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, FROM);
    std::fs::write(directory.join("to.toml"), TO).unwrap();
    assert!(run(directory, &host, &["swap", "--to", "to.toml"]).status.success());
    let reload = text(&run(directory, &host, &["reload"]).stdout);
    assert!(reload.contains("has been moved to the storage sqlite (other.db)"), "{reload}");
    assert!(reload.ends_with("\nnothing has changed\n"), "{reload}");
    // And when it says the same as what is in charge.
    std::fs::write(directory.join("registry.toml"), format!("[server]\nallow_swap = true\n{TO}")).unwrap();
    let reload = text(&run(directory, &host, &["reload"]).stdout);
    assert!(!reload.contains("[backend]"), "{reload}");
    assert_eq!(host.client().call(register("a", "web", 600.0))["success"], true);
    host.stop();
    let host = Host::start(directory, TO);
    assert_eq!(ids(&mut host.client()), ["a"]);
}
