//! How many services each client has, counted as the operator's quotas do.
//!
//! It follows what is there: whatever adds a service or takes one away, and be it the end of its ttl, is counted where
//! it does so. Quotas that count other services than those before are taken over when all services have been counted
//! anew, a number at a time; until then those before hold.

use std::collections::HashMap;
use std::sync::Arc;

use super::Services;
use crate::registry::service::Service;
use crate::registry::slots::Slot;
use crate::security::origin::{Address, Holder};
use crate::security::quota::{ALL_SERVICES, Class, Quotas};

/// How many slots are counted anew at a time.
const COUNTED_MAX: usize = 2048;

/// How many services whoever has some has, by what is counted together.
#[derive(Debug, Default)]
pub(in crate::registry) struct Usage {
    quotas: Arc<Quotas>,
    counts: HashMap<(Class, Holder), usize>,
    /// What takes the place of this, and the first slot that is not counted in it.
    next: Option<(Box<Usage>, Slot)>,
}

impl Usage {
    /// The quotas that are counted by.
    pub(in crate::registry) fn quotas(&self) -> &Arc<Quotas> {
        &self.quotas
    }

    /// How many services of a class a client has.
    pub(in crate::registry) fn of(&self, class: Class, holder: &Holder) -> usize {
        self.counts.get(&(class, *holder)).copied().unwrap_or_default()
    }

    pub(super) fn add(&mut self, slot: Slot, service: &Service) {
        for class in self.quotas.classes(service.type_names()) {
            *self.counts.entry((class, service.holder())).or_default() += 1;
        }
        if let Some((next, uncounted)) = &mut self.next
            && slot < *uncounted
        {
            next.add(slot, service);
        }
    }

    pub(super) fn subtract(&mut self, slot: Slot, service: &Service) {
        for class in self.quotas.classes(service.type_names()) {
            let key = (class, service.holder());
            let Some(count) = self.counts.get_mut(&key) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
        if let Some((next, uncounted)) = &mut self.next
            && slot < *uncounted
        {
            next.subtract(slot, service);
        }
    }
}

impl Services {
    /// Counts by these quotas what is put from now on. There must be no services yet.
    pub(in crate::registry) fn count_by(&mut self, quotas: Arc<Quotas>) {
        self.usage = Usage { quotas, ..Usage::default() };
    }

    /// Counts by these quotas, at once or as soon as all services have been counted anew.
    pub(in crate::registry) fn set_quotas(&mut self, quotas: Arc<Quotas>) {
        let usage = &mut self.usage;
        if quotas.counts_like(&usage.quotas) {
            (usage.quotas, usage.next) = (quotas, None);
        } else {
            usage.next = Some((Box::new(Usage { quotas, ..Usage::default() }), Slot::MIN));
        }
    }

    /// Goes on with counting anew. Whether there is more to do.
    pub(in crate::registry) fn go_on_counting(&mut self) -> bool {
        let Some((next, uncounted)) = &mut self.usage.next else { return false };
        let end = self.slots.capacity();
        let last = uncounted.saturating_add(COUNTED_MAX).min(end);
        for slot in *uncounted..last {
            if let Some(entry) = self.slots.get(slot) {
                next.add(slot, &entry.service);
            }
        }
        *uncounted = last;
        if last < end {
            return true;
        }
        if let Some((next, _)) = self.usage.next.take() {
            self.usage = *next;
        }
        false
    }

    /// Whether services are being counted anew.
    pub(in crate::registry) fn is_counting(&self) -> bool {
        self.usage.next.is_some()
    }

    /// A service comes from there, as is known now.
    pub(in crate::registry) fn note_address(&mut self, id: &str, address: Address) {
        let Some(slot) = self.by_id.get(id).copied() else { return };
        let service = &self.slots[slot].service;
        self.usage.subtract(slot, service);
        let service = &mut self.slots[slot].service;
        service.note_address(address);
        self.usage.add(slot, service);
    }

    /// How many services a client has.
    pub(in crate::registry) fn of_holder(&self, holder: &Holder) -> usize {
        self.usage.of(ALL_SERVICES, holder)
    }
}
