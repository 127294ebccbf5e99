//! All live services: found by id, picked by type, and known to be past their ttl the moment they are.
//!
//! Nothing here depends on how many services there are. A service is in one slot; ids and types lead to slots. Each
//! type holds its passing members apart from its critical ones, so that discovery picks among the former at random.
//! Each passing service stands once in a queue of deadlines. A heartbeat does not move it there (it would be the most
//! frequent write of all): when the queue reaches a service whose deadline has moved on, it is queued again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use indexmap::IndexSet;
use rand::{Rng, RngExt};
use slab::Slab;

use crate::registry::group::Group;
use crate::registry::service::Service;

pub(super) type Slot = usize;

/// The collection of all live services.
#[derive(Default)]
pub(super) struct Services {
    slots: Slab<Entry>,
    by_id: HashMap<Arc<str>, Slot>,
    by_type: HashMap<Arc<str>, Members>,
    /// When to look at a passing service again: at its deadline or before it.
    deadlines: BTreeSet<(u64, Slot)>,
    critical: IndexSet<Slot>,
    /// How much is kept of all, in bytes.
    bytes: usize,
}

struct Entry {
    service: Service,
    /// Its place in `deadlines`, if it has one.
    queued_ms: Option<u64>,
}

#[derive(Default)]
struct Members {
    passing: Group,
    critical: Group,
}

impl Services {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How much is kept of all services, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, id: &str) -> Option<&Service> {
        self.by_id.get(id).map(|slot| &self.slots[*slot].service)
    }

    /// All services, in an order that stays the same while they do.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Service> {
        self.slots.iter().map(|(_, entry)| &entry.service)
    }

    /// All services of a type, in the same order.
    pub(super) fn of_type(&self, service_type: &str) -> impl Iterator<Item = &Service> {
        let members = self.by_type.get(service_type);
        let mut slots: Vec<Slot> =
            members.map(|all| all.passing.iter().chain(all.critical.iter()).copied().collect()).unwrap_or_default();
        slots.sort_unstable();
        slots.into_iter().map(|slot| &self.slots[slot].service)
    }

    /// The passing services of a type.
    pub(super) fn passing_of_type(&self, service_type: &str) -> impl Iterator<Item = &Service> {
        let members = self.by_type.get(service_type);
        members.into_iter().flat_map(|all| all.passing.iter()).map(|slot| &self.slots[*slot].service)
    }

    /// The critical services of a type.
    pub(super) fn critical_of_type(&self, service_type: &str) -> impl Iterator<Item = &Service> {
        let members = self.by_type.get(service_type);
        members.into_iter().flat_map(|all| all.critical.iter()).map(|slot| &self.slots[*slot].service)
    }

    /// All critical services: those that the next clean-up removes.
    pub(super) fn critical(&self) -> impl Iterator<Item = &Service> {
        self.critical.iter().map(|slot| &self.slots[*slot].service)
    }

    /// One passing service of a type, at random.
    pub(super) fn pick(&self, service_type: &str, rng: &mut impl Rng) -> Option<&Service> {
        let passing = &self.by_type.get(service_type)?.passing;
        let slot = match passing.len() {
            0 | 1 => passing.get(0)?,
            many => passing.get(rng.random_range(0..many))?,
        };
        Some(&self.slots[slot].service)
    }

    /// Adds a service, in place of the one with the same id if there is one.
    pub(super) fn put(&mut self, service: Service) {
        self.remove(service.id());
        let id = service.id().clone();
        self.bytes += service.bytes();
        let slot = self.slots.insert(Entry { service, queued_ms: None });
        self.by_id.insert(id, slot);
        self.enter(slot);
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Service> {
        let slot = self.by_id.remove(id)?;
        self.leave(slot);
        let entry = self.slots.remove(slot);
        self.bytes -= entry.service.bytes();
        if let Some(queued_ms) = entry.queued_ms {
            self.deadlines.remove(&(queued_ms, slot));
        }
        Some(entry.service)
    }

    /// A heartbeat: the service lives for another ttl from `heartbeat_ms` on. `false` if there is none with this id.
    pub(super) fn renew(&mut self, id: &str, heartbeat_ms: u64, last_heartbeat_ms: u64) -> Option<&Service> {
        let slot = *self.by_id.get(id)?;
        let service = &mut self.slots[slot].service;
        service.beat(heartbeat_ms, last_heartbeat_ms);
        if !service.passing {
            self.leave(slot);
            self.slots[slot].service.passing = true;
            self.enter(slot);
        }
        Some(&self.slots[slot].service)
    }

    /// Makes critical whoever's ttl has passed.
    pub(super) fn advance(&mut self, uptime_ms: u64) {
        while let Some(&(queued_ms, slot)) = self.deadlines.first() {
            if queued_ms >= uptime_ms {
                break;
            }
            self.deadlines.pop_first();
            let entry = &mut self.slots[slot];
            let deadline_ms = entry.service.deadline_ms();
            if deadline_ms >= uptime_ms {
                entry.queued_ms = Some(deadline_ms);
                self.deadlines.insert((deadline_ms, slot));
            } else {
                entry.queued_ms = None;
                self.leave(slot);
                self.slots[slot].service.passing = false;
                self.enter(slot);
            }
        }
    }

    /// Puts a slot where its health belongs: among its types' members, and in the queue or among the critical.
    fn enter(&mut self, slot: Slot) {
        let Entry { service, queued_ms } = &mut self.slots[slot];
        let passing = service.passing;
        if passing {
            let deadline_ms = service.deadline_ms();
            *queued_ms = Some(deadline_ms);
            self.deadlines.insert((deadline_ms, slot));
        } else {
            self.critical.insert(slot);
        }
        for name in service.types().iter() {
            let members = match self.by_type.get_mut(name) {
                Some(members) => members,
                None => self.by_type.entry(name.clone()).or_default(),
            };
            if passing {
                members.passing.insert(slot)
            } else {
                members.critical.insert(slot)
            };
        }
    }

    /// The opposite of [`enter`](Self::enter), but for the queue, which is the caller's.
    fn leave(&mut self, slot: Slot) {
        let service = &self.slots[slot].service;
        if !service.passing {
            self.critical.swap_remove(&slot);
        }
        for name in service.types().iter() {
            let Some(members) = self.by_type.get_mut(name) else { continue };
            if service.passing {
                members.passing.remove(slot)
            } else {
                members.critical.remove(slot)
            };
            if members.passing.is_empty() && members.critical.is_empty() {
                self.by_type.remove(name);
            }
        }
    }
}
