//! A set of slots that is picked from at random in constant time.
//!
//! Most types have a single service, and a lookup is mostly waiting for memory: so one slot stands right here, and
//! only more of them take memory of their own.

use indexmap::IndexSet;

/// A place in the collection of services.
pub(super) type Slot = usize;

#[derive(Default)]
pub(super) enum Slots {
    #[default]
    Empty,
    One(Slot),
    Many(Box<IndexSet<Slot>>),
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        match self {
            Slots::Empty => 0,
            Slots::One(_) => 1,
            Slots::Many(slots) => slots.len(),
        }
    }

    /// The slot at that place, counted from 0. Places change when slots come and go.
    pub(super) fn get(&self, place: usize) -> Option<Slot> {
        match self {
            Slots::One(slot) if place == 0 => Some(*slot),
            Slots::Many(slots) => slots.get_index(place).copied(),
            _ => None,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot> {
        let (one, many) = match self {
            Slots::Empty => (None, None),
            Slots::One(slot) => (Some(slot), None),
            Slots::Many(slots) => (None, Some(slots.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        match self {
            Slots::Empty => *self = Slots::One(slot),
            Slots::One(first) => *self = Slots::Many(Box::new(IndexSet::from([*first, slot]))),
            Slots::Many(slots) => {
                slots.insert(slot);
            }
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        match self {
            Slots::One(one) if *one == slot => *self = Slots::Empty,
            Slots::Many(slots) => {
                slots.swap_remove(&slot);
                if slots.is_empty() {
                    *self = Slots::Empty;
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
    fn a_single_slot_stays_until_it_is_the_one_that_goes_and_comes_once() {
        let mut set = Slots::default();
        set.insert(3);
        set.remove(4);
        assert_eq!(set.iter().copied().collect::<Vec<_>>(), [3]);
        set.insert(3);
        assert_eq!((set.len(), set.get(0), set.get(1)), (1, Some(3), None));
        set.remove(3);
        assert!(set.len() == 0);
    }

    #[test]
    fn slots_come_and_go_as_in_any_set() {
        let mut set = Slots::default();
        let mut expected = std::collections::BTreeSet::new();
        // Enough steps to grow to several slots and shrink to none, again and again.
        for step in 0..2000_usize {
            let slot = step * step % 7;
            if (step / 20) % 2 == 0 {
                set.insert(slot);
                expected.insert(slot);
            } else {
                set.remove(slot);
                expected.remove(&slot);
            }
            let mut slots: Vec<Slot> = set.iter().copied().collect();
            assert!((0..slots.len()).all(|place| set.get(place) == Some(slots[place])));
            assert_eq!(set.get(slots.len()), None);
            slots.sort_unstable();
            assert_eq!(slots, expected.iter().copied().collect::<Vec<_>>(), "after step {step}");
            assert_eq!(set.len(), expected.len());
        }
    }
}
