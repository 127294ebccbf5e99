//! Events: what subscribers are told of each change.

use std::sync::Arc;

use crate::protocol::reply::{push_number, push_text};
use crate::registry::Service;

/// What happened to a service. The word is also the topic that subscribers filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was registered, or registered again.
    Register,
    /// It was deregistered.
    Deregister,
    /// It was removed because no heartbeat came within its ttl.
    Expire,
}

impl EventKind {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Register => "register",
            EventKind::Deregister => "deregister",
            EventKind::Expire => "expire",
        }
    }
}

/// One event, ready to be published.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened: the topic.
    pub kind: EventKind,
    /// To which service.
    pub service_id: Arc<str>,
    /// The body: a JSON object.
    pub json: String,
}

impl Event {
    /// The event of a change to `service`, which was the store's `revision` in the history `epoch`.
    pub fn new(kind: EventKind, service: &Service, unix_seconds: u64, epoch: &str, revision: u64) -> Self {
        let mut json = String::with_capacity(256);
        json.push_str("{\"type\":\"");
        json.push_str(kind.as_str());
        json.push_str("\",\"timestamp\":");
        push_number(&mut json, unix_seconds);
        json.push_str(",\"data\":{\"service_id\":");
        push_text(&mut json, service.id());
        json.push_str(",\"service_info\":");
        service.render(&mut json);
        json.push_str("},\"revision\":");
        push_number(&mut json, revision);
        json.push_str(",\"epoch\":");
        push_text(&mut json, epoch);
        json.push('}');
        Event { kind, service_id: service.id().clone(), json }
    }
}
