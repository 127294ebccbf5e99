//! Events: what subscribers are told of each change.

use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use crate::json::{Shown, push_number, push_text};

/// How each body begins, up to the type's word.
const TYPE: &str = "{\"type\":\"";

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

/// One event, ready to be published.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened: the topic.
    pub kind: EventKind,
    /// To which service.
    pub service_id: Arc<str>,
    /// The body: a JSON object.
    pub json: Bytes,
    /// Where in it the service's record stands.
    pub service_info: Range<usize>,
}

impl Event {
    /// The event of a change to a service, which was the store's `revision` in the history `epoch`. The event before it
    /// had the revision `previous`: a subscriber that has not seen that one has missed something.
    pub fn new(
        kind: EventKind,
        service_id: &Arc<str>,
        service: &impl Shown,
        unix_seconds: u64,
        epoch: &str,
        (revision, previous): (u64, u64),
    ) -> Self {
        let mut json = String::with_capacity(512);
        json.push_str(TYPE);
        json.push_str(kind.as_str());
        json.push_str("\",\"timestamp\":");
        push_number(&mut json, unix_seconds);
        json.push_str(",\"data\":{\"service_id\":");
        push_text(&mut json, service_id);
        json.push_str(",\"service_info\":");
        let begin = json.len();
        service.show(&mut json);
        let service_info = begin..json.len();
        json.push_str("},\"revision\":");
        push_number(&mut json, revision);
        json.push_str(",\"previous\":");
        push_number(&mut json, previous);
        json.push_str(",\"epoch\":");
        push_text(&mut json, epoch);
        json.push('}');
        // It may be kept for long.
        let json = json.into_boxed_str().into_boxed_bytes().into();
        Event { kind, service_id: service_id.clone(), json, service_info }
    }
}

/// What is told of a change to whoever follows only some services, and no longer this one: the body of a `register`
/// event with another type. The event is these two behind each other.
pub fn leave(register: &Bytes) -> (&'static str, Bytes) {
    let rest = TYPE.len() + EventKind::Register.as_str().len();
    ("{\"type\":\"leave", register.slice(rest.min(register.len())..))
}

/// What subscribers are told that is no change of a service: it has no revision, and followers of changes may pass it
/// over.
#[derive(Clone, Debug)]
pub struct Notice {
    /// What it is about: the topic, and the event's `type`.
    pub topic: &'static str,
    /// The body: a JSON object.
    pub json: String,
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

    #[test]
    fn an_event_tells_of_whom_what_and_when() {
        struct Camera;
        impl Shown for Camera {
            fn show(&self, json: &mut String) {
                json.push_str("{\"id\":\"a\\\"b\"}");
            }
        }
        let event = Event::new(EventKind::Expire, &"a\"b".into(), &Camera, 1_764_115_200, "e", (7, 5));
        let expected = concat!(
            r#"{"type":"expire","timestamp":1764115200,"data":{"service_id":"a\"b","service_info":{"id":"a\"b"}},"#,
            r#""revision":7,"previous":5,"epoch":"e"}"#
        );
        let json = str::from_utf8(&event.json).unwrap();
        assert_eq!(&json[event.service_info], r#"{"id":"a\"b"}"#);
        assert_eq!((json, &*event.service_id, event.kind), (expected, "a\"b", EventKind::Expire));
    }

    #[test]
    fn who_loses_sight_of_a_service_is_told_its_new_record() {
        struct Record;
        impl Shown for Record {
            fn show(&self, json: &mut String) {
                json.push_str("{\"id\":\"a\"}");
            }
        }
        let event = Event::new(EventKind::Register, &"a".into(), &Record, 7, "e", (2, 1));
        let (begin, rest) = leave(&event.json);
        let expected = str::from_utf8(&event.json).unwrap().replacen("register", "leave", 1);
        assert_eq!([begin.as_bytes(), &rest].concat(), expected.as_bytes());
    }
}
