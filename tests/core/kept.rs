//! Following changes over restarts, with what a store has kept, and while it is in doubt what the store has.

use registry_host::registry::Following;
use registry_host::security::origin::{Address, Origin};

use super::follow::{EPOCH, small, watch};
use super::*;

pub(super) fn keeping(position: Position) -> World {
    let mut world = World::on(policy(), Promises { history: true, ..Promises::default() });
    let rng = StdRng::seed_from_u64(8);
    let promises = Promises { history: true, ..Promises::default() };
    world.registry = Registry::new(policy(), promises, About::default(), position, rng);
    world
}

/// What a store keeps of changes.
pub(super) fn kept(changes: &[Change]) -> Vec<(u64, String)> {
    let event = |change: &Change| match change {
        Change::Put(put) => Some((put.record.revision, put.event.clone())),
        Change::Remove(remove) => Some((remove.revision, remove.event.clone())),
        _ => None,
    };
    changes.iter().filter_map(event).filter(|(_, event)| !event.is_empty()).collect()
}

#[test]
fn after_a_restart_the_same_is_told_in_the_same_words() {
    let mut world = keeping(Position::new(EPOCH, 3));
    let mut changes = Vec::new();
    for request in [register("x", "web"), register("y", "web"), register("x", "mail"), deregister("y")] {
        world.ask("r", request);
        // What happens while the store has it changes nothing of it.
        world.pass(100);
        changes.extend(world.group());
        world.now.unix_ms += 3_600_000;
        world.pass(200);
        world.ask("r", renew("x"));
        world.accept(&[changes.last().unwrap().clone()]);
    }
    let before = world.call(watch(3, json!({})));
    assert_eq!(before["changes"].as_array().unwrap(), &world.events);
    let mut world = keeping(Position::new(EPOCH, 9));
    load(&mut world, 3, kept(&changes));
    let after = world.call(watch(3, json!({})));
    assert_eq!((&after["changes"], &after["revision"]), (&before["changes"], &json!(9)));
    assert_eq!(world.call(watch(2, json!({})))["code"], "compacted");
    let web = world.watched(watch(5, json!({"service_type": "web"}))).0;
    assert_eq!(web, [event("leave", "x", 6), event("deregister", "y", 7)]);
    let mail = world.watched(watch(3, json!({"service_type": "mail"}))).0;
    assert_eq!(mail, [event("register", "x", 6)], "nobody has to leave who was never there");
    world.register("z", "web");
    let next = world.call(watch(9, json!({})));
    assert_eq!((&next["changes"][0]["revision"], &next["changes"][0]["previous"]), (&json!(10), &json!(7)));
}

#[test]
fn the_past_of_a_service_is_the_same_after_a_restart_and_no_follower_is_told_by_whom() {
    let mut world = keeping(Position::new(EPOCH, 3));
    let key = Principal::Key(PublicKey::from_bytes([7; 32]));
    let nobody =
        |address: &str| Origin { principal: Principal::Nobody, address: Address::Tcp(address.parse().unwrap()) };
    let update = json!({"action": "update", "service_id": "x", "metadata": {"a": 1}});
    let mut changes = Vec::new();
    for (origin, request) in [
        (nobody("10.0.0.7:5123"), register("x", "web")),
        (Origin { address: Address::Ipc, ..Origin::default() }, update),
        (nobody("[::ffff:10.0.0.8]:5124"), register("x", "web")),
        (Origin::default(), deregister("x")),
        (Origin { principal: key, ..nobody("10.0.0.9:1") }, register("x", "web")),
    ] {
        let request = parse(request.to_string().as_bytes(), Port::Requests, &Limits::default()).request.unwrap();
        world.registry.request("by", origin, request, world.now, &mut world.out);
        world.take_output();
        let group = world.group();
        world.accept(&group);
        changes.extend(group);
    }
    let past = |world: &mut World| world.call(json!({"action": "history", "service_id": "x"}))["history"].clone();
    let before = past(&mut world);
    let what: Vec<&str> = before.as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["registered", "updated", "replaced", "deregistered", "registered"]);
    assert_eq!(before[4]["by"], json!({"address": "10.0.0.9:1", "key": key.key().unwrap().to_string()}));

    let mut world = keeping(Position::new(EPOCH, 8));
    load(&mut world, 3, kept(&changes));
    assert_eq!(past(&mut world), before);
    let told = world.call(watch(3, json!({})))["changes"].to_string();
    assert!(!told.contains("10.0.0.") && !told.contains("\"by\"") && !told.contains("\"update\""), "{told}");
}

/// What a store has kept is taken over.
pub(super) fn load(world: &mut World, complete_after: u64, events: impl IntoIterator<Item = (u64, String)>) {
    world.registry.begin_history(complete_after);
    for (revision, text) in events {
        world.registry.load_change(revision, &text, world.now);
    }
    world.registry.end_history();
}

#[test]
fn history_that_cannot_be_read_is_compacted() {
    let mut world = keeping(Position::new(EPOCH, 9));
    let text =
        |id: &str| format!("{{\"type\":\"expire\",\"timestamp\":7,\"types\":[],\"service\":{{\"id\":\"{id}\"}}}}");
    let events = [(3, text("old")), (5, text("a")), (6, "mine".into()), (7, text("b")), (20, text("late"))];
    load(&mut world, 4, events);
    for after in [3, 4, 5] {
        assert_eq!(world.call(watch(after, json!({})))["code"], "compacted", "{after}");
    }
    assert_eq!(world.watched(watch(6, json!({}))), (vec![event("expire", "b", 7)], 9));
}

#[test]
fn the_store_may_forget_what_can_no_longer_be_followed() {
    let mut world = small(2, 1 << 20);
    let promises = Promises { history: true, ..Promises::default() };
    let following = Following { changes: 2, bytes: 1 << 20, ..Following::default() };
    let rng = StdRng::seed_from_u64(8);
    let policy = Policy { following, ..policy() };
    world.registry = Registry::new(policy, promises, About::default(), Position::new(EPOCH, 0), rng);
    for (id, forgotten) in [("a", 1), ("b", 1), ("c", 1), ("d", 2), ("e", 3)] {
        world.ask("r", register(id, "web"));
        let group = world.registry.next_group(world.now, &mut world.out).unwrap();
        assert_eq!(group.forget_before, forgotten, "{id}");
        world.accept(&group.changes);
    }
    let complete_after = 3;
    assert_eq!(world.watched(watch(complete_after, json!({}))).0.len(), 2);
    assert_eq!(world.call(watch(complete_after - 1, json!({})))["code"], "compacted");
}

#[test]
fn nothing_is_told_behind_what_may_come_back() {
    let mut world = keeping(Position::new(EPOCH, 0));
    world.ask("w", watch(0, json!({"wait": 600})));
    world.ask("late", register("x", "web"));
    world.pass(300);
    world.ask("r", register("y", "web"));
    let group = world.group();
    world.pass(100);
    assert_eq!(world.reply("late").unwrap()["code"], "backend_unavailable");
    world.accept(&group);
    world.pass(0);
    assert_eq!(world.reply("r").unwrap()["success"], true);
    assert_eq!(world.take_events(), [event("register", "y", 2)]);
    assert_eq!(world.reply("w"), None, "x is stored, and who knows of y would never hear of it");
    assert_eq!(world.watched(watch(0, json!({}))), (vec![], 0));
    world.store();
    world.pass(0);
    assert_eq!(world.told("w"), (vec![event("register", "y", 2)], 2));
}

#[test]
fn who_knows_what_watchers_may_not_see_yet_is_not_told_it_again() {
    let mut world = keeping(Position::new(EPOCH, 0));
    world.ask("late", register("x", "web"));
    world.pass(300);
    world.ask("r", register("y", "web"));
    let group = world.group();
    world.pass(100);
    world.accept(&group);
    assert_eq!(world.take_events(), [event("register", "y", 2)], "a subscriber hears of it at once");
    assert_eq!(world.watched(watch(2, json!({}))), (vec![], 2), "what is known is never taken back");
    world.ask("w", watch(2, json!({"wait": 600})));
    world.store();
    world.pass(0);
    assert_eq!(world.reply("w"), None, "it knows of y already");
    world.register("z", "web");
    world.pass(0);
    assert_eq!(world.told("w"), (vec![event("register", "z", 3)], 3));
}

#[test]
fn no_generation_is_given_again_however_the_wall_clock_was_set_back() {
    let mut world = keeping(Position::new(EPOCH, 3));
    // It comes to nothing, and nothing is kept of it.
    world.ask("failed", register("x", "web"));
    world.group();
    world.outcome(Err(failed()));
    world.now.unix_ms -= 3_600_000;
    let mut changes = Vec::new();
    let mut last = 0;
    for request in [register("x", "web"), deregister("x")] {
        world.pass(200);
        world.ask("r", request);
        let group = world.group();
        world.accept(&group);
        last = world.reply("r").unwrap()["generation"].as_u64().unwrap_or(last);
        changes.extend(group);
    }
    let now = world.now;
    let mut world = keeping(Position::new(EPOCH, 9));
    world.now = now;
    load(&mut world, 3, kept(&changes));
    assert!(world.register("y", "web")["generation"].as_u64().unwrap() > last);
}
