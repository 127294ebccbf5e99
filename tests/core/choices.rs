//! Who is discovered among many, and among whom the store chooses.

use super::*;

fn balancing() -> World {
    World::on(policy(), Promises { balances: true, ..Promises::default() })
}

fn load(world: &mut World, count: usize) {
    for number in 0..count {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
}

fn discover() -> Value {
    json!({"action": "discover", "service_type": "web"})
}

/// Among whom the store is to choose, if it is asked.
fn candidates(world: &mut World) -> Option<Vec<String>> {
    let request = parse(discover().to_string().as_bytes(), Port::Requests, &Limits::default()).request.unwrap();
    world.registry.request("a", Principal::Nobody, request, world.now, &mut world.out);
    world.out.queries.pop().map(|(_, query)| query.candidates)
}

#[test]
fn of_few_all_that_are_healthy_are_candidates() {
    let mut world = balancing();
    load(&mut world, 64);
    let mut found = candidates(&mut world).expect("the store is asked");
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 64);
    // All but two run out, and nobody has looked yet.
    world.pass(20_000);
    world.call(renew("s3"));
    world.call(renew("s5"));
    world.now.uptime_ms += 10_001;
    let mut found = candidates(&mut world).expect("the store is asked");
    found.sort_unstable();
    assert_eq!(found, ["s3", "s5"]);
}

#[test]
fn where_there_is_no_choice_the_store_is_not_asked() {
    let mut world = balancing();
    load(&mut world, 1);
    world.ask("one", discover());
    assert_eq!(world.reply("one").unwrap()["service"]["id"], "s0");
    world.pass(30_001);
    world.ask("none", discover());
    assert_eq!(world.reply("none").unwrap()["code"], "none_healthy");
    assert!(world.queries.is_empty());
    let mut world = World::new();
    load(&mut world, 2);
    world.ask("two", discover());
    assert_eq!(world.reply("two").unwrap()["success"], true, "a store without a say is not asked either");
    assert!(world.queries.is_empty());
}

#[test]
fn a_choice_that_has_run_out_meanwhile_is_none() {
    let mut world =
        World::on(Policy { reply_timeout_ms: 60_000, ..policy() }, Promises { balances: true, ..Promises::default() });
    load(&mut world, 2);
    world.ask("a", discover());
    let ticket = world.queries.remove(0);
    world.pass(20_000);
    world.call(renew("s0"));
    world.pass(10_001);
    world.registry.chosen(ticket, Some("s1".into()), world.now, &mut world.out);
    world.take_output();
    assert_eq!(world.reply("a").unwrap()["service"]["id"], "s0");
}

/// So many services have run out at a moment at which nobody has looked at them yet, and a few have not.
fn nearly_all_unseen(services: usize, healthy: &[&str]) -> World {
    let mut world = World::new();
    load(&mut world, services);
    world.pass(20_000);
    for id in healthy {
        world.call(renew(id));
    }
    world.now.uptime_ms += 10_001;
    world
}

#[test]
fn who_is_discovered_is_chosen_at_random_though_nearly_all_have_just_run_out() {
    let healthy = ["s500", "s1500", "s2500"];
    let mut world = nearly_all_unseen(3000, &healthy);
    let found: std::collections::BTreeSet<_> = (0..100).filter_map(|_| world.discover("web")).collect();
    assert!(found.iter().map(String::as_str).eq(["s1500", "s2500", "s500"]), "{found:?}");
}

#[test]
fn a_discovery_looks_at_a_number_of_those_that_have_run_out() {
    let mut world = nearly_all_unseen(5000, &[]);
    assert_eq!(world.discover("web"), None);
    world.registry.tick(world.now, &mut world.out);
    assert!(!world.registry.is_cleanup_due(world.now), "the rest has its turn later");
}

#[test]
fn what_runs_out_at_once_is_looked_at_a_number_at_a_time_by_how_many_types_it_has() {
    for (types, services) in [(1, 3000), (9, 700)] {
        let mut world = World::new();
        for number in 0..services {
            let mut record = stored(&format!("s{number}"), "web");
            record.types = (0..types).map(|number| format!("type{number}")).collect();
            world.registry.load(record, world.now).unwrap();
        }
        world.now.uptime_ms += 30_001;
        world.registry.tick(world.now, &mut world.out);
        assert!(!world.registry.is_cleanup_due(world.now), "{services} of {types} types are more than a turn");
        world.registry.tick(world.now, &mut world.out);
        assert!(world.registry.is_cleanup_due(world.now), "{services} of {types} types are less than two");
    }
}
