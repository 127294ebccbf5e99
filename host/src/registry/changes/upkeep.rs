//! What the core itself wants stored: heartbeats, records whose stored state is in doubt, and expiries.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use crate::registry::moment::Now;

/// How long heartbeats gather before they are written, in milliseconds.
const HEARTBEAT_WRITE_INTERVAL_MS: u64 = 1000;
/// How long after a failure the store is tried again without a client asking for it, in milliseconds.
const RETRY_INTERVAL_MS: u64 = 200;

/// What the core itself wants stored.
#[derive(Default)]
pub(in crate::registry) struct Upkeep {
    /// Services that were heard of since their heartbeat was last written, and when to write.
    heartbeats: IndexSet<Arc<str>>,
    heartbeats_due_ms: u64,
    /// Those of them that are being written.
    writing: Vec<Arc<str>>,
    /// Records that may be stored otherwise than the core has them, each with the revisions of the changes that may be
    /// stored and are to be undone; and in which order it is their turn.
    doubtful: HashMap<Arc<str>, Vec<u64>>,
    turns: VecDeque<Arc<str>>,
    /// Those of them whose restoration the store has refused. They keep nobody else waiting: they are tried again
    /// together.
    refused: IndexMap<Arc<str>, Vec<u64>>,
    refused_until_ms: u64,
    /// The places of critical services that the clean-up under way has still to remove. They claim nothing and wait
    /// behind everything that clients wait for: whoever is heard of before its turn stays.
    sweep: Option<RangeInclusive<u64>>,
    retry_at_ms: u64,
    /// How many changes are to be undone.
    undone: usize,
}

impl Upkeep {
    /// Notes a heartbeat to be written.
    pub(in crate::registry) fn heartbeat(&mut self, id: Arc<str>, now: Now) {
        if self.heartbeats.is_empty() {
            self.heartbeats_due_ms = (now.uptime_ms + HEARTBEAT_WRITE_INTERVAL_MS).max(self.retry_at_ms);
        }
        self.heartbeats.insert(id);
    }

    /// Takes up to `most` heartbeats, if it is time to write them.
    pub(super) fn take_heartbeats(&mut self, most: usize, now: Now) -> Vec<Arc<str>> {
        if self.writing.is_empty() && now.uptime_ms >= self.heartbeats_due_ms {
            self.writing.extend(std::mem::take(&mut self.heartbeats));
        }
        if now.uptime_ms < self.retry_at_ms {
            return Vec::new();
        }
        let rest = self.writing.len().saturating_sub(most);
        self.writing.split_off(rest)
    }

    /// Makes all heartbeats due.
    pub(in crate::registry) fn hurry(&mut self) {
        self.heartbeats_due_ms = 0;
    }

    /// The record's stored state is in doubt: it is to be restored.
    pub(super) fn doubt(&mut self, id: Arc<str>) {
        self.doubt_with(id, &mut Vec::new());
    }

    /// The change with this revision may be stored and is to be undone: the record's stored state is in doubt. Whether it
    /// is the first of its record.
    pub(super) fn undo(&mut self, id: Arc<str>, revision: u64) -> bool {
        self.undone += 1;
        self.doubt_with(id, &mut vec![revision]) == 1
    }

    /// How many changes of the record are to be undone now.
    fn doubt_with(&mut self, id: Arc<str>, undone: &mut Vec<u64>) -> usize {
        let all = self.doubtful.entry(id).or_insert_with_key(|id| {
            self.turns.push_back(id.clone());
            Vec::new()
        });
        all.append(undone);
        all.len()
    }

    /// A restoration has failed, or was refused: the record is still in doubt.
    pub(super) fn doubt_again(&mut self, id: Arc<str>, mut undone: Vec<u64>, is_refused: bool, now: Now) {
        self.undone += undone.len();
        if !is_refused {
            self.doubt_with(id, &mut undone);
            return;
        }
        if self.refused.is_empty() {
            // Not even with changes before that: what the store refuses it will refuse again.
            self.refused_until_ms = now.uptime_ms + RETRY_INTERVAL_MS;
        }
        self.refused.entry(id).or_default().append(&mut undone);
    }

    /// Nothing is in doubt any more.
    pub(super) fn forget_doubts(&mut self) {
        self.undone = 0;
        self.doubtful.clear();
        self.turns.clear();
        self.refused.clear();
        self.retry_at_ms = 0;
    }

    /// How many records are in doubt, or how many changes are to be undone if those are more.
    pub(super) fn doubtful(&self) -> usize {
        (self.doubtful.len() + self.refused.len()).max(self.undone)
    }

    /// The records that are in doubt.
    pub(in crate::registry) fn doubtful_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.doubtful.keys().chain(self.refused.keys())
    }

    /// The next doubtful record, if it is time to restore it, or if clients' changes go to the store anyway: what may be
    /// left behind must not be in their way.
    pub(super) fn next_doubtful(&mut self, with_changes: bool, now: Now) -> Option<(Arc<str>, Vec<u64>)> {
        if now.uptime_ms < self.retry_at_ms && !with_changes {
            return None;
        }
        if now.uptime_ms >= self.refused_until_ms {
            for (id, mut undone) in std::mem::take(&mut self.refused) {
                self.doubt_with(id, &mut undone);
            }
        }
        // Those that have been in doubt for longest come first: watchers wait for them.
        let id = self.turns.pop_front()?;
        let undone = self.doubtful.remove(&id).unwrap_or_default();
        self.undone -= undone.len();
        Some((id, undone))
    }

    /// Has the critical services up to this place removed.
    pub(in crate::registry) fn sweep_to(&mut self, last: Option<u64>) {
        self.sweep = last.map(|last| 0..=last);
    }

    /// The places that are still to be swept, unless the store needs rest.
    pub(super) fn sweep(&self, now: Now) -> Option<RangeInclusive<u64>> {
        self.sweep.clone().filter(|_| now.uptime_ms >= self.retry_at_ms)
    }

    /// Up to which place a clean-up that is under way goes.
    pub(super) fn sweeping_to(&self) -> Option<u64> {
        self.sweep.as_ref().map(|places| *places.end())
    }

    /// Whether a clean-up is under way.
    pub(super) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// The sweep has come to this place, or to its end.
    pub(super) fn swept_to(&mut self, place: Option<u64>) {
        let last = self.sweep.take().map(|places| *places.end());
        self.sweep = place.zip(last).map(|(place, last)| place + 1..=last).filter(|places| !places.is_empty());
    }

    /// Until when the store rests.
    pub(super) fn retry_at_ms(&self) -> u64 {
        self.retry_at_ms
    }

    /// Lets the store rest for a while, but for what clients ask of it.
    pub(super) fn back_off(&mut self, now: Now) {
        self.retry_at_ms = now.uptime_ms + RETRY_INTERVAL_MS;
    }

    /// Whether nothing has to be stored but expiries, which are found anew at each start.
    pub(super) fn is_idle(&self) -> bool {
        self.doubtful.is_empty() && self.refused.is_empty() && self.heartbeats.is_empty() && self.writing.is_empty()
    }

    /// When something is to be done, if anything is.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        let is_gathering = self.writing.is_empty() && !self.heartbeats.is_empty();
        let heartbeats = is_gathering.then(|| self.heartbeats_due_ms.max(self.retry_at_ms));
        let is_waiting = self.is_sweeping() || !self.writing.is_empty();
        let retry = is_waiting.then_some(self.retry_at_ms);
        let doubtful = (!self.doubtful.is_empty()).then_some(self.retry_at_ms);
        let refused = (!self.refused.is_empty()).then(|| self.retry_at_ms.max(self.refused_until_ms));
        [heartbeats, retry, doubtful, refused].into_iter().flatten().min()
    }
}
