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
//! Until the old store has said that it is closed, everything can be taken back, and is if anything fails. What either
//! store is worth should the host die in between stands in [`mark`](crate::store::mark).

use std::path::PathBuf;
use std::time::{Duration, Instant};

use registry_plugin_api::{Capabilities, Change, Group, Outcome, Position};
use tokio::task::JoinHandle;

use super::Server;
use super::start::{load_plugin, millis};
use crate::cli::store_trial::path_option;
use crate::config::{Backend, Loaded, Source};
use crate::fronts::Front;
use crate::protocol::reply::{Code, Reply};
use crate::registry::Promises;
use crate::store::mark::Mark;
use crate::store::{Answer, Contents, Purpose, Store};
use crate::text::counted;

/// With so little left to copy, changes are held.
const LEFT_MAX: usize = 500;
/// How long they are held, before they are let go and it is tried again.
const HOLD_MAX: Duration = Duration::from_millis(200);
/// How often that is tried.
const TRIES_MAX: usize = 10;
/// How long the other store may take to be opened and read.
const OPEN_MAX: Duration = Duration::from_secs(60);

/// What names the store to move to.
pub(super) enum To {
    /// A configuration that has been read.
    Loaded(Box<Loaded>),
    /// A configuration file.
    File(PathBuf),
}

/// Where to.
pub(super) struct Target {
    backend: Backend,
    plugin: String,
    promises: Promises,
    /// The plugin, and its file if it has one.
    described: String,
}

/// A move to another store.
pub(super) struct Swap<C> {
    step: Step,
    /// Who waits for its end.
    asking: Vec<C>,
    began: Instant,
    /// Since when changes are held.
    held: Option<Instant>,
    tries: usize,
    /// The configuration has asked for it, and no client.
    is_configured: bool,
}

/// A store that is being closed.
pub(super) struct Leaving {
    pub(super) store: Store,
    /// How many groups it has still to answer before.
    pub(super) groups: usize,
}

impl Leaving {
    /// It has answered a group.
    pub(super) fn answered(&mut self) {
        self.groups = self.groups.saturating_sub(1);
        if self.groups == 0 {
            self.store.close();
        }
    }
}

enum Step {
    Opening(JoinHandle<Result<(Store, Target), String>>),
    Reading(Store, Target),
    /// And whether the new store has a part, which it has not answered yet.
    Filling(Store, Target, bool),
    Held(Store, Target, bool),
    Ready(Store, Target),
    Closing(Store, Target),
    /// What has failed: the old store is to be told that it is still in charge.
    TakingBack(String),
    Promoting(Target),
    Over,
}

/// What happens to a move.
pub(super) enum Moved {
    Loaded(Result<(Store, Target), String>),
    Answered(Answer),
}

impl<C> Swap<C> {
    /// A move to the store that a configuration names.
    pub(super) fn begin(to: To, asking: Vec<C>) -> Self {
        let is_configured = matches!(to, To::Loaded(_));
        let opening = tokio::task::spawn_blocking(move || open(to).map_err(|error| error.to_string()));
        Swap { step: Step::Opening(opening), asking, began: Instant::now(), held: None, tries: 0, is_configured }
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
            | Step::Closing(store, _) => Moved::Answered(store.answer().await),
            Step::TakingBack(_) | Step::Promoting(_) | Step::Over => std::future::pending().await,
        }
    }

    /// Whether the next outcome of the store in charge is of this move.
    pub(super) fn awaits_store(&self) -> bool {
        matches!(self.step, Step::Closing(..) | Step::TakingBack(_) | Step::Promoting(_))
    }
}

fn open(to: To) -> Result<(Store, Target), Box<dyn std::error::Error + Send + Sync>> {
    let loaded = match to {
        To::Loaded(loaded) => *loaded,
        To::File(file) => {
            let loaded = Source { file: Some(file), sets: Vec::new() }.read()?;
            loaded.check_backend_of_file()?;
            loaded
        }
    };
    let plugin = load_plugin(&loaded)?;
    let backend = loaded.config.backend;
    let capabilities = plugin.capabilities(&backend.options)?;
    let [balances, history] = [Capabilities::NONE.balances(), Capabilities::NONE.history()];
    let promises = Promises { balances: capabilities.has(balances), history: capabilities.has(history) };
    let name = plugin.info().name.clone();
    let described = match path_option(&plugin, &backend.options) {
        Some(path) => format!("{name} ({path})"),
        None => name.clone(),
    };
    let store = Store::begin(plugin, backend.options.clone(), backend.call_timeout(), None, Purpose::Fill)?;
    Ok((store, Target { backend, plugin: name, promises, described }))
}

impl<F: Front> Server<F> {
    /// Begins to move to the store that a configuration names, unless a move is under way.
    pub(super) fn begin_swap(&mut self, to: To, asking: Vec<F::Caller>) {
        if self.swap.is_some() {
            return self.refuse_swap(asking, "the registry is moving to another storage already");
        }
        self.swap = Some(Swap::begin(to, asking));
    }

    /// Something has happened to the move that is under way.
    pub(super) fn moved(&mut self, moved: Moved) {
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
                swap.step = Step::Filling(store, target, false);
            }
            (_, Moved::Answered(Answer::Opened(Err(error)) | Answer::Closed(Err(error)))) => {
                self.give_up_swap(error.to_string());
            }
            (_, Moved::Answered(Answer::Closed(Ok(())))) => self.give_up_swap("it ended by itself".into()),
            (step, Moved::Answered(Answer::Committed(result))) => match (problem(result), step) {
                (Some(error), step) => {
                    swap.step = match step {
                        Step::Filling(store, target, _) | Step::Held(store, target, _) | Step::Ready(store, target) => {
                            Step::Filling(store, target, false)
                        }
                        step => step,
                    };
                    self.give_up_swap(error);
                }
                (None, Step::Filling(store, target, _)) => swap.step = Step::Filling(store, target, false),
                (None, Step::Held(store, target, _)) => swap.step = Step::Held(store, target, false),
                (None, Step::Ready(store, target)) => {
                    let mark = Mark::Closed(target.plugin.clone());
                    self.store.commit(Group::new(mark.at(self.registry.issued()), Vec::new()));
                    swap.step = Step::Closing(store, target);
                }
                (None, step) => swap.step = step,
            },
            (step, Moved::Answered(_)) => swap.step = step,
        }
    }

    /// The store in charge has answered what this move asked of it.
    pub(super) fn store_moved(&mut self, result: registry_plugin_api::Result<Vec<Outcome>>) {
        let Some(swap) = &mut self.swap else { return };
        let position = Position::new(self.registry.position().0, self.registry.issued());
        match (std::mem::replace(&mut swap.step, Step::Over), problem(result)) {
            (Step::Closing(store, target), None) => {
                let mut old = std::mem::replace(&mut self.store, store);
                old.close();
                self.leaving.push(Leaving { store: old, groups: 0 });
                self.registry.move_to(&target.plugin, target.promises);
                self.registry.set_call_timeout_ms(millis(target.backend.call_timeout()));
                self.storage_fails = false;
                if let Some(settings) = &mut self.settings {
                    settings.set_backend(target.backend.clone(), &target.described, swap.is_configured);
                }
                self.store.commit(Group::new(position, Vec::new()));
                swap.step = Step::Promoting(target);
            }
            (Step::Closing(store, _), Some(error)) => {
                // It may be closed all the same.
                self.store.commit(Group::new(position, Vec::new()));
                swap.step = Step::TakingBack(format!("the storage in charge could not be closed: {error}"));
                self.abandon(store, false);
            }
            (Step::TakingBack(error), _) => self.give_up_swap(error),
            (Step::Promoting(target), failed) => {
                // If that has failed, the next change makes up for it.
                self.note_storage(failed.map(registry_plugin_api::Error::unavailable).as_ref());
                self.end_swap(&target);
            }
            (step, _) => swap.step = step,
        }
    }

    /// Does for the move what can be done now.
    pub(super) fn go_on_swapping(&mut self) {
        let Some(swap) = &mut self.swap else { return };
        if matches!(swap.step, Step::Opening(_) | Step::Reading(..)) && swap.began.elapsed() > OPEN_MAX {
            return self.give_up_swap(format!("it is not open within {} s", OPEN_MAX.as_secs()));
        }
        let is_late = swap.held.is_some_and(|since| since.elapsed() >= HOLD_MAX);
        match std::mem::replace(&mut swap.step, Step::Over) {
            Step::Filling(store, target, false) if self.registry.left_to_copy() <= LEFT_MAX => {
                swap.tries += 1;
                if swap.tries > TRIES_MAX {
                    swap.step = Step::Filling(store, target, false);
                    let error = "one of both storages takes too long to answer, or has too much to do".to_string();
                    return self.give_up_swap(error);
                }
                self.registry.hold_changes(true);
                swap.held = Some(Instant::now());
                swap.step = Step::Held(store, target, false);
                self.go_on_swapping();
            }
            Step::Held(store, target, is_busy) if is_late => {
                self.let_changes_go();
                self.set_step(Step::Filling(store, target, is_busy));
            }
            Step::Ready(store, target) if is_late => {
                self.let_changes_go();
                self.set_step(Step::Filling(store, target, true));
            }
            Step::Held(store, target, false) if self.registry.is_settled() => {
                let part = self.registry.next_copy();
                let is_ready = part.is_none();
                let mark = if is_ready { Mark::Ready } else { self.filling() };
                store.commit(group(&mark, self.registry.issued(), part.unwrap_or_default()));
                self.set_step(if is_ready { Step::Ready(store, target) } else { Step::Held(store, target, true) });
            }
            Step::Filling(store, target, false) => {
                let part = self.registry.next_copy().unwrap_or_default();
                store.commit(group(&self.filling(), self.registry.issued(), part));
                self.set_step(Step::Filling(store, target, true));
            }
            step => self.set_step(step),
        }
    }

    fn set_step(&mut self, step: Step) {
        if let Some(swap) = &mut self.swap {
            swap.step = step;
        }
    }

    fn filling(&self) -> Mark {
        Mark::Filling(self.registry.plugin().to_string())
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
        self.refuse_swap(swap.asking, &error);
    }

    /// Has a store that will not be in charge say so, whatever it has been told before, and closes it. It may have a group
    /// that it `owes` an answer to.
    fn abandon(&mut self, store: Store, owes: bool) {
        store.commit(group(&self.filling(), self.registry.issued(), Vec::new()));
        self.leaving.push(Leaving { store, groups: 1 + usize::from(owes) });
    }

    fn abandon_step(&mut self, step: Step) {
        match step {
            Step::Filling(store, _, owes) | Step::Held(store, _, owes) => self.abandon(store, owes),
            Step::Ready(store, _) => self.abandon(store, true),
            _ => {}
        }
    }

    /// Gives the move up that is under way, if one is: the registry stops.
    pub(super) fn abandon_swap(&mut self) {
        let Some(Swap { step, asking, .. }) = self.swap.take() else { return };
        self.abandon_step(step);
        if !asking.is_empty() {
            self.refuse_swap(asking, "the registry stops");
        }
    }

    fn refuse_swap(&mut self, asking: Vec<F::Caller>, error: &str) {
        if asking.is_empty() {
            tracing::error!("the registry does not move to the storage that is configured now: {error}");
        }
        self.metrics.swaps[1].add(1);
        for caller in asking {
            let reply = Reply::failure(Code::BackendUnavailable, "The registry has not moved to another storage");
            self.front.reply(caller, reply.text("message", error));
        }
    }

    fn end_swap(&mut self, target: &Target) {
        let Some(swap) = self.swap.take() else { return };
        self.registry.hold_changes(false);
        self.registry.end_copy();
        self.metrics.swaps[0].add(1);
        let held_ms = swap.held.map_or(0, |since| since.elapsed().as_millis() as u64);
        let (services, seconds) = (self.registry.len(), swap.began.elapsed().as_secs_f64());
        let services_told = counted(services, "service", "services");
        let described = &target.described;
        tracing::info!(
            "moved to the storage {described} with {services_told} in {seconds:.1} s, in which changes waited {held_ms} ms; \
             [backend] has to name it when the registry starts again"
        );
        for caller in swap.asking {
            let reply = Reply::success().text("plugin", &target.plugin).text("storage", described);
            let reply = reply.number("services", services as u64).number("held_ms", held_ms);
            self.front.reply(caller, reply);
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
