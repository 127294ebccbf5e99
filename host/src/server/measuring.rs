//! What the loop itself is measured by: how long the store takes, for how much, and the core in numbers.

use std::sync::Arc;

use registry_plugin_api::Group;

use super::Server;
use crate::fronts::Front;
use crate::metrics::Metrics;
use crate::registry::Now;

/// How often the core is looked at and its types are counted, and how soon some more of them if there are many, in
/// milliseconds.
const LOOK_MS: u64 = 1000;
const COUNT_MS: u64 = 20;

/// When what is to be measured.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    look_at_ms: u64,
    count_at_ms: u64,
    /// When the store was given the group that it has, in nanoseconds.
    given: u64,
}

impl<F: Front> Server<F> {
    /// The same server, which counts here.
    pub(super) fn counted_by(self, metrics: Arc<Metrics>) -> Self {
        Server { metrics, ..self }
    }

    /// Looks at the core if it is time for that. To be called in each turn, of which there are several a second: what is
    /// done in one is little, however many services there are.
    pub(super) fn measure(&mut self, now: Now) {
        if now.uptime_ms >= self.measuring.count_at_ms {
            let pause_ms = if self.registry.count_types() { LOOK_MS } else { COUNT_MS };
            self.measuring.count_at_ms = now.uptime_ms + pause_ms;
        }
        if now.uptime_ms >= self.measuring.look_at_ms {
            self.measuring.look_at_ms = now.uptime_ms + LOOK_MS;
            self.metrics.set_core(self.registry.figures());
        }
    }

    /// The store is given a group of changes.
    pub(super) fn note_group(&mut self, group: &Group) {
        self.measuring.given = self.metrics.now.get();
        self.metrics.groups.note(group.changes.len() as u64, 1);
    }

    /// The store has stored it, or failed to.
    pub(super) fn note_committed(&mut self, has_failed: bool) {
        let took = self.metrics.now.get().saturating_sub(self.measuring.given);
        self.metrics.commits.note(took, 1);
        self.metrics.failures.add(u64::from(has_failed));
    }
}
