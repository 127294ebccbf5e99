//! Clients that wait for a service to come: `discover` with `wait`.
//!
//! They stand by the type that they have asked for: nobody else is looked at when a service comes, which is when it is
//! registered, or heard of again after it had run out. Many may wait for a type, each for something else. So they are
//! told a number at a time, over several turns, and all types alike: who waits for one is not kept waiting by those who
//! wait for another, and by what they have to look at.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::discovery::Wanted;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::pages::{SLOT_WORK, WORK_MAX};
use crate::registry::shares::{Share, Shares};
use crate::registry::turns::Turns;
use crate::security::origin::Holder;

/// How many are told at a time that their time is up.
const TIMED_OUT_MAX: usize = 1024;
/// How much memory it may take what all want who wait, and what those of one address or key want; in bytes, and one of
/// them beyond.
const BYTES_MAX: usize = 64 << 20;
const BYTES_MAX_OF_ONE: usize = BYTES_MAX / 2;
/// About how much a reply takes besides the services in it, in bytes.
const REPLY_BYTES: usize = 256;

/// Who waits, and who has come.
pub(super) struct Waiting<C> {
    by_type: HashMap<Arc<str>, BTreeMap<u64, (C, Wanted)>>,
    /// By when their time is up and by ticket: the types that they wait for.
    deadlines: BTreeMap<(u64, u64), Arc<str>>,
    next_ticket: u64,
    /// Whose they are.
    shares: Shares,
    /// Services that have come, by the types whose waiting clients are still to be told.
    come: HashMap<Arc<str>, Come>,
    turns: Turns<Arc<str>>,
    /// The last one that was asked whether it is still there.
    asked: (u64, u64),
}

/// Services of a type that have come.
#[derive(Default)]
struct Come {
    ids: VecDeque<Arc<str>>,
    known: HashSet<Arc<str>>,
    /// The one that clients are being told of, and the last ticket that was.
    telling: Option<(Arc<str>, Option<u64>)>,
}

impl Come {
    /// Whom clients are to be told of next, and the last ticket that has been told.
    fn take(&mut self) -> Option<(Arc<str>, Option<u64>)> {
        self.telling.take().or_else(|| {
            let id = self.ids.pop_front()?;
            // It may change and come again while it is told of.
            self.known.remove(&id);
            Some((id, None))
        })
    }
}

impl<C> Default for Waiting<C> {
    fn default() -> Self {
        Waiting {
            by_type: HashMap::new(),
            deadlines: BTreeMap::new(),
            next_ticket: 0,
            shares: Shares::default(),
            come: HashMap::new(),
            turns: Turns::default(),
            asked: (0, 0),
        }
    }
}

impl<C> Waiting<C> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// When somebody is to be told something, if anybody waits.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        if !self.turns.is_empty() {
            return Some(0);
        }
        self.deadlines.first_key_value().map(|((until_ms, _), _)| *until_ms)
    }

    fn add(&mut self, caller: C, wanted: Wanted) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let name: Arc<str> = match self.by_type.get_key_value(wanted.service_type()) {
            Some((name, _)) => name.clone(),
            None => wanted.service_type().into(),
        };
        self.deadlines.insert((wanted.until_ms, ticket), name.clone());
        self.shares.take(wanted.origin.holder(), wanted.selection.bytes());
        self.by_type.entry(name).or_default().insert(ticket, (caller, wanted));
    }

    fn remove(&mut self, name: &str, ticket: u64) -> Option<(C, Wanted)> {
        let waiting = self.by_type.get_mut(name)?;
        let (caller, wanted) = waiting.remove(&ticket)?;
        if waiting.is_empty() {
            self.by_type.remove(name);
        }
        self.deadlines.remove(&(wanted.until_ms, ticket));
        self.shares.give_back(wanted.origin.holder(), wanted.selection.bytes());
        Some((caller, wanted))
    }

    /// Forgets those who have gone away: `most` are asked, and the next ones the next time.
    pub(super) fn drop_gone(&mut self, is_gone: impl Fn(&C) -> bool, most: usize) {
        let behind = (Bound::Excluded(self.asked), Bound::Unbounded);
        let next: Vec<_> = self.deadlines.range(behind).take(most).map(|(key, name)| (*key, name.clone())).collect();
        self.asked = next.last().filter(|_| next.len() == most).map_or((0, 0), |(key, _)| *key);
        for ((_, ticket), name) in next {
            let waiting = self.by_type.get(&name).and_then(|waiting| waiting.get(&ticket));
            if waiting.is_some_and(|(caller, _)| is_gone(caller)) {
                self.remove(&name, ticket);
            }
        }
    }

    /// The next one whose time is up.
    fn timed_out(&mut self, uptime_ms: u64) -> Option<(C, Wanted)> {
        let entry = self.deadlines.first_entry().filter(|entry| entry.key().0 <= uptime_ms)?;
        let ((_, ticket), name) = entry.remove_entry();
        self.remove(&name, ticket)
    }
}

impl<C> Registry<C> {
    /// The refusal of a client that is to wait for a service or for a change, if it may not.
    pub(super) fn no_room_to_wait(&self, holder: Holder) -> Option<Reply> {
        let shares = [&self.waiting.shares, self.follow.shares()];
        let sum = |of: fn(&Shares, &Holder) -> Share| of(shares[0], &holder) + of(shares[1], &holder);
        let (all, its) = (sum(|shares, _| shares.all()), sum(Shares::of));
        let max = &self.policy.following;
        let message = if its.count >= max.watchers_per_address || its.bytes > BYTES_MAX_OF_ONE {
            "as many requests of this address or key wait as limits.waiting_watchers_per_address allows, try again later"
        } else if all.count >= max.watchers || all.bytes > BYTES_MAX {
            "as many clients wait as limits.waiting_watchers allows, try again later"
        } else {
            return None;
        };
        Some(Reply::failure(Code::Overloaded, "Too many requests").text("message", message))
    }

    /// Lets a client wait for who is not there, if it wants to.
    pub(super) fn wait(&mut self, caller: C, wanted: Wanted, now: Now, out: &mut Output<C>) {
        let reply = if wanted.until_ms <= now.uptime_ms {
            self.as_fresh(wanted.refusal(), wanted.max_stale_ms)
        } else if let Some(refusal) = self.no_room_to_wait(wanted.origin.holder()) {
            refusal
        } else {
            return self.waiting.add(caller, wanted);
        };
        out.replies.push((caller, reply));
    }

    /// A service has come, or is passing again. Whoever waits for it is told by [`tell_waiting`](Self::tell_waiting).
    pub(super) fn has_come(&mut self, id: &str) {
        if self.waiting.len() == 0 && self.searches.is_idle() {
            return;
        }
        let Some(service) = self.services.get(id) else { return };
        self.searches.note(service);
        for name in service.types().iter().filter(|name| self.waiting.by_type.contains_key(*name)) {
            let come = self.waiting.come.entry(name.clone()).or_default();
            if come.known.insert(service.id().clone()) {
                come.ids.push_back(service.id().clone());
                self.waiting.turns.add(name, SLOT_WORK + service.shown_bytes());
            }
        }
    }

    /// All services may be others: whoever waits is shown those that there are.
    pub(super) fn look_again(&mut self) {
        let names: Vec<Arc<str>> = self.waiting.by_type.keys().cloned().collect();
        for name in names {
            let of_type = self.services.slots_of_type(&name).filter_map(|slot| self.services.at(slot));
            let ids: Vec<Arc<str>> = of_type.map(|service| service.id().clone()).collect();
            ids.iter().for_each(|id| self.has_come(id));
        }
    }

    /// Answers some of those who wait for services that have come, and of those whose time is up.
    pub(super) fn tell_waiting(&mut self, now: Now, out: &mut Output<C>) {
        let mut work = 0;
        while work < WORK_MAX
            && let Some(name) = self.waiting.turns.first().cloned()
        {
            let piece = self.tell_next(&name, now, out);
            self.waiting.turns.worked(piece.unwrap_or_default(), piece.is_some());
            work += piece.unwrap_or(SLOT_WORK);
        }
        for _ in 0..TIMED_OUT_MAX {
            let Some((caller, wanted)) = self.waiting.timed_out(now.uptime_ms) else { break };
            out.replies.push((caller, self.as_fresh(wanted.refusal(), wanted.max_stale_ms)));
        }
    }

    /// Shows the next client that waits for this type a service that has come, and how much work that was. `None` if all
    /// have been shown all.
    fn tell_next(&mut self, name: &Arc<str>, now: Now, out: &mut Output<C>) -> Option<usize> {
        let Some((id, told)) = self.waiting.come.get_mut(name).and_then(Come::take) else {
            self.waiting.come.remove(name);
            return None;
        };
        let mut work = SLOT_WORK;
        let service = self.services.get(&id).filter(|service| service.is_passing(now.uptime_ms));
        let after = told.map_or(Bound::Unbounded, Bound::Excluded);
        let waiting = self.waiting.by_type.get(name).map(|waiting| waiting.range((after, Bound::Unbounded)));
        let next = waiting.and_then(|mut waiting| waiting.next());
        let (Some(service), Some((&ticket, (_, wanted)))) = (service, next) else { return Some(work) };
        work += wanted.selection.work(service);
        if wanted.wants(service, now) {
            work += service.shown_bytes() + REPLY_BYTES;
            let reply = self.as_fresh(wanted.reply(&[service], now), wanted.max_stale_ms);
            out.replies.extend(self.waiting.remove(name, ticket).map(|(caller, _)| (caller, reply)));
        }
        if let Some(come) = self.waiting.come.get_mut(name) {
            come.telling = Some((id, Some(ticket)));
        }
        Some(work)
    }

    /// Tells all who wait for a service to come that there is none: the host is about to stop.
    pub fn dismiss_waiting(&mut self, out: &mut Output<C>) {
        while let Some((caller, wanted)) = self.waiting.timed_out(u64::MAX) {
            out.replies.push((caller, self.as_fresh(wanted.refusal(), wanted.max_stale_ms)));
        }
    }
}
