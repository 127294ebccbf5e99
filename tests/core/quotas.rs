//! How much each client may have, and how often it may ask.

use std::collections::BTreeMap;

use rand::RngExt;
use registry_host::protocol::reply::Reply;
use registry_host::security::access::{Grant, Pattern, Right};
use registry_host::security::origin::{Address, Holder};
use registry_host::security::quota::{Quota, Quotas, Rate, Whose};

use super::*;

const A: Principal = Principal::Key(PublicKey::from_bytes([1; 32]));
const B: Principal = Principal::Key(PublicKey::from_bytes([2; 32]));
const ADMIN_KEY: PublicKey = PublicKey::from_bytes([3; 32]);
const ADMIN: Principal = Principal::Key(ADMIN_KEY);

fn of_services(name: &str, whose: Whose, services: usize, types: &[&str]) -> Quota {
    let types = types.iter().map(|text| Pattern::new(*text)).collect();
    Quota { name: name.into(), clients: vec![whose], services: Some(services), types, requests: None }
}

fn each(services: usize) -> Quotas {
    Quotas::new(vec![of_services("each", Whose::Everybody, services, &[])])
}

/// Clients have keys, and each may have so many services.
fn world(services: usize) -> World {
    let grant = |clients: Option<PublicKey>, allow: &[Right]| Grant {
        clients: clients.map(|key| [key].into()),
        allow: allow.iter().copied().collect(),
        types: Vec::new(),
        names: Vec::new(),
    };
    let rules = vec![grant(None, &[Right::Read, Right::Register]), grant(Some(ADMIN_KEY), &[Right::Admin])];
    let mut world = World::with(Policy { access: Access::by_rules(rules), ..policy() });
    world.registry.set_quotas(each(services));
    world
}

fn from(address: &str) -> Origin {
    Origin { principal: Principal::Nobody, address: Address::Tcp(address.parse().unwrap()) }
}

impl World {
    fn call_from(&mut self, origin: Origin, request: Value) -> Value {
        self.ask_from("call", origin, request);
        self.store();
        self.reply("call").expect("a request is answered")
    }

    /// The code of each reply to this caller, and `ok`.
    fn codes(&mut self, caller: &str) -> Vec<String> {
        let code = |reply: Value| reply["code"].as_str().unwrap_or("ok").to_string();
        std::iter::from_fn(|| self.reply(caller)).map(code).collect()
    }

    fn has(&self, principal: Principal) -> usize {
        self.registry.services_of(&Origin::from(principal).holder())
    }

    fn admit(&mut self, origin: Origin, request: &str) -> Result<(), Reply> {
        let request = parse(request.as_bytes(), Port::Requests, &Limits::default()).request.unwrap();
        self.registry.admit(origin, Some(&request), self.now)
    }
}

fn is_over(reply: &Value) -> bool {
    reply["code"] == "quota_exceeded"
}

#[test]
fn many_at_once_do_not_slip_past() {
    let mut world = world(2);
    for id in ["a", "b", "c", "d", "e"] {
        world.ask_with("A", A, register(id, "web"));
    }
    world.ask_with("B", B, register("f", "web"));
    let group = world.group();
    assert_eq!(group.len(), 3, "what rests on the group is not refused before it has landed");
    world.accept(&group);
    assert_eq!(world.codes("A"), ["ok", "ok", "quota_exceeded", "quota_exceeded", "quota_exceeded"]);
    assert_eq!((world.codes("B"), world.has(A), world.has(B)), (vec!["ok".into()], 2, 1));
    let reply = world.call_with(A, register("g", "web"));
    let message = "the quota \"each\" allows this key 2 services at once, and it has 2";
    assert_eq!(
        (&reply["code"], &reply["message"], &reply["quota"], &reply["limit"]),
        (&json!("quota_exceeded"), &json!(message), &json!("each"), &json!(2))
    );
    let trail = world.call_with(A, json!({"action": "history", "service_id": "g"}));
    assert_eq!(trail["history"][0]["code"], "quota_exceeded", "{trail}");
}

#[test]
fn what_the_store_refuses_takes_no_place() {
    let mut world = world(1);
    world.ask_with("first", A, register("a", "web"));
    world.ask_with("second", A, register("b", "web"));
    assert_eq!(world.group().len(), 1);
    world.outcome(Ok(vec![Outcome::Refused(failed())]));
    assert!(world.codes("second").is_empty(), "it is judged again");
    world.store();
    assert_eq!((world.codes("first"), world.codes("second")), (vec!["backend_refused".into()], vec!["ok".into()]));
    world.call_with(A, deregister("b"));
    world.ask_with("third", A, register("c", "web"));
    world.group();
    world.outcome(Err(failed()));
    world.pass(5000);
    world.store();
    assert_eq!((world.codes("third"), world.has(A)), (vec!["backend_unavailable".into()], 0));
    assert_eq!(world.call_with(A, register("d", "web"))["success"], true);
}

#[test]
fn a_place_that_is_left_in_the_same_group_counts_only_if_it_is_left() {
    for (is_left, codes) in [(true, ["ok", "ok"]), (false, ["backend_refused", "quota_exceeded"])] {
        let mut world = world(1);
        world.call_with(A, register("a", "web"));
        world.ask_with("A", A, deregister("a"));
        world.ask_with("A", A, register("b", "web"));
        assert_eq!(world.group().len(), 2);
        let removed = if is_left { Outcome::Done } else { Outcome::Refused(failed()) };
        world.outcome(Ok(vec![removed, Outcome::Done]));
        assert_eq!((world.codes("A"), world.has(A)), (codes.map(String::from).to_vec(), 1));
        let undone = world.store();
        let taken_back = undone.iter().any(|change| matches!(change, Change::Remove(remove) if remove.id == "b"));
        assert_eq!(taken_back, !is_left, "{undone:?}");
    }
}

#[test]
fn who_registers_again_needs_no_other_place() {
    let mut world = world(2);
    for id in ["a", "b", "a", "b"] {
        assert_eq!(world.call_with(A, register(id, "web"))["success"], true);
    }
    assert_eq!(world.has(A), 2);
    world.registry.set_quotas(each(1));
    assert_eq!(world.call_with(A, register("a", "web"))["success"], true, "a lower quota ends nothing");
    assert_eq!(world.call_with(A, renew("b"))["success"], true);
    assert!(is_over(&world.call_with(A, register("c", "web"))));
    world.ask_with("A", A, deregister("a"));
    world.ask_with("A", A, register("a", "web"));
    world.store();
    assert_eq!(world.codes("A"), ["ok", "quota_exceeded"], "who has left has no place any more");
}

#[test]
fn a_service_that_ends_leaves_its_place() {
    let mut world = world(1);
    world.call_with(A, register("a", "web"));
    world.pass(31_000);
    assert!(is_over(&world.call_with(A, register("b", "web"))), "it is there until it is removed");
    world.clean_up();
    assert_eq!((world.has(A), world.call_with(A, register("b", "web"))["success"].clone()), (0, json!(true)));
}

#[test]
fn a_service_counts_for_whom_it_belongs_to() {
    let mut world = world(1);
    world.call_with(A, register("a", "web"));
    assert_eq!(world.call_with(ADMIN, register("a", "web"))["success"], true);
    assert_eq!((world.has(A), world.has(ADMIN)), (0, 1));
    world.call_with(B, register("b", "web"));
    assert!(is_over(&world.call_with(ADMIN, register("b", "web"))), "an admin has a quota, too");
    assert_eq!((world.has(B), world.has(ADMIN)), (1, 1));
}

#[test]
fn without_keys_an_address_has_a_quota() {
    let mut world = World::new();
    world.registry.set_quotas(each(1));
    let [here, there] = ["10.0.0.1:1", "10.0.0.2:1"].map(from);
    assert_eq!(world.call_from(here, register("a", "web"))["success"], true);
    let refused = world.call_from(from("10.0.0.1:2"), register("b", "web"));
    assert!(
        is_over(&refused) && refused["message"].as_str().unwrap().contains("allows this address 1 service at once")
    );
    assert_eq!(world.call_from(there, register("b", "web"))["success"], true);
    assert!(is_over(&world.call_from(there, register("a", "web"))), "what it takes from another takes a place");
    world.call_from(there, deregister("b"));
    assert_eq!(world.call_from(there, register("a", "web"))["success"], true);
    assert_eq!(world.call_from(here, register("c", "web"))["success"], true, "and leaves the one that it had");
    for (id, address, is_first) in
        [("x", "127.0.0.1:1", true), ("y", "127.0.0.2:1", false), ("y", "[2001:db8::1]:1", true)]
    {
        let reply = world.call_from(from(address), register(id, "web"));
        assert_eq!(reply["success"], is_first, "whoever is on this machine has all its addresses: {address}: {reply}");
    }
    assert!(is_over(&world.call_from(from("[2001:db8::2]:1"), register("z", "web"))), "as with a network of IPv6");
}

#[test]
fn what_was_there_before_a_start_counts() {
    let mut world = world(1);
    world.registry.load(owned("a", "web", A), world.now).unwrap();
    assert!(world.has(A) == 1 && is_over(&world.call_with(A, register("b", "web"))));
    assert_eq!(world.call_with(A, register("a", "web"))["success"], true);

    // Of those that are nobody's it is known again where they are when they are heard of.
    let mut world = World::new();
    world.registry.set_quotas(each(2));
    for id in ["a", "b", "c"] {
        world.registry.load(stored(id, "web"), world.now).unwrap();
    }
    let here = from("10.0.0.1:1");
    assert_eq!(world.registry.services_of(&here.holder()), 0);
    for request in [renew("a"), register("b", "web"), register("c", "web"), renew("a")] {
        assert_eq!(world.call_from(here, request.clone())["success"], true, "{request}");
    }
    assert_eq!(world.registry.services_of(&here.holder()), 3, "none of those that were there is refused");
    assert!(is_over(&world.call_from(here, register("d", "web"))));
    world.call_from(from("10.0.0.2:1"), renew("a"));
    assert_eq!(world.registry.services_of(&here.holder()), 3, "a heartbeat from elsewhere moves nothing");
}

/// What a store has of a service of this client's.
fn owned(id: &str, service_type: &str, owner: Principal) -> Record {
    let mut record = stored(id, service_type);
    let mut document: Value = serde_json::from_str(&record.document).unwrap();
    document["owner_key"] = owner.written().into();
    record.document = document.to_string();
    record
}

#[test]
fn what_a_backup_has_brought_counts() {
    for other_meanwhile in [false, true] {
        let mut world = world(2);
        world.call_with(A, register("a", "web"));
        let mut restored = world.registry.successor(Position::new("f", 7));
        for (id, owner) in [("b", A), ("c", A), ("d", B)] {
            restored.load(owned(id, "cam-1", owner), world.now).unwrap();
        }
        if other_meanwhile {
            let cameras = of_services("cameras", Whose::Everybody, 1, &["cam-*"]);
            world.registry.set_quotas(Quotas::new(vec![of_services("all", Whose::Everybody, 2, &[]), cameras]));
        }
        world.registry.take_over(restored, ADMIN.into(), world.now, &mut world.out);
        while world.registry.is_busy() {
            world.registry.tick(world.now, &mut world.out);
        }
        assert_eq!((world.has(A), world.has(B)), (2, 1));
        assert!(is_over(&world.call_with(A, register("a", "web"))), "{other_meanwhile}");
        assert_eq!(is_over(&world.call_with(B, register("e", "cam-2"))), other_meanwhile);
        assert_eq!(world.call_with(A, deregister("b"))["success"], true);
        assert_eq!(world.call_with(A, register("a", "web"))["success"], true);
    }
}

#[test]
fn services_of_some_types_have_a_quota_of_their_own() {
    let mut world = world(3);
    let quotas = |cameras| {
        let all = of_services("all", Whose::Everybody, 3, &[]);
        Quotas::new(vec![all, of_services("cameras", Whose::Everybody, cameras, &["cam-*"])])
    };
    for number in 0..2 {
        world.call_with(A, register(&format!("a{number}"), "cam-1"));
    }
    world.registry.set_quotas(quotas(2));
    // Until all have been counted by types, the quotas of before hold.
    world.pass(0);
    assert!(is_over(&world.call_with(A, register("c", "cam-2"))));
    assert_eq!(world.call_with(A, register("c", "stage"))["success"], true);
    assert!(is_over(&world.call_with(A, register("d", "stage"))), "of all there are three");
    world.call_with(A, deregister("a0"));
    assert_eq!(world.call_with(A, register("a1", "stage"))["success"], true, "one that becomes something else");
    assert_eq!(world.call_with(A, register("d", "cam-3"))["success"], true);
    assert!(is_over(&world.call_with(A, register("e", "cam-3"))));
}

#[test]
fn other_quotas_hold_when_all_services_are_counted() {
    let mut world = World::with(Policy { services_bytes_max: 1 << 30, ..policy() });
    world.registry.set_quotas(each(100_000));
    for number in 0..10_000 {
        world.registry.load(stored(&format!("s{number}"), "web"), world.now).unwrap();
        world.call(json!({"action": "get", "service_id": "none"}));
    }
    let here = from("10.0.0.1:1");
    for number in 0..5000 {
        world.call_from(here, renew(&format!("s{number}")));
    }
    world.registry.set_quotas(Quotas::new(vec![of_services("web", Whose::Everybody, 5000, &["w*"])]));
    assert!(world.registry.is_busy() && world.call_from(here, register("more", "web"))["success"] == true);
    while world.registry.is_busy() {
        // What changes meanwhile is counted wherever it stands.
        world.call_from(here, deregister("s1"));
        world.call_from(here, register("s1", "web"));
        world.registry.tick(world.now, &mut world.out);
    }
    let refused = world.call_from(here, register("one more", "web"));
    assert!(is_over(&refused) && refused["message"].as_str().unwrap().ends_with("and it has 5001"), "{refused}");
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back_and_heartbeats_always_come_through() {
    let mut world = World::new();
    let requests = Some(Rate { per_second: 2.0, burst: 3.0 });
    let (name, clients) = ("often".into(), vec![Whose::Everybody]);
    world.registry.set_quotas(Quotas::new(vec![Quota { name, clients, services: None, types: vec![], requests }]));
    let [here, there] = ["10.0.0.1:1", "10.0.0.2:1"].map(from);
    let types = r#"{"action":"types"}"#;
    assert!((0..3).all(|_| world.admit(here, types).is_ok()));
    let refusal = world.admit(here, types).unwrap_err();
    assert_eq!(refusal.retry_after_ms(), Some(500));
    let reply: Value = serde_json::from_str(&refusal.finish(None).into_text()).unwrap();
    let message = "the quota \"often\" allows this address 2 requests a second";
    assert_eq!((&reply["code"], &reply["message"]), (&json!("too_many_requests"), &json!(message)));
    assert_eq!((&reply["retry_after"], &reply["quota"], &reply["limit"]), (&json!(0.5), &json!("often"), &json!(2.0)));
    for free in [
        r#"{"action":"renew","service_id":"a"}"#,
        r#"{"action":"renew","services":["a","b"]}"#,
        r#"{"action":"health"}"#,
    ] {
        assert!((0..100).all(|_| world.admit(here, free).is_ok()), "{free}");
    }
    assert!(world.admit(there, types).is_ok(), "another client");
    world.pass(500);
    assert!(world.admit(from("10.0.0.1:7"), types).is_ok() && world.admit(here, types).is_err());
    assert!(world.registry.admit(here, None, world.now).is_err(), "what cannot be read is a request, too");
    world.registry.set_quotas(Quotas::default());
    assert!(world.admit(here, types).is_ok());
}

#[test]
fn operators_are_told_once_in_a_while_and_all_is_counted() {
    let mut world = world(1);
    world.call_with(A, register("a", "web"));
    let refuse = |world: &mut World, times| (0..times).for_each(|_| drop(world.call_with(A, register("b", "web"))));
    refuse(&mut world, 5);
    world.pass(1000);
    refuse(&mut world, 2);
    let told = world.registry.take_exceeded();
    let lines: Vec<(&str, &str, u64)> = told.iter().map(|line| (&*line.quota, &*line.allows, line.before)).collect();
    assert_eq!(lines, [("each", "1 service", 0), ("each", "1 service", 4)]);
    assert_eq!(told[0].origin.principal, A);
    let counts = |world: &World| world.registry.figures().refused_by_quota;
    assert_eq!(counts(&world), [("each".into(), [7, 0])]);
    world.registry.set_quotas(each(9));
    assert_eq!(counts(&world), [("each".into(), [7, 0])], "a quota that stays keeps its count");
    world.registry.set_quotas(Quotas::default());
    assert_eq!(counts(&world), []);
}

/// Whatever clients and the store do, nobody has more than it may, and what is counted is what is there.
#[test]
fn at_random_nobody_has_more_than_it_may() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = world(3);
        let mut refused = 0;
        for _ in 0..60 {
            for _ in 0..rng.random_range(0..12) {
                let (id, who) = (format!("s{}", rng.random_range(0..10)), [A, B, ADMIN][rng.random_range(0..3)]);
                let request = match rng.random_range(0..8) {
                    0..5 => register(&id, "web"),
                    5 => deregister(&id),
                    6 => json!({"action": "update", "service_id": id, "metadata": {"a": rng.random_range(0..9)}}),
                    _ => renew(&id),
                };
                world.ask_with("any", who, request);
            }
            if let Some(group) = world.next_group() {
                let result = match rng.random_range(0..6) {
                    0 => Err(failed()),
                    _ => Ok(group.iter().map(|_| outcome(&mut rng)).collect()),
                };
                world.outcome(result);
            }
            world.pass([0, 0, 10, 500, 20_000][rng.random_range(0..5)]);
            if rng.random_range(0..8) == 0 {
                world.registry.clean_up(world.now);
            }
            refused += world.codes("any").iter().filter(|code| *code == "quota_exceeded").count();
            let list = world.registry_list();
            let mut owned: BTreeMap<String, usize> = BTreeMap::new();
            list.iter().for_each(|owner| *owned.entry(owner.clone()).or_default() += 1);
            for who in [A, B, ADMIN] {
                let has = owned.get(&who.written().unwrap()).copied().unwrap_or_default();
                assert!(has <= 3 && has == world.has(who), "seed {seed}: {has}, counted {}", world.has(who));
            }
        }
        assert!(refused > 0 || seed > 0, "some are refused");
        assert_eq!(world.registry.services_of(&Holder::Unknown), 0);
    }
}

fn outcome(rng: &mut StdRng) -> Outcome {
    if rng.random_range(0..8) == 0 { Outcome::Refused(failed()) } else { Outcome::Done }
}

impl World {
    /// Whose each service is.
    fn registry_list(&mut self) -> Vec<String> {
        self.ask_with("list", ADMIN, json!({"action": "list"}));
        let list = self.reply("list").expect("a short list is made at once");
        let services = list["services"].as_array().unwrap();
        services.iter().map(|service| service["owner_key"].as_str().unwrap().to_string()).collect()
    }
}
