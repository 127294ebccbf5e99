//! What replies and events say of the registry itself: when, in which state, under which ids.

use registry_host::security::access::{Grant, Right};

use super::*;

fn health(world: &mut World) -> Value {
    world.call(json!({"action": "health"}))
}

#[test]
fn moments_are_shown_in_whole_seconds() {
    let mut world = World::with(Policy { allow_terminate: true, ..policy() });
    world.now.unix_ms = 1_764_115_200_999;
    assert_eq!(health(&mut world)["timestamp"], 1_764_115_200);
    world.register("x", "web");
    assert_eq!(world.events[0]["timestamp"], 1_764_115_200);
    assert_eq!(world.events[0]["data"]["service_info"]["last_heartbeat"], 1_764_115_200);
    assert_eq!(world.call(json!({"action": "terminate"}))["timestamp"], 1_764_115_200);
}

#[test]
fn health_says_since_when_the_store_is_no_good_one() {
    let mut world = World::new();
    world.now.unix_ms = 1_764_115_200_000;
    world.ask("a", register("x", "web"));
    world.group();
    world.pass(6_500);
    let backend = health(&mut world)["backend"].clone();
    assert_eq!((&backend["state"], &backend["since"]), (&json!("stalled"), &json!(1_764_115_200)));
    world.outcome(Err(failed()));
    world.pass(1_000);
    world.ask("b", register("x", "web"));
    world.group();
    world.outcome(Err(failed()));
    let backend = health(&mut world)["backend"].clone();
    assert_eq!((&backend["state"], &backend["since"]), (&json!("failing"), &json!(1_764_115_206)), "the first failure");
}

#[test]
fn info_says_what_the_host_has_told_of_itself() {
    let mut world = World::new();
    world.registry.set_about(About {
        req_port: 1,
        pub_port: 2,
        heartbeat_port: 3,
        http_port: None,
        version: "4.5".into(),
        plugin: "memory".into(),
    });
    let info = world.call(json!({"action": "info"}));
    let ports = |info: &Value| ["req_port", "pub_port", "hb_port", "http_port"].map(|port| info[port].as_u64());
    assert_eq!(ports(&info), [Some(1), Some(2), Some(3), None]);
    world.registry.set_about(About { http_port: Some(4), ..About::default() });
    assert_eq!(ports(&world.call(json!({"action": "info"})))[3], Some(4));
    assert_eq!((&info["version"], &info["backend"]["plugin"]), (&json!("4.5"), &json!("memory")));
    assert_eq!((&info["success"], &info["enforce_unique_service_types"]), (&json!(true), &json!(false)));
}

#[test]
fn health_counts_the_key_files_that_cannot_be_used_if_there_are_any() {
    let mut world = World::new();
    assert_eq!(health(&mut world).get("keys"), None);
    world.registry.set_bad_key_files(2);
    assert_eq!(health(&mut world)["keys"], json!({"state": "failing", "bad_files": 2}));
    world.registry.set_bad_key_files(0);
    assert_eq!(health(&mut world).get("keys"), None);
}

#[test]
fn a_service_without_an_id_gets_one_of_its_own_made_of_its_name() {
    let mut world = World::new();
    let info = json!({"name": "Front Camera", "host": "h", "port": 1});
    let ids = [(); 2].map(|()| {
        let reply = world.call(json!({"action": "register", "service_info": info}));
        reply["service_id"].as_str().expect("it is told its id").to_string()
    });
    for id in &ids {
        let uuid = id.strip_prefix("front-camera-").expect("the name comes first");
        assert!(uuid.len() == 36 && uuid.parse::<uuid::Uuid>().is_ok_and(|uuid| uuid.get_version_num() == 4), "{id}");
        assert_eq!(world.health(id).as_deref(), Some("passing"));
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn the_core_says_where_it_stands_and_how_much_it_holds() {
    let mut world = World::new();
    assert_eq!((world.registry.position(), world.registry.len(), world.registry.bytes()), (("e", 0), 0, 0));
    assert!(world.registry.is_empty());
    world.register("x", "web");
    assert!(!world.registry.is_empty());
    let one = world.registry.bytes();
    world.register("y", "web");
    assert_eq!((world.registry.position(), world.registry.len(), world.registry.bytes()), (("e", 2), 2, 2 * one));
    world.call(deregister("x"));
    assert_eq!((world.registry.position(), world.registry.len(), world.registry.bytes()), (("e", 3), 1, one));
}

/// How much memory the core says that a service takes which is the usual one but for this.
fn bytes_with(field: &str, value: Value) -> usize {
    let mut request = register("x", "web");
    request["service_info"][field] = value;
    let mut world = World::new();
    assert_eq!(world.call(request)["success"], true);
    world.registry.bytes()
}

#[test]
fn each_text_of_a_service_takes_memory_here_and_in_the_store() {
    let text = |length: usize| Value::from("x".repeat(length));
    assert_eq!(bytes_with("note", text(500)) - bytes_with("note", text(100)), 2 * 400, "it is in the document");
    assert_eq!(bytes_with("id", text(500)) - bytes_with("id", text(100)), 2 * 2 * 400, "and an index besides");
    let tags = |length: usize| json!([*"x".repeat(length)]);
    assert_eq!(bytes_with("tags", tags(250)) - bytes_with("tags", tags(50)), 2 * 2 * 200, "and an index besides");
}

#[test]
fn an_update_needs_room_only_for_what_it_is_longer() {
    let long = |id: &str, bytes: usize| {
        let mut request = register(id, "web");
        request["service_info"]["note"] = "x".repeat(bytes).into();
        request
    };
    let mut world = World::with(Policy { services_bytes_max: 25_000, ..policy() });
    for id in ["a", "b", "c"] {
        assert_eq!(world.call(long(id, 3000))["success"], true, "{id}");
    }
    assert_eq!(world.call(long("a", 3500))["success"], true);
    assert_eq!(world.call(long("d", 500))["success"], true);
}

#[test]
fn who_may_not_register_is_told_what_was_not_allowed() {
    let grant = Grant { clients: None, allow: [Right::Read].into(), types: Vec::new(), names: Vec::new() };
    let mut world = World::with(Policy { access: Access::by_rules(vec![grant]), ..policy() });
    let key = Principal::Key(PublicKey::from_bytes([1; 32]));
    let mut untyped = register("x", "web");
    untyped["service_info"]["type"] = Value::Null;
    for (request, expected) in [
        (register("x", "web"), "to register the service \"N\" of type [\"web\"]"),
        (untyped, "to register the service \"N\", which has no type"),
    ] {
        let reply = world.call_with(key, request);
        assert_eq!(reply["message"], format!("this key is not allowed {expected}"));
        assert_eq!(world.out.forbidden.pop().expect("operators are told").what, expected);
    }
}

#[test]
fn a_clean_up_is_due_once_in_its_interval() {
    let mut world = World::new();
    for (passed, expected) in [(9_999, false), (1, true), (5_000, true)] {
        world.pass(passed);
        assert_eq!(world.registry.is_cleanup_due(world.now), expected, "at {}", world.now.uptime_ms);
    }
    world.clean_up();
    assert_eq!(world.registry.wake_at_ms(), 25_000);
    world.pass(9_999);
    assert!(!world.registry.is_cleanup_due(world.now));
    // A service at the end of its ttl has not run out, and holds up nothing.
    world.registry.load(stored("x", "web"), world.now).unwrap();
    world.pass(30_000);
    assert!(world.registry.is_cleanup_due(world.now));
}

#[test]
fn a_record_that_lacks_what_a_service_has_is_named_and_left_out() {
    let mut world = World::new();
    for field in ["name", "host", "port"] {
        let mut record = stored("x", "web");
        record.document = record.document.replace(&format!("\"{field}\""), "\"other\"");
        let unreadable = world.registry.load(record, world.now).unwrap_err();
        assert_eq!((&*unreadable.id, &*unreadable.reason), ("x", &*format!("its document has no {field}")));
    }
    let mut record = stored("x", "web");
    record.ttl_ms = 0;
    assert_eq!(world.registry.load(record, world.now).unwrap_err().reason, "its ttl is zero");
    assert!(world.registry.is_empty());
}
