//! Who is found, and who chooses: the host, or a store that has a say.

use super::*;

#[test]
fn discovery_finds_every_healthy_service_of_the_type_and_no_other() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        world.register(id, "web");
    }
    world.register("d", "Web");
    let found: std::collections::BTreeSet<_> = (0..100).filter_map(|_| world.discover("web")).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    let none = world.call(json!({"action": "discover", "service_type": "WEB"}));
    assert_eq!(
        (&none["error"], &none["code"]),
        (&json!("No healthy service of type WEB found"), &json!("none_healthy"))
    );
}

#[test]
fn a_service_answers_to_its_tags_and_its_metadata_type() {
    let mut world = World::new();
    let info =
        json!({"id": "x", "name": "N", "host": "h", "port": 1, "tags": ["one", "two"], "metadata": {"type": "three"}});
    world.call(json!({"action": "register", "service_info": info}));
    for service_type in ["one", "two", "three"] {
        assert_eq!(world.discover(service_type).as_deref(), Some("x"), "{service_type}");
    }
    world.register("x", "four");
    assert_eq!(world.discover("one"), None, "an update takes the place of what was there");
    assert_eq!(world.discover("four").as_deref(), Some("x"));
}

fn balancing_world() -> World {
    let mut world = World::on(policy(), Promises { balances: true, ..Promises::default() });
    world.register("x", "web");
    world.register("y", "web");
    world
}

#[test]
fn the_stores_choice_is_the_answer() {
    let mut world = balancing_world();
    world.ask("a", json!({"action": "discover", "service_type": "web"}));
    assert_eq!(world.reply("a"), None);
    let ticket = world.queries.remove(0);
    world.registry.chosen(ticket, Some("y".into()), world.now, &mut world.out);
    world.take_output();
    assert_eq!(world.reply("a").unwrap()["service"]["id"], "y");
}

#[test]
fn the_host_chooses_if_the_store_does_not() {
    let mut world = balancing_world();
    for answer in [None, Some("unknown".to_string())] {
        world.ask("a", json!({"action": "discover", "service_type": "web"}));
        let ticket = world.queries.remove(0);
        world.registry.chosen(ticket, answer, world.now, &mut world.out);
        world.take_output();
        assert_eq!(world.reply("a").unwrap()["success"], true);
    }
    world.ask("a", json!({"action": "discover", "service_type": "web"}));
    world.pass(400);
    assert_eq!(world.reply("a").unwrap()["success"], true);
}

#[test]
fn the_store_chooses_among_a_number_that_does_not_grow_with_the_registry() {
    let mut world = World::on(policy(), Promises { balances: true, ..Promises::default() });
    for number in 0..1000 {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    let request = parse(br#"{"action":"discover","service_type":"web"}"#, Port::Requests, &Limits::default()).request;
    world.registry.request("a", Principal::Nobody, request.unwrap(), world.now, &mut world.out);
    let (_, query) = world.out.queries.pop().expect("the store is asked");
    assert!((2..=64).contains(&query.candidates.len()), "{}", query.candidates.len());
}

#[test]
fn a_choice_that_is_no_longer_of_the_type_is_none() {
    let mut world = balancing_world();
    world.ask("a", json!({"action": "discover", "service_type": "web"}));
    let ticket = world.queries.remove(0);
    world.register("y", "mail");
    world.registry.chosen(ticket, Some("y".into()), world.now, &mut world.out);
    world.take_output();
    assert_eq!(world.reply("a").unwrap()["service"]["id"], "x");
}

#[test]
fn a_store_that_is_held_up_is_not_asked_without_end() {
    let mut world = balancing_world();
    let ask = |world: &mut World| world.ask("a", json!({"action": "discover", "service_type": "web"}));
    (0..1024).for_each(|_| ask(&mut world));
    assert_eq!((world.reply("a"), world.queries.len()), (None, 1024));
    world.ask("at once", json!({"action": "discover", "service_type": "web"}));
    assert_eq!(world.reply("at once").unwrap()["success"], true);
    // Who waits is answered, and the store still has its queries.
    world.pass(400);
    world.replies.clear();
    world.ask("at once", json!({"action": "discover", "service_type": "web"}));
    assert_eq!(world.reply("at once").unwrap()["success"], true);
    world.registry.chosen(world.queries[0], None, world.now, &mut world.out);
    ask(&mut world);
    assert_eq!((world.reply("a"), world.queries.len()), (None, 1025));
}
