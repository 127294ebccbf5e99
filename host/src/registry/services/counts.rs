//! How many services there are.

use super::{Members, Services};

/// How many services, of a type or of all, are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counts {
    /// Can be discovered.
    pub passing: usize,
    /// Live, and are drained.
    pub drained: usize,
    /// Have run out.
    pub critical: usize,
}

impl Services {
    /// How many there are, by where they stand.
    pub(in crate::registry) fn counts(&self) -> Counts {
        let (drained, critical) = (self.drained, self.critical.len());
        Counts { passing: self.deadlines.len() - drained, drained, critical }
    }

    /// How many types they have.
    pub(in crate::registry) fn types_len(&self) -> usize {
        self.types.len()
    }

    /// How many members a type has, by where they stand.
    pub(in crate::registry) fn members(&self, service_type: &str) -> Counts {
        let count = |all: &Members| {
            let (passing, drained, critical) = (all.passing.len(), all.drained.len(), all.critical.len());
            Counts { passing, drained, critical }
        };
        self.by_type.get(service_type).map(count).unwrap_or_default()
    }
}
