//! How a change takes effect: admitted, sent in groups, made visible when the store has said yes, and taken back when
//! it comes too late.

use super::*;

#[test]
fn a_registration_shows_when_the_store_has_said_yes_and_not_before() {
    let mut world = World::new();
    world.ask("a", register("x", "web"));
    let group = world.group();
    assert_eq!(world.reply("a"), None);
    assert_eq!(world.health("x"), None);
    assert!(world.events.is_empty());
    world.accept(&group);
    assert_eq!(world.reply("a").unwrap()["service_id"], "x");
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    assert_eq!(world.take_events(), [event("register", "x", 1)]);
}

#[test]
fn a_refusal_of_the_store_changes_nothing() {
    let mut world = World::new();
    world.register("x", "web");
    world.take_events();
    world.ask("a", register("y", "web"));
    world.ask("b", deregister("x"));
    world.group();
    world.outcome(Err(failed()));
    for (caller, error) in
        [("a", "Failed to register service"), ("b", "Service not found or could not be deregistered")]
    {
        let reply = world.reply(caller).unwrap();
        assert_eq!((&reply["error"], &reply["code"]), (&json!(error), &json!("backend_unavailable")));
    }
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    assert_eq!(world.health("y"), None);
    assert!(world.events.is_empty());
}

#[test]
fn after_a_failed_group_the_store_is_made_to_hold_what_the_core_holds() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", register("y", "web"));
    world.ask("b", deregister("x"));
    world.group();
    world.outcome(Err(failed()));
    assert_eq!(world.next_group(), None, "a failing store is given time");
    world.pass(200);
    let mut restored = world.store();
    restored.sort_by_key(|change| change.id() != "y");
    assert_eq!(restored.len(), 2);
    assert!(matches!(&restored[0], Change::Remove(remove) if remove.id == "y"), "{restored:?}");
    assert!(matches!(&restored[1], Change::Put(put) if put.record.id == "x"), "{restored:?}");
}

#[test]
fn whoever_waits_too_long_is_told_and_a_change_that_lands_later_is_taken_back() {
    let mut world = World::new();
    world.ask("a", register("x", "web"));
    let group = world.group();
    world.pass(399);
    assert_eq!(world.reply("a"), None);
    world.pass(1);
    assert_eq!(world.reply("a").unwrap()["code"], "backend_unavailable");
    world.accept(&group);
    assert_eq!(world.reply("a"), None, "a request is answered once");
    assert_eq!(world.health("x"), None);
    assert!(world.events.is_empty());
    assert!(matches!(&world.group()[..], [Change::Remove(remove)] if remove.id == "x"));
}

#[test]
fn an_update_that_lands_too_late_is_taken_back_to_the_old_record() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", register("x", "mail"));
    let group = world.group();
    world.pass(400);
    world.accept(&group);
    let restored = world.store();
    assert!(matches!(&restored[..], [Change::Put(put)] if put.record.types == ["web"]), "{restored:?}");
    assert_eq!(world.discover("web").as_deref(), Some("x"));
}

#[test]
fn reads_and_renewals_are_answered_while_the_store_hangs() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", register("y", "web"));
    world.group();
    world.pass(10_000);
    for request in [
        renew("x"),
        json!({"action": "get", "service_id": "x"}),
        json!({"action": "discover", "service_type": "web"}),
        json!({"action": "list"}),
        json!({"action": "info"}),
        json!({"action": "health"}),
    ] {
        world.ask("b", request.clone());
        assert!(world.reply("b").is_some(), "{request} waits for the store");
    }
}

#[test]
fn health_is_the_hosts_and_tells_the_state_of_the_storage_beside() {
    let mut world = World::new();
    let state = |world: &mut World| {
        let health = world.call(json!({"action": "health"}));
        assert_eq!((&health["success"], &health["status"]), (&json!(true), &json!("ok")));
        assert_eq!(world.call(json!({"action": "info"}))["backend"], health["backend"]);
        (health["backend"]["state"].as_str().unwrap().to_string(), health["backend"]["error"].clone())
    };
    let state_of = |name: &str| (name.to_string(), Value::Null);
    assert_eq!(state(&mut world), state_of("ok"));
    world.ask("a", register("x", "web"));
    world.group();
    world.pass(5_000);
    assert_eq!(state(&mut world), state_of("ok"));
    world.pass(1);
    assert_eq!(state(&mut world), state_of("stalled"));
    world.outcome(Err(failed()));
    assert_eq!(state(&mut world), ("failing".to_string(), json!("the disk is full")));
    world.pass(1000);
    world.store();
    assert_eq!(state(&mut world), state_of("ok"));
}

#[test]
fn changes_of_one_id_are_made_in_order_and_in_one_group() {
    let mut world = World::new();
    world.ask("a", register("x", "web"));
    world.ask("b", deregister("x"));
    world.ask("c", register("x", "mail"));
    let group = world.group();
    let revisions: Vec<u64> = group.iter().filter_map(revision).collect();
    assert_eq!(revisions, [1, 2, 3]);
    world.accept(&group);
    for caller in ["a", "b", "c"] {
        assert_eq!(world.reply(caller).unwrap()["success"], true);
    }
    let expected = [event("register", "x", 1), event("deregister", "x", 2), event("register", "x", 3)];
    assert_eq!(world.take_events(), expected);
    assert_eq!(world.discover("mail").as_deref(), Some("x"));
}

fn revision(change: &Change) -> Option<u64> {
    match change {
        Change::Put(put) => Some(put.record.revision),
        Change::Remove(remove) => Some(remove.revision),
        _ => None,
    }
}

#[test]
fn a_refusal_that_rests_on_a_change_under_way_waits_for_what_becomes_of_it() {
    for is_refused in [false, true] {
        let mut world = World::new();
        world.register("x", "web");
        world.ask("a", deregister("x"));
        world.ask("b", deregister("x"));
        let group = world.group();
        assert_eq!(group.len(), 1);
        assert_eq!(world.reply("b"), None, "nobody knows yet");
        if is_refused {
            world.outcome(Ok(vec![Outcome::Refused(failed())]));
            assert_eq!(world.reply("a").unwrap()["code"], "backend_refused");
            assert_eq!(world.reply("b"), None);
            assert_eq!(world.store().len(), 1);
            assert_eq!(world.reply("b").unwrap()["success"], true);
        } else {
            world.accept(&group);
            assert_eq!(world.reply("a").unwrap()["success"], true);
            assert_eq!(world.reply("b").unwrap()["code"], "deregistered");
        }
    }
}

#[test]
fn a_refused_change_leaves_a_gap_that_no_event_understates() {
    let mut world = World::new();
    world.register("w", "web");
    for id in ["x", "y", "z"] {
        world.ask("a", register(id, "web"));
    }
    world.group();
    world.outcome(Ok(vec![Outcome::Done, Outcome::Refused(failed()), Outcome::Done]));
    let numbers = |event: &Value| (event["revision"].as_u64().unwrap(), event["previous"].as_u64().unwrap());
    let numbers: Vec<_> = world.events.iter().map(numbers).collect();
    assert_eq!(numbers, [(1, 0), (2, 1), (4, 2)]);
    assert_eq!(world.call(json!({"action": "list"}))["revision"], 4);
}

#[test]
fn what_is_taken_back_is_named_to_a_store_with_history_by_its_revision() {
    let mut world = World::on(policy(), Promises { history: true, ..Promises::default() });
    world.register("x", "web");
    world.ask("a", register("x", "mail"));
    let group = world.group();
    world.pass(400);
    world.accept(&group);
    let group = world.registry.next_group(world.now, &mut world.out).expect("there is something to take back");
    assert_eq!((group.undone, group.position.revision), (vec![2], 2));
    assert!(matches!(&group.changes[..], [Change::Put(put)] if put.record.revision == 1 && put.event.is_empty()));
}

#[test]
fn changes_of_different_ids_go_in_one_group() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        world.ask("client", register(id, "web"));
    }
    assert_eq!(world.group().len(), 3);
}

#[test]
fn the_next_group_gathers_while_one_is_under_way() {
    let mut world = World::new();
    world.ask("a", register("a", "web"));
    let first = world.group();
    world.ask("b", register("b", "web"));
    world.ask("c", register("c", "web"));
    assert_eq!(world.next_group(), None);
    world.accept(&first);
    assert_eq!(world.group().len(), 2);
}

#[test]
fn a_record_that_the_store_has_lost_is_stored_again() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(renew("x"));
    world.pass(1000);
    world.group();
    world.outcome(Ok(vec![Outcome::Missing]));
    assert!(matches!(&world.store()[..], [Change::Put(put)] if put.record.id == "x"));
}

#[test]
fn a_registration_is_overtaken_by_nobody_but_may_be_refused_when_too_many_wait() {
    let mut world = World::with(Policy { pending_changes_max: 2, ..policy() });
    world.ask("a", register("x", "web"));
    world.group();
    world.ask("b", register("y", "web"));
    world.ask("c", register("z", "web"));
    assert_eq!(world.reply("c").unwrap()["code"], "overloaded");
    world.pass(400);
    world.ask("d", register("z", "web"));
    assert_eq!(world.reply("d"), None, "whoever has given up waits no longer");
}

/// A registration that is about so long, in bytes.
fn long(id: &str, bytes: usize) -> Value {
    let mut request = register(id, "web");
    request["service_info"]["note"] = "x".repeat(bytes).into();
    request
}

#[test]
fn registrations_that_wait_may_be_so_long_together() {
    let mut world = World::with(Policy { pending_bytes_max: 20_500, ..policy() });
    world.ask("a", long("a", 6000));
    let group = world.group();
    world.ask("b", long("b", 6000));
    let reply = world.reply("b").expect("it is refused at once");
    assert_eq!((&reply["code"], &reply["error"]), (&json!("overloaded"), &json!("Failed to register service")));
    world.ask("c", long("c", 3000));
    assert_eq!(world.reply("c"), None, "there is room for this one");
    world.accept(&group);
    world.store();
    assert_eq!(world.call(long("b", 6000))["success"], true, "nothing waits any longer");
    assert_eq!(world.call(long("d", 50_000))["success"], true, "one fits always");
}

#[test]
fn whoever_has_given_up_waits_with_no_bytes() {
    let mut world = World::with(Policy { pending_bytes_max: 20_000, ..policy() });
    world.ask("a", long("a", 6000));
    world.group();
    world.pass(400);
    assert_eq!(world.reply("a").unwrap()["code"], "backend_unavailable");
    world.ask("b", long("b", 6000));
    assert_eq!(world.reply("b"), None);
}

#[test]
fn services_may_be_so_long_together() {
    let mut world = World::with(Policy { services_bytes_max: 25_000, ..policy() });
    for id in ["a", "b", "c"] {
        assert_eq!(world.call(long(id, 3000))["success"], true, "{id}");
    }
    let reply = world.call(long("d", 3000));
    assert_eq!(reply["code"], "overloaded");
    assert!(reply["message"].as_str().unwrap().contains("limits.services_bytes"), "{reply}");
    assert_eq!(world.call(long("a", 3000))["success"], true, "as long as before");
    assert_eq!(world.call(long("a", 6000))["code"], "overloaded", "longer than before");
    assert_eq!(world.call(long("a", 10))["success"], true);
    assert_eq!(world.call(long("d", 2000))["success"], true, "there is room again");
    world.call(deregister("b"));
    assert_eq!(world.call(long("a", 3000))["success"], true);
}

#[test]
fn records_in_doubt_wait_for_the_store_like_changes_of_clients() {
    let mut world = World::with(Policy { pending_changes_max: 2, ..policy() });
    for id in ["x", "y"] {
        world.ask("a", register(id, "web"));
        world.group();
        world.outcome(Err(failed()));
        assert_eq!(world.reply("a").unwrap()["code"], "backend_unavailable");
    }
    world.ask("b", register("z", "web"));
    assert_eq!(world.reply("b").unwrap()["code"], "overloaded");
    world.pass(200);
    world.store();
    assert_eq!(world.register("z", "web")["success"], true);
}

#[test]
fn what_a_failed_group_may_have_left_behind_is_in_nobodys_way() {
    let mut world = World::new();
    world.ask("a", singleton("x", "web"));
    world.group();
    world.outcome(Err(failed()));
    world.ask("b", singleton("y", "web"));
    // Had `x` been stored after all, the store would find that the type is taken.
    let group = world.group();
    assert!(
        matches!(&group[..], [Change::Remove(remove), Change::Put(put)] if remove.id == "x" && put.record.id == "y"),
        "{group:?}"
    );
    world.accept(&group);
    assert_eq!(world.reply("b").unwrap()["success"], true);
}

#[test]
fn terminate_is_the_operators_to_allow() {
    let mut world = World::new();
    assert_eq!(world.call(json!({"action": "terminate"}))["code"], "forbidden");
    assert!(!world.out.terminate);
    let mut world = World::with(Policy { allow_terminate: true, ..policy() });
    assert_eq!(world.call(json!({"action": "terminate"}))["status"], "terminating");
    assert!(world.out.terminate);
}

#[test]
fn nothing_is_left_to_do_once_everything_is_stored() {
    let mut world = World::new();
    world.register("x", "web");
    assert!(world.registry.is_idle());
    world.call(renew("x"));
    assert!(!world.registry.is_idle());
    world.registry.hurry();
    world.store();
    assert!(world.registry.is_idle());
    assert!(world.registry.wake_at_ms() >= world.now.uptime_ms);
}

#[test]
fn the_types_of_services_count_too() {
    let mut world = World::with(Policy { services_bytes_max: 25_000, ..policy() });
    let tagged = |id: &str| {
        let mut request = register(id, "web");
        request["service_info"]["tags"] = (0..100).map(|tag| format!("t{tag}")).collect();
        request
    };
    assert_eq!(world.call(tagged("a"))["success"], true);
    assert_eq!(world.call(tagged("b"))["code"], "overloaded", "100 short tags take more than their text");
    assert_eq!(world.register("b", "web")["success"], true);
}

#[test]
fn however_many_wishes_are_refused_each_group_looks_at_a_number_of_them() {
    let mut world = World::with(Policy { pending_changes_max: 10_000, ..policy() });
    for _ in 0..6000 {
        world.ask("client", deregister("unknown"));
    }
    assert_eq!(world.next_group(), None);
    assert!((1..6000).contains(&world.replies.len()), "{}", world.replies.len());
    assert_eq!(world.registry.wake_at_ms(), 0, "the rest does not wait");
    assert_eq!(world.next_group(), None);
    assert_eq!(world.replies.len(), 6000);
}

#[test]
fn failures_that_are_to_be_undone_wait_for_the_store_like_changes_of_clients() {
    let promises = Promises { history: true, ..Promises::default() };
    let mut world = World::on(Policy { pending_changes_max: 20, ..policy() }, promises);
    let mut refused = 0;
    for _ in 0..100 {
        world.ask("a", register("x", "web"));
        if world.next_group().is_some() {
            world.outcome(Err(failed()));
        }
        refused += usize::from(world.reply("a").is_some_and(|reply| reply["code"] == "overloaded"));
    }
    assert!(refused > 50, "one id must not gather failures without end, {refused} were refused");
    world.pass(200);
    let group = world.registry.next_group(world.now, &mut world.out).expect("it is mended");
    assert!((10..=20).contains(&group.undone.len()), "{:?}", group.undone);
}

#[test]
fn long_services_go_in_groups_that_are_not_too_long() {
    let mut world = World::with(Policy { services_bytes_max: 1 << 30, pending_bytes_max: 1 << 30, ..policy() });
    for number in 0..20 {
        world.call(long(&format!("s{number}"), 1 << 20));
    }
    world.pass(30_001);
    world.registry.clean_up(world.now);
    let first = world.group();
    assert!((1..10).contains(&first.len()), "{} of 1 MB each", first.len());
    world.accept(&first);
    world.store();
    assert!(world.registry.is_empty());
}

#[test]
fn a_wish_that_waited_for_the_group_does_not_overtake_an_earlier_one_of_its_id() {
    let mut world = World::new();
    world.ask("x", singleton("x", "web"));
    world.ask("y", singleton("y", "web"));
    world.ask("gone", deregister("y"));
    world.group();
    world.outcome(Ok(vec![Outcome::Refused(failed())]));
    world.store();
    assert_eq!(world.reply("y").unwrap()["success"], true);
    assert_eq!(world.reply("gone").unwrap()["success"], true);
    assert_eq!(world.health("y"), None);
}
