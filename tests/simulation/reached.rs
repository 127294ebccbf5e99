//! What a simulation has come to: a fault that never happens is a test that never fails.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::history::{Drain, Event, Kind};

/// Everything that a run of some length has to reach.
pub(crate) const KINDS: [&str; 67] = [
    "store: slow",
    "store: late",
    "store: lost a reply",
    "store: first part",
    "store: refused all",
    "store: refused single changes",
    "store: full",
    "store: away for a while",
    "store: hung until given up",
    "store: wrong number of outcomes",
    "store: lost a record",
    "store: missed a record",
    "store: restored from a backup",
    "kill: nothing of a group landed",
    "kill: part of a group landed",
    "kill: a whole group landed",
    "host: killed",
    "host: killed in the middle of a turn",
    "host: stopped with the store well",
    "host: stopped with the store in trouble",
    "host: held up",
    "host: held up unnoticed",
    "wall clock: ahead",
    "wall clock: back",
    "answer: backend_unavailable",
    "answer: backend_refused",
    "answer: duplicate_service_type",
    "answer: forbidden",
    "answer: overloaded",
    "answer: not_found",
    "answer: deregistered",
    "answer: replaced",
    "event: register of an update",
    "event: update on an update",
    "event: expire",
    "event: drained",
    "event: undrained",
    "event: register of what is drained",
    "start: a drained service is there",
    "move: done",
    "move: given up",
    "move: changes are let go",
    "move: the new store is unmarked",
    "move: the store in charge is told that it is",
    "start: on the other store",
    "kill: while a move is opening",
    "kill: while a move is filling",
    "kill: while a move is held",
    "kill: while a move is ready",
    "kill: while a move is closing",
    "kill: while a move is taking back",
    "kill: while a move is unmarking",
    "kill: while a move is promoting",
    "mass expiry: begun",
    "mass expiry: ended, returned",
    "mass expiry: ended, hold_over",
    "mass expiry: ended, remove",
    "mass expiry: ended, keep",
    "host: forgave a silence",
    "list: in pieces",
    "list: shows what is still to be told",
    "answer: compacted",
    "watch: told of changes",
    "watch: told of what was before a start",
    "watch: told that a service leaves",
    "watch: nothing in time",
    "watch: answered at the end",
];

#[derive(Clone, Debug, Default)]
pub(crate) struct Reached {
    pub(crate) counts: BTreeMap<String, u64>,
    pub(crate) requests: u64,
    pub(crate) simulated_ms: u64,
    /// The services of the last events: generation and drain.
    known: HashMap<String, (Option<u64>, Option<Drain>)>,
}

impl Reached {
    pub(crate) fn note(&mut self, kind: &str) {
        match self.counts.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(self.counts.insert(kind.into(), 1)),
        }
    }

    pub(crate) fn note_event(&mut self, event: &Event) {
        let Event { kind, service, .. } = event;
        self.note(match kind {
            Kind::Registered => "event: register",
            Kind::Deregistered => "event: deregister",
            Kind::Expired => "event: expire",
        });
        if *kind == Kind::Registered && service.updated.is_some() {
            self.note("event: register of an update");
            if service.fixed["metadata"].as_object().is_some_and(|fields| fields.len() > 3) {
                self.note("event: update on an update");
            }
        }
        // A registration has a generation of its own.
        let is = (service.generation, service.drain);
        let was = match kind {
            Kind::Registered => self.known.insert(service.id.clone(), is),
            _ => self.known.remove(&service.id),
        };
        if let (Kind::Registered, Some((generation, drain))) = (kind, was) {
            match (drain, is.1) {
                (None, Some(_)) => self.note("event: drained"),
                (Some(_), None) => self.note("event: undrained"),
                (Some(_), Some(_)) if generation != is.0 => self.note("event: register of what is drained"),
                _ => {}
            }
        }
    }

    pub(crate) fn note_notice(&mut self, notice: &Value) {
        let [state, reason] = ["state", "reason"].map(|field| notice[field].as_str());
        self.note(&match (state, reason) {
            (Some(state), Some(reason)) => format!("mass expiry: {state}, {reason}"),
            (state, _) => format!("mass expiry: {}", state.unwrap_or("unreadable")),
        });
    }

    pub(crate) fn add(&mut self, other: &Reached) {
        for (kind, count) in &other.counts {
            *self.counts.entry(kind.clone()).or_default() += count;
        }
        self.requests += other.requests;
        self.simulated_ms += other.simulated_ms;
    }

    /// What has not happened.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        KINDS.into_iter().filter(|kind| !self.counts.contains_key(*kind)).collect()
    }
}
