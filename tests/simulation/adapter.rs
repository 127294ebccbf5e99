//! The only file that knows how the core and the contract with plugins look: the core as the host's loop calls it,
//! and what a store does with one change.

use std::collections::{BTreeMap, HashSet};

use rand::SeedableRng;
use rand::rngs::StdRng;
use registry_host::protocol::request::{Limits, Port, parse};
use registry_host::registry::{About, Following, Now, Output, Policy, Promises, Registry};
use registry_host::security::access::{Access, Grant, Right};
use registry_host::security::key::PublicKey;
use registry_host::security::principal::Principal;
use registry_plugin_api::{Change, Error, Group, Outcome, Position, Record};
use serde_json::Value;

use crate::history::{HISTORY_BYTES, Service};
use crate::plan::Settings;

/// A key by its number.
fn key(number: u8) -> PublicKey {
    PublicKey::from_bytes([number; 32])
}

/// A key as records show it.
pub(crate) fn key_text(number: u8) -> String {
    key(number).to_string()
}

/// The core, and what it has to say.
pub(crate) struct Core {
    registry: Registry<usize>,
    out: Output<usize>,
}

impl Core {
    /// The core with what a store holds.
    pub(crate) fn load(settings: &Settings, kept: &Kept, position: &Position, seed: u64, unix_ms: u64) -> Core {
        let everybody = HashSet::from([Right::Read, Right::Register]);
        let rule = |clients, allow| Grant { clients, allow, types: Vec::new(), names: Vec::new() };
        let admins = settings.admin.map(|admin| HashSet::from([key(admin)]));
        let policy = Policy {
            enforce_unique_service_types: settings.enforce_unique,
            allow_swap: false,
            allow_terminate: false,
            reply_timeout_ms: settings.reply_timeout_ms,
            cleanup_interval_ms: settings.sweep_ms,
            call_timeout_ms: settings.call_timeout_ms,
            pending_changes_max: settings.pending_changes_max,
            pending_bytes_max: 1 << 24,
            services_bytes_max: 1 << 24,
            following: Following {
                changes: settings.history_changes,
                bytes: HISTORY_BYTES,
                watchers: 20,
                watchers_per_address: 20,
            },
            access: match settings.has_keys {
                false => Access::open(),
                true => Access::by_rules(vec![rule(None, everybody), rule(admins, HashSet::from([Right::Admin]))]),
            },
            mass_expiry_share: settings.mass_expiry_share,
            mass_expiry_hold_ms: settings.mass_expiry_hold_ms,
        };
        let rng = StdRng::seed_from_u64(seed);
        let promises = Promises { balances: false, history: settings.keeps_history };
        let mut registry = Registry::new(policy, promises, About::default(), position.clone(), rng);
        let now = Now { uptime_ms: 0, unix_ms };
        for record in kept.records.values() {
            registry.load(record.clone(), now).expect("what the host has stored can be loaded");
        }
        if settings.keeps_history {
            registry.begin_history(kept.complete_after);
            for (revision, text) in &kept.events {
                registry.load_change(*revision, text, now);
            }
            registry.end_history();
        }
        Core { registry, out: Output::default() }
    }

    /// A message comes in.
    pub(crate) fn receive(&mut self, call: usize, key_number: Option<u8>, body: &str, now: Now) {
        let request = parse(body.as_bytes(), Port::Requests, &Limits::default()).request.expect("clients speak well");
        let principal = Principal::from(key_number.map(key));
        self.registry.request(call, principal, request, now, &mut self.out);
    }

    pub(crate) fn tick(&mut self, now: Now) {
        self.registry.tick(now, &mut self.out);
    }

    /// Begins a copy to a store that holds this.
    pub(crate) fn begin_copy(&mut self, to: &Kept) {
        self.registry.begin_copy(to.records.keys().cloned());
    }

    pub(crate) fn next_copy(&mut self) -> Option<Vec<Change>> {
        self.registry.next_copy()
    }

    pub(crate) fn left_to_copy(&self) -> usize {
        self.registry.left_to_copy()
    }

    pub(crate) fn end_copy(&mut self) {
        self.registry.end_copy();
    }

    pub(crate) fn hold_changes(&mut self, are_held: bool) {
        self.registry.hold_changes(are_held);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.registry.is_settled()
    }

    /// Another store is in charge.
    pub(crate) fn move_to(&mut self, keeps_history: bool) {
        self.registry.move_to("the other", Promises { balances: false, history: keeps_history });
    }

    /// What tells a store that it is in charge.
    pub(crate) fn in_charge(&self) -> Group {
        Group::new(Position::new(self.registry.position().0, self.registry.issued()), Vec::new())
    }

    /// What tells a store that another one is.
    pub(crate) fn closing(&self) -> Group {
        Group::new(Mark::Closed.at(self.registry.issued()), Vec::new())
    }

    /// A part of the copy, for a store that is not in charge yet.
    pub(crate) fn copied(&self, mark: Mark, changes: Vec<Change>) -> Group {
        let revision = self.registry.issued();
        let mut group = Group::new(mark.at(revision), changes);
        group.forget_before = revision + 1;
        group
    }

    pub(crate) fn is_cleanup_due(&self, now: Now) -> bool {
        self.registry.is_cleanup_due(now)
    }

    pub(crate) fn clean_up(&mut self, now: Now) {
        self.registry.clean_up(now);
    }

    pub(crate) fn next_group(&mut self, now: Now) -> Option<Group> {
        self.registry.next_group(now, &mut self.out)
    }

    pub(crate) fn committed(&mut self, result: Result<Vec<Outcome>, Error>, now: Now) {
        self.registry.committed(result, now, &mut self.out);
    }

    /// Whether a long list is being written.
    pub(crate) fn has_lists(&self) -> bool {
        self.registry.has_lists()
    }

    pub(crate) fn continue_lists(&mut self, now: Now) {
        self.registry.continue_lists(true, now, &mut self.out);
    }

    /// Whether watchers are to be told something at once.
    pub(crate) fn has_news(&self) -> bool {
        self.registry.has_news()
    }

    pub(crate) fn end_watches(&mut self) {
        self.registry.end_watches();
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.registry.is_watched()
    }

    pub(crate) fn wake_at_ms(&self) -> u64 {
        self.registry.wake_at_ms()
    }

    pub(crate) fn hurry(&mut self) {
        self.registry.hurry();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.registry.is_idle()
    }

    /// The replies that are there, each with the call that it answers.
    pub(crate) fn take_replies(&mut self) -> Vec<(usize, String)> {
        self.out.replies.drain(..).map(|(call, reply)| (call, reply.finish(None).into_text())).collect()
    }

    /// For how long no service was heard of, where all were given that time on top.
    pub(crate) fn take_forgiven(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.out.forgiven)
    }

    pub(crate) fn take_notices(&mut self) -> Vec<String> {
        self.out.notices.drain(..).map(|(notice, _)| notice.json).collect()
    }

    pub(crate) fn take_events(&mut self) -> Vec<String> {
        self.out.events.drain(..).map(|(event, _)| String::from_utf8_lossy(&event.json).into_owned()).collect()
    }
}

/// Whether there is more to a group than heartbeats.
pub(crate) fn has_writes(group: &Group) -> bool {
    group.changes.iter().any(|change| !matches!(change, Change::Renew(_)))
}

/// A group for readers.
pub(crate) fn describe(group: &Group) -> String {
    let mark = Mark::of(&group.position).map(|mark| format!("{mark:?}")).into_iter();
    let describe = |change: &Change| match change {
        Change::Put(put) => {
            let record = &put.record;
            let service = serde_json::from_str(&record.document).map_err(|error| error.to_string());
            let call = service.and_then(Service::read).ok().and_then(|service| service.call);
            let call = call.map(|call| format!(" of #{call}")).unwrap_or_default();
            format!("{}: put {}{call}", record.revision, record.id)
        }
        Change::Remove(remove) => format!("{}: remove {}", remove.revision, remove.id),
        Change::Renew(renew) => format!("renew {}", renew.id),
        _ => "what the simulation does not know".into(),
    };
    mark.chain(group.changes.iter().map(describe)).collect::<Vec<_>>().join(", ")
}

/// What a store has in place of an epoch while it is not in charge, as `store/mark.rs` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Filling,
    Ready,
    Closed,
}

impl Mark {
    fn of(position: &Position) -> Option<Mark> {
        let all = [Mark::Filling, Mark::Ready, Mark::Closed];
        all.into_iter().find(|mark| mark.at(position.revision) == *position)
    }

    fn at(self, revision: u64) -> Position {
        Position::new(format!("{self:?}"), revision)
    }
}

/// What a store keeps.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// `None` if the store knows that it is not the one that the last group went to.
    position: Option<Position>,
    epochs: u64,
    pub(crate) records: BTreeMap<String, Record>,
    /// The text of each change, by its revision.
    events: BTreeMap<u64, String>,
    /// Every change with a greater revision is among them.
    complete_after: u64,
}

impl Kept {
    /// One whose epochs are numbered from there on.
    pub(crate) fn new(epochs: u64) -> Kept {
        Kept { position: None, epochs, records: BTreeMap::new(), events: BTreeMap::new(), complete_after: 0 }
    }

    /// Nothing was ever stored in it.
    pub(crate) fn is_new(&self) -> bool {
        self.position.is_none() && self.records.is_empty()
    }

    fn mark(&self) -> Option<Mark> {
        self.position.as_ref().and_then(Mark::of)
    }

    /// Whether a host can be started on it, as `mark::in_charge` has it.
    pub(crate) fn is_in_charge(&self) -> bool {
        matches!(self.mark(), None | Some(Mark::Ready))
    }

    /// Whether a host may move to it, as `mark::check_fillable` has it.
    pub(crate) fn is_fillable(&self) -> bool {
        self.records.is_empty() || self.mark().is_some()
    }

    /// The epoch in which a host would go on with it, if it goes on with one, and the revision.
    pub(crate) fn position(&self) -> (Option<String>, u64) {
        let epoch = self.position.as_ref().filter(|position| Mark::of(position).is_none());
        (epoch.map(|position| position.epoch.clone()), self.position.as_ref().map_or(0, |position| position.revision))
    }

    /// The operator has it in charge, whatever it says.
    pub(crate) fn reopen(&mut self) {
        self.position = None;
    }

    /// A host opens the store, as `store::open` does: without a position a new epoch begins.
    pub(crate) fn open(&mut self) -> Position {
        if self.mark().is_some() {
            self.position = None;
        }
        let last = self.records.values().map(|record| record.revision).max().unwrap_or(0);
        if self.position.as_ref().is_none_or(|position| position.revision < last) {
            self.epochs += 1;
            self.position = Some(Position::new(format!("epoch {}", self.epochs), last));
            self.events.clear();
            self.complete_after = last;
        }
        self.position.clone().unwrap_or_default()
    }

    /// Somebody puts a backup in the place of what is stored, of which there is a backup then.
    pub(crate) fn restore(&mut self, backup: &mut Kept) {
        std::mem::swap(self, backup);
        self.epochs = backup.epochs;
        self.position = None;
    }

    /// Does one change of a group, as the contract has it.
    pub(crate) fn apply(&mut self, change: &Change) -> Outcome {
        match change {
            Change::Put(put) => {
                let record = &put.record;
                self.tell(record.revision, &put.event);
                self.records.insert(record.id.clone(), record.clone());
                Outcome::Done
            }
            Change::Remove(remove) => {
                self.tell(remove.revision, &remove.event);
                Outcome::done_if(self.records.remove(&remove.id).is_some())
            }
            Change::Renew(renew) => {
                let record = self.records.get_mut(&renew.id);
                Outcome::done_if(record.map(|record| record.last_heartbeat_ms = renew.last_heartbeat_ms).is_some())
            }
            _ => Outcome::unknown(),
        }
    }

    /// The position fits what is there.
    fn tell(&mut self, revision: u64, event: &str) {
        if let Some(position) = &mut self.position {
            position.revision = position.revision.max(revision);
        }
        if !event.is_empty() {
            self.events.insert(revision, event.into());
        }
    }

    /// All of a group is done.
    pub(crate) fn finish(&mut self, group: &Group) {
        self.position = Some(group.position.clone());
        self.complete_after = self.complete_after.max(group.forget_before.saturating_sub(1));
        self.events.retain(|revision, _| *revision >= group.forget_before && !group.undone.contains(revision));
    }

    /// From which revision on changes can be followed.
    pub(crate) fn complete_after(&self) -> u64 {
        self.complete_after
    }

    /// What has been told of changes, as the checker sees it.
    pub(crate) fn history(&self) -> Vec<(u64, Value)> {
        let read = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
        self.events.iter().map(|(revision, text)| (*revision, read(text))).collect()
    }

    /// The contents as the checker sees them.
    pub(crate) fn contents(&self) -> Vec<Result<Service, String>> {
        let read = |record: &Record| {
            let document: Value = serde_json::from_str(&record.document).map_err(|error| error.to_string())?;
            let mut service = Service::read(document)?;
            service.last_heartbeat = Some(record.last_heartbeat_ms / 1000);
            if (&service.id, service.ttl_ms) != (&record.id, record.ttl_ms) {
                return Err(format!("a record and its document differ: {record:?}"));
            }
            Ok(service)
        };
        self.records.values().map(read).collect()
    }
}

pub(crate) fn is_put(change: &Change) -> bool {
    matches!(change, Change::Put(_))
}

pub(crate) fn refused() -> Outcome {
    Outcome::Refused(Error::unavailable("the store takes no such record"))
}

pub(crate) fn failed(why: &str) -> Error {
    Error::unavailable(why)
}
