//! `watch`: changes as they happen, and what is said if they are not known.

use super::*;

fn event(event_type: &str, epoch: &str, revision: u64) -> Value {
    json!({ "type": event_type, "timestamp": 0, "data": { "service_id": "camera-1", "service_info": camera() },
            "epoch": epoch, "revision": revision })
}

/// A watcher that has begun to watch.
fn watching(registry: &StandIn, arguments: &[&str]) -> Running {
    let watcher = Running::start(registry.command(&[&["watch"], arguments].concat()));
    while registry.request()["action"] != "watch" {}
    watcher
}

/// A watcher that knows revision 5 of the epoch "a", and whose registry has gone; and the port where that was.
fn cut_off() -> (Running, u16) {
    let before = with_events(0, "a", 4);
    let watcher = watching(&before, &[]);
    before.publish(event("register", "a", 5));
    watcher.line();
    let port = before.req_port;
    drop(before);
    assert!(watcher.note().contains("is lost"));
    (watcher, port)
}

#[test]
fn watch_prints_each_change_in_a_line_of_its_own() {
    let registry = with_events(0, "a", 4);
    let watcher = watching(&registry, &[]);
    registry.publish(event("register", "a", 5));
    registry.publish(event("expire", "a", 9));
    assert_eq!(watcher.line(), "1970-01-01T00:00:00Z  register    camera-1  Camera  10.0.0.7:7000");
    assert_eq!(watcher.line(), "1970-01-01T00:00:00Z  expire      camera-1  Camera  10.0.0.7:7000");
    assert!(watcher.err.try_recv().is_err(), "nothing was missed");
}

#[test]
fn watch_shows_only_the_events_that_are_asked_for() {
    let registry = with_events(0, "a", 4);
    let watcher = watching(&registry, &["deregister", "--json"]);
    for (kind, revision) in [("deregister", 5), ("register", 6), ("deregister", 7)] {
        registry.publish(event(kind, "a", revision));
    }
    for revision in [5, 7] {
        let line = serde_json::from_str::<Value>(&watcher.line()).unwrap();
        assert_eq!(line, event("deregister", "a", revision));
    }
    assert!(watcher.err.try_recv().is_err(), "nothing was missed");
}

#[test]
fn watch_asks_for_what_it_is_to_show() {
    let registry = with_events(0, "a", 4);
    let arguments = "watch --type Camera --tag north --metadata room:=4 --metadata floor=1 --version ^1";
    let _watcher = Running::start(registry.command(&arguments.split(' ').collect::<Vec<_>>()));
    // Besides, it asks for the registry's health, whenever that is its turn.
    let mut asked = std::iter::repeat_with(|| registry.request()).filter(|request| request["action"] != "health");
    for action in ["list", "watch"] {
        let request = asked.next().unwrap();
        let asked = ["action", "service_type", "tags", "metadata", "version"].map(|field| request[field].clone());
        let metadata = json!({"room": 4, "floor": "1"});
        assert_eq!(asked, [json!(action), json!("Camera"), json!(["north"]), metadata, json!("^1")]);
    }
}

#[test]
fn watch_goes_on_after_a_restart_where_it_was() {
    let before = with_events(0, "a", 4);
    let watcher = watching(&before, &["--json"]);
    let revision = || serde_json::from_str::<Value>(&watcher.line()).unwrap()["revision"].clone();
    before.publish(event("register", "a", 5));
    assert_eq!(revision(), 5);
    let port = before.req_port;
    drop(before);
    assert!(watcher.note().contains("is lost"));
    let after = with_events(port, "a", 4);
    for number in [5, 6, 7] {
        after.publish(event("register", "a", number));
    }
    assert!(watcher.note().ends_with("answers"));
    assert_eq!([revision(), revision()], [6, 7], "neither 5 again nor 7 alone");
    assert!(watcher.err.try_recv().is_err(), "nothing was missed");
}

#[test]
fn watch_tells_of_another_history_and_of_what_is_gone_with_the_old_one() {
    let (watcher, port) = cut_off();
    let after = with_events(port, "b", 1);
    assert!(watcher.note().ends_with("answers"));
    let note = watcher.note();
    assert!(note.contains("another history now (epoch b, before a): what is different now follows"), "{note}");
    assert!(watcher.line().contains("leave       camera-1"));
    after.publish(event("register", "b", 2));
    assert!(watcher.line().contains("register    camera-1"));
}

#[test]
fn watch_tells_if_the_changes_are_not_known_any_more() {
    let (watcher, port) = cut_off();
    let _after = with_events(port, "a", 9);
    assert!(watcher.note().ends_with("answers"));
    let note = watcher.note();
    assert!(
        note.contains("the changes since revision 5 are not known any more: what is different now follows"),
        "{note}"
    );
    assert!(watcher.line().contains("leave       camera-1"));
}

#[test]
fn watch_waits_for_a_registry_that_is_not_there_yet_and_says_so_once() {
    let gone = with_events(0, "a", 4);
    let port = gone.req_port;
    drop(gone);
    let watcher = Running::start(registry(&["watch", "--connect", &format!("127.0.0.1:{port}")]));
    let note = watcher.note();
    assert!(note.contains("nothing listens") && note.ends_with("waiting for the registry"), "{note}");
    // Long enough for a second try.
    assert!(watcher.err.recv_timeout(Duration::from_millis(1200)).is_err());
    let registry = with_events(port, "a", 4);
    assert!(watcher.note().ends_with("answers"));
    while registry.request()["action"] != "watch" {}
    registry.publish(event("register", "a", 5));
    assert!(watcher.line().contains("register    camera-1"));
}

#[test]
fn watch_ends_if_the_registry_refuses() {
    let closed = StandIn::saying(json!({ "success": false, "error": "Not allowed", "code": "forbidden" }));
    let output = closed.run(&["watch"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), "registry: Not allowed\n"));
}

#[test]
fn watch_begins_with_what_is_there_if_it_is_told_to() {
    let registry = StandIn::start(0, |request, _| {
        let services = if request["action"] == "list" { vec![camera()] } else { Vec::new() };
        json!({ "success": true, "services": services, "changes": [], "epoch": "a", "revision": 4 }).to_string()
    });
    let existing = watching(&registry, &["--existing"]);
    assert_eq!(existing.line(), "-                     register    camera-1  Camera  10.0.0.7:7000");
    let watcher = watching(&registry, &[]);
    assert!(watcher.out.recv_timeout(Duration::from_millis(300)).is_err(), "only changes");
}

/// A registry in which services are held until it has been asked for its health twice.
fn with_held_services() -> StandIn {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    StandIn::start(0, move |request, _| {
        let mut reply = json!({ "success": true, "services": [], "changes": [], "epoch": "a", "revision": 4 });
        if request["action"] == "health" {
            reply = json!({ "success": true, "status": "ok", "timestamp": 9 });
            if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 {
                reply["mass_expiry"] = json!({ "since": 5, "critical": 20, "removed": 0 });
            }
        }
        reply.to_string()
    })
}

#[test]
fn watch_tells_that_services_are_held() {
    let (first, second) = (with_held_services(), with_held_services());
    let watcher = watching(&first, &[]);
    let as_json = watching(&second, &["mass_expiry", "--json"]);
    assert_eq!(watcher.line(), "1970-01-01T00:00:05Z  mass_expiry  begun: 20 critical services are held");
    assert_eq!(watcher.line(), "1970-01-01T00:00:09Z  mass_expiry  ended");
    let told = || serde_json::from_str::<Value>(&as_json.line()).unwrap();
    assert_eq!(told(), json!({ "type": "mass_expiry", "timestamp": 5, "state": "begun", "critical": 20 }));
    assert_eq!(told(), json!({ "type": "mass_expiry", "timestamp": 9, "state": "ended" }));
    // Whoever asks for other events is not told.
    let third = with_held_services();
    let other = watching(&third, &["expire"]);
    assert!(other.out.recv_timeout(Duration::from_millis(500)).is_err());
}
