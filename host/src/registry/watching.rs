//! Stores that other hosts write to as well: what they change, and the order in which all changes happened.
//!
//! With such a store a change of this host is not announced when the store has said yes, but when the store's history
//! has reached it: what another host changed before comes first. Until then it waits here.

use std::collections::HashSet;
use std::sync::Arc;

use registry_plugin_api::{Change, Observed, Record, RemoveReason};

use crate::protocol::event::EventKind;
use crate::registry::changes::done;
use crate::registry::pending::Write;
use crate::registry::service::Service;
use crate::registry::{Now, Output, Registry};

/// A stored record that cannot be a service. It is left as it is, and left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The record's id.
    pub id: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A change of this host that is stored, and waits for its turn.
pub(super) struct Unconfirmed {
    revision: u64,
    ticket: Option<u64>,
    write: Write,
}

impl Unconfirmed {
    pub(super) fn id(&self) -> &Arc<str> {
        self.write.id()
    }
}

impl<C> Registry<C> {
    /// Keeps a stored change until the store's history has reached it, and gives it back if it has.
    pub(super) fn await_turn(&mut self, ticket: Option<u64>, write: Write, revision: u64) -> Option<Write> {
        if revision <= self.watched_revision {
            return Some(write);
        }
        self.unconfirmed.push_back(Unconfirmed { revision, ticket, write });
        None
    }

    /// Takes over what the store tells of its history, this host's own changes included. Returns what it could not
    /// take over.
    pub fn observed(&mut self, observed: Vec<Observed>, now: Now, out: &mut Output<C>) -> Vec<Unreadable> {
        self.services.advance(now.uptime_ms);
        let mut bad = Vec::new();
        for Observed { revision, change, .. } in observed {
            let mut own = false;
            while self.unconfirmed.front().is_some_and(|first| first.revision <= revision) {
                let Some(first) = self.unconfirmed.pop_front() else { break };
                own |= first.revision == revision;
                self.take_turn(first, now, out);
            }
            let is_renewal = matches!(change, Change::Renew { .. });
            if !own && (is_renewal || revision > self.watched_revision) {
                self.revision = self.revision.max(revision);
                let id = change.id().to_string();
                if let Err(reason) = self.apply(change, revision, now, out) {
                    bad.push(Unreadable { id, reason });
                }
            }
            self.watched_revision = self.watched_revision.max(revision);
        }
        self.settle(out);
        bad
    }

    /// Takes over all that is stored, after the store has lost track of what changed: what differs is announced.
    pub fn reload(
        &mut self,
        epoch: String,
        revision: u64,
        records: Vec<Record>,
        now: Now,
        out: &mut Output<C>,
    ) -> Vec<Unreadable> {
        self.services.advance(now.uptime_ms);
        (self.epoch, self.revision, self.watched_revision) = (epoch, revision, revision);
        let kept: HashSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
        let gone: Vec<Arc<str>> = self.services.iter().map(|service| service.id().clone()).collect();
        for id in gone.into_iter().filter(|id| !kept.contains(&**id)) {
            if let Some(service) = self.services.remove(&id) {
                self.announce(EventKind::Deregister, &service, now, out);
            }
        }
        let mut bad = Vec::new();
        for record in records {
            let id = record.id.clone();
            match Service::from_record(record, now) {
                Ok(service) => {
                    if self.services.get(&id).is_none_or(|present| present.revision != service.revision) {
                        self.announce(EventKind::Register, &service, now, out);
                    }
                    self.services.put(service);
                }
                Err(reason) => bad.push(Unreadable { id, reason }),
            }
        }
        // What was stored before the store lost track is among what was loaded.
        while let Some(own) = self.unconfirmed.pop_front() {
            self.answer(own.ticket, done(&own.write), out);
        }
        self.settle(out);
        bad
    }

    fn take_turn(&mut self, own: Unconfirmed, now: Now, out: &mut Output<C>) {
        let Unconfirmed { revision, ticket, write } = own;
        if ticket.is_some_and(|ticket| !self.pending.is_waiting(ticket)) {
            self.revision = self.revision.max(revision);
            self.pending.doubt(write.id().clone());
        } else {
            self.take_effect(ticket, write, revision, now, out);
        }
    }

    /// Makes a change visible that another host has made.
    fn apply(&mut self, change: Change, revision: u64, now: Now, out: &mut Output<C>) -> Result<(), String> {
        match change {
            Change::Put { mut record, .. } => {
                record.revision = revision;
                let service = Service::from_record(record, now)?;
                self.announce(EventKind::Register, &service, now, out);
                self.services.put(service);
            }
            Change::Remove { id, reason } => {
                if let Some(service) = self.services.remove(&id) {
                    let is_expiry = reason == RemoveReason::Expired;
                    let kind = if is_expiry { EventKind::Expire } else { EventKind::Deregister };
                    self.announce(kind, &service, now, out);
                }
            }
            Change::Renew { id, last_heartbeat_ms } => {
                self.services.renew(&id, now.uptime_ms, last_heartbeat_ms);
            }
        }
        Ok(())
    }
}
