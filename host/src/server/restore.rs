//! Restoring a backup while clients are served: its parts are gathered in a core of their own. When all are there, the
//! store gets them in one group, which it makes whole or not at all, and that core takes the place of the one before. A
//! new epoch begins, so that all who follow changes list everything again.

use std::time::{Duration, Instant};

use registry_plugin_api::{Change, Group, Outcome, Position};

use super::Server;
use crate::fronts::Front;
use crate::protocol::reply::{Code, Reply};
use crate::protocol::restore::Restore;
use crate::registry::{Now, Registry};
use crate::store::new_epoch;
use crate::text::{counted, one_line, quoted};

/// How long the next part may take before what has come is dropped.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A backup that is being restored.
pub(super) struct Restoring<C> {
    name: String,
    registry: Box<Registry<C>>,
    touched: Instant,
    step: Step,
    /// Who waits for the end.
    asking: Option<C>,
}

enum Step {
    Receiving,
    /// What the store is to make is being gathered, from this slot on.
    Preparing(usize, Vec<Change>),
    /// The store in charge has to answer what it has got before.
    Held(Vec<Change>),
    /// The store has it.
    Writing,
}

impl<C> Restoring<C> {
    /// Whether the next outcome of the store is of this.
    pub(super) fn awaits_store(&self) -> bool {
        matches!(self.step, Step::Writing)
    }

    /// Whether there is something to do at once.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.step, Step::Preparing(..))
    }
}

fn failed(code: Code, message: &str) -> Reply {
    Reply::failure(code, "The backup is not restored, nothing has been changed").text("message", message)
}

impl<F: Front> Server<F> {
    /// Whether there is something to do for a restoration at once.
    pub(super) fn is_restoring(&self) -> bool {
        self.restoring.as_ref().is_some_and(Restoring::is_busy)
    }

    /// Takes the parts of backups that clients have sent.
    pub(super) fn take_restores(&mut self, now: Now) {
        for (caller, part) in std::mem::take(&mut self.out.restores) {
            let reply = self.take_restore(part, now);
            match (reply, &mut self.restoring) {
                (Some(reply), _) => self.front.reply(caller, reply),
                (None, Some(restoring)) => restoring.asking = Some(caller),
                (None, None) => {}
            }
        }
    }

    /// Takes a part, and says so at once if it is not the last.
    fn take_restore(&mut self, part: Restore, now: Now) -> Option<Reply> {
        let Restore { name, services, is_last } = part;
        if self.swap.is_some() {
            return Some(failed(Code::Overloaded, "the registry is moving to another storage, try again later"));
        }
        match (&self.restoring, &name) {
            (None, Some(_)) => {
                return Some(failed(Code::NotFound, "there is no such restoration, or it took too long"));
            }
            (Some(restoring), _) if name.as_ref() != Some(&restoring.name) => {
                return Some(failed(Code::Overloaded, "another backup is being restored, try again later"));
            }
            (Some(Restoring { step: Step::Receiving, .. }), _) => {}
            (Some(_), _) => return Some(failed(Code::NotFound, "this restoration has all its parts")),
            (None, None) => {
                let registry = self.registry.successor(new_epoch(), rand::make_rng());
                let name = new_epoch();
                tracing::info!("a backup is being restored");
                self.restoring = Some(Restoring {
                    name,
                    registry: Box::new(registry),
                    touched: Instant::now(),
                    step: Step::Receiving,
                    asking: None,
                });
            }
        }
        let restoring = self.restoring.as_mut()?;
        restoring.touched = Instant::now();
        for service in services {
            if let Err(unreadable) = restoring.registry.restore(service, now) {
                let problem = format!("the service {}: {}", quoted(&unreadable.id), one_line(&unreadable.reason));
                self.restoring = None;
                return Some(failed(Code::InvalidRequest, &problem));
            }
        }
        if is_last {
            restoring.step = Step::Preparing(0, Vec::new());
            return None;
        }
        let services = restoring.registry.len() as u64;
        Some(Reply::success().text("restore", &restoring.name).number("services", services))
    }

    /// Does for a restoration what can be done now.
    pub(super) fn go_on_restoring(&mut self, now: Now) {
        let Some(restoring) = &mut self.restoring else { return };
        match std::mem::replace(&mut restoring.step, Step::Receiving) {
            Step::Receiving if restoring.touched.elapsed() > IDLE_MAX => {
                tracing::warn!("the rest of a backup has not come within a minute: nothing is restored");
                self.restoring = None;
            }
            Step::Receiving => {}
            Step::Preparing(slot, mut changes) => {
                restoring.step = match restoring.registry.prepare(slot, now, &mut changes) {
                    Some(next) => Step::Preparing(next, changes),
                    None => {
                        self.registry.hold_changes(true);
                        Step::Held(changes)
                    }
                };
            }
            Step::Held(mut changes) if self.registry.is_settled() => {
                self.registry.removals_for(&restoring.registry, &mut changes);
                let (epoch, revision) = restoring.registry.position();
                let mut group = Group::new(Position::new(epoch, revision), changes);
                group.forget_before = revision + 1;
                self.store.commit(group);
                restoring.step = Step::Writing;
            }
            step => restoring.step = step,
        }
    }

    /// The store has answered.
    pub(super) fn store_restored(&mut self, result: registry_plugin_api::Result<Vec<Outcome>>, now: Now) {
        let Some(restoring) = self.restoring.take() else { return };
        let refused = |outcomes: Vec<Outcome>| {
            outcomes.into_iter().find_map(|outcome| match outcome {
                Outcome::Refused(error) => Some(error),
                _ => None,
            })
        };
        let error = match result {
            Ok(outcomes) => refused(outcomes),
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            self.registry.doubt_all(&restoring.registry);
            self.registry.hold_changes(false);
            self.note_storage(Some(&error));
            tracing::error!("the backup is not restored, the storage cannot take it: {error}");
            let reply = failed(Code::BackendUnavailable, &error.to_string());
            restoring.asking.into_iter().for_each(|caller| self.front.reply(caller, reply.clone()));
            return;
        }
        self.end_waits();
        self.registry.give_up_all(now, &mut self.out);
        let before = std::mem::replace(&mut self.registry, *restoring.registry);
        self.registry.take_place_of(before, now, &mut self.out);
        let services = counted(self.registry.len(), "service", "services");
        tracing::warn!("a backup is restored: {services}; a new epoch begins");
        let (epoch, revision) = self.registry.position();
        let reply = Reply::success().number("services", self.registry.len() as u64);
        let reply = reply.number("revision", revision).text("epoch", epoch);
        restoring.asking.into_iter().for_each(|caller| self.front.reply(caller, reply.clone()));
    }
}
