//! The rules of the registry, with the time set by hand and the store played by the test.

use rand::SeedableRng;
use rand::rngs::StdRng;
use registry_host::protocol::request::{Port, parse};
use registry_host::registry::{About, Now, Output, Policy, Registry};
use registry_plugin_api::{Change, Error, Observed, Outcome, Record, RemoveReason};
use serde_json::{Value, json};

/// A core, a clock, and the store's part.
struct World {
    registry: Registry<&'static str>,
    now: Now,
    revision: u64,
    replies: Vec<(&'static str, Value)>,
    events: Vec<Value>,
    queries: Vec<u64>,
    out: Output<&'static str>,
}

fn policy() -> Policy {
    Policy {
        enforce_unique_service_types: false,
        allow_terminate: false,
        reply_timeout_ms: 400,
        cleanup_interval_ms: 10_000,
        call_timeout_ms: 5_000,
        pending_changes_max: 100,
        balances: false,
        watches: false,
    }
}

impl World {
    fn new() -> Self {
        World::with(policy())
    }

    fn with(policy: Policy) -> Self {
        let registry = Registry::new(policy, About::default(), "e".into(), 0, StdRng::seed_from_u64(7));
        let now = Now { uptime_ms: 0, unix_ms: 1_700_000_000_000 };
        World {
            registry,
            now,
            revision: 0,
            replies: Vec::new(),
            events: Vec::new(),
            queries: Vec::new(),
            out: Output::default(),
        }
    }

    fn ask(&mut self, caller: &'static str, request: Value) {
        match parse(request.to_string().as_bytes(), Port::Requests).request {
            Ok(request) => self.registry.request(caller, request, self.now, &mut self.out),
            Err(refusal) => self.out.replies.push((caller, refusal)),
        }
        self.take_output();
    }

    fn take_output(&mut self) {
        let read = |json: String| serde_json::from_str::<Value>(&json).expect("replies and events are JSON");
        self.replies.extend(self.out.replies.drain(..).map(|(caller, reply)| (caller, read(reply.finish(None)))));
        self.events.extend(self.out.events.drain(..).map(|event| read(event.json)));
        self.queries.extend(self.out.queries.drain(..).map(|(ticket, _)| ticket));
    }

    /// Asks, lets the store say yes if the reply depends on it, and gives the reply.
    fn call(&mut self, request: Value) -> Value {
        self.ask("call", request);
        if let Some(reply) = self.reply("call") {
            return reply;
        }
        self.store();
        self.reply("call").expect("a request is answered")
    }

    /// The oldest reply to this caller that was not looked at yet.
    fn reply(&mut self, caller: &str) -> Option<Value> {
        let position = self.replies.iter().position(|(to, _)| *to == caller)?;
        Some(self.replies.remove(position).1)
    }

    /// The store makes groups of changes until there are none, as a store should.
    fn store(&mut self) -> Vec<Change> {
        let mut all = Vec::new();
        while let Some(changes) = self.registry.next_group(self.now) {
            self.accept(&changes);
            all.extend(changes);
        }
        all
    }

    fn accept(&mut self, changes: &[Change]) {
        let outcomes = changes.iter().map(|change| {
            self.revision += u64::from(!matches!(change, Change::Renew { .. }));
            Outcome::Done { revision: self.revision }
        });
        let outcomes = outcomes.collect();
        self.outcome(Ok(outcomes));
    }

    fn outcome(&mut self, result: Result<Vec<Outcome>, Error>) {
        self.registry.committed(result, self.now, &mut self.out);
        self.take_output();
    }

    fn group(&mut self) -> Vec<Change> {
        self.registry.next_group(self.now).expect("there is something to store")
    }

    fn pass(&mut self, ms: u64) {
        self.now.uptime_ms += ms;
        self.now.unix_ms += ms;
        self.registry.tick(self.now, &mut self.out);
        self.take_output();
    }

    fn clean_up(&mut self) {
        self.registry.clean_up(self.now);
        self.store();
    }

    fn register(&mut self, id: &str, service_type: &str) -> Value {
        self.call(register(id, service_type))
    }

    fn discover(&mut self, service_type: &str) -> Option<String> {
        let reply = self.call(json!({"action": "discover", "service_type": service_type}));
        reply["service"]["id"].as_str().map(String::from)
    }

    fn health(&mut self, id: &str) -> Option<String> {
        let reply = self.call(json!({"action": "get", "service_id": id}));
        reply["service"]["health"].as_str().map(String::from)
    }

    fn take_events(&mut self) -> Vec<(String, String, u64)> {
        let show = |event: Value| {
            let text = |value: &Value| value.as_str().unwrap_or("?").to_string();
            let revision = event["revision"].as_u64().unwrap_or(0);
            (text(&event["type"]), text(&event["data"]["service_id"]), revision)
        };
        self.events.drain(..).map(show).collect()
    }
}

fn register(id: &str, service_type: &str) -> Value {
    let info = json!({"id": id, "name": "N", "host": "h", "port": 1, "type": service_type});
    json!({"action": "register", "service_info": info, "ttl": 30})
}

fn singleton(id: &str, service_type: &str) -> Value {
    let mut request = register(id, service_type);
    request["service_info"]["singleton"] = true.into();
    request
}

fn renew(id: &str) -> Value {
    json!({"action": "renew", "service_id": id})
}

fn deregister(id: &str) -> Value {
    json!({"action": "deregister", "service_id": id})
}

fn event(kind: &str, id: &str, revision: u64) -> (String, String, u64) {
    (kind.into(), id.into(), revision)
}

fn failed() -> Error {
    Error::unavailable("the disk is full")
}

#[test]
fn a_registration_shows_when_the_store_has_said_yes_and_not_before() {
    let mut world = World::new();
    world.ask("a", register("x", "web"));
    let group = world.group();
    assert_eq!(world.reply("a"), None);
    assert_eq!(world.health("x"), None);
    assert!(world.events.is_empty());
    world.accept(&group);
    assert_eq!(world.reply("a").unwrap()["service_id"], "x");
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    assert_eq!(world.take_events(), [event("register", "x", 1)]);
}

#[test]
fn a_refusal_of_the_store_changes_nothing() {
    let mut world = World::new();
    world.register("x", "web");
    world.take_events();
    world.ask("a", register("y", "web"));
    world.ask("b", deregister("x"));
    world.group();
    world.outcome(Err(failed()));
    for (caller, error) in
        [("a", "Failed to register service"), ("b", "Service not found or could not be deregistered")]
    {
        let reply = world.reply(caller).unwrap();
        assert_eq!((&reply["error"], &reply["code"]), (&json!(error), &json!("backend_unavailable")));
    }
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    assert_eq!(world.health("y"), None);
    assert!(world.events.is_empty());
}

#[test]
fn after_a_failed_group_the_store_is_made_to_hold_what_the_core_holds() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", register("y", "web"));
    world.ask("b", deregister("x"));
    world.group();
    world.outcome(Err(failed()));
    assert_eq!(world.registry.next_group(world.now), None, "a failing store is given time");
    world.pass(200);
    let restored = world.store();
    assert_eq!(restored.len(), 2);
    assert!(matches!(&restored[0], Change::Remove { id, .. } if id == "y"), "{restored:?}");
    assert!(matches!(&restored[1], Change::Put { record, .. } if record.id == "x"), "{restored:?}");
}

#[test]
fn whoever_waits_too_long_is_told_and_a_change_that_lands_later_is_taken_back() {
    let mut world = World::new();
    world.ask("a", register("x", "web"));
    let group = world.group();
    world.pass(399);
    assert_eq!(world.reply("a"), None);
    world.pass(1);
    assert_eq!(world.reply("a").unwrap()["code"], "backend_unavailable");
    world.accept(&group);
    assert_eq!(world.reply("a"), None, "a request is answered once");
    assert_eq!(world.health("x"), None);
    assert!(world.events.is_empty());
    assert!(matches!(&world.group()[..], [Change::Remove { id, .. }] if id == "x"));
}

#[test]
fn an_update_that_lands_too_late_is_taken_back_to_the_old_record() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", register("x", "mail"));
    let group = world.group();
    world.pass(400);
    world.accept(&group);
    let restored = world.store();
    assert!(matches!(&restored[..], [Change::Put { record, .. }] if record.types == ["web"]), "{restored:?}");
    assert_eq!(world.discover("web").as_deref(), Some("x"));
}

#[test]
fn reads_and_renewals_are_answered_while_the_store_hangs() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", register("y", "web"));
    world.group();
    world.pass(10_000);
    for request in [
        renew("x"),
        json!({"action": "get", "service_id": "x"}),
        json!({"action": "discover", "service_type": "web"}),
        json!({"action": "list"}),
        json!({"action": "info"}),
        json!({"action": "health"}),
        deregister("unknown"),
    ] {
        world.ask("b", request.clone());
        assert!(world.reply("b").is_some(), "{request} waits for the store");
    }
}

#[test]
fn health_is_the_hosts_and_tells_the_state_of_the_storage_beside() {
    let mut world = World::new();
    let state = |world: &mut World| {
        let health = world.call(json!({"action": "health"}));
        assert_eq!((&health["success"], &health["status"]), (&json!(true), &json!("ok")));
        assert_eq!(world.call(json!({"action": "info"}))["backend"], health["backend"]);
        (health["backend"]["state"].as_str().unwrap().to_string(), health["backend"]["error"].clone())
    };
    let state_of = |name: &str| (name.to_string(), Value::Null);
    assert_eq!(state(&mut world), state_of("ok"));
    world.ask("a", register("x", "web"));
    world.group();
    world.pass(5_000);
    assert_eq!(state(&mut world), state_of("ok"));
    world.pass(1);
    assert_eq!(state(&mut world), state_of("stalled"));
    world.outcome(Err(failed()));
    assert_eq!(state(&mut world), ("failing".to_string(), json!("the disk is full")));
    world.pass(1000);
    world.store();
    assert_eq!(state(&mut world), state_of("ok"));
}

#[test]
fn changes_of_one_id_are_made_in_order_and_never_in_one_group() {
    let mut world = World::new();
    world.ask("a", register("x", "web"));
    world.ask("b", deregister("x"));
    world.ask("c", register("x", "mail"));
    let sizes: Vec<usize> = (0..3)
        .map(|_| {
            let group = world.group();
            world.accept(&group);
            group.len()
        })
        .collect();
    assert_eq!(sizes, [1, 1, 1]);
    for caller in ["a", "b", "c"] {
        assert_eq!(world.reply(caller).unwrap()["success"], true);
    }
    let expected = [event("register", "x", 1), event("deregister", "x", 2), event("register", "x", 3)];
    assert_eq!(world.take_events(), expected);
    assert_eq!(world.discover("mail").as_deref(), Some("x"));
}

#[test]
fn changes_of_different_ids_go_in_one_group() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        world.ask("client", register(id, "web"));
    }
    assert_eq!(world.group().len(), 3);
}

#[test]
fn the_next_group_gathers_while_one_is_under_way() {
    let mut world = World::new();
    world.ask("a", register("a", "web"));
    let first = world.group();
    world.ask("b", register("b", "web"));
    world.ask("c", register("c", "web"));
    assert_eq!(world.registry.next_group(world.now), None);
    world.accept(&first);
    assert_eq!(world.group().len(), 2);
}

#[test]
fn two_singletons_of_one_type_at_the_same_time_end_with_one() {
    let mut world = World::new();
    world.ask("a", singleton("x", "web"));
    world.ask("b", singleton("y", "web"));
    world.store();
    assert_eq!(world.reply("a").unwrap()["success"], true);
    let refusal = world.reply("b").unwrap();
    assert_eq!(refusal["error"], "duplicate_service_type");
    assert_eq!(refusal["message"], "Service type 'web' is already registered by service_id 'x'.");
    assert_eq!((&refusal["service_type"], &refusal["existing_service_id"]), (&json!("web"), &json!("x")));
}

#[test]
fn a_singleton_waits_for_a_deregistration_of_its_type_that_is_under_way() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", deregister("x"));
    world.ask("b", singleton("y", "web"));
    world.store();
    assert_eq!(world.reply("b").unwrap()["success"], true);
}

#[test]
fn a_singleton_does_not_conflict_with_itself_nor_with_the_expired() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(20_000);
    assert_eq!(world.call(singleton("y", "web"))["error"], "duplicate_service_type");
    world.pass(10_001);
    world.take_events();
    assert_eq!(world.call(singleton("y", "web"))["success"], true);
    assert_eq!(world.take_events(), [event("expire", "x", 2), event("register", "y", 3)]);
    assert_eq!(world.call(singleton("y", "web"))["success"], true);
}

#[test]
fn the_servers_policy_makes_types_unique_unless_a_service_allows_duplicates() {
    let mut world = World::with(Policy { enforce_unique_service_types: true, ..policy() });
    world.register("x", "web");
    assert_eq!(world.register("y", "web")["error"], "duplicate_service_type");
    let mut request = register("y", "web");
    request["service_info"]["allow_duplicate_service_type"] = true.into();
    assert_eq!(world.call(request.clone())["success"], true);
    request["service_info"]["singleton"] = true.into();
    let refusal = world.call(request);
    assert_eq!(refusal["error"], "invalid_service_type_policy");
    assert_eq!(refusal["message"], "singleton and allow_duplicate_service_type cannot both be true.");
}

#[test]
fn a_service_is_critical_after_its_ttl_and_gone_after_the_clean_up() {
    let mut world = World::new();
    world.register("x", "web");
    world.take_events();
    world.pass(30_000);
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    assert_eq!(world.discover("web").as_deref(), Some("x"));
    world.pass(1);
    assert_eq!(world.health("x").as_deref(), Some("critical"));
    assert_eq!(world.discover("web"), None);
    assert!(world.events.is_empty());
    world.clean_up();
    assert_eq!(world.health("x"), None);
    let expired = world.events[0].clone();
    assert_eq!(expired["data"]["service_info"]["health"], "critical");
    assert_eq!(world.take_events(), [event("expire", "x", 2)]);
}

#[test]
fn a_critical_service_comes_back_with_a_heartbeat() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(35_000);
    assert_eq!(world.call(renew("x"))["message"], "Service renewed successfully");
    assert_eq!(world.discover("web").as_deref(), Some("x"));
    world.clean_up();
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    world.pass(30_001);
    assert_eq!(world.discover("web"), None);
}

#[test]
fn heartbeats_keep_a_service_for_as_long_as_they_come() {
    let mut world = World::new();
    world.register("x", "web");
    for _ in 0..100 {
        world.pass(10_000);
        world.call(renew("x"));
        world.clean_up();
    }
    assert_eq!(world.discover("web").as_deref(), Some("x"));
}

#[test]
fn a_service_that_beats_while_it_is_being_removed_stays_and_is_stored_again() {
    let mut world = World::new();
    world.register("x", "web");
    world.take_events();
    world.pass(31_000);
    world.registry.clean_up(world.now);
    let removal = world.group();
    assert!(matches!(&removal[..], [Change::Remove { reason: RemoveReason::Expired, .. }]));
    world.call(renew("x"));
    world.accept(&removal);
    assert_eq!(world.health("x").as_deref(), Some("passing"));
    assert!(world.events.is_empty());
    let restored = world.store();
    assert!(matches!(&restored[..], [Change::Put { record, .. }, ..] if record.id == "x"), "{restored:?}");
}

#[test]
fn a_heartbeat_before_the_removal_is_sent_prevents_it() {
    let mut world = World::new();
    world.register("x", "web");
    world.ask("a", register("y", "web"));
    let busy = world.group();
    world.pass(31_000);
    world.registry.clean_up(world.now);
    world.call(renew("x"));
    world.accept(&busy);
    assert!(world.store().iter().all(|change| !matches!(change, Change::Remove { id, .. } if id == "x")));
    assert_eq!(world.health("x").as_deref(), Some("passing"));
}

#[test]
fn heartbeats_reach_the_store_together_about_once_a_second() {
    let mut world = World::new();
    for id in ["x", "y"] {
        world.register(id, "web");
    }
    for _ in 0..9 {
        world.pass(100);
        world.call(renew("x"));
        world.call(renew("y"));
        assert_eq!(world.store(), []);
    }
    world.pass(200);
    let written = world.store();
    assert_eq!(written.len(), 2);
    let last = world.now.unix_ms - 200;
    assert!(
        written
            .iter()
            .all(|change| matches!(change, Change::Renew { last_heartbeat_ms, .. } if *last_heartbeat_ms == last))
    );
    assert!(world.take_events().iter().all(|(kind, ..)| kind == "register"));
}

#[test]
fn heartbeats_that_could_not_be_written_are_written_later() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(renew("x"));
    world.pass(1000);
    world.group();
    world.outcome(Err(failed()));
    world.pass(1000);
    assert!(matches!(&world.store()[..], [Change::Renew { id, .. }] if id == "x"));
}

#[test]
fn a_failing_store_is_not_asked_without_pause_however_many_heartbeats_wait() {
    let mut world = World::with(Policy { pending_changes_max: 10_000, ..policy() });
    for number in 0..3000 {
        world.ask("client", register(&format!("s{number}"), "web"));
    }
    world.store();
    for number in 0..3000 {
        world.ask("client", renew(&format!("s{number}")));
    }
    world.pass(1000);
    world.group();
    world.outcome(Err(failed()));
    assert_eq!(world.registry.next_group(world.now), None);
    assert!(world.registry.wake_at_ms() > world.now.uptime_ms);
    world.pass(1000);
    assert_eq!(world.store().len(), 3000);
}

#[test]
fn a_record_that_the_store_has_lost_is_stored_again() {
    let mut world = World::new();
    world.register("x", "web");
    world.call(renew("x"));
    world.pass(1000);
    world.group();
    world.outcome(Ok(vec![Outcome::Missing]));
    assert!(matches!(&world.store()[..], [Change::Put { record, .. }] if record.id == "x"));
}

#[test]
fn wall_time_that_jumps_is_shown_and_changes_nothing() {
    for jump_ms in [3_600_000_i64, -3_600_000] {
        let mut world = World::new();
        world.register("x", "web");
        world.now.unix_ms = world.now.unix_ms.saturating_add_signed(jump_ms);
        world.pass(30_000);
        assert_eq!(world.health("x").as_deref(), Some("passing"));
        world.call(renew("x"));
        let shown = world.call(json!({"action": "get", "service_id": "x"}));
        assert_eq!(shown["service"]["last_heartbeat"], json!(world.now.unix_ms / 1000));
        world.pass(30_001);
        assert_eq!(world.health("x").as_deref(), Some("critical"));
    }
}

fn stored(id: &str, service_type: &str) -> Record {
    let document = json!({"id": id, "name": "N", "host": "h", "port": 1, "type": service_type, "ttl": 30});
    let mut record = Record::new(id, document.to_string());
    record.types = vec![service_type.to_string()];
    record.ttl_ms = 30_000;
    record.last_heartbeat_ms = 1_000_000;
    record
}

#[test]
fn what_was_loaded_has_a_full_ttl_however_old_its_last_heartbeat_is() {
    let mut world = World::new();
    world.registry.load(stored("x", "web"), world.now).unwrap();
    let shown = world.call(json!({"action": "get", "service_id": "x"}));
    assert_eq!(shown["service"]["last_heartbeat"], 1000);
    world.pass(30_000);
    assert_eq!(world.discover("web").as_deref(), Some("x"));
    world.pass(1);
    assert_eq!(world.discover("web"), None);
}

#[test]
fn a_record_that_is_no_service_is_named_and_left_out() {
    let mut world = World::new();
    let mut bad = stored("x", "web");
    bad.document = "[1]".into();
    assert_eq!(
        world.registry.load(bad, world.now).unwrap_err().reason,
        "its document is no JSON object: invalid type: sequence, expected a map at line 1 column 0"
    );
    let mut other = stored("x", "web");
    other.id = "y".into();
    assert_eq!(world.registry.load(other, world.now).unwrap_err().reason, "its document has another id");
    assert!(world.registry.is_empty());
}

#[test]
fn a_record_that_was_stored_as_it_is_shown_is_shown_as_it_is_now() {
    let mut world = World::new();
    let mut shown = stored("x", "web");
    shown.document = shown.document.replace('{', r#"{"health":"critical","last_heartbeat":7,"#);
    world.registry.load(shown, world.now).unwrap();
    let reply = world.call(json!({"action": "get", "service_id": "x"}));
    assert_eq!((&reply["service"]["health"], &reply["service"]["last_heartbeat"]), (&json!("passing"), &json!(1000)));
    assert_eq!(reply["service"].as_object().unwrap().len(), 8);
}

#[test]
fn discovery_finds_every_healthy_service_of_the_type_and_no_other() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        world.register(id, "web");
    }
    world.register("d", "Web");
    let found: std::collections::BTreeSet<_> = (0..100).filter_map(|_| world.discover("web")).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    let none = world.call(json!({"action": "discover", "service_type": "WEB"}));
    assert_eq!(
        (&none["error"], &none["code"]),
        (&json!("No healthy service of type WEB found"), &json!("none_healthy"))
    );
}

#[test]
fn a_service_answers_to_its_tags_and_its_metadata_type() {
    let mut world = World::new();
    let info =
        json!({"id": "x", "name": "N", "host": "h", "port": 1, "tags": ["one", "two"], "metadata": {"type": "three"}});
    world.call(json!({"action": "register", "service_info": info}));
    for service_type in ["one", "two", "three"] {
        assert_eq!(world.discover(service_type).as_deref(), Some("x"), "{service_type}");
    }
    world.register("x", "four");
    assert_eq!(world.discover("one"), None, "an update takes the place of what was there");
    assert_eq!(world.discover("four").as_deref(), Some("x"));
}

#[test]
fn a_registration_is_overtaken_by_nobody_but_may_be_refused_when_too_many_wait() {
    let mut world = World::with(Policy { pending_changes_max: 2, ..policy() });
    world.ask("a", register("x", "web"));
    world.group();
    world.ask("b", register("y", "web"));
    world.ask("c", register("z", "web"));
    assert_eq!(world.reply("c").unwrap()["code"], "overloaded");
    world.pass(400);
    world.ask("d", register("z", "web"));
    assert_eq!(world.reply("d"), None, "whoever has given up waits no longer");
}

#[test]
fn a_renewal_while_an_update_is_under_way_counts() {
    let mut world = World::new();
    world.register("x", "web");
    world.pass(20_000);
    world.ask("a", register("x", "web"));
    let group = world.group();
    world.pass(300);
    world.call(renew("x"));
    world.accept(&group);
    world.pass(30_000);
    assert_eq!(world.health("x").as_deref(), Some("passing"));
}

#[test]
fn terminate_is_the_operators_to_allow() {
    let mut world = World::new();
    assert_eq!(world.call(json!({"action": "terminate"}))["code"], "forbidden");
    assert!(!world.out.terminate);
    let mut world = World::with(Policy { allow_terminate: true, ..policy() });
    assert_eq!(world.call(json!({"action": "terminate"}))["status"], "terminating");
    assert!(world.out.terminate);
}

#[test]
fn nothing_is_left_to_do_once_everything_is_stored() {
    let mut world = World::new();
    world.register("x", "web");
    assert!(world.registry.is_idle());
    world.call(renew("x"));
    assert!(!world.registry.is_idle());
    world.registry.hurry();
    world.store();
    assert!(world.registry.is_idle());
    assert!(world.registry.wake_at_ms() >= world.now.uptime_ms);
}

/// A store that other hosts write to: its history decides.
mod watching {
    use super::*;

    fn world() -> World {
        World::with(Policy { watches: true, ..policy() })
    }

    fn observe(world: &mut World, revision: u64, change: Change) {
        let unreadable = world.registry.observed(vec![Observed::new(revision, change)], world.now, &mut world.out);
        assert_eq!(unreadable, []);
        world.take_output();
    }

    fn put(id: &str) -> Change {
        Change::Put { record: stored(id, "web"), unique: None }
    }

    #[test]
    fn what_other_hosts_change_is_seen_and_announced() {
        let mut world = world();
        observe(&mut world, 4, put("x"));
        assert_eq!(world.discover("web").as_deref(), Some("x"));
        world.pass(29_000);
        observe(&mut world, 4, Change::Renew { id: "x".into(), last_heartbeat_ms: 1_000_000 });
        world.pass(29_000);
        assert_eq!(world.health("x").as_deref(), Some("passing"));
        observe(&mut world, 5, Change::Remove { id: "x".into(), reason: RemoveReason::Expired });
        assert_eq!(world.health("x"), None);
        assert_eq!(world.take_events(), [event("register", "x", 4), event("expire", "x", 5)]);
    }

    #[test]
    fn an_own_change_waits_for_its_turn_in_the_history() {
        let mut world = world();
        world.ask("a", register("x", "web"));
        world.group();
        world.outcome(Ok(vec![Outcome::Done { revision: 2 }]));
        assert_eq!(world.reply("a"), None);
        observe(&mut world, 1, put("other"));
        observe(&mut world, 2, put("x"));
        assert_eq!(world.reply("a").unwrap()["service_id"], "x");
        assert_eq!(world.take_events(), [event("register", "other", 1), event("register", "x", 2)]);
    }

    #[test]
    fn an_own_change_that_was_observed_first_is_announced_once() {
        let mut world = world();
        world.ask("a", register("x", "web"));
        world.group();
        observe(&mut world, 1, put("x"));
        world.outcome(Ok(vec![Outcome::Done { revision: 1 }]));
        assert_eq!(world.reply("a").unwrap()["success"], true);
        assert_eq!(world.take_events(), [event("register", "x", 1)]);
    }

    #[test]
    fn a_type_taken_through_another_host_is_a_conflict() {
        let mut world = world();
        world.ask("a", singleton("x", "web"));
        assert!(matches!(&world.group()[..], [Change::Put { unique: Some(name), .. }] if name == "web"));
        world.outcome(Ok(vec![Outcome::Conflict { id: "y".into() }]));
        let refusal = world.reply("a").unwrap();
        assert_eq!(
            (&refusal["code"], &refusal["existing_service_id"]),
            (&json!("duplicate_service_type"), &json!("y"))
        );
    }

    #[test]
    fn after_a_lost_history_what_differs_is_announced() {
        let mut world = world();
        observe(&mut world, 1, put("gone"));
        observe(&mut world, 2, put("same"));
        world.take_events();
        let mut same = stored("same", "web");
        same.revision = 2;
        let mut new = stored("new", "web");
        new.revision = 9;
        let unreadable = world.registry.reload("e2".into(), 9, vec![same, new], world.now, &mut world.out);
        assert_eq!(unreadable, []);
        world.take_output();
        assert_eq!(world.take_events(), [event("deregister", "gone", 9), event("register", "new", 9)]);
        assert_eq!(world.registry.position(), ("e2", 9));
    }
}

/// A store that has a say in discovery.
mod balancing {
    use super::*;

    fn world() -> World {
        let mut world = World::with(Policy { balances: true, ..policy() });
        world.register("x", "web");
        world.register("y", "web");
        world
    }

    #[test]
    fn the_stores_choice_is_the_answer() {
        let mut world = world();
        world.ask("a", json!({"action": "discover", "service_type": "web"}));
        assert_eq!(world.reply("a"), None);
        let ticket = world.queries.remove(0);
        world.registry.chosen(ticket, Some("y".into()), world.now, &mut world.out);
        world.take_output();
        assert_eq!(world.reply("a").unwrap()["service"]["id"], "y");
    }

    #[test]
    fn the_host_chooses_if_the_store_does_not() {
        let mut world = world();
        for answer in [None, Some("unknown".to_string())] {
            world.ask("a", json!({"action": "discover", "service_type": "web"}));
            let ticket = world.queries.remove(0);
            world.registry.chosen(ticket, answer, world.now, &mut world.out);
            world.take_output();
            assert_eq!(world.reply("a").unwrap()["success"], true);
        }
        world.ask("a", json!({"action": "discover", "service_type": "web"}));
        world.pass(400);
        assert_eq!(world.reply("a").unwrap()["success"], true);
    }
}
