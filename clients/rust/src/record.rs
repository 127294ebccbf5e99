//! Services as the registry shows them.

use std::fmt;

use serde_json::{Map, Value};

use crate::values::Drain;

/// A service as the registry shows it: what was registered, and what the registry adds.
///
/// With `fields` in a [`Filter`](crate::Filter) it has only these; then the rest reads as if it were not there.
///
/// ```
/// use registry_client::Record;
/// use serde_json::json;
///
/// let shown = json!({"id": "camera-1", "name": "Camera", "host": "10.0.0.7", "port": 7000, "protocol": "tcp"});
/// let record = Record::try_from(shown).unwrap();
/// assert_eq!(record.id(), "camera-1");
/// assert_eq!(record.address(), Some("10.0.0.7:7000".to_string()));
/// assert_eq!(record.endpoint(), Some("tcp://10.0.0.7:7000".to_string()));
/// assert_eq!(record.get("protocol"), Some(&json!("tcp")));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Record(Map<String, Value>);

impl Record {
    /// The service's id.
    pub fn id(&self) -> &str {
        self.text("id").unwrap_or_default()
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        self.text("name").unwrap_or_default()
    }

    /// Where it runs: a name or an address.
    pub fn host(&self) -> Option<&str> {
        self.text("host")
    }

    /// The port that it listens on.
    pub fn port(&self) -> Option<u16> {
        self.0.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok())
    }

    /// Host and port, as one connects to them: `10.0.0.7:7000`.
    pub fn address(&self) -> Option<String> {
        let (host, port) = (self.host()?, self.port()?);
        Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }

    /// The same for ZeroMQ: `tcp://10.0.0.7:7000`.
    pub fn endpoint(&self) -> Option<String> {
        Some(format!("tcp://{}", self.address()?))
    }

    /// Its type, if it has one.
    pub fn service_type(&self) -> Option<&str> {
        self.text("type")
    }

    /// Its tags; its type is among them.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.0.get("tags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether it is found by this type: one of its tags, or its `metadata.type`.
    pub fn is_of_type(&self, service_type: &str) -> bool {
        self.tags().any(|tag| tag == service_type)
            || self.metadata("type").and_then(Value::as_str) == Some(service_type)
    }

    /// What it says about itself under this key.
    pub fn metadata(&self, key: &str) -> Option<&Value> {
        self.0.get("metadata")?.get(key)
    }

    /// How many seconds it is healthy without a heartbeat.
    pub fn ttl(&self) -> Option<f64> {
        self.0.get("ttl").and_then(Value::as_f64)
    }

    /// When it was heard of last, in seconds since 1970 by the registry's clock.
    pub fn last_heartbeat(&self) -> Option<u64> {
        self.0.get("last_heartbeat").and_then(Value::as_u64)
    }

    /// `"passing"` or `"critical"`, when it was shown.
    pub fn health(&self) -> Option<&str> {
        self.text("health")
    }

    /// Whether it was healthy when it was shown.
    pub fn is_passing(&self) -> bool {
        self.health() == Some("passing")
    }

    /// Since when, how long and why it is drained, if it is.
    pub fn drain(&self) -> Option<Drain> {
        self.0.get("drain").and_then(Value::as_object).map(Drain::read)
    }

    /// Whether it was drained when it was shown: registered, and not to be discovered.
    pub fn is_drained(&self) -> bool {
        self.0.get("drain").is_some_and(Value::is_object)
    }

    /// The number of its registration, if the registry gives such numbers.
    pub fn generation(&self) -> Option<u64> {
        self.0.get("generation").and_then(Value::as_u64)
    }

    /// Any field, those of the service's own too.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    /// All fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.0.get(field).and_then(Value::as_str)
    }

    /// Whether the other one tells the same but for what changes with time alone.
    pub(crate) fn is_same_as(&self, other: &Record) -> bool {
        const WITH_TIME: [&str; 2] = ["last_heartbeat", "health"];
        let told = |record: &Record| record.0.keys().filter(|key| !WITH_TIME.contains(&key.as_str())).count();
        let is_told = |(key, value)| WITH_TIME.contains(&String::as_str(key)) || other.0.get(key) == Some(value);
        told(self) == told(other) && self.0.iter().all(is_told)
    }
}

impl TryFrom<Value> for Record {
    type Error = Value;

    /// A record from JSON, if it is an object with an id.
    fn try_from(value: Value) -> Result<Self, Value> {
        match value {
            Value::Object(fields) if fields.get("id").is_some_and(Value::is_string) => Ok(Record(fields)),
            other => Err(other),
        }
    }
}

impl From<Record> for Value {
    fn from(record: Record) -> Value {
        Value::Object(record.0)
    }
}

impl fmt::Display for Record {
    /// Its id, and where it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(address) => write!(f, "{} at {address}", self.id()),
            None => f.write_str(self.id()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(value: Value) -> Record {
        Record::try_from(value).unwrap()
    }

    #[test]
    fn types_are_tags_and_the_type_in_the_metadata() {
        let camera = record(json!({"id": "a", "tags": ["north"], "metadata": {"type": "camera"}}));
        assert!(camera.is_of_type("north") && camera.is_of_type("camera") && !camera.is_of_type("stage"));
    }

    #[test]
    fn heartbeats_alone_make_no_other_record() {
        let with = |beat: u64, port: u64| record(json!({"id": "a", "port": port, "last_heartbeat": beat}));
        assert!(with(1, 5).is_same_as(&with(2, 5)));
        assert!(!with(1, 5).is_same_as(&with(1, 6)));
        let more = record(json!({"id": "a", "port": 5, "x": 1, "health": "passing"}));
        assert!(!with(1, 5).is_same_as(&more) && !more.is_same_as(&with(1, 5)));
    }

    #[test]
    fn a_drain_is_read() {
        let drained = record(json!({"id": "a", "drain": {"since": 1, "until": 3, "reason": "why"}}));
        let drain = Drain { since: Some(1), until: Some(3), reason: Some("why".to_string()) };
        assert_eq!((drained.is_drained(), drained.drain()), (true, Some(drain)));
        let forever = record(json!({"id": "a", "drain": {"since": 1}}));
        assert_eq!(forever.drain(), Some(Drain { since: Some(1), until: None, reason: None }));
        let other = record(json!({"id": "a"}));
        assert_eq!((other.is_drained(), other.drain()), (false, None));
        assert!(!drained.is_same_as(&other) && !forever.is_same_as(&drained));
    }

    #[test]
    fn what_has_no_id_is_no_record() {
        assert!(Record::try_from(json!({"name": "a"})).is_err());
        assert!(Record::try_from(json!("a")).is_err());
    }
}
