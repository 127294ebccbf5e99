//! Pages, filters and fields of lists: each page short, all of them together exact.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;

use super::*;

/// A service as a store keeps it, with these types and these members more in its document.
pub(super) fn detailed(id: &str, types: &[&str], more: &str) -> Record {
    let mut record = Record::new(id, format!("{{\"id\":\"{id}\",\"name\":\"N\",\"host\":\"h\",\"port\":1{more}}}"));
    record.types = types.iter().map(|name| name.to_string()).collect();
    record.ttl_ms = 30_000;
    record
}

impl World {
    pub(super) fn load(&mut self, id: &str, types: &[&str], more: &str) {
        self.registry.load(detailed(id, types, more), self.now).unwrap();
    }

    /// All pages of a list, each with its ids.
    fn pages(&mut self, request: Value) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut request = request;
        loop {
            let reply = self.call(request.clone());
            assert_eq!((&reply["success"], &reply["epoch"]), (&json!(true), &json!("e")), "{reply}");
            pages.push(ids(&reply));
            assert!(pages.len() < 10_000, "it does not end");
            let Some(cursor) = reply.get("cursor") else { return pages };
            request["cursor"] = cursor.clone();
        }
    }
}

pub(super) fn ids(reply: &Value) -> Vec<String> {
    let services = reply["services"].as_array().unwrap_or_else(|| panic!("{reply}"));
    services.iter().map(|service| service["id"].as_str().unwrap().to_string()).collect()
}

/// What a service with this number has: a type for all, one for each fifth, one for each hundredth, and metadata.
fn fill(world: &mut World, count: usize) {
    for number in 0..count {
        let mut types = vec!["all"];
        types.extend((number % 5 == 0).then_some("fifth"));
        types.extend((number % 100 == 0).then_some("rare"));
        let more = format!(",\"metadata\":{{\"tenth\":{}}},\"version\":\"1.{}.0\"", number % 10 == 0, number % 4);
        world.load(&format!("s{number}"), &types, &more);
    }
}

#[test]
fn each_service_is_on_one_page_whatever_is_asked_for() {
    // Few, whose slots are put in order, and so many that slots are gone through.
    for count in [300, 3000] {
        let mut world = World::new();
        fill(&mut world, count);
        let numbers = |step: usize| (0..count).step_by(step).map(|n| format!("s{n}")).collect::<BTreeSet<_>>();
        for (limit, filter, expected) in [
            (1, json!({}), numbers(1)),
            (100, json!({}), numbers(1)),
            (10_000, json!({}), numbers(1)),
            (7, json!({"service_type": "fifth"}), numbers(5)),
            (7, json!({"service_type": "all", "tags": ["rare"]}), numbers(100)),
            (1, json!({"tags": ["rare", "fifth"]}), numbers(100)),
            (7, json!({"metadata": {"tenth": true}}), numbers(10)),
            (7, json!({"service_type": "fifth", "metadata": {"tenth": true}, "version": "*"}), numbers(10)),
            (7, json!({"version": "1.0"}), numbers(1)),
            (7, json!({"version": "~1.0"}), numbers(4)),
            (7, json!({"service_type": "nothing"}), BTreeSet::new()),
        ] {
            let mut request = filter.clone();
            request["action"] = "list".into();
            request["limit"] = limit.into();
            let pages = world.pages(request.clone());
            assert!(pages.iter().all(|page| page.len() <= limit), "{filter}");
            let all: Vec<String> = pages.concat();
            assert_eq!(all.len(), expected.len(), "{filter}: each once");
            assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), expected, "{filter}");
            // The whole list is the same.
            request.as_object_mut().unwrap().remove("limit");
            world.ask("whole", request);
            world.finish_lists();
            assert_eq!(ids(&world.reply("whole").unwrap()).into_iter().collect::<BTreeSet<_>>(), expected, "{filter}");
        }
    }
}

/// A client that lists in pages while others change things, and applies the changes since the first page to what it
/// has, knows exactly what there is.
#[test]
fn pages_and_the_changes_since_the_first_are_exact() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        let count = if seed % 2 == 0 { 40 } else { 800 };
        fill(&mut world, count);
        let touched_max = count / 4;
        let mut touched = BTreeSet::new();
        let filter = [json!({}), json!({"service_type": "fifth"}), json!({"metadata": {"tenth": true}})];
        let mut request = filter[rng.random_range(0..3)].clone();
        request["action"] = "list".into();
        request["limit"] = rng.random_range(1..=9).into();
        let wanted = |types: &str, tenth: bool| match (&request["service_type"], &request["metadata"]) {
            (Value::String(_), _) => types.contains("fifth"),
            (_, Value::Object(_)) => tenth,
            _ => true,
        };
        let mut known: BTreeMap<String, Value> = BTreeMap::new();
        let (mut seen, mut revision) = (Vec::new(), None);
        let mut asked = request.clone();
        loop {
            let reply = world.call(asked.clone());
            assert_eq!(*revision.get_or_insert(reply["revision"].clone()), reply["revision"], "of the first page");
            for service in reply["services"].as_array().unwrap() {
                let id = service["id"].as_str().unwrap().to_string();
                seen.push(id.clone());
                known.insert(id, lasting(service));
            }
            let Some(cursor) = reply.get("cursor") else { break };
            asked["cursor"] = cursor.clone();
            for _ in 0..rng.random_range(0..4) {
                if touched.len() > touched_max {
                    break;
                }
                let id = format!("s{}", rng.random_range(0..count + 20));
                touched.insert(id.clone());
                match rng.random_range(0..3) {
                    0 => drop(world.call(deregister(&id))),
                    _ => {
                        let tags = if rng.random_bool(0.5) { json!(["all", "fifth"]) } else { json!(["all"]) };
                        let metadata = json!({"tenth": rng.random_bool(0.5)});
                        let info =
                            json!({"id": id, "name": "N", "host": "h", "port": 1, "tags": tags, "metadata": metadata});
                        world.call(json!({"action": "register", "service_info": info}));
                    }
                }
            }
        }
        for event in &world.events {
            assert!(event["revision"].as_u64() > revision.as_ref().unwrap().as_u64());
            let (id, info) = (event["data"]["service_id"].as_str().unwrap(), &event["data"]["service_info"]);
            let is_wanted = wanted(&info["tags"].to_string(), info["metadata"]["tenth"] == true);
            match event["type"].as_str() {
                Some("register") if is_wanted => drop(known.insert(id.into(), lasting(info))),
                _ => drop(known.remove(id)),
            }
        }
        request.as_object_mut().unwrap().remove("limit");
        world.ask("whole", request.clone());
        world.finish_lists();
        let whole = world.reply("whole").unwrap();
        let expected: BTreeMap<String, Value> =
            ids(&whole).into_iter().zip(whole["services"].as_array().unwrap().iter().map(lasting)).collect();
        assert_eq!(known, expected, "seed {seed}: {request}");
        for id in expected.keys().filter(|id| !touched.contains(*id)) {
            assert_eq!(seen.iter().filter(|seen| *seen == id).count(), 1, "seed {seed}: {id} was not touched");
        }
    }
}

fn lasting(service: &Value) -> Value {
    let mut service = service.clone();
    service.as_object_mut().unwrap().retain(|field, _| field != "last_heartbeat" && field != "health");
    service
}

#[test]
fn a_service_whose_slot_moves_between_pages_is_told_of_and_one_that_stays_is_not_missed() {
    let mut world = World::new();
    (0..10).for_each(|number| world.load(&format!("s{number}"), &["web"], ""));
    let first = world.call(json!({"action": "list", "limit": 4}));
    assert_eq!(ids(&first), ["s0", "s1", "s2", "s3"]);
    // Frees a slot that has been passed and one that has not, which are then taken the other way round.
    for id in ["s9", "s0"] {
        world.call(deregister(id));
    }
    world.register("s9", "web");
    world.register("new", "web");
    let rest = world.call(json!({"action": "list", "limit": 100, "cursor": first["cursor"]}));
    assert_eq!(ids(&rest), ["s4", "s5", "s6", "s7", "s8", "new"]);
    assert_eq!((&rest["revision"], rest.get("cursor")), (&json!(0), None));
    let told: Vec<_> = world.take_events().into_iter().map(|(kind, id, _)| format!("{kind} {id}")).collect();
    assert_eq!(told, ["deregister s9", "deregister s0", "register s9", "register new"]);
}

#[test]
fn a_cursor_of_something_else_is_told_to_list_again() {
    let mut world = World::new();
    (0..10).for_each(|number| world.load(&format!("s{number}"), &["web"], ""));
    world.register("a", "web");
    let cursor = world.call(json!({"action": "list", "limit": 2, "service_type": "web"}))["cursor"].clone();
    let go_on = |more: Value| {
        let mut request = json!({"action": "list", "cursor": cursor, "service_type": "web"});
        more.as_object().unwrap().iter().for_each(|(key, value)| request[key] = value.clone());
        request
    };
    let rest = world.call(go_on(json!({"fields": ["id"]})));
    assert_eq!((ids(&rest).len(), rest.get("cursor")), (9, None), "without a limit it is a page all the same");
    for request in
        [go_on(json!({"service_type": "mail"})), go_on(json!({"service_type": null})), go_on(json!({"tags": ["x"]}))]
    {
        let reply = world.call(request);
        assert_eq!((&reply["success"], &reply["code"]), (&json!(false), &json!("compacted")), "{reply}");
        assert_eq!((&reply["epoch"], &reply["revision"]), (&json!("e"), &json!(1)));
    }
    // The host has been started again.
    let rng = StdRng::seed_from_u64(8);
    let mut other = World::new();
    other.registry = Registry::new(policy(), Promises::default(), About::default(), Position::new("e", 1), rng);
    other.register("a", "web");
    let types = json!({"action": "types", "cursor": format!("1.2.{}", "web")});
    for request in [go_on(json!({})), types] {
        assert_eq!(other.call(request)["code"], "compacted");
    }
    let garbage = world.call(go_on(json!({"cursor": "next"})));
    assert_eq!((&garbage["code"], &garbage["field"]), (&json!("invalid_request"), &json!("cursor")));
}

#[test]
fn a_page_is_short_and_takes_no_longer_in_a_large_registry() {
    let mut world = World::new();
    world.load("first", &["rare", "all"], "");
    (0..20_000).for_each(|number| world.load(&format!("s{number}"), &["all"], ",\"metadata\":{\"n\":1}"));
    world.load("last", &["rare", "all"], "");
    let rare = world.pages(json!({"action": "list", "service_type": "rare", "limit": 1}));
    assert_eq!(rare, [["first"], ["last"]], "others of the registry are not looked at");
    let both = world.pages(json!({"action": "list", "service_type": "all", "tags": ["rare"], "limit": 10}));
    assert_eq!(both, [["first", "last"]], "the rarer of the types says where to look");
    let none = world.pages(json!({"action": "list", "metadata": {"n": 2}, "limit": 10}));
    assert!((5..=100).contains(&none.len()), "{} pages, in each of which something has been looked at", none.len());
    assert!(none.iter().all(Vec::is_empty));
    let all = world.pages(json!({"action": "list", "limit": 10_000}));
    assert!(all.len() > 10, "a page of {} services", all[0].len());
    assert_eq!(all.concat().len(), 20_002);
    // What is long is on a page of its own.
    let mut world = World::new();
    let note = "x".repeat(200_000);
    (0..5).for_each(|number| world.load(&format!("s{number}"), &["all"], &format!(",\"note\":\"{note}\"")));
    let pages = world.pages(json!({"action": "list", "limit": 100}));
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1; 5]);
}

/// Slots are not given back when services leave.
#[test]
fn a_registry_that_was_large_once_is_listed_in_few_pages() {
    let mut world = World::with(Policy { pending_changes_max: 100_000, services_bytes_max: 1 << 30, ..policy() });
    (0..20_000).for_each(|number| world.load(&format!("s{number}"), &["web"], ""));
    (0..19_990).for_each(|number| world.ask("gone", deregister(&format!("s{number}"))));
    world.store();
    assert_eq!(world.pages(json!({"action": "list", "limit": 100})).len(), 1);
    assert_eq!(world.pages(json!({"action": "list", "limit": 100, "service_type": "web"})).len(), 1);
}

#[test]
fn fields_are_all_that_is_shown_besides_the_id() {
    let mut world = World::new();
    world.load("a", &["web"], ",\"metadata\":{\"zone\":\"b\"},\"load\":0.5");
    let shown = |world: &mut World, fields: Value| {
        let of = |reply: Value| reply["services"][0].to_string();
        let whole = of(world.call(json!({"action": "list", "fields": fields})));
        assert_eq!(whole, of(world.call(json!({"action": "list", "fields": fields, "limit": 5}))));
        let one = world.call(json!({"action": "discover", "service_type": "web", "fields": fields}));
        assert_eq!(whole, one["service"].to_string());
        whole
    };
    assert_eq!(shown(&mut world, json!(["load", "health", "nothing"])), r#"{"id":"a","load":0.5,"health":"passing"}"#);
    assert_eq!(shown(&mut world, json!(["metadata"])), r#"{"id":"a","metadata":{"zone":"b"}}"#);
    assert_eq!(shown(&mut world, json!([])), r#"{"id":"a"}"#);
    assert!(shown(&mut world, Value::Null).contains("\"port\":1"));
}

#[test]
fn a_long_list_by_filter_shows_the_moment_at_which_it_began() {
    let mut world = World::new();
    for number in 0..5000 {
        world.load(&format!("s{number}"), &["web"], &format!(",\"metadata\":{{\"even\":{}}}", number % 2 == 0));
    }
    let request = json!({"action": "list", "metadata": {"even": true}, "fields": ["metadata"]});
    world.ask("a", request.clone());
    world.ask("same", request);
    world.ask("all", json!({"action": "list", "fields": ["metadata"]}));
    world.registry.continue_lists(true, world.now, &mut world.out);
    for (id, even) in [("s4998", false), ("s4999", true)] {
        let info = json!({"id": id, "name": "N", "host": "h", "port": 1, "metadata": {"even": even}});
        world.call(json!({"action": "register", "service_info": info}));
    }
    world.call(deregister("s4996"));
    world.finish_lists();
    let reply = world.reply("a").unwrap();
    assert_eq!(reply["revision"], 0);
    let found: BTreeSet<String> = ids(&reply).into_iter().collect();
    assert_eq!(found, (0..5000).step_by(2).map(|number| format!("s{number}")).collect());
    assert!(reply["services"].as_array().unwrap().iter().all(|one| one["metadata"] == json!({"even": true})));
    assert!(reply["services"][0].get("name").is_none());
    assert_eq!(world.reply("same").unwrap(), reply);
    assert_eq!(ids(&world.reply("all").unwrap()).len(), 4999, "which is another list");
}

#[test]
fn types_are_told_in_order_with_how_many_there_are() {
    let mut world = World::new();
    world.register("a", "web");
    world.pass(20_000);
    for (id, name) in [("b", "web"), ("c", "mail"), ("d", "Ωmega"), ("e", "a.b")] {
        world.register(id, name);
    }
    world.pass(20_000);
    let reply = world.call(json!({"action": "types"}));
    let expected = concat!(
        r#"{"a.b":{"passing":1,"drained":0,"critical":0},"mail":{"passing":1,"drained":0,"critical":0},"web":{"passing":1,"drained":0,"critical":1},"#,
        r#""Ωmega":{"passing":1,"drained":0,"critical":0}}"#
    );
    assert_eq!(reply["types"].to_string(), expected);
    assert_eq!((&reply["revision"], &reply["epoch"], reply.get("cursor")), (&json!(5), &json!("e"), None));
    let mut request = json!({"action": "types", "limit": 1});
    let mut names = Vec::new();
    loop {
        let page = world.call(request.clone());
        assert_eq!(page["revision"], 5, "of the first page");
        names.extend(page["types"].as_object().unwrap().keys().cloned());
        let Some(cursor) = page.get("cursor") else { break };
        request["cursor"] = cursor.clone();
        // What comes behind is on a later page, what comes before is announced.
        world.register("f", "a");
        world.call(deregister("c"));
    }
    assert_eq!(names, ["a.b", "web", "Ωmega"]);
    assert_eq!(world.call(json!({"action": "types"}))["types"]["mail"], Value::Null);
}

#[test]
fn a_page_of_types_is_short() {
    let mut world = World::new();
    let name = "x".repeat(200);
    (0..2000).for_each(|number| world.load(&format!("s{number}"), &[&format!("{name}{number:04}")], ""));
    let first = world.call(json!({"action": "types"}));
    let told = first["types"].as_object().unwrap().len();
    assert!((300..1000).contains(&told) && first.get("cursor").is_some(), "{told}");
    let second = world.call(json!({"action": "types", "cursor": first["cursor"]}));
    assert_eq!(second["types"].as_object().unwrap().keys().next().unwrap(), &format!("{name}{told:04}"));
}

/// What clients are given back means nothing to them, and whatever they make of it hurts nobody.
#[test]
fn a_forged_cursor_is_refused_in_plain_words() {
    let mut world = World::new();
    fill(&mut world, 100);
    world.register("one", "web");
    for (action, filter) in [("list", json!({"service_type": "all"})), ("types", json!({}))] {
        let mut request = filter.clone();
        (request["action"], request["limit"]) = (action.into(), 1.into());
        let real = world.call(request.clone())["cursor"].as_str().unwrap().to_string();
        let parts: Vec<&str> = real.splitn(if action == "list" { 4 } else { 3 }, '.').collect();
        let with = |place: usize, part: &str| {
            let mut parts = parts.clone();
            parts[place] = part;
            parts.join(".")
        };
        let huge = "f".repeat(16);
        let revision = if action == "list" { 2 } else { 1 };
        let mut forged = vec![with(0, "7"), with(0, &huge), with(revision, "3"), with(revision, &huge)];
        if action == "list" {
            forged.push(with(1, "7"));
        }
        let mut ask = |world: &mut World, cursor: &str| {
            request["cursor"] = cursor.into();
            world.call(request.clone())
        };
        for cursor in &forged {
            let reply = ask(&mut world, cursor);
            assert_eq!((&reply["success"], &reply["code"]), (&json!(false), &json!("compacted")), "{cursor}: {reply}");
            let told = (&reply["error"], &reply["message"], &reply["revision"], &reply["epoch"]);
            let expected = ("The cursor is of another list", "list again from the first page", 1, "e");
            assert_eq!(told, (&json!(expected.0), &json!(expected.1), &json!(expected.2), &json!(expected.3)));
        }
        for cursor in ["x", "....", "-1.2.3.4", &with(0, ""), &with(0, &format!("1{huge}")), &with(0, "+7 ")] {
            let reply = ask(&mut world, cursor);
            assert_eq!((&reply["code"], &reply["field"]), (&json!("invalid_request"), &json!("cursor")), "{cursor}");
            assert!(reply["error"].as_str().unwrap().contains("expected the cursor of the page before"), "{reply}");
        }
        // A place where nobody can be is the end.
        let reply = ask(&mut world, &with(parts.len() - 1, if action == "list" { &huge } else { "zzz" }));
        let shown = if action == "list" { reply["services"] == json!([]) } else { reply["types"] == json!({}) };
        assert!(shown && reply.get("cursor").is_none(), "{reply}");
        assert_eq!(ask(&mut world, &real)["success"], true);
    }
    // Of the same filter, but of another run.
    let mut other = World::with(policy());
    let rng = StdRng::seed_from_u64(8);
    other.registry = Registry::new(policy(), Promises::default(), About::default(), Position::new("e", 1), rng);
    let cursor = world.call(json!({"action": "list", "limit": 1}))["cursor"].clone();
    assert_eq!(other.call(json!({"action": "list", "limit": 1, "cursor": cursor}))["code"], "compacted");
}

#[test]
fn a_page_ends_when_enough_has_been_looked_at() {
    let mut world = World::new();
    fill(&mut world, 5000);
    // Each is about 150 bytes long, and 64 kB are looked at.
    let pages = world.pages(json!({"action": "list", "limit": 10, "metadata": {"tenth": 7}}));
    assert!((10..=25).contains(&pages.len()) && pages.concat().is_empty(), "{} pages", pages.len());
    let pages = world.pages(json!({"action": "list", "limit": 10, "service_type": "rare"}));
    assert_eq!(pages.len(), 5, "those of other types are not looked at");
}
