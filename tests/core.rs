//! The rules of the registry, with the time set by hand and the store played by the test.

use rand::SeedableRng;
use rand::rngs::StdRng;
use registry_host::protocol::request::{Limits, Port, parse};
use registry_host::registry::{About, Following, Forbidden, Now, Output, Policy, Promises, Registry};
use registry_host::security::access::Access;
use registry_host::security::key::PublicKey;
use registry_host::security::origin::Origin;
use registry_host::security::principal::Principal;
use registry_plugin_api::{Change, Error, Outcome, Position, Record};
use serde_json::{Value, json};

#[path = "core/access.rs"]
mod access;
#[path = "core/certainty.rs"]
mod certainty;
#[path = "core/changes.rs"]
mod changes;
#[path = "core/choices.rs"]
mod choices;
#[path = "core/discovery.rs"]
mod discovery;
#[path = "core/doubt.rs"]
mod doubt;
#[path = "core/drain.rs"]
mod drain;
#[path = "core/follow.rs"]
mod follow;
#[path = "core/following.rs"]
mod following;
#[path = "core/groups.rs"]
mod groups;
#[path = "core/kept.rs"]
mod kept;
#[path = "core/lists.rs"]
mod lists;
#[path = "core/lives.rs"]
mod lives;
#[path = "core/loading.rs"]
mod loading;
#[path = "core/mass.rs"]
mod mass;
#[path = "core/pages.rs"]
mod pages;
#[path = "core/pieces.rs"]
mod pieces;
#[path = "core/quotas.rs"]
mod quotas;
#[path = "core/random.rs"]
mod random;
#[path = "core/seeking.rs"]
mod seeking;
#[path = "core/shares.rs"]
mod shares;
#[path = "core/shown.rs"]
mod shown;
#[path = "core/time.rs"]
mod time;
#[path = "core/trail.rs"]
mod trail;
#[path = "core/unique.rs"]
mod unique;
#[path = "core/updates.rs"]
mod updates;
#[path = "core/waking.rs"]
mod waking;

/// A core, a clock, and the store's part.
struct World {
    registry: Registry<&'static str>,
    now: Now,
    replies: Vec<(&'static str, Value)>,
    events: Vec<Value>,
    queries: Vec<u64>,
    out: Output<&'static str>,
}

fn policy() -> Policy {
    Policy {
        enforce_unique_service_types: false,
        allow_swap: false,
        allow_terminate: false,
        reply_timeout_ms: 400,
        cleanup_interval_ms: 10_000,
        call_timeout_ms: 5_000,
        pending_changes_max: 100,
        pending_bytes_max: 1 << 24,
        services_bytes_max: 1 << 24,
        access: Access::open(),
        following: Following::default(),
        mass_expiry_share: 0.0,
        mass_expiry_hold_ms: 30_000,
    }
}

impl World {
    fn new() -> Self {
        World::with(policy())
    }

    fn with(policy: Policy) -> Self {
        World::on(policy, Promises::default())
    }

    fn on(policy: Policy, promises: Promises) -> Self {
        let rng = StdRng::seed_from_u64(7);
        let registry = Registry::new(policy, promises, About::default(), Position::new("e", 0), rng);
        let now = Now { uptime_ms: 0, unix_ms: 1_700_000_000_000 };
        World { registry, now, replies: Vec::new(), events: Vec::new(), queries: Vec::new(), out: Output::default() }
    }

    fn ask(&mut self, caller: &'static str, request: Value) {
        self.ask_with(caller, Principal::Nobody, request);
    }

    /// Asks as a client that has proved to hold a key.
    fn ask_with(&mut self, caller: &'static str, principal: Principal, request: Value) {
        self.ask_from(caller, principal.into(), request);
    }

    /// Asks from somewhere.
    fn ask_from(&mut self, caller: &'static str, origin: Origin, request: Value) {
        match parse(request.to_string().as_bytes(), Port::Requests, &Limits::default()).request {
            Ok(request) => self.registry.request(caller, origin, request, self.now, &mut self.out),
            Err(refusal) => self.out.replies.push((caller, refusal)),
        }
        self.take_output();
    }

    fn take_output(&mut self) {
        let read = |json: String| serde_json::from_str::<Value>(&json).expect("replies and events are JSON");
        self.replies
            .extend(self.out.replies.drain(..).map(|(caller, reply)| (caller, read(reply.finish(None).into_text()))));
        let event = |json: &[u8]| serde_json::from_slice::<Value>(json).expect("events are JSON");
        self.events.extend(self.out.events.drain(..).map(|(told, _)| event(&told.json)));
        self.queries.extend(self.out.queries.drain(..).map(|(ticket, _)| ticket));
    }

    /// Asks, lets the store say yes if the reply depends on it, and gives the reply.
    fn call(&mut self, request: Value) -> Value {
        self.call_with(Principal::Nobody, request)
    }

    /// The same as a client that has proved to hold a key.
    fn call_with(&mut self, principal: Principal, request: Value) -> Value {
        self.ask_with("call", principal, request);
        if let Some(reply) = self.reply("call") {
            return reply;
        }
        self.store();
        // What takes long may have been put off.
        for _ in 0..100 {
            if let Some(reply) = self.reply("call") {
                return reply;
            }
            self.registry.tick(self.now, &mut self.out);
            self.take_output();
        }
        panic!("a request is answered")
    }

    /// The oldest reply to this caller that was not looked at yet.
    fn reply(&mut self, caller: &str) -> Option<Value> {
        let position = self.replies.iter().position(|(to, _)| *to == caller)?;
        Some(self.replies.remove(position).1)
    }

    /// The store makes groups of changes until there are none, as a store should.
    fn store(&mut self) -> Vec<Change> {
        let mut all = Vec::new();
        while let Some(changes) = self.next_group() {
            self.accept(&changes);
            all.extend(changes);
        }
        all
    }

    fn next_group(&mut self) -> Option<Vec<Change>> {
        let group = self.registry.next_group(self.now, &mut self.out);
        self.take_output();
        group.map(|group| group.changes)
    }

    fn accept(&mut self, changes: &[Change]) {
        self.outcome(Ok(vec![Outcome::Done; changes.len()]));
    }

    fn outcome(&mut self, result: Result<Vec<Outcome>, Error>) {
        self.registry.committed(result, self.now, &mut self.out);
        self.take_output();
    }

    fn group(&mut self) -> Vec<Change> {
        self.next_group().expect("there is something to store")
    }

    fn pass(&mut self, ms: u64) {
        self.now.uptime_ms += ms;
        self.now.unix_ms += ms;
        self.registry.tick(self.now, &mut self.out);
        // Those whose time is up are looked at a number at a time.
        for _ in 0..10 {
            self.registry.tick(self.now, &mut self.out);
        }
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

/// A record as a store keeps it.
fn stored(id: &str, service_type: &str) -> Record {
    let document = json!({"id": id, "name": "N", "host": "h", "port": 1, "type": service_type, "ttl": 30});
    let mut record = Record::new(id, document.to_string());
    record.types = vec![service_type.to_string()];
    record.ttl_ms = 30_000;
    record.last_heartbeat_ms = 1_000_000;
    record
}
