//! What changed, for the log: each change at debug, and what changed together in one line.

use crate::protocol::event::EventKind;
use crate::registry::Amendment;
use crate::text::{counted, quoted};

/// How often at most there is a line for each kind of change, in milliseconds: a hundred thousand services that expire
/// at once must not write as many lines.
const INTERVAL_MS: u64 = 1000;
/// How many ids a line shows.
const SHOWN_MAX: usize = 3;

/// Changes that are still to be told.
#[derive(Debug, Default)]
pub(super) struct Digest {
    registered: Changes,
    updated: Changes,
    drained: Changes,
    undrained: Changes,
    deregistered: Changes,
    expired: Changes,
}

#[derive(Debug, Default)]
struct Changes {
    count: usize,
    /// The first ids, quoted.
    shown: Vec<String>,
    /// When the first of these happened.
    since_ms: u64,
    /// When the last line was written.
    told_at_ms: Option<u64>,
}

impl Digest {
    /// Takes note of a change, and of what it changed if the service stayed what it is. `uptime_ms` is on a clock that
    /// never goes back, here and below.
    pub(super) fn note(&mut self, change: (EventKind, Option<Amendment>), service_id: &str, uptime_ms: u64) {
        let (changes, what) = match change {
            (EventKind::Register, None) => (&mut self.registered, "register"),
            (EventKind::Register, Some(Amendment::Metadata)) => (&mut self.updated, "update"),
            (EventKind::Register, Some(Amendment::Drained)) => (&mut self.drained, "drain"),
            (EventKind::Register, Some(Amendment::Undrained)) => (&mut self.undrained, "undrain"),
            (EventKind::Deregister, _) => (&mut self.deregistered, "deregister"),
            (EventKind::Expire, _) => (&mut self.expired, "expire"),
        };
        tracing::debug!("{what} {}", quoted(service_id));
        if changes.count == 0 {
            changes.since_ms = uptime_ms;
        }
        changes.count += 1;
        if changes.shown.len() < SHOWN_MAX {
            changes.shown.push(quoted(service_id));
        }
    }

    /// The lines to log. `is_settled` says that no more changes are on their way: a burst is told as a whole.
    pub(super) fn lines(&mut self, is_settled: bool, uptime_ms: u64) -> impl Iterator<Item = String> {
        let expired = if self.expired.count == 1 {
            "expired: no heartbeat within its ttl"
        } else {
            "expired: no heartbeat within their ttl"
        };
        let kinds = [
            (&mut self.registered, "registered"),
            (&mut self.updated, "updated"),
            (&mut self.drained, "drained"),
            (&mut self.undrained, "undrained"),
            (&mut self.deregistered, "deregistered"),
            (&mut self.expired, expired),
        ];
        kinds.into_iter().filter_map(move |(changes, what)| changes.line(what, is_settled, uptime_ms))
    }

    /// The lines for all that has not been told yet.
    pub(super) fn last_lines(&mut self) -> impl Iterator<Item = String> {
        self.lines(true, u64::MAX)
    }
}

impl Changes {
    fn line(&mut self, what: &str, is_settled: bool, uptime_ms: u64) -> Option<String> {
        let has_passed = |since_ms: u64| uptime_ms.saturating_sub(since_ms) >= INTERVAL_MS;
        let is_due = (is_settled && self.told_at_ms.is_none_or(has_passed)) || has_passed(self.since_ms);
        if self.count == 0 || !is_due {
            return None;
        }
        self.told_at_ms = Some(uptime_ms);
        let count = std::mem::take(&mut self.count);
        let shown = std::mem::take(&mut self.shown);
        let more = match count - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("{} {what} ({}{more})", counted(count, "service", "services"), shown.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(digest: &mut Digest, is_settled: bool, uptime_ms: u64) -> Vec<String> {
        digest.lines(is_settled, uptime_ms).collect()
    }

    #[test]
    fn what_changes_now_and_then_is_told_at_once() {
        let mut digest = Digest::default();
        assert!(lines(&mut digest, true, 5).is_empty());
        digest.note((EventKind::Register, None), "a\nb", 5);
        assert_eq!(lines(&mut digest, true, 5), ["1 service registered (\"a\\nb\")"]);
        assert!(lines(&mut digest, true, 9000).is_empty(), "once");
        digest.note((EventKind::Expire, None), "c", 9000);
        digest.note((EventKind::Deregister, None), "d", 9000);
        let told = lines(&mut digest, true, 9000);
        assert_eq!(told, ["1 service deregistered (\"d\")", "1 service expired: no heartbeat within its ttl (\"c\")"]);
    }

    #[test]
    fn what_is_changed_of_a_service_is_not_told_as_a_registration() {
        let mut digest = Digest::default();
        for what in [Amendment::Metadata, Amendment::Drained, Amendment::Undrained] {
            digest.note((EventKind::Register, Some(what)), "a", 5);
        }
        let told = lines(&mut digest, true, 5);
        assert_eq!(told, ["updated", "drained", "undrained"].map(|what| format!("1 service {what} (\"a\")")));
    }

    #[test]
    fn what_changes_together_is_one_line_and_many_changes_are_a_line_a_second() {
        let mut digest = Digest::default();
        for number in 0..1000 {
            digest.note((EventKind::Expire, None), &format!("s{number}"), 100);
            assert!(lines(&mut digest, false, 100).is_empty(), "more are on their way");
        }
        let line = "1000 services expired: no heartbeat within their ttl (\"s0\", \"s1\", \"s2\" and 997 more)";
        assert_eq!(lines(&mut digest, true, 150), [line]);
        digest.note((EventKind::Expire, None), "t", 200);
        assert!(lines(&mut digest, true, 1149).is_empty(), "there was a line a moment ago");
        assert_eq!(lines(&mut digest, true, 1150).len(), 1);
        digest.note((EventKind::Expire, None), "u", 2200);
        assert!(lines(&mut digest, false, 3199).is_empty());
        assert_eq!(lines(&mut digest, false, 3200).len(), 1, "the store never rests");
        digest.note((EventKind::Expire, None), "v", 3201);
        digest.note((EventKind::Expire, None), "w", 3201);
        let last: Vec<String> = digest.last_lines().collect();
        assert_eq!(last, ["2 services expired: no heartbeat within their ttl (\"v\", \"w\")"]);
    }
}
