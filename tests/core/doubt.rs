//! While a change that is stored, and that nobody was told of, is still to be undone: lists say no revision behind it, and
//! watchers are told of nothing behind it, so that whoever goes on after a kill hears of it if it has come back.

use registry_host::registry::Following;

use super::follow::{EPOCH, watch};
use super::kept::{keeping, kept, load};
use super::*;

/// `x` is given up and stored as 1, `y` is registered as 2 in the same group. What the store has got.
fn give_up_x(world: &mut World) -> Vec<Change> {
    world.ask("late", register("x", "web"));
    world.pass(300);
    world.ask("r", register("y", "web"));
    let group = world.group();
    world.pass(100);
    assert_eq!(world.reply("late").unwrap()["code"], "backend_unavailable");
    world.accept(&group);
    assert_eq!(world.reply("r").unwrap()["success"], true);
    group
}

/// The revision that a list names, and the services in it.
fn listed(world: &mut World) -> (u64, Vec<String>) {
    let reply = world.call(json!({"action": "list"}));
    let ids = reply["services"].as_array().unwrap().iter().map(|service| service["id"].as_str().unwrap().into());
    (reply["revision"].as_u64().unwrap(), ids.collect())
}

fn list_revision(world: &mut World) -> u64 {
    listed(world).0
}

/// The same store at another start.
fn restarted(history: bool, records: &[&str], revision: u64) -> World {
    let mut world = World::new();
    let promises = Promises { history, ..Promises::default() };
    let rng = StdRng::seed_from_u64(9);
    world.registry = Registry::new(policy(), promises, About::default(), Position::new(EPOCH, revision), rng);
    for id in records {
        world.registry.load(stored(id, "web"), world.now).unwrap();
    }
    world
}

#[test]
fn whoever_lists_and_watches_hears_of_what_a_host_that_died_has_left_behind() {
    let mut world = keeping(Position::new(EPOCH, 0));
    let group = give_up_x(&mut world);
    assert_eq!(listed(&mut world), (0, vec!["y".into()]), "y is there, and will be told again");
    // The host dies.
    let mut world = restarted(true, &["x", "y"], 2);
    load(&mut world, 0, kept(&group));
    assert_eq!(world.watched(watch(0, json!({}))).0, [event("register", "x", 1), event("register", "y", 2)]);
    assert_eq!(list_revision(&mut world), 2, "what was found has happened");
}

#[test]
fn whatever_names_a_revision_names_none_behind_what_may_come_back() {
    let mut world = keeping(Position::new(EPOCH, 0));
    give_up_x(&mut world);
    for request in [
        json!({"action": "list"}),
        json!({"action": "list", "service_type": "web"}),
        json!({"action": "list", "limit": 10}),
        json!({"action": "info"}),
        json!({"action": "types"}),
        json!({"action": "watch"}),
        json!({"action": "watch", "epoch": "another"}),
    ] {
        assert_eq!(world.call(request.clone())["revision"], 0, "{request}");
    }
    let first = world.call(json!({"action": "list", "limit": 1, "fields": []}));
    world.store();
    assert_eq!(list_revision(&mut world), 2, "x is undone");
    world.register("z", "web");
    let info = world.call(json!({"action": "info"}));
    assert_eq!((&info["revision"], &world.call(json!({"action": "types"}))["revision"]), (&json!(3), &json!(3)));
    assert_eq!(first["revision"], 0);
}

#[test]
fn a_list_in_pieces_names_what_was_certain_when_it_began() {
    let mut world = keeping(Position::new(EPOCH, 0));
    for number in 0..2000 {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    give_up_x(&mut world);
    world.ask("long", json!({"action": "list"}));
    world.registry.continue_lists(true, world.now, &mut world.out);
    world.store();
    world.finish_lists();
    let reply = world.reply("long").unwrap();
    assert_eq!((reply["services"].as_array().unwrap().len(), &reply["revision"]), (2001, &json!(0)));
    world.ask("long", json!({"action": "list"}));
    world.finish_lists();
    assert_eq!(world.reply("long").unwrap()["revision"], 2);
}

#[test]
fn what_is_sure_before_the_change_in_doubt_is_named_and_told() {
    let mut world = keeping(Position::new(EPOCH, 0));
    world.register("a", "web");
    world.ask("r", register("b", "web"));
    world.ask("late", register("x", "web"));
    world.ask("r", register("c", "web"));
    world.group();
    // Two are given up after the first: one may be stored, the other is not.
    world.outcome(Ok(vec![Outcome::Done, Outcome::Missing, Outcome::Done]));
    assert_eq!(world.reply("late").unwrap()["code"], "backend_unavailable");
    assert_eq!((list_revision(&mut world), world.take_events().len()), (2, 3));
    assert_eq!(world.watched(watch(0, json!({}))).0, [event("register", "a", 1), event("register", "b", 2)]);
    // Nothing is told that is not stored: nothing of a group that has failed is.
    let mut world = keeping(Position::new(EPOCH, 0));
    world.register("a", "web");
    world.ask("r", register("b", "web"));
    world.group();
    world.outcome(Err(failed()));
    assert_eq!(list_revision(&mut world), 1);
}

#[test]
fn a_store_that_fails_for_long_is_waited_for() {
    let mut world = keeping(Position::new(EPOCH, 0));
    world.ask("w", watch(0, json!({"wait": 600})));
    give_up_x(&mut world);
    for _ in 0..590 {
        world.pass(1000);
        world.group();
        world.outcome(Err(failed()));
        assert_eq!((world.reply("w"), list_revision(&mut world)), (None, 0));
    }
    // Others are not told sooner: what is registered meanwhile is not stored either.
    world.ask("z", register("z", "web"));
    let group = world.group();
    world.accept(&group);
    world.pass(0);
    assert_eq!(world.told("w"), (vec![event("register", "y", 2), event("register", "z", 3)], 3));
    assert_eq!(list_revision(&mut world), 3);
}

#[test]
fn a_store_that_refuses_to_undo_a_change_is_not_waited_for_without_end() {
    let mut world = keeping(Position::new(EPOCH, 0));
    world.ask("w", watch(0, json!({"wait": 600})));
    give_up_x(&mut world);
    for time in 1..=10 {
        assert_eq!((world.reply("w"), list_revision(&mut world)), (None, 0), "refused {time} times");
        world.pass(200);
        let group = world.group();
        world.outcome(Ok(vec![Outcome::Refused(failed()); group.len()]));
        world.pass(0);
    }
    assert_eq!(world.told("w"), (vec![event("register", "y", 2)], 2));
    assert_eq!(list_revision(&mut world), 2);
    assert!(world.registry.wake_at_ms() > world.now.uptime_ms, "the next try is not at once");
}

#[test]
fn without_a_history_everything_is_compacted_for_whoever_listed_before_a_kill() {
    let mut world = World::new();
    give_up_x(&mut world);
    assert_eq!(list_revision(&mut world), 0);
    assert_eq!(world.watched(watch(0, json!({}))), (vec![], 0));
    // The host dies before x is undone.
    let mut after = restarted(false, &["x", "y"], 2);
    assert_eq!(after.call(watch(0, json!({})))["code"], "compacted");
    // Or it does not.
    let mut group = world.registry.next_group(world.now, &mut world.out).unwrap();
    assert_eq!((group.undone.len(), group.forget_before), (0, 3), "that is for others");
    world.accept(&std::mem::take(&mut group.changes));
    assert_eq!(list_revision(&mut world), 2);
    assert_eq!(restarted(false, &["y"], 2).watched(watch(2, json!({}))), (vec![], 2));
}

#[test]
fn what_nobody_may_be_told_of_yet_is_kept_however_much_it_is() {
    let mut world = keeping(Position::new(EPOCH, 0));
    let following = Following { changes: 2, bytes: 1 << 20, watchers: 3, watchers_per_address: 3 };
    let promises = Promises { history: true, ..Promises::default() };
    let rng = StdRng::seed_from_u64(8);
    let position = Position::new(EPOCH, 0);
    world.registry = Registry::new(Policy { following, ..policy() }, promises, About::default(), position, rng);
    world.register("before", "web");
    world.ask("late", register("x", "web"));
    world.pass(300);
    for id in ["a", "b", "c", "d", "e"] {
        world.ask("r", register(id, "web"));
    }
    let group = world.group();
    world.pass(100);
    world.accept(&group);
    assert_eq!((list_revision(&mut world), world.watched(watch(1, json!({})))), (1, (vec![], 1)));
    world.store();
    let (changes, bookmark) = world.watched(watch(1, json!({})));
    assert_eq!((changes.len(), bookmark), (5, 7));
    world.register("f", "web");
    assert_eq!(world.call(watch(1, json!({})))["code"], "compacted");
    assert_eq!(world.watched(watch(6, json!({}))).0.len(), 2);
}

/// However many more are given up: those that watchers wait for come first.
#[test]
fn what_has_been_in_doubt_for_longest_is_undone_first() {
    let mut world = World::on(
        Policy { pending_changes_max: 100_000, ..policy() },
        Promises { history: true, ..Promises::default() },
    );
    for first in [0, 1000] {
        for number in first..first + 1000 {
            world.ask("late", register(&format!("x{number}"), "web"));
        }
        world.group();
        world.outcome(Err(failed()));
    }
    world.ask("r", register("y", "web"));
    world.pass(200);
    let group = world.registry.next_group(world.now, &mut world.out).unwrap();
    let mut undone = group.undone.clone();
    undone.sort_unstable();
    assert_eq!((undone.len(), undone[0], undone[999]), (1024, 1, 1000));
    world.accept(&group.changes);
    world.store();
    assert_eq!(list_revision(&mut world), 2001);
}

#[test]
fn two_runs_of_a_host_give_no_generation_twice_though_nothing_was_kept_and_the_clock_was_set_back() {
    let generations = |seed: u64| {
        let mut world = World::new();
        let rng = StdRng::seed_from_u64(seed);
        let position = Position::new(format!("e{seed}"), 0);
        world.registry = Registry::new(policy(), Promises::default(), About::default(), position, rng);
        let mut given = Vec::new();
        for _ in 0..100 {
            given.push(world.register("x", "web")["generation"].as_u64().unwrap());
            world.pass(1);
        }
        assert!(given.is_sorted_by(|before, next| before < next), "{given:?}");
        assert!(given[0] >= 1_700_000_000_000 && given[99] < 1_700_000_000_000 + (1 << 31), "{given:?}");
        given
    };
    let first = generations(1);
    for seed in 2..50 {
        assert!(generations(seed).iter().all(|generation| !first.contains(generation)), "{seed}");
    }
}
