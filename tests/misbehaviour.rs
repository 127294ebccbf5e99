//! A host with a plugin that panics, fails, hangs, blocks or shouts: it goes on serving, says what is wrong, refuses
//! what it cannot store, and recovers when the plugin does.

mod harness;

use std::time::{Duration, Instant};

use harness::{Client, Host, eventually, register};
use serde_json::{Value, json};

/// A host on `moody` with these lines in its `[backend.options]`, and a service called `steady`.
fn host(options: &str) -> (tempfile::TempDir, Host) {
    host_that_waits(0.4, options)
}

/// The same, with another `reply_timeout` in seconds.
fn host_that_waits(reply_timeout: f64, options: &str) -> (tempfile::TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "[backend]\nplugin = \"moody\"\nreply_timeout = {reply_timeout:?}\ncall_timeout = 0.7\n\
         [backend.options]\n{options}"
    );
    let host = Host::start(directory.path(), &config);
    assert_eq!(host.client().call(register("steady", "web", 60.0))["success"], true);
    (directory, host)
}

fn health() -> Value {
    json!({"action": "health"})
}

fn state(reply: &Value) -> &str {
    assert_eq!((&reply["success"], &reply["status"]), (&json!(true), &json!("ok")), "for old clients: {reply}");
    reply["backend"]["state"].as_str().unwrap_or("?")
}

/// Whatever the plugin does, these are answered at once.
fn reads_and_renewals_go_on(client: &mut Client) {
    let start = Instant::now();
    for request in [
        json!({"action": "renew", "service_id": "steady"}),
        json!({"action": "discover", "service_type": "web"}),
        json!({"action": "get", "service_id": "steady"}),
        json!({"action": "list"}),
        health(),
    ] {
        assert_eq!(client.call(request.clone())["success"], true, "{request}");
    }
    // Below what waiting for a misdeed takes, far above what five answers do.
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_call_that_fails_is_an_error_to_its_client_and_nothing_else() {
    for (misdeed, said) in [
        ("panic", "panicked: moody before the first await (at tests/plugins/moody/src/lib.rs:"),
        ("panic-later", "panicked: moody after an await, with everything stored (at tests/plugins/moody/src/lib.rs:"),
        ("panic-in-task", "a task failed: "),
        ("error", "moody today"),
        ("short", "outcome"),
        ("hang", "no answer within 0.7 s"),
    ] {
        let (_directory, host) = host("");
        let mut client = host.client();
        let id = format!("moody-{misdeed}");
        let reply = client.call(register(&id, "bad", 60.0));
        assert_eq!(
            (&reply["error"], &reply["code"]),
            (&json!("Failed to register service"), &json!("backend_unavailable")),
            "{misdeed}"
        );
        reads_and_renewals_go_on(&mut client);
        let line = host.wait_for_log("the storage fails: changes are refused until it works again");
        assert!(line.contains(said), "{misdeed}: {line}");
        eventually(&mut client, register("good", "web", 60.0), |reply| reply["success"] == true);
        eventually(&mut client, health(), |reply| state(reply) == "ok");
        host.wait_for_log("the storage works again");
        assert_eq!(client.call(json!({"action": "get", "service_id": id}))["code"], "not_found");
        // What may have been stored all the same is taken back: the type is free, and the id can be removed no more.
        assert_eq!(client.call(json!({"action": "discover", "service_type": "bad"}))["code"], "none_healthy");
        host.stop();
    }
}

#[test]
fn a_plugin_that_blocks_stalls_changes_and_nothing_else() {
    let (_directory, host) = host("");
    let mut client = host.client();
    let start = Instant::now();
    let reply = client.call(register("moody-block", "bad", 60.0));
    assert_eq!(reply["code"], "backend_unavailable");
    assert!(start.elapsed() < Duration::from_millis(1400), "the client waits for the block: {:?}", start.elapsed());
    reads_and_renewals_go_on(&mut client);
    assert_eq!(client.call(register("waits", "web", 60.0))["code"], "backend_unavailable");
    eventually(&mut client, health(), |reply| state(reply) == "stalled");
    reads_and_renewals_go_on(&mut client);
    eventually(&mut client, health(), |reply| state(reply) == "ok");
    assert_eq!(client.call(json!({"action": "get", "service_id": "moody-block"}))["code"], "not_found");
    assert_eq!(client.call(register("waits", "web", 60.0))["success"], true);
}

#[test]
fn an_outage_is_told_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let outage = directory.path().join("outage");
    let (_own, host) = host(&format!("outage = {outage:?}\n"));
    let mut events = host.subscriber();
    let mut client = host.client();
    std::fs::write(&outage, "").unwrap();
    for id in ["one", "two"] {
        assert_eq!(client.call(register(id, "web", 60.0))["code"], "backend_unavailable");
    }
    assert_eq!(client.call(json!({"action": "deregister", "service_id": "steady"}))["code"], "backend_unavailable");
    let reply = client.call(health());
    assert_eq!((state(&reply), &reply["backend"]["error"]), ("failing", &json!("the power is out")));
    reads_and_renewals_go_on(&mut client);
    std::fs::remove_file(&outage).unwrap();
    eventually(&mut client, health(), |reply| state(reply) == "ok");
    assert_eq!(client.call(register("three", "web", 60.0))["success"], true);
    let (topic, event) = events.next();
    assert_eq!((topic.as_str(), &event["data"]["service_id"]), ("register", &json!("three")), "nothing else happened");
    assert_eq!(host.log().matches("the storage fails").count(), 1, "once: {}", host.log());
}

#[test]
fn a_flood_of_messages_is_cut_off() {
    let (_directory, host) = host_that_waits(15.0, "");
    let mut client = host.client();
    assert_eq!(client.call(register("moody-flood", "web", 60.0))["success"], true);
    reads_and_renewals_go_on(&mut client);
    // The next second's first message tells how many were left out.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(client.call(register("moody-flood", "web", 60.0))["success"], true);
    let line = host.wait_for_log("messages were left out: more than 1000 in a second");
    assert!(line.contains("registry_moody"), "{line}");
    let drips = host.log().matches("drip").count();
    assert!((1000..50_000).contains(&drips), "{drips} lines of 200,000");
}

/// The storage fails while the host stops: what still waits for it is not stored, and its clients are told so.
#[test]
fn who_waits_while_a_failing_host_stops_is_told() {
    let (_directory, host) = host_that_waits(15.0, "");
    let (mut first, mut second) = (host.client(), host.client());
    first.send(&[b"REQ", register("moody-hang", "bad", 60.0).to_string().as_bytes()]);
    // It hangs until it is given up. What comes meanwhile waits.
    eventually(&mut host.client(), json!({"action": "get", "service_id": "steady"}), |reply| reply["success"] == true);
    second.send(&[b"REQ", register("waits", "web", 60.0).to_string().as_bytes()]);
    std::thread::sleep(Duration::from_millis(100));
    host.signal("TERM");
    for client in [&mut first, &mut second] {
        let reply: Value = serde_json::from_slice(&client.receive()[1]).unwrap();
        assert_eq!(reply["code"], "backend_unavailable", "{reply}");
    }
    let (status, log) = host.wait();
    assert!(!status.success() && log.contains("the storage failed while stopping"), "{log}");
}

#[test]
fn a_plugin_that_will_not_close_does_not_keep_the_host() {
    for (options, code, said) in [
        ("close = \"panic\"\n", 1, "registry: the storage failed while stopping: panicked: moody to the end"),
        ("close = \"error\"\n", 1, "registry: the storage failed while stopping: the lid does not shut"),
        ("close = \"hang\"\n", 1, "registry: the storage did not finish in time"),
        ("bomb = true\n", 0, "panicked: a bomb was dropped"),
    ] {
        let (_directory, host) = host(options);
        let (status, log) = host.terminate("TERM");
        assert_eq!(status.code(), Some(code), "{options}{log}");
        assert!(log.contains(said), "{options}{log}");
    }
}
