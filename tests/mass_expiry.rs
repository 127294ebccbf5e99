//! Many services that run out together, at a whole host: who is told, and how an operator ends it.

mod harness;

use std::time::{Duration, Instant};

use harness::{Client, Host, eventually, register, registry};
use serde_json::{Value, json};

const CONFIG: &str = "[server]\ncleanup_interval = 0.2\nmass_expiry_hold = 60\n[backend]\nplugin = \"memory\"\n";

/// A host that holds so many services, which have all run out.
fn held(services: usize) -> (tempfile::TempDir, Host, Client, harness::Subscriber) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), CONFIG);
    let events = host.subscriber();
    let mut client = host.client();
    // At once, so that they run out at once.
    for number in 0..services {
        client.send(&[b"REQ", register(&format!("s{number}"), "web", 1.0).to_string().as_bytes()]);
    }
    for _ in 0..services {
        let reply: Value = serde_json::from_slice(&client.receive()[1]).unwrap();
        assert_eq!(reply["success"], true, "{reply}");
    }
    let health = json!({"action": "health"});
    eventually(&mut client, health, |reply| reply["mass_expiry"]["critical"].as_u64() >= Some(services as u64 - 4));
    (directory, host, client, events)
}

fn notice(events: &mut harness::Subscriber) -> Value {
    loop {
        let (topic, event) = events.next();
        if topic == "mass_expiry" {
            return event;
        }
    }
}

#[test]
fn a_mass_expiry_is_told_and_ends_when_services_are_back() {
    let (directory, host, mut client, mut events) = held(40);
    let begun = notice(&mut events);
    assert_eq!((&begun["type"], &begun["state"]), (&json!("mass_expiry"), &json!("begun")));
    assert!(begun.get("revision").is_none() && begun["timestamp"].is_u64(), "{begun}");
    let line = host.wait_for_log("mass expiry: ");
    assert!(line.contains("WARN") && line.contains("held for up to 60 s"), "{line}");
    let discover = json!({"action": "discover", "service_type": "web"});
    eventually(&mut client, discover, |reply| reply["code"] == "none_healthy");
    let told =
        registry(directory.path()).args(["health", "--connect", &format!("127.0.0.1:{}", host.requests)]).output();
    let told = told.unwrap();
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success() && text.starts_with("ok; mass expiry since "), "{told:?}");
    // They come back, and beat for as long as it takes.
    let deadline = Instant::now() + harness::PATIENCE;
    while client.call(json!({"action": "health"})).get("mass_expiry").is_some() {
        assert!(Instant::now() < deadline, "{}", host.log());
        (0..40).for_each(|number| drop(client.call(json!({"action": "renew", "service_id": format!("s{number}")}))));
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = notice(&mut events);
    assert_eq!((&ended["state"], &ended["reason"]), (&json!("ended"), &json!("returned")));
    assert!(ended["returned"].as_u64() >= Some(35), "{ended}");
    let line = host.wait_for_log("the mass expiry is over after");
    assert!(line.contains("enough are back"), "{line}");
}

#[test]
fn an_operator_ends_it_from_the_command_line() {
    for (way, said, left) in [("remove", "are removed", 0), ("keep", "have another ttl", 35)] {
        let (directory, host, mut client, _events) = held(40);
        let connect = format!("127.0.0.1:{}", host.requests);
        let output = registry(directory.path()).args(["expiry", way, "--connect", &connect]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.starts_with("the mass expiry is over: ") && text.contains(said),
            "{output:?}"
        );
        let passing = |reply: &Value| {
            let services = reply["services"].as_array().unwrap();
            services.iter().filter(|service| service["health"] == "passing").count()
        };
        eventually(&mut client, json!({"action": "list"}), |reply| match left {
            0 => reply["services"] == json!([]),
            least => passing(reply) >= least,
        });
        let again = registry(directory.path()).args(["expiry", way, "--connect", &connect]).output().unwrap();
        if way == "remove" {
            assert_eq!(again.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&again.stderr).contains("No mass expiry is under way"), "{again:?}");
        }
    }
}

/// Nothing reaches the host for longer than a ttl, though heartbeats are due; then all is as before.
#[test]
fn who_was_silent_because_nothing_reached_the_host_is_forgiven() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[server]\ncleanup_interval = 0.1\n[backend]\nplugin = \"memory\"\n";
    let host = Host::start(directory.path(), config);
    let mut client = host.client();
    for number in 0..20 {
        assert_eq!(client.call(register(&format!("s{number}"), "web", 3.5))["success"], true);
    }
    std::thread::sleep(Duration::from_millis(4200));
    assert_eq!(client.call(json!({"action": "renew", "service_id": "s0"}))["success"], true);
    assert_eq!(client.call(json!({"action": "get", "service_id": "s19"}))["service"]["health"], "passing");
    host.wait_for_log("though heartbeats were due: all get that much longer to renew");
    assert_eq!(client.call(json!({"action": "list"}))["services"].as_array().unwrap().len(), 20);
    assert!(!host.log().contains("mass expiry"), "{}", host.log());
}
