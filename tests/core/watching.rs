//! Stores that other hosts write to: their history decides.

use super::*;

fn world() -> World {
    World::with(Policy { watches: true, ..policy() })
}

fn observe(world: &mut World, revision: u64, change: Change) {
    let unreadable = world.registry.observed(vec![Observed::new(revision, change)], world.now, &mut world.out);
    assert_eq!(unreadable, []);
    world.take_output();
}

fn put(id: &str) -> Change {
    Change::Put { record: stored(id, "web"), unique: None }
}

#[test]
fn what_other_hosts_change_is_seen_and_announced() {
    let mut world = world();
    observe(&mut world, 4, put("x"));
    assert_eq!(world.discover("web").as_deref(), Some("x"));
    world.pass(29_000);
    observe(&mut world, 4, Change::Renew { id: "x".into(), last_heartbeat_ms: 1_000_000 });
    world.pass(29_000);
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    observe(&mut world, 5, Change::Remove { id: "x".into(), reason: RemoveReason::Expired });
    assert_eq!(world.health("x"), None);
    assert_eq!(world.take_events(), [event("register", "x", 4), event("expire", "x", 5)]);
}

#[test]
fn an_own_change_waits_for_its_turn_in_the_history() {
    let mut world = world();
    world.ask("a", register("x", "web"));
    world.group();
    world.outcome(Ok(vec![Outcome::Done { revision: 2 }]));
    assert_eq!(world.reply("a"), None);
    observe(&mut world, 1, put("other"));
    observe(&mut world, 2, put("x"));
    assert_eq!(world.reply("a").unwrap()["service_id"], "x");
    assert_eq!(world.take_events(), [event("register", "other", 1), event("register", "x", 2)]);
}

#[test]
fn an_own_change_that_was_observed_first_is_announced_once() {
    let mut world = world();
    world.ask("a", register("x", "web"));
    world.group();
    observe(&mut world, 1, put("x"));
    world.outcome(Ok(vec![Outcome::Done { revision: 1 }]));
    assert_eq!(world.reply("a").unwrap()["success"], true);
    assert_eq!(world.take_events(), [event("register", "x", 1)]);
}

#[test]
fn a_type_taken_through_another_host_is_a_conflict() {
    let mut world = world();
    world.ask("a", singleton("x", "web"));
    assert!(matches!(&world.group()[..], [Change::Put { unique: Some(name), .. }] if name == "web"));
    world.outcome(Ok(vec![Outcome::Conflict { id: "y".into() }]));
    let refusal = world.reply("a").unwrap();
    assert_eq!((&refusal["code"], &refusal["existing_service_id"]), (&json!("duplicate_service_type"), &json!("y")));
}

#[test]
fn after_a_lost_history_what_differs_is_announced() {
    let mut world = world();
    observe(&mut world, 1, put("gone"));
    observe(&mut world, 2, put("same"));
    world.take_events();
    let mut same = stored("same", "web");
    same.revision = 2;
    let mut new = stored("new", "web");
    new.revision = 9;
    let unreadable = world.registry.reload("e2".into(), 9, vec![same, new], world.now, &mut world.out);
    assert_eq!(unreadable, []);
    world.take_output();
    assert_eq!(world.take_events(), [event("deregister", "gone", 9), event("register", "new", 9)]);
    assert_eq!(world.registry.position(), ("e2", 9));
}
