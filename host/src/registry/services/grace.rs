//! Time for services that were not heard of, a number of them at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Place, Services};
use crate::registry::slots::Slot;

/// What is given to services that were silent together with all others.
#[derive(Clone, Copy, Debug)]
pub(in crate::registry) struct Grant {
    /// Since when nobody was heard of. Whoever had run out by then was silent by itself.
    pub(in crate::registry) since_ms: u64,
    /// How much longer they have.
    pub(in crate::registry) more_ms: u64,
    /// How much that may be together, from one heartbeat of a service to its next.
    pub(in crate::registry) most_ms: u64,
}

impl Services {
    /// How many are critical.
    pub(in crate::registry) fn critical_len(&self) -> usize {
        self.critical.len()
    }

    /// The place of the critical service that so many come to, counted from those that have been so for longest.
    pub(in crate::registry) fn critical_place(&self, count: usize) -> Option<u64> {
        self.critical.iter().nth(count.checked_sub(1)?).map(|(place, _)| *place)
    }

    /// The ttl of the passing service with the `count`-th shortest, in milliseconds, if there are so many.
    pub(in crate::registry) fn short_ttl_ms(&self, count: usize) -> Option<u64> {
        let mut seen = 0;
        let reaches = |(_, services): &(&u64, &usize)| {
            seen += **services;
            seen >= count
        };
        self.ttls.iter().find(reaches).map(|(ttl_ms, _)| *ttl_ms)
    }

    /// Gives time to those in `most` slots from `next` on. Who is passing again by it comes to `back`. The slot to go on from, if there are more.
    pub(in crate::registry) fn grant(
        &mut self,
        next: Slot,
        most: usize,
        grant: Grant,
        uptime_ms: u64,
        back: &mut Vec<Arc<str>>,
    ) -> Option<Slot> {
        let end = self.slots_end().min(next.saturating_add(most));
        for slot in next..end {
            let Some(entry) = self.slots.get_mut(slot) else { continue };
            let service = &mut entry.service;
            // Who was heard of since, or had run out before, was not silent because all were.
            if service.heartbeat_ms() > grant.since_ms || !service.is_passing(grant.since_ms) {
                continue;
            }
            service.grant(grant.more_ms, grant.most_ms);
            if service.is_passing(uptime_ms) && matches!(entry.place, Place::Critical(_)) {
                back.push(service.id().clone());
                self.relocate(slot, uptime_ms);
            }
        }
        (end < self.slots_end()).then_some(end)
    }

    /// Gives a full ttl to `most` of the critical ones up to this place, who come to `back`. Whether there are more.
    pub(in crate::registry) fn keep(
        &mut self,
        last: u64,
        most: usize,
        uptime_ms: u64,
        back: &mut Vec<Arc<str>>,
    ) -> bool {
        for _ in 0..most {
            let Some(&(_, slot)) = self.critical.first().filter(|(place, _)| *place <= last) else { return false };
            let service = &mut self.slots[slot].service;
            service.keep(uptime_ms);
            back.push(service.id().clone());
            self.relocate(slot, uptime_ms);
        }
        self.critical.first().is_some_and(|(place, _)| *place <= last)
    }
}

/// One of the passing with this ttl is none any more.
pub(super) fn leave_ttl(ttls: &mut BTreeMap<u64, usize>, ttl_ms: u64) {
    if let Some(count) = ttls.get_mut(&ttl_ms) {
        *count -= 1;
        if *count == 0 {
            ttls.remove(&ttl_ms);
        }
    }
}
