//! Generations, and what is known of services that are no more.

use registry_host::protocol::event::EventKind;
use registry_host::registry::Cause;

use super::*;

fn get(id: &str) -> Value {
    json!({"action": "get", "service_id": id})
}

/// The request, for one generation only.
fn named(mut request: Value, generation: u64) -> Value {
    request["generation"] = generation.into();
    request
}

fn generation(reply: &Value) -> u64 {
    reply["generation"].as_u64().unwrap_or_else(|| panic!("no generation: {reply}"))
}

#[test]
fn a_registration_has_a_generation_that_nothing_but_the_next_one_changes() {
    let mut world = World::new();
    let first = generation(&world.register("x", "web"));
    assert!(first >= world.now.unix_ms);
    assert_eq!(world.events[0]["data"]["service_info"]["generation"], first);
    world.call(renew("x"));
    world.pass(31_000);
    world.call(renew("x"));
    assert_eq!(world.call(get("x"))["service"]["generation"], first);
    let mut again = register("x", "web");
    again["service_info"]["generation"] = 5.into();
    let second = generation(&world.call(again));
    assert!(second > first, "it is not the client's to say");
    assert_eq!(world.call(get("x"))["service"]["generation"], second);
}

#[test]
fn no_generation_comes_twice_whatever_the_wall_clock_says() {
    let mut world = World::new();
    let mut seen = vec![0];
    for back_ms in [0, 0, 1, 3_600_000, 0] {
        world.now.unix_ms -= back_ms;
        world.ask("a", register("x", "web"));
        world.ask("b", deregister("x"));
        world.ask("c", register("x", "web"));
        world.store();
        for caller in ["a", "c"] {
            let next = generation(&world.reply(caller).unwrap());
            assert!(next > *seen.last().unwrap(), "{next} after {seen:?}");
            seen.push(next);
        }
    }
}

#[test]
fn generations_go_on_where_the_store_has_them() {
    let mut world = World::new();
    let first = generation(&world.register("x", "web"));
    world.ask("a", register("x", "mail"));
    let stored = world.store().into_iter().find_map(|change| match change {
        Change::Put(put) => Some(put.record),
        _ => None,
    });
    let stored = stored.expect("it was stored");
    let second = generation(&world.reply("a").unwrap());
    assert!(second > first);
    let mut after = World::new();
    // The clock was set back meanwhile.
    after.now.unix_ms -= 3_600_000;
    after.registry.load(stored, after.now).unwrap();
    assert_eq!(after.call(get("x"))["service"]["generation"], second);
    assert_eq!(after.call(named(renew("x"), first))["code"], "replaced");
    assert_eq!(after.call(named(renew("x"), second))["success"], true);
    assert!(generation(&after.register("y", "web")) > second);
    assert!(generation(&after.register("x", "web")) > second + 1);
}

/// A backup was restored, or an old file put in place of the store: whoever has registered since has to do so again. That it
/// were replaced would end it for good.
#[test]
fn a_generation_after_the_one_that_is_stored_is_unknown_until_there_is_another() {
    let mut world = World::new();
    let mut record = stored("x", "web");
    record.document = record.document.replace('{', "{\"generation\":100,");
    world.registry.load(record, world.now).unwrap();
    let update = json!({"action": "update", "service_id": "x", "metadata": {"a": 1}});
    for request in [renew("x"), update.clone(), deregister("x")] {
        assert_eq!(world.call(named(request.clone(), 99))["code"], "replaced", "{request}");
        assert_eq!(world.call(named(request.clone(), 101))["code"], "not_found", "{request}");
    }
    let many = json!({"action": "renew", "services": [{"service_id": "x", "generation": 101}]});
    assert_eq!(world.call(many)["failed"][0]["code"], "not_found");
    assert_eq!(world.call(named(update.clone(), 100))["success"], true);
    assert_eq!(world.call(named(renew("x"), 101))["code"], "not_found", "it is the one that was stored all the same");
    let next = generation(&world.register("x", "web"));
    for request in [renew("x"), update, deregister("x")] {
        assert_eq!(world.call(named(request.clone(), 101))["code"], "replaced", "{request}");
        // No registry has given it.
        assert_eq!(world.call(named(request.clone(), next + 1))["code"], "replaced", "{request}");
    }
}

#[test]
fn a_record_without_a_generation_has_its_revision() {
    let mut world = World::new();
    let mut plain = stored("x", "web");
    plain.revision = 17;
    world.registry.load(plain, world.now).unwrap();
    let mut odd = stored("y", "web");
    odd.revision = 18;
    odd.document = odd.document.replace('{', "{\"generation\":\"first\",");
    world.registry.load(odd, world.now).unwrap();
    for (id, expected) in [("x", 17), ("y", 18)] {
        let service = world.call(get(id))["service"].clone();
        assert_eq!((&service["generation"], service.as_object().unwrap().len()), (&json!(expected), 9));
        assert_eq!(world.call(named(renew(id), expected))["success"], true);
    }
}

/// What clients can name ends at 2^53. A store of an older version, which kept what clients sent for it, can have any
/// number; and it must not be the last that there is.
#[test]
fn a_generation_that_no_registry_has_given_is_not_gone_on_from() {
    const GREATEST: u64 = (1 << 53) - 1;
    for odd in [(1 << 52) + 1, GREATEST, GREATEST + 1, u64::MAX] {
        let mut world = World::new();
        let mut record = stored("x", "web");
        record.revision = 17;
        record.document = record.document.replace('{', &format!("{{\"generation\":{odd},"));
        world.registry.load(record, world.now).unwrap();
        assert_eq!(world.call(get("x"))["service"]["generation"], 17, "{odd}");
        assert_eq!(world.call(named(renew("x"), 17))["success"], true, "{odd}");
        let next = generation(&world.register("y", "web"));
        assert!((world.now.unix_ms..world.now.unix_ms + (1 << 30)).contains(&next), "{odd}: {next}");
        // In what it has kept of changes, too.
        let rng = StdRng::seed_from_u64(7);
        let position = Position::new("e", 9);
        world.registry = Registry::new(policy(), Promises::default(), About::default(), position, rng);
        world.registry.begin_history(3);
        let service = format!("{{\"id\":\"x\",\"generation\":{odd}}}");
        let text = format!("{{\"type\":\"register\",\"timestamp\":7,\"types\":[],\"service\":{service}}}");
        world.registry.load_change(5, &text, world.now);
        world.registry.end_history();
        let next = generation(&world.register("y", "web"));
        assert!((world.now.unix_ms..world.now.unix_ms + (1 << 30)).contains(&next), "{odd}: {next}");
    }
    // The greatest that may be is one of more than a hundred thousand years from now.
    let mut world = World::new();
    let mut record = stored("x", "web");
    record.document = record.document.replace('{', &format!("{{\"generation\":{},", GREATEST / 2));
    world.registry.load(record, world.now).unwrap();
    let next = generation(&world.register("y", "web"));
    assert!((GREATEST / 2 + 1..GREATEST).contains(&next), "{next}");
    assert_eq!(world.call(named(renew("y"), next))["success"], true);
}

#[test]
fn an_old_process_neither_renews_nor_removes_the_new_one() {
    let mut world = World::new();
    let first = generation(&world.register("x", "web"));
    let second = generation(&world.register("x", "web"));
    world.take_events();
    world.pass(20_000);
    let patch = json!({"action": "update", "service_id": "x", "metadata": {"a": 1}});
    for (request, error) in [
        (renew("x"), "Service not found or could not be renewed"),
        (deregister("x"), "Service not found or could not be deregistered"),
        (patch.clone(), "Service not found or could not be updated"),
    ] {
        let reply = world.call(named(request, first));
        assert_eq!((&reply["code"], &reply["error"]), (&json!("replaced"), &json!(error)), "{reply}");
    }
    assert!(world.take_events().is_empty());
    world.pass(10_001);
    assert_eq!(world.health("x").as_deref(), Some("critical"), "it was not renewed");
    for request in [renew("x"), patch, deregister("x")] {
        assert_eq!(world.call(named(request, second))["success"], true);
    }
}

#[test]
fn whether_a_generation_is_the_current_one_is_seen_when_what_came_before_is_done() {
    for is_refused in [false, true] {
        let mut world = World::new();
        let first = generation(&world.register("x", "web"));
        world.ask("new", register("x", "web"));
        world.ask("old", named(deregister("x"), first));
        let group = world.group();
        assert_eq!(group.len(), 1);
        assert_eq!(world.reply("old"), None, "nobody knows yet");
        if is_refused {
            world.outcome(Ok(vec![Outcome::Refused(failed())]));
            world.store();
            assert_eq!(world.reply("old").unwrap()["success"], true);
            assert_eq!(world.health("x"), None);
        } else {
            world.accept(&group);
            assert_eq!(world.reply("old").unwrap()["code"], "replaced");
            assert_eq!(world.health("x").as_deref(), Some("passing"));
        }
    }
}

#[test]
fn what_was_to_be_there_and_is_not_is_not_removed_in_its_place() {
    let mut world = World::new();
    let first = generation(&world.register("x", "web"));
    // A guess of what the next one will get.
    world.ask("new", register("x", "web"));
    world.ask("guess", named(deregister("x"), first + 1));
    let group = world.group();
    assert_eq!(group.len(), 2);
    world.outcome(Ok(vec![Outcome::Refused(failed()), Outcome::Done]));
    assert_eq!(world.reply("guess").unwrap()["code"], "replaced");
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    assert!(world.store().iter().any(|change| matches!(change, Change::Put(put) if put.record.id == "x")));
    assert_eq!(world.call(named(renew("x"), first))["success"], true);
}

#[test]
fn a_registration_that_is_taken_back_leaves_the_generation_before_it() {
    let mut world = World::new();
    let first = generation(&world.register("x", "web"));
    world.ask("late", register("x", "web"));
    let group = world.group();
    world.pass(400);
    world.accept(&group);
    let restored = world.store();
    let document = restored.iter().find_map(|change| match change {
        Change::Put(put) => Some(put.record.document.clone()),
        _ => None,
    });
    assert!(document.unwrap().contains(&format!("\"generation\":{first}")));
    assert_eq!(world.call(named(renew("x"), first))["success"], true);
}

#[test]
fn many_are_renewed_by_one_message_and_those_that_fail_are_listed() {
    let mut world = World::new();
    let first = generation(&world.register("x", "web"));
    world.register("y", "web");
    world.register("gone", "web");
    world.call(deregister("gone"));
    world.pass(20_000);
    let services =
        json!(["y", {"service_id": "x", "generation": first}, {"service_id": "y", "generation": 1}, "gone", "z"]);
    let reply = world.call(json!({"action": "renew", "services": services}));
    let error = "Service not found or could not be renewed";
    let failed = json!([
        {"service_id": "y", "code": "replaced", "error": error},
        {"service_id": "gone", "code": "deregistered", "error": error},
        {"service_id": "z", "code": "not_found", "error": error},
    ]);
    assert_eq!(reply, json!({"success": true, "renewed": 2, "failed": failed}));
    world.pass(20_000);
    assert_eq!((world.health("x").as_deref(), world.health("y").as_deref()), (Some("passing"), Some("passing")));
    assert!(world.store().iter().filter(|change| matches!(change, Change::Renew(_))).count() == 2, "they are stored");
}

#[test]
fn who_still_beats_for_what_was_deregistered_is_told_so() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(deregister("x"));
    let patch = json!({"action": "update", "service_id": "x", "metadata": {"a": 1}});
    for (request, done) in [(renew("x"), "renewed"), (deregister("x"), "deregistered"), (patch, "updated")] {
        let reply = world.call(request);
        assert_eq!(reply["code"], "deregistered", "{reply}");
        assert_eq!(reply["error"], format!("Service not found or could not be {done}"));
    }
    world.pass(600_000);
    assert_eq!(world.call(renew("x"))["code"], "deregistered");
    world.pass(1);
    assert_eq!(world.call(renew("x"))["code"], "not_found");
}

#[test]
fn a_registration_ends_that_a_service_is_gone_and_so_does_nothing_else() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(deregister("x"));
    world.ask("a", register("x", "web"));
    world.group();
    assert_eq!(world.call(renew("x"))["code"], "deregistered", "it is not stored yet");
    world.outcome(Err(failed()));
    assert_eq!(world.call(renew("x"))["code"], "deregistered");
    world.pass(200);
    world.store();
    world.register("x", "web");
    world.pass(30_001);
    world.clean_up();
    assert_eq!(world.call(renew("x"))["code"], "not_found", "it has run out since");
}

#[test]
fn a_deregistration_of_which_nothing_came_is_none() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("late", deregister("x"));
    let group = world.group();
    world.pass(400);
    assert_eq!(world.reply("late").unwrap()["code"], "backend_unavailable");
    world.accept(&group);
    world.store();
    assert_eq!(world.call(renew("x"))["success"], true);
    world.ask("fails", deregister("x"));
    world.group();
    world.outcome(Err(failed()));
    world.pass(200);
    world.store();
    assert_eq!(world.call(renew("x"))["success"], true);
    world.pass(30_001);
    world.clean_up();
    assert_eq!(world.call(renew("x"))["code"], "not_found");
}

#[test]
fn what_was_deregistered_before_a_restart_is_known_from_what_the_store_has_kept() {
    let mut world = World::new();
    let now = world.now;
    let at = |seconds: u64| now.unix_ms - seconds * 1000;
    for (kind, id, seconds) in [
        (EventKind::Register, "x", 900),
        (EventKind::Deregister, "old", 601),
        (EventKind::Register, "y", 500),
        (EventKind::Deregister, "x", 400),
        (EventKind::Deregister, "y", 300),
        (EventKind::Register, "y", 200),
        (EventKind::Expire, "y", 100),
    ] {
        world.registry.note_past((kind, Cause::default()), id, at(seconds), now);
    }
    assert_eq!(world.call(renew("x"))["code"], "deregistered");
    for id in ["y", "old"] {
        assert_eq!(world.call(renew(id))["code"], "not_found", "{id}");
    }
    world.pass(200_001);
    assert_eq!(world.call(renew("x"))["code"], "not_found");
    let history = world.call(json!({"action": "history", "service_id": "y"}))["history"].clone();
    let what: Vec<&str> = history.as_array().unwrap().iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["registered", "deregistered", "registered", "expired"]);
    assert_eq!(history[3], json!({"timestamp": at(100) / 1000, "what": "expired"}));
    // No generation of then is given again.
    world.now.unix_ms = at(500);
    assert!(generation(&world.register("z", "web")) > at(100));
}
