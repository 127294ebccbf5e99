//! What clients may cost, and what was done about those that wanted more.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What clients may cost. Each is a key of `[limits]`; see `registry.toml`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest message, in bytes, all its frames together.
    pub message_bytes: usize,
    /// The most frames of a message.
    pub message_frames: usize,
    /// How long a peer may take until it is ready.
    pub handshake_timeout: Duration,
    /// The most connections at the same time, on all ports together.
    pub connections: usize,
    /// The most of them from one address.
    pub connections_per_address: usize,
    /// After how long a silence a peer is asked whether it is there.
    pub heartbeat_interval: Duration,
    /// After how long a silence a peer is taken for gone.
    pub heartbeat_timeout: Duration,
    /// From how many bytes of replies on that wait for a client its further requests wait too.
    pub reply_queue_bytes: usize,
    /// How long a client may take nothing of the replies that wait for it.
    pub unread_timeout: Duration,
    /// The most bytes of events that wait for a subscriber.
    pub event_queue_bytes: usize,
    /// The most bytes that wait for or from all clients together, but for events: those are kept once for all.
    pub buffered_bytes: usize,
    /// The most subscriptions of a subscriber.
    pub subscriptions: usize,
    /// The most requests that are taken from one connection in a second, on average; 0 for any number.
    pub requests_per_second: u32,
    /// The most requests that are taken off all connections before the earlier ones have been answered.
    pub batch: usize,
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections over a limit.
    pub refused: Cell<u64>,
    /// Handshakes that came to nothing, or took too long.
    pub failed_handshakes: Cell<u64>,
    /// Peers that broke the protocol or a limit afterwards.
    pub offenders: Cell<u64>,
    /// Clients that were dropped because they did not read their replies.
    pub unread: Cell<u64>,
    /// Peers that were dropped because too much waited for all of them.
    pub crowded: Cell<u64>,
    /// Peers that were dropped because nothing was heard of them.
    pub silent: Cell<u64>,
    /// Events that were dropped because a subscriber did not read.
    pub missed_events: Cell<u64>,
}

/// Adds to a counter.
pub fn count(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

impl Counters {
    /// The counters with words for people, in a fixed order.
    pub fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("connections refused", self.refused.get()),
            ("handshakes failed", self.failed_handshakes.get()),
            ("peers dropped for breaking a rule", self.offenders.get()),
            ("clients dropped for not reading", self.unread.get()),
            ("clients dropped for want of memory", self.crowded.get()),
            ("peers dropped for their silence", self.silent.get()),
            ("events missed by slow subscribers", self.missed_events.get()),
        ]
    }
}

/// The least time between two lines of a [`Report`].
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// What operators are told of the counters: at once when something happens, and not too often while it goes on.
#[derive(Debug, Default)]
pub struct Report {
    told: [u64; 7],
    told_at: Option<Instant>,
}

impl Report {
    /// A line, if there is something new and it is time for it.
    pub fn line(&mut self, counters: &Counters, now: Instant) -> Option<String> {
        if self.told_at.is_some_and(|at| now.duration_since(at) < REPORT_INTERVAL) {
            return None;
        }
        let named = counters.named();
        let news: Vec<String> = std::iter::zip(named, self.told)
            .filter(|((_, count), told)| count > told)
            .map(|((name, count), told)| format!("{name}: {}", count - told))
            .collect();
        if news.is_empty() {
            return None;
        }
        self.told = named.map(|(_, count)| count);
        self.told_at = Some(now);
        Some(format!("clients went over a limit or broke off ({})", news.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_told_at_once_and_then_now_and_then() {
        let (counters, mut report) = (Counters::default(), Report::default());
        let start = Instant::now();
        assert_eq!(report.line(&counters, start), None);
        count(&counters.unread, 1);
        let line = report.line(&counters, start).expect("something has happened");
        assert!(line.contains("clients dropped for not reading: 1)"), "{line}");
        count(&counters.unread, 2);
        count(&counters.refused, 1);
        assert_eq!(report.line(&counters, start + REPORT_INTERVAL / 2), None);
        let line = report.line(&counters, start + REPORT_INTERVAL).expect("more has happened");
        assert!(line.contains("(connections refused: 1, clients dropped for not reading: 2)"), "{line}");
        assert_eq!(report.line(&counters, start + REPORT_INTERVAL * 9), None);
    }
}
