//! The steps of a move: what has happened, and what can be done now.

use std::time::Instant;

use registry_plugin_api::{Error, Group, Outcome};

use super::{
    ABANDON, Kept, LEAVE_MAX, LEFT_MAX, Moved, OPEN_MAX, Step, TRIES_MAX, UNMARK_MAX, Unmarking, group, problem,
};
use crate::fronts::Front;
use crate::server::Server;
use crate::server::retry::Retry;
use crate::store::mark::Mark;
use crate::store::{Answer, Contents};

impl<F: Front> Server<F> {
    /// Something has happened to the move that is under way.
    pub(in crate::server) fn moved(&mut self, moved: Moved) {
        let Some(swap) = &mut self.swap else { return };
        let step = std::mem::replace(&mut swap.step, Step::Over);
        match (step, moved) {
            (_, Moved::Loaded(Err(error))) => self.give_up_swap(error),
            (_, Moved::Loaded(Ok((store, target)))) => swap.step = Step::Reading(store, target),
            (Step::Reading(store, target), Moved::Answered(Answer::Opened(Ok(contents)))) => {
                tracing::info!("moving to the storage {}: it is being filled", target.described);
                let Contents { records, damaged, .. } = contents;
                let there = records.into_iter().map(|record| record.id).chain(damaged);
                self.registry.begin_copy(there);
                // Before there is anything in it: a store that is new and makes a first part of a group only has no mark then,
                // and looks whole.
                store.commit(self.filling());
                self.set_step(Step::Filling(store, target, true));
            }
            (_, Moved::Answered(Answer::Opened(Err(error)) | Answer::Closed(Err(error)))) => {
                self.give_up_swap(error.to_string());
            }
            (_, Moved::Answered(Answer::Closed(Ok(())))) => self.give_up_swap("it ended by itself".into()),
            (step, Moved::Answered(Answer::Committed(result))) => self.new_store_moved(step, problem(result)),
            (step, Moved::Answered(_)) => swap.step = step,
        }
    }

    /// The new store has answered a group.
    fn new_store_moved(&mut self, step: Step, failed: Option<String>) {
        match (step, failed) {
            (Step::Filling(store, target, _) | Step::Held(store, target, _), Some(error)) => {
                self.set_step(Step::Filling(store, target, false));
                self.give_up_swap(error);
            }
            (Step::Filling(store, target, _), None) => self.set_step(Step::Filling(store, target, false)),
            (Step::Held(store, target, _), None) => self.set_step(Step::Held(store, target, false)),
            (Step::Ready(store, target), Some(error)) => {
                // It may be marked all the same.
                store.commit(self.filling());
                let (is_owed, since, error) = (false, Instant::now(), Some(error));
                let retry = Retry::default();
                self.set_step(Step::Unmarking(Unmarking { store, target, is_owed, since, error, retry }));
            }
            (Step::Ready(store, target), None) if self.ignored > 0 => {
                // The old one has still to answer, and is not waited for.
                self.leave(store, target, (false, 0));
            }
            (Step::Ready(store, target), None) => {
                let mark = Mark::Closed(target.plugin.clone());
                self.store.commit(Group::new(mark.at(self.registry.issued()), Vec::new()));
                self.set_step(Step::Closing(store, target, Instant::now()));
            }
            (Step::Unmarking(mut unmarking), None) if unmarking.is_owed => {
                unmarking.store.commit(self.filling());
                unmarking.is_owed = false;
                self.set_step(Step::Unmarking(unmarking));
            }
            (Step::Unmarking(mut unmarking), Some(_)) => {
                unmarking.is_owed = false;
                unmarking.retry.failed();
                self.set_step(Step::Unmarking(unmarking));
            }
            (Step::Unmarking(Unmarking { store, target, error, .. }), None) => {
                self.let_changes_go();
                self.set_step(Step::Filling(store, target, false));
                error.into_iter().for_each(|error| self.give_up_swap(error));
            }
            (step, _) => self.set_step(step),
        }
    }

    /// The store in charge has answered what this move asked of it.
    pub(in crate::server) fn store_moved(&mut self, result: registry_plugin_api::Result<Vec<Outcome>>) {
        let Some(swap) = &mut self.swap else { return };
        match (std::mem::replace(&mut swap.step, Step::Over), problem(result)) {
            (Step::Closing(store, target, _), None) => self.leave(store, target, (true, 0)),
            (Step::Closing(store, target, _), Some(_)) if swap.terms.is_abandoning => {
                self.leave(store, target, (false, 0));
            }
            (Step::Closing(store, target, _), Some(error)) => {
                // It may be closed all the same.
                let error = format!("the storage in charge could not be closed: {error}");
                let retry = Retry::default();
                swap.step = Step::TakingBack(Kept { store, target, error, retry });
                self.store.commit(Group::new(self.position(), Vec::new()));
            }
            (Step::TakingBack(Kept { store, target, error, .. }), None) => {
                self.note_storage(None);
                store.commit(self.filling());
                let (is_owed, since, error) = (false, Instant::now(), Some(error));
                let retry = Retry::default();
                self.set_step(Step::Unmarking(Unmarking { store, target, is_owed, since, error, retry }));
            }
            (Step::TakingBack(mut kept), Some(error)) => {
                if kept.retry.failed() {
                    let asking = std::mem::take(&mut swap.asking);
                    let told = format!("{}, and changes are refused until it works again; {ABANDON}", kept.error);
                    tracing::error!("{told}");
                    self.refuse_swap(asking, &told);
                }
                self.note_storage(Some(&Error::unavailable(error)));
                self.set_step(Step::TakingBack(kept));
            }
            (Step::Promoting(target, is_closed), failed) => {
                // If that has failed, the next change makes up for it.
                self.note_storage(failed.map(Error::unavailable).as_ref());
                self.end_swap(&target, is_closed);
            }
            (step, _) => swap.step = step,
        }
    }

    /// Does for the move what can be done now.
    pub(in crate::server) fn go_on_swapping(&mut self) {
        let Some(swap) = &mut self.swap else { return };
        if matches!(swap.step, Step::Opening(_) | Step::Reading(..)) && swap.began.elapsed() > OPEN_MAX {
            return self.give_up_swap(format!("it is not open within {} s", OPEN_MAX.as_secs()));
        }
        let (is_late, terms) = (swap.is_late(), swap.terms);
        match std::mem::replace(&mut swap.step, Step::Over) {
            Step::Waiting(to) if self.leaving.is_empty() || swap.began.elapsed() > LEAVE_MAX => {
                swap.step = Step::Opening(to.open());
            }
            Step::Filling(store, target, false) if self.registry.left_to_copy() <= LEFT_MAX => {
                swap.step = Step::Filling(store, target, false);
                self.hold_for_swap();
            }
            Step::Held(store, target, false) if self.registry.is_settled() => {
                let part = self.registry.next_copy();
                let is_ready = part.is_none();
                let mark = Mark::of_copy(self.registry.plugin(), is_ready);
                store.commit(group(&mark, self.registry.issued(), part.unwrap_or_default()));
                self.set_step(if is_ready { Step::Ready(store, target) } else { Step::Held(store, target, true) });
            }
            Step::Held(store, target, false) if is_late && terms.is_abandoning => {
                self.set_step(Step::Held(store, target, false));
                self.ignore_store();
                self.go_on_swapping();
            }
            Step::Held(store, target, is_busy) if is_late => {
                self.let_changes_go();
                self.set_step(Step::Filling(store, target, is_busy));
            }
            Step::Ready(store, target) if is_late => {
                let (is_owed, since, retry) = (true, Instant::now(), Retry::default());
                self.set_step(Step::Unmarking(Unmarking { store, target, is_owed, since, error: None, retry }));
            }
            Step::Closing(store, target, since) if terms.is_abandoning && since.elapsed() >= terms.hold => {
                self.leave(store, target, (false, 1));
            }
            Step::TakingBack(mut kept) => {
                if kept.retry.is_due() {
                    self.store.commit(Group::new(self.position(), Vec::new()));
                }
                self.set_step(Step::TakingBack(kept));
            }
            Step::Unmarking(mut unmarking) => {
                if unmarking.since.elapsed() >= UNMARK_MAX {
                    tracing::error!(
                        "the storage {} does not say whether it is marked as taking over: no registry may be started on \
                         it before this one has moved there",
                        unmarking.target.described
                    );
                    let error = unmarking.error.clone().unwrap_or_else(|| "it takes too long to answer".into());
                    self.set_step(Step::Unmarking(unmarking));
                    return self.give_up_swap(error);
                }
                if unmarking.retry.is_due() {
                    unmarking.store.commit(self.filling());
                }
                self.set_step(Step::Unmarking(unmarking));
            }
            Step::Filling(store, target, false) => {
                let part = self.registry.next_copy().unwrap_or_default();
                store.commit(group(&Mark::of_copy(self.registry.plugin(), false), self.registry.issued(), part));
                self.set_step(Step::Filling(store, target, true));
            }
            step => self.set_step(step),
        }
    }

    /// Holds changes, unless it is of no use.
    fn hold_for_swap(&mut self) {
        let Some(swap) = &mut self.swap else { return };
        if self.storage_fails && !swap.terms.is_abandoning {
            return self.give_up_swap(format!("the storage in charge fails, so that it cannot be closed: {ABANDON}"));
        }
        swap.tries += 1;
        if swap.tries > TRIES_MAX {
            let error = "one of both storages takes too long to answer, or has too much to do: --hold has changes wait for \
                         longer";
            return self.give_up_swap(error.into());
        }
        swap.held = Some(Instant::now());
        let step = std::mem::replace(&mut swap.step, Step::Over);
        if let Step::Filling(store, target, is_busy) = step {
            swap.step = Step::Held(store, target, is_busy);
        }
        self.registry.hold_changes(true);
        self.go_on_swapping();
    }

    /// The store in charge does not answer, and nobody waits for it any more: what it had is taken as failed.
    fn ignore_store(&mut self) {
        self.ignored += 1;
        let now = self.read_clock();
        let error = Error::unavailable("it does not answer, and is being left");
        self.registry.committed(Err(error), now, &mut self.out);
    }

    /// Tells the store in charge once more that it is, if a move is to be taken back: the registry stops. Whether it has
    /// to be waited for.
    pub(in crate::server) fn hurry_swap_back(&mut self) -> bool {
        let Some(Step::TakingBack(kept)) = self.swap.as_mut().map(|swap| &mut swap.step) else { return false };
        if kept.retry.hurry() {
            self.store.commit(Group::new(self.position(), Vec::new()));
        }
        true
    }
}
