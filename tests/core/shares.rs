//! What one client can take of what all share: places to wait, turns.

use std::net::SocketAddr;

use registry_host::registry::Following;
use registry_host::security::origin::Address;

use super::*;

fn from(address: &str) -> Origin {
    let address: SocketAddr = address.parse().expect("an address");
    Origin { principal: Principal::Nobody, address: Address::Tcp(address) }
}

fn with_key(number: u8, address: &str) -> Origin {
    Origin { principal: Principal::Key(PublicKey::from_bytes([number; 32])), ..from(address) }
}

fn waits() -> [Value; 2] {
    let discover = json!({"action": "discover", "service_type": "none", "wait": 600});
    [json!({"action": "watch", "wait": 600}), discover]
}

/// A core in which five may wait, and two of one address.
fn narrow() -> World {
    let following = Following { watchers: 5, watchers_per_address: 2, ..Following::default() };
    World::with(Policy { following, ..policy() })
}

impl World {
    /// Whether this one may wait.
    fn may_wait(&mut self, caller: &'static str, origin: Origin, request: &Value) -> bool {
        self.ask_from(caller, origin, request.clone());
        let Some(reply) = self.reply(caller) else { return true };
        assert_eq!((&reply["success"], &reply["code"]), (&json!(false), &json!("overloaded")), "{reply}");
        false
    }
}

#[test]
fn one_address_can_have_so_many_places_to_wait_and_leaves_the_others() {
    for request in &waits() {
        let mut world = narrow();
        let [watch, discover] = &waits();
        assert!(world.may_wait("greedy", from("10.0.0.1:1000"), watch));
        assert!(world.may_wait("greedy", from("10.0.0.1:1001"), discover));
        world.ask_from("greedy", from("10.0.0.1:1002"), request.clone());
        let reply = world.reply("greedy").unwrap();
        let message = reply["message"].as_str().unwrap();
        assert!(reply["code"] == "overloaded" && message.contains("limits.waiting_watchers_per_address"), "{reply}");
        // A mapped address is the same, and another is not.
        assert!(!world.may_wait("greedy", from("[::ffff:10.0.0.1]:1000"), request));
        assert!(world.may_wait("other", from("10.0.0.2:1000"), request));
        assert!(world.may_wait("other", from("10.0.0.2:1000"), request));
        assert!(world.may_wait("third", from("10.0.0.3:1000"), request));
        world.ask_from("third", from("10.0.0.3:1000"), request.clone());
        let reply = world.reply("third").unwrap();
        assert!(reply["message"].as_str().unwrap().contains("limits.waiting_watchers allows"), "all have {reply}");
        // Who is answered, or gone, has left its place.
        world.pass(100);
        world.registry.drop_gone(|caller| *caller == "greedy", world.now);
        assert!(world.may_wait("greedy", from("10.0.0.1:1000"), request));
        world.register("x", "none");
        world.pass(0);
        world.replies.clear();
        world.call(deregister("x"));
        assert!(world.may_wait("greedy", from("10.0.0.1:1000"), request));
        assert!(world.may_wait("greedy", from("10.0.0.1:1000"), request));
        assert!(!world.may_wait("greedy", from("10.0.0.1:1000"), request));
    }
}

#[test]
fn a_network_and_a_key_count_as_one_and_so_do_all_unix_sockets() {
    let ipc = Origin { address: Address::Ipc, ..Origin::default() };
    let one = "10.0.0.1:1000";
    for (same, other) in [
        ([from("[2001:db8:1:2::1]:7"), from("[2001:db8:1:2:ffff::1]:8")], from("[2001:db8:1:3::1]:7")),
        ([with_key(1, one), with_key(1, "10.0.0.2:1000")], with_key(2, one)),
        ([ipc, ipc], from(one)),
    ] {
        for request in &waits() {
            let mut world = narrow();
            same.iter().for_each(|origin| assert!(world.may_wait("same", *origin, request), "{origin:?}"));
            same.iter().for_each(|origin| assert!(!world.may_wait("same", *origin, request), "{origin:?}"));
            assert!(world.may_wait("other", other, request), "{other:?}");
        }
    }
}

#[test]
fn long_filters_of_one_address_leave_room_for_those_of_others() {
    let mut world = World::new();
    let bulk = "x".repeat(15_000);
    let long = |number: usize| json!({"action": "watch", "wait": 60, "metadata": {"n": number, "bulk": bulk}});
    let full = (0..5000).find(|number| !world.may_wait("long", from("10.0.0.1:1"), &long(*number)));
    assert!((1000..3000).contains(&full.unwrap()), "{full:?}");
    assert!(world.may_wait("other", from("10.0.0.2:1"), &long(0)));
}

impl World {
    /// In how many turns this one is answered, with nobody asking for anything. What happens meanwhile to others is theirs.
    fn turns_until(&mut self, caller: &str) -> (usize, Value) {
        for turns in 0..10_000 {
            if let Some(reply) = self.reply(caller) {
                return (turns, reply);
            }
            self.registry.tick(self.now, &mut self.out);
            self.take_output();
        }
        panic!("{caller} is not answered");
    }

    fn register_long(&mut self, id: &str) {
        let mut request = register(id, "long");
        request["service_info"]["metadata"] = json!({"n": -1, "bulk": "x".repeat(400_000)});
        self.ask("registers", request);
    }
}

#[test]
fn who_waits_for_one_type_does_not_wait_for_those_who_have_much_to_look_at() {
    let mut world = World::with(Policy { services_bytes_max: 1 << 30, ..policy() });
    let wanting = |action: &str, name: &str, n: usize| json!({"action": action, "service_type": name, "metadata": {"n": n}, "wait": 600});
    for number in 0..200 {
        world.ask("many", wanting("watch", "long", number));
        world.ask("many", wanting("discover", "long", number));
    }
    (0..5).for_each(|number| world.register_long(&format!("long{number}")));
    world.store();
    for number in 0..3 {
        let id = format!("short{number}");
        world.ask("discovers", wanting("discover", &id, 7));
        world.ask("watches", wanting("watch", &id, 7));
        world.ask("follows", json!({"action": "watch", "wait": 600}));
        let mut request = register(&id, &id);
        request["service_info"]["metadata"] = json!({"n": 7});
        world.call(request);
        assert_eq!(world.registry.wake_at_ms(), 0, "the others are not done");
        for caller in ["discovers", "watches", "follows"] {
            let (turns, reply) = world.turns_until(caller);
            assert!(turns <= 3 && reply["success"] == true, "{caller}: {turns} turns, {reply}");
        }
    }
    // Nobody of those is forgotten.
    world.pass(0);
    while world.registry.wake_at_ms() == 0 {
        world.registry.tick(world.now, &mut world.out);
    }
    world.take_output();
    world.ask("registers", json!({"action": "update", "service_id": "long1", "metadata": {"n": 7}}));
    world.store();
    for _ in 0..2 {
        let (_, reply) = world.turns_until("many");
        assert!(reply["success"] == true && reply.to_string().contains("long1"));
    }
}

#[test]
fn audiences_are_told_in_turn() {
    let mut world = World::new();
    for _ in 0..1000 {
        world.ask("crowd", json!({"action": "watch", "service_type": "web", "wait": 600}));
    }
    world.ask("one", json!({"action": "watch", "service_type": "web", "version": "1", "wait": 600}));
    let mut request = register("x", "web");
    request["service_info"]["version"] = "1.2.0".into();
    world.call(request);
    assert!(world.turns_until("one").0 <= 1);
    assert!(world.replies.len() < 300 && world.registry.is_watched(), "the crowd is not done");
}

/// A type that is long to search, and to list.
fn large() -> World {
    let mut world = World::with(Policy { services_bytes_max: 1 << 30, pending_changes_max: 500, ..policy() });
    for number in 0..5000 {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
    }
    world
}

#[test]
fn who_searches_for_much_waits_for_itself() {
    let mut world = large();
    let search = |n: usize| json!({"action": "discover", "service_type": "web", "metadata": {"n": n}});
    world.ask_from("first", from("10.0.0.1:1"), search(0));
    let alone = world.turns_until("first").0;
    (1..60).for_each(|n| world.ask_from("greedy", from("10.0.0.1:1"), search(n)));
    // From the same address, too.
    for (caller, origin, n) in [("modest", from("10.0.0.1:2"), 1000), ("same", from("10.0.0.2:1"), 50)] {
        world.ask_from(caller, origin, search(n));
    }
    for caller in ["modest", "same"] {
        let (turns, reply) = world.turns_until(caller);
        assert!(turns < 4 * alone + 4 && reply["code"] == "none_healthy", "{caller}: {turns} turns, one takes {alone}");
    }
    assert!(world.registry.is_searching(), "the others are not done");
    while world.registry.is_searching() {
        world.pass(0);
    }
    assert_eq!(world.replies.len(), 59);
}

#[test]
fn who_lists_much_waits_for_itself() {
    let mut world = large();
    let list = |n: usize| json!({"action": "list", "metadata": {"n": n}});
    (0..60).for_each(|n| world.ask_from("greedy", from("10.0.0.1:1"), list(n)));
    world.ask_from("modest", from("10.0.0.2:1"), list(1000));
    let mut before = 0;
    while world.reply("modest").is_none() {
        world.registry.continue_lists(true, world.now, &mut world.out);
        world.take_output();
        before = world.replies.len();
    }
    assert!(before <= 3, "{before} lists before it");
    while world.registry.has_lists() {
        world.registry.continue_lists(true, world.now, &mut world.out);
    }
    world.take_output();
    assert_eq!(world.replies.len(), 60);
}

#[test]
fn reads_that_take_long_are_put_off_and_nobody_waits_for_anothers() {
    let mut world = large();
    let following = json!({"action": "watch", "epoch": "e", "after": 0, "metadata": {"n": -1}});
    world.registry.load(stored("long", "t"), world.now).unwrap();
    let mut long = register("long", "t");
    long["service_info"]["bulk"] = "x".repeat(900_000).into();
    world.call(long);
    let filtered = json!({"metadata": {"n": -1}, "service_type": "t"});
    let many = json!({"action": "renew", "services": (0..1000).map(|number| format!("s{number}")).collect::<Vec<_>>()});
    for (request, code) in [
        (json!({"action": "list", "limit": 10, "metadata": {"n": -1}}), None),
        (json!({"action": "list", "limit": 1000}), None),
        (json!({"action": "list", "limit": 1, "fields": [], "service_type": "t"}), None),
        (json!({"action": "discover", "service_type": "t", "fields": []}), None),
        (json!({"action": "discover", "service_type": "t", "metadata": filtered["metadata"]}), Some("none_healthy")),
        (following, None),
        (json!({"action": "history", "service_id": "long"}), None),
    ] {
        world.pass(0);
        for _ in 0..90 {
            world.ask_from("greedy", from("10.0.0.1:1"), request.clone());
            world.ask_from("greedy", from("10.0.0.1:1"), request.clone());
        }
        let at_once = world.replies.len();
        assert!((1..=140).contains(&at_once), "{request}: {at_once} of 180 at once");
        world.ask_from("modest", from("10.0.0.1:2"), request.clone());
        assert_eq!(world.registry.wake_at_ms(), 0);
        assert!(world.turns_until("modest").0 <= 2, "{request}");
        assert_eq!(world.call(json!({"action": "health"}))["status"], "ok", "what is short is answered at once");
        while world.registry.has_put_off() {
            let before = world.replies.len();
            world.registry.tick(world.now, &mut world.out);
            world.take_output();
            assert!(world.replies.len() - before <= 140, "{request}: {} in one turn", world.replies.len() - before);
        }
        assert_eq!(world.replies.len(), 180, "{request}");
        let is_right = |reply: &Value| reply.get("code").and_then(Value::as_str) == code;
        assert!(world.replies.drain(..).all(|(_, reply)| is_right(&reply)), "{request}");
    }
    for _ in 0..1000 {
        world.ask_from("greedy", from("10.0.0.1:1"), json!({"action": "list", "limit": 10, "metadata": {"n": -1}}));
    }
    let overloaded = world.replies.iter().filter(|(_, reply)| reply["code"] == "overloaded").count();
    assert!((700..800).contains(&overloaded), "half of pending_changes_max may wait: {overloaded} were refused");
    world.ask_from("beats", from("10.0.0.1:1"), many);
    assert_eq!(world.reply("beats").unwrap()["renewed"], 1000, "heartbeats wait for nobody");
    world.ask_from("modest", from("10.0.0.2:1"), json!({"action": "list", "limit": 10, "metadata": {"n": -1}}));
    assert_eq!(world.turns_until("modest").1["success"], true);
}

#[test]
fn small_updates_of_a_long_record_leave_the_others_their_history() {
    let following = Following { bytes: 8 << 20, ..Following::default() };
    let mut world = World::on(Policy { following, ..policy() }, Promises { history: true, ..Promises::default() });
    world.register("x", "web");
    world.register_long("long");
    world.store();
    let update = |n: usize| json!({"action": "update", "service_id": "long", "metadata": {"n": n}});
    let mut forgotten = 0;
    for n in 0..75 {
        world.ask("updates", update(n));
        let group = world.registry.next_group(world.now, &mut world.out).unwrap();
        forgotten = group.forget_before;
        world.accept(&group.changes);
    }
    world.register("y", "web");
    assert!((55..75).contains(&forgotten), "the store keeps all, within the same bytes: {forgotten}");
    let web = world.watched(json!({"action": "watch", "epoch": "e", "after": 0, "service_type": "web"}));
    assert_eq!(web, (vec![event("register", "x", 1), event("register", "y", 78)], 78), "after 30 MB of updates");
    // Who follows the long one has its latest state, and some before.
    let long = json!({"action": "watch", "epoch": "e", "after": 0, "service_type": "long"});
    let (mut after, mut seen) = (0, Vec::new());
    while after < 78 {
        let mut request = long.clone();
        request["after"] = after.into();
        let (changes, bookmark) = world.watched(request);
        seen.extend(changes.into_iter().map(|(_, _, revision)| revision));
        after = bookmark;
    }
    assert!((2..=4).contains(&seen.len()) && seen.ends_with(&[76, 77]), "{seen:?}");
    // As soon as it is another service there is something to miss, and that is told.
    let mut moved = register("long", "moved");
    moved["service_info"]["bulk"] = "x".repeat(400_000).into();
    world.call(moved);
    world.ask("updates", update(100));
    world.store();
    world.call(deregister("long"));
    let mut request = long.clone();
    let mut kinds = Vec::new();
    request["after"] = 77.into();
    kinds.extend(world.watched(request.clone()).0.into_iter().map(|(kind, _, revision)| (kind, revision)));
    assert_eq!(kinds, [("leave".into(), 79)]);
    (request["service_type"], request["after"]) = ("moved".into(), 79.into());
    let moved = world.watched(request).0;
    assert_eq!(moved.last().unwrap(), &event("deregister", "long", 81));
}
