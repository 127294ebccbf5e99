//! All live services: found by id, picked by type, and known to be past their ttl the moment they are.
//!
//! Nothing here depends on how many services there are. A service is in one slot; ids and types lead to slots. Each
//! type holds its passing members apart from its critical ones, so that discovery picks among the former at random.
//! Each passing service stands once in a queue of deadlines. A heartbeat does not move it there (it would be the most
//! frequent write of all): when the queue reaches a service whose deadline has moved on, it is queued again.
//!
//! Those that are drained stand apart from both: they live, and nobody discovers them.
//!
//! Many services can run out at the same moment, and moving them takes time. So they are moved a number at a time:
//! until then one that is past its ttl may stand among the passing, and whoever picks one there looks at its deadline.

mod counts;
mod grace;
mod usage;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use rand::{Rng, RngExt};
use slab::Slab;

use crate::registry::journal::Journal;
use crate::registry::service::Service;
use crate::registry::slots::{Slot, Slots};
pub use counts::Counts;
pub(in crate::registry) use grace::Grant;
use grace::leave_ttl;
use usage::Usage;

/// How many steps are taken to pick a member of a type at random before they are gone through in order: only where nearly
/// all have just run out does that not find one that has not.
const PICKS_MAX: usize = 2048;

/// The collection of all live services.
#[derive(Default)]
pub(super) struct Services {
    slots: Slab<Entry>,
    by_id: HashMap<Arc<str>, Slot>,
    by_type: HashMap<Arc<str>, Members>,
    /// The types in order.
    types: BTreeSet<Arc<str>>,
    /// When to look at a passing service again: at its deadline or before it.
    deadlines: BTreeSet<(u64, Slot)>,
    /// Those that are critical, by the order in which they became so.
    critical: BTreeSet<(u64, Slot)>,
    /// The place of the next one that becomes critical.
    next_critical: u64,
    /// How much memory all take, and how long they are together as clients see them, in bytes.
    bytes: usize,
    shown_bytes: usize,
    /// What has changed since a snapshot began, if one is being taken.
    pub(super) journal: Option<Journal>,
    /// How many of the passing have each ttl, in milliseconds.
    ttls: BTreeMap<u64, usize>,
    /// How many stand among the passing and are drained.
    drained: usize,
    /// Those that are drained for a time: when that ends, in milliseconds since the Unix epoch.
    drains: BTreeSet<(u64, Slot)>,
    /// How many each client has.
    pub(super) usage: Usage,
}

struct Entry {
    service: Service,
    place: Place,
}

/// Where a service stands.
#[derive(Clone, Copy)]
enum Place {
    /// Among the passing: with its key in the queue of deadlines.
    Passing(u64),
    /// Among the critical: with its key there.
    Critical(u64),
}

#[derive(Default)]
struct Members {
    passing: Slots,
    /// Passing, and discovered by nobody.
    drained: Slots,
    critical: Slots,
    shown_bytes: usize,
}

impl Members {
    /// Where a service belongs that is as it is, among the passing or the critical ones.
    fn of(&mut self, service: &Service, is_passing: bool) -> &mut Slots {
        match (is_passing, service.is_drained()) {
            (false, _) => &mut self.critical,
            (true, true) => &mut self.drained,
            (true, false) => &mut self.passing,
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.passing.iter().chain(self.drained.iter()).chain(self.critical.iter())
    }

    fn len(&self) -> usize {
        self.passing.len() + self.drained.len() + self.critical.len()
    }
}

impl Services {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// About how much memory all services take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many there are, and how long they are together as clients see them: of a type, or of all.
    pub(super) fn extent(&self, service_type: Option<&str>) -> (usize, usize) {
        match service_type {
            None => (self.len(), self.shown_bytes),
            Some(name) => self.by_type.get(name).map_or((0, 0), |all| (all.len(), all.shown_bytes)),
        }
    }

    /// How many types there are.
    pub(super) fn type_count(&self) -> usize {
        self.types.len()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Service> {
        self.by_id.get(id).map(|slot| &self.slots[*slot].service)
    }

    pub(super) fn at(&self, slot: Slot) -> Option<&Service> {
        self.slots.get(slot).map(|entry| &entry.service)
    }

    /// The first slot behind all that are in use.
    pub(super) fn slots_end(&self) -> Slot {
        // A slab does not tell its highest key, but its keys are below its capacity.
        self.slots.capacity()
    }

    /// All services, in an order that stays the same while they do. Not by going through the slots, of which there are as
    /// many as there ever were services.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Service> {
        let mut slots: Vec<Slot> = self.deadlines.iter().chain(&self.critical).map(|(_, slot)| *slot).collect();
        slots.sort_unstable();
        slots.into_iter().map(|slot| &self.slots[slot].service)
    }

    /// The slots from this one on that are in use, of a type or of all, in order. Takes time for each of them.
    pub(super) fn slots_from(&self, service_type: Option<&str>, first: Slot) -> Vec<Slot> {
        let mut slots: Vec<Slot> = match service_type {
            Some(name) => self.slots_of_type(name).filter(|slot| *slot >= first).collect(),
            None => {
                let all = self.deadlines.iter().chain(&self.critical).map(|(_, slot)| *slot);
                all.filter(|slot| *slot >= first).collect()
            }
        };
        slots.sort_unstable();
        slots
    }

    /// The types behind this one that services have, in order.
    pub(super) fn types_after(&self, name: Option<&str>) -> impl Iterator<Item = &str> {
        let after = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.types.range::<str, _>((after, Bound::Unbounded)).map(|name| &**name)
    }

    /// The slots of a type's members, in no order.
    pub(super) fn slots_of_type(&self, service_type: &str) -> impl Iterator<Item = Slot> {
        let members = self.by_type.get(service_type);
        members.into_iter().flat_map(Members::slots).copied()
    }

    /// The members of a type that stand among the passing and can be discovered.
    pub(super) fn passing_of_type(&self, service_type: &str) -> impl Iterator<Item = &Service> {
        let members = self.by_type.get(service_type);
        members.into_iter().flat_map(|all| all.passing.iter()).map(|slot| &self.slots[*slot].service)
    }

    /// The slots of the members of a type that stand among the passing.
    pub(super) fn passing_slots(&self, service_type: &str) -> impl Iterator<Item = Slot> {
        self.by_type.get(service_type).into_iter().flat_map(|all| all.passing.iter()).copied()
    }

    /// The one of them at this place, counted from 0. Places change when services come and go.
    pub(super) fn passing_slot(&self, service_type: &str, place: usize) -> Option<Slot> {
        self.by_type.get(service_type)?.passing.get(place)
    }

    /// All services of a type, in the order of [`iter`](Self::iter).
    pub(super) fn of_type(&self, service_type: &str) -> impl Iterator<Item = &Service> {
        let mut slots: Vec<Slot> = self.slots_of_type(service_type).collect();
        slots.sort_unstable();
        slots.into_iter().map(|slot| &self.slots[slot].service)
    }

    /// A passing member of a type other than the service with this id, be it drained.
    pub(super) fn passing_other(&self, service_type: &str, id: &str, uptime_ms: u64) -> Option<&Service> {
        let all = self.by_type.get(service_type).into_iter();
        let slots = all.flat_map(|all| all.passing.iter().chain(all.drained.iter()));
        let mut passing = slots.map(|slot| &self.slots[*slot].service);
        passing.find(|service| **service.id() != *id && service.is_passing(uptime_ms))
    }

    /// The members of a type that stand among the critical.
    pub(super) fn critical_of_type(&self, service_type: &str) -> impl Iterator<Item = &Service> {
        let members = self.by_type.get(service_type);
        members.into_iter().flat_map(|all| all.critical.iter()).map(|slot| &self.slots[*slot].service)
    }

    /// The critical services whose places are in this range, with their places, in their order.
    pub(super) fn critical_in(&self, places: RangeInclusive<u64>) -> impl Iterator<Item = (u64, &Service)> {
        let range = (*places.start(), Slot::MIN)..=(*places.end(), Slot::MAX);
        self.critical.range(range).map(|(place, slot)| (*place, &self.slots[*slot].service))
    }

    /// The place of the service that has become critical last: it and all before it can be removed. `None` if there
    /// is no critical one.
    pub(super) fn last_critical(&self) -> Option<u64> {
        self.critical.last().map(|(place, _)| *place)
    }

    /// Whether the service with this id is critical.
    pub(super) fn is_critical(&self, id: &str) -> bool {
        self.by_id.get(id).is_some_and(|slot| matches!(self.slots[*slot].place, Place::Critical(_)))
    }

    /// One passing service of a type, at random.
    pub(super) fn pick(&mut self, service_type: &str, uptime_ms: u64, rng: &mut impl Rng) -> Option<&Service> {
        let mut tries = 0;
        let slot = loop {
            let passing = &self.by_type.get(service_type)?.passing;
            let slot = match passing.len() {
                0 | 1 => passing.get(0)?,
                many => passing.get(rng.random_range(0..many))?,
            };
            if self.slots[slot].service.is_passing(uptime_ms) {
                break slot;
            }
            if tries >= PICKS_MAX {
                let is_passing = |slot: &&Slot| self.slots[**slot].service.is_passing(uptime_ms);
                break *passing.iter().find(is_passing)?;
            }
            tries += self.relocate(slot, uptime_ms);
        };
        Some(&self.slots[slot].service)
    }

    /// Adds a service, in place of the one with the same id if there is one.
    pub(super) fn put(&mut self, service: Service, uptime_ms: u64) {
        self.remove(service.id(), uptime_ms);
        let id = service.id().clone();
        self.bytes += service.bytes();
        self.shown_bytes += service.shown_bytes();
        let slot = self.slots.insert(Entry { service, place: Place::Passing(0) });
        if let Some(journal) = &mut self.journal {
            journal.added(slot);
        }
        self.by_id.insert(id, slot);
        let service = &self.slots[slot].service;
        self.usage.add(slot, service);
        if let Some(until_ms) = service.drained_until_unix_ms() {
            self.drains.insert((until_ms, slot));
        }
        self.enter(slot, uptime_ms);
    }

    /// The services whose drain has ended at a moment, those first for which it ended first.
    pub(super) fn drained_until(&self, unix_ms: u64) -> impl Iterator<Item = &Service> {
        let ended = self.drains.range(..=(unix_ms, Slot::MAX));
        ended.map(|(_, slot)| &self.slots[*slot].service)
    }

    /// Puts another document in the place of a service's own: its slot, its heartbeats and its types stay.
    pub(super) fn amend(&mut self, changed: &Service, uptime_ms: u64) -> Option<&Service> {
        let slot = *self.by_id.get(changed.id())?;
        let Entry { service, place } = &mut self.slots[slot];
        let is_passing = matches!(place, Place::Passing(_));
        if let Some(until_ms) = service.drained_until_unix_ms() {
            self.drains.remove(&(until_ms, slot));
        }
        if let Some(journal) = &mut self.journal {
            journal.removed(slot, service, uptime_ms);
        }
        let before = (service.bytes(), service.shown_bytes());
        let is_moved = service.is_drained() != changed.is_drained();
        for name in service.types().iter().filter(|_| is_moved) {
            if let Some(members) = self.by_type.get_mut(name) {
                members.of(service, is_passing).remove(slot);
                members.of(changed, is_passing).insert(slot);
            }
        }
        self.drained -= usize::from(is_passing && service.is_drained());
        service.amend(changed);
        self.drained += usize::from(is_passing && service.is_drained());
        if let Some(until_ms) = service.drained_until_unix_ms() {
            self.drains.insert((until_ms, slot));
        }
        let after = (service.bytes(), service.shown_bytes());
        self.bytes = self.bytes - before.0 + after.0;
        self.shown_bytes = self.shown_bytes - before.1 + after.1;
        for name in service.types().iter() {
            if let Some(members) = self.by_type.get_mut(name) {
                members.shown_bytes = members.shown_bytes - before.1 + after.1;
            }
        }
        Some(service)
    }

    pub(super) fn remove(&mut self, id: &str, uptime_ms: u64) -> Option<Service> {
        let slot = self.by_id.remove(id)?;
        self.leave(slot);
        let service = self.slots.remove(slot).service;
        self.usage.subtract(slot, &service);
        if let Some(until_ms) = service.drained_until_unix_ms() {
            self.drains.remove(&(until_ms, slot));
        }
        if let Some(journal) = &mut self.journal {
            journal.removed(slot, &service, uptime_ms);
        }
        self.bytes -= service.bytes();
        self.shown_bytes -= service.shown_bytes();
        Some(service)
    }

    /// A heartbeat: the service lives for another ttl from `uptime_ms` on. `None` if there is none with this id.
    pub(super) fn renew(&mut self, id: &str, uptime_ms: u64, last_heartbeat_ms: u64) -> Option<&Service> {
        let slot = *self.by_id.get(id)?;
        let Entry { service, place } = &mut self.slots[slot];
        service.beat(uptime_ms, last_heartbeat_ms);
        if let Place::Critical(_) = place {
            self.relocate(slot, uptime_ms);
        }
        Some(&self.slots[slot].service)
    }

    /// Makes critical whoever's ttl has passed: takes about `most` steps for those whose time may be up. Whether there are
    /// more.
    pub(super) fn advance(&mut self, uptime_ms: u64, most: usize) -> bool {
        let mut steps = 0;
        while steps < most {
            match self.deadlines.first() {
                Some(&(queued_ms, slot)) if queued_ms < uptime_ms => steps += self.relocate(slot, uptime_ms),
                _ => return false,
            }
        }
        self.is_behind(uptime_ms)
    }

    /// Whether there is somebody whose time may be up and who was not looked at yet.
    pub(super) fn is_behind(&self, uptime_ms: u64) -> bool {
        self.deadlines.first().is_some_and(|(queued_ms, _)| *queued_ms < uptime_ms)
    }

    /// Puts a slot where it belongs now. How many steps that took: each type of a service is one.
    fn relocate(&mut self, slot: Slot, uptime_ms: u64) -> usize {
        let Entry { service, place } = &mut self.slots[slot];
        if let (Place::Passing(queued_ms), true) = (*place, service.is_passing(uptime_ms)) {
            // It was heard of since it was queued: of its types nothing changes.
            let deadline_ms = service.deadline_ms();
            *place = Place::Passing(deadline_ms);
            self.deadlines.remove(&(queued_ms, slot));
            self.deadlines.insert((deadline_ms, slot));
            1
        } else {
            let types = service.types().len();
            self.leave(slot);
            self.enter(slot, uptime_ms);
            1 + types
        }
    }

    /// Puts a slot where its health belongs: in the queue or among the critical, and among its types' members.
    fn enter(&mut self, slot: Slot, uptime_ms: u64) {
        let Entry { service, place } = &mut self.slots[slot];
        let is_passing = service.is_passing(uptime_ms);
        if is_passing {
            let deadline_ms = service.deadline_ms();
            *place = Place::Passing(deadline_ms);
            self.deadlines.insert((deadline_ms, slot));
            *self.ttls.entry(service.ttl_ms()).or_default() += 1;
            self.drained += usize::from(service.is_drained());
        } else {
            *place = Place::Critical(self.next_critical);
            self.critical.insert((self.next_critical, slot));
            self.next_critical += 1;
        }
        for name in service.types().iter() {
            let members = match self.by_type.get_mut(name) {
                Some(members) => members,
                None => {
                    self.types.insert(name.clone());
                    self.by_type.entry(name.clone()).or_default()
                }
            };
            members.shown_bytes += service.shown_bytes();
            members.of(service, is_passing).insert(slot);
        }
    }

    /// The opposite of [`enter`](Self::enter).
    fn leave(&mut self, slot: Slot) {
        let Entry { service, place } = &self.slots[slot];
        let is_passing = match *place {
            Place::Passing(queued_ms) => {
                leave_ttl(&mut self.ttls, service.ttl_ms());
                self.drained -= usize::from(service.is_drained());
                self.deadlines.remove(&(queued_ms, slot))
            }
            Place::Critical(place) => {
                self.critical.remove(&(place, slot));
                false
            }
        };
        for name in service.types().iter() {
            let Some(members) = self.by_type.get_mut(name) else { continue };
            members.shown_bytes -= service.shown_bytes();
            members.of(service, is_passing).remove(slot);
            if members.len() == 0 {
                self.by_type.remove(name);
                self.types.remove(name);
            }
        }
    }
}
