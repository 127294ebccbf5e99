//! The world of a simulation: it does what a plan says, hosts, store and clients do the rest, and the history is what
//! comes of it. Nothing here is left to chance: the same plan has the same history.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::adapter::{Kept, key_text};
use crate::follower::Follower;
use crate::history::{Ask, History, Registration, Rules, What};
use crate::host::{Around, Host, Message};
use crate::plan::{Does, Plan, key_of};
use crate::reached::Reached;
use crate::request;
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
    /// Its registration, and the generation that it has got by it.
    registered_by: usize,
    generation: Option<u64>,
    /// Until when nothing of it reaches the host.
    cut_off_until_ms: u64,
}

struct World<'a> {
    plan: &'a Plan,
    now_ms: u64,
    unix_ms: u64,
    hosts: Vec<Host>,
    stores: [Store; 2],
    /// What was stored once.
    backup: Kept,
    keepers: Vec<Keeper>,
    /// Who has made which call.
    callers: Vec<usize>,
    /// The generations that clients have last been told of their registrations of an id.
    generations: HashMap<(usize, String), u64>,
    followers: Vec<Follower>,
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
    world.reached.requests = world.callers.len() as u64;
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
            sees_store: true,
            apart_ms: 0,
            history_changes: settings.history_changes,
            mass_expiry_share: settings.mass_expiry_share,
            mass_expiry_hold_ms: settings.mass_expiry_hold_ms,
        };
        World {
            plan,
            now_ms: 0,
            unix_ms,
            hosts: (0..settings.hosts).map(Host::new).collect(),
            stores: [0, 1]
                .map(|number| Store::new(number, settings.store_ms, settings.call_timeout_ms, settings.keeps_history)),
            backup: Kept::new(0),
            keepers: Vec::new(),
            callers: Vec::new(),
            generations: HashMap::new(),
            followers: Vec::new(),
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
            let followers = self.followers.iter().map(|follower| follower.next_ms);
            let stores = self.stores.iter().filter_map(Store::next_at_ms);
            let next_ms = hosts.chain(keepers).chain(followers).chain(stores).min();
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
        self.follow();
        let timeout_ms = self.plan.settings.reply_timeout_ms;
        for store in &mut self.stores {
            for answer in store.answers(self.now_ms, timeout_ms, &mut self.reached) {
                let host = answer.host;
                self.hosts[host].answered(answer);
            }
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
            stores: &mut self.stores,
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
        if let (Some(generation), Some(id)) = (reply["generation"].as_u64(), reply["service_id"].as_str()) {
            self.generations.insert((self.callers[call], id.into()), generation);
            for keeper in self.keepers.iter_mut().filter(|keeper| keeper.registered_by == call) {
                keeper.generation = Some(generation);
            }
        }
        self.followers.iter_mut().for_each(|follower| follower.hear(call, reply, self.now_ms));
        let Some(at) = self.keepers.iter().position(|keeper| keeper.waits_for == Some(call)) else { return };
        let keeper = &mut self.keepers[at];
        keeper.waits_for = None;
        if reply["code"] == "not_found" {
            let (client, host, registration) = (keeper.client, keeper.host, keeper.registration.clone());
            self.keepers[at].generation = None;
            self.keepers[at].registered_by = self.ask(client, host, Ask::Register(registration));
        } else if reply["code"] == "deregistered" || reply["code"] == "replaced" {
            self.keepers.remove(at);
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
            if keeper.cut_off_until_ms > self.now_ms {
                continue;
            }
            let (client, host, id) = (keeper.client, keeper.host, keeper.registration.id.clone());
            if let Some(id) = id {
                let generation = keeper.generation;
                let call = self.ask(client, host, Ask::Renew { id, generation });
                self.keepers[at].waits_for = Some(call);
            }
        }
        self.keepers.retain(|keeper| keeper.beats_left > 0);
    }

    /// Clients that follow changes ask for the next ones.
    fn follow(&mut self) {
        for at in 0..self.followers.len() {
            let follower = &mut self.followers[at];
            if follower.next_ms > self.now_ms {
                continue;
            }
            if let Some((client, host, ask)) = follower.next(self.now_ms) {
                let call = self.ask(client, host, ask);
                self.followers[at].asked(call);
            }
        }
        self.followers.retain(Follower::is_active);
    }

    fn ask(&mut self, client: usize, host: usize, ask: Ask) -> usize {
        let call = self.callers.len();
        self.callers.push(client);
        let has_keys = self.plan.settings.has_keys;
        let key = has_keys.then(|| key_of(client));
        let body = request::body(&ask, call).to_string();
        self.history.push(self.now_ms, What::Asked { call, client, host, key: key.map(key_text), ask });
        self.hosts[host].send(Message { call, key, body });
        call
    }

    fn act(&mut self, does: &Does) {
        match does {
            Does::Ask { client, host, ask, times } => {
                // Who has registered it knows of which generation it is.
                let known = ask.id().and_then(|id| self.generations.get(&(*client, id.into()))).copied();
                let ask = ask.clone().with_generation(known);
                for _ in 0..*times {
                    self.ask(*client, *host, ask.clone());
                }
            }
            Does::Keep { client, host, registration, every_ms, beats } => {
                let registered_by = self.ask(*client, *host, Ask::Register(registration.clone()));
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
                    registered_by,
                    generation: None,
                    cut_off_until_ms: 0,
                });
            }
            Does::CutOff { clients, ms } => {
                self.note(format!("clients {clients:b} are cut off for {ms} ms"));
                let until_ms = self.now_ms + ms;
                let cut_off = self.keepers.iter_mut().filter(|keeper| clients >> keeper.client & 1 == 1);
                cut_off.for_each(|keeper| keeper.cut_off_until_ms = keeper.cut_off_until_ms.max(until_ms));
            }
            Does::EndMassExpiry { keep } => drop(self.ask(0, 0, Ask::EndMassExpiry { keep: *keep })),
            Does::Follow(follow) => self.followers.push(Follower::new(follow.clone(), self.now_ms)),
            Does::Store(fault) => {
                self.note(format!("the store: {fault:?}"));
                let store = self.in_charge();
                self.stores[store].fail(*fault, self.now_ms);
            }
            Does::Other(fault) => {
                self.note(format!("the other store: {fault:?}"));
                let store = 1 - self.in_charge();
                self.stores[store].fail(*fault, self.now_ms);
            }
            Does::Swap { host, wish } => {
                self.note(format!("the host is to move: {wish:?}"));
                self.hosts[*host].swap(*wish, self.now_ms);
            }
            Does::Lose { id } => {
                let store = self.in_charge();
                if self.stores[store].lose(id) {
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
                    let store = self.in_charge();
                    self.stores[store].kept.restore(&mut self.backup);
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

    /// The store that is in charge, or is to be.
    fn in_charge(&self) -> usize {
        self.hosts[0].store()
    }

    fn note(&mut self, text: String) {
        self.history.push(self.now_ms, What::Note(text));
    }

    /// The store is well again, everybody calms down, the hosts stop in good order and start once more: what they
    /// find is what was acknowledged.
    fn finish(&mut self) {
        self.note("the plan is at its end: the store is well again".into());
        self.stores.iter_mut().for_each(Store::heal);
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
