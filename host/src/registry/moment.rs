//! The time, as the core is told it.

/// A moment. The core never asks for the time: it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on the clock that deadlines go by: it only moves forward, and stands still while the host is
    /// held up.
    pub uptime_ms: u64,
    /// Milliseconds since the Unix epoch on the wall clock, which may jump: only to be shown and stored.
    pub unix_ms: u64,
}

impl Now {
    /// Seconds since the Unix epoch, as replies and events show them.
    pub(super) fn unix_seconds(self) -> u64 {
        self.unix_ms / 1000
    }
}
