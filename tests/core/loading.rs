//! What a store gives back when the host starts.

use super::*;

#[test]
fn what_was_loaded_has_a_full_ttl_however_old_its_last_heartbeat_is() {
    let mut world = World::new();
    world.registry.load(stored("x", "web"), world.now).unwrap();
    let shown = world.call(json!({"action": "get", "service_id": "x"}));
    assert_eq!(shown["service"]["last_heartbeat"], 1000);
    world.pass(30_000);
    assert_eq!(world.discover("web").as_deref(), Some("x"));
    world.pass(1);
    assert_eq!(world.discover("web"), None);
}

#[test]
fn a_record_that_is_no_service_is_named_and_left_out() {
    let mut world = World::new();
    let mut bad = stored("x", "web");
    bad.document = "[1]".into();
    assert_eq!(
        world.registry.load(bad, world.now).unwrap_err().reason,
        "its document is no JSON object: invalid type: sequence, expected a map at line 1 column 0"
    );
    let mut other = stored("x", "web");
    other.id = "y".into();
    assert_eq!(world.registry.load(other, world.now).unwrap_err().reason, "its document has another id");
    assert!(world.registry.is_empty());
}

#[test]
fn a_record_that_was_stored_as_it_is_shown_is_shown_as_it_is_now() {
    let mut world = World::new();
    let mut shown = stored("x", "web");
    shown.document = shown.document.replace('{', r#"{"health":"critical","last_heartbeat":7,"#);
    world.registry.load(shown, world.now).unwrap();
    let reply = world.call(json!({"action": "get", "service_id": "x"}));
    assert_eq!((&reply["service"]["health"], &reply["service"]["last_heartbeat"]), (&json!("passing"), &json!(1000)));
    assert_eq!(reply["service"].as_object().unwrap().len(), 9, "with a generation");
}
