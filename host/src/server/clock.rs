//! The host's only clock, which notices when the host itself was held up.
//!
//! Deadlines go by the time that the host was awake. When the process is stopped, swapped out or starved, heartbeats
//! wait unread; that time must not count against the services that sent them. The clock is read several times a
//! second, so a long gap between two readings is time that the host was held up, and is left out.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::registry::Now;

/// Read the clock at least this often while the host is awake.
pub const READ_INTERVAL: Duration = Duration::from_millis(100);
/// A longer gap between two readings means that the host was held up.
const HELD_UP: Duration = Duration::from_secs(1);

/// Tells the time: see [`Now`].
#[derive(Debug)]
pub struct Clock {
    start: Instant,
    uptime: Uptime,
}

impl Clock {
    /// A clock that starts now, at zero.
    pub fn start() -> Self {
        Clock { start: Instant::now(), uptime: Uptime::default() }
    }

    /// What it said when it was last read, in nanoseconds since it started.
    pub fn last_ns(&self) -> u64 {
        u64::try_from(self.uptime.read.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The time, and for how long the host was held up since the last reading, if it was.
    pub fn read(&mut self) -> (Now, Option<Duration>) {
        let (uptime, held_up) = self.uptime.at(self.start.elapsed());
        (Now { uptime_ms: millis(uptime), unix_ms: unix_ms() }, held_up)
    }
}

/// The wall clock, in milliseconds since the Unix epoch: only for showing. Before 1970 it shows 1970.
pub fn unix_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Time that the host was awake, from readings of a clock that never goes back.
#[derive(Debug, Default)]
struct Uptime {
    read: Duration,
    held_up: Duration,
}

impl Uptime {
    fn at(&mut self, elapsed: Duration) -> (Duration, Option<Duration>) {
        let gap = elapsed.saturating_sub(self.read);
        self.read = elapsed;
        let held_up = gap.checked_sub(READ_INTERVAL).filter(|_| gap > HELD_UP);
        self.held_up += held_up.unwrap_or_default();
        (elapsed - self.held_up, held_up)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn time_that_the_host_was_held_up_does_not_pass() {
        let mut uptime = Uptime::default();
        assert_eq!(uptime.at(seconds(0.1)), (seconds(0.1), None));
        assert_eq!(uptime.at(seconds(0.9)), (seconds(0.9), None));
        assert_eq!(uptime.at(seconds(100.9)), (seconds(1.0), Some(seconds(99.9))));
        assert_eq!(uptime.at(seconds(101.4)), (seconds(1.5), None));
        assert_eq!(uptime.at(seconds(3701.4)), (seconds(1.6), Some(seconds(3599.9))));
    }
}
