//! The world of a simulation: it does what a plan says, hosts, store and clients do the rest, and the history is what
//! comes of it. Nothing here is left to chance: the same plan has the same history.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::adapter::{Kept, key_text};
use crate::history::{Ask, Claim, History, Registration, Rules, What};
use crate::host::{Around, Host, Message};
use crate::plan::{Does, Plan, key_of};
use crate::reached::Reached;
use crate::store::Store;

/// How long everything gets to settle after the last action, with the store well.
const SETTLE_MS: u64 = 3000;
/// How often hosts may turn within a millisecond.
const TURNS_MAX: usize = 10_000;

/// A client that keeps a service alive.
struct Keeper {
    client: usize,
    host: usize,
    registration: Registration,
    every_ms: u64,
    next_ms: u64,
    beats_left: u32,
    /// Its last beat, while it is not answered.
    waits_for: Option<usize>,
}

struct World<'a> {
    plan: &'a Plan,
    now_ms: u64,
    unix_ms: u64,
    hosts: Vec<Host>,
    store: Store,
    /// What was stored once.
    backup: Kept,
    keepers: Vec<Keeper>,
    calls: usize,
    history: History,
    reached: Reached,
}

/// Does what the plan says.
pub(crate) fn play(plan: &Plan) -> (History, Reached) {
    let mut world = World::new(plan);
    let mut at_ms = 0;
    world.run_until(0);
    for action in &plan.actions {
        at_ms += action.after_ms;
        world.run_until(at_ms);
        world.act(&action.does);
    }
    world.finish();
    world.reached.requests = world.calls as u64;
    world.reached.simulated_ms = world.now_ms;
    (world.history, world.reached)
}

impl World<'_> {
    fn new(plan: &Plan) -> World<'_> {
        let settings = &plan.settings;
        let unix_ms = 1_700_000_000_000;
        let rules = Rules {
            reply_timeout_ms: settings.reply_timeout_ms,
            sweep_ms: settings.sweep_ms,
            enforce_unique: settings.enforce_unique,
            has_keys: settings.has_keys,
            admins: settings.admin.map(key_text).into_iter().collect::<BTreeSet<_>>(),
            waiting_max: settings.pending_changes_max,
            slack_ms: 5,
        };
        World {
            plan,
            now_ms: 0,
            unix_ms,
            hosts: (0..settings.hosts).map(Host::new).collect(),
            store: Store::new(settings.store_ms, settings.call_timeout_ms),
            backup: Kept::new(),
            keepers: Vec::new(),
            calls: 0,
            history: History { rules, unix_ms, entries: Vec::new() },
            reached: Reached::default(),
        }
    }

    /// Lets everything happen that happens until then, and then.
    fn run_until(&mut self, until_ms: u64) {
        loop {
            let now_ms = self.now_ms;
            let hosts = self.hosts.iter().map(|host| host.next_at_ms(now_ms));
            let keepers = self.keepers.iter().map(|keeper| keeper.next_ms);
            let next_ms = hosts.chain(keepers).chain(self.store.next_at_ms()).min();
            let Some(next_ms) = next_ms.filter(|next_ms| *next_ms <= until_ms) else { break };
            self.pass_to(next_ms.max(now_ms));
            self.happen();
        }
        self.pass_to(until_ms);
    }

    fn pass_to(&mut self, at_ms: u64) {
        self.unix_ms += at_ms - self.now_ms;
        self.now_ms = at_ms;
    }

    /// Everything that is due now.
    fn happen(&mut self) {
        self.beat();
        let timeout_ms = self.plan.settings.reply_timeout_ms;
        for answer in self.store.answers(self.now_ms, timeout_ms, &mut self.reached) {
            let host = answer.host;
            self.hosts[host].answered(answer);
        }
        for number in 0..self.hosts.len() {
            let mut turns = 0;
            while self.hosts[number].next_at_ms(self.now_ms) <= self.now_ms {
                self.turn(number);
                turns += 1;
                if turns > TURNS_MAX {
                    self.history.push(self.now_ms, What::Busy { host: number });
                    break;
                }
            }
        }
    }

    fn turn(&mut self, number: usize) {
        let mut replies = Vec::new();
        let mut around = Around {
            now_ms: self.now_ms,
            unix_ms: self.unix_ms,
            settings: &self.plan.settings,
            store: &mut self.store,
            history: &mut self.history,
            reached: &mut self.reached,
            replies: &mut replies,
        };
        self.hosts[number].turn(&mut around);
        for (call, reply) in replies {
            if let Some(code) = reply["code"].as_str() {
                self.reached.note(&format!("answer: {code}"));
            }
            self.hear(call, &reply);
        }
    }

    /// A client that keeps a service alive gets a reply.
    fn hear(&mut self, call: usize, reply: &Value) {
        let Some(at) = self.keepers.iter().position(|keeper| keeper.waits_for == Some(call)) else { return };
        let keeper = &mut self.keepers[at];
        keeper.waits_for = None;
        if reply["code"] == "not_found" {
            let (client, host, registration) = (keeper.client, keeper.host, keeper.registration.clone());
            self.ask(client, host, Ask::Register(registration));
        }
    }

    /// Clients that keep services alive do so.
    fn beat(&mut self) {
        for at in 0..self.keepers.len() {
            let keeper = &mut self.keepers[at];
            if keeper.next_ms > self.now_ms {
                continue;
            }
            keeper.beats_left -= 1;
            keeper.next_ms = self.now_ms + keeper.every_ms;
            let (client, host, id) = (keeper.client, keeper.host, keeper.registration.id.clone());
            if let Some(id) = id {
                let call = self.ask(client, host, Ask::Renew { id });
                self.keepers[at].waits_for = Some(call);
            }
        }
        self.keepers.retain(|keeper| keeper.beats_left > 0);
    }

    fn ask(&mut self, client: usize, host: usize, ask: Ask) -> usize {
        let call = self.calls;
        self.calls += 1;
        let has_keys = self.plan.settings.has_keys;
        let key = has_keys.then(|| key_of(client));
        let body = body(&ask, call);
        self.history.push(self.now_ms, What::Asked { call, client, host, key: key.map(key_text), ask });
        self.hosts[host].send(Message { call, key, body });
        call
    }

    fn act(&mut self, does: &Does) {
        match does {
            Does::Ask { client, host, ask, times } => {
                for _ in 0..*times {
                    self.ask(*client, *host, ask.clone());
                }
            }
            Does::Keep { client, host, registration, every_ms, beats } => {
                self.ask(*client, *host, Ask::Register(registration.clone()));
                // One keeper for each service.
                self.keepers.retain(|keeper| keeper.registration.id != registration.id);
                self.keepers.push(Keeper {
                    client: *client,
                    host: *host,
                    registration: registration.clone(),
                    every_ms: *every_ms,
                    next_ms: self.now_ms + *every_ms,
                    beats_left: *beats,
                    waits_for: None,
                });
            }
            Does::Store(fault) => {
                self.note(format!("the store: {fault:?}"));
                self.store.fail(*fault, self.now_ms);
            }
            Does::Lose { id } => {
                if self.store.lose(id) {
                    self.reached.note("store: lost a record");
                    self.history.push(self.now_ms, What::Lost { id: id.clone() });
                }
            }
            Does::Restore { down_ms } => {
                for host in 0..self.hosts.len() {
                    self.hosts[host].kill(0, 128, *down_ms, self.now_ms);
                }
                self.happen();
                if self.hosts.iter().all(|host| !host.is_up()) {
                    self.store.kept.restore(&mut self.backup);
                    self.reached.note("store: restored from a backup");
                    self.history.push(self.now_ms, What::Replaced);
                }
            }
            Does::HoldUp { host, ms } => {
                self.note(format!("the host is held up for {ms} ms"));
                self.hosts[*host].hold_up(*ms, self.now_ms);
            }
            Does::Stop { host, down_ms } => self.hosts[*host].stop(*down_ms),
            Does::Kill { host, steps, part, down_ms } => self.hosts[*host].kill(*steps, *part, *down_ms, self.now_ms),
            Does::WallJump { by_ms } => {
                self.unix_ms = self.unix_ms.saturating_add_signed(*by_ms);
                self.reached.note(if *by_ms > 0 { "wall clock: ahead" } else { "wall clock: back" });
                self.history.push(self.now_ms, What::WallJumped { by_ms: *by_ms });
            }
        }
        // What is done in the same millisecond is in order nevertheless.
        self.happen();
    }

    fn note(&mut self, text: String) {
        self.history.push(self.now_ms, What::Note(text));
    }

    /// The store is well again, everybody calms down, the hosts stop in good order and start once more: what they
    /// find is what was acknowledged.
    fn finish(&mut self) {
        self.note("the plan is at its end: the store is well again".into());
        self.store.heal();
        self.keepers.clear();
        let settings = &self.plan.settings;
        // A host may be held up, or away.
        let mut until_ms = self.now_ms + SETTLE_MS + settings.call_timeout_ms;
        while self.hosts.iter().any(|host| !host.is_up() || host.is_held_up(until_ms - SETTLE_MS)) {
            until_ms += SETTLE_MS;
            self.run_until(until_ms);
        }
        self.run_until(until_ms);
        for host in 0..self.hosts.len() {
            self.ask(0, host, Ask::List { service_type: None });
            self.hosts[host].stop(10);
        }
        until_ms = self.now_ms + 2 * SETTLE_MS;
        self.run_until(until_ms);
        for host in 0..self.hosts.len() {
            self.ask(0, host, Ask::List { service_type: None });
        }
        self.run_until(until_ms + 100);
    }
}

/// A request as it is sent.
fn body(ask: &Ask, call: usize) -> String {
    let body = match ask {
        Ask::Register(registration) => {
            let Registration { id, service_type, tag, claim, ttl_ms, bulk } = registration;
            let mut info = json!({"id": id, "name": "N", "host": "h", "port": 1, "type": service_type, "call": call});
            if let Some(tag) = tag {
                info["tags"] = json!([tag]);
            }
            if *bulk > 0 {
                info["bulk"] = "x".repeat(*bulk).into();
            }
            match claim {
                Claim::Plain => {}
                Claim::Singleton => info["singleton"] = true.into(),
                Claim::AllowDuplicate => info["allow_duplicate_service_type"] = true.into(),
            }
            json!({"action": "register", "service_info": info, "ttl": *ttl_ms as f64 / 1000.0})
        }
        Ask::Deregister { id } => json!({"action": "deregister", "service_id": id}),
        Ask::Renew { id } => json!({"action": "renew", "service_id": id}),
        Ask::Get { id } => json!({"action": "get", "service_id": id}),
        Ask::List { service_type } => json!({"action": "list", "service_type": service_type}),
        Ask::Discover { service_type } => json!({"action": "discover", "service_type": service_type}),
    };
    body.to_string()
}
