//! `drain`: a service that lives, is listed, and is discovered by nobody.

use super::*;

const BEGIN: u64 = 1_700_000_000;

fn drain(id: &str) -> Value {
    json!({"action": "drain", "service_id": id})
}

fn undrain(id: &str) -> Value {
    json!({"action": "undrain", "service_id": id})
}

fn mark(world: &mut World, id: &str) -> Option<Value> {
    world.call(json!({"action": "get", "service_id": id}))["service"].get("drain").cloned()
}

fn history(world: &mut World, id: &str) -> Vec<String> {
    let reply = world.call(json!({"action": "history", "service_id": id}));
    let entries = reply["history"].as_array().unwrap().iter();
    entries.map(|entry| entry["what"].as_str().unwrap().to_string()).collect()
}

#[test]
fn what_is_drained_is_listed_and_not_discovered() {
    let mut world = World::new();
    world.register("x", "web");
    world.take_events();
    world.ask("a", json!({"action": "drain", "service_id": "x", "seconds": 90.5, "reason": "disk"}));
    assert_eq!(world.discover("web").as_deref(), Some("x"), "not before it is stored");
    let group = world.group();
    world.accept(&group);
    assert_eq!(world.reply("a").unwrap(), json!({"success": true, "message": "Service drained successfully"}));
    let expected = json!({"since": BEGIN, "until": BEGIN + 91, "reason": "disk"});
    assert_eq!(mark(&mut world, "x"), Some(expected.clone()));
    assert_eq!(world.events[0]["data"]["service_info"]["drain"], expected);
    assert_eq!(world.take_events(), [event("register", "x", 2)]);
    assert_eq!(world.discover("web"), None);
    let reply = world.call(json!({"action": "discover", "service_type": "web", "limit": 5}));
    assert_eq!(reply["code"], "none_healthy");
    let filtered = json!({"action": "discover", "service_type": "web", "metadata": {"type": "web"}});
    assert_eq!(world.call(filtered)["code"], "none_healthy");
    let list = world.call(json!({"action": "list", "service_type": "web"}));
    assert_eq!(list["services"][0]["drain"], expected);
    let types = world.call(json!({"action": "types"}));
    assert_eq!(types["types"]["web"], json!({"passing": 0, "drained": 1, "critical": 0}));
    assert_eq!(world.health("x").as_deref(), Some("passing"));

    world.register("y", "web");
    assert_eq!(world.discover("web").as_deref(), Some("y"), "others are discovered");
    assert_eq!(world.call(undrain("x"))["message"], "Service undrained successfully");
    assert_eq!(mark(&mut world, "x"), None);
    world.call(deregister("y"));
    assert_eq!(world.discover("web").as_deref(), Some("x"));
    assert_eq!(world.call(undrain("x")), json!({"success": true, "message": "Service was not drained"}));
    assert_eq!(history(&mut world, "x"), ["registered", "drained", "undrained"]);
}

#[test]
fn it_stays_so_over_heartbeats_registrations_and_updates() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(drain("x"));
    let expected = mark(&mut world, "x").expect("it is drained");
    world.pass(1000);
    assert_eq!(world.call(renew("x"))["success"], true);
    assert_eq!(world.discover("web"), None);
    let mut again = register("x", "mail");
    again["service_info"]["drain"] = json!({"since": 1});
    assert_eq!(world.call(again)["success"], true);
    assert_eq!(mark(&mut world, "x"), Some(expected.clone()), "what clients say of it means nothing");
    assert_eq!((world.discover("web"), world.discover("mail")), (None, None));
    world.call(json!({"action": "update", "service_id": "x", "metadata": {"a": 1}}));
    assert_eq!((mark(&mut world, "x"), world.discover("mail")), (Some(expected), None));
    world.pass(30_001);
    assert_eq!(world.health("x").as_deref(), Some("critical"));
    world.call(renew("x"));
    assert_eq!((world.health("x").as_deref(), world.discover("mail")), (Some("passing"), None), "and over its absence");
    world.call(deregister("x"));
    world.register("x", "mail");
    assert_eq!(world.discover("mail").as_deref(), Some("x"), "and ends with it");
}

#[test]
fn it_ends_by_itself_and_over_a_restart() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", json!({"action": "drain", "service_id": "x", "seconds": 10}));
    let group = world.group();
    world.accept(&group);
    let [Change::Put(put)] = &group[..] else { panic!("{group:?}") };
    let record = put.record.clone();
    let mut restarted = World::new();
    restarted.now.unix_ms += 1000;
    restarted.registry.load(record, restarted.now).unwrap();
    for world in [&mut world, &mut restarted] {
        let left = (BEGIN + 10) * 1000 - world.now.unix_ms;
        world.pass(left - 1);
        world.take_events();
        assert!(world.store().is_empty());
        assert_eq!(world.discover("web"), None);
        world.pass(1);
        let stored = world.store();
        assert_eq!(stored.len(), 1);
        assert_eq!(world.discover("web").as_deref(), Some("x"));
        assert_eq!(mark(world, "x"), None);
        assert_eq!(world.take_events().len(), 1);
        assert!(world.store().is_empty());
        assert_eq!(history(world, "x").last().map(String::as_str), Some("undrained"));
    }
}

#[test]
fn a_store_that_fails_is_asked_again_to_end_it() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(json!({"action": "drain", "service_id": "x", "seconds": 10}));
    world.pass(10_000);
    assert_eq!(world.group().len(), 1);
    world.outcome(Err(failed()));
    assert_eq!(world.discover("web"), None);
    world.pass(1000);
    assert!(world.store().len() >= 2, "what is stored is in doubt, and what ends it");
    assert_eq!(world.discover("web").as_deref(), Some("x"));
}

#[test]
fn what_registers_again_waits_for_what_becomes_of_a_drain() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", drain("x"));
    world.ask("b", register("x", "web"));
    let group = world.group();
    assert_eq!(group.len(), 1);
    world.outcome(Ok(vec![Outcome::Refused(failed())]));
    assert_eq!(world.reply("a").unwrap()["code"], "backend_refused");
    world.store();
    assert_eq!(world.reply("b").unwrap()["success"], true);
    assert_eq!(world.discover("web").as_deref(), Some("x"), "nobody was told that it is drained");
}

#[test]
fn a_drained_service_is_still_the_only_one_of_its_type() {
    let mut world = World::new();
    world.call(singleton("x", "web"));
    world.call(drain("x"));
    assert_eq!(world.call(singleton("y", "web"))["code"], "duplicate_service_type");
}

#[test]
fn who_waits_for_a_service_is_told_when_it_is_drained_no_longer() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(drain("x"));
    world.ask("a", json!({"action": "discover", "service_type": "web", "wait": 60}));
    world.pass(30_001);
    world.call(renew("x"));
    world.pass(10);
    assert_eq!(world.reply("a"), None, "it is passing again, and drained");
    world.call(undrain("x"));
    world.pass(10);
    assert_eq!(world.reply("a").unwrap()["service"]["id"], "x");
}

#[test]
fn a_drain_of_another_generation_or_of_nobody_is_refused() {
    let mut world = World::new();
    let generation = world.register("x", "web")["generation"].as_u64().unwrap();
    let of = |generation: u64| json!({"action": "drain", "service_id": "x", "generation": generation});
    assert_eq!(world.call(of(generation + 1))["code"], "replaced");
    assert_eq!(world.call(of(generation))["success"], true);
    let refused = world.call(drain("y"));
    assert_eq!(
        (refused["code"].as_str(), refused["error"].as_str()),
        (Some("not_found"), Some("Service not found or could not be drained"))
    );
    let bad = world.call(json!({"action": "drain", "service_id": "x", "seconds": -1}));
    assert!(
        bad["error"].as_str().unwrap().starts_with("Invalid value for seconds: expected a positive number"),
        "{bad}"
    );
}

#[test]
fn who_ends_what_the_group_ends_waits_for_what_becomes_of_that() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(drain("x"));
    world.ask("a", undrain("x"));
    world.ask("b", undrain("x"));
    assert_eq!(world.group().len(), 1);
    world.outcome(Err(failed()));
    assert_eq!(world.reply("a").unwrap()["code"], "backend_unavailable");
    assert_eq!(world.reply("b"), None, "nobody knows yet");
    world.store();
    assert_eq!(world.reply("b").unwrap()["message"], "Service undrained successfully");
    assert_eq!(world.discover("web").as_deref(), Some("x"));

    world.ask("a", register("y", "web"));
    world.ask("b", undrain("y"));
    assert_eq!(world.group().len(), 1);
    world.outcome(Ok(vec![Outcome::Refused(failed())]));
    assert_eq!(world.reply("a").unwrap()["code"], "backend_refused");
    world.store();
    assert_eq!(world.reply("b").unwrap()["code"], "not_found");
}

#[test]
fn what_registers_again_behind_a_removal_that_fails_stays_drained() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(drain("x"));
    world.ask("a", deregister("x"));
    world.ask("b", register("x", "web"));
    let group = world.group();
    assert_eq!(group.len(), 1, "{group:?}");
    world.outcome(Ok(vec![Outcome::Refused(failed())]));
    world.store();
    assert_eq!(world.reply("b").unwrap()["success"], true);
    assert!(mark(&mut world, "x").is_some(), "it was never deregistered");
    assert_eq!(world.discover("web"), None);
}
