//! What clients with keys may do, and whose services are.

use std::collections::HashSet;

use registry_host::security::access::{Grant, Pattern, Right};

use super::*;

const CAMERA_KEY: PublicKey = PublicKey::from_bytes([1; 32]);
const ADMIN_KEY: PublicKey = PublicKey::from_bytes([3; 32]);
const CAMERA: Principal = Principal::Key(CAMERA_KEY);
const STAGE: Principal = Principal::Key(PublicKey::from_bytes([2; 32]));
const ADMIN: Principal = Principal::Key(ADMIN_KEY);

fn rule(client: PublicKey, allow: &[Right]) -> Grant {
    let clients = Some(HashSet::from([client]));
    Grant { clients, allow: allow.iter().copied().collect(), types: Vec::new(), names: Vec::new() }
}

/// Everybody with a key may read and register, and one may do everything.
fn world() -> World {
    let mut everybody = rule(CAMERA_KEY, &[Right::Read, Right::Register]);
    everybody.clients = None;
    by(vec![everybody, rule(ADMIN_KEY, &[Right::Admin])])
}

fn by(rules: Vec<Grant>) -> World {
    World::with(Policy { access: Access::by_rules(rules), allow_terminate: true, ..policy() })
}

fn get(id: &str) -> Value {
    json!({"action": "get", "service_id": id})
}

#[test]
fn nobody_but_its_owner_and_admins_renews_replaces_or_removes_a_service() {
    let mut world = world();
    assert_eq!(world.call_with(CAMERA, register("x", "web"))["success"], true);
    let record = world.call_with(STAGE, get("x"));
    assert_eq!(record["service"]["owner_key"], CAMERA_KEY.to_string(), "everybody sees whose it is");
    world.take_events();
    for request in [renew("x"), register("x", "web"), deregister("x")] {
        let reply = world.call_with(STAGE, request.clone());
        assert_eq!((&reply["success"], &reply["code"]), (&json!(false), &json!("forbidden")), "{request}: {reply}");
        let Forbidden { principal, what } = world.out.forbidden.pop().expect("operators are told");
        assert!(principal == STAGE && what.contains("\"x\", which belongs to another key"), "{what}");
    }
    assert!(world.take_events().is_empty(), "nothing has changed");
    for (client, request) in
        [(CAMERA, renew("x")), (CAMERA, register("x", "web")), (ADMIN, renew("x")), (CAMERA, deregister("x"))]
    {
        assert_eq!(world.call_with(client, request.clone())["success"], true, "{request}");
    }
    assert!(world.out.forbidden.is_empty());
    assert_eq!(world.call_with(STAGE, register("x", "web"))["success"], true, "it is nobody's by now");
    assert_eq!(world.call_with(ADMIN, deregister("x"))["success"], true);
}

#[test]
fn a_refused_renewal_keeps_nothing_alive() {
    let mut world = world();
    world.call_with(CAMERA, register("x", "web"));
    world.pass(20_000);
    world.call_with(STAGE, renew("x"));
    world.pass(10_001);
    assert_eq!(world.call_with(STAGE, get("x"))["service"]["health"], "critical");
}

#[test]
fn of_many_renewals_those_of_others_are_refused_and_operators_are_told_once() {
    let mut world = world();
    for (id, owner) in [("x", CAMERA), ("y", CAMERA), ("mine", STAGE)] {
        assert_eq!(world.call_with(owner, register(id, "web"))["success"], true);
    }
    world.pass(20_000);
    let reply = world.call_with(STAGE, json!({"action": "renew", "services": ["x", "mine", "y", "none"]}));
    let failed = |id: &str, code: &str, error: &str| json!({"service_id": id, "code": code, "error": error});
    let failures = json!([
        failed("x", "forbidden", "Not allowed"),
        failed("y", "forbidden", "Not allowed"),
        failed("none", "not_found", "Service not found or could not be renewed"),
    ]);
    assert_eq!((&reply["renewed"], &reply["failed"]), (&json!(1), &failures));
    let told: Vec<String> = world.out.forbidden.drain(..).map(|forbidden| forbidden.what).collect();
    assert_eq!(told, ["to renew services of other keys, 2 in one message"]);
    world.call_with(STAGE, json!({"action": "renew", "services": ["mine"]}));
    assert!(world.out.forbidden.is_empty());
    world.pass(15_000);
    let mut health = |id: &str| world.call_with(STAGE, get(id))["service"]["health"].take();
    assert_eq!((health("x"), health("mine")), (json!("critical"), json!("passing")));
}

#[test]
fn what_an_admin_registers_anew_is_the_admins() {
    let mut world = world();
    world.call_with(CAMERA, register("x", "web"));
    assert_eq!(world.call_with(ADMIN, register("x", "web"))["success"], true);
    assert_eq!(world.call_with(CAMERA, renew("x"))["code"], "forbidden");
}

#[test]
fn whoever_grasps_at_a_service_keeps_its_owner_from_nothing() {
    let mut world = world();
    world.call_with(CAMERA, register("x", "web"));
    for (owner, other) in [("a", "b"), ("c", "d"), ("e", "f")] {
        world.ask_with(owner, CAMERA, register("x", "web"));
        world.ask_with(other, STAGE, register("x", "web"));
    }
    let group = world.group();
    assert_eq!(group.len(), 3, "each of the owner's is in the first group");
    for other in ["b", "d", "f"] {
        assert_eq!(world.reply(other).expect("that is certain at once")["code"], "forbidden");
    }
    world.accept(&group);
    for owner in ["a", "c", "e"] {
        assert_eq!(world.reply(owner).unwrap()["success"], true);
    }
}

#[test]
fn of_two_that_register_one_id_at_the_same_time_the_first_gets_it() {
    let mut world = world();
    world.ask_with("first", CAMERA, register("x", "web"));
    world.ask_with("second", STAGE, register("x", "web"));
    world.store();
    assert_eq!(world.reply("first").unwrap()["success"], true);
    assert_eq!(world.reply("second").unwrap()["code"], "forbidden");
    assert_eq!(world.call_with(CAMERA, get("x"))["service"]["owner_key"], CAMERA_KEY.to_string());
}

#[test]
fn nobody_says_himself_whose_a_service_is() {
    let mut world = world();
    let mut request = register("x", "web");
    request["service_info"]["owner_key"] = ADMIN_KEY.to_string().into();
    world.call_with(CAMERA, request.clone());
    assert_eq!(world.call_with(CAMERA, get("x"))["service"]["owner_key"], CAMERA_KEY.to_string());
    let mut open = World::new();
    open.call(request);
    assert_eq!(open.call(get("x"))["service"].get("owner_key"), None);
}

#[test]
fn the_owner_is_stored_with_the_service() {
    let mut world = world();
    world.ask_with("a", CAMERA, register("x", "web"));
    let changes = world.store();
    let Change::Put(put) = &changes[0] else { panic!("{changes:?}") };
    let mut after = self::world();
    after.registry.load(put.record.clone(), after.now).unwrap();
    assert_eq!(after.call_with(STAGE, renew("x"))["code"], "forbidden");
    assert_eq!(after.call_with(CAMERA, renew("x"))["success"], true);
    let mut damaged = put.record.clone();
    damaged.document = damaged.document.replace(&CAMERA_KEY.to_string(), "somebody");
    let unreadable = after.registry.load(damaged, after.now).unwrap_err();
    assert_eq!(unreadable.reason, "its owner_key is no key");
}

#[test]
fn what_was_registered_without_keys_belongs_to_whoever_registers_it_again() {
    let mut world = world();
    world.registry.load(stored("x", "web"), world.now).unwrap();
    assert_eq!(world.call_with(CAMERA, renew("x"))["success"], true);
    assert_eq!(world.call_with(STAGE, register("x", "web"))["success"], true);
    assert_eq!(world.call_with(CAMERA, renew("x"))["code"], "forbidden");
}

#[test]
fn without_the_right_to_read_nothing_is_shown() {
    let mut world = by(vec![rule(CAMERA_KEY, &[Right::Register])]);
    world.call_with(CAMERA, register("x", "web"));
    for request in [
        get("x"),
        json!({"action": "list"}),
        json!({"action": "info"}),
        json!({"action": "discover", "service_type": "web"}),
    ] {
        let reply = world.call_with(CAMERA, request.clone());
        assert_eq!(reply["code"], "forbidden", "{request}: {reply}");
        assert_eq!(world.out.forbidden.pop().unwrap().what, "to read");
    }
    assert_eq!(world.call_with(CAMERA, json!({"action": "health"}))["success"], true);
}

#[test]
fn registering_may_be_for_some_types_only() {
    let mut cameras = rule(CAMERA_KEY, &[Right::Register]);
    cameras.types = vec![Pattern::new("camera*")];
    let mut world = by(vec![cameras]);
    assert_eq!(world.call_with(CAMERA, register("x", "camera-1"))["success"], true);
    let mut tagged = register("y", "camera-1");
    tagged["service_info"]["tags"] = json!(["stage"]);
    for request in [register("y", "stage"), tagged, register("x", "stage")] {
        let reply = world.call_with(CAMERA, request);
        assert_eq!(reply["code"], "forbidden", "{reply}");
        assert!(reply["message"].as_str().unwrap().starts_with("this key is not allowed to register"), "{reply}");
    }
    assert_eq!(world.call_with(STAGE, register("z", "camera-1"))["code"], "forbidden", "another key");
}

#[test]
fn only_admins_stop_the_server() {
    let mut world = world();
    assert_eq!(world.call_with(CAMERA, json!({"action": "terminate"}))["code"], "forbidden");
    assert!(!world.out.terminate);
    assert_eq!(world.call_with(ADMIN, json!({"action": "terminate"}))["status"], "terminating");
    assert!(world.out.terminate);
}

#[test]
fn what_is_told_of_a_refusal_is_short() {
    let mut world = world();
    let long = "x".repeat(500);
    world.call_with(CAMERA, register(&long, "web"));
    let reply = world.call_with(STAGE, renew(&long));
    assert!(reply["message"].as_str().unwrap().len() < 300, "{reply}");
    assert!(world.out.forbidden.pop().unwrap().what.len() < 300);
}

#[test]
fn nobody_removes_what_was_to_go_before_and_has_stayed() {
    let mut world = world();
    world.call_with(CAMERA, register("x", "web"));
    world.pass(30_001);
    world.take_events();
    world.ask_with("y", STAGE, singleton("y", "web"));
    world.ask_with("put", STAGE, register("x", "web"));
    world.ask_with("gone", STAGE, deregister("x"));
    let group = world.group();
    assert_eq!(group.len(), 4, "x makes way, y comes, and x comes and goes");
    // Its owner is heard of while the store has all that.
    assert_eq!(world.call_with(CAMERA, renew("x"))["success"], true);
    world.accept(&group);
    world.store();
    assert_eq!(world.reply("gone").unwrap()["code"], "forbidden");
    assert_eq!(world.call_with(CAMERA, get("x"))["service"]["health"], "passing");
    assert!(world.take_events().iter().all(|(kind, id, _)| kind != "deregister" && id != "x"));
}
