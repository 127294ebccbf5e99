//! The lives of services: heartbeats, which generation is the living one, and how lives have ended.

use std::sync::Arc;

use crate::protocol::event::EventKind;
use crate::protocol::json::{Shown, push_text};
use crate::protocol::lives::{GENERATION_MAX, Renewal};
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::Request;
use crate::registry::Registry;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::service::Service;
use crate::registry::trail::{Cause, Deed, Refused, What};
use crate::security::origin::{Address, Origin};
use crate::security::quota::Quota;

const RENEW_FAILED: &str = "Service not found or could not be renewed";

/// Why something is refused, for those who ask for a service's history.
#[derive(Clone, Debug)]
pub(super) enum Reason {
    /// It is a duplicate of this one.
    Duplicate(Arc<str>),
    /// The service belongs to another key.
    Foreign,
    /// The service is of another generation.
    Replaced,
    /// There is no such service: nothing to tell.
    Absent,
    /// The storage does not take it.
    Storage,
    /// The rules do not allow it.
    NotAllowed,
    /// Its client has as many as this quota allows.
    Quota(Arc<Quota>),
}

impl Reason {
    fn refused(self, action: &'static str) -> Option<Refused> {
        let (code, message) = match &self {
            Reason::Absent => return None,
            Reason::Duplicate(_) => (Code::DuplicateServiceType, "another service has its type"),
            Reason::Foreign => (Code::Forbidden, "it belongs to another key"),
            Reason::Replaced => (Code::Replaced, "another registration has taken its place"),
            Reason::Storage => (Code::BackendRefused, "the storage does not take it"),
            Reason::Quota(_) => (Code::QuotaExceeded, "its client has as many services as it may"),
            Reason::NotAllowed => (Code::Forbidden, "this key is not allowed to register it"),
        };
        let existing = if let Reason::Duplicate(existing) = self { Some(existing) } else { None };
        Some(Refused { action, code, message, existing })
    }
}

/// The reply to whoever names a generation that is not the current one.
pub(super) fn replaced(error: &str) -> Reply {
    Reply::failure(Code::Replaced, error).text("message", "another registration has taken its place")
}

/// A heartbeat among several that failed.
struct Failed {
    service_id: String,
    code: Code,
    error: &'static str,
}

impl Shown for Failed {
    fn show(&self, json: &mut String) {
        json.push_str("{\"service_id\":");
        push_text(json, &self.service_id);
        json.push_str(",\"code\":");
        push_text(json, self.code.as_str());
        json.push_str(",\"error\":");
        push_text(json, self.error);
        json.push('}');
    }
}

impl<C> Registry<C> {
    pub(super) fn renew(
        &mut self,
        origin: Origin,
        service_id: &str,
        generation: Option<u64>,
        now: Now,
        out: &mut Output<C>,
    ) -> Reply {
        match self.beat(origin, service_id, generation, now) {
            Ok(()) => {
                self.end_silence(now, out);
                self.tell_waiting(now, out);
                Reply::success().text("message", "Service renewed successfully")
            }
            Err(Reason::Foreign) => {
                self.forbid(origin.principal, &format!("to renew {service_id:?}, which belongs to another key"), out)
            }
            Err(Reason::Replaced) => replaced(RENEW_FAILED),
            Err(_) => self.absent(service_id, RENEW_FAILED, now.uptime_ms),
        }
    }

    /// Heartbeats of many services. Those that fail are listed.
    pub(super) fn renew_many(
        &mut self,
        origin: Origin,
        renewals: Vec<Renewal>,
        now: Now,
        out: &mut Output<C>,
    ) -> Reply {
        let (mut renewed, mut failed, mut foreign) = (0, Vec::new(), 0_usize);
        for Renewal { service_id, generation } in renewals {
            let (code, error) = match self.beat(origin, &service_id, generation, now) {
                Ok(()) => {
                    renewed += 1;
                    continue;
                }
                Err(Reason::Foreign) => {
                    foreign += 1;
                    (Code::Forbidden, "Not allowed")
                }
                Err(Reason::Replaced) => (Code::Replaced, RENEW_FAILED),
                Err(_) => (self.absence(&service_id, now.uptime_ms), RENEW_FAILED),
            };
            failed.push(Failed { service_id, code, error });
        }
        if renewed > 0 {
            self.end_silence(now, out);
        }
        if foreign > 0 {
            // Operators are told once, clients of each.
            let what = format!("to renew services of other keys, {foreign} in one message");
            self.forbid(origin.principal, &what, out);
        }
        Reply::success().number("renewed", renewed).services("failed", failed.into_iter())
    }

    /// A heartbeat of one service, or why it is none.
    fn beat(&mut self, origin: Origin, service_id: &str, generation: Option<u64>, now: Now) -> Result<(), Reason> {
        let Some(service) = self.services.get(service_id) else { return Err(Reason::Absent) };
        let reason = if !self.policy.access.may_change(&origin.principal, service.owner()) {
            Reason::Foreign
        } else if generation.is_some_and(|generation| service.is_before(generation)) {
            Reason::Absent
        } else if generation.is_some_and(|generation| generation != service.generation()) {
            Reason::Replaced
        } else {
            let was_critical = !service.is_passing(now.uptime_ms);
            let is_from_anywhere = service.from() == Address::Unknown;
            if let Some(service) = self.services.renew(service_id, now.uptime_ms, now.unix_ms) {
                self.changes.upkeep.heartbeat(service.id().clone(), now);
            }
            if is_from_anywhere {
                self.services.note_address(service_id, origin.address);
            }
            if was_critical {
                self.has_come(service_id);
            }
            return Ok(());
        };
        self.note_refused(service_id, "renew", reason.clone(), origin, now);
        Err(reason)
    }

    /// What has happened to a service.
    pub(super) fn history(&self, service_id: &str, limit: Option<usize>) -> Reply {
        let entries = self.trail.of(service_id, limit);
        Reply::success().text("service_id", service_id).services("history", entries.into_iter())
    }

    /// The reply to whoever wants something of a service that is not there.
    pub(super) fn absent(&self, service_id: &str, error: &str, uptime_ms: u64) -> Reply {
        match self.absence(service_id, uptime_ms) {
            Code::Deregistered => Reply::failure(Code::Deregistered, error)
                .text("message", "it was deregistered, and has not been registered since"),
            code => Reply::failure(code, error),
        }
    }

    fn absence(&self, service_id: &str, uptime_ms: u64) -> Code {
        if self.past.is_gone(service_id, uptime_ms) { Code::Deregistered } else { Code::NotFound }
    }

    /// No registration gets this generation again, nor one before it.
    pub(super) fn note_generation(&mut self, generation: Option<u64>) {
        // What is so great was no registry's, and nothing that clients can name would be left after it.
        let generation = generation.filter(|generation| *generation <= GENERATION_MAX / 2).unwrap_or_default();
        self.changes.generation = self.changes.generation.max(generation);
    }

    /// Notes a change of before the start, which the store has kept: in their order, and with the time as it is now.
    pub fn note_past(&mut self, (kind, cause): (EventKind, Cause), service_id: &str, unix_ms: u64, now: Now) {
        let then = Now { unix_ms, ..now };
        let id: Arc<str> = service_id.into();
        // No registration of then had a greater one, unless the wall clock had been set back: then that was kept as well.
        // Times are kept in whole seconds.
        self.changes.generation = self.changes.generation.max(unix_ms.saturating_add(999));
        let what = match (kind, cause.amended) {
            (EventKind::Register, Some(amendment)) => amendment.what(),
            (EventKind::Register, None) if self.trail.was_there(service_id) => What::Replaced,
            (EventKind::Register, None) => What::Registered,
            (EventKind::Deregister, _) => What::Deregistered,
            (EventKind::Expire, _) => What::Expired(None),
        };
        self.trail.note(service_id, what, cause.by, then);
        if let (EventKind::Register, None, Some(by)) = (kind, cause.amended, cause.by) {
            self.services.note_address(service_id, by.address);
        }
        match kind {
            EventKind::Register => self.past.registered(service_id),
            EventKind::Deregister => self.past.deregistered_at(&id, unix_ms, now),
            EventKind::Expire => {}
        }
    }

    /// From now on what is done is kept for the audit, until it is taken.
    pub fn begin_audit(&mut self) {
        self.trail.begin_audit();
    }

    /// Takes what was done since the last time, for the audit.
    pub fn take_deeds(&mut self) -> Vec<Deed> {
        self.trail.take_deeds()
    }

    /// Sets how much may be kept of what has happened to services, in bytes.
    pub fn set_service_history_bytes(&mut self, bytes: usize) {
        self.trail.set_bytes(bytes);
    }

    /// A service is no more.
    pub(super) fn note_removal(&mut self, service: &Service, kind: EventKind, by: Option<Origin>, now: Now) {
        let what = match kind {
            EventKind::Deregister => {
                self.past.deregistered(service.id(), now);
                What::Deregistered
            }
            _ => What::Expired(Some(service.silent_ms(now.uptime_ms) / 1000)),
        };
        self.trail.note(service.id(), what, by, now);
    }

    pub(super) fn note_refused(&mut self, id: &str, action: &'static str, reason: Reason, origin: Origin, now: Now) {
        if let Some(refused) = reason.refused(action) {
            self.trail.note(id, What::Refused(refused), Some(origin), now);
        }
    }

    /// A request was refused before anything was looked at.
    pub(super) fn note_unauthorised(&mut self, request: &Request, origin: Origin, now: Now) {
        if let Request::Register(registration) = request
            && let Some(id) = &registration.id
        {
            self.note_refused(id, "register", Reason::NotAllowed, origin, now);
        }
    }
}
