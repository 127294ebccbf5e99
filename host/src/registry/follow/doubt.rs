//! Changes of which nobody was told and that may be stored nevertheless. They are to be undone; but a host that dies
//! before that finds them stored when it starts again, and then they have happened.
//!
//! So nobody gets to know of a revision behind these that all before it is known: neither watchers, who are told of later
//! changes only when these cannot come back, nor who lists, who is told again what the list has shown already. Else one
//! that knows of a later change would never hear of the one that has come back.
//!
//! It takes as long as the store takes to undo a change, which is why it rarely shows. While a store fails it may take
//! long, but then nothing else happens either. Only one that makes other changes and does not undo these is not waited for
//! without end.

use std::collections::BTreeMap;

/// How often a store may refuse to undo a change before it is no longer waited for: some two seconds.
const REFUSED_MAX: u32 = 10;

/// Changes that may be stored and are to be undone.
#[derive(Debug, Default)]
pub(in crate::registry) struct Doubt {
    /// By their revisions, and how often the store has refused to undo each. The first of each record is enough.
    open: BTreeMap<u64, u32>,
}

impl Doubt {
    /// The change with this revision is to be undone.
    pub(in crate::registry) fn open(&mut self, revision: u64) {
        self.open.insert(revision, 0);
    }

    /// These changes are undone.
    pub(in crate::registry) fn close(&mut self, revisions: &[u64]) {
        for revision in revisions {
            self.open.remove(revision);
        }
    }

    /// The store has refused to undo these changes.
    pub(in crate::registry) fn refused(&mut self, revisions: &[u64]) {
        for revision in revisions {
            let Some(times) = self.open.get_mut(revision) else { continue };
            *times += 1;
            if *times >= REFUSED_MAX {
                self.open.remove(revision);
            }
        }
    }

    /// The first change that is in doubt: what comes after it has to wait.
    pub(super) fn bound(&self) -> Option<u64> {
        self.open.first_key_value().map(|(revision, _)| *revision)
    }
}
