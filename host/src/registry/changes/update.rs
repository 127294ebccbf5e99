//! `update`: other metadata for a service that stays what it is.
//!
//! Several updates of one service in a group build on each other, and on a registration before them. If the store has
//! not made what an update was built on, nothing comes of the update either.

use std::sync::Arc;

use crate::protocol::event::EventKind;
use crate::protocol::lives::Update;
use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::changes::queue::{Wish, Wished};
use crate::registry::changes::{Changes, UPDATE_FAILED, Write};
use crate::registry::follow::Told;
use crate::registry::lives::Reason;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::service::Service;
use crate::registry::trail::What;
use crate::security::origin::Origin;

/// How many generations are passed over at random when a host starts, at most: some twelve days of milliseconds. What it
/// finds in the store need not be all that was given (nothing is kept in memory, and services that are gone leave none),
/// and the wall clock may have been set back: a process of before is not to meet its number again.
pub(in crate::registry) const GENERATION_GAP_MAX: u64 = 1 << 30;

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
        Ok(Write::Update { service: Box::new(before.with_document(document)), base: before.revision, origin })
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

    /// Refuses an update for which there is no room: how long a record becomes is known only when it is its turn.
    pub(super) fn fits(&self, write: Write) -> Result<Write, Reply> {
        let Write::Update { service, .. } = &write else { return Ok(write) };
        let before = self.services.get(service.id()).map_or(0, Service::bytes);
        let after = (self.services.bytes() - before).saturating_add(service.bytes());
        match service.bytes() > before && after > self.policy.services_bytes_max {
            true => Err(Reply::failure(Code::Overloaded, UPDATE_FAILED).text("message", super::FULL)),
            false => Ok(write),
        }
    }

    /// An update is stored. What the client is told.
    pub(super) fn update_landed(
        &mut self,
        changed: Service,
        base: u64,
        origin: Origin,
        (revision, told): (u64, Told),
        now: Now,
        out: &mut Output<C>,
    ) -> Reply {
        let id = changed.id().clone();
        if self.services.get(&id).is_none_or(|service| service.revision != base) {
            self.undo(id, revision);
            return Reply::failure(Code::BackendUnavailable, UPDATE_FAILED)
                .text("message", "the change before it was not stored, nothing has been changed");
        }
        if let Some(service) = self.services.amend(&changed, revision, now.uptime_ms).cloned() {
            self.announce(EventKind::Register, &service, revision, told, out);
            self.trail.note(&id, What::Updated, Some(origin), now);
            self.has_come(&id);
        }
        Reply::success().text("message", "Service updated successfully")
    }
}

impl<C> Registry<C> {
    /// A wish is refused.
    pub(super) fn note_refusal(&mut self, wished: &Wished, reason: Reason, now: Now) {
        let action = match &wished.wish {
            // Nobody knows the id that it would have got.
            Wish::Register { registration, .. } if registration.id.is_none() => return,
            Wish::Register { .. } => "register",
            Wish::Deregister { .. } => "deregister",
            Wish::Update { .. } => "update",
        };
        self.note_refused(wished.wish.id(), action, reason, wished.origin, now);
    }

    /// The store has refused a change.
    pub(super) fn note_unwritten(&mut self, write: &Write, reason: Reason, now: Now) {
        let (action, origin) = match write {
            Write::Put { origin, .. } => ("register", Some(*origin)),
            Write::Update { origin, .. } => ("update", Some(*origin)),
            Write::Remove { by, .. } => ("deregister", *by),
        };
        if let Some(origin) = origin {
            self.note_refused(write.id(), action, reason, origin, now);
        }
    }
}
