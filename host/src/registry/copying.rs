//! Copying all services to another store while this one serves.
//!
//! The services are gone through slot by slot. What changes meanwhile is noted by its id and copied once more, again and
//! again, until so little is left that changes can be held for as long as that takes. Heartbeats are no changes: the next
//! ones are written to whichever store is there.

use std::sync::Arc;

use indexmap::IndexSet;
use registry_plugin_api::{Change, Put, Remove};

use crate::registry::Registry;
use crate::registry::policy::Promises;
use crate::registry::slots::Slot;

/// How many services a part has, how long it is in bytes, and how many slots are looked at for it, at most.
const PART: usize = 1000;
const PART_BYTES: usize = 1 << 20;
const PART_SLOTS: usize = 20_000;

/// How far the copy is.
#[derive(Default)]
pub(super) struct Copying {
    next: Slot,
    /// What has changed since it was copied, or is in the other store and must not be.
    changed: IndexSet<Arc<str>>,
}

impl Copying {
    /// A service has changed, or has gone.
    pub(super) fn note(&mut self, id: &Arc<str>) {
        self.changed.insert(id.clone());
    }
}

impl<C> Registry<C> {
    /// Begins a copy to a store in which there are records with these ids.
    pub fn begin_copy(&mut self, there: impl Iterator<Item = String>) {
        let changed = there.map(Arc::from).collect();
        self.copying = Some(Copying { next: 0, changed });
    }

    /// The next part of the copy: what the other store is to make of it. `None` if it has everything, as things are now.
    pub fn next_copy(&mut self) -> Option<Vec<Change>> {
        let copying = self.copying.as_mut()?;
        let (mut changes, mut bytes) = (Vec::new(), 0);
        let end = self.services.slots_end().min(copying.next.saturating_add(PART_SLOTS));
        while copying.next < end && changes.len() < PART && bytes < PART_BYTES {
            if let Some(service) = self.services.at(copying.next) {
                bytes += service.shown_bytes();
                changes.push(Put::new(service.to_record()).into());
            }
            copying.next += 1;
        }
        if copying.next < self.services.slots_end() {
            // Not even one may be in so many slots.
            return Some(changes);
        }
        while changes.len() < PART && bytes < PART_BYTES {
            let Some(id) = copying.changed.pop() else { break };
            changes.push(match self.services.get(&id) {
                Some(service) => {
                    bytes += service.shown_bytes();
                    Put::new(service.to_record()).into()
                }
                None => Remove::new(&*id, self.revision).into(),
            });
        }
        (!changes.is_empty()).then_some(changes)
    }

    /// The plugin of the store that is in charge.
    pub fn plugin(&self) -> &str {
        &self.about.plugin
    }

    /// What is left of the copy, but for what changes from now on: so many services.
    pub fn left_to_copy(&self) -> usize {
        let left = |copying: &Copying| copying.changed.len() + self.services.slots_end().saturating_sub(copying.next);
        self.copying.as_ref().map_or(0, left)
    }

    /// Has the store get no changes, or get them again. What clients ask for waits meanwhile.
    pub fn hold_changes(&mut self, are_held: bool) {
        self.changes.are_held = are_held;
    }

    /// Whether the store has no changes, of which nobody knows yet what becomes of them.
    pub fn is_settled(&self) -> bool {
        self.changes.sent_at_ms().is_none()
    }

    /// The greatest revision that was given to a change.
    pub fn issued(&self) -> u64 {
        self.changes.issued()
    }

    /// Gives the copy up, or it is done.
    pub fn end_copy(&mut self) {
        self.copying = None;
    }

    /// From now on another store has the services, all of them and just as they are. What was in doubt of the one before
    /// is of no matter any more.
    pub fn move_to(&mut self, plugin: &str, promises: Promises) {
        self.promises = promises;
        self.about.plugin = plugin.to_string();
        // What the store before has not answered nobody hears of any more.
        self.changes.forget_doubts();
        self.follow.doubt = Default::default();
        // What was told until now is not in that store.
        self.follow.forget_before = self.revision + 1;
        self.storage_failure = None;
        // What the store before was asked to choose it does not say any more.
        self.queries = 0;
    }
}
