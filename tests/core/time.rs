//! What time brings: ttl, heartbeats, clean-up, clocks that jump.

use super::*;

#[test]
fn a_service_is_critical_after_its_ttl_and_gone_after_the_clean_up() {
    let mut world = World::new();
    world.register("x", "web");
    world.take_events();
    world.pass(30_000);
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    assert_eq!(world.discover("web").as_deref(), Some("x"));
    world.pass(1);
    assert_eq!(world.health("x").as_deref(), Some("critical"));
    assert_eq!(world.discover("web"), None);
    assert!(world.events.is_empty());
    world.clean_up();
    assert_eq!(world.health("x"), None);
    let expired = world.events[0].clone();
    assert_eq!(expired["data"]["service_info"]["health"], "critical");
    assert_eq!(world.take_events(), [event("expire", "x", 2)]);
}

#[test]
fn a_critical_service_comes_back_with_a_heartbeat() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(35_000);
    assert_eq!(world.call(renew("x"))["message"], "Service renewed successfully");
    assert_eq!(world.discover("web").as_deref(), Some("x"));
    world.clean_up();
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    world.pass(30_001);
    assert_eq!(world.discover("web"), None);
}

#[test]
fn heartbeats_keep_a_service_for_as_long_as_they_come() {
    let mut world = World::new();
    world.register("x", "web");
    for _ in 0..100 {
        world.pass(10_000);
        world.call(renew("x"));
        world.clean_up();
    }
    assert_eq!(world.discover("web").as_deref(), Some("x"));
}

#[test]
fn a_service_that_beats_while_it_is_being_removed_stays_and_is_stored_again() {
    let mut world = World::new();
    world.register("x", "web");
    world.take_events();
    world.pass(31_000);
    world.registry.clean_up(world.now);
    let removal = world.group();
    assert!(matches!(&removal[..], [Change::Remove(_)]));
    world.call(renew("x"));
    world.accept(&removal);
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    assert!(world.events.is_empty());
    let restored = world.store();
    assert!(matches!(&restored[..], [Change::Put(put), ..] if put.record.id == "x"), "{restored:?}");
}

#[test]
fn a_heartbeat_before_the_removal_is_sent_prevents_it() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", register("y", "web"));
    let busy = world.group();
    world.pass(31_000);
    world.registry.clean_up(world.now);
    world.call(renew("x"));
    world.accept(&busy);
    assert!(world.store().iter().all(|change| !matches!(change, Change::Remove(remove) if remove.id == "x")));
    assert_eq!(world.health("x").as_deref(), Some("passing"));
}

#[test]
fn heartbeats_reach_the_store_together_about_once_a_second() {
    let mut world = World::new();
    for id in ["x", "y"] {
        world.register(id, "web");
    }
    for _ in 0..9 {
        world.pass(100);
        world.call(renew("x"));
        world.call(renew("y"));
        assert_eq!(world.store(), []);
    }
    world.pass(200);
    let written = world.store();
    assert_eq!(written.len(), 2);
    let last = world.now.unix_ms - 200;
    assert!(written.iter().all(|change| matches!(change, Change::Renew(renew) if renew.last_heartbeat_ms == last)));
    assert!(world.take_events().iter().all(|(kind, ..)| kind == "register"));
}

#[test]
fn heartbeats_that_could_not_be_written_are_written_later() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(renew("x"));
    world.pass(1000);
    world.group();
    world.outcome(Err(failed()));
    world.pass(1000);
    assert!(matches!(&world.store()[..], [Change::Renew(renew)] if renew.id == "x"));
}

#[test]
fn a_failing_store_is_not_asked_without_pause_however_many_heartbeats_wait() {
    let mut world = World::with(Policy { pending_changes_max: 10_000, ..policy() });
    for number in 0..3000 {
        world.ask("client", register(&format!("s{number}"), "web"));
    }
    world.store();
    for number in 0..3000 {
        world.ask("client", renew(&format!("s{number}")));
    }
    world.pass(1000);
    world.group();
    world.outcome(Err(failed()));
    assert_eq!(world.next_group(), None);
    assert!(world.registry.wake_at_ms() > world.now.uptime_ms);
    world.pass(1000);
    assert_eq!(world.store().len(), 3000);
}

#[test]
fn wall_time_that_jumps_is_shown_and_changes_nothing() {
    for jump_ms in [3_600_000_i64, -3_600_000] {
        let mut world = World::new();
        world.register("x", "web");
        world.now.unix_ms = world.now.unix_ms.saturating_add_signed(jump_ms);
        world.pass(30_000);
        assert_eq!(world.health("x").as_deref(), Some("passing"));
        world.call(renew("x"));
        let shown = world.call(json!({"action": "get", "service_id": "x"}));
        assert_eq!(shown["service"]["last_heartbeat"], json!(world.now.unix_ms / 1000));
        world.pass(30_001);
        assert_eq!(world.health("x").as_deref(), Some("critical"));
    }
}

#[test]
fn a_renewal_while_an_update_is_under_way_counts() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(20_000);
    world.ask("a", register("x", "web"));
    let group = world.group();
    world.pass(300);
    world.call(renew("x"));
    world.accept(&group);
    world.pass(30_000);
    assert_eq!(world.health("x").as_deref(), Some("passing"));
}

/// A world in which so many services are critical that no group holds them all, and a clean-up has begun.
fn sweeping(services: usize) -> World {
    let mut world = World::new();
    for number in 0..services {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    world.pass(31_000);
    world.registry.clean_up(world.now);
    world
}

fn ids(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(Change::id).collect()
}

#[test]
fn a_clean_up_removes_all_that_are_critical_however_many() {
    let mut world = sweeping(5000);
    assert_eq!(world.store().len(), 5000);
    assert_eq!(world.take_events().len(), 5000);
    assert!(world.registry.is_empty() && world.registry.is_idle());
}

#[test]
fn what_a_client_asks_for_does_not_wait_for_a_clean_up() {
    let mut world = sweeping(5000);
    let first = world.group();
    let is_first = |id: &str| ids(&first).contains(&id);
    let critical = (0..5000).map(|number| format!("s{number}"));
    let [again, gone, beats] = critical.filter(|id| !is_first(id)).take(3).collect::<Vec<_>>().try_into().unwrap();
    world.ask("new", register("new", "web"));
    world.ask("again", register(&again, "web"));
    world.ask("gone", deregister(&gone));
    world.call(renew(&beats));
    world.accept(&first);
    let second = world.group();
    assert_eq!(ids(&second)[..3], ["new", &again, &gone]);
    assert!(second.len() <= first.len(), "a group stays as large as plugins are told");
    world.accept(&second);
    for caller in ["new", "again", "gone"] {
        assert_eq!(world.reply(caller).unwrap()["success"], true);
    }
    world.store();
    assert_eq!(world.registry.len(), 3);
    let expired = world.take_events().into_iter().filter(|(kind, ..)| kind == "expire").count();
    assert_eq!(expired, 4997);
    for id in [&again, &beats] {
        assert_eq!(world.health(id).as_deref(), Some("passing"));
    }
}

#[test]
fn a_clean_up_gets_on_however_much_clients_ask_for() {
    let mut world = World::with(Policy { pending_changes_max: 10_000, ..policy() });
    world.register("x", "web");
    world.pass(31_000);
    for number in 0..3000 {
        world.ask("client", register(&format!("s{number}"), "web"));
    }
    world.registry.clean_up(world.now);
    let group = world.group();
    assert!(ids(&group).contains(&"x"), "the expired one has its place among {} changes", group.len());
}

#[test]
fn a_failing_store_is_not_asked_without_pause_however_many_are_critical() {
    let mut world = sweeping(5000);
    world.group();
    world.outcome(Err(failed()));
    assert!(world.next_group().is_none());
    assert_eq!(world.registry.wake_at_ms(), world.now.uptime_ms + 200);
    world.pass(200);
    world.store();
    world.clean_up();
    assert!(world.registry.is_empty());
}

/// The last heartbeat of `x` in the store, after these changes.
fn stored_heartbeat(changes: &[Change]) -> Option<u64> {
    let heartbeat = |change: &Change| match change {
        Change::Put(put) => Some(put.record.last_heartbeat_ms),
        Change::Renew(renew) => Some(renew.last_heartbeat_ms),
        _ => None,
    };
    changes.iter().filter(|change| change.id() == "x").filter_map(heartbeat).next_back()
}

#[test]
fn an_earlier_heartbeat_is_not_written_over_a_registration() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(renew("x"));
    world.pass(2000);
    world.ask("a", register("x", "web"));
    assert_eq!(stored_heartbeat(&world.store()), Some(world.now.unix_ms));
}

#[test]
fn a_heartbeat_during_a_registration_reaches_the_store_after_it() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("other", register("other", "web"));
    let busy = world.group();
    world.ask("a", register("x", "web"));
    world.pass(300);
    world.call(renew("x"));
    let heard_ms = world.now.unix_ms;
    world.accept(&busy);
    let registered = world.group();
    world.accept(&registered);
    world.pass(2000);
    assert_eq!(stored_heartbeat(&world.store()), Some(heard_ms));
}

/// So many services of a type, whose time is up at a moment at which nobody has looked at them yet.
fn unseen(services: usize) -> World {
    let mut world = World::new();
    for number in 0..services {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    world.now.uptime_ms += 30_001;
    world
}

#[test]
fn who_has_run_out_is_not_discovered_though_nobody_has_looked_yet() {
    let mut world = unseen(5000);
    assert_eq!(world.discover("web"), None);
    assert_eq!(world.health("s4999").as_deref(), Some("critical"));
    let mut world = unseen(5000);
    world.call(renew("s4321"));
    for _ in 0..10 {
        assert_eq!(world.discover("web").as_deref(), Some("s4321"), "the only one that was heard of is found");
    }
}

#[test]
fn a_clean_up_waits_until_all_are_known_that_have_run_out() {
    let mut world = unseen(5000);
    world.registry.tick(world.now, &mut world.out);
    assert!(!world.registry.is_cleanup_due(world.now));
    assert_eq!(world.registry.wake_at_ms(), 0, "it does not wait for long");
    while !world.registry.is_cleanup_due(world.now) {
        world.registry.tick(world.now, &mut world.out);
    }
    world.clean_up();
    assert!(world.registry.is_empty());
}

#[test]
fn a_singleton_waits_until_it_is_known_who_has_run_out() {
    let mut world = unseen(3000);
    world.ask("y", singleton("y", "web"));
    assert_eq!(world.next_group(), None);
    assert_eq!(world.reply("y"), None, "nobody of its type is there, and that is not known yet");
    world.pass(1);
    world.store();
    assert_eq!(world.reply("y").unwrap()["success"], true);
}

#[test]
fn a_store_that_refuses_to_be_mended_is_not_asked_without_pause() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", deregister("x"));
    world.group();
    world.outcome(Err(failed()));
    world.pass(200);
    world.group();
    world.outcome(Ok(vec![Outcome::Refused(failed())]));
    assert_eq!(world.next_group(), None);
    world.pass(200);
    assert_eq!(world.store().len(), 1);
}
