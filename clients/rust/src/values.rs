//! What calls give.

use serde_json::{Map, Value};

use crate::record::Record;

/// A place in the history of a registry: its changes are counted by revisions, and an epoch names the history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// The history.
    pub epoch: String,
    /// The last change that has been seen in it.
    pub revision: u64,
}

impl Position {
    /// A place that was noted earlier.
    pub fn new(epoch: impl Into<String>, revision: u64) -> Self {
        Position { epoch: epoch.into(), revision }
    }

    pub(crate) fn of(reply: &Value) -> Option<Self> {
        Some(Position::new(reply.get("epoch")?.as_str()?, reply.get("revision")?.as_u64()?))
    }
}

/// Services, and when that was all.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listing {
    /// The services, each once.
    pub services: Vec<Record>,
    /// The moment: a [`watch`](crate::Registry::watch_after) from here tells of every change since. An older registry
    /// may tell none.
    pub position: Option<Position>,
    /// For how many seconds the registry could not be sure of its state, if it could not.
    pub stale_seconds: Option<f64>,
}

/// How many services are found by a type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypeCount {
    /// Healthy ones that are discovered.
    pub passing: u64,
    /// Healthy ones that are not, because they are drained. An older registry has none.
    pub drained: u64,
    /// Those whose heartbeats are late.
    pub critical: u64,
}

/// That a service is drained: it is registered, and not discovered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drain {
    /// Since when, in seconds since 1970 by the registry's clock.
    pub since: Option<u64>,
    /// Until when, by the same clock; without, until somebody ends it.
    pub until: Option<u64>,
    /// Why, if that was said.
    pub reason: Option<String>,
}

impl Drain {
    pub(crate) fn read(drain: &Map<String, Value>) -> Self {
        let time = |field: &str| drain.get(field).and_then(Value::as_u64);
        let reason = drain.get("reason").and_then(Value::as_str).map(String::from);
        Drain { since: time("since"), until: time("until"), reason }
    }
}

/// Something that happened to a service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HistoryEntry {
    /// When, in seconds since 1970 by the registry's clock.
    pub timestamp: f64,
    /// What: `registered`, `replaced`, `updated`, `drained`, `undrained`, `deregistered`, `expired`, `refused`; newer
    /// registries may know more.
    pub what: String,
    /// By whom: the client's address.
    pub address: Option<String>,
    /// By whom: the client's public key.
    pub key: Option<String>,
    /// All that was told.
    pub fields: Map<String, Value>,
}

impl HistoryEntry {
    pub(crate) fn read(entry: &Value) -> Option<Self> {
        let by = |field: &str| Some(entry.get("by")?.get(field)?.as_str()?.to_string());
        Some(HistoryEntry {
            timestamp: entry.get("timestamp")?.as_f64()?,
            what: entry.get("what")?.as_str()?.to_string(),
            address: by("address"),
            key: by("key"),
            fields: entry.as_object()?.clone(),
        })
    }
}

/// How a registry is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Whether its answers can be relied on, and changes are taken.
    pub ready: bool,
    /// Why it is not ready.
    pub not_ready: Vec<String>,
    /// The whole reply.
    pub fields: Map<String, Value>,
}

impl Health {
    pub(crate) fn read(reply: &Value) -> Self {
        let texts = reply.get("not_ready").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        // An older registry tells of its storage only.
        let is_well = reply["backend"]["state"].as_str().is_none_or(|state| state == "ok");
        Health {
            ready: reply.get("ready").and_then(Value::as_bool).unwrap_or(is_well),
            not_ready: texts.map(String::from).collect(),
            fields: reply.as_object().cloned().unwrap_or_default(),
        }
    }
}

/// What a call gives that asks about many services or the registry itself, beside the time since when it may be wrong.
pub(crate) fn stale_seconds(reply: &Value) -> Option<f64> {
    reply.get("stale_seconds").and_then(Value::as_f64)
}
