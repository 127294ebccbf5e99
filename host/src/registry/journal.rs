//! What a snapshot under way has to know of changes: how the slots were that have changed since it began.

use std::collections::HashMap;

use crate::registry::service::Service;
use crate::registry::slots::Slot;

/// What stood at slots that have changed since a snapshot began: a service and until when, or nothing.
#[derive(Default)]
pub(super) struct Journal {
    before: HashMap<Slot, Option<Box<(Service, u64)>>>,
    /// The slots before this one are written already.
    next: Slot,
}

impl Journal {
    /// A service has come to a slot that was free.
    pub(super) fn added(&mut self, slot: Slot) {
        if slot >= self.next {
            self.before.entry(slot).or_insert(None);
        }
    }

    /// A service has left its slot.
    pub(super) fn removed(&mut self, slot: Slot, service: &Service, uptime_ms: u64) {
        if slot < self.next {
            return;
        }
        self.before.entry(slot).or_insert_with(|| Some(Box::new((service.clone(), uptime_ms))));
    }

    /// The slots before this one are written.
    pub(super) fn written_to(&mut self, next: Slot) {
        self.next = next;
    }

    /// What stood at a slot that has changed since, and until when; `None` if it has not.
    pub(super) fn before(&self, slot: Slot) -> Option<Option<&(Service, u64)>> {
        self.before.get(&slot).map(Option::as_deref)
    }
}
