//! A set of slots that is picked from at random in constant time.
//!
//! Most types have a single service, and a lookup is mostly waiting for memory: so one slot stands right here, and
//! only more of them take memory of their own.

use indexmap::IndexSet;

use super::services::Slot;

#[derive(Default)]
pub(super) enum Group {
    #[default]
    Empty,
    One(Slot),
    Many(Box<IndexSet<Slot>>),
}

impl Group {
    pub(super) fn len(&self) -> usize {
        match self {
            Group::Empty => 0,
            Group::One(_) => 1,
            Group::Many(slots) => slots.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot at that place, counted from 0. Places change when slots come and go.
    pub(super) fn get(&self, place: usize) -> Option<Slot> {
        match self {
            Group::One(slot) if place == 0 => Some(*slot),
            Group::Many(slots) => slots.get_index(place).copied(),
            _ => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        let (one, many) = match self {
            Group::Empty => (None, None),
            Group::One(slot) => (Some(slot), None),
            Group::Many(slots) => (None, Some(slots.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        match self {
            Group::Empty => *self = Group::One(slot),
            Group::One(first) if *first == slot => {}
            Group::One(first) => *self = Group::Many(Box::new(IndexSet::from([*first, slot]))),
            Group::Many(slots) => {
                slots.insert(slot);
            }
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        match self {
            Group::One(one) if *one == slot => *self = Group::Empty,
            Group::Many(slots) => {
                slots.swap_remove(&slot);
                if slots.is_empty() {
                    *self = Group::Empty;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_and_go_as_in_any_set() {
        let mut group = Group::default();
        let mut expected = std::collections::BTreeSet::new();
        // Enough steps to grow to several slots and shrink to none, again and again.
        for step in 0..2000_usize {
            let slot = step * step % 7;
            if (step / 20) % 2 == 0 {
                group.insert(slot);
                expected.insert(slot);
            } else {
                group.remove(slot);
                expected.remove(&slot);
            }
            let mut slots: Vec<Slot> = group.iter().copied().collect();
            assert!((0..slots.len()).all(|place| group.get(place) == Some(slots[place])));
            assert_eq!(group.get(slots.len()), None);
            slots.sort_unstable();
            assert_eq!(slots, expected.iter().copied().collect::<Vec<_>>(), "after step {step}");
            assert_eq!((group.len(), group.is_empty()), (expected.len(), expected.is_empty()));
        }
    }
}
