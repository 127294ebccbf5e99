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
