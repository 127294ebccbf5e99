//! `watch`: events as they come, and what is said of those that did not.

use super::*;

fn event(event_type: &str, epoch: &str, revision: u64) -> Value {
    json!({ "type": event_type, "timestamp": 0, "data": { "service_id": "camera-1", "service_info": camera() },
            "epoch": epoch, "revision": revision })
}

/// Publishes until the watcher prints an event of that type: a subscription is in force some time after it was sent.
fn publish_until_seen(registry: &StandIn, watcher: &Running, event: &Value) -> String {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        registry.publish(event.clone());
        let line = watcher.out.recv_timeout(Duration::from_millis(100));
        if let Some(line) = line.ok().filter(|line| line.contains(event["type"].as_str().unwrap())) {
            return line;
        }
    }
    panic!("no event was printed");
}

/// The next line that is not a repetition of an event published by [`publish_until_seen`].
fn next_other_line(watcher: &Running, seen: &str) -> String {
    std::iter::repeat_with(|| watcher.line()).find(|line| line != seen).unwrap()
}

#[test]
fn watch_prints_each_event_in_a_line_of_its_own_and_tells_of_gaps() {
    let registry = with_events(0, "a", 4);
    let watcher = Running::start(registry.command(&["watch"]));
    let first = publish_until_seen(&registry, &watcher, &event("register", "a", 5));
    assert_eq!(first, "1970-01-01T00:00:00Z  register    camera-1  Camera  10.0.0.7:7000");
    registry.publish(event("expire", "a", 9));
    assert!(next_other_line(&watcher, &first).contains("expire"));
    assert!(watcher.note().contains("changes missed between revision 5 and 8"));
}

#[test]
fn watch_shows_only_the_events_that_are_asked_for_and_takes_no_others_for_missing() {
    let registry = with_events(0, "a", 4);
    let watcher = Running::start(registry.command(&["watch", "deregister", "--json"]));
    let first = publish_until_seen(&registry, &watcher, &event("deregister", "a", 5));
    assert_eq!(serde_json::from_str::<Value>(&first).unwrap(), event("deregister", "a", 5));
    registry.publish(event("register", "a", 6));
    registry.publish(event("deregister", "a", 7));
    let second = next_other_line(&watcher, &first);
    assert_eq!(serde_json::from_str::<Value>(&second).unwrap()["revision"], 7);
    assert!(watcher.err.try_recv().is_err(), "nothing was missed");
}

#[test]
fn watch_survives_a_restart_on_another_event_port_and_tells_what_it_missed() {
    let before = with_events(0, "a", 4);
    let watcher = Running::start(before.command(&["watch"]));
    publish_until_seen(&before, &watcher, &event("register", "a", 5));
    let port = before.req_port;
    drop(before);
    assert!(watcher.note().contains("is lost"));
    let after = with_events(port, "a", 7);
    assert!(watcher.note().ends_with("answers"));
    assert!(watcher.note().contains("changes missed between revision 5 and 7"));
    publish_until_seen(&after, &watcher, &event("expire", "b", 1));
    assert!(watcher.note().contains("another history now (epoch b"));
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
    publish_until_seen(&registry, &watcher, &event("register", "a", 5));
}

#[test]
fn watch_ends_if_the_registry_refuses() {
    let closed = StandIn::saying(json!({ "success": false, "error": "Not allowed", "code": "forbidden" }));
    let output = closed.run(&["watch"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), "registry: Not allowed\n"));
}
