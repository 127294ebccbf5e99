//! How much a plugin may log: a plugin that logs in a loop must not fill the operator's disk, nor hide what the host
//! itself has to say.

use std::time::Duration;

/// How many messages of one plugin are logged in a second. The rest is counted.
pub const MESSAGES_PER_SECOND_MAX: u32 = 1000;

const WINDOW: Duration = Duration::from_secs(1);

/// What is left to one plugin. The time is given, as the time since any moment that stays the same.
#[derive(Debug, Default)]
pub struct Budget {
    window_start: Duration,
    used: u32,
    left_out: u64,
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Log it.
    Log,
    /// Log it, and before it that so many were left out.
    LogAfter(u64),
    /// Leave it out.
    LeaveOut,
}

impl Budget {
    /// Judges a message.
    pub fn spend(&mut self, now: Duration) -> Verdict {
        if now.saturating_sub(self.window_start) >= WINDOW {
            self.window_start = now;
            self.used = 0;
        }
        if self.used >= MESSAGES_PER_SECOND_MAX {
            self.left_out += 1;
            return Verdict::LeaveOut;
        }
        self.used += 1;
        match std::mem::take(&mut self.left_out) {
            0 => Verdict::Log,
            left_out => Verdict::LogAfter(left_out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_and_told_with_the_next_message() {
        let mut budget = Budget::default();
        let at = Duration::from_millis;
        for _ in 0..MESSAGES_PER_SECOND_MAX {
            assert_eq!(budget.spend(at(5000)), Verdict::Log);
        }
        assert_eq!(budget.spend(at(5001)), Verdict::LeaveOut);
        assert_eq!(budget.spend(at(5999)), Verdict::LeaveOut);
        assert_eq!(budget.spend(at(6000)), Verdict::LogAfter(2));
        assert_eq!(budget.spend(at(6000)), Verdict::Log);
    }
}
