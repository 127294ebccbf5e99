//! Following changes: what those who wait may take in all, who hears of a removal, and where it goes on after a restart.

use registry_host::registry::Following;

use super::follow::{EPOCH, watch};
use super::kept::{keeping, load};
use super::*;

#[test]
fn what_waiting_clients_ask_for_takes_memory_only_as_long_as_they_wait() {
    let following = Following { watchers: 10_000, ..Following::default() };
    let mut world = World::with(Policy { following, ..policy() });
    let long = watch(0, json!({"wait": 1, "metadata": {"a": "x".repeat(16_000)}}));
    let request = parse(long.to_string().as_bytes(), Port::Requests, &Limits::default()).request.unwrap();
    for _ in 0..2 {
        let mut waiting = 0;
        while world.out.replies.is_empty() {
            world.registry.request("w", Principal::Nobody, request.clone(), world.now, &mut world.out);
            waiting += 1;
        }
        assert!((2000..2200).contains(&waiting), "{waiting} of them may wait");
        world.take_output();
        assert_eq!(world.reply("w").unwrap()["code"], "overloaded");
        world.pass(1000);
        assert!(!world.registry.is_watched());
        world.replies.clear();
    }
}

#[test]
fn a_removal_is_told_to_nobody_who_did_not_want_the_service() {
    let mut world = World::new();
    world.register_as("x", json!({"metadata": {"room": 7}}));
    world.call(deregister("x"));
    let told = |world: &mut World, room: u64| {
        world.watched(watch(1, json!({"service_type": "web", "metadata": {"room": room}}))).0
    };
    assert_eq!(told(&mut world, 7), [event("deregister", "x", 2)]);
    assert_eq!(told(&mut world, 8), []);
}

#[test]
fn a_history_is_taken_over_up_to_the_position_and_nobody_is_woken_by_it() {
    let text = |id: &str| format!(r#"{{"type":"expire","timestamp":7,"types":[],"service":{{"id":"{id}"}}}}"#);
    let mut world = keeping(Position::new(EPOCH, 5));
    load(&mut world, 3, [(4, text("a")), (5, text("b")), (6, text("c"))]);
    assert!(!world.registry.has_news());
    assert_eq!(world.watched(watch(3, json!({}))), (vec![event("expire", "a", 4), event("expire", "b", 5)], 5));
}

#[test]
fn changes_are_told_together_however_long_each_is_as_far_as_they_fit() {
    let mut world = World::new();
    for number in 0..30 {
        world.register_as(&format!("s{number}"), json!({"bulk": "x".repeat(12_000 + 37 * number)}));
    }
    assert_eq!(world.watched(watch(0, json!({}))).0.len(), 30);
}

#[test]
fn after_a_restart_it_is_known_what_a_service_was_if_that_was_kept() {
    let text =
        |types: &str| format!(r#"{{"type":"register","timestamp":7,"types":["{types}"],"service":{{"id":"x"}}}}"#);
    let mut world = keeping(Position::new(EPOCH, 5));
    load(&mut world, 3, [(4, text("web")), (5, text("mail"))]);
    let told = |world: &mut World, after: u64, wanted: &str| {
        world.watched(watch(after, json!({"service_type": wanted}))).0.into_iter().map(|(kind, ..)| kind).collect()
    };
    let kinds: [Vec<String>; 3] = ["web", "mail", "other"].map(|wanted| told(&mut world, 4, wanted));
    assert_eq!(kinds, [vec!["leave"], vec!["register"], vec![]]);
    let before_it: Vec<String> = told(&mut world, 3, "other");
    assert_eq!(before_it, ["leave"], "of the first nobody knows what it took the place of");
    let history = world.call(json!({"action": "history", "service_id": "x"}));
    let history: Vec<&Value> = history["history"].as_array().unwrap().iter().map(|entry| &entry["what"]).collect();
    assert_eq!(history, ["registered", "replaced"]);
}

/// How many replies it takes until a watcher has heard of everything after a revision, none of which concerns it.
fn replies(world: &mut World, mut after: u64, wanted: &Value) -> usize {
    let newest = world.registry.position().1;
    for replies in 0.. {
        if after >= newest {
            return replies;
        }
        let (changes, bookmark) = world.watched(watch(after, wanted.clone()));
        assert!(changes.is_empty() && bookmark > after, "{changes:?}, {bookmark}");
        after = bookmark;
    }
    unreachable!()
}

#[test]
fn what_is_compared_for_a_watcher_is_done_a_part_at_a_time() {
    let mut world = World::new();
    let tags = |letter: char, count: usize| json!((0..count).map(|n| format!("{letter}{n}")).collect::<Vec<_>>());
    for round in 0..2 {
        for number in 0..50 {
            let bulk = "x".repeat(12_800);
            world.register_as(&format!("s{number}"), json!({"tags": tags('t', 19), "bulk": bulk}));
        }
        if round == 0 {
            let by_metadata = replies(&mut world, 0, &json!({"metadata": {"room": 7}}));
            assert!((8..=16).contains(&by_metadata), "{by_metadata} for the documents");
        }
    }
    let by_tags = json!({"tags": tags('u', 10)});
    // About 200 steps each at first, and 400 with the types that they had before.
    let of_both = replies(&mut world, 0, &by_tags);
    let of_later = replies(&mut world, 50, &by_tags);
    assert!((20..=30).contains(&of_later) && (35..=50).contains(&of_both), "{of_later} of {of_both}");
    assert!(replies(&mut world, 0, &json!({"service_type": "mail"})) <= 6);
}

#[test]
fn as_many_changes_are_kept_as_there_is_memory_for() {
    const BYTES: usize = 20_000;
    for tags in [0, 20] {
        let mut world = World::with(Policy {
            following: Following { changes: 1000, bytes: BYTES, ..Following::default() },
            ..policy()
        });
        let tags: Vec<String> = (0..tags).map(|n| format!("t{n}")).collect();
        for number in 100..300 {
            world.register_as(&format!("s{number}"), json!({"tags": tags}));
        }
        let each = 192 + world.events.last().unwrap().to_string().len() + 48 * (1 + tags.len());
        let kept = (0..200).find(|kept| world.call(watch(200 - kept - 1, json!({"limit": 1})))["code"] == "compacted");
        assert_eq!(kept, Some((BYTES / each) as u64));
    }
}

#[test]
fn whose_time_is_up_before_a_change_was_looked_at_for_it_is_told_of_it_and_of_none_that_it_knows() {
    const FILTERS: u64 = 40;
    let mut world = World::new();
    let wanting = |n: u64, wait: f64| json!({"metadata": {"n": n}, "wait": wait});
    (1..FILTERS).for_each(|n| world.ask("w", watch(0, wanting(n, 600.0))));
    world.ask("late", watch(0, wanting(FILTERS, 0.001)));
    // So long that one turn is not enough to see whom it concerns.
    world.register_as("x", json!({"metadata": {"n": FILTERS}, "bulk": "x".repeat(100_000)}));
    world.ask("knows", watch(1, wanting(FILTERS, 0.001)));
    world.now.uptime_ms += 1;
    world.registry.tick(world.now, &mut world.out);
    world.take_output();
    assert!(world.registry.has_news(), "others are still to be looked after");
    assert_eq!(world.told("late"), (vec![event("register", "x", 1)], 1));
    assert_eq!(world.told("knows"), (vec![], 1));
}

#[test]
fn nobody_is_passed_over_where_a_turn_ends_between_two_changes() {
    const FILTERS: usize = 40;
    let mut world = World::new();
    let name = |n: usize| format!("k{n}");
    for n in 0..FILTERS {
        world.ask("w", watch(0, json!({"metadata": {name(n): 1}, "wait": 600})));
    }
    let bulk = "x".repeat(100_000);
    let all: serde_json::Map<String, Value> = (0..FILTERS).map(|n| (name(n), json!(1))).collect();
    world.register_as("nobody's", json!({"bulk": bulk}));
    world.register_as("everybody's", json!({"bulk": bulk, "metadata": all}));
    // Each turn does a part of the work.
    (0..20).for_each(|_| world.pass(0));
    for _ in 0..FILTERS {
        assert_eq!(world.told("w"), (vec![event("register", "everybody's", 2)], 2));
    }
}
