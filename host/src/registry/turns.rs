//! Turns by work: of several things that are done a piece at a time, that one is next of which least has been done.
//!
//! Each is as if it were done at the same speed as all others: what is short is over soon, however long the others are
//! and however many pieces they have, and what is long has its turn, however many short ones come.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// How finely the work is counted that each has got of all: it is divided by how many there are.
const FINE: u64 = 1 << 16;

/// What is to be done, each under its name.
pub(super) struct Turns<K> {
    /// By when the next piece of each is done, if all are done at the same speed; and in the order in which they came.
    order: BTreeMap<(u64, u64), (K, u64)>,
    places: HashMap<K, (u64, u64)>,
    /// How much has been done of each that was always there.
    done: u64,
    next: u64,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Turns { order: BTreeMap::new(), places: HashMap::new(), done: 0, next: 0 }
    }
}

impl<K: Clone + Eq + Hash> Turns<K> {
    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// There is something to do here, of which the first piece takes about so much work. It keeps its place if there was
    /// something already.
    pub(super) fn add(&mut self, key: &K, piece: usize) {
        if !self.places.contains_key(key) {
            self.put(key.clone(), self.done, piece);
        }
    }

    fn put(&mut self, key: K, begin: u64, piece: usize) {
        let place = (begin + piece as u64 * FINE, self.next);
        self.next += 1;
        self.places.insert(key.clone(), place);
        self.order.insert(place, (key, begin));
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<&K> {
        self.order.first_key_value().map(|(_, (key, _))| key)
    }

    /// All, in the order of their next turns.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &K> {
        self.order.values().map(|(key, _)| key)
    }

    /// A piece of that has been done, which took so much work, and there is more of it or not.
    pub(super) fn worked(&mut self, work: usize, has_more: bool) {
        let share = work as u64 * FINE / self.order.len().max(1) as u64;
        let Some((_, (key, begin))) = self.order.pop_first() else { return };
        self.places.remove(&key);
        self.done += share;
        if has_more {
            // The next piece is likely to be as long.
            self.put(key, begin + work as u64 * FINE, work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does all there is, each thing so many pieces of so much work, with at most so much in all. What had its turns.
    fn run(
        turns: &mut Turns<&'static str>,
        left: &mut HashMap<&'static str, (usize, usize)>,
        most: usize,
    ) -> Vec<&'static str> {
        let (mut seen, mut sum) = (Vec::new(), 0);
        while sum < most
            && let Some(&key) = turns.first()
        {
            let (pieces, work) = left[key];
            left.insert(key, (pieces - 1, work));
            turns.worked(work, pieces > 1);
            seen.push(key);
            sum += work;
        }
        seen
    }

    #[test]
    fn what_is_short_is_over_before_what_is_long_whoever_comes_first() {
        let mut turns = Turns::default();
        let mut left = HashMap::from([("long", (100, 1000)), ("longer", (100, 2000)), ("short", (10, 10))]);
        for key in ["long", "longer"] {
            turns.add(&key, left[key].1);
        }
        run(&mut turns, &mut left, 20_000);
        turns.add(&"short", 10);
        assert_eq!(run(&mut turns, &mut left, 100), ["short"; 10]);
        let rest = run(&mut turns, &mut left, 60_000);
        let count = |key| rest.iter().filter(|seen| **seen == key).count();
        assert!(count("long").abs_diff(2 * count("longer")) <= 2, "as much work of either: {rest:?}");
        run(&mut turns, &mut left, usize::MAX);
        assert!(turns.is_empty() && left.values().all(|(pieces, _)| *pieces == 0), "{left:?}");
    }

    #[test]
    fn what_is_long_has_its_turn_however_many_short_ones_come() {
        let mut turns = Turns::default();
        turns.add(&0, 1000);
        turns.add(&0, 1);
        let turn = (1..10_000).find(|number| {
            turns.add(number, 10);
            let is_long = turns.first() == Some(&0);
            turns.worked(10, false);
            is_long
        });
        assert!((50..200).contains(&turn.expect("it has")), "{turn:?}");
    }
}
