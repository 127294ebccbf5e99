//! Moving to another store while clients are served: reads and heartbeats go on, changes wait for a moment.
//!
//! | step | the new store | the old store | what moves it on |
//! |---|---|---|---|
//! | opening | is loaded, opened, read | in charge | it is open |
//! | filling | gets a part of the services after the other | in charge | little is left to copy |
//! | held | gets what is left | gets no changes any more | everything is there, and the old one has answered |
//! | ready | is marked as ready | | it says yes |
//! | closing | | is marked as closed | it says yes |
//! | promoting | gets the epoch, and is in charge | is closed | it has answered |
//!
//! Until the old store has said that it is closed, everything can be taken back, and is if anything fails: first the old
//! one is told that it is in charge, however often that takes, and then the new one that it is not. Only then changes go
//! on, so that no store is left that looks whole and is older. What either store is worth should the host die in between
//! stands in [`mark`](crate::store::mark).
//!
//! A store that cannot be closed, since it fails or takes too long, is left only if the operator abandons it. Nobody knows
//! then what it holds, so a new epoch begins.

mod leaving;
mod steps;
mod target;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use registry_plugin_api::{Change, Group, Outcome, Position};
use serde_json::json;

use super::Server;
use super::clock::unix_ms;
use super::retry::Retry;
use super::start::millis;
use crate::fronts::Front;
use crate::protocol::event::Notice;
use crate::protocol::reply::{Code, Reply};
use crate::store::mark::Mark;
use crate::store::{Answer, Store, new_epoch};
use crate::text::counted;
pub(super) use leaving::{Leaving, poll_leaving};
use target::{Opening, Target};
pub(super) use target::{Terms, To};

/// With so little left to copy, changes are held.
const LEFT_MAX: usize = 500;
/// How often that is tried.
const TRIES_MAX: usize = 10;
/// How long stores that are being closed are waited for.
const LEAVE_MAX: Duration = Duration::from_secs(5);
/// How long the other store may take to be opened and read.
const OPEN_MAX: Duration = Duration::from_secs(60);
/// How long changes wait for a new store to say that it is not in charge.
const UNMARK_MAX: Duration = Duration::from_secs(2);
/// What an operator can do about a store that cannot be closed.
const ABANDON: &str = "asked for again with --abandon, the registry moves there all the same";
/// What subscribers are told by: a new history has begun.
const TOPIC: &str = "epoch";

/// A move to another store.
pub(super) struct Swap<C> {
    step: Step,
    /// Who waits for its end.
    asking: Vec<C>,
    began: Instant,
    /// Since when changes are held.
    held: Option<Instant>,
    tries: usize,
    /// The configuration that names it.
    file: Option<PathBuf>,
    /// It is the registry's own, and no client has asked.
    is_configured: bool,
    terms: Terms,
}

enum Step {
    /// For stores that are being closed: it may be one of those.
    Waiting(To),
    Opening(Opening),
    Reading(Store, Target),
    /// And whether the new store has a part, which it has not answered yet.
    Filling(Store, Target, bool),
    Held(Store, Target, bool),
    Ready(Store, Target),
    /// Since when the old store has been asked.
    Closing(Store, Target, Instant),
    /// The old store is to be told that it is still in charge.
    TakingBack(Kept),
    /// The new store is told that it is not in charge.
    Unmarking(Unmarking),
    /// And whether the old store is closed for certain.
    Promoting(Target, bool),
    Over,
}

/// A new store that is ready, while the old one may be closed.
struct Kept {
    store: Store,
    target: Target,
    /// What has failed.
    error: String,
    retry: Retry,
}

/// A new store that may look as if it were in charge.
struct Unmarking {
    store: Store,
    target: Target,
    /// It has not answered yet that it is ready.
    is_owed: bool,
    since: Instant,
    /// What has failed; without that it is tried again.
    error: Option<String>,
    retry: Retry,
}

/// What happens to a move.
pub(super) enum Moved {
    Loaded(Result<(Store, Target), String>),
    Answered(Answer),
}

impl<C> Swap<C> {
    /// A move to the store that a configuration names.
    pub(super) fn begin(to: To, terms: Terms, asking: Vec<C>) -> Self {
        let (file, is_configured) = match &to {
            To::Loaded(loaded) => (loaded.file.as_deref(), true),
            To::File(file) => (Some(file.as_path()), false),
        };
        let file = file.map(absolute);
        let (step, began) = (Step::Waiting(to), Instant::now());
        Swap { step, asking, began, held: None, tries: 0, file, is_configured, terms }
    }

    /// Waits until something happens that is not the old store's doing. Nothing is lost if the future is dropped before
    /// it is ready.
    pub(super) async fn next(&mut self) -> Moved {
        match &mut self.step {
            Step::Opening(opening) => {
                let panicked = |error| Err(format!("it cannot be opened: {error}"));
                Moved::Loaded(opening.await.unwrap_or_else(panicked))
            }
            Step::Reading(store, _)
            | Step::Filling(store, _, _)
            | Step::Held(store, _, _)
            | Step::Ready(store, _)
            | Step::Closing(store, _, _)
            | Step::Unmarking(Unmarking { store, .. }) => Moved::Answered(store.answer().await),
            Step::Waiting(_) | Step::TakingBack(_) | Step::Promoting(..) | Step::Over => std::future::pending().await,
        }
    }

    /// Whether the next outcome of the store in charge is of this move.
    pub(super) fn awaits_store(&self) -> bool {
        match &self.step {
            Step::Closing(..) | Step::Promoting(..) => true,
            Step::TakingBack(kept) => kept.retry.is_asked(),
            _ => false,
        }
    }

    /// Whether changes have been held for too long.
    fn is_late(&self) -> bool {
        self.held.is_some_and(|since| since.elapsed() >= self.terms.hold)
    }
}

impl<F: Front> Server<F> {
    /// Begins to move to the store that a configuration names, unless a move is under way. One that cannot be taken back,
    /// since the store in charge fails, is brought to its end by whoever abandons that store.
    pub(super) fn begin_swap(&mut self, to: To, terms: Terms, mut asking: Vec<F::Caller>) {
        let Some(swap) = &mut self.swap else {
            if self.restoring.is_some() {
                return self.turn_away(asking, "a backup is being restored");
            }
            self.swap = Some(Swap::begin(to, terms, asking));
            return;
        };
        let is_same = matches!(&to, To::File(file) if Some(absolute(file)) == swap.file);
        match std::mem::replace(&mut swap.step, Step::Over) {
            Step::TakingBack(Kept { store, target, retry, .. }) if terms.is_abandoning && is_same => {
                swap.asking.append(&mut asking);
                self.leave(store, target, (false, usize::from(retry.is_asked())));
            }
            step => {
                let in_the_way = match &step {
                    Step::TakingBack(_) => {
                        let file = swap.file.as_deref().unwrap_or(Path::new("its own configuration")).display();
                        format!("the storage in charge fails, and may be closed for that of {file}: {ABANDON}")
                    }
                    _ => "the registry is moving to another storage already".to_string(),
                };
                swap.step = step;
                self.turn_away(asking, &in_the_way);
            }
        }
    }

    /// Another store is in charge from now on. The one before is closed for certain, or has so many groups to answer and is
    /// told then.
    fn leave(&mut self, store: Store, target: Target, (is_closed, owed): (bool, usize)) {
        let closed = group(&Mark::Closed(target.plugin.clone()), self.registry.issued(), Vec::new());
        let old = std::mem::replace(&mut self.store, store);
        self.leaving.push(Leaving::new(old, owed + self.ignored, (!is_closed).then_some(closed)));
        self.ignored = 0;
        self.left_staged.clear();
        self.registry.move_to(&target.plugin, target.promises);
        self.registry.set_call_timeout_ms(millis(target.backend.call_timeout()));
        self.storage_fails = false;
        let is_configured = self.swap.as_ref().is_some_and(|swap| swap.is_configured);
        if let Some(settings) = &mut self.settings {
            settings.set_backend(target.backend.clone(), &target.described, is_configured);
        }
        if !is_closed {
            // What the one before holds nobody knows: should it be opened again, none may take its changes for these.
            self.registry.begin_epoch(Position::new(new_epoch(), self.registry.issued()), &mut self.out);
            self.tell_epoch("swap");
        }
        self.store.commit(Group::new(self.position(), Vec::new()));
        self.set_step(Step::Promoting(target, is_closed));
    }

    /// Tells subscribers that a new history has begun.
    pub(super) fn tell_epoch(&mut self, reason: &str) {
        let (epoch, revision) = self.registry.position();
        let timestamp = unix_ms() / 1000;
        let json = json!({
            "type": TOPIC, "timestamp": timestamp, "reason": reason, "epoch": epoch, "revision": revision,
            "services": self.registry.len(),
        });
        self.front.notify(Notice { topic: TOPIC, json: json.to_string() });
    }

    /// The position of the store in charge when it has all that is known.
    pub(super) fn position(&self) -> Position {
        Position::new(self.registry.position().0, self.registry.issued())
    }

    fn set_step(&mut self, step: Step) {
        if let Some(swap) = &mut self.swap {
            swap.step = step;
        }
    }

    /// What tells a new store that it is not in charge.
    fn filling(&self) -> Group {
        group(&Mark::Filling(self.registry.plugin().to_string()), self.registry.issued(), Vec::new())
    }

    fn let_changes_go(&mut self) {
        self.registry.hold_changes(false);
        if let Some(swap) = &mut self.swap {
            swap.held = None;
        }
    }

    fn give_up_swap(&mut self, error: String) {
        let Some(swap) = self.swap.take() else { return };
        self.abandon_step(swap.step);
        self.registry.hold_changes(false);
        self.registry.end_copy();
        let plugin = self.registry.plugin().to_string();
        tracing::error!("the registry has not moved to another storage, {plugin} stays in charge: {error}");
        self.metrics.swaps[1].add(1);
        self.note_outcome("swap_failed");
        self.refuse_swap(swap.asking, &error);
    }

    /// Has the new store of a move say that it will not be in charge, whatever it has been told before, and closes it.
    fn abandon_step(&mut self, step: Step) {
        let filling = Some(self.filling());
        let leaving = match step {
            Step::Filling(store, _, owes) | Step::Held(store, _, owes) => Leaving::new(store, owes.into(), filling),
            Step::Ready(store, _) => Leaving::new(store, 1, filling),
            Step::Unmarking(Unmarking { store, is_owed, retry, .. }) => {
                let is_told = !is_owed && retry.is_asked();
                let owed = usize::from(is_owed || is_told);
                Leaving::new(store, owed, filling.filter(|_| !is_told))
            }
            Step::TakingBack(Kept { store, target, .. }) => {
                tracing::error!(
                    "the storage in charge may be closed: if the registry is told so when it starts again, {} has all \
                     services, and goes on with them",
                    target.described
                );
                Leaving::new(store, 0, None)
            }
            _ => return,
        };
        self.leaving.push(leaving);
    }

    /// Gives the move up that is under way, if one is: the registry stops.
    pub(super) fn abandon_swap(&mut self) {
        let Some(Swap { step, asking, .. }) = self.swap.take() else { return };
        self.abandon_step(step);
        if !asking.is_empty() {
            self.refuse_swap(asking, "the registry stops");
        }
    }

    /// A move does not begin. That of a reload has nobody else to tell: the next reload tries again.
    fn turn_away(&mut self, asking: Vec<F::Caller>, error: &str) {
        if asking.is_empty() {
            tracing::error!("the registry does not move to the storage that is configured now: {error}");
        }
        self.metrics.swaps[1].add(1);
        self.note_outcome("swap_failed");
        self.refuse_swap(asking, error);
    }

    fn refuse_swap(&mut self, asking: Vec<F::Caller>, error: &str) {
        for caller in asking {
            let reply = Reply::failure(Code::BackendUnavailable, "The registry has not moved to another storage");
            self.front.reply(caller, reply.text("message", error));
        }
    }

    fn end_swap(&mut self, target: &Target, is_closed: bool) {
        let Some(swap) = self.swap.take() else { return };
        self.registry.hold_changes(false);
        self.registry.end_copy();
        self.metrics.swaps[0].add(1);
        self.note_outcome("swap_done");
        let held_ms = swap.held.map_or(0, |since| since.elapsed().as_millis() as u64);
        let (services, seconds) = (self.registry.len(), swap.began.elapsed().as_secs_f64());
        let services_told = counted(services, "service", "services");
        let described = &target.described;
        tracing::info!(
            "moved to the storage {described} with {services_told} in {seconds:.1} s, in which changes waited {held_ms} ms; \
             [backend] has to name it when the registry starts again"
        );
        let danger = "the storage before could not be closed: a registry that is started on it goes on with what was in it \
                      then, beside this one. Keep it from being opened. A new epoch has begun";
        if !is_closed {
            tracing::warn!("{danger}");
        }
        for caller in swap.asking {
            let reply = Reply::success().text("plugin", &target.plugin).text("storage", described);
            let reply = reply.number("services", services as u64).number("held_ms", held_ms);
            let reply = reply.boolean("closed", is_closed);
            self.front.reply(caller, if is_closed { reply } else { reply.text("message", danger) });
        }
    }
}

fn group(mark: &Mark, revision: u64, changes: Vec<Change>) -> Group {
    let mut group = Group::new(mark.at(revision), changes);
    group.forget_before = revision + 1;
    group
}

/// What has gone wrong with a group, if anything has.
fn problem(result: registry_plugin_api::Result<Vec<Outcome>>) -> Option<String> {
    match result {
        Err(error) => Some(error.to_string()),
        Ok(outcomes) => outcomes.into_iter().find_map(|outcome| match outcome {
            Outcome::Refused(error) => Some(format!("it does not take a service: {error}")),
            _ => None,
        }),
    }
}

fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf())
}
