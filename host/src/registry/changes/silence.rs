//! Whether it is the host that is cut off: no service is heard of, though heartbeats are due.

/// No service heard of for so long, in milliseconds, may be a silence.
const SILENT_MS: u64 = 3000;
/// A service is late when this part of its ttl has passed: it should beat every third.
const LATE: u64 = 2;

/// For how long no service has been heard of.
#[derive(Debug)]
pub(super) struct Silence {
    /// When the last one was heard of, and when somebody last looked.
    heard_ms: u64,
    seen_ms: u64,
    /// After how long so many are late that it means something.
    late_ms: u64,
    is_told: bool,
}

impl Default for Silence {
    fn default() -> Self {
        Silence { heard_ms: 0, seen_ms: 0, late_ms: u64::MAX, is_told: false }
    }
}

impl Silence {
    /// Time passes. `ttl_ms`: so many services have this ttl or a shorter one that none of them is silent by chance.
    pub(super) fn pass(&mut self, ttl_ms: Option<u64>, uptime_ms: u64) {
        self.seen_ms = self.seen_ms.max(uptime_ms);
        // They become fewer while they run out.
        self.late_ms = self.late_ms.min(ttl_ms.map_or(u64::MAX, |ttl_ms| ttl_ms / LATE));
    }

    /// A service is heard of. Since when none was, if that is a silence.
    pub(super) fn end(&mut self) -> Option<u64> {
        let since_ms = self.is_silent().then_some(self.heard_ms);
        (self.heard_ms, self.late_ms, self.is_told) = (self.seen_ms, u64::MAX, false);
        since_ms
    }

    /// Whether clean-ups wait until somebody is heard of, but no longer than that.
    pub(super) fn puts_off(&self, most_ms: u64) -> bool {
        self.is_silent() && self.seen_ms - self.heard_ms <= most_ms
    }

    /// For how long nobody has been heard of, in a silence in which clean-ups wait.
    pub(super) fn lasts(&self, most_ms: u64) -> Option<u64> {
        self.puts_off(most_ms).then(|| self.seen_ms - self.heard_ms)
    }

    /// The same, once for each silence.
    pub(super) fn news(&mut self, most_ms: u64) -> Option<u64> {
        let lasts = self.lasts(most_ms)?;
        (!std::mem::replace(&mut self.is_told, true)).then_some(lasts)
    }

    fn is_silent(&self) -> bool {
        self.seen_ms - self.heard_ms >= SILENT_MS.max(self.late_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_three_seconds_or_more_in_which_services_are_late() {
        for (ttl_ms, ms, is_silent) in
            [(1000, 2999, false), (1000, 3000, true), (30_000, 14_999, false), (30_000, 15_000, true)]
        {
            let mut silence = Silence::default();
            silence.pass(Some(ttl_ms), 500);
            assert_eq!(silence.end(), None);
            silence.pass(Some(ttl_ms), 600);
            // By then they have run out.
            silence.pass(None, 500 + ms);
            assert_eq!(silence.puts_off(30_000), is_silent, "{ttl_ms}, {ms} ms");
            assert_eq!(silence.end(), is_silent.then_some(500));
            assert!(!silence.puts_off(30_000), "it is over");
            silence.pass(Some(ttl_ms), 501 + ms);
            assert_eq!(silence.end(), None);
        }
    }

    #[test]
    fn few_services_are_never_silent() {
        let mut silence = Silence::default();
        silence.pass(None, 1_000_000);
        assert!(!silence.puts_off(u64::MAX));
        assert_eq!(silence.end(), None);
    }

    #[test]
    fn clean_ups_do_not_wait_for_ever() {
        let mut silence = Silence::default();
        silence.pass(Some(10_000), 30_000);
        assert!(silence.puts_off(30_000));
        silence.pass(Some(10_000), 30_001);
        assert!(!silence.puts_off(30_000));
        assert_eq!(silence.end(), Some(0), "who comes back later has been silent all the same");
    }
}
