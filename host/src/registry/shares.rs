//! Who has how much of what all share.

use std::collections::HashMap;
use std::ops::Add;

use crate::security::origin::Holder;

/// So many places, and so many bytes with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Add for Share {
    type Output = Share;

    fn add(self, other: Share) -> Share {
        Share { count: self.count + other.count, bytes: self.bytes + other.bytes }
    }
}

/// What all have, and what each has.
#[derive(Debug, Default)]
pub(super) struct Shares {
    all: Share,
    each: HashMap<Holder, Share>,
}

impl Shares {
    /// Takes a place, and so many bytes with it.
    pub(super) fn take(&mut self, holder: Holder, bytes: usize) {
        let more = Share { count: 1, bytes };
        let share = self.each.entry(holder).or_default();
        (*share, self.all) = (*share + more, self.all + more);
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&mut self, holder: Holder, bytes: usize) {
        let Some(share) = self.each.get_mut(&holder) else { return };
        *share = Share { count: share.count - 1, bytes: share.bytes - bytes };
        if share.count == 0 {
            self.each.remove(&holder);
        }
        self.all = Share { count: self.all.count - 1, bytes: self.all.bytes - bytes };
    }

    /// What all have together.
    pub(super) fn all(&self) -> Share {
        self.all
    }

    /// What one has.
    pub(super) fn of(&self, holder: &Holder) -> Share {
        self.each.get(holder).copied().unwrap_or_default()
    }
}
