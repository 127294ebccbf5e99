//! What was deregistered not long ago: whoever still beats for it is told so, and does not bring it back by mistake.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::registry::moment::Now;

/// For how long it is remembered that a service was deregistered, in milliseconds.
const REMEMBERED_MS: u64 = 600_000;
/// How many are remembered at most, and how long their ids may be together, in bytes.
const GONE_MAX: usize = 65_536;
const ID_BYTES_MAX: usize = 8 << 20;

/// The services that were deregistered and have not been registered since.
#[derive(Default)]
pub(super) struct Past {
    /// Until when each is remembered, on the clock that deadlines go by, and its place in the order.
    gone: HashMap<Arc<str>, (u64, u64)>,
    order: BTreeMap<u64, (u64, Arc<str>)>,
    next_place: u64,
    id_bytes: usize,
}

impl Past {
    /// A service was deregistered now.
    pub(super) fn deregistered(&mut self, id: &Arc<str>, now: Now) {
        self.remember(id, now.uptime_ms.saturating_add(REMEMBERED_MS), now.uptime_ms);
    }

    /// A service was deregistered at that time on the wall clock.
    pub(super) fn deregistered_at(&mut self, id: &Arc<str>, unix_ms: u64, now: Now) {
        // What lies ahead was written before the clock was set back: it may just have been.
        let age_ms = now.unix_ms.saturating_sub(unix_ms);
        if let Some(left_ms) = REMEMBERED_MS.checked_sub(age_ms) {
            self.remember(id, now.uptime_ms.saturating_add(left_ms), now.uptime_ms);
        }
    }

    /// A service was registered: what was before it does not count any longer.
    pub(super) fn registered(&mut self, id: &str) {
        if let Some((_, place)) = self.gone.remove(id) {
            self.order.remove(&place);
            self.id_bytes -= id.len();
        }
    }

    /// All services may be others: those that `are_there` are not gone.
    pub(super) fn come_back(&mut self, are_there: impl Fn(&str) -> bool) {
        let back: Vec<Arc<str>> = self.gone.keys().filter(|id| are_there(id)).cloned().collect();
        back.iter().for_each(|id| self.registered(id));
    }

    /// Whether the service was deregistered, not long ago, and not registered since.
    pub(super) fn is_gone(&self, id: &str, uptime_ms: u64) -> bool {
        self.gone.get(id).is_some_and(|(until_ms, _)| uptime_ms <= *until_ms)
    }

    fn remember(&mut self, id: &Arc<str>, until_ms: u64, uptime_ms: u64) {
        self.registered(id);
        self.gone.insert(id.clone(), (until_ms, self.next_place));
        self.order.insert(self.next_place, (until_ms, id.clone()));
        self.next_place += 1;
        self.id_bytes += id.len();
        // What is over goes two at a time, so that it goes faster than it comes; what is too much goes at once.
        let mut over = 2;
        while let Some((_, (until_ms, first))) = self.order.first_key_value() {
            let is_too_much = self.gone.len() > GONE_MAX || self.id_bytes > ID_BYTES_MAX;
            if !is_too_much && (over == 0 || uptime_ms <= *until_ms) {
                break;
            }
            over -= usize::from(!is_too_much);
            let first = first.clone();
            self.registered(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { uptime_ms: ms, unix_ms: 1_700_000_000_000 + ms }
    }

    #[test]
    fn what_was_deregistered_is_remembered_for_ten_minutes() {
        let mut past = Past::default();
        past.deregistered(&"a".into(), at(5));
        assert!(past.is_gone("a", 600_005) && !past.is_gone("a", 600_006) && !past.is_gone("b", 5));
        past.registered("a");
        assert!(!past.is_gone("a", 5));
    }

    #[test]
    fn what_was_before_a_start_counts_for_what_is_left_of_its_time() {
        let mut past = Past::default();
        let now = Now { uptime_ms: 0, unix_ms: 1_700_000_000_000 };
        past.deregistered_at(&"old".into(), now.unix_ms - 600_001, now);
        past.deregistered_at(&"late".into(), now.unix_ms - 599_000, now);
        past.deregistered_at(&"ahead".into(), now.unix_ms + 3_600_000, now);
        assert!(!past.is_gone("old", 0));
        assert!(past.is_gone("late", 1000) && !past.is_gone("late", 1001));
        assert!(past.is_gone("ahead", 600_000) && !past.is_gone("ahead", 600_001));
    }

    #[test]
    fn however_many_go_only_the_last_are_remembered() {
        let mut past = Past::default();
        for number in 0..GONE_MAX + 10 {
            past.deregistered(&format!("s{number}").into(), at(0));
        }
        assert_eq!((past.gone.len(), past.order.len()), (GONE_MAX, GONE_MAX));
        assert!(!past.is_gone("s9", 0) && past.is_gone("s10", 0));
        // One that comes and goes all the time takes no place of others.
        for _ in 0..1000 {
            past.deregistered(&"s10".into(), at(0));
        }
        assert!(past.is_gone("s11", 0));
        let long = "x".repeat(1 << 20);
        for number in 0..20 {
            past.deregistered(&format!("{number}{long}").into(), at(1));
        }
        assert!(past.id_bytes <= ID_BYTES_MAX && past.gone.len() > 6);
        for number in 0..GONE_MAX {
            past.deregistered(&format!("t{number}").into(), at(2));
        }
        assert!(past.id_bytes <= ID_BYTES_MAX);
        past.deregistered(&"last".into(), at(700_000));
        for _ in 0..GONE_MAX {
            past.deregistered(&"last".into(), at(700_000));
        }
        assert_eq!((past.gone.len(), past.id_bytes), (1, 4), "what is over goes");
    }
}
