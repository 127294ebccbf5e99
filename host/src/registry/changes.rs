//! How a change takes effect: admitted, gathered, sent to the store, and made visible when the store has said yes.
//!
//! A change is admitted against the services as they are, so no other change that its answer depends on may be under
//! way: changes of one id never overlap, and neither do a demand for a unique type and a change to that type. Whatever
//! overlaps is deferred until the earlier change is through. So the parts of a group do not depend on each other, and
//! each can fail for itself.
//!
//! A client that has waited too long is told that nothing came of it. If its change lands after all, or if the store
//! fails without telling what it has stored, the record is *in doubt*: the core has its own state of that record
//! written over it, until the store has said yes to that.

use std::collections::VecDeque;
use std::sync::Arc;

use registry_plugin_api::{Change, Error, Outcome, RemoveReason};

use crate::protocol::event::EventKind;
use crate::protocol::registration::Registration;
use crate::protocol::reply::{Code, Reply};
use crate::registry::pending::{Deferred, Queued, Sent, Wait, Wish, Write};
use crate::registry::service::Service;
use crate::registry::{Now, Output, Registry};
use crate::security::key::PublicKey;

/// How many changes of each kind (restorations; wishes of clients, and expiries behind them; renewals) go to the store at
/// once, at most: it bounds how long one group can take.
const GROUP_MAX: usize = 1024;
/// How many of these are kept for expiries if there are any: however much clients ask for, a clean-up gets on.
const EXPIRIES_MIN: usize = 64;

/// What a client gets to read if its registration or deregistration fails without a better reason.
const REGISTER_FAILED: &str = "Failed to register service";
const DEREGISTER_FAILED: &str = "Service not found or could not be deregistered";

impl<C> Registry<C> {
    pub(super) fn register(
        &mut self,
        caller: C,
        client: Option<PublicKey>,
        registration: Box<Registration>,
        now: Now,
        out: &mut Output<C>,
    ) {
        if !self.policy.access.may_register(client.as_ref(), &registration.name, &registration.types) {
            let what = match &*registration.types {
                [] => format!("the service {:?}, which has no type", registration.name),
                types => format!("the service {:?} of type {types:?}", registration.name),
            };
            let refusal = self.forbid(client, &format!("to register {what}"), out);
            out.replies.push((caller, refusal));
            return;
        }
        let id = match &registration.id {
            Some(id) => Arc::from(id.as_str()),
            None => self.new_id(&registration.name),
        };
        let wanted = registration.singleton || self.policy.enforce_unique_service_types;
        let unique = registration.service_type.clone().filter(|_| wanted && !registration.allow_duplicate_service_type);
        self.wish(caller, client, Wish::Register { id, registration, unique }, now, out);
    }

    pub(super) fn deregister(
        &mut self,
        caller: C,
        client: Option<PublicKey>,
        service_id: &str,
        now: Now,
        out: &mut Output<C>,
    ) {
        self.wish(caller, client, Wish::Deregister { id: service_id.into() }, now, out);
    }

    fn wish(&mut self, caller: C, client: Option<PublicKey>, wish: Wish, now: Now, out: &mut Output<C>) {
        let (error, bytes) = match &wish {
            Wish::Register { registration, .. } => (REGISTER_FAILED, registration.bytes),
            Wish::Deregister { .. } => (DEREGISTER_FAILED, 0),
        };
        if let Some(message) = self.has_no_room_for(&wish, bytes) {
            out.replies.push((caller, Reply::failure(Code::Overloaded, error).text("message", message)));
            return;
        }
        let ticket = self.pending.wait(caller, Wait::Change { error, bytes }, self.reply_deadline_ms(now));
        self.admit(Deferred { ticket, client, wish, arrived: now }, out);
    }

    /// Why a wish cannot be taken, if it cannot: what clients say is kept in memory, and that has an end.
    fn has_no_room_for(&self, wish: &Wish, bytes: usize) -> Option<&'static str> {
        let policy = &self.policy;
        // One fits always, however long it is, if nothing else waits.
        let waiting = self.pending.waiting_bytes();
        let is_long = waiting > 0 && waiting + bytes > policy.pending_bytes_max;
        if self.pending.waiting() >= policy.pending_changes_max || is_long {
            return Some("too many changes wait for the storage, try again later");
        }
        let Wish::Register { id, .. } = wish else { return None };
        let before = self.services.get(id).map_or(0, Service::bytes);
        let after = (self.services.bytes() - before).saturating_add(bytes);
        // Whoever does not get longer does no harm.
        (bytes > before && after > policy.services_bytes_max)
            .then_some("the registry is full: its services are as long as limits.services_bytes allows")
    }

    /// Lets a wish become a change, or refuses it, or defers it.
    fn admit(&mut self, deferred: Deferred, out: &mut Output<C>) {
        if self.pending.is_claimed(&deferred.wish) || self.is_stale_claimed(&deferred.wish) {
            self.pending.defer(deferred);
            return;
        }
        let Deferred { ticket, client, wish, arrived } = deferred;
        match self.judge(client, wish, arrived, out) {
            Ok(write) => self.pending.queue(Queued { ticket: Some(ticket), write }),
            Err(refusal) => self.answer(Some(ticket), refusal, out),
        }
    }

    /// Whether a service that has to make way for this one is being changed.
    fn is_stale_claimed(&self, wish: &Wish) -> bool {
        let Wish::Register { id, unique: Some(name), .. } = wish else { return false };
        let mut stale = self.services.critical_of_type(name).filter(|other| other.id() != id);
        stale.any(|other| self.pending.is_id_claimed(other.id()))
    }

    /// What is to be done for a wish, given the services as they are.
    fn judge(
        &mut self,
        client: Option<PublicKey>,
        wish: Wish,
        arrived: Now,
        out: &mut Output<C>,
    ) -> Result<Write, Reply> {
        match wish {
            Wish::Deregister { id } => match self.services.get(&id) {
                Some(service) if !self.is_changeable_by(client, service) => {
                    Err(self.forbid(client, &format!("to deregister {id:?}, which belongs to another key"), out))
                }
                Some(service) => {
                    let types = service.types().clone();
                    Ok(Write::Remove { id, reason: RemoveReason::Deregistered, types })
                }
                None => Err(Reply::failure(Code::NotFound, DEREGISTER_FAILED)),
            },
            Wish::Register { id, registration, unique } => {
                let present = self.services.get(&id);
                if present.is_some_and(|present| !self.is_changeable_by(client, present)) {
                    return Err(self.forbid(client, &format!("to replace {id:?}, which belongs to another key"), out));
                }
                if let Some(name) = &unique {
                    if let Some(other) = self.services.passing_of_type(name).find(|other| *other.id() != id) {
                        return Err(duplicate(name, other.id()));
                    }
                    let stale = self.services.critical_of_type(name).filter(|other| *other.id() != id);
                    for expired in stale.map(expiry).collect::<Vec<_>>() {
                        self.pending.queue(expired);
                    }
                }
                let service = Box::new(Service::new(id, *registration, client, arrived));
                Ok(Write::Put { service, unique })
            }
        }
    }

    /// Has all critical services removed that are still critical when their turn has come.
    pub(super) fn expire_critical(&mut self) {
        self.pending.expire(self.services.critical().map(|service| service.id().clone()).collect());
    }

    /// The next expiries of the clean-up.
    fn take_expiries(&mut self, most: usize, now: Now) -> Vec<Queued> {
        let mut expiries = Vec::new();
        while expiries.len() < most
            && let Some(id) = self.pending.take_expiring(now)
        {
            expiries.extend(self.services.get(&id).filter(|service| !service.passing).map(expiry));
        }
        expiries
    }

    /// The next group of changes for the store, if it has none and there is something to store. The outcome is to be
    /// handed to [`committed`](Self::committed).
    pub fn next_group(&mut self, now: Now) -> Option<Vec<Change>> {
        if self.pending.is_sent() {
            return None;
        }
        self.services.advance(now.uptime_ms);
        let services = &self.services;
        // A service that makes way for another may have been heard of since.
        self.pending.retain_gathered(|queued| match &queued.write {
            Write::Remove { id, reason: RemoveReason::Expired, .. } => {
                services.get(id).is_some_and(|service| !service.passing)
            }
            _ => true,
        });
        let mut sent: Vec<Sent> = Vec::new();
        sent.extend(self.pending.take_doubtful(GROUP_MAX, now).into_iter().map(Sent::Restore));
        let kept = self.pending.expiring().min(EXPIRIES_MIN);
        let gathered: Vec<Queued> = self.pending.take_gathered(GROUP_MAX - kept).collect();
        let expiries = self.take_expiries(GROUP_MAX - gathered.len(), now);
        sent.extend(gathered.into_iter().chain(expiries).map(Sent::Write));
        for id in self.pending.take_heartbeats(GROUP_MAX, now) {
            if self.pending.is_id_claimed(&id) {
                // What is being changed may have been heard of since: its heartbeat is written afterwards.
                self.pending.heartbeat(id, now);
            } else if self.services.get(&id).is_some() {
                sent.push(Sent::Renew(id));
            }
        }
        if sent.is_empty() {
            return None;
        }
        let changes = sent.iter().map(|sent| self.to_change(sent)).collect();
        self.pending.send(sent, now);
        Some(changes)
    }

    fn to_change(&self, sent: &Sent) -> Change {
        match sent {
            Sent::Write(Queued { write: Write::Put { service, unique }, .. }) => {
                Change::Put { record: service.to_record(), unique: unique.clone() }
            }
            Sent::Write(Queued { write: Write::Remove { id, reason, .. }, .. }) => {
                Change::Remove { id: id.to_string(), reason: *reason }
            }
            Sent::Restore(id) => match self.services.get(id) {
                Some(service) => Change::Put { record: service.to_record(), unique: None },
                None => Change::Remove { id: id.to_string(), reason: RemoveReason::Deregistered },
            },
            Sent::Renew(id) => {
                let last_heartbeat_ms = self.services.get(id).map_or(0, Service::last_heartbeat_ms);
                Change::Renew { id: id.to_string(), last_heartbeat_ms }
            }
        }
    }

    /// What became of the group that [`next_group`](Self::next_group) gave.
    pub fn committed(&mut self, result: Result<Vec<Outcome>, Error>, now: Now, out: &mut Output<C>) {
        self.services.advance(now.uptime_ms);
        let sent = self.pending.take_sent();
        let outcomes = match result {
            Ok(outcomes) if outcomes.len() == sent.len() => Ok(outcomes),
            Ok(outcomes) => Err(format!("{} outcomes for {} changes", outcomes.len(), sent.len())),
            Err(error) => Err(error.to_string()),
        };
        let since_ms = self.storage_error.as_ref().map_or(now.unix_ms, |(_, since_ms)| *since_ms);
        self.storage_error = outcomes.as_ref().err().map(|error| (error.clone(), since_ms));
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes.into_iter().map(Some).collect(),
            Err(_) => {
                self.pending.back_off(now);
                vec![None; sent.len()]
            }
        };
        for (sent, outcome) in sent.into_iter().zip(outcomes) {
            match sent {
                Sent::Write(queued) => self.landed(queued, outcome, now, out),
                Sent::Restore(id) => self.restored(id, outcome),
                Sent::Renew(id) => match outcome {
                    Some(Outcome::Done { .. }) => {}
                    // The store has lost it.
                    Some(Outcome::Missing) if self.services.get(&id).is_some() => self.pending.doubt(id),
                    Some(_) => {}
                    None => self.pending.heartbeat(id, now),
                },
            }
        }
        self.settle(out);
    }

    /// Admits what had to wait for changes that are through by now.
    pub(super) fn settle(&mut self, out: &mut Output<C>) {
        let deferred: VecDeque<Deferred> = self.pending.settle(self.unconfirmed.iter().map(|own| own.id()));
        for deferred in deferred {
            self.admit(deferred, out);
        }
    }

    fn restored(&mut self, id: Arc<str>, outcome: Option<Outcome>) {
        match outcome {
            Some(Outcome::Done { revision }) => self.revision = self.revision.max(revision),
            Some(Outcome::Missing) => {}
            Some(_) | None => self.pending.doubt(id),
        }
    }

    fn landed(&mut self, queued: Queued, outcome: Option<Outcome>, now: Now, out: &mut Output<C>) {
        let Queued { ticket, write } = queued;
        let is_given_up = ticket.is_some_and(|ticket| !self.pending.is_waiting(ticket));
        match outcome {
            Some(Outcome::Done { revision }) if self.policy.watches => {
                if let Some(write) = self.await_turn(ticket, write, revision) {
                    self.answer(ticket, done(&write), out);
                }
            }
            Some(Outcome::Done { revision }) => {
                if is_given_up {
                    self.revision = self.revision.max(revision);
                    self.pending.doubt(write.id().clone());
                } else {
                    self.take_effect(ticket, write, revision, now, out);
                }
            }
            Some(Outcome::Missing) if matches!(write, Write::Remove { .. }) => {
                // It is gone, which is what was wanted.
                self.take_effect(ticket, write, self.revision, now, out);
            }
            Some(Outcome::Conflict { id }) => {
                let name = match &write {
                    Write::Put { unique: Some(name), .. } => name,
                    _ => "",
                };
                self.answer(ticket, duplicate(name, &id), out);
            }
            Some(Outcome::Refused(error)) => {
                let refusal = Reply::failure(Code::BackendRefused, error_text(&write)).text("message", error.message());
                self.answer(ticket, refusal, out);
            }
            Some(_) | None => {
                self.pending.doubt(write.id().clone());
                let refusal = Reply::failure(Code::BackendUnavailable, error_text(&write));
                self.answer(ticket, refusal.text("message", "the storage failed, nothing has been changed"), out);
            }
        }
    }

    /// Makes a stored change visible, answers it and announces it.
    pub(super) fn take_effect(
        &mut self,
        ticket: Option<u64>,
        write: Write,
        revision: u64,
        now: Now,
        out: &mut Output<C>,
    ) {
        self.revision = self.revision.max(revision);
        let reply = done(&write);
        match write {
            Write::Put { mut service, unique } => {
                let is_other = |other: &&Service| other.id() != service.id();
                let taken = |name: &String| {
                    self.services.passing_of_type(name).find(is_other).map(|other| duplicate(name, other.id()))
                };
                if let Some(refusal) = unique.as_ref().and_then(taken) {
                    // Whoever was to make way for it has been heard of since.
                    self.pending.doubt(service.id().clone());
                    return self.answer(ticket, refusal, out);
                }
                service.revision = revision;
                if let Some(earlier) = self.services.get(service.id()) {
                    service.inherit_heartbeat(earlier);
                }
                self.announce(EventKind::Register, &service, now, out);
                self.services.put(*service);
            }
            Write::Remove { id, reason, .. } => {
                let is_expiry = reason == RemoveReason::Expired;
                if is_expiry && self.services.get(&id).is_some_and(|service| service.passing) {
                    // It was heard of while the store was removing it.
                    self.pending.doubt(id);
                    return;
                }
                if let Some(service) = self.services.remove(&id) {
                    let kind = if is_expiry { EventKind::Expire } else { EventKind::Deregister };
                    self.announce(kind, &service, now, out);
                }
            }
        }
        self.answer(ticket, reply, out);
    }

    /// Tells whoever has waited too long that nothing came of it.
    pub(super) fn give_up_waiting(&mut self, now: Now, out: &mut Output<C>) {
        let mut gave_up = false;
        while let Some((caller, wait)) = self.pending.timed_out(now.uptime_ms) {
            gave_up = true;
            let reply = match wait {
                Wait::Choice { service_type } => self.pick(&service_type),
                Wait::Change { error, .. } => Reply::failure(Code::BackendUnavailable, error)
                    .text("message", "the storage did not answer in time, nothing has been changed"),
            };
            out.replies.push((caller, reply));
        }
        if gave_up {
            self.pending.retain_gathered(|_| true);
            self.settle(out);
        }
    }

    pub(super) fn answer(&mut self, ticket: Option<u64>, reply: Reply, out: &mut Output<C>) {
        if let Some((caller, _)) = ticket.and_then(|ticket| self.pending.answer(ticket)) {
            out.replies.push((caller, reply));
        }
    }

    /// Makes the heartbeats due that gather: the host is about to stop.
    pub fn hurry(&mut self) {
        self.pending.hurry_heartbeats();
    }

    /// Whether nothing waits for the store.
    pub fn is_idle(&self) -> bool {
        self.pending.is_idle()
    }
}

fn expiry(service: &Service) -> Queued {
    let write =
        Write::Remove { id: service.id().clone(), reason: RemoveReason::Expired, types: service.types().clone() };
    Queued { ticket: None, write }
}

fn error_text(write: &Write) -> &'static str {
    match write {
        Write::Put { .. } => REGISTER_FAILED,
        Write::Remove { .. } => DEREGISTER_FAILED,
    }
}

/// The reply to a change that has been made.
pub(super) fn done(write: &Write) -> Reply {
    match write {
        Write::Put { service, .. } => {
            Reply::success().text("service_id", service.id()).text("message", "Service registered successfully")
        }
        Write::Remove { .. } => Reply::success().text("message", "Service deregistered successfully"),
    }
}

fn duplicate(service_type: &str, existing: &str) -> Reply {
    let message = format!("Service type '{service_type}' is already registered by service_id '{existing}'.");
    Reply::failure(Code::DuplicateServiceType, "duplicate_service_type")
        .text("message", &message)
        .text("service_type", service_type)
        .text("existing_service_id", existing)
}
