//! "There is nothing" is never "I cannot tell": a registry that starts, or whose storage fails, says so.

use super::*;

fn reads() -> [Value; 4] {
    [
        json!({"action": "get", "service_id": "x"}),
        json!({"action": "list"}),
        json!({"action": "discover", "service_type": "web"}),
        json!({"action": "info"}),
    ]
}

/// A world whose store has failed for the first time so long ago.
fn failing_since(ms: u64) -> World {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", register("y", "web"));
    world.group();
    world.outcome(Err(failed()));
    world.pass(ms);
    world
}

#[test]
fn a_registry_that_starts_says_so() {
    let mut world = World::new();
    world.registry = world.registry.starting();
    let reply = world.call(json!({"action": "health"}));
    let text = "The registry is starting, try again later";
    let expected = json!({"success": false, "error": text, "code": "starting", "status": "starting", "alive": true,
        "ready": false});
    assert_eq!(reply, expected);
    for request in reads().into_iter().chain([register("x", "web"), renew("x"), json!({"action": "terminate"})]) {
        let reply = world.call(request);
        assert_eq!(reply, json!({"success": false, "error": text, "code": "starting"}));
    }
}

#[test]
fn reads_say_for_how_long_the_storage_has_been_failing() {
    let mut world = World::new();
    world.register("x", "web");
    for request in reads() {
        assert!(world.call(request).get("stale_seconds").is_none());
    }
    let mut world = failing_since(1500);
    for mut request in reads() {
        assert_eq!(world.call(request.clone())["stale_seconds"], json!(1.5), "{request}");
        request["service_id"] = "nobody".into();
        request["service_type"] = "nothing".into();
        assert_eq!(world.call(request.clone())["stale_seconds"], json!(1.5), "{request}");
    }
    assert!(world.call(renew("x")).get("stale_seconds").is_none(), "a heartbeat is no read");
    world.group();
    world.outcome(Err(failed()));
    world.pass(500);
    assert_eq!(world.call(reads()[0].clone())["stale_seconds"], json!(2.0), "since the first failure");
    world.store();
    assert!(world.call(reads()[0].clone()).get("stale_seconds").is_none(), "it works again");
}

#[test]
fn a_storage_that_does_not_answer_makes_stale_too() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", register("y", "web"));
    world.group();
    world.pass(5000);
    assert!(world.call(reads()[1].clone()).get("stale_seconds").is_none(), "as long as a call may take");
    world.pass(1);
    let reply = world.call(reads()[1].clone());
    assert_eq!(reply["stale_seconds"].to_string(), "5.001");
    let health = world.call(json!({"action": "health"}));
    assert_eq!((&health["ready"], &health["not_ready"]), (&json!(false), &json!(["storage stalled"])));
}

#[test]
fn who_wants_to_know_it_better_is_told_that_it_is_stale() {
    for mut request in reads() {
        let mut world = failing_since(1500);
        request["max_stale"] = json!(1.5);
        assert_eq!(world.call(request.clone())["success"], true, "{request}");
        request["max_stale"] = json!(1.4);
        let reply = world.call(request.clone());
        assert_eq!((&reply["success"], &reply["code"]), (&json!(false), &json!("stale")), "{request}");
        assert_eq!(reply["stale_seconds"].to_string(), "1.5");
        world.pass(200);
        world.store();
        request["max_stale"] = json!(0);
        assert_eq!(world.call(request.clone())["success"], true, "{request}");
    }
}

#[test]
fn who_waits_is_held_to_what_it_said_when_it_is_answered() {
    let wait = |action: &str, more: Value| {
        let mut request = json!({"action": action, "service_type": "later", "wait": 2, "max_stale": 1});
        more.as_object().unwrap().iter().for_each(|(key, value)| request[key] = value.clone());
        request
    };
    let begin = |world: &mut World| {
        world.register("x", "web");
        world.ask("discovers", wait("discover", json!({})));
        world.ask("watches", wait("watch", json!({})));
        world.ask("does not mind", wait("watch", json!({"max_stale": null})));
        world.ask("fails", register("y", "web"));
        world.group();
        world.outcome(Err(failed()));
    };
    // Their time is up, or the host's.
    for is_ending in [false, true] {
        let mut world = World::new();
        begin(&mut world);
        world.pass(if is_ending { 1001 } else { 2000 });
        if is_ending {
            world.registry.end_watches();
            world.registry.dismiss_waiting(&mut world.out);
            world.pass(0);
        }
        for caller in ["discovers", "watches"] {
            let reply = world.reply(caller).unwrap();
            assert_eq!((&reply["success"], &reply["code"]), (&json!(false), &json!("stale")), "{caller}: {reply}");
            assert!(reply["stale_seconds"].as_f64().unwrap() > 1.0, "{caller}: {reply}");
        }
        assert_eq!(world.reply("does not mind").unwrap()["changes"], json!([]));
    }
    // Or what they wait for comes, from the store as it was or by an expiry that is still to be written.
    let mut world = World::new();
    begin(&mut world);
    world.pass(1001);
    world.registry.load(stored("z", "later"), world.now).unwrap();
    world.now.uptime_ms += 30_001;
    world.now.unix_ms += 30_001;
    world.ask("r", renew("z"));
    world.take_output();
    assert_eq!(world.reply("discovers").unwrap()["code"], "stale");
    // In time it is an answer like any other.
    let mut world = World::new();
    begin(&mut world);
    world.pass(400);
    world.store();
    world.register("z", "later");
    world.pass(0);
    assert_eq!(world.reply("discovers").unwrap()["service"]["id"], "z");
    assert_eq!(world.reply("watches").unwrap()["changes"][0]["data"]["service_id"], "z");
}

#[test]
fn a_search_and_a_choice_of_the_store_are_held_to_it_too() {
    let mut world = World::on(policy(), Promises { balances: true, ..Promises::default() });
    for number in 0..5000 {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    world.ask("chosen", json!({"action": "discover", "service_type": "web", "max_stale": 0.1}));
    world.ask("searched", json!({"action": "discover", "service_type": "web", "version": "1", "max_stale": 0.1}));
    world.ask("fails", register("y", "web"));
    world.group();
    world.outcome(Err(failed()));
    world.now.uptime_ms += 101;
    world.pass(0);
    let ticket = world.queries.remove(0);
    world.registry.chosen(ticket, Some("s1".into()), world.now, &mut world.out);
    while world.registry.is_searching() {
        world.pass(0);
    }
    world.take_output();
    for caller in ["chosen", "searched"] {
        assert_eq!(world.reply(caller).unwrap()["code"], "stale", "{caller}");
    }
}

#[test]
fn a_long_list_says_so_too() {
    let mut world = failing_since(1500);
    for number in 0..1000 {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    world.ask("list", reads()[1].clone());
    assert!(world.registry.has_lists());
    while world.registry.has_lists() {
        world.registry.continue_lists(true, world.now, &mut world.out);
    }
    world.take_output();
    assert_eq!(world.reply("list").unwrap()["stale_seconds"], json!(1.5));
}

#[test]
fn health_tells_ready_from_alive() {
    let mut world = failing_since(100);
    let reply = world.call(json!({"action": "health"}));
    assert_eq!((&reply["success"], &reply["status"]), (&json!(true), &json!("ok")), "for old clients");
    assert_eq!((&reply["alive"], &reply["ready"]), (&json!(true), &json!(false)));
    assert_eq!(reply["not_ready"], json!(["storage failing"]));
    world.pass(200);
    world.store();
    let reply = world.call(json!({"action": "health"}));
    assert_eq!((&reply["alive"], &reply["ready"], reply.get("not_ready")), (&json!(true), &json!(true), None));
}

#[test]
fn who_waits_when_the_host_gives_up_is_told() {
    let mut world = World::new();
    world.ask("a", register("x", "web"));
    world.ask("b", deregister("y"));
    world.registry.give_up_all(world.now, &mut world.out);
    world.take_output();
    for caller in ["a", "b"] {
        assert_eq!(world.reply(caller).unwrap()["code"], "backend_unavailable", "{caller}");
    }
    assert!(world.registry.is_idle());
}

#[test]
fn lists_follow_each_other_without_a_pause() {
    let mut world = World::new();
    for number in 0..1000 {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    world.ask("all", json!({"action": "list"}));
    world.ask("web", json!({"action": "list", "service_type": "web"}));
    world.registry.continue_lists(true, world.now, &mut world.out);
    while world.registry.has_lists() {
        assert!(world.registry.is_making_list() && world.registry.wake_at_ms() == 0);
        world.registry.continue_lists(true, world.now, &mut world.out);
    }
    world.take_output();
    assert!(world.reply("all").is_some() && world.reply("web").is_some());
}
