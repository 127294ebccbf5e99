//! The model of a store, which fails in every way that a store may. It stands apart from the hosts: whoever has a
//! call under way is told by its number.

use std::collections::VecDeque;

use registry_plugin_api::{Error, Group, Outcome};

use crate::adapter::{Kept, describe, failed, has_writes, is_put, refused};
use crate::history::End;
use crate::plan::{Fate, Fault};
use crate::reached::Reached;

/// A group that a host has sent and that the store has not yet answered.
struct Call {
    host: usize,
    group: Group,
    sent_at_ms: u64,
    due_at_ms: u64,
    fate: Fate,
}

/// What a host gets to know of its group.
pub(crate) struct Answer {
    pub(crate) host: usize,
    pub(crate) store: usize,
    pub(crate) sent_at_ms: u64,
    pub(crate) result: Result<Vec<Outcome>, Error>,
    pub(crate) end: End,
    /// For readers.
    pub(crate) text: String,
}

pub(crate) struct Store {
    number: usize,
    pub(crate) kept: Kept,
    calls: Vec<Call>,
    /// What happens to the next groups.
    faults: VecDeque<Fault>,
    latency_ms: u64,
    call_timeout_ms: u64,
    /// It makes all of a group or nothing, as one has to that keeps history.
    is_atomic: bool,
    away_until_ms: u64,
    full_until_ms: u64,
}

impl Store {
    pub(crate) fn new(number: usize, latency_ms: u64, call_timeout_ms: u64, is_atomic: bool) -> Store {
        Store {
            number,
            // No two stores begin the same epoch.
            kept: Kept::new(number as u64 * 1000),
            calls: Vec::new(),
            faults: VecDeque::new(),
            latency_ms,
            call_timeout_ms,
            is_atomic,
            away_until_ms: 0,
            full_until_ms: 0,
        }
    }

    /// Something is going to go wrong, or goes wrong from now on.
    pub(crate) fn fail(&mut self, fault: Fault, now_ms: u64) {
        match fault {
            Fault::Away { ms } => self.away_until_ms = now_ms + ms,
            Fault::Full { ms } => self.full_until_ms = now_ms + ms,
            Fault::Next { .. } => self.faults.push_back(fault),
        }
    }

    /// All is well from now on.
    pub(crate) fn heal(&mut self) {
        self.faults.clear();
        (self.away_until_ms, self.full_until_ms) = (0, 0);
    }

    /// Whether it can be opened.
    pub(crate) fn is_there(&self, now_ms: u64) -> bool {
        self.away_until_ms <= now_ms
    }

    /// A host sends a group.
    pub(crate) fn commit(&mut self, host: usize, group: Group, now_ms: u64, reached: &mut Reached) {
        let mut delay_ms = self.latency_ms;
        let mut fate = Fate::Done;
        let place = self.faults.iter().position(|fault| match fault {
            // A group with nothing but a position is of a move, mostly.
            Fault::Next { any, .. } => *any || has_writes(&group) || group.changes.is_empty(),
            _ => false,
        });
        if let Some(Fault::Next { delay_ms: more_ms, fate: next, .. }) = place.and_then(|at| self.faults.remove(at)) {
            delay_ms += more_ms;
            fate = next;
        }
        if !self.is_there(now_ms) {
            reached.note("store: away for a while");
            fate = Fate::Nothing;
        } else if delay_ms >= self.call_timeout_ms {
            // The lane gives the call up, and whatever has been stored by then is stored.
            delay_ms = self.call_timeout_ms;
            reached.note("store: hung until given up");
            fate = match fate {
                Fate::Part(part) => Fate::Part(part),
                Fate::Nothing => Fate::Nothing,
                _ => Fate::LostReply,
            };
        }
        let due_at_ms = now_ms + delay_ms.max(1);
        self.calls.push(Call { host, group, sent_at_ms: now_ms, due_at_ms, fate });
    }

    /// When it has something to say next.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        self.calls.iter().map(|call| call.due_at_ms).min()
    }

    /// The answers that are due.
    pub(crate) fn answers(&mut self, now_ms: u64, reply_timeout_ms: u64, reached: &mut Reached) -> Vec<Answer> {
        let (due, rest) = std::mem::take(&mut self.calls).into_iter().partition(|call| call.due_at_ms <= now_ms);
        self.calls = rest;
        let due: Vec<Call> = due;
        due.into_iter().map(|call| self.answer(call, now_ms, reply_timeout_ms, reached)).collect()
    }

    /// A host is gone with its call under way: the first part of the group is stored, from nothing (0) to all (255).
    pub(crate) fn abandon(&mut self, host: usize, part: u8, reached: &mut Reached) -> Option<(u64, String)> {
        let at = self.calls.iter().position(|call| call.host == host)?;
        let Call { group, sent_at_ms, .. } = self.calls.remove(at);
        let (count, is_whole) = self.part_of(group.changes.len(), part);
        self.store(&group, count, is_whole, |_| false);
        reached.note(match count {
            _ if is_whole => "kill: a whole group landed",
            0 => "kill: nothing of a group landed",
            _ => "kill: part of a group landed",
        });
        let stored = if is_whole { "all".into() } else { format!("the first {count}") };
        Some((sent_at_ms, format!("{} - stored {stored}", describe(&group))))
    }

    /// A record is lost.
    pub(crate) fn lose(&mut self, id: &str) -> bool {
        self.kept.records.remove(id).is_some()
    }

    fn answer(&mut self, call: Call, now_ms: u64, reply_timeout_ms: u64, reached: &mut Reached) -> Answer {
        let Call { host, group, sent_at_ms, due_at_ms: _, fate } = call;
        let all = group.changes.len();
        let is_full = self.full_until_ms > now_ms;
        let waited_ms = now_ms - sent_at_ms;
        let mut how = String::new();
        let result = match fate {
            Fate::Done | Fate::Refuse(_) => {
                let mask = if let Fate::Refuse(mask) = fate { mask } else { 0 };
                let outcomes = self
                    .store(&group, all, true, |(place, is_put)| (is_full && is_put) || mask & (1 << (place % 32)) != 0);
                let count = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Refused(_))).count();
                if count > 0 {
                    reached.note(if is_full { "store: full" } else { "store: refused single changes" });
                    how = format!("refused {count} of them");
                }
                if outcomes.contains(&Outcome::Missing) {
                    reached.note("store: missed a record");
                    how += " missed some";
                }
                if waited_ms >= reply_timeout_ms {
                    reached.note("store: late");
                } else if waited_ms > self.latency_ms {
                    reached.note("store: slow");
                }
                Ok(outcomes)
            }
            Fate::Miscount => {
                self.store(&group, all, true, |_| false);
                reached.note("store: wrong number of outcomes");
                how = "stored all, told nonsense".into();
                Ok(Vec::new())
            }
            Fate::LostReply => {
                self.store(&group, all, true, |_| false);
                reached.note("store: lost a reply");
                how = "stored all, the reply is lost".into();
                Err(failed("the reply is lost"))
            }
            Fate::Part(part) => {
                let (count, is_whole) = self.part_of(all, part);
                self.store(&group, count, is_whole, |_| false);
                reached.note(if count > 0 && count < all {
                    "store: first part"
                } else {
                    "store: all or nothing of a part"
                });
                how = format!("stored the first {count}, then failed");
                Err(failed("it broke off"))
            }
            Fate::Nothing => {
                reached.note("store: refused all");
                how = "failed, nothing is stored".into();
                Err(failed("nothing can be stored"))
            }
        };
        let end = match &result {
            Ok(outcomes) if outcomes.len() != all => End::Failed,
            Ok(outcomes) if outcomes.iter().all(|outcome| *outcome == Outcome::Done) => End::Clean,
            Ok(outcomes) if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(_))) => End::Refused,
            Ok(_) => End::Mixed,
            Err(_) => End::Failed,
        };
        let how = if how.is_empty() { String::new() } else { format!(" - {how}") };
        let text = format!("{} (after {waited_ms} ms){how}", describe(&group));
        Answer { host, store: self.number, sent_at_ms, result, end, text }
    }

    /// Does the first `count` changes of a group, or the whole of it, but for those that are refused.
    fn store(
        &mut self,
        group: &Group,
        count: usize,
        is_whole: bool,
        refuses: impl Fn((usize, bool)) -> bool,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for (place, change) in group.changes[..count].iter().enumerate() {
            outcomes.push(if refuses((place, is_put(change))) { refused() } else { self.kept.apply(change) });
        }
        if is_whole {
            self.kept.finish(group);
        }
        outcomes
    }

    /// How many changes of a group are in its first part (of 255), and whether that is the whole group.
    fn part_of(&self, all: usize, part: u8) -> (usize, bool) {
        let count = (all * usize::from(part) + 127) / 255;
        let is_whole = if all == 0 { part >= 128 } else { count == all };
        (if self.is_atomic && !is_whole { 0 } else { count }, is_whole)
    }
}
