//! What happens to services.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::record::Record;
use crate::values::Position;

/// What happened to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It was registered, registered again, or changed: it is there.
    Register,
    /// It was deregistered.
    Deregister,
    /// It was removed because no heartbeat came within its ttl.
    Expire,
    /// It does not meet the filter any more, or it went while nobody could tell how.
    Leave,
    /// Something that only a newer registry knows. It is not there any more.
    Other(String),
}

impl ChangeKind {
    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            ChangeKind::Register => "register",
            ChangeKind::Deregister => "deregister",
            ChangeKind::Expire => "expire",
            ChangeKind::Leave => "leave",
            ChangeKind::Other(word) => word,
        }
    }
}

impl From<&str> for ChangeKind {
    fn from(word: &str) -> Self {
        match word {
            "register" => ChangeKind::Register,
            "deregister" => ChangeKind::Deregister,
            "expire" => ChangeKind::Expire,
            "leave" => ChangeKind::Leave,
            other => ChangeKind::Other(other.to_string()),
        }
    }
}

/// One change: a `Register` puts a service, everything else takes it away.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// To which service: its record, for a `Register` the new one, otherwise the last one.
    pub record: Arc<Record>,
    /// Where this stands in the history.
    pub position: Position,
    /// When it happened, in seconds since 1970 by the registry's clock; `None` if nobody knows.
    pub timestamp: Option<f64>,
    /// Found by comparing lists, because the changes themselves were not known any more, or because the watch began with
    /// what was there.
    pub synthesized: bool,
    /// The event, but for the record.
    event: Map<String, Value>,
}

impl Change {
    /// Whether the service is there after this.
    pub fn is_there(&self) -> bool {
        self.kind == ChangeKind::Register
    }

    /// The id of the service.
    pub fn id(&self) -> &str {
        self.record.id()
    }

    /// The event as the registry sent it. One that was [`synthesized`](Self::synthesized) says so.
    pub fn to_json(&self) -> Value {
        let mut event = Value::Object(self.event.clone());
        event["data"]["service_info"] = Value::Object(self.record.fields().clone());
        event
    }

    pub(crate) fn read(mut event: Value) -> Option<Self> {
        let record = event.get_mut("data")?.get_mut("service_info")?.take();
        let position = Position::of(&event)?;
        let kind = ChangeKind::from(event.get("type")?.as_str()?);
        let timestamp = event.get("timestamp").and_then(Value::as_f64);
        let Value::Object(event) = event else { return None };
        let record = Arc::new(Record::try_from(record).ok()?);
        Some(Change { kind, record, position, timestamp, synthesized: false, event })
    }

    pub(crate) fn synthesize(kind: ChangeKind, record: Arc<Record>, position: &Position) -> Self {
        let event = json!({
            "type": kind.as_str(),
            "data": { "service_id": record.id(), "service_info": null },
            "revision": position.revision,
            "epoch": position.epoch,
            "synthesized": true,
        });
        let event = event.as_object().cloned().unwrap_or_default();
        Change { kind, record, position: position.clone(), timestamp: None, synthesized: true, event }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_what_was_sent_and_can_be_shown_again() {
        let event = json!({"type": "expire", "timestamp": 5, "data": {"service_id": "a", "service_info": {"id": "a"}},
                           "revision": 7, "previous": 6, "epoch": "e"});
        let change = Change::read(event.clone()).unwrap();
        assert_eq!((change.id(), change.is_there()), ("a", false));
        assert_eq!(change.position, Position::new("e", 7));
        assert_eq!(change.to_json().to_string(), event.to_string());
        assert!(Change::read(json!({"type": "expire"})).is_none());
    }
}
