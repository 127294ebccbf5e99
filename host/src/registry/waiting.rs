//! Clients that wait for a service to come: `discover` with `wait`.
//!
//! They stand by the type that they have asked for: nobody else is looked at when a service comes, which is when it is
//! registered, or heard of again after it had run out. Many may wait for a type, each for something else. So they are
//! told a number at a time, over several turns.

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
    /// Services that have come, each with the type whose waiting clients are still to be told.
    come: VecDeque<(Arc<str>, Arc<str>)>,
    known: HashSet<(Arc<str>, Arc<str>)>,
    /// The one that clients are being told of, and the last ticket that was.
    telling: Option<(Arc<str>, Arc<str>, Option<u64>)>,
    /// The last one that was asked whether it is still there.
    asked: (u64, u64),
}

impl<C> Default for Waiting<C> {
    fn default() -> Self {
        Waiting {
            by_type: HashMap::new(),
            deadlines: BTreeMap::new(),
            next_ticket: 0,
            shares: Shares::default(),
            come: VecDeque::new(),
            known: HashSet::new(),
            telling: None,
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
        if self.telling.is_some() || !self.come.is_empty() {
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

    /// Whom clients are to be told of next: the type that they wait for, the id, and the last ticket that has been told.
    fn take_come(&mut self) -> Option<(Arc<str>, Arc<str>, Option<u64>)> {
        self.telling.take().or_else(|| {
            let come = self.come.pop_front()?;
            // It may change and come again while it is told of.
            self.known.remove(&come);
            Some((come.0, come.1, None))
        })
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
            let come = (name.clone(), service.id().clone());
            if self.waiting.known.insert(come.clone()) {
                self.waiting.come.push_back(come);
            }
        }
    }

    /// Answers some of those who wait for services that have come, and of those whose time is up.
    pub(super) fn tell_waiting(&mut self, now: Now, out: &mut Output<C>) {
        let mut work = 0;
        while work < WORK_MAX {
            let Some((name, id, told)) = self.waiting.take_come() else { break };
            work += SLOT_WORK;
            let service = self.services.get(&id).filter(|service| service.is_passing(now.uptime_ms));
            let after = told.map_or(Bound::Unbounded, Bound::Excluded);
            let waiting = self.waiting.by_type.get(&name).map(|waiting| waiting.range((after, Bound::Unbounded)));
            let next = waiting.and_then(|mut waiting| waiting.next());
            let (Some(service), Some((&ticket, (_, wanted)))) = (service, next) else { continue };
            work += wanted.selection.work(service);
            let reply =
                wanted.wants(service, now).then(|| self.as_fresh(wanted.reply(&[service], now), wanted.max_stale_ms));
            if let Some(reply) = reply {
                work += service.shown_bytes() + REPLY_BYTES;
                out.replies.extend(self.waiting.remove(&name, ticket).map(|(caller, _)| (caller, reply)));
            }
            self.waiting.telling = Some((name, id, Some(ticket)));
        }
        for _ in 0..TIMED_OUT_MAX {
            let Some((caller, wanted)) = self.waiting.timed_out(now.uptime_ms) else { break };
            out.replies.push((caller, self.as_fresh(wanted.refusal(), wanted.max_stale_ms)));
        }
    }

    /// Tells all who wait for a service to come that there is none: the host is about to stop.
    pub fn dismiss_waiting(&mut self, out: &mut Output<C>) {
        while let Some((caller, wanted)) = self.waiting.timed_out(u64::MAX) {
            out.replies.push((caller, self.as_fresh(wanted.refusal(), wanted.max_stale_ms)));
        }
    }
}
