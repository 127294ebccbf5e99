//! What operators are shown of the core, in numbers: all that is to be had at once, and how many services there are of
//! each type, which are counted a number at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::registry::Registry;
use crate::registry::services::Counts;

/// How many types are shown by name: those with the most services.
const TYPES_MAX: usize = 100;
/// How long the name of a type may be that is shown, in bytes.
const TYPE_BYTES_MAX: usize = 128;
/// How many types are counted at a time.
const COUNTED_MAX: usize = 512;

/// The core in numbers.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// There are no services yet.
    pub is_starting: bool,
    /// The name of the history that revisions count in.
    pub epoch: String,
    /// The revision of the last change.
    pub revision: u64,
    /// The storage plugin.
    pub plugin: String,
    /// All services.
    pub services: Counts,
    /// How much memory they take, in bytes.
    pub services_bytes: usize,
    /// How many types they have.
    pub types: usize,
    /// How many there were of each type when they were last counted.
    pub by_type: Arc<ByType>,
    /// Clients that wait for changes to come, and those of them for which some have come already.
    pub watchers: (usize, usize),
    /// Changes that watchers have not been told of.
    pub untold_changes: u64,
    /// Clients that wait for a service to come.
    pub waiting_discoveries: usize,
    /// Clients that wait for long lists.
    pub waiting_lists: usize,
    /// The recent changes that are kept, and how long they are together, in bytes.
    pub history: (usize, usize),
    /// Changes that wait for their turn with the storage, and clients that wait for the storage.
    pub queue: (usize, usize),
    /// For how long the storage has been failing or stalled, in milliseconds, if it is.
    pub stale_ms: Option<u64>,
    /// Mass expiries that have begun, and whether one is under way.
    pub mass_expiries: (u64, bool),
    /// How many services and how many requests each quota has refused, by its name.
    pub refused_by_quota: Vec<(Arc<str>, [u64; 2])>,
    /// No service has been heard of for a while, though heartbeats are due.
    pub is_silent: bool,
}

/// How many services there are of each type.
#[derive(Debug, Default)]
pub struct ByType {
    /// Those with the most services, the most first.
    pub largest: Vec<(Arc<str>, Counts)>,
    /// The services of all others, each as often as it has types among them.
    pub others: Counts,
}

/// Types being counted.
#[derive(Default)]
pub(super) struct Census {
    /// The last that was counted, if some were.
    last: Option<Arc<str>>,
    /// The largest so far, of which the smallest comes out first.
    largest: BinaryHeap<Reverse<(usize, Arc<str>, Counts)>>,
    others: Counts,
    /// What came of it the last time.
    counted: Arc<ByType>,
}

impl Counts {
    fn all(self) -> usize {
        self.passing + self.drained + self.critical
    }

    fn add(&mut self, other: Counts) {
        self.passing += other.passing;
        self.drained += other.drained;
        self.critical += other.critical;
    }
}

impl Census {
    fn count(&mut self, name: &str, counts: Counts) {
        let least = self.largest.peek().map_or(0, |Reverse((all, ..))| *all);
        let is_full = self.largest.len() >= TYPES_MAX;
        if name.len() > TYPE_BYTES_MAX || (is_full && counts.all() <= least) {
            return self.others.add(counts);
        }
        if is_full && let Some(Reverse((_, _, beaten))) = self.largest.pop() {
            self.others.add(beaten);
        }
        self.largest.push(Reverse((counts.all(), name.into(), counts)));
    }

    fn finish(&mut self) {
        let largest = std::mem::take(&mut self.largest).into_sorted_vec();
        let largest = largest.into_iter().map(|Reverse((_, name, counts))| (name, counts)).collect();
        let others = std::mem::take(&mut self.others);
        self.counted = Arc::new(ByType { largest, others });
    }
}

impl<C> Registry<C> {
    /// Counts the services of some more types. Whether all have been counted.
    pub fn count_types(&mut self) -> bool {
        let census = &mut self.census;
        let after = census.last.take();
        let mut names = self.services.types_after(after.as_deref()).peekable();
        let mut last = None;
        for name in names.by_ref().take(COUNTED_MAX) {
            census.count(name, self.services.members(name));
            last = Some(name);
        }
        if names.peek().is_none() {
            census.finish();
            return true;
        }
        census.last = last.map(Arc::from);
        false
    }

    /// What there is to be shown now.
    pub fn figures(&self) -> Figures {
        Figures {
            is_starting: self.is_starting,
            epoch: self.epoch.clone(),
            revision: self.revision,
            plugin: self.about.plugin.clone(),
            services: self.services.counts(),
            services_bytes: self.services.bytes(),
            types: self.services.types_len(),
            by_type: self.census.counted.clone(),
            watchers: self.follow.waiting(),
            untold_changes: self.follow.untold(),
            waiting_discoveries: self.waiting.len(),
            waiting_lists: self.lists.waiting(),
            history: self.follow.extent(),
            queue: self.changes.waiting(),
            stale_ms: self.stale_ms,
            mass_expiries: self.changes.mass.begun(),
            refused_by_quota: self.refused_by_quota(),
            is_silent: self.is_silent(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passing: usize, critical: usize) -> Counts {
        Counts { passing, drained: 0, critical }
    }

    #[test]
    fn the_largest_types_have_names_and_all_others_are_counted_together() {
        let mut census = Census::default();
        for number in 0..3 * TYPES_MAX {
            // Neither the first nor the last are the largest.
            census.count(&format!("t{number}"), counts(number * 7 % (3 * TYPES_MAX), 1));
        }
        census.count(&"x".repeat(TYPE_BYTES_MAX + 1), counts(5000, 5000));
        census.finish();
        let ByType { largest, others } = &*census.counted;
        let sizes: Vec<usize> = largest.iter().map(|(_, counts)| counts.passing).collect();
        assert_eq!(sizes, (2 * TYPES_MAX..3 * TYPES_MAX).rev().collect::<Vec<_>>());
        let small = 2 * TYPES_MAX;
        assert_eq!(*others, counts(5000 + small * (small - 1) / 2, 5000 + small));
        census.finish();
        assert!(census.counted.largest.is_empty() && census.counted.others == Counts::default());
    }
}
