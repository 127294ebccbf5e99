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
