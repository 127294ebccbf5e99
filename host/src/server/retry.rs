//! What the store has to be told until it has taken it, with pauses that grow.

use std::time::{Duration, Instant};

/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// When to try again.
#[derive(Debug, Default)]
pub(super) struct Retry {
    /// `None` while an answer is awaited.
    at: Option<Instant>,
    pause: Option<Duration>,
}

impl Retry {
    /// It has failed. Whether that was the first time.
    pub(super) fn failed(&mut self) -> bool {
        let is_first = self.pause.is_none();
        let pause = self.pause.map_or(PAUSES.0, |pause| (pause * 2).min(PAUSES.1));
        (self.at, self.pause) = (Some(Instant::now() + pause), Some(pause));
        is_first
    }

    /// Whether it is time to try again, which is begun then.
    pub(super) fn is_due(&mut self) -> bool {
        self.at.take_if(|at| *at <= Instant::now()).is_some()
    }

    /// Tries again at once. Whether it was not being tried.
    pub(super) fn hurry(&mut self) -> bool {
        self.at.take().is_some()
    }

    /// Whether an answer is awaited.
    pub(super) fn is_asked(&self) -> bool {
        self.at.is_none()
    }
}
