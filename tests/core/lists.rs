//! Long lists: written in pieces, exact, and shared.

use super::*;

/// A world with so many services that a list of them takes some time.
fn large(services: usize) -> World {
    let mut world = World::new();
    for number in 0..services {
        let service_type = if number % 2 == 0 { "web" } else { "mail" };
        world.registry.load(stored(&format!("s{number}"), service_type), world.now).unwrap();
    }
    world
}

impl World {
    /// Writes one piece of a list.
    fn write_on(&mut self) {
        self.registry.continue_lists(true, self.now, &mut self.out);
        self.take_output();
    }

    pub(super) fn finish_lists(&mut self) {
        while self.registry.has_lists() {
            self.write_on();
        }
    }
}

fn list() -> Value {
    json!({"action": "list"})
}

fn ids(reply: &Value) -> Vec<String> {
    let mut ids = pages::ids(reply);
    ids.sort();
    ids
}

#[test]
fn a_short_list_comes_at_once() {
    let mut world = large(20);
    world.ask("a", list());
    assert_eq!(world.reply("a").unwrap()["services"].as_array().unwrap().len(), 20);
    assert!(!world.registry.has_lists());
}

#[test]
fn a_long_list_comes_in_pieces_and_shows_the_moment_at_which_it_began() {
    let mut world = large(5000);
    // It leaves a place that somebody takes while the list is being made.
    world.call(deregister("s4900"));
    let mut before: Vec<String> = (0..5000).filter(|n| *n != 4900).map(|number| format!("s{number}")).collect();
    before.sort();
    assert_eq!(world.registry.next_list_bytes(), None, "nobody waits");
    world.ask("a", list());
    assert!(world.registry.next_list_bytes().is_some_and(|bytes| bytes > 5000 * 100), "it is about to begin");
    world.write_on();
    assert_eq!(world.registry.next_list_bytes(), None, "it has begun, and no other waits");
    assert_eq!(world.reply("a"), None, "5000 services are more than a piece");
    assert_eq!(world.registry.wake_at_ms(), 0, "it is written on, whether anybody asks for something or not");
    world.register("early", "web");
    for id in ["s1", "s4998", "s4999"] {
        assert_eq!(world.call(deregister(id))["success"], true, "changes go on");
    }
    world.register("new", "web");
    world.register("s4997", "other");
    world.finish_lists();
    let reply = world.reply("a").expect("the list is whole");
    assert_eq!(ids(&reply), before);
    assert_eq!((&reply["revision"], &reply["epoch"], &reply["success"]), (&json!(1), &json!("e"), &json!(true)));
    let replaced = reply["services"].as_array().unwrap().iter().find(|service| service["id"] == "s4997").unwrap();
    assert_eq!(replaced["type"], "mail", "it is shown as it was");
    world.ask("a", list());
    world.finish_lists();
    let reply = world.reply("a").unwrap();
    assert_eq!((reply["services"].as_array().unwrap().len(), &reply["revision"]), (4998, &json!(7)));
}

#[test]
fn who_asks_while_a_list_is_being_made_gets_the_next_with_what_happened_before_it_asked() {
    let mut world = large(5000);
    world.ask("a", list());
    world.write_on();
    world.register("new", "web");
    for caller in ["b", "c"] {
        world.ask(caller, list());
    }
    world.finish_lists();
    assert_eq!(world.reply("a").unwrap()["revision"], 0);
    for caller in ["b", "c"] {
        let reply = world.reply(caller).unwrap();
        assert!(ids(&reply).contains(&"new".to_string()) && reply["revision"] == 1);
    }
}

#[test]
fn those_who_get_the_same_list_share_its_memory_and_keep_their_request_ids() {
    let mut world = large(5000);
    for caller in ["a", "b"] {
        let request = parse(br#"{"action": "list"}"#, Port::Requests, &Limits::default()).request.unwrap();
        world.registry.request(caller, Principal::Nobody, request, world.now, &mut world.out);
    }
    while world.registry.has_lists() {
        world.registry.continue_lists(true, world.now, &mut world.out);
    }
    let bodies: Vec<_> =
        world.out.replies.drain(..).map(|(caller, reply)| reply.finish(Some(&format!("{caller:?}")))).collect();
    let [one, other] = &bodies[..] else { panic!("{} replies", bodies.len()) };
    assert!(one.shared().len() > 1);
    assert!(one.shared().iter().zip(other.shared().iter()).all(|(one, other)| one.as_ptr() == other.as_ptr()));
    let reply: Value = serde_json::from_str(&other.clone().into_text()).unwrap();
    assert_eq!(reply["request_id"], "b");
}

#[test]
fn a_long_list_of_a_type_has_its_members_and_info_has_everybody() {
    let mut world = large(5000);
    world.ask("web", json!({"action": "list", "service_type": "web"}));
    world.ask("info", json!({"action": "info"}));
    world.ask("none", json!({"action": "list", "service_type": "nothing"}));
    assert_eq!(world.reply("none").unwrap()["services"], json!([]), "a short one does not wait");
    world.write_on();
    world.call(deregister("s2"));
    world.finish_lists();
    let web = world.reply("web").unwrap();
    assert_eq!(web["services"].as_array().unwrap().len(), 2500);
    assert!(web["services"].as_array().unwrap().iter().all(|service| service["type"] == "web"));
    let info = world.reply("info").unwrap();
    assert_eq!(info["services"].as_array().unwrap().len(), 4999);
    assert_eq!((&info["status"], &info["backend"]["state"]), (&json!("ok"), &json!("ok")));
}

#[test]
fn a_list_that_may_not_begin_waits() {
    let mut world = large(5000);
    world.ask("a", list());
    let bytes = world.registry.next_list_bytes().expect("one waits");
    world.registry.continue_lists(false, world.now, &mut world.out);
    assert_eq!(world.registry.next_list_bytes(), Some(bytes));
    world.finish_lists();
    let length = world.reply("a").unwrap()["services"].to_string().len();
    assert!((bytes * 8 / 10..=bytes).contains(&length), "{length} bytes, expected about {bytes}");
}

#[test]
fn plain_lists_are_made_before_filtered_ones() {
    let mut world = World::new();
    for number in 0..2000 {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    for number in 0..20 {
        world.ask("filtered", json!({"action": "list", "metadata": {"n": number}}));
    }
    world.ask("plain", json!({"action": "list", "service_type": "web"}));
    world.ask("plain", json!({"action": "list"}));
    let mut order = Vec::new();
    while world.registry.has_lists() {
        world.registry.continue_lists(true, world.now, &mut world.out);
        world.take_output();
        order.extend(world.replies.drain(..).map(|(caller, _)| caller));
    }
    assert_eq!((order.len(), &order[..2]), (22, &["plain", "plain"][..]));
}
