//! What a simulation has come to: a fault that never happens is a test that never fails.

use std::collections::BTreeMap;

/// Everything that a run of some length has to reach.
pub(crate) const KINDS: [&str; 32] = [
    "store: slow",
    "store: late",
    "store: lost a reply",
    "store: first part",
    "store: refused all",
    "store: refused single changes",
    "store: full",
    "store: away for a while",
    "store: hung until given up",
    "store: wrong number of outcomes",
    "store: lost a record",
    "store: missed a record",
    "store: restored from a backup",
    "kill: nothing of a group landed",
    "kill: part of a group landed",
    "kill: a whole group landed",
    "host: killed",
    "host: killed in the middle of a turn",
    "host: stopped with the store well",
    "host: stopped with the store in trouble",
    "host: held up",
    "host: held up unnoticed",
    "wall clock: ahead",
    "wall clock: back",
    "answer: backend_unavailable",
    "answer: backend_refused",
    "answer: duplicate_service_type",
    "answer: forbidden",
    "answer: overloaded",
    "answer: not_found",
    "event: expire",
    "list: in pieces",
];

#[derive(Clone, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) requests: u64,
    pub(crate) simulated_ms: u64,
}

impl Reached {
    pub(crate) fn note(&mut self, kind: &str) {
        match self.counts.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(kind.into(), 1)),
        }
    }

    pub(crate) fn add(&mut self, other: &Reached) {
        for (kind, count) in &other.counts {
            *self.counts.entry(kind.clone()).or_default() += count;
        }
        self.requests += other.requests;
        self.simulated_ms += other.simulated_ms;
    }

    /// What has not happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        KINDS.into_iter().filter(|kind| !self.counts.contains_key(*kind)).collect()
    }
}
