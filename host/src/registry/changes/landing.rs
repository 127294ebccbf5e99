//! What became of a group: a change that is stored becomes visible, is answered and announced.
//!
//! If the store fails without telling what it has stored, or if a change is stored whose client was told that nothing
//! came of it, the record is in *doubt*: the core has its own state of that record written over it, until the store has
//! said yes to that.

use std::sync::Arc;

use registry_plugin_api::{Error, Outcome};

use crate::protocol::event::EventKind;
use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::changes::admit::{NoPlace, Verdict, duplicate};
use crate::registry::changes::projection::Projection;
use crate::registry::changes::queue::Wished;
use crate::registry::changes::{DEREGISTER_FAILED, REGISTER_FAILED, Sent, Write};
use crate::registry::follow::Told;
use crate::registry::lives::{Reason, replaced};
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::quotas::over_quota;
use crate::registry::service::Service;
use crate::registry::trail::What;

impl<C> Registry<C> {
    /// What became of the group that [`next_group`](Self::next_group) gave.
    pub fn committed(&mut self, result: Result<Vec<Outcome>, Error>, now: Now, out: &mut Output<C>) {
        let (_, sent) = self.changes.sent.take().unwrap_or_default();
        let count = sent.iter().filter(|sent| !matches!(sent, Sent::Judge(_))).count();
        let outcomes = match result {
            Ok(outcomes) if outcomes.len() == count => Ok(outcomes),
            Ok(outcomes) => Err(format!("{} outcomes for {count} changes", outcomes.len())),
            Err(error) => Err(error.to_string()),
        };
        let failed = outcomes.as_ref().err().cloned();
        if failed.is_some() {
            self.changes.upkeep.back_off(now);
        }
        self.note_storage(failed, now);
        let mut outcomes = outcomes.unwrap_or_default().into_iter();
        for sent in sent {
            match sent {
                Sent::Judge(wished) => self.judge_again(wished, now, out),
                Sent::Write { ticket, write, revision, told } => {
                    self.landed(ticket, write, (revision, told), outcomes.next(), now, out);
                }
                Sent::Restore { id, undone } => self.restored(id, undone, outcomes.next(), now),
                Sent::Renew(id) => self.renewed(id, outcomes.next(), now),
            }
        }
        self.tell_waiting(now, out);
    }

    fn landed(
        &mut self,
        ticket: Option<u64>,
        write: Write,
        (revision, told): (u64, Told),
        outcome: Option<Outcome>,
        now: Now,
        out: &mut Output<C>,
    ) {
        let is_given_up = ticket.is_some_and(|ticket| !self.changes.waiters.has(ticket));
        match (outcome, &write) {
            (Some(Outcome::Done | Outcome::Missing), _) if is_given_up => self.undo(write.id().clone(), revision),
            // Missing: it is gone, which is what was wanted.
            (Some(Outcome::Done), _) | (Some(Outcome::Missing), Write::Remove { .. }) => {
                self.take_effect(ticket, write, (revision, told), now, out);
            }
            (Some(Outcome::Refused(error)), _) => {
                let refusal = Reply::failure(Code::BackendRefused, write.failure()).text("message", error.message());
                self.note_unwritten(&write, Reason::Storage, now);
                if ticket.is_none() && matches!(write, Write::Amend { .. }) {
                    // What the core itself wants is tried again, but not at once.
                    self.changes.upkeep.back_off(now);
                }
                self.answer(ticket, refusal, out);
            }
            (Some(_) | None, _) => {
                self.undo(write.id().clone(), revision);
                let refusal = Reply::failure(Code::BackendUnavailable, write.failure());
                self.answer(ticket, refusal.text("message", "the storage failed, nothing has been changed"), out);
            }
        }
    }

    /// Makes a stored change visible, answers it and announces it.
    fn take_effect(
        &mut self,
        ticket: Option<u64>,
        write: Write,
        (revision, told): (u64, Told),
        now: Now,
        out: &mut Output<C>,
    ) {
        let reply = match write {
            Write::Put { mut service, unique, origin } => {
                let principal = service.owner();
                let earlier = self.services.get(service.id()).map(Service::owner);
                if earlier.is_some_and(|owner| !self.policy.access.may_change(&principal, owner)) {
                    // Whatever was to go before it has stayed.
                    let what = format!("to replace {:?}, which belongs to another key", service.id());
                    let refusal = self.forbid(principal, &what, out);
                    self.undo(service.id().clone(), revision);
                    self.note_refused(service.id(), "register", Reason::Foreign, origin, now);
                    return self.answer(ticket, refusal, out);
                }
                let (holder, empty) = (service.holder(), Projection::default());
                if let Some(NoPlace { quota, has, .. }) =
                    self.no_place_for(service.id(), &holder, service.type_names(), &empty)
                {
                    // The store has said no to what was to leave a place for it.
                    let (refusal, quota) = (over_quota(quota, &origin, has), quota.clone());
                    self.note_over_quota(&quota, origin, now);
                    self.undo(service.id().clone(), revision);
                    self.note_refused(service.id(), "register", Reason::Quota(quota), origin, now);
                    return self.answer(ticket, refusal, out);
                }
                let rival = unique.and_then(|name| {
                    if let Some(other) = self.services.passing_other(&name, service.id(), now.uptime_ms) {
                        return Some((duplicate(&name, other.id()), Reason::Duplicate(other.id().clone())));
                    }
                    let left = self.services.critical_of_type(&name).find(|other| other.id() != service.id())?;
                    let message = format!("{:?} has run out, and the storage does not remove it", left.id());
                    let refusal = Reply::failure(Code::BackendRefused, REGISTER_FAILED).text("message", &message);
                    Some((refusal, Reason::Storage))
                });
                if let Some((refusal, reason)) = rival {
                    // Whoever was to make way for it has been heard of since, or the store keeps it.
                    self.undo(service.id().clone(), revision);
                    self.note_refused(service.id(), "register", reason, origin, now);
                    return self.answer(ticket, refusal, out);
                }
                if let Some(earlier) = self.services.get(service.id()) {
                    service.inherit_heartbeat(earlier);
                }
                self.announce(EventKind::Register, &service, revision, told, out);
                let (id, generation) = (service.id().clone(), service.generation());
                let what = if self.services.get(&id).is_some() { What::Replaced } else { What::Registered };
                self.trail.note(&id, what, Some(origin), now);
                self.past.registered(&id);
                self.services.put(*service, now.uptime_ms);
                self.has_come(&id);
                let reply = Reply::success().text("service_id", &id).text("message", "Service registered successfully");
                reply.number("generation", generation)
            }
            Write::Amend { service, base, what, by } => {
                self.amended(*service, base, (what, by), (revision, told), now, out)
            }
            Write::Remove { id, kind, by, generation } => {
                let owner = self.services.get(&id).map(Service::owner);
                if let Some((origin, owner)) = by.zip(owner)
                    && !self.policy.access.may_change(&origin.principal, owner)
                {
                    // Whatever was to go before it has stayed.
                    let what = format!("to deregister {id:?}, which belongs to another key");
                    let refusal = self.forbid(origin.principal, &what, out);
                    self.note_refused(&id, "deregister", Reason::Foreign, origin, now);
                    self.undo(id, revision);
                    return self.answer(ticket, refusal, out);
                }
                let current = self.services.get(&id).map(Service::generation);
                if generation.zip(current).is_some_and(|(named, current)| named != current) {
                    // What was to take its place is not there, or what was to be there is not.
                    self.note_refused(&id, "deregister", Reason::Replaced, by.unwrap_or_default(), now);
                    self.undo(id, revision);
                    return self.answer(ticket, replaced(DEREGISTER_FAILED), out);
                }
                let is_passing = |service: &Service| service.is_passing(now.uptime_ms);
                if kind == EventKind::Expire && self.services.get(&id).is_some_and(is_passing) {
                    // It was heard of while the store was removing it.
                    return self.undo(id, revision);
                }
                match self.services.remove(&id, now.uptime_ms) {
                    Some(service) => {
                        self.announce(kind, &service, revision, told, out);
                        self.note_removal(&service, kind, by, now);
                        Reply::success().text("message", "Service deregistered successfully")
                    }
                    // The store has said no to the registration before it.
                    None => {
                        let refusal = self.absent(&id, DEREGISTER_FAILED, now.uptime_ms);
                        self.undo(id, revision);
                        refusal
                    }
                }
            }
        };
        self.answer(ticket, reply, out);
    }

    /// Judges a wish whose answer depended on the group: what has become of that is known now.
    fn judge_again(&mut self, wished: Wished, now: Now, out: &mut Output<C>) {
        match self.judge(&wished, &Projection::default(), 0, now.uptime_ms, out) {
            Verdict::Refuse(refusal, reason) => {
                self.note_refusal(&wished, reason, now);
                self.answer(Some(wished.ticket), refusal, out);
                self.changes.queue.release(wished.wish.id());
            }
            // The store has said no to what stood in its way, or time has.
            Verdict::Write | Verdict::Later | Verdict::MakeWay(_) => self.changes.queue.hold(wished),
        }
    }

    /// The change with this revision may be stored, and nothing has come of it.
    pub(super) fn undo(&mut self, id: Arc<str>, revision: u64) {
        if self.changes.upkeep.undo(id, revision) {
            self.follow.doubt.open(revision);
        }
    }

    fn restored(&mut self, id: Arc<str>, undone: Vec<u64>, outcome: Option<Outcome>, now: Now) {
        if matches!(outcome, Some(Outcome::Done | Outcome::Missing)) {
            self.follow.doubt.close(&undone);
            return;
        }
        let is_refused = outcome.is_some();
        if is_refused {
            self.follow.doubt.refused(&undone);
        }
        self.changes.upkeep.doubt_again(id, undone, is_refused, now);
    }

    fn renewed(&mut self, id: Arc<str>, outcome: Option<Outcome>, now: Now) {
        match outcome {
            // The store has lost it.
            Some(Outcome::Missing) => self.changes.upkeep.doubt(id),
            Some(_) => {}
            None => self.changes.upkeep.heartbeat(id, now),
        }
    }
}
