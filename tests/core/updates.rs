//! `update`: other metadata for a service that stays what it is.

use super::*;

fn update(id: &str, metadata: Value) -> Value {
    json!({"action": "update", "service_id": id, "metadata": metadata})
}

fn get(world: &mut World, id: &str) -> Value {
    world.call(json!({"action": "get", "service_id": id}))["service"].clone()
}

#[test]
fn an_update_is_stored_and_announced_and_changes_the_metadata_alone() {
    let mut world = World::new();
    let mut request = register("x", "web");
    request["service_info"]["metadata"] = json!({"a": 1, "b": {"c": [2], "d": 3}});
    request["ttl"] = 40.into();
    world.call(request);
    let before = get(&mut world, "x");
    world.pass(20_000);
    world.take_events();
    world.ask("a", update("x", json!({"a": null, "b": {"d": 4}, "e": "f"})));
    let group = world.group();
    assert_eq!(get(&mut world, "x"), before, "not before it is stored");
    world.accept(&group);
    assert_eq!(world.reply("a").unwrap(), json!({"success": true, "message": "Service updated successfully"}));
    let after = get(&mut world, "x");
    assert_eq!(after["metadata"], json!({"b": {"c": [2], "d": 4}, "type": "web", "e": "f"}));
    let without = |service: &Value| {
        let mut service = service.clone();
        service.as_object_mut().unwrap().shift_remove("metadata");
        service
    };
    assert_eq!(without(&after), without(&before), "no heartbeat, and the same generation");
    assert_eq!(world.events[0]["data"]["service_info"], after);
    assert_eq!(world.take_events(), [event("register", "x", 2)]);
    let [Change::Put(put)] = &group[..] else { panic!("{group:?}") };
    assert_eq!((put.record.ttl_ms, put.record.revision, &put.record.types[..]), (40_000, 2, &["web".to_string()][..]));
    assert_eq!(serde_json::from_str::<Value>(&put.record.document).unwrap()["metadata"], after["metadata"]);
    assert_eq!(world.call(json!({"action": "list"}))["services"][0], after);
    world.pass(20_001);
    assert_eq!(world.health("x").as_deref(), Some("critical"));
}

#[test]
fn updates_of_one_service_in_one_group_build_on_each_other() {
    let mut world = World::new();
    world.register("x", "mail");
    world.take_events();
    world.ask("a", register("x", "web"));
    world.ask("b", update("x", json!({"b": 1})));
    world.ask("c", update("x", json!({"c": {"d": 1}})));
    world.ask("d", update("x", json!({"b": null, "c": {"e": 2}})));
    let group = world.group();
    assert_eq!(group.len(), 4);
    world.accept(&group);
    for caller in ["a", "b", "c", "d"] {
        assert_eq!(world.reply(caller).unwrap()["success"], true);
    }
    assert_eq!(get(&mut world, "x")["metadata"], json!({"type": "web", "c": {"d": 1, "e": 2}}));
    assert_eq!(world.take_events().len(), 4);
}

#[test]
fn what_an_update_was_built_on_has_to_be_stored() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("b", update("x", json!({"b": 1})));
    world.ask("c", update("x", json!({"c": 1})));
    let group = world.group();
    assert_eq!(group.len(), 2);
    world.outcome(Ok(vec![Outcome::Refused(failed()), Outcome::Done]));
    assert_eq!(world.reply("b").unwrap()["code"], "backend_refused");
    assert_eq!(world.reply("c").unwrap()["code"], "backend_unavailable");
    assert_eq!(get(&mut world, "x")["metadata"], json!({"type": "web"}));
    let restored = world.store();
    let [Change::Put(put)] = &restored[..] else { panic!("{restored:?}") };
    assert!(!put.record.document.contains("\"c\""), "{put:?}");
    assert_eq!(world.call(update("x", json!({"c": 1})))["success"], true);
}

#[test]
fn an_update_that_lands_too_late_is_taken_back() {
    let mut world = World::new();
    world.register("x", "web");
    world.take_events();
    world.ask("a", update("x", json!({"a": 1})));
    let group = world.group();
    world.pass(400);
    let reply = world.reply("a").unwrap();
    assert_eq!(reply["error"], "Service not found or could not be updated");
    world.accept(&group);
    assert!(world.take_events().is_empty());
    let restored = world.store();
    assert!(matches!(&restored[..], [Change::Put(put)] if put.record.revision == 1), "{restored:?}");
}

#[test]
fn an_update_of_what_goes_in_the_same_group_waits_for_what_becomes_of_it() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", deregister("x"));
    world.ask("b", update("x", json!({"b": 1})));
    let group = world.group();
    assert_eq!(group.len(), 1);
    world.accept(&group);
    assert_eq!(world.reply("b").unwrap()["code"], "deregistered");
    assert_eq!(world.call(update("y", json!({"b": 1})))["code"], "not_found");
}

#[test]
fn an_update_keeps_nobody_alive() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(30_001);
    world.registry.clean_up(world.now);
    world.ask("a", update("x", json!({"a": 1})));
    let group = world.group();
    assert_eq!(group.len(), 2, "it is updated, and removed all the same");
    world.accept(&group);
    assert_eq!(world.reply("a").unwrap()["success"], true);
    assert_eq!(world.health("x"), None);
    let kinds: Vec<String> = world.take_events().into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, ["register", "register", "expire"]);
}

#[test]
fn an_updated_service_makes_way_when_it_has_run_out() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(30_001);
    world.ask("a", update("x", json!({"a": 1})));
    world.ask("b", singleton("y", "web"));
    world.store();
    assert_eq!(world.reply("a").unwrap()["success"], true);
    assert_eq!(world.reply("b").unwrap()["success"], true);
    assert_eq!(world.discover("web").as_deref(), Some("y"));
}

#[test]
fn a_heartbeat_while_an_update_is_under_way_counts() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(20_000);
    world.ask("a", update("x", json!({"a": 1})));
    let group = world.group();
    world.pass(100);
    world.call(renew("x"));
    world.accept(&group);
    world.pass(30_000);
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    world.pass(2000);
    let stored = world.store();
    assert!(stored.iter().any(|change| matches!(change, Change::Renew(_))), "{stored:?}");
}

#[test]
fn a_list_that_is_being_written_does_not_show_a_later_update() {
    let mut world = World::with(Policy { services_bytes_max: 1 << 30, ..policy() });
    for number in 0..2000 {
        let mut record = stored(&format!("s{number}"), "web");
        record.document = record.document.replace('{', &format!("{{\"note\":\"{}\",", "x".repeat(200)));
        world.registry.load(record, world.now).unwrap();
    }
    world.ask("list", json!({"action": "list"}));
    assert!(world.registry.has_lists());
    world.registry.continue_lists(true, world.now, &mut world.out);
    let bytes = world.registry.bytes();
    assert_eq!(world.call(update("s1999", json!({"late": true})))["success"], true);
    assert!(world.registry.bytes() > bytes);
    while world.registry.has_lists() {
        world.registry.continue_lists(true, world.now, &mut world.out);
    }
    world.take_output();
    let list = world.reply("list").unwrap();
    assert_eq!(list["services"].as_array().unwrap().len(), 2000);
    assert!(!list.to_string().contains("late"));
    assert_eq!(get(&mut world, "s1999")["metadata"], json!({"late": true}));
    // What is known of how long all are is right.
    for number in 0..2000 {
        world.ask("", deregister(&format!("s{number}")));
        if number % 50 == 0 {
            world.store();
        }
    }
    world.store();
    assert_eq!((world.registry.len(), world.registry.bytes()), (0, 0));
}

#[test]
fn an_update_makes_no_service_longer_than_there_is_room_for() {
    let mut world = World::with(Policy { services_bytes_max: 25_000, ..policy() });
    let note = |bytes: usize| json!({"note": "x".repeat(bytes)});
    world.register("x", "web");
    assert_eq!(world.call(update("x", note(9000)))["success"], true);
    world.register("y", "web");
    let reply = world.call(update("y", note(3000)));
    assert_eq!(
        (&reply["code"], &reply["error"]),
        (&json!("overloaded"), &json!("Service not found or could not be updated"))
    );
    assert!(reply["message"].as_str().unwrap().contains("limits.services_bytes"));
    assert_eq!(world.call(update("x", json!({"note": "short"})))["success"], true, "shorter than before");
    assert_eq!(world.call(update("y", note(3000)))["success"], true);
    // More than there is room for was in the store: whoever gets shorter does no harm.
    let mut world = World::with(Policy { services_bytes_max: 10_000, ..policy() });
    let mut full = stored("x", "web");
    full.document =
        full.document.replace('{', &format!("{{\"metadata\":{{\"a\":\"{}\",\"b\":1}},", "x".repeat(10_000)));
    world.registry.load(full, world.now).unwrap();
    assert_eq!(world.call(update("x", json!({"b": 10})))["code"], "overloaded");
    assert_eq!(world.call(update("x", json!({"b": null})))["success"], true);
    // Many that are short come to something long.
    let mut world = World::with(Policy { services_bytes_max: 1 << 30, ..policy() });
    world.register("x", "web");
    let mut replies = Vec::new();
    for number in 0..20 {
        let mut field = json!({});
        field[format!("f{number}")] = "x".repeat(100_000).into();
        replies.push(world.call(update("x", field)));
    }
    assert_eq!(replies.iter().filter(|reply| reply["success"] == true).count(), 10);
    let last = replies.pop().unwrap();
    assert_eq!((&last["code"], &last["field"]), (&json!("invalid_request"), &json!("metadata")));
    assert!(last["error"].as_str().unwrap().contains("a record of at most 1048576 bytes"), "{last}");
}

#[test]
fn updates_of_long_records_go_in_several_groups() {
    let mut world = World::with(Policy { services_bytes_max: 1 << 30, ..policy() });
    world.register("x", "web");
    world.call(update("x", json!({"note": "x".repeat(1_000_000)})));
    for _ in 0..30 {
        world.ask("a", update("x", json!({"a": 1})));
    }
    let group = world.group();
    assert!(group.len() < 8, "{}", group.len());
    world.accept(&group);
    for _ in 0..30 {
        world.ask("b", update("x", json!({"b": "x".repeat(60_000)})));
    }
    // A turn of the host has its end, even if nothing comes of it for the store.
    let mut turns = 0;
    while world.registry.wake_at_ms() == 0 {
        world.pass(0);
        world.store();
        turns += 1;
    }
    assert!(turns > 5, "{turns}");
    let replied = |caller: &str| world.replies.iter().filter(|(to, _)| *to == caller).count();
    assert_eq!((replied("a"), replied("b")), (30, 30));
    assert!(world.registry.is_idle());
}

#[test]
fn a_restored_record_has_the_update_in_it() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(update("x", json!({"a": 1})));
    world.ask("a", deregister("x"));
    world.group();
    world.outcome(Err(failed()));
    world.pass(200);
    let restored = world.store();
    assert!(matches!(&restored[..], [Change::Put(put)] if put.record.document.contains("\"a\":1")), "{restored:?}");
}
