//! Long lists, however services come and go while they are written, and however they stand among others.

use super::*;

fn load(world: &mut World, ids: impl Iterator<Item = usize>, service_type: &str) {
    for number in ids {
        world.registry.load(stored(&format!("s{number}"), service_type), world.now).unwrap();
    }
}

fn roomy() -> World {
    World::with(Policy { pending_changes_max: 100_000, services_bytes_max: 1 << 30, ..policy() })
}

fn list_of(service_type: &str) -> Value {
    json!({"action": "list", "service_type": service_type})
}

/// Takes one turn.
fn turn(world: &mut World) {
    world.registry.continue_lists(true, world.now, &mut world.out);
    world.take_output();
}

/// In how many turns all lists are written and handed over.
fn turns(world: &mut World) -> usize {
    let mut turns = 0;
    while world.registry.has_lists() {
        turn(world);
        turns += 1;
        assert!(turns < 1000, "the lists never end");
    }
    turns
}

fn ids(reply: &Value) -> Vec<&str> {
    let mut ids: Vec<&str> =
        reply["services"].as_array().unwrap().iter().map(|service| service["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn whatever_comes_and_goes_a_list_shows_the_moment_at_which_it_began() {
    // Places that others take while the list is being written, before and behind what is written already; in two ways, so
    // that once there is somebody where the first piece ends.
    for free in [0, 1] {
        let mut world = roomy();
        load(&mut world, 0..2100, "web");
        for number in (0..2100).filter(|number| number % 3 == free) {
            world.ask("client", deregister(&format!("s{number}")));
        }
        world.store();
        let stay = (0..2100).filter(|number| number % 3 != free);
        let mut before: Vec<String> = stay.map(|number| format!("s{number}")).collect();
        before.sort_unstable();
        world.ask("all", json!({"action": "list"}));
        world.ask("web", list_of("web"));
        turn(&mut world);
        // Everybody leaves, and others take all places.
        for number in 0..2100 {
            world.ask("client", deregister(&format!("s{number}")));
        }
        for number in 0..2100 {
            world.ask("client", register(&format!("new{number}"), "web"));
        }
        world.store();
        turns(&mut world);
        let all = world.reply("all").unwrap();
        assert_eq!(ids(&all), before);
        assert_eq!(all["revision"], 700);
        let web = world.reply("web").unwrap();
        assert_eq!((ids(&web).len(), &web["revision"]), (2100, &json!(4200)), "the next began after all that");
        assert!(ids(&web).iter().all(|id| id.starts_with("new")));
    }
}

#[test]
fn a_list_of_a_type_finds_its_members_wherever_they_stand() {
    let mut world = roomy();
    // Alone in a word of bits, at both of its ends, and many in a row.
    let is_web = |number: usize| matches!(number % 64, 0 | 63) || number % 640 == 7 || (6000..6500).contains(&number);
    for number in 0..12_000 {
        load(&mut world, number..number + 1, if is_web(number) { "web" } else { "mail" });
    }
    let mut expected: Vec<String> = (0..12_000).filter(|n| is_web(*n)).map(|number| format!("s{number}")).collect();
    expected.sort_unstable();
    world.ask("a", list_of("web"));
    assert_eq!(world.reply("a"), None, "it is a long one");
    turns(&mut world);
    assert_eq!(ids(&world.reply("a").unwrap()), expected);
}

#[test]
fn a_list_is_written_in_few_turns() {
    let mut world = roomy();
    load(&mut world, 0..700, "web");
    load(&mut world, 700..20_000, "mail");
    world.ask("a", list_of("web"));
    assert_eq!(turns(&mut world), 2, "those of other types take no time, and one turn is for handing it over");
    world.ask("a", list_of("mail"));
    assert!((15..40).contains(&turns(&mut world)), "pieces are some hundred kilobytes of about 3 MB");
}

#[test]
fn a_list_is_short_again_when_most_have_left() {
    let mut world = roomy();
    load(&mut world, 0..2000, "web");
    for number in 100..2000 {
        world.ask("client", deregister(&format!("s{number}")));
    }
    // Some become critical, and come back.
    world.store();
    world.pass(30_001);
    world.call(renew("s1"));
    for request in [list_of("web"), json!({"action": "list"})] {
        world.ask("a", request.clone());
        let reply = world.reply("a").unwrap_or_else(|| panic!("{request} comes at once"));
        assert_eq!(ids(&reply).len(), 100);
        let health =
            |id: &str| reply["services"].as_array().unwrap().iter().find(|s| s["id"] == id).unwrap()["health"].clone();
        assert_eq!((health("s1"), health("s2")), (json!("passing"), json!("critical")));
    }
    load(&mut world, 100..600, "web");
    for request in [list_of("web"), json!({"action": "list"})] {
        world.ask("a", request.clone());
        assert_eq!(world.reply("a"), None, "{request} is long again");
    }
}

#[test]
fn so_many_may_wait_for_long_lists_and_short_ones_come_at_once() {
    let mut world = World::with(Policy { pending_changes_max: 3, ..policy() });
    load(&mut world, 0..1000, "web");
    load(&mut world, 1000..1001, "mail");
    for _ in 0..2 {
        for _ in 0..3 {
            world.ask("a", list_of("web"));
            assert_eq!(world.reply("a"), None);
        }
        world.ask("b", list_of("web"));
        assert_eq!(world.reply("b").unwrap()["code"], "overloaded");
        world.ask("b", list_of("mail"));
        assert_eq!(ids(&world.reply("b").unwrap()), ["s1000"], "a short list is no burden");
        turns(&mut world);
        for _ in 0..3 {
            assert_eq!(ids(&world.reply("a").unwrap()).len(), 1000);
        }
    }
}

#[test]
fn replies_are_handed_over_a_number_at_a_time() {
    let mut world = roomy();
    load(&mut world, 0..1000, "web");
    for _ in 0..600 {
        world.ask("a", list_of("web"));
    }
    while world.replies.is_empty() {
        turn(&mut world);
    }
    let mut handed = vec![world.replies.drain(..).count()];
    while world.registry.has_lists() {
        assert_eq!(world.registry.wake_at_ms(), 0, "whoever still waits need not wait for anything else to happen");
        turn(&mut world);
        handed.push(world.replies.drain(..).count());
    }
    assert_eq!(handed, [256, 256, 88]);
    assert!(world.registry.wake_at_ms() > 0);
}

#[test]
fn a_turn_looks_at_a_number_of_places_however_few_members_stand_there() {
    let mut world = roomy();
    for number in 0..12_000 {
        let is_web = number > 1000 && number % 64 == 63;
        let mut record = stored(&format!("s{number}"), if is_web { "web" } else { "mail" });
        if is_web {
            record.document = record.document.replace('}', &format!(",\"note\":\"{}\"}}", "x".repeat(400)));
        }
        world.registry.load(record, world.now).unwrap();
    }
    world.ask("a", list_of("web"));
    let turns = turns(&mut world);
    assert!((5..=8).contains(&turns), "{turns} turns for a piece of text that is spread over 11000 places");
    assert_eq!(ids(&world.reply("a").unwrap()).len(), 172);
}
