//! When the host has to do something next, and what it need not do any more.

use super::*;

fn load(world: &mut World, count: usize) {
    for number in 0..count {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
}

#[test]
fn the_host_wakes_when_somebody_has_waited_too_long() {
    let mut world = World::new();
    assert_eq!(world.registry.wake_at_ms(), 10_000, "only the clean-up is to come");
    world.pass(100);
    world.ask("a", register("x", "web"));
    world.group();
    assert_eq!(world.registry.wake_at_ms(), 500);
    world.pass(400);
    assert_eq!(world.reply("a").unwrap()["code"], "backend_unavailable");
}

#[test]
fn the_host_wakes_to_write_heartbeats_and_to_try_again() {
    let mut world = World::with(Policy { cleanup_interval_ms: 100_000, ..policy() });
    load(&mut world, 2000);
    world.pass(100);
    for number in 0..2000 {
        world.call(renew(&format!("s{number}")));
    }
    assert_eq!(world.registry.wake_at_ms(), 1100);
    world.pass(1000);
    // More than go at once: some wait to be written, and the others wait again.
    world.group();
    world.outcome(Err(failed()));
    for is_time in [false, true] {
        assert_eq!(world.registry.wake_at_ms(), 1300);
        let group = world.next_group();
        assert_eq!(group.is_some(), is_time);
        world.pass(200);
    }
}

#[test]
fn the_host_wakes_at_once_to_remove_what_has_run_out() {
    let mut world = World::new();
    load(&mut world, 1);
    world.pass(30_001);
    world.registry.clean_up(world.now);
    assert!(world.registry.wake_at_ms() <= world.now.uptime_ms);
    world.store();
    world.pass(0);
    assert_eq!(world.registry.wake_at_ms(), 40_001);
}

#[test]
fn wishes_of_those_who_have_given_up_leave_nothing_to_do() {
    let mut world = World::new();
    world.ask("a", register("x", "web"));
    world.group();
    world.ask("b", register("y", "web"));
    world.pass(400);
    for caller in ["a", "b"] {
        assert_eq!(world.reply(caller).unwrap()["code"], "backend_unavailable");
    }
    world.outcome(Err(failed()));
    assert_eq!(world.registry.wake_at_ms(), 600, "the store is given time");
    assert_eq!(world.next_group(), None);
}

#[test]
fn who_still_waits_keeps_its_wish_when_others_give_up() {
    let mut world = World::new();
    load(&mut world, 1500);
    world.pass(30_001);
    world.ask("before", register("x", "mail"));
    world.pass(200);
    world.ask("y", singleton("y", "web"));
    let group = world.group();
    world.pass(200);
    assert_eq!(world.reply("before").unwrap()["code"], "backend_unavailable");
    world.accept(&group);
    world.store();
    assert_eq!(world.reply("y").unwrap()["success"], true);
}
