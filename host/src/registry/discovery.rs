//! `discover`: healthy services of a type, by the store's choice or at random.
//!
//! | who asks | who answers |
//! |---|---|
//! | for one of a type, and the store has a say | the store, among a number of candidates |
//! | otherwise | the host at once: all of a small type are looked at, of a large one so many at random |
//! | a filter that few of a large type pass | `search`: the whole type is gone through, over several turns |
//! | with `wait`, and there is nobody | `waiting`: whoever comes next and is wanted |

use std::sync::Arc;

use indexmap::IndexSet;
use rand::seq::{SliceRandom, index};
use registry_plugin_api::Query;

use crate::protocol::page::Discover;
use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::changes::Wait;
use crate::registry::lists::AT_ONCE_BYTES;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::pages::{PAGE_BYTES, SLOT_WORK, WORK_MAX};
use crate::registry::selection::Selection;
use crate::registry::service::Service;
use crate::registry::slots::Slot;
use crate::security::origin::Origin;

/// How many choices the store may have to make at the same time, at most. Beyond that the host makes them, so that a
/// store that is held up is not asked without end.
const QUERIES_MAX: usize = 1024;
/// Among how many services the store chooses, at most: of more, as many picked at random.
const CANDIDATES_MAX: usize = 64;
/// How many services of a large type are looked at before all of it is gone through: about every tenth is wanted, or it
/// is hardly missed.
const TRIES_MIN: usize = 64;

/// What a client wants to discover.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) selection: Selection,
    /// How many, in a list; `None` for one that is not in a list.
    limit: Option<usize>,
    /// Until when it waits, if there is nobody.
    pub(super) until_ms: u64,
    /// For how long the host may not have been sure of its answer, at most.
    pub(super) max_stale_ms: u64,
    /// Who asks.
    pub(super) origin: Origin,
}

impl Wanted {
    pub(super) fn service_type(&self) -> &str {
        self.selection.filter.service_type.as_deref().unwrap_or_default()
    }

    /// How many are looked for.
    pub(super) fn count(&self) -> usize {
        self.limit.unwrap_or(1)
    }

    /// Whether a service is wanted, and healthy.
    pub(super) fn wants(&self, service: &Service, now: Now) -> bool {
        service.is_passing(now.uptime_ms) && !service.is_drained() && self.selection.wants(service)
    }

    /// The reply with these services, of which there is at least one.
    pub(super) fn reply(&self, services: &[&Service], now: Now) -> Reply {
        let shown = services.iter().map(|service| self.selection.show(service, now.uptime_ms));
        match (self.limit, services) {
            (None, [one, ..]) => Reply::success().service("service", &self.selection.show(one, now.uptime_ms)),
            _ => Reply::success().services("services", shown),
        }
    }

    pub(super) fn refusal(&self) -> Reply {
        let error = format!("No healthy service of type {} found", self.service_type());
        Reply::failure(Code::NoneHealthy, &error)
    }
}

/// What the host knows of who is wanted without going through all of a type.
enum Found {
    /// As many as are wanted, or all there are.
    Some(Reply),
    /// There is nobody.
    Nobody,
    /// There may be more.
    Perhaps,
}

impl<C> Registry<C> {
    pub(super) fn discover(
        &mut self,
        caller: C,
        asked: Discover,
        (origin, max_stale_ms): (Origin, u64),
        now: Now,
        out: &mut Output<C>,
    ) {
        let Discover { filter, fields, limit, wait } = asked;
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let until_ms = now.uptime_ms.saturating_add(wait_ms);
        let wanted = Wanted { selection: Selection { filter, fields }, limit, until_ms, max_stale_ms, origin };
        let is_plain = wanted.selection.filter.is_type_only() && limit.is_none();
        if is_plain && self.promises.balances && self.queries < QUERIES_MAX {
            let service_type = wanted.service_type();
            let candidates = self.candidates(service_type, now);
            if candidates.len() > 1 {
                let query = Query::new(service_type, candidates);
                let wait = Wait::Choice { wanted: Box::new(wanted) };
                let deadline_ms = self.reply_deadline_ms(now);
                let ticket = self.changes.waiters.add(caller, wait, deadline_ms);
                self.queries += 1;
                out.queries.push((ticket, query));
                return;
            }
        }
        self.seek(caller, wanted, now, out);
    }

    /// Ids of passing services of a type.
    fn candidates(&mut self, service_type: &str, now: Now) -> Vec<String> {
        let passing = self.services.members(service_type).passing;
        if passing <= CANDIDATES_MAX {
            let passing = self.services.passing_of_type(service_type);
            let passing = passing.filter(|service| service.is_passing(now.uptime_ms));
            return passing.map(|service| service.id().to_string()).collect();
        }
        let mut candidates = Vec::with_capacity(CANDIDATES_MAX);
        for _ in 0..CANDIDATES_MAX {
            let picked = self.services.pick(service_type, now.uptime_ms, &mut self.rng);
            candidates.extend(picked.map(|service| service.id().to_string()));
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// The store's choice among the candidates of a query, if it made one.
    pub fn chosen(&mut self, ticket: u64, service_id: Option<String>, now: Now, out: &mut Output<C>) {
        self.queries = self.queries.saturating_sub(1);
        let Some((caller, Wait::Choice { wanted })) = self.changes.waiters.take(ticket) else { return };
        // It may have changed since it was a candidate.
        let chosen = service_id.and_then(|id| self.services.get(&id)).filter(|service| wanted.wants(service, now));
        match chosen {
            Some(service) => {
                let reply = self.as_fresh(wanted.reply(&[service], now), wanted.max_stale_ms);
                out.replies.push((caller, reply));
            }
            None => self.seek(caller, *wanted, now, out),
        }
    }

    /// Answers with services at random, now or when some have been found.
    pub(super) fn seek(&mut self, caller: C, wanted: Wanted, now: Now, out: &mut Output<C>) {
        match self.find(&wanted, now) {
            Found::Some(reply) => out.replies.push((caller, self.as_fresh(reply, wanted.max_stale_ms))),
            Found::Nobody => self.wait(caller, wanted, now, out),
            Found::Perhaps => self.search(caller, wanted, out),
        }
    }

    fn find(&mut self, wanted: &Wanted, now: Now) -> Found {
        let selection = &wanted.selection;
        let Some(among) = selection.narrowest(&self.services) else { return Found::Nobody };
        if selection.filter.is_type_only() && wanted.limit.is_none() {
            let picked = self.services.pick(among, now.uptime_ms, &mut self.rng);
            return picked.map_or(Found::Nobody, |service| Found::Some(wanted.reply(&[service], now)));
        }
        let passing = self.services.members(among).passing;
        let (_, bytes) = self.services.extent(Some(among));
        // Each of them once, in an order by chance.
        let are_all = bytes <= AT_ONCE_BYTES || passing <= wanted.count();
        let slots: Vec<Slot> = if are_all {
            let mut slots: Vec<Slot> = self.services.passing_slots(among).collect();
            slots.shuffle(&mut self.rng);
            slots
        } else {
            // By type alone all are wanted, but for those that have just run out.
            let least = if selection.filter.is_type_only() { 1 } else { TRIES_MIN };
            let tries = wanted.count().max(least).min(passing);
            let places = index::sample(&mut self.rng, passing, tries);
            places.iter().filter_map(|place| self.services.passing_slot(among, place)).collect()
        };
        let (mut found, mut work, mut shown_bytes) = (Vec::new(), 0, 0);
        for slot in slots {
            if found.len() == wanted.count() || shown_bytes >= PAGE_BYTES {
                break;
            }
            if work >= WORK_MAX {
                return Found::Perhaps;
            }
            let Some(service) = self.services.at(slot) else { continue };
            work += SLOT_WORK + selection.work(service);
            if wanted.wants(service, now) {
                shown_bytes += service.shown_bytes();
                found.push(service);
            }
        }
        match (found.len(), are_all) {
            (0, true) => Found::Nobody,
            (count, false) if count < wanted.count() && shown_bytes < PAGE_BYTES => Found::Perhaps,
            _ => Found::Some(wanted.reply(&found, now)),
        }
    }

    /// Picks so many of these services, those of them that are still wanted, at random.
    pub(super) fn reply_among(&mut self, ids: &IndexSet<Arc<str>>, wanted: &Wanted, now: Now) -> Option<Reply> {
        let places = index::sample(&mut self.rng, ids.len(), ids.len());
        let (mut found, mut shown_bytes) = (Vec::new(), 0);
        for id in places.iter().map(|place| &ids[place]) {
            if found.len() == wanted.count() || shown_bytes >= PAGE_BYTES {
                break;
            }
            if let Some(service) = self.services.get(id).filter(|service| wanted.wants(service, now)) {
                shown_bytes += service.shown_bytes();
                found.push(service);
            }
        }
        (!found.is_empty()).then(|| wanted.reply(&found, now))
    }
}
