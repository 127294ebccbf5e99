//! What waits for the store: changes that gather, the group that is on its way, clients that wait for an answer,
//! heartbeats to be written, and records whose stored state is in doubt.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use indexmap::IndexSet;
use registry_plugin_api::RemoveReason;

use crate::protocol::registration::Registration;
use crate::registry::Now;
use crate::registry::service::Service;
use crate::security::key::PublicKey;

/// How long heartbeats gather before they are written, in milliseconds.
const HEARTBEAT_WRITE_INTERVAL_MS: u64 = 1000;
/// How long after a failed group the store is tried again without a client asking for it, in milliseconds.
const RETRY_INTERVAL_MS: u64 = 200;

/// A change that a client has asked for, not yet looked at in the light of the services there are.
pub(super) enum Wish {
    /// Register, with the id that it will have.
    Register {
        /// The id, new or given.
        id: Arc<str>,
        /// What to register.
        registration: Box<Registration>,
        /// The type that must be taken by no other service.
        unique: Option<String>,
    },
    /// Deregister.
    Deregister {
        /// The service's id.
        id: Arc<str>,
    },
}

/// A wish that has to wait until an earlier change is through, since its answer depends on it.
pub(super) struct Deferred {
    pub(super) ticket: u64,
    /// The key of whoever wishes it.
    pub(super) client: Option<PublicKey>,
    pub(super) wish: Wish,
    pub(super) arrived: Now,
}

/// A change that has been found right, for the store to make.
pub(super) enum Write {
    /// Store a service.
    Put {
        /// The service as it will be.
        service: Box<Service>,
        /// The type that must be taken by no other service.
        unique: Option<String>,
    },
    /// Remove a service.
    Remove {
        /// Its id.
        id: Arc<str>,
        /// Why.
        reason: RemoveReason,
        /// Its types: a demand for uniqueness has to wait for the outcome.
        types: Arc<[Arc<str>]>,
    },
}

impl Write {
    pub(super) fn id(&self) -> &Arc<str> {
        match self {
            Write::Put { service, .. } => service.id(),
            Write::Remove { id, .. } => id,
        }
    }

    fn types(&self) -> &[Arc<str>] {
        match self {
            Write::Put { service, .. } => service.types(),
            Write::Remove { types, .. } => types,
        }
    }
}

/// A write, and who waits for it: nobody, if the core itself wants it.
pub(super) struct Queued {
    pub(super) ticket: Option<u64>,
    pub(super) write: Write,
}

/// A part of the group that is on its way to the store.
pub(super) enum Sent {
    /// A change.
    Write(Queued),
    /// The record as the core has it, over whatever is stored.
    Restore(Arc<str>),
    /// A heartbeat.
    Renew(Arc<str>),
}

/// What a client waits for.
pub(super) enum Wait {
    /// A change. `error` is the text that it gets if the change fails.
    Change {
        /// The error text that old clients know.
        error: &'static str,
        /// How much waits with it, in bytes.
        bytes: usize,
    },
    /// The store's choice among services.
    Choice {
        /// The type that was asked for.
        service_type: String,
    },
}

impl Wait {
    fn bytes(&self) -> usize {
        match self {
            Wait::Change { bytes, .. } => *bytes,
            Wait::Choice { .. } => 0,
        }
    }
}

/// Ids and types that a change under way concerns: others that concern them have to wait.
#[derive(Default)]
struct Claims {
    ids: HashSet<Arc<str>>,
    types: HashSet<Arc<str>>,
}

/// All that waits.
pub(super) struct Pending<C> {
    gathering: VecDeque<Queued>,
    sent: Vec<Sent>,
    sent_at_ms: u64,
    deferred: VecDeque<Deferred>,
    claims: Claims,
    waiting: HashMap<u64, (C, Wait)>,
    /// How much waits with them, in bytes.
    waiting_bytes: usize,
    /// Tickets in the order in which their time is up; those that were answered are passed over.
    timeouts: VecDeque<(u64, u64)>,
    next_ticket: u64,
    heartbeats: IndexSet<Arc<str>>,
    heartbeats_due_ms: u64,
    doubtful: IndexSet<Arc<str>>,
    /// Services that a clean-up has found critical. They claim nothing and wait behind everything that a client waits
    /// for: whoever is heard of before its turn stays.
    expiring: VecDeque<Arc<str>>,
    retry_at_ms: u64,
}

impl<C> Default for Pending<C> {
    fn default() -> Self {
        Pending {
            gathering: VecDeque::new(),
            sent: Vec::new(),
            sent_at_ms: 0,
            deferred: VecDeque::new(),
            claims: Claims::default(),
            waiting: HashMap::new(),
            waiting_bytes: 0,
            timeouts: VecDeque::new(),
            next_ticket: 0,
            heartbeats: IndexSet::new(),
            heartbeats_due_ms: 0,
            doubtful: IndexSet::new(),
            expiring: VecDeque::new(),
            retry_at_ms: 0,
        }
    }
}

impl<C> Pending<C> {
    /// Lets a client wait until `deadline_ms`. The deadlines of later calls must not be earlier.
    pub(super) fn wait(&mut self, caller: C, wait: Wait, deadline_ms: u64) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting_bytes += wait.bytes();
        self.waiting.insert(ticket, (caller, wait));
        self.timeouts.push_back((deadline_ms, ticket));
        ticket
    }

    /// The client with this ticket, who now gets an answer. `None` if it has been told that nothing came of it.
    pub(super) fn answer(&mut self, ticket: u64) -> Option<(C, Wait)> {
        let (caller, wait) = self.waiting.remove(&ticket)?;
        self.waiting_bytes -= wait.bytes();
        Some((caller, wait))
    }

    /// Whether the client with this ticket still waits.
    pub(super) fn is_waiting(&self, ticket: u64) -> bool {
        self.waiting.contains_key(&ticket)
    }

    /// How many changes wait: those of clients, and records to be restored.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len() + self.doubtful.len()
    }

    /// The next client whose time is up.
    pub(super) fn timed_out(&mut self, uptime_ms: u64) -> Option<(C, Wait)> {
        while let Some(&(deadline_ms, ticket)) = self.timeouts.front() {
            if deadline_ms > uptime_ms {
                break;
            }
            self.timeouts.pop_front();
            if let Some(waiting) = self.answer(ticket) {
                return Some(waiting);
            }
        }
        None
    }

    /// How much waits with clients, in bytes.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether the wish has to wait for another change.
    pub(super) fn is_claimed(&self, wish: &Wish) -> bool {
        match wish {
            Wish::Deregister { id } => self.is_id_claimed(id),
            Wish::Register { id, unique, .. } => {
                self.is_id_claimed(id) || unique.as_deref().is_some_and(|name| self.claims.types.contains(name))
            }
        }
    }

    /// Whether a change of this id is under way.
    pub(super) fn is_id_claimed(&self, id: &str) -> bool {
        self.claims.ids.contains(id)
    }

    pub(super) fn defer(&mut self, deferred: Deferred) {
        self.claims.add_wish(&deferred.wish);
        self.deferred.push_back(deferred);
    }

    pub(super) fn queue(&mut self, queued: Queued) {
        self.claims.add_write(&queued.write);
        self.gathering.push_back(queued);
    }

    /// Forgets the claims of what is through, and hands out the deferred wishes, to be admitted again in order.
    /// `also` are ids that are claimed besides.
    pub(super) fn settle<'a>(&mut self, also: impl Iterator<Item = &'a Arc<str>>) -> VecDeque<Deferred> {
        let mut claims = Claims::default();
        self.sent.iter().for_each(|sent| claims.add_sent(sent));
        self.gathering.iter().for_each(|queued| claims.add_write(&queued.write));
        claims.ids.extend(self.doubtful.iter().cloned());
        claims.ids.extend(also.cloned());
        self.claims = claims;
        let waiting = &self.waiting;
        let mut deferred = std::mem::take(&mut self.deferred);
        deferred.retain(|deferred| waiting.contains_key(&deferred.ticket));
        deferred
    }

    /// Drops the gathered changes that `keep` does not want.
    pub(super) fn retain_gathered(&mut self, mut keep: impl FnMut(&Queued) -> bool) {
        let waiting = &self.waiting;
        self.gathering
            .retain(|queued| queued.ticket.is_none_or(|ticket| waiting.contains_key(&ticket)) && keep(queued));
    }

    /// Takes up to `most` gathered changes.
    pub(super) fn take_gathered(&mut self, most: usize) -> impl Iterator<Item = Queued> + '_ {
        let count = self.gathering.len().min(most);
        self.gathering.drain(..count)
    }

    /// Notes a heartbeat to be written.
    pub(super) fn heartbeat(&mut self, id: Arc<str>, now: Now) {
        if self.heartbeats.is_empty() {
            self.heartbeats_due_ms = now.uptime_ms + HEARTBEAT_WRITE_INTERVAL_MS;
        }
        self.heartbeats.insert(id);
    }

    /// Takes up to `most` heartbeats, if it is time to write them.
    pub(super) fn take_heartbeats(&mut self, most: usize, now: Now) -> Vec<Arc<str>> {
        if now.uptime_ms < self.heartbeats_due_ms {
            return Vec::new();
        }
        let count = self.heartbeats.len().min(most);
        self.heartbeats.drain(..count).collect()
    }

    /// Makes all heartbeats due.
    pub(super) fn hurry_heartbeats(&mut self) {
        self.heartbeats_due_ms = 0;
    }

    /// The record's stored state is in doubt: it is to be restored.
    pub(super) fn doubt(&mut self, id: Arc<str>) {
        self.doubtful.insert(id);
    }

    /// Takes up to `most` doubtful records, if it is time to restore them, or if changes of clients go to the store
    /// anyway: what may be left behind must not be in their way.
    pub(super) fn take_doubtful(&mut self, most: usize, now: Now) -> Vec<Arc<str>> {
        if now.uptime_ms < self.retry_at_ms && self.gathering.is_empty() {
            return Vec::new();
        }
        let count = self.doubtful.len().min(most);
        self.doubtful.drain(..count).collect()
    }

    /// Has these services expire, in place of those that were to expire so far.
    pub(super) fn expire(&mut self, critical: VecDeque<Arc<str>>) {
        self.expiring = critical;
    }

    /// How many services may have to expire.
    pub(super) fn expiring(&self) -> usize {
        self.expiring.len()
    }

    /// The next service that may have to expire and that no change under way concerns, unless the store needs rest.
    pub(super) fn take_expiring(&mut self, now: Now) -> Option<Arc<str>> {
        if now.uptime_ms < self.retry_at_ms {
            return None;
        }
        loop {
            let id = self.expiring.pop_front()?;
            if !self.is_id_claimed(&id) {
                return Some(id);
            }
        }
    }

    /// Lets the store rest for a while, but for what clients ask of it.
    pub(super) fn back_off(&mut self, now: Now) {
        self.retry_at_ms = now.uptime_ms + RETRY_INTERVAL_MS;
        self.heartbeats_due_ms = self.heartbeats_due_ms.max(self.retry_at_ms);
    }

    pub(super) fn send(&mut self, sent: Vec<Sent>, now: Now) {
        self.sent_at_ms = now.uptime_ms;
        debug_assert!(self.sent.is_empty(), "one group at a time");
        for sent in &sent {
            self.claims.add_sent(sent);
        }
        self.sent = sent;
    }

    pub(super) fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    pub(super) fn is_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Since when the store has had the group that it has, if it has one.
    pub(super) fn sent_at_ms(&self) -> Option<u64> {
        self.is_sent().then_some(self.sent_at_ms)
    }

    /// Whether something is there that the store has to know.
    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_empty()
            && self.gathering.is_empty()
            && self.deferred.is_empty()
            && self.doubtful.is_empty()
            && self.heartbeats.is_empty()
            && self.waiting.is_empty()
    }

    /// When something is to be done, if anything is.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        let timeout = self.timeouts.front().map(|(deadline_ms, _)| *deadline_ms);
        if self.is_sent() {
            return timeout;
        }
        let heartbeats = (!self.heartbeats.is_empty()).then_some(self.heartbeats_due_ms);
        let resting = !self.doubtful.is_empty() || !self.expiring.is_empty();
        let retry = resting.then_some(self.retry_at_ms);
        [timeout, heartbeats, retry].into_iter().flatten().min()
    }
}

impl Claims {
    fn add_sent(&mut self, sent: &Sent) {
        match sent {
            Sent::Write(queued) => self.add_write(&queued.write),
            Sent::Restore(id) => {
                self.ids.insert(id.clone());
            }
            Sent::Renew(_) => {}
        }
    }

    fn add_write(&mut self, write: &Write) {
        self.ids.insert(write.id().clone());
        self.types.extend(write.types().iter().cloned());
    }

    fn add_wish(&mut self, wish: &Wish) {
        match wish {
            Wish::Deregister { id } => {
                self.ids.insert(id.clone());
            }
            Wish::Register { id, registration, .. } => {
                self.ids.insert(id.clone());
                self.types.extend(registration.types.iter().map(|name| Arc::from(name.as_str())));
            }
        }
    }
}
