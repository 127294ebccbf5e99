//! `watch`: the changes after a revision, in order and each once; and who is woken by what.

use registry_host::registry::Following;

use super::*;

pub(super) const EPOCH: &str = "e";

pub(super) fn watch(after: u64, more: Value) -> Value {
    with(json!({"action": "watch", "epoch": EPOCH, "after": after}), more)
}

fn with(mut request: Value, more: Value) -> Value {
    let more = more.as_object().expect("more fields").clone();
    request.as_object_mut().expect("a request").extend(more);
    request
}

/// What a watcher is told: each change as its type, id and revision, and the bookmark.
fn told(reply: &Value) -> (Vec<(String, String, u64)>, u64) {
    assert_eq!((&reply["success"], &reply["epoch"]), (&json!(true), &json!(EPOCH)), "{reply}");
    let text = |value: &Value| value.as_str().expect("a text").to_string();
    let changes = reply["changes"].as_array().expect("there are changes").iter();
    let changes = changes.map(|change| {
        (text(&change["type"]), text(&change["data"]["service_id"]), change["revision"].as_u64().expect("a revision"))
    });
    (changes.collect(), reply["revision"].as_u64().expect("a bookmark"))
}

impl World {
    /// A watcher's answer that is there already.
    pub(super) fn told(&mut self, caller: &str) -> (Vec<(String, String, u64)>, u64) {
        let reply = self.reply(caller).unwrap_or_else(|| panic!("{caller} is not answered"));
        told(&reply)
    }

    pub(super) fn watched(&mut self, request: Value) -> (Vec<(String, String, u64)>, u64) {
        let reply = self.call(request);
        told(&reply)
    }

    /// Registers with more fields of the service.
    pub(super) fn register_as(&mut self, id: &str, more: Value) {
        let mut request = register(id, "web");
        request["service_info"] = with(request["service_info"].clone(), more);
        assert_eq!(self.call(request)["success"], true);
    }
}

pub(super) fn small(changes: usize, bytes: usize) -> World {
    World::with(Policy { following: Following { changes, bytes, watchers: 3, watchers_per_address: 3 }, ..policy() })
}

#[test]
fn the_changes_after_a_revision_are_told_as_they_were_published() {
    let mut world = World::new();
    world.register("x", "web");
    world.register("y", "mail");
    world.call(deregister("x"));
    let reply = world.call(watch(0, json!({})));
    assert_eq!(reply["changes"].as_array().unwrap(), &world.events);
    assert_eq!(told(&reply).1, 3);
    let expected = vec![event("register", "y", 2), event("deregister", "x", 3)];
    assert_eq!(world.watched(watch(1, json!({}))), (expected, 3));
    assert_eq!(world.watched(watch(3, json!({}))), (vec![], 3));
}

#[test]
fn who_names_no_revision_follows_from_now_on() {
    let mut world = World::new();
    world.register("x", "web");
    assert_eq!(world.watched(json!({"action": "watch"})), (vec![], 1));
    assert_eq!(world.watched(json!({"action": "watch", "epoch": EPOCH})), (vec![], 1));
    world.ask("a", json!({"action": "watch", "wait": 10}));
    assert_eq!(world.reply("a"), None);
    world.register("y", "web");
    world.pass(0);
    assert_eq!(world.told("a"), (vec![event("register", "y", 2)], 2));
}

#[test]
fn what_waits_is_told_at_once_or_when_its_time_is_up() {
    let mut world = World::new();
    world.ask("a", watch(0, json!({"wait": 1})));
    world.ask("b", watch(0, json!({"wait": 0.25})));
    world.pass(249);
    assert_eq!((world.reply("a"), world.reply("b")), (None, None));
    assert_eq!(world.registry.wake_at_ms(), 250);
    world.pass(1);
    assert_eq!((world.told("b"), world.reply("a")), ((vec![], 0), None));
    world.register("x", "web");
    world.pass(0);
    assert_eq!(world.told("a"), (vec![event("register", "x", 1)], 1));
    world.pass(10_000);
    assert_eq!((world.reply("a"), world.reply("b")), (None, None), "each is answered once");
    assert!(!world.registry.is_watched());
}

#[test]
fn a_reply_has_so_many_changes_as_were_asked_for_and_says_where_to_go_on() {
    let mut world = World::new();
    (1..=5).for_each(|number| drop(world.register(&format!("s{number}"), "web")));
    let first = vec![event("register", "s1", 1), event("register", "s2", 2)];
    assert_eq!(world.watched(watch(0, json!({"limit": 2}))), (first, 2));
    assert_eq!(world.watched(watch(2, json!({"limit": 2}))).1, 4);
    assert_eq!(world.watched(watch(4, json!({"limit": 2}))), (vec![event("register", "s5", 5)], 5));
}

#[test]
fn a_reply_has_so_many_bytes_at_most_but_one_change_at_least() {
    let mut world = World::new();
    let bulk = |bytes: usize| json!({"bulk": "x".repeat(bytes)});
    for (id, bytes) in [("a", 400_000), ("b", 500_000), ("c", 2_000_000), ("d", 10)] {
        world.register_as(id, bulk(bytes));
    }
    let ids = |(changes, _): (Vec<(String, String, u64)>, u64)| changes.into_iter().map(|(_, id, _)| id).collect();
    let pages: Vec<Vec<String>> = [0, 2, 3].map(|after| ids(world.watched(watch(after, json!({}))))).into();
    assert_eq!(pages, [vec!["a", "b"], vec!["c"], vec!["d"]]);
    assert_eq!(world.watched(watch(1, json!({}))).1, 2, "the bookmark is the last change told");
}

#[test]
fn what_is_no_longer_known_is_compacted() {
    let mut world = small(2, 1 << 20);
    (1..=4).for_each(|number| drop(world.register(&format!("s{number}"), "web")));
    let compacted = |world: &mut World, request: Value| {
        let reply = world.call(request);
        assert_eq!((&reply["success"], &reply["code"]), (&json!(false), &json!("compacted")), "{reply}");
        assert_eq!((&reply["epoch"], &reply["revision"]), (&json!(EPOCH), &json!(4)), "{reply}");
        assert!(reply["error"].is_string());
    };
    compacted(&mut world, watch(1, json!({"wait": 10})));
    assert_eq!(world.watched(watch(2, json!({}))).0.len(), 2);
    compacted(&mut world, json!({"action": "watch", "epoch": "another", "after": 3, "wait": 10}));
    compacted(&mut world, json!({"action": "watch", "epoch": "another"}));
    // As many bytes as there may be are not many changes.
    let mut world = small(100, 1200);
    (1..=4).for_each(|number| drop(world.register(&format!("s{number}"), "web")));
    compacted(&mut world, watch(0, json!({})));
    assert!(!world.watched(watch(3, json!({}))).0.is_empty(), "the newest is always there");
}

#[test]
fn a_watcher_whose_changes_go_before_it_is_told_hears_that() {
    let mut world = small(2, 1 << 20);
    world.ask("a", watch(0, json!({"wait": 10})));
    (1..=4).for_each(|number| world.ask("r", register(&format!("s{number}"), "web")));
    world.store();
    world.pass(0);
    assert_eq!(world.reply("a").unwrap()["code"], "compacted");
}

#[test]
fn before_this_run_everything_is_compacted_unless_the_store_has_kept_it() {
    let rng = StdRng::seed_from_u64(7);
    let mut world = World::new();
    let position = Position::new(EPOCH, 7);
    world.registry = Registry::new(policy(), Promises::default(), About::default(), position, rng);
    assert_eq!(world.call(watch(6, json!({})))["code"], "compacted");
    assert_eq!(world.watched(watch(7, json!({"wait": 0}))), (vec![], 7));
    world.register("x", "web");
    assert_eq!(world.watched(watch(7, json!({}))), (vec![event("register", "x", 8)], 8));
}

#[test]
fn who_knows_more_than_there_is_has_to_list_again() {
    let mut world = World::new();
    world.register("x", "web");
    for wait in [0, 10] {
        let reply = world.call(watch(2, json!({"wait": wait})));
        assert_eq!((&reply["code"], &reply["revision"]), (&json!("compacted"), &json!(1)));
    }
    assert_eq!(world.watched(watch(1, json!({}))), (vec![], 1));
}

#[test]
fn a_watcher_of_a_type_is_woken_by_nothing_else() {
    let mut world = World::new();
    for (caller, service_type) in [("web", "web"), ("mail", "mail"), ("tag", "north")] {
        world.ask(caller, watch(0, json!({"service_type": service_type, "wait": 1})));
    }
    world.ask("all", watch(0, json!({"wait": 1})));
    world.register_as("x", json!({"tags": ["north"]}));
    world.pass(0);
    let change = (vec![event("register", "x", 1)], 1);
    for caller in ["web", "tag", "all"] {
        assert_eq!(world.told(caller), change, "{caller}");
    }
    assert_eq!(world.reply("mail"), None);
    world.pass(1000);
    assert_eq!(world.told("mail"), (vec![], 1), "it is moved on nevertheless");
}

#[test]
fn filters_say_what_else_a_watcher_wants() {
    let mut world = World::new();
    let filters = [
        ("version", json!({"version": ">=2"})),
        ("room", json!({"metadata": {"room": 7}})),
        ("tags", json!({"tags": ["north", "web"]})),
        ("both", json!({"service_type": "web", "metadata": {"room": 8}})),
    ];
    for (caller, filter) in &filters {
        world.ask(caller, watch(0, with(filter.clone(), json!({"wait": 10}))));
    }
    world.register_as("x", json!({"version": "1.0.0", "metadata": {"room": 7}}));
    world.pass(0);
    assert_eq!(world.told("room"), (vec![event("register", "x", 1)], 1));
    world.register_as("y", json!({"version": "2.1.0", "tags": ["north"]}));
    world.pass(0);
    for caller in ["version", "tags"] {
        assert_eq!(world.told(caller), (vec![event("register", "y", 2)], 2), "{caller}");
    }
    assert_eq!(world.reply("both"), None);
    let past = |world: &mut World, filter: &Value| world.watched(watch(0, filter.clone())).0;
    assert_eq!(past(&mut world, &filters[0].1), [event("register", "y", 2)]);
    assert_eq!(past(&mut world, &filters[3].1), []);
}

#[test]
fn a_service_that_is_no_longer_wanted_leaves() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("web", watch(1, json!({"service_type": "web", "wait": 10})));
    world.ask("mail", watch(1, json!({"service_type": "mail", "wait": 10})));
    world.ask("other", watch(1, json!({"service_type": "other", "wait": 10})));
    world.register("x", "mail");
    world.pass(0);
    let web = world.reply("web").unwrap();
    assert_eq!(told(&web), (vec![event("leave", "x", 2)], 2));
    let mut published = world.events.last().unwrap().clone();
    assert_eq!(published["type"], "register", "subscribers know no other word");
    published["type"] = "leave".into();
    assert_eq!(web["changes"][0], published);
    assert_eq!(world.told("mail"), (vec![event("register", "x", 2)], 2));
    assert_eq!(world.reply("other"), None);
    // Whoever has seen it leave is not told that it goes.
    world.call(deregister("x"));
    assert_eq!(world.watched(watch(2, json!({"service_type": "web"}))), (vec![], 3));
    let mail = world.watched(watch(2, json!({"service_type": "mail"})));
    assert_eq!(mail, (vec![event("deregister", "x", 3)], 3));
    // With more than types nobody knows whether the old one was wanted: better once too often.
    world.register_as("y", json!({"metadata": {"room": 7}}));
    world.register_as("y", json!({"metadata": {"room": 8}}));
    world.register_as("z", json!({"metadata": {"room": 8}}));
    let room = world.watched(watch(3, json!({"metadata": {"room": 7}}))).0;
    assert_eq!(room, [event("register", "y", 4), event("leave", "y", 5)]);
}

#[test]
fn what_is_rare_is_found_among_much_else_a_part_at_a_time() {
    let mut world = World::with(Policy { pending_changes_max: 100_000, ..policy() });
    world.register("first", "rare");
    for number in 0..20_000 {
        world.ask("r", register(&format!("s{}", number % 100), "web"));
        if number % 1000 == 0 {
            world.store();
            world.replies.clear();
        }
    }
    world.store();
    world.register("last", "rare");
    world.replies.clear();
    let (mut after, mut found, mut replies) = (0, Vec::new(), 0);
    while after < 20_002 {
        let (changes, bookmark) = world.watched(watch(after, json!({"service_type": "rare", "wait": 10})));
        assert!(bookmark > after, "no progress at {after}");
        found.extend(changes);
        (after, replies) = (bookmark, replies + 1);
    }
    assert_eq!(found, [event("register", "first", 1), event("register", "last", 20_002)]);
    assert!((3..100).contains(&replies), "{replies} replies");
    // One request is a fraction of a millisecond of work.
    let after = |world: &mut World, filter: Value| world.watched(watch(1, filter)).1;
    assert!((200..=500).contains(&after(&mut world, json!({"service_type": "rare"}))));
    assert!((30..=250).contains(&after(&mut world, json!({"metadata": {"n": 7}}))), "a record takes longer");
}

#[test]
fn many_watchers_are_answered_over_several_turns_and_share_what_they_are_told() {
    const COUNT: usize = 1000;
    let mut world = World::new();
    for _ in 0..COUNT {
        world.ask("w", watch(0, json!({"wait": 10})));
    }
    world.ask("r", register("x", "web"));
    let group = world.group();
    world.registry.committed(Ok(vec![Outcome::Done; group.len()]), world.now, &mut world.out);
    let mut pieces = Vec::new();
    let mut turns = 0;
    while world.registry.is_watched() {
        world.registry.tick(world.now, &mut world.out);
        let replies = world.out.replies.drain(..).filter(|(to, _)| *to == "w");
        let bodies: Vec<_> = replies.map(|(_, reply)| reply.finish(None)).collect();
        assert!(bodies.len() <= 256, "{} in one turn", bodies.len());
        assert_eq!(world.registry.wake_at_ms() == 0, world.registry.is_watched());
        pieces.extend(bodies.iter().map(|body| body.shared()[0].as_ptr()));
        turns += 1;
    }
    assert_eq!((pieces.len(), turns >= 4), (COUNT, true));
    assert!(pieces.iter().all(|piece| *piece == pieces[0]), "they have copies");
}

#[test]
fn what_happens_while_watchers_are_being_answered_is_told_once() {
    let mut world = World::new();
    for _ in 0..300 {
        world.ask("w", watch(0, json!({"wait": 10, "service_type": "web"})));
    }
    world.ask("r", register("x", "web"));
    world.store();
    world.registry.tick(world.now, &mut world.out);
    world.take_output();
    // Some have their answer, and ask for more at once.
    world.ask("again", watch(1, json!({"wait": 10, "service_type": "web"})));
    assert_eq!(world.reply("again"), None);
    world.ask("r", register("y", "web"));
    world.store();
    world.pass(0);
    assert_eq!(world.told("again"), (vec![event("register", "y", 2)], 2));
    let mut counts = std::collections::BTreeMap::new();
    while let Some(reply) = world.reply("w") {
        *counts.entry(told(&reply).0.len()).or_insert(0) += 1;
    }
    assert_eq!(counts, std::collections::BTreeMap::from([(1, 300)]));
}

#[test]
fn so_many_may_wait_and_no_more() {
    let mut world = small(100, 1 << 20);
    for caller in ["a", "b", "c", "d"] {
        world.ask(caller, watch(0, json!({"wait": 10})));
    }
    let refusal = world.reply("d").unwrap();
    assert_eq!((&refusal["code"], &refusal["success"]), (&json!("overloaded"), &json!(false)));
    assert_eq!(world.watched(watch(0, json!({}))), (vec![], 0), "who does not wait is answered");
    world.registry.drop_gone(|caller| *caller == "b", world.now);
    world.ask("d", watch(0, json!({"wait": 10})));
    assert_eq!(world.reply("d"), None, "b has left");
    world.register("x", "web");
    world.pass(0);
    assert!(["a", "c", "d"].iter().all(|caller| world.reply(caller).is_some()));
    assert_eq!(world.reply("b"), None);
}

#[test]
fn a_host_that_stops_answers_all_who_wait() {
    let mut world = World::new();
    world.register("x", "web");
    for _ in 0..600 {
        world.ask("w", watch(1, json!({"wait": 600})));
    }
    world.registry.end_watches();
    assert_eq!(world.registry.wake_at_ms(), 0);
    for _ in 0..3 {
        world.registry.tick(world.now, &mut world.out);
    }
    world.take_output();
    assert!(!world.registry.is_watched());
    for _ in 0..600 {
        assert_eq!(world.told("w"), (vec![], 1));
    }
    assert_eq!(world.watched(watch(1, json!({"wait": 600}))), (vec![], 1), "nobody waits any more");
}

#[test]
fn who_joins_others_that_are_still_to_be_told_is_not_told_what_it_knows() {
    let mut world = World::new();
    world.ask("w", watch(0, json!({"wait": 10, "service_type": "web"})));
    world.register("x", "web");
    world.ask("again", watch(1, json!({"wait": 10, "service_type": "web"})));
    world.pass(0);
    assert_eq!((world.told("w"), world.reply("again")), ((vec![event("register", "x", 1)], 1), None));
    world.register("y", "web");
    world.pass(0);
    assert_eq!(world.told("again"), (vec![event("register", "y", 2)], 2));
}
