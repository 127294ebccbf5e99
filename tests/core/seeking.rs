//! `discover` for several, by filter, and for those who are still to come.

use std::collections::{BTreeMap, BTreeSet};

use super::pages::ids;
use super::*;

/// A type of which one service in a thousand is wanted: by the version, and by metadata.
fn sparse(count: usize) -> World {
    let mut world = World::with(Policy { services_bytes_max: 1 << 30, ..policy() });
    for number in 0..count {
        let version = if number % 1000 == 500 { "2.0.0" } else { "1.0.0" };
        world.load(&format!("s{number}"), &["web"], &format!(",\"version\":\"{version}\""));
    }
    world
}

fn discover(more: Value) -> Value {
    let mut request = json!({"action": "discover", "service_type": "web"});
    more.as_object().unwrap().iter().for_each(|(key, value)| request[key] = value.clone());
    request
}

impl World {
    /// Lets the host go on until this caller is answered. In how many turns, and with what.
    fn turns(&mut self, caller: &str) -> (usize, Value) {
        for turns in 0..1000 {
            if let Some(reply) = self.reply(caller) {
                return (turns, reply);
            }
            assert_eq!(self.registry.wake_at_ms(), 0, "it goes on whether anybody asks for something or not");
            self.registry.tick(self.now, &mut self.out);
            self.take_output();
        }
        panic!("no answer");
    }
}

#[test]
fn several_are_distinct_and_of_all_that_are_healthy() {
    let mut world = World::new();
    for number in 0..2000 {
        world.load(&format!("s{number}"), &["web"], "");
    }
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let found = ids(&world.call(discover(json!({"limit": 100}))));
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 100);
        seen.extend(found);
    }
    assert!(seen.len() > 1900, "only {} of 2000", seen.len());
    world.load("other", &["web", "few"], "");
    for (limit, expected) in [(1, 1), (5, 1), (1000, 1)] {
        let reply = world.call(json!({"action": "discover", "service_type": "few", "limit": limit}));
        assert_eq!(ids(&reply).len(), expected, "and in a list, whatever the limit is");
    }
    let none = world.call(json!({"action": "discover", "service_type": "none", "limit": 3}));
    assert_eq!(
        (&none["code"], &none["error"]),
        (&json!("none_healthy"), &json!("No healthy service of type none found"))
    );
}

#[test]
fn in_a_small_type_a_filter_finds_at_once_whom_it_wants() {
    let mut world = World::new();
    for number in 0..100 {
        world.load(&format!("s{number}"), &["web"], &format!(",\"metadata\":{{\"n\":{number}}}"));
    }
    for number in [0, 57, 99] {
        let found = world.call(discover(json!({"metadata": {"n": number}})));
        assert_eq!(found["service"]["id"], format!("s{number}"));
    }
    assert_eq!(world.call(discover(json!({"metadata": {"n": 100}})))["code"], "none_healthy");
    assert_eq!(world.call(discover(json!({"tags": ["mail"], "limit": 7})))["code"], "none_healthy");
    let found: BTreeSet<String> = (0..100)
        .map(|_| world.call(discover(json!({"version": null, "tags": ["web"]})))["service"]["id"].to_string())
        .collect();
    assert!(found.len() > 40, "by chance");
    world.pass(31_000);
    assert_eq!(world.call(discover(json!({"metadata": {"n": 57}})))["code"], "none_healthy", "it has run out");
}

#[test]
fn in_a_large_type_those_that_are_rare_are_found_over_several_turns_each_as_often() {
    let mut world = sparse(5000);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..100 {
        world.ask("a", discover(json!({"version": "2"})));
        let (turns, reply) = world.turns("a");
        assert!(turns < 40, "{turns} turns");
        *counts.entry(reply["service"]["id"].as_str().unwrap().into()).or_default() += 1;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["s1500", "s2500", "s3500", "s4500", "s500"]);
    assert!(counts.values().all(|count| (5..50).contains(count)), "{counts:?}");
    world.ask("all", discover(json!({"version": "2", "limit": 10})));
    let (turns, reply) = world.turns("all");
    assert!(turns > 1, "a turn is short");
    assert_eq!(ids(&reply).into_iter().collect::<BTreeSet<_>>(), counts.into_keys().collect());
    world.ask("none", discover(json!({"version": "3"})));
    assert_eq!(world.turns("none").1["code"], "none_healthy");
    // Whoever is not rare is found at once.
    world.ask("at once", discover(json!({"version": "1", "limit": 50})));
    assert_eq!(ids(&world.reply("at once").unwrap()).len(), 50);
}

#[test]
fn who_asks_for_the_same_shares_the_search_and_is_given_others() {
    let mut world = sparse(20_000);
    for number in 0..10 {
        world.ask(["a", "b"][number % 2], discover(json!({"version": "2", "limit": 2})));
    }
    world.ask("other", discover(json!({"version": "3"})));
    let first = world.turns("b").0;
    let mut found = BTreeSet::new();
    for number in 0..9 {
        let reply = world.turns(["a", "b"][number % 2]).1;
        assert_eq!(ids(&reply).len(), 2);
        found.extend(ids(&reply));
    }
    assert!(found.len() > 4, "{found:?}");
    let (after, reply) = world.turns("other");
    assert_eq!(reply["code"], "none_healthy", "another version, that nobody has");
    assert!(after <= 2 * first + 50, "one search and not ten: {after} turns after {first}");
    // Too many that wait are turned away.
    for _ in 0..150 {
        world.ask("many", discover(json!({"version": "2"})));
    }
    let replies: Vec<Value> = (0..150).map(|_| world.turns("many").1).collect();
    let overloaded = replies.iter().filter(|reply| reply["code"] == "overloaded").count();
    let found = replies.iter().filter(|reply| reply["success"] == true).count();
    assert!(overloaded > 20 && found >= 60 && overloaded + found == 150, "{overloaded} and {found}");
}

#[test]
fn what_changes_during_a_search_counts() {
    let mut world = sparse(20_000);
    let version = |id: &str, version: &str| {
        let info = json!({"id": id, "name": "N", "host": "h", "port": 1, "type": "web", "version": version});
        json!({"action": "register", "service_info": info})
    };
    // Who comes while it is looked for is found, wherever it stands.
    for _ in 0..5 {
        world.ask("a", discover(json!({"version": "3"})));
        (0..10).for_each(|_| world.registry.tick(world.now, &mut world.out));
        world.call(version("new", "3.0.0"));
        assert_eq!(world.turns("a").1["service"]["id"], "new");
        world.call(deregister("new"));
    }
    // Who has gone, or has become another, since it was found is not the answer.
    world.ask("a", discover(json!({"version": "2", "limit": 1000})));
    world.ask("b", discover(json!({"version": "2"})));
    (0..8).for_each(|_| world.registry.tick(world.now, &mut world.out));
    assert!(world.out.replies.is_empty() && world.registry.is_searching());
    for number in (500..20_000).step_by(1000).skip(1) {
        world.call(version(&format!("s{number}"), "1.0.0"));
    }
    for caller in ["a", "b"] {
        let reply = world.turns(caller).1;
        let found = if caller == "a" { reply["services"][0]["id"].clone() } else { reply["service"]["id"].clone() };
        assert_eq!(found, "s500");
    }
    world.ask("a", discover(json!({"version": "2", "wait": 1, "limit": 2})));
    (0..12).for_each(|_| world.registry.tick(world.now, &mut world.out));
    assert!(world.out.replies.is_empty() && world.registry.is_searching());
    world.call(deregister("s500"));
    while world.registry.is_searching() {
        world.registry.tick(world.now, &mut world.out);
    }
    world.take_output();
    assert_eq!(world.reply("a"), None, "nobody is left, and it waits");
    world.pass(1000);
    assert_eq!(world.reply("a").unwrap()["code"], "none_healthy");
}

#[test]
fn a_reply_with_several_is_not_longer_than_a_page() {
    let mut world = World::with(Policy { services_bytes_max: 1 << 30, ..policy() });
    let note = "x".repeat(10_000);
    for number in 0..500 {
        world.load(&format!("s{number}"), &["web"], &format!(",\"note\":\"{note}\",\"version\":\"1.0.0\""));
    }
    for filter in
        [json!({"limit": 1000}), json!({"limit": 1000, "version": "1"}), json!({"limit": 100, "version": "*"})]
    {
        world.ask("a", discover(filter));
        let found = ids(&world.turns("a").1);
        assert!((10..=20).contains(&found.len()), "{}", found.len());
    }
}

#[test]
fn who_waits_is_answered_as_soon_as_there_is_one() {
    let mut world = World::new();
    let wait = |more: Value| {
        let mut request = discover(json!({"wait": 5}));
        more.as_object().unwrap().iter().for_each(|(key, value)| request[key] = value.clone());
        request
    };
    world.ask("plain", wait(json!({})));
    world.ask("several", wait(json!({"limit": 3, "fields": ["name"]})));
    world.ask("filtered", wait(json!({"metadata": {"zone": "b"}})));
    world.ask("mail", json!({"action": "discover", "service_type": "mail", "wait": 5}));
    world.register("x", "other");
    assert!(world.replies.is_empty(), "it is none of theirs");
    world.register("a", "web");
    assert_eq!(world.reply("plain").unwrap()["service"]["id"], "a");
    assert_eq!(world.reply("several").unwrap()["services"], json!([{"id": "a", "name": "N"}]));
    assert_eq!((world.reply("filtered"), world.reply("mail")), (None, None));
    let info = json!({"id": "b", "name": "N", "host": "h", "port": 1, "tags": ["web"], "metadata": {"zone": "b"}});
    world.call(json!({"action": "register", "service_info": info}));
    assert_eq!(world.reply("filtered").unwrap()["service"]["id"], "b");
    // Who is there is the answer at once.
    world.ask("plain", wait(json!({})));
    assert!(world.reply("plain").is_some());
    world.ask("none", wait(json!({"wait": 0, "tags": ["mail"]})));
    assert_eq!(world.reply("none").unwrap()["code"], "none_healthy");
}

#[test]
fn who_waits_is_answered_by_a_service_that_is_heard_of_again() {
    let mut world = World::new();
    world.register("a", "web");
    world.pass(30_001);
    for caller in ["one", "two"] {
        world.ask(caller, discover(json!({"wait": 5})));
    }
    assert!(world.replies.is_empty(), "it has run out");
    assert_eq!(world.call(renew("a"))["success"], true);
    for caller in ["one", "two"] {
        assert_eq!(world.reply(caller).unwrap()["service"]["health"], "passing");
    }
    // Also if it was not noticed yet that it has.
    world.now.uptime_ms += 30_001;
    world.ask("three", discover(json!({"wait": 5})));
    assert_eq!(world.reply("three"), None);
    world.call(renew("a"));
    assert_eq!(world.reply("three").unwrap()["service"]["id"], "a");
}

#[test]
fn who_waits_too_long_is_told_so_in_time() {
    let mut world = World::new();
    for (caller, seconds) in [("late", 3.0), ("early", 0.5), ("middle", 1.0)] {
        world.ask(caller, discover(json!({"wait": seconds})));
    }
    assert_eq!(world.registry.wake_at_ms(), 500);
    world.now.uptime_ms += 499;
    world.pass(0);
    assert!(world.replies.is_empty());
    world.pass(1);
    assert_eq!(world.reply("early").unwrap()["code"], "none_healthy");
    assert_eq!(world.registry.wake_at_ms(), 1000);
    world.pass(2500);
    let order: Vec<&str> = world.replies.drain(..).map(|(caller, _)| caller).collect();
    assert_eq!(order, ["middle", "late"]);
    world.register("a", "web");
    assert!(world.replies.is_empty(), "nobody waits any more");
}

#[test]
fn so_many_may_wait_and_no_more_and_the_end_of_the_host_answers_them() {
    let following = Following { watchers: 3, ..Following::default() };
    let mut world = World::with(Policy { following, ..policy() });
    for caller in ["a", "a", "a", "more"] {
        world.ask(caller, discover(json!({"wait": 600})));
    }
    assert_eq!(world.reply("more").unwrap()["code"], "overloaded");
    assert!(world.registry.is_idle(), "they keep no host from stopping");
    world.registry.dismiss_waiting(&mut world.out);
    world.take_output();
    (0..3).for_each(|_| assert_eq!(world.reply("a").unwrap()["code"], "none_healthy"));
    world.ask("again", discover(json!({"wait": 600})));
    assert_eq!(world.reply("again"), None, "there is room again");
}

#[test]
fn many_that_wait_for_a_type_are_told_over_several_turns() {
    let following = Following { watchers_per_address: 20_000, ..Following::default() };
    let mut world = World::with(Policy { following, ..policy() });
    for number in 0..20_000 {
        let more = if number % 2 == 0 { json!({"wait": 60, "version": "2"}) } else { json!({"wait": 60}) };
        world.ask("a", discover(more));
    }
    world.register("x", "web");
    let at_once = world.replies.len();
    assert!((10..5000).contains(&at_once), "{at_once} at once");
    for _ in 0..1000 {
        world.registry.tick(world.now, &mut world.out);
    }
    world.take_output();
    assert_eq!(world.replies.len(), 10_000, "each once, and nobody else");
    assert!(world.replies.iter().all(|(_, reply)| reply["service"]["id"] == "x"));
    assert!(world.registry.wake_at_ms() > 0, "there is nothing left to do");
    // A service that becomes another while they are told.
    world.replies.clear();
    for version in ["1.0.0", "2.0.0"] {
        let info = json!({"id": "y", "name": "N", "host": "h", "port": 1, "type": "web", "version": version});
        world.call(json!({"action": "register", "service_info": info}));
    }
    for _ in 0..1000 {
        world.registry.tick(world.now, &mut world.out);
    }
    world.take_output();
    assert_eq!(world.replies.len(), 10_000);
}

#[test]
fn a_store_that_chooses_does_so_for_one_of_a_type_and_what_it_misses_is_waited_for() {
    let mut world = World::on(policy(), Promises { balances: true, ..Promises::default() });
    ["x", "y"].into_iter().for_each(|id| drop(world.register(id, "web")));
    for more in [json!({"limit": 1}), json!({"version": ">1"}), json!({"tags": ["web"]})] {
        world.ask("host", discover(more));
        assert!(world.reply("host").is_some() && world.queries.is_empty(), "the host chooses");
    }
    world.ask("a", discover(json!({"fields": ["port"], "wait": 1})));
    let ticket = world.queries.remove(0);
    world.registry.chosen(ticket, Some("y".into()), world.now, &mut world.out);
    world.take_output();
    assert_eq!(world.reply("a").unwrap()["service"], json!({"id": "y", "port": 1}));
    world.ask("a", discover(json!({"wait": 1})));
    let ticket = world.queries.remove(0);
    ["x", "y"].into_iter().for_each(|id| drop(world.call(deregister(id))));
    world.registry.chosen(ticket, Some("y".into()), world.now, &mut world.out);
    world.take_output();
    assert_eq!(world.reply("a"), None, "both are gone");
    world.register("z", "web");
    assert_eq!(world.reply("a").unwrap()["service"]["id"], "z");
}

#[test]
fn who_waits_is_answered_by_a_service_that_has_become_what_is_wanted() {
    let mut world = World::new();
    world.register("a", "web");
    world.ask("one", discover(json!({"metadata": {"room": 7}, "wait": 5})));
    world.call(json!({"action": "update", "service_id": "a", "metadata": {"room": 8}}));
    world.pass(0);
    assert_eq!(world.reply("one"), None);
    world.call(json!({"action": "update", "service_id": "a", "metadata": {"room": 7}}));
    world.pass(0);
    assert_eq!(world.reply("one").unwrap()["service"]["id"], "a");
}

#[test]
fn who_waits_and_leaves_makes_room_for_others() {
    let following = Following { watchers: 3, ..Following::default() };
    let mut world = World::with(Policy { following, ..policy() });
    let watch = json!({"action": "watch", "wait": 600});
    world.ask("stays", discover(json!({"wait": 600})));
    world.ask("leaves", discover(json!({"wait": 600})));
    world.ask("watches", watch.clone());
    // Whatever it is that they wait for.
    for request in [discover(json!({"wait": 600})), watch] {
        world.ask("more", request);
        assert_eq!(world.reply("more").unwrap()["code"], "overloaded");
    }
    world.pass(100);
    world.registry.drop_gone(|caller| *caller == "leaves", world.now);
    world.ask("later", discover(json!({"wait": 600})));
    assert_eq!(world.reply("later"), None);
    world.register("a", "web");
    world.pass(0);
    assert!(["stays", "watches", "later"].iter().all(|caller| world.reply(caller).is_some()));
    assert_eq!(world.reply("leaves"), None);
}

#[test]
fn what_waiting_clients_want_takes_no_more_memory_than_it_may() {
    let mut world = World::new();
    let bulk = "x".repeat(15_000);
    let overloaded = (0..5000).find(|number| {
        world.ask("a", discover(json!({"wait": 60, "metadata": {"n": number, "bulk": bulk}})));
        world.reply("a").is_some_and(|reply| reply["code"] == "overloaded")
    });
    assert!((1000..3000).contains(&overloaded.unwrap()), "{overloaded:?}");
    world.registry.dismiss_waiting(&mut world.out);
    world.ask("again", discover(json!({"wait": 60})));
    assert_eq!(world.reply("again"), None);
}
