//! `update`, `drain` and `undrain`: another document for a service that stays what it is.
//!
//! Several of these for one service in a group build on each other, and on a registration before them. If the store has
//! not made what one was built on, nothing comes of it either.

use std::sync::Arc;

use crate::protocol::drain::{Drain, mark, unmark};
use crate::protocol::event::EventKind;
use crate::protocol::lives::Update;
use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::changes::queue::{Wish, Wished};
use crate::registry::changes::{Changes, DRAIN_FAILED, UNDRAIN_FAILED, UPDATE_FAILED, Write};
use crate::registry::follow::Told;
use crate::registry::lives::Reason;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::service::Service;
use crate::registry::trail::What;
use crate::security::origin::Origin;

/// What `undrain` says of a service that was not drained.
pub const NOT_DRAINED: &str = "Service was not drained";
/// How many generations are passed over at random when a host starts, at most: some twelve days of milliseconds. What it
/// finds in the store need not be all that was given (nothing is kept in memory, and services that are gone leave none),
/// and the wall clock may have been set back: a process of before is not to meet its number again.
pub(in crate::registry) const GENERATION_GAP_MAX: u64 = 1 << 30;

/// What is changed of a service that stays what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amendment {
    /// Its metadata.
    Metadata,
    /// It is drained.
    Drained,
    /// It is drained no longer.
    Undrained,
}

impl Amendment {
    /// All of them.
    pub(in crate::registry) const ALL: [Amendment; 3] = [Amendment::Metadata, Amendment::Drained, Amendment::Undrained];

    pub(super) fn of(drain: &Drain) -> Self {
        if drain.order.is_some() { Amendment::Drained } else { Amendment::Undrained }
    }

    /// The action that asks for it.
    pub(in crate::registry) fn word(self) -> &'static str {
        match self {
            Amendment::Metadata => "update",
            Amendment::Drained => "drain",
            Amendment::Undrained => "undrain",
        }
    }

    /// What a client gets to read if nothing comes of it.
    pub(super) fn failure(self) -> &'static str {
        match self {
            Amendment::Metadata => UPDATE_FAILED,
            Amendment::Drained => DRAIN_FAILED,
            Amendment::Undrained => UNDRAIN_FAILED,
        }
    }

    fn success(self) -> &'static str {
        match self {
            Amendment::Metadata => "Service updated successfully",
            Amendment::Drained => "Service drained successfully",
            Amendment::Undrained => "Service undrained successfully",
        }
    }

    /// What is noted of it.
    pub(in crate::registry) fn what(self) -> What {
        match self {
            Amendment::Metadata => What::Updated,
            Amendment::Drained => What::Drained,
            Amendment::Undrained => What::Undrained,
        }
    }
}

impl<C> Changes<C> {
    /// The number of the next registration: never one that was given before, whatever the wall clock says.
    pub(super) fn next_generation(&mut self, now: Now) -> u64 {
        self.generation = now.unix_ms.max(self.generation + 1) + std::mem::take(&mut self.generation_gap);
        self.generation
    }
}

impl Write {
    /// A change of this service's metadata.
    ///
    /// # Errors
    /// The reply that refuses it.
    pub(super) fn update(update: &Update, before: Option<&Service>, origin: Origin) -> Result<Self, Reply> {
        let Some(before) = before else { return Err(Reply::failure(Code::NotFound, UPDATE_FAILED)) };
        let document = update.metadata.apply(before.document())?;
        Ok(Write::amend(before, document, Amendment::Metadata, Some(origin)))
    }

    /// That this service is drained from this moment on, or not any more.
    ///
    /// # Errors
    /// The reply that refuses it, or that says that it is so already.
    pub(super) fn drain(drain: &Drain, before: Option<&Service>, origin: Origin, now: Now) -> Result<Self, Reply> {
        let what = Amendment::of(drain);
        let Some(before) = before else { return Err(Reply::failure(Code::NotFound, what.failure())) };
        let document = match &drain.order {
            Some(order) => mark(before.document(), order, now.unix_ms),
            None if before.is_drained() => unmark(before.document()),
            None => return Err(Reply::success().text("message", NOT_DRAINED)),
        };
        Ok(Write::amend(before, document, what, Some(origin)))
    }

    /// The time for which this service was to be drained is over.
    pub(super) fn end_drain(service: &Service) -> Self {
        Write::amend(service, unmark(service.document()), Amendment::Undrained, None)
    }

    fn amend(before: &Service, document: String, what: Amendment, by: Option<Origin>) -> Self {
        Write::Amend { service: Box::new(before.with_document(document)), base: before.revision, what, by }
    }
}

impl<C> Registry<C> {
    pub(in crate::registry) fn update(
        &mut self,
        caller: C,
        origin: Origin,
        update: Box<Update>,
        now: Now,
        out: &mut Output<C>,
    ) {
        let id: Arc<str> = update.service_id.as_str().into();
        let bytes = id.len() + update.metadata.bytes();
        self.wish(caller, origin, Wish::Update { id, update }, bytes, now, out);
    }

    pub(in crate::registry) fn drain(
        &mut self,
        caller: C,
        origin: Origin,
        drain: Box<Drain>,
        now: Now,
        out: &mut Output<C>,
    ) {
        let id: Arc<str> = drain.service_id.as_str().into();
        let reason = drain.order.as_ref().and_then(|order| order.reason.as_ref());
        let bytes = id.len() + reason.map_or(0, String::len);
        self.wish(caller, origin, Wish::Drain { id, drain }, bytes, now, out);
    }

    /// Refuses a longer record for which there is no room: how long a record becomes is known only when it is its turn.
    pub(super) fn fits(&self, write: Write) -> Result<Write, Reply> {
        let Write::Amend { service, what, .. } = &write else { return Ok(write) };
        let before = self.services.get(service.id()).map_or(0, Service::bytes);
        let after = (self.services.bytes() - before).saturating_add(service.bytes());
        match service.bytes() > before && after > self.policy.services_bytes_max {
            true => Err(Reply::failure(Code::Overloaded, what.failure()).text("message", super::FULL)),
            false => Ok(write),
        }
    }

    /// Another document is stored. What the client is told.
    pub(super) fn amended(
        &mut self,
        changed: Service,
        base: u64,
        (what, by): (Amendment, Option<Origin>),
        (revision, told): (u64, Told),
        now: Now,
        out: &mut Output<C>,
    ) -> Reply {
        let id = changed.id().clone();
        if self.services.get(&id).is_none_or(|service| service.revision != base) {
            self.undo(id, revision);
            return Reply::failure(Code::BackendUnavailable, what.failure())
                .text("message", "the change before it was not stored, nothing has been changed");
        }
        if let Some(service) = self.services.amend(&changed, now.uptime_ms).cloned() {
            self.announce(EventKind::Register, &service, revision, told, out);
            out.events.last_mut().into_iter().for_each(|(_, amended)| *amended = Some(what));
            self.trail.note(&id, what.what(), by, now);
            self.has_come(&id);
        }
        Reply::success().text("message", what.success())
    }
}

impl<C> Registry<C> {
    /// A wish is refused.
    pub(super) fn note_refusal(&mut self, wished: &Wished, reason: Reason, now: Now) {
        if let Reason::Quota(quota) = &reason {
            self.note_over_quota(quota, wished.origin, now);
        }
        let action = match &wished.wish {
            // Nobody knows the id that it would have got.
            Wish::Register { registration, .. } if registration.id.is_none() => return,
            Wish::Register { .. } => "register",
            Wish::Deregister { .. } => "deregister",
            Wish::Update { .. } => "update",
            Wish::Drain { drain, .. } => Amendment::of(drain).word(),
        };
        self.note_refused(wished.wish.id(), action, reason, wished.origin, now);
    }

    /// The store has refused a change.
    pub(super) fn note_unwritten(&mut self, write: &Write, reason: Reason, now: Now) {
        let (action, origin) = match write {
            Write::Put { origin, .. } => ("register", Some(*origin)),
            Write::Amend { what, by, .. } => (what.word(), *by),
            Write::Remove { by, .. } => ("deregister", *by),
        };
        if let Some(origin) = origin {
            self.note_refused(write.id(), action, reason, origin, now);
        }
    }
}
