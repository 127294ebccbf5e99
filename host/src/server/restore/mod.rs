//! Restoring a backup while clients are served: reads and heartbeats go on, changes wait or are refused.
//!
//! The backup comes in [parts](upload), each checked when it comes; nothing is changed before all are there. Then changes
//! are held, and the store is written, as the [journal](crate::store::restoring) says: until the one write that decides,
//! everything can be taken back, and is if anything fails; from then on the rest is written however often that takes, by
//! this host or by the next. In the end the core takes over the services in one turn, and a new epoch begins.

pub(crate) mod upload;

use std::time::{Duration, Instant};

use registry_plugin_api::{Group, Outcome};

use super::Server;
use super::retry::Retry;
use super::starting::Loading;
use crate::fronts::Front;
use crate::protocol::reply::{Code, Reply};
use crate::protocol::restore::Restore;
use crate::registry::Now;
use crate::security::origin::Origin;
use crate::store::restoring::Journal;
use crate::text::counted;
pub(super) use upload::Upload;

/// How long the store may take to answer what it has before.
const SETTLE_MAX: Duration = Duration::from_secs(10);
const FAILED: &str = "The backup has not been restored";

/// A backup that is being restored.
pub(super) struct Restoring<C> {
    step: Step<C>,
    asking: Option<C>,
    by: Origin,
    began: Instant,
    retry: Retry,
    /// Why it is taken back.
    error: Option<String>,
}

enum Step<C> {
    /// The store has a group of changes.
    Settling(Upload),
    Writing(Journal),
    /// The store is to be told that nothing is restored.
    TakingBack(Journal),
    Loading(Box<Loading<C>>),
    Over,
}

impl<C> Restoring<C> {
    /// Whether the next outcome of the store in charge is of this restore.
    pub(super) fn awaits_store(&self) -> bool {
        matches!(self.step, Step::Writing(_) | Step::TakingBack(_)) && self.retry.is_asked()
    }

    /// Whether there is something to do at once.
    pub(super) fn is_loading(&self) -> bool {
        matches!(self.step, Step::Loading(_))
    }
}

impl<F: Front> Server<F> {
    /// A client who may has asked for a step of a restore.
    pub(super) fn restore(&mut self, caller: F::Caller, by: Origin, step: Restore) {
        let reply = match step {
            Restore::Part { upload, part, services } => {
                let max = self.registry.bytes_max();
                Upload::take(&mut self.upload, (upload, by.holder()), part, services, max)
            }
            Restore::End { .. } if self.swap.is_some() => refusal("the registry is moving to another storage"),
            Restore::End { .. } if self.restoring.is_some() => refusal("another backup is being restored"),
            Restore::End { upload, total, replaces } => {
                let there = self.registry.len();
                match Upload::end(&mut self.upload, (&upload, by.holder()), total, there, replaces) {
                    Ok(whole) => {
                        self.registry.hold_changes(true);
                        let (step, began, retry) = (Step::Settling(whole), Instant::now(), Retry::default());
                        self.restoring = Some(Restoring { step, asking: Some(caller), by, began, retry, error: None });
                        return;
                    }
                    Err(refusal) => refusal,
                }
            }
        };
        self.front.reply(caller, reply);
    }

    /// Does for the restore what can be done now.
    pub(super) fn go_on_restoring(&mut self, now: Now) {
        Upload::drop_overdue(&mut self.upload);
        let Some(restoring) = &mut self.restoring else { return };
        match std::mem::replace(&mut restoring.step, Step::Over) {
            Step::Settling(upload) if self.registry.is_settled() && self.ignored == 0 => {
                let records = upload.into_records();
                let services = counted(records.len(), "service", "services");
                tracing::info!("a backup with {services} is being restored; changes wait");
                let there = self.registry.stored_ids();
                let before = self.position();
                let mut journal = Journal::new(before, records, there.into_iter());
                journal.clear_too(std::mem::take(&mut self.left_staged));
                self.write_restored(journal);
            }
            Step::Settling(_) if restoring.began.elapsed() > SETTLE_MAX => {
                self.give_up_restoring("the storage does not answer");
            }
            Step::Writing(journal) => {
                let group = if restoring.retry.is_due() { journal.group() } else { None };
                restoring.step = Step::Writing(journal);
                group.into_iter().for_each(|group| self.store.commit(group));
            }
            Step::TakingBack(journal) => {
                let is_due = restoring.retry.is_due();
                restoring.step = Step::TakingBack(journal);
                if is_due {
                    self.store.commit(Group::new(self.position(), Vec::new()));
                }
            }
            Step::Loading(mut loading) => match loading.go_on(now) {
                false => restoring.step = Step::Loading(loading),
                true => self.end_restoring(*loading, now),
            },
            step => restoring.step = step,
        }
    }

    /// Writes the next group. Without one all is written.
    fn write_restored(&mut self, journal: Journal) {
        let group = journal.group();
        let Some(restoring) = &mut self.restoring else { return };
        restoring.retry = Retry::default();
        match group {
            Some(group) => {
                restoring.step = Step::Writing(journal);
                self.store.commit(group);
            }
            None => match restoring.error.take() {
                Some(error) => self.give_up_restoring(&error),
                None => {
                    let (position, records) = journal.into_restored();
                    restoring.step = Step::Loading(Box::new(Loading::of(records, self.registry.successor(position))));
                }
            },
        }
    }

    /// The store has answered what the restore asked of it.
    pub(super) fn restore_moved(&mut self, result: registry_plugin_api::Result<Vec<Outcome>>) {
        let Some(restoring) = &mut self.restoring else { return };
        match (std::mem::replace(&mut restoring.step, Step::Over), result) {
            (Step::Writing(journal), Err(error)) if journal.is_decided() => {
                restoring.step = Step::Writing(journal);
                if restoring.retry.failed() {
                    tracing::error!("the storage fails while a backup is restored: that goes on until it is done");
                }
                self.note_storage(Some(&error));
            }
            (Step::Writing(journal), Err(error)) if journal.is_deciding() => {
                // It may be decided all the same.
                restoring.error = Some(error.to_string());
                restoring.retry = Retry::default();
                restoring.step = Step::TakingBack(journal);
                self.store.commit(Group::new(self.position(), Vec::new()));
            }
            (Step::Writing(journal), Err(error)) => {
                let is_first = restoring.error.is_none();
                let error = restoring.error.get_or_insert_with(|| error.to_string()).clone();
                match is_first {
                    true => self.take_back(journal),
                    false => {
                        tracing::warn!(
                            "what there is of the backup in the storage cannot be removed: that is done with the next \
                             restore, or when the registry starts the next time"
                        );
                        self.left_staged = journal.into_staged();
                        self.give_up_restoring(&error);
                    }
                }
            }
            (Step::Writing(mut journal), Ok(outcomes)) => {
                let refused = journal.answered(&outcomes).err();
                let is_new = restoring.error.is_none();
                restoring.error = restoring.error.take().or(refused);
                let is_to_go = restoring.error.is_some() && !journal.is_decided() && !journal.is_taken_back();
                if !is_new && journal.is_decided() {
                    // It was to be given up, and is too far for that.
                    restoring.error = None;
                }
                self.note_storage(None);
                match is_to_go {
                    true => self.take_back(journal),
                    false => self.write_restored(journal),
                }
            }
            (Step::TakingBack(journal), Ok(_)) => {
                self.note_storage(None);
                self.take_back(journal);
            }
            (Step::TakingBack(journal), Err(error)) => {
                restoring.step = Step::TakingBack(journal);
                if restoring.retry.failed() {
                    tracing::error!(
                        "the storage fails while a backup is taken back: should the registry end before it works again, \
                         the next start shows whether the backup is restored"
                    );
                }
                self.note_storage(Some(&error));
            }
            (step, _) => restoring.step = step,
        }
    }

    fn take_back(&mut self, mut journal: Journal) {
        journal.take_back();
        self.write_restored(journal);
    }

    fn give_up_restoring(&mut self, error: &str) {
        let Some(restoring) = self.restoring.take() else { return };
        self.registry.hold_changes(false);
        self.metrics.restores[1].add(1);
        self.note_outcome("restore_failed");
        tracing::error!("the backup has not been restored, nothing has been changed: {error}");
        if let Some(caller) = restoring.asking {
            self.front.reply(caller, refusal(error));
        }
    }

    fn end_restoring(&mut self, loaded: Loading<F::Caller>, now: Now) {
        let Some(Restoring { asking, by, began, .. }) = self.restoring.take() else { return };
        self.registry.take_over(loaded.into_registry(), by, now, &mut self.out);
        self.registry.hold_changes(false);
        self.metrics.restores[0].add(1);
        self.note_outcome("restore_done");
        let (services, held_ms) = (self.registry.len(), began.elapsed().as_millis() as u64);
        let told = counted(services, "service", "services");
        tracing::info!("the backup is restored: {told}, in a new epoch; changes waited {held_ms} ms");
        self.tell_epoch("restore");
        if let Some(caller) = asking {
            let (epoch, revision) = self.registry.position();
            let reply = Reply::success().number("services", services as u64).text("epoch", epoch);
            self.front.reply(caller, reply.number("revision", revision).number("held_ms", held_ms));
        }
    }

    /// The registry stops: what can still be taken back is.
    pub(super) fn stop_restoring(&mut self) {
        let error = "the registry stops";
        let Some(restoring) = &mut self.restoring else { return };
        match &restoring.step {
            Step::Settling(_) => self.give_up_restoring(error),
            Step::Writing(journal) if !journal.is_decided() => drop(restoring.error.get_or_insert(error.into())),
            _ => {}
        }
    }

    /// The registry has stopped: whoever still waits is told what becomes of the restore.
    pub(super) fn leave_restoring(&mut self) {
        let Some(Restoring { asking: Some(caller), step, .. }) = self.restoring.take() else { return };
        let is_decided = match &step {
            Step::Writing(journal) => journal.is_decided(),
            Step::Loading(_) => true,
            _ => false,
        };
        let told = match is_decided {
            true => "the registry stops; the backup is in charge when it starts again",
            false => "the registry stops; whether the backup is in charge shows when it starts again",
        };
        self.front.reply(caller, refusal(told));
    }
}

fn refusal(message: &str) -> Reply {
    Reply::failure(Code::BackendUnavailable, FAILED).text("message", message)
}
