//! The core through a history of requests, time, and a store that says yes, no or nothing, or fails with or without
//! having stored. Everybody is answered once, in valid JSON; what `list` shows, `get` shows too, and `discover` finds a
//! healthy one of each type that has one; the events tell the same story as the lists, with revisions that do not go
//! back; and once all is settled, the store holds the services that the registry shows. If clients have keys, each can
//! renew its own services and no others.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use registry_fuzz::json;
use registry_host::protocol::request::{Limits, Port, Request, parse};
use registry_host::registry::{About, Following, Now, Output, Policy, Promises, Registry};
use registry_host::security::access::{Access, Grant, Right};
use registry_host::security::principal::Principal;
use registry_plugin_api::{Change, Error, Outcome, Position, Record};
use registry_zmtp::keys::key::PublicKey;
use serde_json::{Value, json};

/// The clients, if they have keys. The first is an admin.
const CLIENTS: [PublicKey; 3] =
    [PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]), PublicKey::from_bytes([3; 32])];

const STEPS_MAX: usize = 120;
const CHECK_EVERY: usize = 4;
/// Steps until everything that waits for a store that works is through.
const SETTLED_AFTER: usize = 200;

fuzz_target!(|input: &[u8]| {
    let mut u = Unstructured::new(input);
    let Ok(mut world) = World::new(&mut u) else { return };
    for step in 0..STEPS_MAX {
        // A history ends with the bytes.
        if u.is_empty() || world.step(&mut u).is_err() {
            break;
        }
        // What is wrong then will hardly be right again soon, and to look takes longer than a step.
        if step % CHECK_EVERY == 0 {
            world.check();
        }
    }
    world.settle();
    world.check();
    world.check_settled();
});

struct World {
    registry: Registry<usize>,
    policy: Policy,
    promises: Promises,
    now: Now,
    out: Output<usize>,
    /// How many times each caller was answered.
    answers: Vec<usize>,
    /// The services as the events tell of them, without what moves.
    told: BTreeMap<String, Value>,
    revision_told: u64,
    store: Store,
    /// What the store has been asked to do.
    group: Option<Vec<Change>>,
    queries: Vec<(u64, Vec<String>)>,
}

#[derive(Default)]
struct Store {
    records: BTreeMap<String, Record>,
}

impl Store {
    fn make(&mut self, change: Change) -> Outcome {
        match change {
            Change::Put(put) => {
                self.records.insert(put.record.id.clone(), put.record);
            }
            Change::Remove(remove) => {
                if self.records.remove(&remove.id).is_none() {
                    return Outcome::Missing;
                }
            }
            Change::Renew(renew) => {
                let Some(record) = self.records.get_mut(&renew.id) else { return Outcome::Missing };
                record.last_heartbeat_ms = renew.last_heartbeat_ms;
            }
            other => panic!("{other:?} is new"),
        }
        Outcome::Done
    }
}

impl World {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let mut policy = Policy {
            enforce_unique_service_types: u.arbitrary()?,
            allow_swap: u.arbitrary()?,
            allow_terminate: u.arbitrary()?,
            reply_timeout_ms: 400,
            cleanup_interval_ms: 1000,
            call_timeout_ms: 5000,
            pending_changes_max: u.int_in_range(1..=8)?,
            pending_bytes_max: 1 << 20,
            services_bytes_max: 1 << 20,
            access: Access::open(),
            following: Following::default(),
            mass_expiry_share: 0.0,
            mass_expiry_hold_ms: 30_000,
        };
        let promises = Promises { balances: u.arbitrary()?, ..Promises::default() };
        if u.arbitrary()? {
            policy.access = access();
        }
        let rng = StdRng::seed_from_u64(u64::from(u.arbitrary::<u8>()?));
        let registry = Registry::new(policy.clone(), promises, About::default(), Position::new("e", 0), rng);
        Ok(World {
            registry,
            policy,
            promises,
            now: Now { uptime_ms: 0, unix_ms: 1_700_000_000_000 },
            out: Output::default(),
            answers: Vec::new(),
            told: BTreeMap::new(),
            revision_told: 0,
            store: Store::default(),
            group: None,
            queries: Vec::new(),
        })
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=11_u8)? {
            0 => {
                let text = json::request(u);
                self.ask(&text, *u.choose(&CLIENTS)?);
            }
            1..=4 => {
                let request = request(u)?;
                self.ask(&request.to_string(), *u.choose(&CLIENTS)?);
            }
            5 | 6 => self.pass(u.int_in_range(0..=1500)?),
            7 => {
                self.registry.clean_up(self.now);
            }
            8 => {
                if let Some((ticket, candidates)) = self.queries.pop() {
                    let chosen = if u.ratio(1, 4)? { Some("nobody".into()) } else { u.choose_iter(candidates).ok() };
                    self.registry.chosen(ticket, chosen, self.now, &mut self.out);
                }
            }
            9 => {
                if let Some(group) = self.group.take() {
                    // It fails, and has stored some of it.
                    let stored = u.int_in_range(0..=group.len())?;
                    group.into_iter().take(stored).for_each(|change| drop(self.store.make(change)));
                    self.registry.committed(Err(Error::unavailable("no")), self.now, &mut self.out);
                }
            }
            10 => {
                if let Some(group) = self.group.take() {
                    let mut outcomes = Vec::new();
                    for change in group {
                        let is_refused = matches!(change, Change::Put(_)) && u.ratio(1, 4)?;
                        let refusal = Outcome::Refused(Error::unavailable("too large"));
                        outcomes.push(if is_refused { refusal } else { self.store.make(change) });
                    }
                    self.registry.committed(Ok(outcomes), self.now, &mut self.out);
                }
            }
            _ => self.commit(),
        }
        self.take_output();
        if self.group.is_none() {
            self.take_group();
        }
        Ok(())
    }

    /// Whether clients have keys.
    fn has_keys(&self) -> bool {
        !self.policy.access.is_admin(&Principal::Nobody)
    }

    fn take_group(&mut self) {
        self.group = self.registry.next_group(self.now, &mut self.out).map(|group| group.changes);
        self.take_output();
    }

    fn ask(&mut self, text: &str, client: PublicKey) {
        let caller = self.answers.len();
        self.answers.push(0);
        let client = self.has_keys().then_some(client);
        match parse(text.as_bytes(), Port::Requests, &Limits::default()).request {
            Ok(Request::Renew { service_id, generation: None }) => {
                let owner = self.told.get(&service_id).and_then(|service| service["owner_key"].as_str());
                let is_owner = owner.is_none_or(|owner| client.is_some_and(|client| client.to_string() == owner));
                let is_allowed = is_owner || client == Some(CLIENTS[0]);
                self.registry.request(
                    caller,
                    Principal::from(client),
                    Request::Renew { service_id, generation: None },
                    self.now,
                    &mut self.out,
                );
                let (_, reply) = self.out.replies.last().expect("it is answered at once");
                assert_eq!(reply.clone().finish(None).into_text().contains("\"code\":\"forbidden\""), !is_allowed);
            }
            Ok(request) => self.registry.request(caller, Principal::from(client), request, self.now, &mut self.out),
            Err(refusal) => self.out.replies.push((caller, refusal)),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.uptime_ms += ms;
        self.now.unix_ms += ms;
        self.registry.tick(self.now, &mut self.out);
        if self.registry.is_cleanup_due(self.now) {
            self.registry.clean_up(self.now);
        }
    }

    fn commit(&mut self) {
        if let Some(group) = self.group.take() {
            let outcomes = group.into_iter().map(|change| self.store.make(change)).collect();
            self.registry.committed(Ok(outcomes), self.now, &mut self.out);
        }
    }

    fn take_output(&mut self) {
        for (caller, reply) in self.out.replies.drain(..) {
            let reply = reply.finish(None).into_text();
            let reply: Value = serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{error}: {reply}"));
            assert!(reply["success"].is_boolean());
            self.answers[caller] += 1;
            assert_eq!(self.answers[caller], 1, "answered again: {reply}");
        }
        let has_keys = self.has_keys();
        for (event, _) in self.out.events.drain(..) {
            let event: Value = serde_json::from_slice(&event.json).expect("an event is JSON");
            let revision = event["revision"].as_u64().expect("a revision is a number");
            assert!(revision > self.revision_told, "{revision} after {}", self.revision_told);
            assert_eq!(event["previous"].as_u64(), Some(self.revision_told), "nothing is missing before {revision}");
            self.revision_told = revision;
            let id = event["data"]["service_id"].as_str().expect("an id is text").to_string();
            let owner = event["data"]["service_info"]["owner_key"].as_str();
            let owner = owner.map(|key| key.parse().expect("an owner is a key"));
            assert!(owner.map_or(!has_keys, |owner: PublicKey| CLIENTS.contains(&owner)), "{event}");
            let before = match event["type"].as_str() {
                Some("register") => self.told.insert(id, lasting(&event["data"]["service_info"])),
                _ => Some(self.told.remove(&id).expect("who goes was there")),
            };
            drop(before);
        }
        self.queries.extend(self.out.queries.drain(..).map(|(ticket, query)| (ticket, query.candidates)));
        assert!(!self.out.terminate || self.policy.allow_terminate);
        self.out.terminate = false;
    }

    /// The reply to a request that is answered at once.
    fn read(&mut self, request: Value) -> Value {
        let Ok(request) = parse(request.to_string().as_bytes(), Port::Requests, &Limits::default()).request else {
            return Value::Null;
        };
        let mut out = Output::default();
        self.registry.request(0, Principal::from(self.has_keys().then_some(CLIENTS[0])), request, self.now, &mut out);
        let (_, reply) = out.replies.pop().expect("it is answered at once");
        serde_json::from_str(&reply.finish(None).into_text()).expect("a reply is JSON")
    }

    /// What `list`, `get`, `discover` and the events say is the same.
    fn check(&mut self) {
        self.take_output();
        let all = self.read(json!({"action": "list"}));
        let all = all["services"].as_array().expect("a list");
        assert_eq!(all.len(), self.registry.len());
        let listed: BTreeMap<String, Value> = all.iter().map(|one| (id(one).to_string(), lasting(one))).collect();
        assert_eq!(listed.len(), all.len(), "each is listed once");
        assert_eq!(listed, self.told, "lists and events");
        let mut by_type: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for one in all {
            assert_eq!(&self.read(json!({"action": "get", "service_id": id(one)}))["service"], one);
            for name in types(one) {
                by_type.entry(name).or_default().push(one);
            }
        }
        for (name, expected) in by_type.into_iter().filter(|(name, _)| !name.is_empty()) {
            let listed = self.read(json!({"action": "list", "service_type": name}));
            assert!(listed["services"].as_array().is_some_and(|listed| listed.iter().eq(expected.iter().copied())));
            let passing: Vec<_> = expected.into_iter().filter(|one| one["health"] == "passing").collect();
            if self.promises.balances && passing.len() > 1 {
                continue; // That is the store's to say.
            }
            let found = self.read(json!({"action": "discover", "service_type": name}));
            assert_eq!(found["success"], !passing.is_empty());
            assert!(passing.is_empty() || passing.contains(&&found["service"]), "{found} is none of {passing:?}");
        }
    }

    /// Lets the store work until nothing waits for it.
    fn settle(&mut self) {
        for _ in 0..SETTLED_AFTER {
            self.commit();
            self.take_output();
            self.pass(50);
            self.take_output();
            self.registry.hurry();
            self.take_group();
            if self.group.is_none() && self.registry.is_idle() && !self.registry.is_searching() {
                return;
            }
        }
        panic!("it does not settle");
    }

    fn check_settled(&mut self) {
        self.registry.dismiss_waiting(&mut self.out);
        self.take_output();
        assert!(self.answers.iter().all(|count| *count == 1), "everybody is answered: {:?}", self.answers);
        let stored = self.store.records.values().map(|record| {
            let document = serde_json::from_str(&record.document).expect("what is stored is JSON");
            (record.id.clone(), document)
        });
        assert_eq!(stored.collect::<BTreeMap<String, Value>>(), self.told, "what is stored and what is shown");
    }
}

/// All may read and register, and one may do everything.
fn access() -> Access {
    let rule = |clients: Option<PublicKey>, allow: &[Right]| Grant {
        clients: clients.map(|client| [client].into()),
        allow: allow.iter().copied().collect(),
        types: Vec::new(),
        names: Vec::new(),
    };
    Access::by_rules(vec![rule(None, &[Right::Read, Right::Register]), rule(Some(CLIENTS[0]), &[Right::Admin])])
}

/// A request that most often concerns what is there.
fn request(u: &mut Unstructured<'_>) -> Result<Value> {
    let id = *u.choose(&["a", "b", "c", "d"])?;
    Ok(match u.int_in_range(0..=7_u8)? {
        0..=2 => {
            let mut info = json!({"name": "n", "host": "h", "port": 1, "id": id, "type": u.choose(&["t", "u", "v"])?});
            for (field, values) in [
                ("singleton", [json!(true), Value::Null]),
                ("allow_duplicate_service_type", [json!(true), Value::Null]),
                ("tags", [json!(["t", "w", "w"]), Value::Null]),
                ("metadata", [json!({"type": "x"}), Value::Null]),
                ("id", [json!(id), Value::Null]),
            ] {
                if u.ratio(1, 3)? {
                    info[field] = u.choose(&values)?.clone();
                }
            }
            json!({"action": "register", "service_info": info, "ttl": u.choose(&[0.1, 1.0, 30.0])?})
        }
        3 => json!({"action": "deregister", "service_id": id}),
        4 | 5 => json!({"action": "renew", "service_id": id}),
        6 => json!({"action": "discover", "service_type": u.choose(&["t", "u", "v"])?}),
        _ => {
            let action = *u.choose(&["list", "discover", "types"])?;
            let mut request = json!({"action": action, "service_type": u.choose(&["t", "u", "v"])?});
            for (field, values) in [
                ("tags", [json!(["w"]), json!(["t", "w"])]),
                ("metadata", [json!({"type": "x"}), json!({"type": "t"})]),
                ("limit", [json!(1), json!(2)]),
                ("fields", [json!(["health"]), json!([])]),
                ("wait", [json!(0.5), json!(30)]),
            ] {
                if u.ratio(1, 3)? {
                    request[field] = u.choose(&values)?.clone();
                }
            }
            request
        }
    })
}

fn id(service: &Value) -> &str {
    service["id"].as_str().expect("an id is text")
}

/// What a service is discovered by.
fn types(service: &Value) -> BTreeSet<&str> {
    let tags = service["tags"].as_array().expect("tags are a list").iter();
    tags.chain(service["metadata"].get("type")).filter_map(Value::as_str).collect()
}

/// A service's record without what moves with each heartbeat.
fn lasting(service: &Value) -> Value {
    let mut service = service.clone();
    let fields = service.as_object_mut().expect("a record is an object");
    fields.retain(|field, _| field != "last_heartbeat" && field != "health");
    service
}
