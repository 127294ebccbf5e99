//! A move to the other store, played step by step: see `host/src/server/swap`. That a store is abandoned is not played.

use registry_plugin_api::Group;

use super::{Around, Killed, Life};
use crate::adapter::Mark;
use crate::history::{End, What};
use crate::store::Answer;

/// As in `server/swap`.
const LEFT_MAX: usize = 500;
const HOLD_MS: u64 = 200;
const TRIES_MAX: u32 = 10;
const LEAVE_MAX_MS: u64 = 5000;
const OPEN_MAX_MS: u64 = 60_000;
const UNMARK_MAX_MS: u64 = 2000;
/// As in `server/retry.rs`.
const PAUSES_MS: (u64, u64) = (200, 5000);

/// What an operator asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// How long the other store takes to open.
    pub(crate) opens_ms: u64,
    /// If the host dies meanwhile, the operator names the other store first.
    pub(crate) names_other: bool,
    /// It dies in this step of the move, after so many steps of its own, and so much of the group under way lands (of 255).
    pub(crate) dies: Option<(&'static str, u32, u8)>,
}

/// In which steps of a move a host may die.
pub(crate) const STEPS: [&str; 8] =
    ["opening", "filling", "held", "ready", "closing", "taking back", "unmarking", "promoting"];

/// A move that is under way.
pub(super) struct Swap {
    wish: Wish,
    step: Step,
    began_ms: u64,
    held_since_ms: Option<u64>,
    tries: u32,
    /// The other store was in charge once, or as good as, and has not been told otherwise yet.
    is_older: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// For the other store, which is being closed.
    Waiting,
    /// It is open then.
    Opening(u64),
    /// And whether the new store has a part, which it has not answered yet.
    Filling(bool),
    Held(bool),
    Ready,
    Closing,
    TakingBack(Retry),
    Unmarking(Unmarking),
    Promoting,
}

#[derive(Clone, Copy, Debug)]
struct Unmarking {
    is_owed: bool,
    since_ms: u64,
    has_failed: bool,
    retry: Retry,
}

/// When to try again: `None` while an answer is awaited.
#[derive(Clone, Copy, Debug, Default)]
struct Retry {
    at_ms: Option<u64>,
    pause_ms: u64,
}

impl Retry {
    fn failed(&mut self, now_ms: u64) {
        self.pause_ms = (self.pause_ms * 2).clamp(PAUSES_MS.0, PAUSES_MS.1);
        self.at_ms = Some(now_ms + self.pause_ms);
    }

    fn is_due(&mut self, now_ms: u64) -> bool {
        self.at_ms.take_if(|at_ms| *at_ms <= now_ms).is_some()
    }
}

/// The other store, which is being closed.
pub(super) struct Leaving {
    owed: u32,
    last: Option<Group>,
}

impl Swap {
    /// Whether the next answer of the store in charge is of this move.
    fn awaits_store(&self) -> bool {
        match self.step {
            Step::Closing | Step::Promoting => true,
            Step::TakingBack(retry) => retry.at_ms.is_none(),
            _ => false,
        }
    }

    /// Whether the host dies with another store that nobody has a reason to leave alone.
    pub(super) fn leaves_other(&self) -> bool {
        !self.is_older && !matches!(self.step, Step::Waiting | Step::Opening(_) | Step::Promoting)
    }

    /// Whether the operator names the other store after that.
    pub(super) fn names_other(&self) -> bool {
        self.wish.names_other && self.leaves_other()
    }

    /// One of [`STEPS`].
    pub(super) fn step_name(&self) -> &'static str {
        STEPS[match self.step {
            Step::Waiting | Step::Opening(_) => 0,
            Step::Filling(_) => 1,
            Step::Held(_) => 2,
            Step::Ready => 3,
            Step::Closing => 4,
            Step::TakingBack(_) => 5,
            Step::Unmarking(_) => 6,
            Step::Promoting => 7,
        }]
    }
}

impl Life {
    pub(super) fn begin_swap(&mut self, wish: Wish, now_ms: u64) {
        if self.swap.is_none() && self.stopping.is_none() && !self.is_to_stop {
            let step = Step::Waiting;
            self.swap = Some(Swap { wish, step, began_ms: now_ms, held_since_ms: None, tries: 0, is_older: false });
            self.wake_at_ms = self.wake_at_ms.min(now_ms);
        }
    }

    pub(super) fn store_is_asked(&self) -> bool {
        self.swap.as_ref().is_some_and(Swap::awaits_store)
    }

    /// When the other store is open: nothing else wakes the loop then.
    pub(super) fn opens_at_ms(&self) -> Option<u64> {
        match self.swap.as_ref()?.step {
            Step::Opening(at_ms) => Some(at_ms),
            _ => None,
        }
    }

    fn set_step(&mut self, step: Step) {
        let Some(swap) = &mut self.swap else { return };
        swap.step = step;
        let name = swap.step_name();
        if let Some((_, steps, part)) = swap.wish.dies.take_if(|(dies_in, ..)| *dies_in == name) {
            self.dies.get_or_insert((steps, part));
        }
    }

    fn other(&self) -> usize {
        1 - self.in_charge
    }

    fn tell(&mut self, store: usize, group: Group, number: usize, around: &mut Around<'_>) {
        around.stores[store].commit(number, group, around.now_ms, around.reached);
    }

    /// The store that is not in charge has answered: a move, or that it will not be in charge.
    pub(super) fn other_answered(&mut self, answer: &Answer, number: usize, around: &mut Around<'_>) {
        around.history.push(around.now_ms, What::Note(format!("store {}: {}", answer.store, answer.text)));
        if let Some(leaving) = &mut self.leaving {
            leaving.owed = leaving.owed.saturating_sub(1);
            return self.go_on_leaving(number, around);
        }
        let Some(step) = self.swap.as_ref().map(|swap| swap.step) else { return };
        let has_failed = matches!(answer.end, End::Failed | End::Refused);
        let now_ms = around.now_ms;
        if let Some(swap) = self.swap.as_mut().filter(|_| !has_failed) {
            swap.is_older = false;
        }
        match (step, has_failed) {
            (Step::Filling(_) | Step::Held(_), true) => {
                self.set_step(Step::Filling(false));
                self.give_up_swap(number, around);
            }
            (Step::Filling(_), false) => self.set_step(Step::Filling(false)),
            (Step::Held(_), false) => self.set_step(Step::Held(false)),
            (Step::Ready, true) => {
                self.tell(self.other(), self.core.copied(Mark::Filling, Vec::new()), number, around);
                let retry = Retry::default();
                let unmarking = Unmarking { is_owed: false, since_ms: now_ms, has_failed, retry };
                self.set_step(Step::Unmarking(unmarking));
            }
            (Step::Ready, false) => {
                self.tell(self.in_charge, self.core.closing(), number, around);
                self.set_step(Step::Closing);
            }
            (Step::Unmarking(unmarking), false) if unmarking.is_owed => {
                self.tell(self.other(), self.core.copied(Mark::Filling, Vec::new()), number, around);
                self.set_step(Step::Unmarking(Unmarking { is_owed: false, ..unmarking }));
            }
            (Step::Unmarking(mut unmarking), true) => {
                unmarking.is_owed = false;
                unmarking.retry.failed(now_ms);
                self.set_step(Step::Unmarking(unmarking));
            }
            (Step::Unmarking(unmarking), false) => {
                around.reached.note("move: the new store is unmarked");
                self.let_changes_go(number, around);
                self.set_step(Step::Filling(false));
                if unmarking.has_failed {
                    self.give_up_swap(number, around);
                }
            }
            _ => {}
        }
    }

    /// The store in charge has answered what this move asked of it.
    pub(super) fn store_moved(&mut self, answer: Answer, number: usize, around: &mut Around<'_>) {
        let Answer { host, sent_at_ms, end, text, .. } = answer;
        let Some(step) = self.swap.as_ref().map(|swap| swap.step) else { return };
        let has_failed = matches!(end, End::Failed | End::Refused);
        if has_failed || matches!(step, Step::Promoting) {
            around.history.push(around.now_ms, What::Committed { host, sent_at_ms, end, text });
        } else {
            // What was in doubt before is not put right by it.
            around.history.push(around.now_ms, What::Note(format!("store {}: {text}", self.in_charge)));
        }
        match (step, has_failed) {
            (Step::Closing, false) => {
                self.in_charge = self.other();
                around.history.push(around.now_ms, What::Moved { host, store: self.in_charge });
                self.core.move_to(around.settings.keeps_history);
                self.storage_fails = false;
                self.tell(self.in_charge, self.core.in_charge(), number, around);
                self.set_step(Step::Promoting);
            }
            (Step::Closing, true) => {
                around.reached.note("move: the store in charge is told that it is");
                self.tell(self.in_charge, self.core.in_charge(), number, around);
                self.set_step(Step::TakingBack(Retry::default()));
            }
            (Step::TakingBack(_), false) => {
                self.storage_fails = false;
                self.tell(self.other(), self.core.copied(Mark::Filling, Vec::new()), number, around);
                let (since_ms, retry) = (around.now_ms, Retry::default());
                self.set_step(Step::Unmarking(Unmarking { is_owed: false, since_ms, has_failed: true, retry }));
            }
            (Step::TakingBack(mut retry), true) => {
                self.storage_fails = true;
                retry.failed(around.now_ms);
                self.set_step(Step::TakingBack(retry));
            }
            (Step::Promoting, _) => {
                self.storage_fails = has_failed;
                around.reached.note(if has_failed { "move: done, in trouble" } else { "move: done" });
                self.let_changes_go(number, around);
                self.core.end_copy();
                self.swap = None;
            }
            _ => {}
        }
    }

    /// Does for the move what can be done now.
    pub(super) fn go_on_swapping(&mut self, number: usize, around: &mut Around<'_>) -> Result<(), Killed> {
        let now_ms = around.now_ms;
        while let Some(Swap { wish, step, began_ms, held_since_ms, .. }) = self.swap {
            self.step()?;
            let is_late = held_since_ms.is_some_and(|since_ms| now_ms - since_ms >= HOLD_MS);
            match step {
                Step::Waiting if self.leaving.is_none() => self.set_step(Step::Opening(now_ms + wish.opens_ms)),
                // It is still open.
                Step::Waiting if now_ms - began_ms > LEAVE_MAX_MS => self.give_up_swap(number, around),
                Step::Opening(at_ms) if at_ms <= now_ms => {
                    let kept = &around.stores[self.other()].kept;
                    let is_there = around.stores[self.other()].is_there(now_ms);
                    if !is_there || !kept.is_fillable() || now_ms - began_ms > OPEN_MAX_MS {
                        self.give_up_swap(number, around);
                        continue;
                    }
                    self.core.begin_copy(kept);
                    if let Some(swap) = &mut self.swap {
                        swap.is_older = kept.is_in_charge() && !kept.is_new();
                    }
                    self.tell(self.other(), self.core.copied(Mark::Filling, Vec::new()), number, around);
                    self.set_step(Step::Filling(true));
                    break;
                }
                Step::Filling(false) if self.core.left_to_copy() <= LEFT_MAX => self.hold_for_swap(number, around),
                Step::Held(false) if self.core.is_settled() => {
                    let part = self.core.next_copy();
                    let (mark, next) = match part {
                        Some(_) => (Mark::Filling, Step::Held(true)),
                        None => (Mark::Ready, Step::Ready),
                    };
                    self.tell(self.other(), self.core.copied(mark, part.unwrap_or_default()), number, around);
                    self.set_step(next);
                    break;
                }
                Step::Held(is_busy) if is_late => {
                    around.reached.note("move: changes are let go");
                    self.let_changes_go(number, around);
                    self.set_step(Step::Filling(is_busy));
                    break;
                }
                Step::Ready if is_late => {
                    let (since_ms, retry) = (now_ms, Retry::default());
                    let unmarking = Unmarking { is_owed: true, since_ms, has_failed: false, retry };
                    self.set_step(Step::Unmarking(unmarking));
                    break;
                }
                Step::TakingBack(mut retry) => {
                    if retry.is_due(now_ms) {
                        self.tell(self.in_charge, self.core.in_charge(), number, around);
                    }
                    self.set_step(Step::TakingBack(retry));
                    break;
                }
                Step::Unmarking(Unmarking { since_ms, .. }) if now_ms - since_ms >= UNMARK_MAX_MS => {
                    around.reached.note("move: the new store may still be marked");
                    self.give_up_swap(number, around);
                }
                Step::Unmarking(mut unmarking) => {
                    if unmarking.retry.is_due(now_ms) {
                        self.tell(self.other(), self.core.copied(Mark::Filling, Vec::new()), number, around);
                    }
                    self.set_step(Step::Unmarking(unmarking));
                    break;
                }
                Step::Filling(false) => {
                    let part = self.core.next_copy().unwrap_or_default();
                    self.tell(self.other(), self.core.copied(Mark::Filling, part), number, around);
                    self.set_step(Step::Filling(true));
                    break;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// Holds changes, unless it is of no use.
    fn hold_for_swap(&mut self, number: usize, around: &mut Around<'_>) {
        let Some(swap) = &mut self.swap else { return };
        swap.tries += 1;
        if self.storage_fails || swap.tries > TRIES_MAX {
            return self.give_up_swap(number, around);
        }
        swap.held_since_ms = Some(around.now_ms);
        self.set_step(Step::Held(false));
        self.core.hold_changes(true);
    }

    fn let_changes_go(&mut self, number: usize, around: &mut Around<'_>) {
        self.core.hold_changes(false);
        self.note_held(number, around);
    }

    /// Changes waited until now, if they did.
    pub(super) fn note_held(&mut self, number: usize, around: &mut Around<'_>) {
        if let Some(since_ms) = self.swap.as_mut().and_then(|swap| swap.held_since_ms.take()) {
            let text = "changes waited for a move".into();
            around.history.push(around.now_ms, What::Trouble { host: number, since_ms, text });
        }
    }

    fn give_up_swap(&mut self, number: usize, around: &mut Around<'_>) {
        around.reached.note("move: given up");
        self.abandon_swap(number, around);
        self.core.hold_changes(false);
        self.core.end_copy();
    }

    /// Has the other store say that it will not be in charge, if it may look as if it were.
    pub(super) fn abandon_swap(&mut self, number: usize, around: &mut Around<'_>) {
        self.note_held(number, around);
        let Some(swap) = self.swap.take() else { return };
        around.history.push(around.now_ms, What::Note(format!("the move is given up while {}", swap.step_name())));
        let (owed, is_told) = match swap.step {
            Step::Filling(owes) | Step::Held(owes) => (owes, false),
            Step::Ready => (true, false),
            Step::Unmarking(Unmarking { is_owed, retry, .. }) => {
                let is_told = !is_owed && retry.at_ms.is_none();
                (is_owed || is_told, is_told)
            }
            Step::TakingBack(_) => {
                self.is_unsure = true;
                return;
            }
            _ => return,
        };
        let last = (!is_told).then(|| self.core.copied(Mark::Filling, Vec::new()));
        self.leaving = Some(Leaving { owed: owed.into(), last });
        self.go_on_leaving(number, around);
    }

    fn go_on_leaving(&mut self, number: usize, around: &mut Around<'_>) {
        let Some(leaving) = self.leaving.as_mut().filter(|leaving| leaving.owed == 0) else { return };
        match leaving.last.take() {
            Some(group) => {
                leaving.owed = 1;
                self.tell(self.other(), group, number, around);
            }
            None => self.leaving = None,
        }
    }

    /// The host is about to stop: what can be given up is, and what cannot is waited for.
    pub(super) fn stop_swapping(&mut self, number: usize, around: &mut Around<'_>) {
        match self.swap.as_ref().map(|swap| swap.step) {
            _ if self.store_is_asked() => {}
            Some(Step::TakingBack(retry)) => {
                self.tell(self.in_charge, self.core.in_charge(), number, around);
                self.set_step(Step::TakingBack(Retry { at_ms: None, ..retry }));
            }
            _ => self.abandon_swap(number, around),
        }
        self.core.hold_changes(self.store_is_asked());
    }
}
