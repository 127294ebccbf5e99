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
mod group;
mod landing;
mod projection;
mod queue;
mod upkeep;
mod waiters;

use std::sync::Arc;

use crate::protocol::event::EventKind;
use crate::protocol::registration::Registration;
use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::service::{Service, memory_bytes};
use crate::security::principal::Principal;
use queue::{Queue, Wish, Wished};
use upkeep::Upkeep;
pub(super) use waiters::{Wait, Waiters};

/// What a client gets to read if its registration or deregistration fails without a better reason.
const REGISTER_FAILED: &str = "Failed to register service";
const DEREGISTER_FAILED: &str = "Service not found or could not be deregistered";

/// All changes under way.
pub(super) struct Changes<C> {
    queue: Queue,
    pub(super) waiters: Waiters<C>,
    pub(super) upkeep: Upkeep,
    /// The group that the store has, and since when.
    sent: Option<(u64, Vec<Sent>)>,
    /// The greatest revision that was given to a change.
    issued: u64,
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
    },
    /// Remove a service.
    Remove {
        /// Its id.
        id: Arc<str>,
        /// Why: what the event will say.
        kind: EventKind,
        /// Who asked for it; `None` if it has run out.
        by: Option<Principal>,
    },
}

impl Write {
    /// The service has run out.
    fn expire(id: Arc<str>) -> Self {
        Write::Remove { id, kind: EventKind::Expire, by: None }
    }

    fn id(&self) -> &Arc<str> {
        match self {
            Write::Put { service, .. } => service.id(),
            Write::Remove { id, .. } => id,
        }
    }

    /// What a client gets to read if the change fails.
    fn failure(&self) -> &'static str {
        match self {
            Write::Put { .. } => REGISTER_FAILED,
            Write::Remove { .. } => DEREGISTER_FAILED,
        }
    }
}

impl<C> Changes<C> {
    /// No changes, after this revision, for a store that keeps what clients are told of changes, or not.
    pub(super) fn after(revision: u64, keeps_history: bool) -> Self {
        Changes {
            queue: Queue::default(),
            waiters: Waiters::default(),
            upkeep: Upkeep::new(keeps_history),
            sent: None,
            issued: revision,
        }
    }

    /// Since when the store has had the group that it has, if it has one.
    pub(super) fn sent_at_ms(&self) -> Option<u64> {
        self.sent.as_ref().map(|(at_ms, _)| *at_ms)
    }

    /// Whether nothing waits for the store.
    pub(super) fn is_idle(&self) -> bool {
        self.sent.is_none() && self.queue.is_empty() && self.waiters.len() == 0 && self.upkeep.is_idle()
    }

    /// Whether wishes wait to be judged, and nothing else.
    pub(super) fn is_ready(&self) -> bool {
        self.sent.is_none() && !self.queue.is_empty()
    }

    /// When something is to be done, if anything is.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        let upkeep = if self.sent.is_none() { self.upkeep.wake_at_ms() } else { None };
        self.waiters.wake_at_ms().into_iter().chain(upkeep).min()
    }
}

impl<C> Registry<C> {
    pub(super) fn register(
        &mut self,
        caller: C,
        principal: Principal,
        registration: Box<Registration>,
        now: Now,
        out: &mut Output<C>,
    ) {
        let id = match &registration.id {
            Some(id) => Arc::from(id.as_str()),
            None => self.new_id(&registration.name),
        };
        let wanted = registration.singleton || self.policy.enforce_unique_service_types;
        let is_unique = wanted && !registration.allow_duplicate_service_type;
        let unique = registration.service_type.as_deref().filter(|_| is_unique).map(Arc::from);
        let bytes = memory_bytes(registration.bytes, id.len(), registration.types.iter().map(String::len));
        self.wish(caller, principal, Wish::Register { id, registration, unique }, bytes, now, out);
    }

    pub(super) fn deregister(
        &mut self,
        caller: C,
        principal: Principal,
        service_id: &str,
        now: Now,
        out: &mut Output<C>,
    ) {
        self.wish(caller, principal, Wish::Deregister { id: service_id.into() }, service_id.len(), now, out);
    }

    fn wish(&mut self, caller: C, principal: Principal, wish: Wish, bytes: usize, now: Now, out: &mut Output<C>) {
        let error = match &wish {
            Wish::Register { .. } => REGISTER_FAILED,
            Wish::Deregister { .. } => DEREGISTER_FAILED,
        };
        if let Some(message) = self.has_no_room_for(&wish, bytes) {
            out.replies.push((caller, Reply::failure(Code::Overloaded, error).text("message", message)));
            return;
        }
        let deadline_ms = self.reply_deadline_ms(now);
        let ticket = self.changes.waiters.add(caller, Wait::Change { error, bytes }, deadline_ms);
        self.changes.queue.push(Wished { ticket, principal, wish, arrived: now });
    }

    /// Why a wish cannot be taken, if it cannot: what clients say is kept in memory, and that has an end.
    fn has_no_room_for(&self, wish: &Wish, bytes: usize) -> Option<&'static str> {
        let (policy, changes) = (&self.policy, &self.changes);
        // One fits always, however long it is, if nothing else waits.
        let waiting = changes.waiters.bytes();
        let is_long = waiting > 0 && waiting + bytes > policy.pending_bytes_max;
        if changes.waiters.len() + changes.upkeep.doubtful() >= policy.pending_changes_max || is_long {
            return Some("too many changes wait for the storage, try again later");
        }
        let Wish::Register { id, .. } = wish else { return None };
        let before = self.services.get(id).map_or(0, Service::bytes);
        let after = (self.services.bytes() - before).saturating_add(bytes);
        // Whoever does not get longer does no harm.
        (bytes > before && after > policy.services_bytes_max)
            .then_some("the registry is full: its services take as much memory as limits.services_bytes allows")
    }

    /// Tells whoever has waited too long that nothing came of it.
    pub(super) fn give_up_waiting(&mut self, now: Now, out: &mut Output<C>) {
        let mut gave_up = false;
        while let Some((caller, wait)) = self.changes.waiters.timed_out(now.uptime_ms) {
            gave_up = true;
            let reply = match wait {
                Wait::Choice { service_type } => self.pick(&service_type, now),
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
