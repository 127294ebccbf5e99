//! `register --keep`: a service that stays as long as the command runs.

use super::*;

#[test]
fn a_kept_service_is_renewed_registered_again_if_forgotten_and_deregistered_at_the_end() {
    let registry = StandIn::start(0, |request, _| {
        let reply = match request["action"].as_str().unwrap() {
            "renew" => {
                json!({ "success": false, "error": "Service not found or could not be renewed", "code": "not_found" })
            }
            _ => json!({ "success": true, "service_id": "camera-1" }),
        };
        reply.to_string()
    });
    let command = registry.command(&["register", "Camera", "10.0.0.7", "7000", "--ttl", "0.3", "--keep"]);
    let mut kept = Running::start(command);
    assert_eq!(kept.line(), "camera-1");
    let first = registry.request();
    assert_eq!((&first["action"], &first["service_info"]["id"]), (&json!("register"), &Value::Null));
    assert_eq!(registry.request(), json!({ "service_id": "camera-1", "action": "renew" }));
    let again = registry.request();
    assert_eq!((&again["action"], &again["service_info"]["id"]), (&json!("register"), &json!("camera-1")));
    assert_eq!(again["service_info"]["host"], "10.0.0.7");
    assert!(kept.note().contains("renewed every 0.1 s"));
    assert!(kept.note().contains("registered again"));

    assert_eq!(kept.terminate(), Some(0));
    let last = std::iter::from_fn(|| registry.requests.recv_timeout(PATIENCE).ok())
        .find(|request| request["action"] == "deregister");
    assert_eq!(last.unwrap()["service_id"], "camera-1");
}

#[test]
fn a_kept_service_waits_for_a_registry_that_is_away() {
    let known = |_: &Value, _: u16| json!({ "success": true, "service_id": "camera-1" }).to_string();
    let first = StandIn::start(0, known);
    let mut command = registry(&["register", "Camera", "h", "1", "--ttl", "0.3", "--keep", "--timeout", "0.5"]);
    command.args(["--connect", &format!("127.0.0.1:{}", first.req_port)]);
    let mut kept = Running::start(command);
    assert!(kept.note().contains("renewed every"));
    let port = first.req_port;
    drop(first);
    assert!(kept.note().ends_with("trying again"));
    let second = StandIn::start(port, known);
    assert!(kept.note().ends_with("answers again"));
    assert_eq!(second.request()["action"], "renew");
    assert_eq!(kept.terminate(), Some(0));
}

/// A registry that knows the service, and a command that keeps it there, with a next heartbeat that is far away.
fn kept_for_long() -> (StandIn, Running) {
    let known = |_: &Value, _: u16| json!({ "success": true, "service_id": "camera-1" }).to_string();
    let registry = StandIn::start(0, known);
    let kept = Running::start(registry.command(&["register", "Camera", "h", "1", "--ttl", "3000", "--keep"]));
    assert!(kept.note().contains("renewed every"));
    assert_eq!(registry.request()["action"], "register");
    (registry, kept)
}

#[test]
fn a_kept_service_is_deregistered_also_if_the_registry_was_restarted_since_the_last_heartbeat() {
    let (first, mut kept) = kept_for_long();
    let port = first.req_port;
    drop(first);
    let second = StandIn::start(port, |_, _| json!({ "success": true }).to_string());
    assert_eq!(kept.terminate(), Some(0));
    assert_eq!(second.request(), json!({ "service_id": "camera-1", "action": "deregister" }));
}

#[test]
fn a_kept_service_waits_at_its_end_for_a_registry_that_is_being_restarted_and_not_for_ever() {
    let (first, mut kept) = kept_for_long();
    let port = first.req_port;
    drop(first);
    let restarted = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        StandIn::start(port, |_, _| json!({ "success": false, "error": "no", "code": "not_found" }).to_string())
    });
    assert_eq!(kept.terminate(), Some(0), "what is gone is as good as deregistered");
    assert_eq!(restarted.join().unwrap().request()["action"], "deregister");

    let (first, mut kept) = kept_for_long();
    drop(first);
    assert_eq!(kept.terminate(), Some(3));
    let last = std::iter::repeat_with(|| kept.note()).find(|note| !note.ends_with("trying again")).unwrap();
    assert!(last.starts_with("registry: camera-1 is not deregistered: connection refused by "), "{last}");
}
