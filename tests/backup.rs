//! Backups of a running registry, restored into another one, which runs or not.

mod harness;
#[path = "backup/kill.rs"]
mod kill;
#[path = "backup/running.rs"]
mod running;

use std::path::Path;
use std::process::Output;

use harness::{Host, register, registry};
use serde_json::{Value, json};

const SQLITE: &str = "[backend]\nplugin = \"sqlite\"\n";

fn run(directory: &Path, host: &Host, arguments: &[&str]) -> Output {
    let connect = format!("127.0.0.1:{}", host.requests);
    registry(directory).args(arguments).args(["--connect", &connect]).output().expect("the program can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All services but for what moves by itself, in the order of their ids.
fn services(host: &Host) -> Vec<Value> {
    let list = host.client().call(json!({"action": "list"}));
    let mut services = list["services"].as_array().expect("a list").clone();
    for service in &mut services {
        let fields = service.as_object_mut().unwrap();
        ["last_heartbeat", "health"].iter().for_each(|field| drop(fields.shift_remove(*field)));
    }
    services.sort_by_key(|service| service["id"].to_string());
    services
}

/// Restores a backup into the store that a directory's configuration names.
fn restore(directory: &Path, arguments: &[&str]) -> Output {
    registry(directory).args(["restore", "--offline"]).args(arguments).output().expect("the program can be started")
}

#[test]
fn a_backup_is_restored_elsewhere_in_place_of_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, SQLITE);
    let mut client = host.client();
    for number in 0..2500 {
        let mut request = register(&format!("s{number}"), ["web", "mail"][number % 2], 600.0);
        request["service_info"]["metadata"] = json!({"odd \u{1F4F7}": "\"\u{0}", "n": number});
        client.send(&[b"", request.to_string().as_bytes()]);
    }
    (0..2500).for_each(|_| drop(client.receive()));
    assert_eq!(client.call(json!({"action": "drain", "service_id": "s7", "reason": "disk"}))["success"], true);
    let expected = services(&host);
    let saved = run(directory, &host, &["backup", "all.jsonl"]);
    assert_eq!(text(&saved.stdout), "2500 services at revision 2501 in all.jsonl\n", "{saved:?}");
    assert_eq!(run(directory, &host, &["backup", "-"]).stdout.iter().filter(|byte| **byte == b'\n').count(), 2501);
    let in_use = restore(directory, &["all.jsonl", "--replace"]);
    assert!(!in_use.status.success() && text(&in_use.stderr).contains("in use"), "{in_use:?}");
    host.stop();

    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = elsewhere.path();
    let host = Host::start(elsewhere, SQLITE);
    let mut client = host.client();
    for id in ["s3", "another"] {
        assert_eq!(client.call(register(id, "cam", 600.0))["success"], true);
    }
    let before = client.call(json!({"action": "list", "fields": ["id"]}));
    host.stop();
    let file = directory.join("all.jsonl");
    let file = file.to_str().unwrap();
    let refused = restore(elsewhere, &[file]);
    assert!(text(&refused.stderr).contains("2 services are in the store already"), "{refused:?}");
    let restored = restore(elsewhere, &[file, "--replace"]);
    assert_eq!(text(&restored.stdout), "2500 services restored\n", "{restored:?}");
    let host = Host::start(elsewhere, SQLITE);
    assert_eq!(services(&host), expected);
    let mut client = host.client();
    let watch = json!({"action": "watch", "epoch": before["epoch"], "after": before["revision"], "wait": 60});
    assert_eq!(client.call(watch)["code"], "compacted", "it is another history");
    assert_eq!(client.call(json!({"action": "discover", "service_type": "cam"}))["code"], "none_healthy");
    let generation = expected[0]["generation"].as_u64().unwrap();
    let renew = json!({"action": "renew", "service_id": expected[0]["id"], "generation": generation});
    assert_eq!(client.call(renew)["success"], true, "who was registered goes on");
}

#[test]
fn a_backup_that_was_changed_by_hand_is_taken_and_one_with_a_mistake_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, SQLITE);
    for id in ["a", "b"] {
        assert_eq!(host.client().call(register(id, "web", 600.0))["success"], true);
    }
    assert!(run(directory, &host, &["backup", "all.jsonl"]).status.success());
    let saved = std::fs::read_to_string(directory.join("all.jsonl")).unwrap();
    let before = services(&host);
    host.stop();
    let attempt = |text: &str| {
        std::fs::write(directory.join("changed.jsonl"), text).unwrap();
        restore(directory, &["changed.jsonl", "--replace"])
    };
    for (changed, expected) in [
        (saved.replace("\"port\":4000", "\"port\":0"), "changed.jsonl: line 2: Invalid value for service_info.port"),
        (saved.replace("\"host\"", "\"hots\""), "changed.jsonl: line 2: Missing required field in service_info: host"),
        (saved.replace("{\"id\"", "{\"id"), "changed.jsonl: line 2: "),
        (saved.lines().take(2).collect::<Vec<_>>().join("\n"), "says that there are 2 services, and 1 are there"),
        (
            saved.replace("registry_backup\":1", "registry_backup\":2"),
            "it has the format 2, of the newer registry \"0.1.0\", and this one",
        ),
        (saved.replace("\"id\":\"b\"", "\"id\":\"a\""), "line 3: \"a\" is in line 2, too"),
        (String::new(), "it is no backup"),
    ] {
        let refused = attempt(&changed);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(text(&refused.stderr).contains(expected), "{expected}: {refused:?}");
    }
    let host = Host::start(directory, SQLITE);
    assert_eq!(services(&host), before);
    host.stop();
    let changed = saved.replace("127.0.0.1", "10.0.0.9").replace("\"id\":\"b\"", "\"id\": \"c\"");
    assert!(attempt(&changed).status.success());
    let host = Host::start(directory, SQLITE);
    let found = services(&host);
    let of = |place: usize| (found[place]["id"].as_str().unwrap(), found[place]["host"].as_str().unwrap());
    assert_eq!((of(0), of(1), found.len()), (("a", "10.0.0.9"), ("c", "10.0.0.9"), 2));
}
