//! Changes of which nobody was told and that may be stored nevertheless. They are to be undone; but a host that dies
//! before that finds them stored when it starts again, and then they have happened.
//!
//! So watchers are told of later changes only when nothing before these can come back: else one that knows of a later
//! change would never hear of the one that has. It takes as long as the store takes to undo a change, which is why it
//! rarely shows; and it is not waited for without end, since a store may refuse to.

use std::collections::BTreeMap;

/// How long it is waited for at most, in milliseconds.
const WAIT_MS: u64 = 2000;

/// Changes that may be stored and are to be undone.
#[derive(Debug, Default)]
pub(in crate::registry) struct Doubt {
    /// By their revisions, and since when they are in doubt.
    open: BTreeMap<u64, u64>,
}

impl Doubt {
    /// The change with this revision is to be undone.
    pub(in crate::registry) fn open(&mut self, revision: u64, uptime_ms: u64) {
        self.open.entry(revision).or_insert(uptime_ms);
    }

    /// These changes are undone.
    pub(in crate::registry) fn close(&mut self, revisions: &[u64]) {
        for revision in revisions {
            self.open.remove(revision);
        }
    }

    /// The first change that is in doubt: what comes after it has to wait.
    pub(super) fn bound(&self) -> Option<u64> {
        self.open.first_key_value().map(|(revision, _)| *revision)
    }

    /// Those that have been in doubt for too long are not waited for any more.
    pub(super) fn tick(&mut self, uptime_ms: u64) {
        while let Some(first) = self.open.first_entry()
            && first.get() + WAIT_MS <= uptime_ms
        {
            first.remove();
        }
    }

    /// When the first has been in doubt for too long, if there is one.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        self.open.first_key_value().map(|(_, since_ms)| since_ms + WAIT_MS)
    }
}
