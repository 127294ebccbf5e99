//! How long it takes until the next attempt.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// As often as services are renewed, a registry that is away is looked for.
const ATTEMPTS_PER_TTL: u32 = 3;
/// However short a ttl is.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// The ttls of the services that are kept, each with their number. A registry that is back lets a service live for one
/// more ttl: a longer wait than that, and a restart would expire it.
#[derive(Debug, Default)]
pub(crate) struct KeptTtls(Mutex<BTreeMap<Duration, usize>>);

impl KeptTtls {
    pub(crate) fn add(&self, ttl: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(ttl).or_default() += 1;
    }

    pub(crate) fn remove(&self, ttl: Duration) {
        let mut ttls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = ttls.get_mut(&ttl) {
            *count -= 1;
            if *count == 0 {
                ttls.remove(&ttl);
            }
        }
    }

    /// How long a wait between two attempts may be.
    pub(crate) fn longest_wait(&self) -> Duration {
        let ttls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ttls.keys().next().map_or(Duration::MAX, |ttl| (*ttl / ATTEMPTS_PER_TTL).max(WAIT_MIN))
    }
}

/// Waits that double, each drawn at random between half and all of its length: clients that lost a registry in the same
/// moment do not all come back in one.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new((first, longest): (Duration, Duration)) -> Self {
        Backoff { first, longest, next: first }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        self.next_within(Duration::MAX)
    }

    /// The next wait, and no longer than this.
    pub(crate) fn next_within(&mut self, longest: Duration) -> Duration {
        let wait = self.next.min(longest).mul_f64(rand::random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// All is well: the next wait is the first.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_is_longer_than_the_shortest_ttl_that_is_kept_can_bear() {
        let seconds = Duration::from_secs;
        let kept = KeptTtls::default();
        assert_eq!(kept.longest_wait(), Duration::MAX);
        for ttl in [30, 3, 3] {
            kept.add(seconds(ttl));
        }
        let mut backoff = Backoff::new((seconds(4), seconds(5)));
        assert!(backoff.next_within(kept.longest_wait()) <= seconds(1));
        kept.remove(seconds(3));
        assert_eq!(kept.longest_wait(), seconds(1));
        kept.remove(seconds(3));
        assert_eq!(kept.longest_wait(), seconds(10));
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new((seconds(1), seconds(5)));
        for whole in [1, 2, 4, 5, 5] {
            let wait = backoff.next();
            assert!(wait >= seconds(whole) / 2 && wait <= seconds(whole), "{wait:?} of {whole} s");
        }
        backoff.reset();
        assert!(backoff.next() <= seconds(1));
        let mut others = std::iter::repeat_with(|| Backoff::new((seconds(1), seconds(5))).next());
        let first = others.next();
        assert!(others.take(20).any(|wait| Some(wait) != first), "all wait equally long");
    }
}
