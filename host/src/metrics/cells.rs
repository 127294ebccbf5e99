//! Numbers that one thread writes and another reads at any time.
//!
//! Since one thread alone writes a number, a load and a store do for an addition: on every machine that is two plain
//! instructions, where an atomic addition would lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number, written by one thread.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Makes it something else.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Makes it greater.
    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// Makes it less.
    pub fn subtract(&self, less: u64) {
        self.set(self.get().saturating_sub(less));
    }
}

/// How often something was how large: in buckets with fixed bounds, and all of it together.
#[derive(Debug)]
pub struct Histogram {
    /// The greatest value of each bucket but the last, which has no bound.
    bounds: &'static [u64],
    /// How many of these one unit has that is shown: 1e9 if nanoseconds are shown as seconds.
    per_unit: f64,
    counts: Box<[Number]>,
    sum: Number,
}

impl Histogram {
    /// Nothing yet, in buckets with these bounds.
    pub fn new(bounds: &'static [u64], per_unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| Number::default()).collect();
        Histogram { bounds, per_unit, counts, sum: Number::default() }
    }

    /// Takes note of something that was so large so many times.
    pub fn note(&self, value: u64, times: u64) {
        let place = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[place].add(times);
        self.sum.add(value.saturating_mul(times));
    }

    /// How many were at most as large as each bound, which comes with it; all of them; and their sum.
    pub(super) fn shown(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut count = 0;
        let upper = self.bounds.iter().zip(&self.counts).map(|(bound, own)| {
            count += own.get();
            (*bound as f64 / self.per_unit, count)
        });
        let upper: Vec<_> = upper.collect();
        let all = count + self.counts.last().map_or(0, Number::get);
        (upper, all, self.sum.get() as f64 / self.per_unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_a_bound_is_within_it_and_buckets_hold_those_before_them() {
        let histogram = Histogram::new(&[10, 100], 10.0);
        for (value, times) in [(10, 1), (11, 2), (100, 1), (101, 1)] {
            histogram.note(value, times);
        }
        assert_eq!(histogram.shown(), (vec![(1.0, 1), (10.0, 4)], 5, 23.3));
    }
}
