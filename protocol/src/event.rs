//! Events: what subscribers are told of each change.

use std::str::FromStr;
use std::sync::Arc;

use crate::json::{Shown, push_number, push_text};

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
    /// All kinds.
    pub const ALL: [EventKind; 3] = [EventKind::Register, EventKind::Deregister, EventKind::Expire];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Register => "register",
            EventKind::Deregister => "deregister",
            EventKind::Expire => "expire",
        }
    }
}

impl FromStr for EventKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let kind = EventKind::ALL.into_iter().find(|kind| kind.as_str() == word);
        kind.ok_or_else(|| {
            format!("unknown event {word:?}, expected one of {}", EventKind::ALL.map(EventKind::as_str).join(", "))
        })
    }
}

/// Where a change stands in the store's history.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The history's name.
    pub epoch: &'a str,
    /// The change's revision.
    pub revision: u64,
    /// The revision of the event before. Who has seen no event since an older one has missed something.
    pub previous: u64,
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
    /// The event of a change to `service`.
    pub fn new(kind: EventKind, service: &impl Shown, unix_seconds: u64, place: Place<'_>) -> Self {
        let mut json = String::with_capacity(256);
        json.push_str("{\"type\":\"");
        json.push_str(kind.as_str());
        json.push_str("\",\"timestamp\":");
        push_number(&mut json, unix_seconds);
        json.push_str(",\"data\":{\"service_id\":");
        push_text(&mut json, service.id());
        json.push_str(",\"service_info\":");
        service.show(&mut json);
        json.push_str("},\"revision\":");
        push_number(&mut json, place.revision);
        json.push_str(",\"previous\":");
        push_number(&mut json, place.previous);
        json.push_str(",\"epoch\":");
        push_text(&mut json, place.epoch);
        json.push('}');
        Event { kind, service_id: service.id().clone(), json }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_one_word() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        let error = "unknown event \"removed\", expected one of register, deregister, expire";
        assert_eq!("removed".parse::<EventKind>(), Err(error.to_string()));
    }
}
