//! What operators do to a running registry: they change its configuration, and take services out.

mod harness;

use std::path::Path;
use std::process::{Child, Output, Stdio};

use harness::{Host, PATIENCE, eventually, keys, register, registry};
use serde_json::{Value, json};

const MEMORY: &str = "[backend]\nplugin = \"memory\"\n";

/// A process that ends with the test, however that ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(directory: &Path, host: &Host, arguments: &[&str]) -> Output {
    let connect = format!("127.0.0.1:{}", host.requests);
    registry(directory).args(arguments).args(["--connect", &connect]).output().expect("the program can be started")
}

/// What a command prints that is to succeed.
fn done(directory: &Path, host: &Host, arguments: &[&str]) -> String {
    let output = run(directory, host, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn configure(directory: &Path, config: &str) {
    std::fs::write(directory.join("registry.toml"), config).unwrap();
}

#[test]
fn sighup_takes_over_what_it_can_and_names_what_takes_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    let mut client = host.client();
    let long_id = "x".repeat(200);
    assert_eq!(client.call(register(&long_id, "web", 60.0))["success"], true);
    configure(directory, &format!("[log]\nlevel = \"debug\"\nformat = \"json\"\n[limits]\nid_bytes = 100\n{MEMORY}"));
    host.signal("HUP");
    host.wait_for_log("SIGHUP: the configuration is read again");
    host.wait_for_log("limits.id_bytes: 512 -> 100");
    host.wait_for_log("log.format has changed, which takes a restart");
    host.wait_for_log("2 settings are taken over");
    let refused = client.call(register(&long_id, "web", 60.0));
    assert_eq!(refused["field"], "service_info.id", "{refused}");
    assert_eq!(client.call(register("short", "web", 60.0))["success"], true);
    host.wait_for_log(" DEBUG ");
    host.signal("HUP");
    host.wait_for_log("nothing has changed that can be taken over");
    host.stop();
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    configure(directory, &format!("[limits]\nid_bytes = 100\nname_byte = 3\n{MEMORY}"));
    host.signal("HUP");
    host.wait_for_log("unknown key limits.name_byte");
    host.wait_for_log("the configuration cannot be used: nothing has been changed");
    let output = run(directory, &host, &["reload", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reply["code"], "config_refused");
    assert!(reply["problems"][0].as_str().unwrap().starts_with("unknown key limits.name_byte (registry.toml, line 3)"));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("unknown key limits.name_byte"), "{told}");
    assert_eq!(host.client().call(register(&"x".repeat(200), "web", 60.0))["success"], true);
}

#[test]
fn a_trial_says_what_a_reload_would_do_and_does_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    configure(directory, &format!("[server]\nreq_port = 7000\nbind = \"::1\"\n[limits]\nid_bytes = 100\n{MEMORY}"));
    let expected = "limits.id_bytes: 512 -> 100\nserver.bind: takes a restart\n";
    // The flags of the host win: its ports have not changed.
    let diff = done(directory, &host, &["config", "diff"]);
    assert_eq!(diff, format!("{expected}1 setting would be taken over\n"));
    assert_eq!(host.client().call(register(&"x".repeat(200), "web", 60.0))["success"], true);
    assert_eq!(done(directory, &host, &["reload"]), format!("{expected}1 setting taken over\n"));
    assert_eq!(
        done(directory, &host, &["config", "diff"]),
        "server.bind: takes a restart\n0 settings would be taken over\n"
    );
    assert_eq!(host.client().call(register(&"x".repeat(200), "web", 60.0))["field"], "service_info.id");
    assert!(host.log().contains("limits.id_bytes: 512 -> 100"));
}

#[test]
fn rules_that_are_taken_over_hold_for_those_who_are_connected() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let rules = keys::make(directory);
    let host = Host::start(directory, &format!("{rules}{MEMORY}"));
    let list = |name: &str, command: &str| {
        let key = format!("{name}.key_secret");
        run(directory, &host, &[command, "--key", &key, "--server-key", "registry.key"])
    };
    assert!(list("camera", "list").status.success());
    assert_eq!(list("camera", "reload").status.code(), Some(1), "for those who run the registry alone");
    let mut watch = registry(directory);
    let connect = format!("127.0.0.1:{}", host.requests);
    watch.args(["watch", "--connect", &connect, "--key", "stage.key_secret", "--server-key", "registry.key"]);
    let mut watch = watch.stderr(std::process::Stdio::piped()).spawn().unwrap();
    // Only who may register may not read any more.
    configure(directory, &format!("{}{MEMORY}", rules.replace("\"read\", \"register\"", "\"register\"")));
    assert!(list("admin", "reload").status.success());
    let refused = list("camera", "list");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("this key is not allowed to read"), "{refused:?}");
    let began = std::time::Instant::now();
    while watch.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < PATIENCE, "it still watches");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn operators_see_who_is_connected_and_others_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let rules = keys::make(directory);
    let host = Host::start(directory, &format!("{rules}{MEMORY}"));
    let as_whom = |name: &str, arguments: &[&str]| {
        let key = format!("{name}.key_secret");
        run(directory, &host, &[arguments, &["--key", &key, "--server-key", "registry.key"]].concat())
    };
    let connect = format!("127.0.0.1:{}", host.requests);
    let mut watch = registry(directory);
    watch.args(["watch", "--connect", &connect, "--key", "camera.key_secret", "--server-key", "registry.key"]);
    let _watch = Killed(watch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    assert!(as_whom("camera", &["register", "cam", "h", "1", "--id", "cam-1"]).status.success());
    let clients = |more: &[&str]| -> Vec<Value> {
        let output = as_whom("admin", &[&["clients", "--json"], more].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let began = std::time::Instant::now();
    let mut camera = clients(&["--principal", "camera"]);
    while camera.first().is_none_or(|client| client["waits"] != 1) {
        assert!(began.elapsed() < PATIENCE, "{camera:?}");
        camera = clients(&["--principal", "camera"]);
    }
    let [camera] = &camera[..] else { panic!("{camera:?}") };
    assert_eq!((&camera["name"], &camera["services"]), (&json!("camera"), &json!(1)));
    let key = camera["principal"].as_str().unwrap();
    assert_eq!(clients(&["--principal", key]).len(), 1);
    assert_eq!(clients(&["--address", "ipc"]), [] as [Value; 0]);
    let told = as_whom("admin", &["clients"]);
    let told = String::from_utf8(told.stdout).unwrap();
    let line = told.lines().find(|line| line.contains("camera")).unwrap_or_else(|| panic!("{told}"));
    assert!(line.contains(", 1 wait"), "{line}");
    let refused = as_whom("stage", &["clients"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("this key is not allowed to see who is connected"));
}

#[test]
fn a_subscriber_and_a_client_that_does_not_read_are_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, &format!("[limits]\nunread_timeout = 60.0\n{MEMORY}"));
    let _events = host.subscriber();
    let mut reader = host.client();
    let mut long = register("a", "web", 60.0);
    long["service_info"]["note"] = "x".repeat(500_000).into();
    assert_eq!(reader.call(long)["success"], true);
    let mut lazy = host.client();
    (0..100).for_each(|_| lazy.send(&[b"REQ", br#"{"action":"list"}"#]));
    let began = std::time::Instant::now();
    loop {
        let clients: Vec<Value> = serde_json::from_str(&done(directory, &host, &["clients", "--json"])).unwrap();
        let subscriber = clients.iter().find(|client| client["front"] == "events").unwrap();
        assert!(subscriber["subscriptions"].as_u64() >= Some(1) && subscriber["topics"].is_array(), "{subscriber}");
        if clients[0]["waiting_bytes"].as_u64() > Some(100_000) {
            assert_eq!(clients[0]["last_action"], "list", "who has most waiting comes first");
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{clients:?}");
    }
}

#[test]
fn quotas_hold_at_once_and_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let quota = |services: u32| {
        format!(
            "[[limits.quotas]]\nname = \"each\"\nclients = [\"token ci\", \"*\"]\nservices = {services}\ntypes = [\"w*\"]\n"
        )
    };
    let sqlite = "[backend]\nplugin = \"sqlite\"\n";
    let host = Host::start(directory, sqlite);
    let mut client = host.client();
    for id in ["a", "b"] {
        assert_eq!(client.call(register(id, "web", 60.0))["success"], true);
    }
    configure(directory, &format!("{}{sqlite}", quota(1)));
    let reloaded = done(directory, &host, &["reload"]);
    assert!(reloaded.contains("limits.quotas"), "{reloaded}");
    let for_nobody = "\"each\" is for \"token ci\", which is not among http.tokens";
    host.wait_for_log(for_nobody);
    let shown = registry(directory).args(["config", "show"]).output().unwrap().stdout;
    assert!(String::from_utf8(shown).unwrap().contains("name = \"each\""));
    let refused = eventually(&mut client, register("c", "web", 60.0), |reply| reply["success"] == false);
    assert_eq!((&refused["code"], &refused["limit"]), (&json!("quota_exceeded"), &json!(1)));
    assert_eq!(client.call(register("a", "web", 60.0))["success"], true, "it needs no other place");
    host.wait_for_log("is over the quota \"each\", which allows 1 service of these types");
    host.kill();
    let host = Host::start(directory, &format!("{}{sqlite}", quota(2)));
    host.wait_for_log(for_nobody);
    let mut client = host.client();
    let refused = client.call(register("d", "web", 60.0));
    assert_eq!(refused["code"], "quota_exceeded", "the storage has kept where they came from: {refused}");
    assert_eq!(client.call(register("d", "stage", 60.0))["success"], true);
}

#[test]
fn a_service_is_drained_over_a_restart_and_discovered_again_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let sqlite = "[backend]\nplugin = \"sqlite\"\n";
    let host = Host::start(directory, sqlite);
    for id in ["a", "b"] {
        assert_eq!(host.client().call(register(id, "web", 600.0))["success"], true);
    }
    assert_eq!(done(directory, &host, &["drain", "a", "--for", "10m", "--reason", "disk"]), "a drained\n");
    host.wait_for_log("1 service drained (\"a\")");
    host.kill();
    let host = Host::start(directory, sqlite);
    let discover = json!({"action": "discover", "service_type": "web", "limit": 5});
    let mut client = host.client();
    let found = client.call(discover.clone());
    let ids: Vec<&str> = found["services"].as_array().unwrap().iter().map(|of| of["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["b"]);
    let shown = done(directory, &host, &["list"]);
    assert!(shown.contains("  drained  ") && shown.contains("  passing  "), "{shown}");
    assert!(done(directory, &host, &["get", "a"]).contains("disk"));
    assert_eq!(done(directory, &host, &["undrain", "a"]), "a undrained\n");
    assert_eq!(done(directory, &host, &["undrain", "a"]), "a was not drained\n");
    eventually(&mut client, discover, |found| found["services"].as_array().is_some_and(|all| all.len() == 2));
    let history = done(directory, &host, &["history", "a"]);
    assert!(history.contains("drained") && history.contains("undrained"), "{history}");
}

#[test]
fn services_of_a_type_or_critical_ones_are_deregistered_together() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, &format!("[server]\ncleanup_interval = 600\n{MEMORY}"));
    let mut client = host.client();
    for (id, service_type, ttl) in
        [("a", "web", 60.0), ("b", "mail", 60.0), ("c", "mail", 0.001), ("d", "cam", 0.001), ("e", "mail", 60.0)]
    {
        assert_eq!(client.call(register(id, service_type, ttl))["success"], true);
    }
    eventually(&mut client, json!({"action": "get", "service_id": "d"}), |of| of["service"]["health"] == "critical");
    assert_eq!(done(directory, &host, &["deregister", "--type", "mail", "--stale"]), "c deregistered\n");
    assert_eq!(
        done(directory, &host, &["deregister", "--stale", "--json"]),
        "{\n  \"deregistered\": [\n    \"d\"\n  ]\n}\n"
    );
    assert_eq!(done(directory, &host, &["deregister", "--type", "mail"]), "b deregistered\ne deregistered\n");
    assert_eq!(done(directory, &host, &["deregister", "--type", "mail"]), "");
    let wrong = run(directory, &host, &["deregister"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert_eq!(client.call(json!({"action": "list"}))["services"].as_array().unwrap().len(), 1);
}

#[test]
fn the_audit_says_who_did_what_in_a_file_that_can_be_rotated() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let rules = keys::make(directory);
    let host = Host::start(directory, &format!("{rules}[log]\naudit = \"audit.log\"\n{MEMORY}"));
    let as_client = |name: &str, arguments: &[&str]| {
        let key = format!("{name}.key_secret");
        let mut all = arguments.to_vec();
        all.extend(["--key", &key, "--server-key", "registry.key"]);
        assert!(run(directory, &host, &all).status.success(), "{all:?}");
    };
    let audit_when = |is_told: &dyn Fn(&str) -> bool| {
        let began = std::time::Instant::now();
        loop {
            // After it was moved away, the file is there again when there is a line for it.
            let text = std::fs::read_to_string(directory.join("audit.log")).unwrap_or_default();
            if is_told(&text) {
                return text;
            }
            assert!(began.elapsed() < PATIENCE, "only {text}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    as_client("camera", &["register", "odd \"name\"", "h", "1", "--id", "a b", "--type", "web"]);
    as_client("camera", &["update", "a b", "--metadata", "x=1"]);
    as_client("camera", &["renew", "a b"]);
    as_client("admin", &["drain", "a b"]);
    as_client("admin", &["list"]);
    as_client("admin", &["deregister", "a b"]);
    let text = audit_when(&|text| text.lines().count() >= 4);
    let told: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    for (line, (what, name)) in told.iter().zip([
        ("registered", "camera"),
        ("updated", "camera"),
        ("drained", "admin"),
        ("deregistered", "admin"),
    ]) {
        let begins = format!("what={what} service_id=\"a b\" address=127.0.0.1:");
        assert!(line.starts_with(&begins) && line.contains(" key=\""), "{line}");
        assert!(line.ends_with(&format!(" name={name:?}")), "{line}");
    }
    assert_eq!(told.len(), 4, "heartbeats and reads are no deeds: {text}");
    std::fs::rename(directory.join("audit.log"), directory.join("audit.log.1")).unwrap();
    as_client("admin", &["reload"]);
    as_client("camera", &["register", "n", "h", "1", "--id", "next"]);
    let text = audit_when(&|text| text.contains("what=registered service_id=\"next\""));
    let moved = std::fs::read_to_string(directory.join("audit.log.1")).unwrap();
    assert!(moved.contains("what=deregistered") && !text.contains("what=deregistered"), "{moved}\n{text}");
    let configured = std::fs::read_to_string(directory.join("registry.toml")).unwrap();
    std::fs::write(directory.join("registry.toml"), format!("{configured}\nnonsense = 1\n")).unwrap();
    host.signal("HUP");
    host.wait_for_log("nothing has been changed");
    audit_when(&|text| text.contains("what=reload_failed\n"));
    assert!(
        [moved, text].concat().contains("what=reload address="),
        "in either: it is written while the file is changed"
    );
}

#[test]
fn the_audit_can_be_lines_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), &format!("[log]\naudit = \"log\"\n{MEMORY}"));
    assert_eq!(host.client().call(register("a", "web", 0.05))["success"], true);
    host.wait_for_log("audit: what=registered service_id=\"a\" address=127.0.0.1:");
    let host =
        Host::start(directory.path(), &format!("[log]\naudit = \"log\"\n[server]\ncleanup_interval = 0.1\n{MEMORY}"));
    assert_eq!(host.client().call(register("b", "web", 0.05))["success"], true);
    host.wait_for_log("audit: what=expired service_id=\"b\"");
}

#[test]
fn the_registrys_key_is_exchanged_while_clients_know_either() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let rules = keys::make(directory);
    let host = Host::start(directory, &format!("{rules}{MEMORY}"));
    let made = registry(directory).args(["keygen", "--out", "new.key"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let list = |server_key: &str| {
        let list = ["list", "--timeout", "1", "--key", "admin.key_secret", "--server-key", server_key];
        run(directory, &host, &list).status.code()
    };
    let reload = |config: &str, server_key: &str| {
        configure(directory, config);
        done(directory, &host, &["reload", "--key", "admin.key_secret", "--server-key", server_key])
    };
    assert_eq!((list("registry.key"), list("new.key")), (Some(0), Some(3)));
    let both = rules.replace(
        "key_file = \"registry.key_secret\"",
        "key_file = \"new.key_secret\"\nprevious_key_file = \"registry.key_secret\"",
    );
    let said = reload(&format!("{both}{MEMORY}"), "registry.key");
    assert!(said.contains("security.key_file: ") && said.ends_with("2 settings taken over\n"), "{said}");
    assert_eq!((list("registry.key"), list("new.key")), (Some(0), Some(0)));
    reload(&format!("{}{MEMORY}", rules.replace("registry.key_secret", "new.key_secret")), "new.key");
    assert_eq!((list("registry.key"), list("new.key")), (Some(3), Some(0)));
    configure(directory, &format!("{}{MEMORY}", rules.replace("registry.key_secret", "nowhere.key_secret")));
    host.signal("HUP");
    host.wait_for_log("security.key_file: ");
    host.wait_for_log("the configuration cannot be used: nothing has been changed");
    assert_eq!(list("new.key"), Some(0));
}
