//! No service is heard of, though heartbeats are due: then it may be the host that is cut off.

use super::*;

/// A fleet of which nobody was heard of for so long, from the first moment on, until somebody else registered.
fn silent(services: usize, ms: u64) -> World {
    let mut world = fleet(services);
    world.pass(ms);
    world.call(register("new", "mail"));
    world
}

#[test]
fn who_was_silent_because_all_were_gets_that_time_on_top() {
    for (silent_ms, more_ms) in [(20_000, 20_000), (31_000, 30_000)] {
        let mut world = silent(100, silent_ms);
        assert_eq!(world.out.forgiven, [silent_ms]);
        assert_eq!(world.health("s7").as_deref(), Some("passing"), "all have run out after 30 s");
        assert!(world.discover("web").is_some());
        world.pass(30_000 + more_ms - silent_ms);
        assert_eq!(world.health("s7").as_deref(), Some("passing"));
        world.pass(1);
        assert_eq!(world.health("s7").as_deref(), Some("critical"));
    }
    assert!(silent(9, 31_000).out.forgiven.is_empty(), "of few nothing is expected");
    assert!(silent(100, 14_999).out.forgiven.is_empty(), "they are not late");
}

#[test]
fn nobody_is_judged_in_a_silence_but_it_is_no_shelter() {
    let mut world = fleet(100);
    for number in 0..50 {
        let mut request = register(&format!("s{number}"), "web");
        request["ttl"] = 10.into();
        world.call(request);
    }
    world.live_in_silence(29_900);
    assert!(world.notices().is_empty() && world.now.uptime_ms < world.registry.wake_at_ms(), "it sleeps meanwhile");
    world.live_in_silence(300);
    assert!(world.held().is_some(), "it is longer than the hold");
}

#[test]
fn what_others_ask_ends_no_silence() {
    let mut world = fleet(100);
    for _ in 0..40 {
        world.live_in_silence(1000);
        let discover = json!({"action": "discover", "service_type": "web"});
        for request in [json!({"action": "health"}), json!({"action": "list"}), discover] {
            world.call(request);
        }
    }
    assert!(world.out.forgiven.is_empty());
    let critical = world.call(end("remove"))["critical"].as_u64().unwrap();
    assert!(critical > 90, "an operator means those that are critical, not {critical}");
    world.call(register("s1", "web"));
    assert_eq!(world.out.forgiven, [40_000]);
}

#[test]
fn who_is_gone_goes_however_often_there_is_silence() {
    let mut world = fleet(100);
    // One lives, and what is between its heartbeats counts as silence each time.
    for _ in 0..8 {
        world.call(renew("s0"));
        world.live_in_silence(16_000);
    }
    assert!(world.out.forgiven.len() > 1, "{:?}", world.out.forgiven);
    assert_eq!(world.registry.len(), 1);
}

#[test]
fn who_beats_together_with_all_others_makes_no_silence() {
    let mut world = fleet(100);
    for _ in 0..20 {
        (0..100).for_each(|number| drop(world.call(renew(&format!("s{number}")))));
        world.live_in_silence(10_000);
    }
    assert!(world.out.forgiven.is_empty());
}

#[test]
fn who_ran_out_before_was_silent_by_itself_and_who_is_heard_of_needs_nothing() {
    let mut world = fleet(100);
    world.live_with(31_000, 1..100);
    assert_eq!(world.health("s0").as_deref(), Some("critical"));
    world.pass(16_000);
    world.call(renew("s1"));
    assert_eq!(world.out.forgiven.len(), 1);
    assert_eq!(world.health("s0").as_deref(), Some("critical"));
    world.pass(18_000);
    assert_eq!(world.health("s2").as_deref(), Some("passing"), "the silence does not count");
    world.pass(12_001);
    assert_eq!(world.health("s1").as_deref(), Some("critical"), "a full ttl and no more");
}

#[test]
fn ten_have_to_be_late() {
    for (short, is_silence) in [(9, false), (10, true)] {
        let mut world = fleet(short);
        for number in 0..100 {
            let mut request = register(&format!("long{number}"), "web");
            request["ttl"] = 3600.into();
            world.call(request);
        }
        // Those with the same ttl that come and go leave no trace.
        world.call(register("gone", "web"));
        world.call(deregister("gone"));
        world.pass(16_000);
        world.call(renew("s1"));
        assert_eq!(!world.out.forgiven.is_empty(), is_silence, "{short}");
    }
}

#[test]
fn a_silence_is_told_once_and_an_operator_can_end_it() {
    let silence = |world: &mut World| world.call(json!({"action": "health"}))["silence"].clone();
    for way in ["remove", "keep"] {
        let mut world = fleet_held_for(100, 60_000);
        world.live_in_silence(14_000);
        assert_eq!((world.out.silent_ms, silence(&mut world)), (None, Value::Null));
        world.live_in_silence(1000);
        assert_eq!(world.out.silent_ms.take(), Some(15_000));
        assert_eq!(silence(&mut world)["since"], 1_700_000_000);
        world.live_in_silence(14_000);
        assert_eq!(world.out.silent_ms, None, "once is enough");
        world.pass(1001);
        assert_eq!(world.call(end(way))["critical"], 100, "{way}");
        world.live_in_silence(100);
        assert_eq!(world.registry.len(), if way == "keep" { 100 } else { 0 });
    }
}

#[test]
fn who_beats_for_nobody_ends_no_silence() {
    const OWNER: Principal = Principal::Key(PublicKey::from_bytes([1; 32]));
    const STRANGER: Principal = Principal::Key(PublicKey::from_bytes([2; 32]));
    let rule = |client: Principal, right: Right| Grant {
        clients: client.key().map(|key| HashSet::from([*key])),
        allow: HashSet::from([right]),
        types: Vec::new(),
        names: Vec::new(),
    };
    let access = Access::by_rules(vec![rule(OWNER, Right::Register), rule(STRANGER, Right::Read)]);
    let mut world = World::with(Policy { mass_expiry_share: 0.2, access, ..policy() });
    for number in 0..20 {
        world.call_with(OWNER, register(&format!("s{number}"), "web"));
    }
    world.live_in_silence(20_000);
    let many = |ids: [&str; 2]| json!({"action": "renew", "services": ids});
    let update = json!({"action": "update", "service_id": "s1", "metadata": {"a": 1}});
    for request in
        [renew("nobody"), renew("s1"), many(["s1", "nobody"]), deregister("s1"), register("x", "web"), update]
    {
        let reply = world.call_with(STRANGER, request.clone());
        assert!(reply["success"] == false || reply["renewed"] == 0, "{request}: {reply}");
        assert!(world.out.forgiven.is_empty(), "{request}");
    }
    let old = json!({"action": "renew", "service_id": "s1", "generation": 1});
    for request in [old, many(["gone", "nobody"]), deregister("s1")] {
        world.call_with(OWNER, request.clone());
        assert!(world.out.forgiven.is_empty(), "{request}: it is no heartbeat");
    }
    let mut other = fleet(20);
    other.live_in_silence(20_000);
    for (world, request) in [(&mut world, many(["nobody", "s2"])), (&mut other, register("x", "web"))] {
        world.call_with(OWNER, request.clone());
        assert_eq!(world.out.forgiven, [20_000], "{request}");
    }
}
