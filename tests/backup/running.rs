//! A backup is restored into a registry that runs: whoever follows it lists again, and the store has all of it.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{Client, Host, eventually, plugin_dir, register};
use crate::{SQLITE, run, services, text};

/// A store that fails as the file `control` says.
pub(crate) fn faulty() -> String {
    let sqlite = plugin_dir().join("libregistry_sqlite.so");
    format!(
        "[backend]\nplugin = \"faulty\"\noptions.path = \"service_registry.db\"\noptions.library = {sqlite:?}\n\
         options.control = \"control\"\n"
    )
}

fn add(client: &mut Client, ids: impl Iterator<Item = String> + Clone, service_type: &str) {
    for id in ids.clone() {
        client.send(&[b"", register(&id, service_type, 600.0).to_string().as_bytes()]);
    }
    ids.for_each(|_| drop(client.receive()));
}

fn wait_for(client: &mut Client, watch: Value) {
    client.send(&[b"", watch.to_string().as_bytes()]);
}

fn told(client: &mut Client) -> Value {
    serde_json::from_slice(&client.receive()[1]).unwrap()
}

fn control(directory: &Path, word: &str) {
    // At once, so that nobody reads half of it.
    std::fs::write(directory.join("control.new"), word).unwrap();
    std::fs::rename(directory.join("control.new"), directory.join("control")).unwrap();
}

fn restore(directory: &Path, host: &Host, file: &str) -> Output {
    run(directory, host, &["restore", file, "--replace"])
}

#[test]
fn a_backup_takes_the_place_of_all_that_a_running_registry_has() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    // Less than what is sent at once, if nobody says how long messages may be.
    let limits = "[limits]\nmessage_bytes = 40000\n";
    let host = Host::start(directory, &format!("{SQLITE}{limits}[log]\naudit = \"audit.log\"\n"));
    let mut client = host.client();
    add(&mut client, (0..2500).map(|number| format!("s{number}")), "web");
    assert_eq!(client.call(json!({"action": "drain", "service_id": "s7", "reason": "disk"}))["success"], true);
    let expected = services(&host);
    assert!(run(directory, &host, &["backup", "all.jsonl"]).status.success());
    for id in ["s1", "s2"] {
        assert_eq!(client.call(json!({"action": "deregister", "service_id": id}))["success"], true);
    }
    add(&mut client, ["late", "s3"].map(String::from).into_iter(), "cam");
    let since = client.call(json!({"action": "get", "service_id": "s3"}))["service"]["generation"].clone();
    let mut subscriber = host.subscriber();
    let before = client.call(json!({"action": "list", "limit": 100}));
    let (mut watcher, mut ahead, mut waiting) = (host.client(), host.client(), host.client());
    let watch = json!({"action": "watch", "epoch": before["epoch"], "after": before["revision"], "wait": 60});
    wait_for(&mut watcher, watch.clone());
    wait_for(&mut ahead, json!({"action": "watch", "wait": 60, "service_type": "none"}));
    wait_for(&mut waiting, json!({"action": "discover", "service_type": "mail", "wait": 60}));
    // Services of a type that nobody has now.
    let saved = std::fs::read_to_string(directory.join("all.jsonl")).unwrap();
    let saved = saved.replacen("\"id\":\"s9\"", "\"id\":\"new\"", 1).replacen("\"web\"", "\"mail\"", 2);
    std::fs::write(directory.join("mail.jsonl"), &saved).unwrap();

    let refused = run(directory, &host, &["restore", "all.jsonl"]);
    assert!(text(&refused.stderr).contains("services are in the registry already; replace puts"), "{refused:?}");
    let restored = restore(directory, &host, "all.jsonl");
    let said = text(&restored.stdout);
    assert!(
        said.starts_with("2500 services restored, in a new epoch; changes waited "),
        "{restored:?}\n{}",
        host.log()
    );
    assert!(services(&host) == expected);
    let epoch = client.call(json!({"action": "info"}))["epoch"].clone();
    assert_ne!(epoch, before["epoch"]);
    for watcher in [&mut watcher, &mut ahead] {
        let told = told(watcher);
        assert_eq!((&told["code"], &told["epoch"]), (&json!("compacted"), &epoch), "{told}");
    }
    let cursor = json!({"action": "list", "limit": 100, "cursor": before["cursor"]});
    assert_eq!(client.call(cursor)["code"], "compacted", "a place in another list");
    let (topic, notice) = subscriber.next();
    assert_eq!((topic.as_str(), &notice["type"], &notice["epoch"]), ("epoch", &json!("epoch"), &epoch), "{notice}");
    assert_eq!((&notice["reason"], &notice["services"]), (&json!("restore"), &json!(2500)));
    assert_eq!(client.call(json!({"action": "renew", "service_id": "late"}))["code"], "not_found");
    let generation = &expected[0]["generation"];
    let renew = json!({"action": "renew", "service_id": expected[0]["id"], "generation": generation});
    assert_eq!(client.call(renew)["success"], true, "who was registered goes on");
    assert_eq!(client.call(json!({"action": "renew", "service_id": "s1"}))["success"], true, "it is back");
    let renew = json!({"action": "renew", "service_id": "s3", "generation": since});
    assert_eq!(client.call(renew)["code"], "not_found", "who has registered since does so again");
    assert_eq!(client.call(register("late", "cam", 600.0))["success"], true);
    let (_, event) = subscriber.next();
    assert_eq!((&event["epoch"], &event["previous"]), (&epoch, &notice["revision"]), "{event}");
    for (id, what) in [("late", "dropped"), ("s3", "restored"), ("s1", "restored")] {
        let history = client.call(json!({"action": "history", "service_id": id}));
        let entries = history["history"].as_array().unwrap();
        let by = entries.iter().find(|entry| entry["what"] == what).map(|entry| &entry["by"]["address"]);
        assert!(by.is_some_and(Value::is_string), "{id}: {history}");
    }
    let audit = std::fs::read_to_string(directory.join("audit.log")).unwrap();
    let lines = |what: &str| audit.lines().filter(|line| line.contains(what)).count();
    assert_eq!((lines("what=restore address="), lines("what=restore_done")), (2, 1), "{audit}");

    let restored = restore(directory, &host, "mail.jsonl");
    assert!(restored.status.success(), "{restored:?}");
    assert_eq!(told(&mut waiting)["success"], true, "whoever waits for a service gets a restored one");
    let expected = services(&host);
    let epoch = client.call(json!({"action": "info"}))["epoch"].clone();
    host.kill();
    let host = Host::start(directory, SQLITE);
    assert!(services(&host) == expected);
    assert_eq!(host.client().call(json!({"action": "info"}))["epoch"], epoch, "it was stored with them");
}

#[test]
fn a_backup_that_is_not_right_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, SQLITE);
    let mut client = host.client();
    add(&mut client, (0..1200).map(|number| format!("s{number}")), "web");
    let before = services(&host);
    let position = client.call(json!({"action": "info"}))["epoch"].clone();
    assert!(run(directory, &host, &["backup", "all.jsonl"]).status.success());
    let saved = std::fs::read_to_string(directory.join("all.jsonl")).unwrap();
    let line = 1 + saved.lines().position(|line| line.contains("\"id\":\"s1100\"")).unwrap();
    for (changed, expected) in [
        (
            saved.replace("\"id\":\"s1100\"", "\"id\":\"s3\""),
            format!("line {line}: Invalid value for services: \"s3\" is there already"),
        ),
        (
            saved.replace("\"id\":\"s1100\"", "\"id\":\"registry:restoring:x\""),
            format!("line {line}: Invalid value for service_info.id"),
        ),
        (
            saved.replace("\"id\":\"s1100\",\"name\"", "\"id\":\"s1100\",\"nome\""),
            format!("line {line}: Missing required field in service_info: name"),
        ),
        (saved.replace("{\"id\":\"s1100\"", "{\"id\":\"s1100"), format!("line {line}: ")),
        (
            saved.replace("{\"id\":\"s1100\"", &format!("{{\"x\":\"{}\",\"id\":\"s1100\"", "x".repeat(2 << 20))),
            format!("line {line}: the registry cuts the connection off when it gets this service of 20"),
        ),
        (
            saved.lines().take(2).collect::<Vec<_>>().join("\n"),
            "says that there are 1200 services, and 1 are there".into(),
        ),
    ] {
        std::fs::write(directory.join("changed.jsonl"), changed).unwrap();
        let refused = restore(directory, &host, "changed.jsonl");
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(
            text(&refused.stderr)
                .contains(&format!("changed.jsonl: {expected}").replace("jsonl: says", "jsonl: its first line says")),
            "{expected}: {refused:?}"
        );
    }
    let service = before[0].clone();
    let mut step = |step: Value| {
        let mut request = json!({"action": "restore"});
        request.as_object_mut().unwrap().extend(step.as_object().unwrap().clone());
        client.call(request)
    };
    assert_eq!(step(json!({"upload": "a", "part": 1, "services": []}))["code"], "not_found");
    assert_eq!(step(json!({"upload": "a", "total": 0, "replace": true}))["code"], "not_found");
    assert_eq!(step(json!({"upload": "a", "part": 0, "services": [service]}))["services"], 1);
    assert_eq!(step(json!({"upload": "a", "part": 0, "services": [service]}))["services"], 1, "sent again");
    assert_eq!(
        step(json!({"upload": "a", "part": 2, "services": []}))["error"],
        "Invalid value for part: expected 1, got 2"
    );
    let short = step(json!({"upload": "a", "total": 2, "replace": true}));
    assert_eq!(short["error"], "Invalid value for total: expected 1, as many as the parts have, got 2");
    assert_eq!(step(json!({"upload": "b", "part": 0, "services": []}))["services"], 0, "the same client begins anew");
    assert_eq!(step(json!({"upload": "a", "total": 1, "replace": true}))["code"], "not_found");
    assert!(services(&host) == before);
    assert_eq!(client.call(json!({"action": "info"}))["epoch"], position);
}

#[test]
fn a_quota_of_requests_only_slows_a_restore_down() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let quota = "[[limits.quotas]]\nname = \"few\"\nclients = [\"*\"]\nrequests_per_second = 4\nburst = 2\n";
    let host = Host::start(directory, &format!("{SQLITE}{quota}"));
    let count = 3000;
    let mut backup = format!("{{\"registry_backup\":1,\"services\":{count}}}\n");
    for number in 0..count {
        let service = json!({"id": format!("s{number}"), "name": "n", "host": "h", "port": 1, "ttl": 600});
        backup.push_str(&format!("{service}\n"));
    }
    std::fs::write(directory.join("all.jsonl"), backup).unwrap();
    let restored = restore(directory, &host, "all.jsonl");
    assert!(text(&restored.stdout).starts_with("3000 services restored"), "{restored:?}");
}

#[test]
fn a_registry_that_does_not_run_is_restored_offline() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    std::fs::write(directory.join("none.jsonl"), "{\"registry_backup\":1,\"services\":0}\n").unwrap();
    let host = Host::start(directory, SQLITE);
    assert_eq!(host.client().call(register("a", "web", 600.0))["success"], true);
    let restored = restore(directory, &host, "none.jsonl");
    assert!(text(&restored.stdout).starts_with("0 services restored"), "{restored:?}");
    assert_eq!(services(&host), Vec::<Value>::new());
    let connect = format!("127.0.0.1:{}", host.requests);
    host.stop();
    let nobody = crate::registry(directory).args(["restore", "none.jsonl", "--connect", &connect]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(3));
    let hint = "if no registry runs, --offline restores into the configured store";
    assert!(text(&nobody.stderr).contains(hint), "{nobody:?}");
    let both = crate::registry(directory).args(["restore", "none.jsonl", "--offline", "--connect", &connect]).output();
    assert_eq!(both.unwrap().status.code(), Some(2));
}

#[test]
fn a_store_that_fails_keeps_what_it_has_or_gets_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, &faulty());
    let mut client = host.client();
    add(&mut client, (0..1500).map(|number| format!("s{number}")), "web");
    assert!(run(directory, &host, &["backup", "all.jsonl"]).status.success());
    let backup = services(&host);
    add(&mut client, (1000..2000).map(|number| format!("s{number}")), "cam");
    let mut before = services(&host);
    // Nothing is staged; or it is, and the host does not know.
    for word in ["error", "lost"] {
        control(directory, word);
        let refused = restore(directory, &host, "all.jsonl");
        assert!(text(&refused.stderr).contains("disk I/O error"), "{word}: {refused:?}");
        control(directory, "none");
        assert!(services(&host) == before, "{word}");
        assert_eq!(client.call(register("s0", "web", 600.0))["success"], true, "{word}");
        assert_eq!(client.call(json!({"action": "deregister", "service_id": "s0"}))["success"], true);
        before = services(&host);
    }
    // What decides is stored, and the host does not know: it says the contrary until that is stored.
    control(directory, "bare");
    std::thread::scope(|scope| {
        let restoring = scope.spawn(|| restore(directory, &host, "all.jsonl"));
        host.wait_for_log("the storage fails while a backup is taken back");
        assert!(services(&host) == before, "reads go on");
        control(directory, "none");
        let refused = restoring.join().unwrap();
        assert!(text(&refused.stderr).contains("disk I/O error"), "{refused:?}");
    });
    assert!(services(&host) == before);
    host.kill();
    let host = Host::start(directory, &faulty());
    assert!(services(&host) == before);
    // Once it is decided, whatever fails is done in the end.
    std::thread::scope(|scope| {
        control(directory, "then");
        let restoring = scope.spawn(|| restore(directory, &host, "all.jsonl"));
        host.wait_for_log("the storage fails while a backup is restored");
        control(directory, "none");
        let restored = restoring.join().unwrap();
        assert!(restored.status.success(), "{restored:?}\n{}", host.log());
    });
    eventually(&mut host.client(), json!({"action": "health"}), |health| health["ready"] == true);
    let ids = |services: &[Value]| services.iter().map(|service| service["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&services(&host)), ids(&backup));
    host.kill();
    let host = Host::start(directory, SQLITE);
    assert!(services(&host) == backup);
}
