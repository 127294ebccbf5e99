//! What goes to the store at once: how much of each kind, and what is told with it.

use registry_plugin_api::Group;

use super::*;

/// What plugins are told: a group has up to so many changes of each kind.
const CHANGES: usize = 1024;
const MEGABYTE: usize = 1 << 20;

/// A world in which much may wait.
fn roomy(promises: Promises) -> World {
    let policy = Policy {
        pending_changes_max: 100_000,
        pending_bytes_max: 1 << 30,
        services_bytes_max: 1 << 30,
        reply_timeout_ms: 60_000,
        ..policy()
    };
    World::on(policy, promises)
}

const HISTORY: Promises = Promises { balances: false, history: true };

/// A registration of about a megabyte, and some bytes more.
fn huge(id: &str) -> Value {
    let mut request = register(id, "web");
    request["service_info"]["note"] = "x".repeat(MEGABYTE).into();
    request
}

impl World {
    /// Whether there is something to do at once, once whoever follows has been told.
    fn has_more(&mut self) -> bool {
        self.pass(0);
        self.registry.wake_at_ms() <= self.now.uptime_ms
    }

    /// The next group as the store gets it.
    fn whole_group(&mut self) -> Group {
        let group = self.registry.next_group(self.now, &mut self.out).expect("there is something to store");
        self.take_output();
        group
    }

    fn fail_group(&mut self) -> usize {
        let count = self.group().len();
        self.outcome(Err(failed()));
        count
    }

    fn load_all(&mut self, count: usize) {
        for number in 0..count {
            self.registry.load(stored(&format!("s{number}"), "web"), self.now).unwrap();
        }
    }
}

fn puts(changes: &[Change]) -> usize {
    changes.iter().filter(|change| matches!(change, Change::Put(_))).count()
}

#[test]
fn a_group_has_as_many_changes_of_clients_as_plugins_are_told() {
    let mut world = roomy(Promises::default());
    for number in 0..3000 {
        world.ask("client", register(&format!("s{number}"), "web"));
    }
    let lengths: Vec<usize> = std::iter::from_fn(|| {
        let group = world.next_group()?;
        world.accept(&group);
        Some(group.len())
    })
    .collect();
    assert_eq!(lengths, [CHANGES, CHANGES, 3000 - 2 * CHANGES]);
}

#[test]
fn a_group_has_as_many_restorations_as_plugins_are_told() {
    let mut world = roomy(Promises::default());
    for number in 0..2 * CHANGES {
        world.ask("client", deregister(&format!("s{number}")));
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    // The second group tries again to store what the first may have left behind, and has clients' changes besides.
    assert_eq!((world.fail_group(), world.fail_group()), (CHANGES, 2 * CHANGES));
    world.pass(200);
    for _ in 0..2 {
        let restored = world.group();
        assert_eq!((restored.len(), puts(&restored)), (CHANGES, CHANGES));
        world.accept(&restored);
    }
    assert!(world.registry.is_idle());
}

#[test]
fn a_group_has_as_many_heartbeats_as_plugins_are_told() {
    let mut world = roomy(Promises::default());
    world.load_all(CHANGES + 1);
    for number in 0..=CHANGES {
        world.call(renew(&format!("s{number}")));
    }
    world.pass(1000);
    for expected in [CHANGES, 1] {
        let group = world.group();
        assert_eq!(group.len(), expected);
        world.accept(&group);
    }
}

#[test]
fn a_group_has_a_place_for_the_expired_besides_what_clients_ask_for_and_no_more_changes_for_that() {
    let mut world = roomy(Promises::default());
    world.load_all(2 * CHANGES);
    world.pass(30_001);
    world.registry.clean_up(world.now);
    for number in 0..3000 {
        world.ask("client", register(&format!("new{number}"), "mail"));
    }
    let group = world.group();
    assert_eq!((group.len(), puts(&group)), (CHANGES, CHANGES - 64));
    world.accept(&group);
    // With fewer wishes, the expired have the rest.
    while world.has_more() {
        let group = world.group();
        assert!(group.len() <= CHANGES, "{}", group.len());
        world.accept(&group);
    }
    world.store();
    assert_eq!(world.registry.len(), 3000);
}

#[test]
fn who_makes_way_counts_as_the_changes_of_clients_do() {
    let mut world = roomy(Promises::default());
    world.load_all(3000);
    world.pass(30_001);
    for number in 0..1000 {
        world.ask("client", register(&format!("new{number}"), "mail"));
    }
    world.ask("y", singleton("y", "web"));
    let group = world.group();
    assert_eq!((group.len(), puts(&group)), (CHANGES, 1000));
    world.accept(&group);
    // From now on half of each group makes way, and the other half is for others.
    world.ask("z", singleton("z", "web"));
    let group = world.group();
    assert_eq!(group.len(), CHANGES / 2);
    world.accept(&group);
    world.store();
    assert_eq!(world.reply("y").unwrap()["success"], true);
    assert_eq!(world.reply("z").unwrap()["code"], "duplicate_service_type");
}

#[test]
fn wishes_that_are_refused_take_no_place_in_a_group() {
    let mut world = roomy(Promises::default());
    for number in 0..2 * CHANGES {
        world.ask("nobody", deregister("unknown"));
        world.ask("client", register(&format!("s{number}"), "web"));
    }
    assert_eq!(world.group().len(), CHANGES);
}

#[test]
fn a_group_has_some_megabytes_of_what_clients_ask_for() {
    let mut world = roomy(Promises::default());
    world.call(huge("expired"));
    world.pass(30_001);
    world.registry.clean_up(world.now);
    for number in 0..6 {
        world.ask("client", huge(&format!("s{number}")));
    }
    let group = world.group();
    assert_eq!((group.len(), puts(&group)), (4, 4), "four of them are 4 MB, and the expired one has its turn later");
    world.accept(&group);
    let group = world.group();
    assert_eq!((group.len(), puts(&group)), (3, 2));
}

#[test]
fn a_group_has_some_megabytes_of_restorations() {
    let mut world = roomy(Promises::default());
    for number in 0..6 {
        world.call(huge(&format!("s{number}")));
    }
    for number in 0..6 {
        world.ask("client", deregister(&format!("s{number}")));
    }
    while world.has_more() {
        world.fail_group();
    }
    world.pass(200);
    let restored = world.group();
    assert_eq!(puts(&restored), 4);
    world.accept(&restored);
    assert_eq!(puts(&world.store()), 2);
}

#[test]
fn a_group_undoes_a_number_of_changes_however_many_have_failed() {
    let mut world = roomy(HISTORY);
    // Each id fails as many times as a group has changes.
    for number in 0..8 * CHANGES {
        world.ask("client", register(&format!("s{}", number % 8), "web"));
    }
    for _ in 0..8 {
        world.fail_group();
    }
    world.pass(200);
    let mut revisions: Vec<u64> = Vec::new();
    for _ in 0..2 {
        let group = world.whole_group();
        assert_eq!((group.undone.len(), group.changes.len()), (4 * CHANGES, 4));
        revisions.extend(&group.undone);
        world.accept(&group.changes);
    }
    revisions.sort_unstable();
    assert!(revisions.into_iter().eq(1..=8 * CHANGES as u64), "each of them is undone once");
    assert!(world.registry.is_idle());
}

/// What a store with history keeps of a change.
fn told(change: &Change) -> Value {
    let text = match change {
        Change::Put(put) => &put.event,
        Change::Remove(remove) => &remove.event,
        _ => panic!("{change:?} has no event"),
    };
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

#[test]
fn a_store_with_history_is_told_what_happened_when_and_to_which_service() {
    let mut world = roomy(HISTORY);
    world.now.unix_ms += 999;
    world.ask("a", register("x", "web"));
    world.ask("b", register("x", "mail"));
    world.ask("c", deregister("x"));
    let group = world.whole_group();
    assert_eq!(group.forget_before, 1, "nothing is to be forgotten");
    world.accept(&group.changes);
    world.register("y", "web");
    world.pass(30_001);
    world.registry.clean_up(world.now);
    let mut changes = group.changes;
    changes.extend(world.group());
    let told: Vec<Value> = changes.iter().map(told).collect();
    let in_short = |told: &Value| {
        let service = &told["service"];
        let (kind, service_type, health) = (&told["type"], &service["type"], &service["health"]);
        format!("{} {} {} {}", told["timestamp"], kind, service_type, health).replace('"', "")
    };
    let in_short: Vec<String> = told.iter().map(in_short).collect();
    let expected = [
        "1700000000 register web passing",
        "1700000000 register mail passing",
        "1700000000 deregister mail passing",
        "1700000031 expire web critical",
    ];
    assert_eq!(in_short, expected);
}

#[test]
fn a_store_without_history_keeps_nothing_of_changes_and_claims_nothing() {
    let mut world = World::new();
    world.ask("a", register("x", "web"));
    world.ask("b", deregister("x"));
    let group = world.whole_group();
    assert!(matches!(&group.changes[..], [Change::Put(put), Change::Remove(remove)]
        if put.event.is_empty() && remove.event.is_empty()));
    assert_eq!((group.position.revision, group.forget_before), (2, 3));
}

#[test]
fn a_clean_up_ends_with_the_last_that_it_removes() {
    let mut world = World::new();
    world.load_all(3);
    world.pass(30_001);
    world.registry.clean_up(world.now);
    let group = world.group();
    assert_eq!(group.len(), 3);
    world.accept(&group);
    assert!(!world.has_more(), "nothing more is to be done until the next");
}

#[test]
fn the_host_has_to_wait_for_whatever_the_store_has_or_is_to_have() {
    let mut world = World::new();
    world.load_all(1);
    world.pass(30_001);
    world.registry.clean_up(world.now);
    let removal = world.group();
    assert!(!world.registry.is_idle(), "nobody waits for the removal but the host");
    world.outcome(Err(failed()));
    assert!(!world.registry.is_idle(), "what is stored is in doubt");
    world.pass(200);
    let restoration = world.group();
    assert_eq!((removal.len(), restoration.len()), (1, 1));
    world.accept(&restoration);
    assert!(world.registry.is_idle());
    world.ask("a", register("x", "mail"));
    assert!(!world.registry.is_idle());
    world.store();
    assert!(world.registry.is_idle());
}

#[test]
fn a_store_that_answers_for_more_or_fewer_changes_than_it_has_got_has_failed() {
    for count in [1, 3] {
        let mut world = World::new();
        for id in ["x", "y"] {
            world.ask(id, register(id, "web"));
        }
        world.group();
        world.outcome(Ok(vec![Outcome::Done; count]));
        for id in ["x", "y"] {
            assert_eq!(world.reply(id).unwrap()["code"], "backend_unavailable", "nobody knows which were meant");
            assert_eq!(world.health(id), None);
        }
        let backend = world.call(json!({"action": "health"}))["backend"].clone();
        let expected = format!("{count} outcomes for 2 changes");
        assert_eq!((&backend["state"], &backend["error"]), (&json!("failing"), &json!(expected)));
        world.pass(200);
        assert_eq!(world.store().len(), 2, "both are made to be as they were");
    }
}
