//! What runs have come to: a fault that never happens is a test that never fails.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What a short run has to reach.
pub(crate) const KINDS: [&str; 14] = [
    "host: killed",
    "host: killed right after an answer",
    "host: stopped",
    "host: suspended",
    "store: in trouble",
    "answer: not_found",
    "answer: backend_unavailable",
    "event: expire",
    "subscriber: named a gap",
    "watch: told of changes",
    "watch: told of what was before a start",
    "cache: as the registry",
    "library: told of a change",
    "library: its cache is as the registry",
];

#[derive(Clone, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) counts: BTreeMap<String, u64>,
}

impl Reached {
    pub(crate) fn note(&mut self, kind: &str) {
        self.count(kind, 1);
    }

    pub(crate) fn count(&mut self, kind: &str, count: u64) {
        if count > 0 {
            *self.counts.entry(kind.into()).or_default() += count;
        }
    }

    pub(crate) fn of(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, other: &Reached) {
        other.counts.iter().for_each(|(kind, count)| self.count(kind, *count));
    }

    /// What has not happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        KINDS.into_iter().filter(|kind| self.of(kind) == 0).collect()
    }

    pub(crate) fn to_json(&self) -> Value {
        json!(self.counts)
    }

    pub(crate) fn from_json(counts: &Map<String, Value>) -> Reached {
        let counts = counts.iter().filter_map(|(kind, count)| Some((kind.clone(), count.as_u64()?))).collect();
        Reached { counts }
    }
}
