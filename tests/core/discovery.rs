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
