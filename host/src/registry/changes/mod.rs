//! The life of a change: wished, judged, sent to the store in a group, and visible when the store has said yes.
//!
//! | state | it waits in | what moves it on |
//! |---|---|---|
//! | wished | [`queue`] | its turn: [`group`] judges it ([`admit`]) |
//! | refused | | answered at once; or at landing, if the refusal rests on a change in the same group |
//! | making way | [`queue`], looked at again | what has run out of its type is removed first |
//! | sent | [`Changes::sent`] | the store's outcome: [`landing`] |
//! | done | | visible, answered, announced: in the order of the group |
//! | given up | | `reply_timeout` has passed: the client is told that nothing has been changed; what lands is undone |
//! | in doubt | [`upkeep`] | the core's own state of the record is written over whatever is stored |
//!
//! Changes are made in the order in which they were asked for, several of one id in one group too. One group is with
//! the store at a time; what comes meanwhile gathers for the next.

mod admit;
mod amend;
mod group;
mod landing;
mod mass;
mod projection;
mod queue;
mod silence;
mod upkeep;
mod waiters;

use std::sync::Arc;

use crate::protocol::event::EventKind;
use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::follow::Told;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::service::Service;
use crate::registry::trail::Cause;
use crate::security::origin::Origin;
pub(super) use amend::GENERATION_GAP_MAX;
pub use amend::{Amendment, NOT_DRAINED};
use mass::Mass;
use queue::{Queue, Wished};
use upkeep::Upkeep;
pub(super) use waiters::{Wait, Waiters};

/// What a client gets to read if its registration or deregistration fails without a better reason.
pub(super) const REGISTER_FAILED: &str = "Failed to register service";
const DEREGISTER_FAILED: &str = "Service not found or could not be deregistered";
const UPDATE_FAILED: &str = "Service not found or could not be updated";
const DRAIN_FAILED: &str = "Service not found or could not be drained";
const UNDRAIN_FAILED: &str = "Service not found or could not be undrained";
/// What a client is told if there is no room for what it wants to be kept.
const FULL: &str = "the registry is full: its services take as much memory as limits.services_bytes allows";

/// All changes under way.
pub(super) struct Changes<C> {
    queue: Queue,
    pub(super) waiters: Waiters<C>,
    pub(super) upkeep: Upkeep,
    /// The group that the store has, and since when.
    sent: Option<(u64, Vec<Sent>)>,
    /// The greatest revision that was given to a change.
    issued: u64,
    /// The greatest generation that was given to a registration, or that was there.
    pub(super) generation: u64,
    /// How many are passed over before the next one: see [`GENERATION_GAP_MAX`].
    generation_gap: u64,
    pub(super) mass: Mass,
    /// The store gets no changes for now.
    pub(super) are_held: bool,
}

/// A part of the group that the store has.
enum Sent {
    /// The record as the core has it, over whatever is stored.
    Restore {
        /// The record's id.
        id: Arc<str>,
        /// The revisions of the changes that are undone by it.
        undone: Vec<u64>,
    },
    /// A change, and who waits for it: nobody, if the core itself wants it.
    Write {
        /// The ticket of who waits.
        ticket: Option<u64>,
        /// What is changed.
        write: Write,
        /// The change's revision.
        revision: u64,
        /// What is told of it.
        told: Told,
    },
    /// A heartbeat.
    Renew(Arc<str>),
    /// Nothing for the store: a wish whose answer depends on the changes before it.
    Judge(Wished),
}

/// A change that has been found right, for the store to make.
enum Write {
    /// Store a service.
    Put {
        /// The service as it will be.
        service: Box<Service>,
        /// The type that must be taken by no other service.
        unique: Option<Arc<str>>,
        /// Who registers it.
        origin: Origin,
    },
    /// Remove a service.
    Remove {
        /// Its id.
        id: Arc<str>,
        /// Why: what the event will say.
        kind: EventKind,
        /// Who asked for it; `None` if it has run out.
        by: Option<Origin>,
        /// Only if it is of this generation.
        generation: Option<u64>,
    },
    /// Store a service with another document.
    Amend {
        /// The service as it will be.
        service: Box<Service>,
        /// The revision of the service that was changed.
        base: u64,
        /// What is changed.
        what: Amendment,
        /// Who changes it; `None` if it is time that does.
        by: Option<Origin>,
    },
}

impl Write {
    /// The service has run out.
    fn expire(id: Arc<str>) -> Self {
        Write::Remove { id, kind: EventKind::Expire, by: None, generation: None }
    }

    /// What is kept of it for the service's past.
    fn cause(&self) -> Cause {
        let by = match self {
            Write::Put { origin, .. } => Some(*origin),
            Write::Remove { by, .. } | Write::Amend { by, .. } => *by,
        };
        let amended = match self {
            Write::Amend { what, .. } => Some(*what),
            Write::Put { .. } | Write::Remove { .. } => None,
        };
        Cause { by, amended }
    }

    fn id(&self) -> &Arc<str> {
        match self {
            Write::Put { service, .. } | Write::Amend { service, .. } => service.id(),
            Write::Remove { id, .. } => id,
        }
    }

    /// What a client gets to read if the change fails.
    fn failure(&self) -> &'static str {
        match self {
            Write::Put { .. } => REGISTER_FAILED,
            Write::Remove { .. } => DEREGISTER_FAILED,
            Write::Amend { what, .. } => what.failure(),
        }
    }
}

impl<C> Changes<C> {
    /// No changes, after this revision. `generation_gap` is left out before the first registration.
    pub(super) fn after(revision: u64, generation_gap: u64) -> Self {
        Changes {
            queue: Queue::default(),
            waiters: Waiters::default(),
            upkeep: Upkeep::default(),
            sent: None,
            issued: revision,
            generation: 0,
            generation_gap,
            mass: Mass::default(),
            are_held: false,
        }
    }

    /// The greatest revision that was given to a change.
    pub(super) fn issued(&self) -> u64 {
        self.issued
    }

    /// All services are others, up to this revision and generation, and stored as they are. What clients want is judged by
    /// those.
    pub(super) fn begin_anew(&mut self, revision: u64, generation: u64) {
        self.issued = revision;
        self.generation = self.generation.max(generation);
        self.upkeep.forget_doubts();
        self.upkeep.sweep_to(None);
    }

    /// Another store is there, which has everything as it is.
    pub(super) fn forget_doubts(&mut self) {
        self.upkeep.forget_doubts();
    }

    /// Since when the store has had the group that it has, if it has one.
    pub(super) fn sent_at_ms(&self) -> Option<u64> {
        self.sent.as_ref().map(|(at_ms, _)| *at_ms)
    }

    /// Whether the store is removing services that have run out.
    fn is_expiring(&self) -> bool {
        let is_expiry = |sent: &Sent| matches!(sent, Sent::Write { write: Write::Remove { by: None, .. }, .. });
        self.sent.as_ref().is_some_and(|(_, sent)| sent.iter().any(is_expiry))
    }

    /// How many changes wait for their turn, and how many clients for the store.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.queue.len(), self.waiters.len())
    }

    /// Whether nothing waits for the store.
    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_none() && self.queue.is_empty() && self.waiters.len() == 0 && self.upkeep.is_idle()
    }

    /// Whether wishes wait to be judged, and nothing else.
    pub(super) fn is_ready(&self) -> bool {
        self.sent.is_none() && !self.are_held && !self.queue.is_empty()
    }

    /// When something is to be done, if anything is.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        let upkeep = if self.sent.is_none() && !self.are_held { self.upkeep.wake_at_ms() } else { None };
        self.waiters.wake_at_ms().into_iter().chain(upkeep).min()
    }
}

impl<C> Registry<C> {
    /// Tells whoever has waited too long that nothing came of it.
    pub(super) fn give_up_waiting(&mut self, now: Now, out: &mut Output<C>) {
        self.give_up_until(now.uptime_ms, now, out);
    }

    /// Tells everybody who waits for the store that nothing came of it: the host stops, and the store has failed.
    pub fn give_up_all(&mut self, now: Now, out: &mut Output<C>) {
        self.give_up_until(u64::MAX, now, out);
    }

    fn give_up_until(&mut self, deadline_ms: u64, now: Now, out: &mut Output<C>) {
        let mut gave_up = false;
        while let Some((caller, wait)) = self.changes.waiters.timed_out(deadline_ms) {
            gave_up = true;
            let reply = match wait {
                Wait::Choice { wanted } => {
                    self.seek(caller, *wanted, now, out);
                    continue;
                }
                Wait::Change { error, .. } => Reply::failure(Code::BackendUnavailable, error)
                    .text("message", "the storage did not answer in time, nothing has been changed"),
            };
            out.replies.push((caller, reply));
        }
        if gave_up {
            let Changes { queue, waiters, .. } = &mut self.changes;
            queue.drop_given_up(|ticket| waiters.has(ticket));
        }
    }

    /// Answers a client that waits, if it still does.
    fn answer(&mut self, ticket: Option<u64>, reply: Reply, out: &mut Output<C>) {
        if let Some((caller, _)) = ticket.and_then(|ticket| self.changes.waiters.take(ticket)) {
            out.replies.push((caller, reply));
        }
    }
}
