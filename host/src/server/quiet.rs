//! When a clean-up that is due may begin: not before the heartbeats that wait have been read.

/// After so many turns in which nothing came, no message is waiting: when a host that was held up goes on, time has
/// passed at once, the network is asked after the first of them, and connections are read after the second.
const QUIET_TURNS: u32 = 3;
/// If messages never cease, a clean-up waits no longer than this, in milliseconds.
const WAIT_MAX_MS: u64 = 1000;
/// A turn counts as no longer than this: what is longer the host has slept or was held up, and read nothing.
const TURN_MAX_MS: u64 = 20;

/// How long a clean-up has been waiting for a quiet moment.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    turns: u32,
    waited_ms: u64,
    /// When the last turn was.
    turn_ms: u64,
}

impl Quiet {
    /// Whether a clean-up may begin, asked once in each turn: `is_due` says that it should, `is_idle` that nothing has
    /// come in this turn.
    pub(super) fn allows(&mut self, is_due: bool, is_idle: bool, uptime_ms: u64) -> bool {
        let turn_ms = uptime_ms.saturating_sub(std::mem::replace(&mut self.turn_ms, uptime_ms));
        if !is_due {
            (self.turns, self.waited_ms) = (0, 0);
            return false;
        }
        self.turns = match is_idle {
            true if turn_ms > TURN_MAX_MS => 1,
            true => self.turns + 1,
            false => 0,
        };
        self.waited_ms += turn_ms.min(TURN_MAX_MS);
        self.turns >= QUIET_TURNS || self.waited_ms >= WAIT_MAX_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In how many turns of this length a clean-up may begin, if it is due now.
    fn turns(quiet: &mut Quiet, is_idle: bool, turn_ms: u64) -> u64 {
        let mut turns = 0;
        loop {
            turns += 1;
            let now_ms = quiet.turn_ms + turn_ms;
            if quiet.allows(true, is_idle, now_ms) {
                return turns;
            }
        }
    }

    #[test]
    fn a_clean_up_waits_for_a_quiet_moment() {
        let mut quiet = Quiet::default();
        for _ in 0..10 {
            let now_ms = quiet.turn_ms + 100;
            assert!(!quiet.allows(false, true, now_ms), "it is not due");
        }
        assert_eq!(turns(&mut quiet, true, 1), 3, "and a quiet time before it was due does not count");
        quiet.allows(false, true, 1000);
        assert!(!quiet.allows(true, true, 1001) && !quiet.allows(true, true, 1002));
        assert!(!quiet.allows(true, false, 1003), "a message");
        assert!(!quiet.allows(true, true, 1004) && !quiet.allows(true, true, 1005));
        assert!(!quiet.allows(true, true, 1500), "held up");
        assert_eq!(turns(&mut quiet, true, 1), 2);
    }

    #[test]
    fn messages_without_end_do_not_put_it_off_for_ever_and_time_held_up_does_not_count() {
        let mut quiet = Quiet::default();
        assert_eq!(turns(&mut quiet, false, 2), 500);
        quiet.allows(false, false, 1000);
        assert_eq!(turns(&mut quiet, false, 700), 50, "each turn was held up");
    }
}
