//! What is told of a service's past.

use std::collections::HashSet;

use registry_host::security::access::{Grant, Pattern, Right};
use registry_host::security::origin::{Address, Origin};

use super::*;

const ONE: PublicKey = PublicKey::from_bytes([1; 32]);
const OTHER: PublicKey = PublicKey::from_bytes([2; 32]);

fn origin(principal: Principal, address: &str) -> Origin {
    Origin { principal, address: Address::Tcp(address.parse().unwrap()) }
}

fn ask(world: &mut World, origin: Origin, request: Value) -> Value {
    let request = parse(request.to_string().as_bytes(), Port::Requests, &Limits::default()).request.unwrap();
    world.registry.request("by", origin, request, world.now, &mut world.out);
    world.take_output();
    world.store();
    world.reply("by").expect("a request is answered")
}

fn history(world: &mut World, id: &str) -> Vec<Value> {
    let reply = world.call(json!({"action": "history", "service_id": id}));
    assert_eq!((&reply["success"], &reply["service_id"]), (&json!(true), &json!(id)));
    reply["history"].as_array().unwrap().clone()
}

#[test]
fn the_past_of_a_service_says_what_when_and_by_whom() {
    let mut world = World::new();
    let nobody = |address| origin(Principal::Nobody, address);
    let update = json!({"action": "update", "service_id": "x", "metadata": {"a": 1}});
    let begin = world.now.unix_ms / 1000;
    ask(&mut world, nobody("10.0.0.7:5123"), register("x", "web"));
    world.pass(1000);
    ask(&mut world, nobody("[::ffff:10.0.0.7]:5124"), register("x", "web"));
    ask(&mut world, Origin { address: Address::Ipc, ..Origin::default() }, update);
    ask(&mut world, nobody("10.0.0.9:1"), deregister("x"));
    ask(&mut world, Origin::default(), register("x", "web"));
    world.call(renew("x"));
    world.pass(31_500);
    world.clean_up();
    let by = |address: &str| json!({"address": address});
    let expected = [
        json!({"timestamp": begin, "what": "registered", "by": by("10.0.0.7:5123")}),
        json!({"timestamp": begin + 1, "what": "replaced", "by": by("[::ffff:10.0.0.7]:5124")}),
        json!({"timestamp": begin + 1, "what": "updated", "by": by("ipc")}),
        json!({"timestamp": begin + 1, "what": "deregistered", "by": by("10.0.0.9:1")}),
        json!({"timestamp": begin + 1, "what": "registered"}),
        json!({"timestamp": begin + 32, "what": "expired", "seconds": 31}),
    ];
    assert_eq!(history(&mut world, "x"), expected);
    let last = world.call(json!({"action": "history", "service_id": "x", "limit": 2}));
    assert_eq!(last["history"].as_array().unwrap()[..], expected[4..]);
    assert!(history(&mut world, "y").is_empty());
}

#[test]
fn refusals_are_part_of_it() {
    let everybody = Grant {
        clients: None,
        allow: HashSet::from([Right::Read, Right::Register]),
        types: vec![Pattern::new("web*")],
        names: Vec::new(),
    };
    let mut world = World::with(Policy { access: Access::by_rules(vec![everybody]), ..policy() });
    let one = origin(Principal::Key(ONE), "10.0.0.7:1");
    let other = origin(Principal::Key(OTHER), "10.0.0.8:1");
    let first = ask(&mut world, one, register("x", "web"))["generation"].clone();
    ask(&mut world, one, singleton("y", "web"));
    ask(&mut world, one, register("z", "mail"));
    for request in [register("x", "web"), deregister("x"), renew("x"), renew("x")] {
        assert_eq!(ask(&mut world, other, request)["code"], "forbidden");
    }
    ask(&mut world, one, register("x", "web"));
    let mut old = renew("x");
    old["generation"] = first;
    assert_eq!(ask(&mut world, one, old)["code"], "replaced");
    // Who is not told the id that it would have had finds nothing by it.
    let mut new = singleton("y", "web");
    new["service_info"]["id"] = Value::Null;
    assert_eq!(ask(&mut world, one, new)["code"], "duplicate_service_type");
    let mut shown = |id: &str| {
        let reply = ask(&mut world, one, json!({"action": "history", "service_id": id}));
        let text = |value: &Value| value.as_str().unwrap_or("").to_string();
        let shown = |entry: &Value| {
            let by = if entry["by"]["key"] == ONE.to_string() { "one" } else { "other" };
            let count = entry["count"].as_u64().map(|count| format!(" {count} times")).unwrap_or_default();
            let words: Vec<String> = ["what", "action", "code", "existing_service_id"]
                .map(|key| text(&entry[key]))
                .into_iter()
                .filter(|word| !word.is_empty())
                .collect();
            format!("{} by {by}{count}", words.join(" "))
        };
        reply["history"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(
        shown("x"),
        [
            "registered by one",
            "refused register forbidden by other",
            "refused deregister forbidden by other",
            "refused renew forbidden by other 2 times",
            "replaced by one",
            "refused renew replaced by one",
        ]
    );
    assert_eq!(shown("y"), ["refused register duplicate_service_type x by one"]);
    assert_eq!(shown("z"), ["refused register forbidden by one"]);
}

#[test]
fn what_the_store_refuses_is_part_of_it_and_what_came_to_nothing_is_not() {
    let mut world = World::new();
    world.ask("a", register("x", "web"));
    world.group();
    world.outcome(Ok(vec![Outcome::Refused(failed())]));
    world.ask("b", register("x", "web"));
    let group = world.group();
    world.pass(400);
    world.accept(&group);
    world.store();
    let history = history(&mut world, "x");
    assert_eq!(history.len(), 1, "{history:?}");
    assert_eq!((&history[0]["what"], &history[0]["code"]), (&json!("refused"), &json!("backend_refused")));
}

#[test]
fn only_who_may_read_is_told() {
    let rule = Grant {
        clients: Some(HashSet::from([ONE])),
        allow: HashSet::from([Right::Register]),
        types: Vec::new(),
        names: Vec::new(),
    };
    let mut world = World::with(Policy { access: Access::by_rules(vec![rule]), ..policy() });
    ask(&mut world, Principal::Key(ONE).into(), register("x", "web"));
    let reply = ask(&mut world, Principal::Key(ONE).into(), json!({"action": "history", "service_id": "x"}));
    assert_eq!(reply["code"], "forbidden");
}

/// The same with `tests/linear.rs`, which counts what each costs.
#[test]
fn floods_of_refusals_drive_out_nothing_but_refusals() {
    let rule = Grant {
        clients: None,
        allow: HashSet::from([Right::Read, Right::Register]),
        types: vec![Pattern::new("web")],
        names: Vec::new(),
    };
    let mut world = World::with(Policy { access: Access::by_rules(vec![rule]), ..policy() });
    let by = origin(Principal::Key(ONE), "10.0.0.7:1");
    ask(&mut world, by, register("x", "web"));
    for number in 0..30_000_u32 {
        let id = if number % 2 == 0 { "x".to_string() } else { format!("s{number}") };
        let address = Address::Tcp(std::net::SocketAddr::from((number.to_be_bytes(), 1)));
        let request = register(&id, "mail");
        let request = parse(request.to_string().as_bytes(), Port::Requests, &Limits::default()).request.unwrap();
        world.registry.request("flood", Origin { address, ..by }, request, world.now, &mut world.out);
        world.out.replies.clear();
        world.out.forbidden.clear();
    }
    let reply = ask(&mut world, by, json!({"action": "history", "service_id": "x"}));
    let history = reply["history"].as_array().unwrap();
    assert_eq!((history.len(), &history[0]["what"]), (17, &json!("registered")));
    let reply = ask(&mut world, by, json!({"action": "history", "service_id": "s1"}));
    assert_eq!(reply["history"], json!([]), "the oldest have gone");
}
