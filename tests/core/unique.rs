//! Service types that have to be unique.

use super::*;

#[test]
fn two_singletons_of_one_type_at_the_same_time_end_with_one() {
    let mut world = World::new();
    world.ask("a", singleton("x", "web"));
    world.ask("b", singleton("y", "web"));
    world.store();
    assert_eq!(world.reply("a").unwrap()["success"], true);
    let refusal = world.reply("b").unwrap();
    assert_eq!(refusal["error"], "duplicate_service_type");
    assert_eq!(refusal["message"], "Service type 'web' is already registered by service_id 'x'.");
    assert_eq!((&refusal["service_type"], &refusal["existing_service_id"]), (&json!("web"), &json!("x")));
}

#[test]
fn a_singleton_waits_for_a_deregistration_of_its_type_that_is_under_way() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", deregister("x"));
    world.ask("b", singleton("y", "web"));
    world.store();
    assert_eq!(world.reply("b").unwrap()["success"], true);
}

#[test]
fn a_singleton_does_not_conflict_with_itself_nor_with_the_expired() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(20_000);
    assert_eq!(world.call(singleton("y", "web"))["error"], "duplicate_service_type");
    world.pass(10_001);
    world.take_events();
    assert_eq!(world.call(singleton("y", "web"))["success"], true);
    assert_eq!(world.take_events(), [event("expire", "x", 2), event("register", "y", 3)]);
    assert_eq!(world.call(singleton("y", "web"))["success"], true);
}

#[test]
fn the_servers_policy_makes_types_unique_unless_a_service_allows_duplicates() {
    let mut world = World::with(Policy { enforce_unique_service_types: true, ..policy() });
    world.register("x", "web");
    assert_eq!(world.register("y", "web")["error"], "duplicate_service_type");
    let mut request = register("y", "web");
    request["service_info"]["allow_duplicate_service_type"] = true.into();
    assert_eq!(world.call(request.clone())["success"], true);
    request["service_info"]["singleton"] = true.into();
    let refusal = world.call(request);
    assert_eq!(refusal["error"], "invalid_service_type_policy");
    assert_eq!(refusal["message"], "singleton and allow_duplicate_service_type cannot both be true.");
}

#[test]
fn a_service_that_is_heard_of_while_a_singleton_takes_its_place_keeps_it() {
    for is_sent in [false, true] {
        let mut world = World::new();
        world.register("x", "web");
        world.ask("other", register("other", "mail"));
        let busy = world.group();
        world.pass(30_001);
        world.take_events();
        world.ask("y", singleton("y", "web"));
        let first = if is_sent {
            world.accept(&busy);
            world.group()
        } else {
            busy
        };
        assert_eq!(world.call(renew("x"))["success"], true);
        world.accept(&first);
        world.store();
        assert_eq!(world.reply("y").unwrap()["error"], "duplicate_service_type", "sent: {is_sent}");
        assert_eq!(world.health("x").as_deref(), Some("passing"));
        assert_eq!(world.health("y"), None);
        assert!(world.take_events().iter().all(|(_, id, _)| id == "other"));
    }
}

#[test]
fn a_singleton_waits_until_it_is_known_what_the_store_has_of_an_expired_one() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(30_001);
    world.registry.clean_up(world.now);
    world.group();
    world.outcome(Err(failed()));
    world.take_events();
    world.ask("y", singleton("y", "web"));
    world.pass(200);
    world.store();
    assert_eq!(world.reply("y").unwrap()["success"], true);
    let events: Vec<_> = world.take_events().into_iter().map(|(kind, id, _)| (kind, id)).collect();
    let expected = [("expire", "x"), ("register", "y")].map(|(kind, id)| (kind.to_string(), id.to_string()));
    assert_eq!(events, expected);
}

/// A world with so many services of the type `web`, all of them critical.
fn crowded(services: usize) -> World {
    let mut world = World::new();
    for number in 0..services {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    world.pass(30_001);
    world
}

#[test]
fn a_singleton_waits_until_all_that_have_run_out_have_made_way_and_holds_up_nobody_else() {
    let mut world = crowded(3000);
    world.ask("y", singleton("y", "web"));
    world.ask("after", deregister("y"));
    let first = world.group();
    assert!(first.len() <= 1024, "{}", first.len());
    world.ask("other", register("other", "mail"));
    world.accept(&first);
    assert_eq!(world.reply("y"), None);
    let second = world.group();
    assert!(second.iter().any(|change| change.id() == "other"), "others have their part of each group");
    world.accept(&second);
    world.store();
    assert_eq!(world.reply("y").unwrap()["success"], true);
    assert_eq!(world.reply("after").unwrap()["success"], true, "what comes for its id waits behind it");
    assert_eq!(world.reply("other").unwrap()["success"], true);
    let kinds: Vec<String> = world.take_events().into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "expire").count(), 3000);
    assert_eq!(world.registry.len(), 1);
}

#[test]
fn a_singleton_that_has_waited_too_long_lets_go_what_waits_behind_it() {
    let mut world = crowded(3000);
    world.ask("y", singleton("y", "web"));
    let first = world.group();
    world.pass(200);
    world.ask("after", register("y", "mail"));
    world.pass(200);
    assert_eq!(world.reply("y").unwrap()["code"], "backend_unavailable");
    world.accept(&first);
    world.store();
    assert_eq!(world.reply("after").unwrap()["success"], true);
}

#[test]
fn who_comes_back_before_it_has_made_way_keeps_its_type() {
    let mut world = crowded(3000);
    world.ask("y", singleton("y", "web"));
    let first = world.group();
    let back = (0..3000).map(|number| format!("s{number}"));
    let back = back.into_iter().find(|id| first.iter().all(|change| change.id() != id)).unwrap();
    world.call(renew(&back));
    world.accept(&first);
    world.store();
    let refusal = world.reply("y").unwrap();
    assert_eq!((&refusal["code"], &refusal["existing_service_id"]), (&json!("duplicate_service_type"), &json!(back)));
}

#[test]
fn a_type_that_is_freed_and_taken_in_one_group_goes_to_the_first() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("x", deregister("x"));
    world.ask("y", singleton("y", "web"));
    world.ask("z", singleton("z", "web"));
    let group = world.group();
    assert_eq!(group.iter().map(Change::id).collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(world.reply("z"), None, "it is not known yet whether y gets it");
    world.outcome(Ok(vec![Outcome::Done, Outcome::Refused(failed())]));
    assert_eq!(world.reply("y").unwrap()["code"], "backend_refused");
    world.store();
    assert_eq!(world.reply("z").unwrap()["success"], true);
}

#[test]
fn a_service_at_the_very_end_of_its_ttl_has_its_type_still() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(30_000);
    assert_eq!(world.call(singleton("y", "web"))["error"], "duplicate_service_type");
    world.pass(1);
    assert_eq!(world.call(singleton("y", "web"))["success"], true);
}

#[test]
fn who_is_leaving_anyway_makes_way_once() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        world.register(id, "web");
    }
    world.pass(30_001);
    world.ask("b", deregister("b"));
    world.ask("y", singleton("y", "web"));
    let group = world.group();
    let mut ids: Vec<_> = group.iter().map(Change::id).collect();
    ids[1..3].sort_unstable();
    assert_eq!(ids, ["b", "a", "c", "y"]);
    world.accept(&group);
    assert_eq!(world.reply("b").unwrap()["success"], true);
    assert_eq!(world.reply("y").unwrap()["success"], true);
    assert!(world.registry.is_idle());
}

#[test]
fn a_type_whose_last_service_the_store_does_not_remove_is_not_free() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(30_001);
    world.ask("y", singleton("y", "web"));
    assert_eq!(world.group().len(), 2);
    world.outcome(Ok(vec![Outcome::Refused(failed()), Outcome::Done]));
    let refusal = world.reply("y").unwrap();
    let expected = "\"x\" has run out, and the storage does not remove it";
    assert_eq!((&refusal["code"], &refusal["message"]), (&json!("backend_refused"), &json!(expected)));
    assert_eq!((world.health("x").as_deref(), world.health("y")), (Some("critical"), None));
    assert!(matches!(&world.group()[..], [Change::Remove(remove)] if remove.id == "y"), "it is taken back");
}

#[test]
fn who_takes_a_type_need_not_make_way_itself_and_others_do() {
    // `y` was of another type and has run out as well; or it is of the type, and was heard of.
    for (before, is_heard_of) in [("mail", false), ("web", true)] {
        let mut world = World::new();
        world.register("x", "web");
        world.register("y", before);
        world.pass(20_000);
        if is_heard_of {
            world.call(renew("y"));
        }
        world.pass(10_001);
        world.ask("y", singleton("y", "web"));
        let group = world.group();
        assert_eq!(group.iter().map(Change::id).collect::<Vec<_>>(), ["x", "y"], "{before}");
        world.accept(&group);
        assert_eq!(world.reply("y").unwrap()["success"], true, "{before}");
    }
}

#[test]
fn the_host_does_not_sleep_while_somebody_is_to_make_way_and_sleeps_afterwards() {
    let mut world = crowded(1500);
    world.ask("y", singleton("y", "web"));
    world.ask("after", register("y", "web"));
    for _ in 0..2 {
        let group = world.group();
        world.accept(&group);
        assert_eq!(world.registry.wake_at_ms(), 0);
    }
    world.store();
    assert_eq!(world.reply("after").unwrap()["success"], true);
    assert!(world.registry.is_idle());
    world.pass(400);
    world.clean_up();
    assert_eq!(world.registry.wake_at_ms(), world.now.uptime_ms + 10_000);
}
