//! A service that is to be registered.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// What a registry takes if a request names no ttl.
const TTL_DEFAULT: Duration = Duration::from_secs(30);

/// A service that is to be registered: what it is called, where it is, and what it says of itself.
///
/// ```
/// use std::time::Duration;
///
/// use registry_client::ServiceInfo;
///
/// let camera = ServiceInfo::new("Camera 1", 7000)
///     .service_type("camera")
///     .tag("north")
///     .metadata("serial", 4711)
///     .ttl(Duration::from_secs(10));
/// # let _ = camera;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ServiceInfo {
    name: String,
    port: u16,
    host: Option<String>,
    id: Option<String>,
    service_type: Option<String>,
    tags: Vec<String>,
    metadata: Map<String, Value>,
    ttl: Option<Duration>,
    singleton: bool,
    allow_duplicate: bool,
    own: Map<String, Value>,
}

impl ServiceInfo {
    /// A service with that name, which listens on that port. Its host is left out, unless [`host`](Self::host) says it:
    /// then it is the address that this machine has towards the registry, always the one of the moment.
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        ServiceInfo {
            name: name.into(),
            port,
            host: None,
            id: None,
            service_type: None,
            tags: Vec::new(),
            metadata: Map::new(),
            ttl: None,
            singleton: false,
            allow_duplicate: false,
            own: Map::new(),
        }
    }

    /// Where it runs: a name or an address.
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Its id. A service that is registered under it already is replaced. Without, an id is made from the name.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The type by which others discover it.
    pub fn service_type(mut self, service_type: impl Into<String>) -> Self {
        self.service_type = Some(service_type.into());
        self
    }

    /// A further type that it answers to. May be repeated.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Something to say about it. May be repeated.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// How long it lives after a heartbeat; one is sent every third of it. 30 seconds, if nothing else is said.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Refuse it if another healthy service has its type.
    pub fn singleton(mut self, singleton: bool) -> Self {
        self.singleton = singleton;
        self
    }

    /// Take it even if another healthy service has its type and the registry wants types to be unique.
    pub fn allow_duplicate_service_type(mut self, allow: bool) -> Self {
        self.allow_duplicate = allow;
        self
    }

    /// A further field of its record, such as `version` or `protocol`. May be repeated.
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.own.insert(name.into(), value.into());
        self
    }

    pub(crate) fn host_given(&self) -> Option<&str> {
        self.host.as_deref()
    }

    pub(crate) fn id_given(&self) -> Option<&str> {
        self.id.as_deref().filter(|id| !id.is_empty())
    }

    pub(crate) fn lifetime(&self) -> Duration {
        self.ttl.unwrap_or(TTL_DEFAULT)
    }

    /// An id as a registry would make it.
    pub(crate) fn make_id(&self) -> String {
        let uuid = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        format!("{}-{uuid}", self.name.to_lowercase().replace(' ', "-"))
    }

    /// Takes in a merge patch of the metadata.
    pub(crate) fn patch(&mut self, patch: &Map<String, Value>) {
        merge(&mut self.metadata, patch);
    }

    /// The request that registers it, for [`Registry::request`](crate::Registry::request): its host has to be said.
    pub fn as_request(&self) -> Value {
        self.request(None, None)
    }

    /// The request that registers it.
    pub(crate) fn request(&self, id: Option<&str>, host: Option<&str>) -> Value {
        let mut info = json!({ "name": self.name, "host": self.host.as_deref().or(host), "port": self.port });
        if let Some(id) = id.or(self.id_given()) {
            info["id"] = json!(id);
        }
        if let Some(service_type) = &self.service_type {
            info["type"] = json!(service_type);
        }
        if !self.tags.is_empty() {
            info["tags"] = json!(self.tags);
        }
        if !self.metadata.is_empty() {
            info["metadata"] = self.metadata.clone().into();
        }
        if self.singleton {
            info["singleton"] = json!(true);
        }
        if self.allow_duplicate {
            info["allow_duplicate_service_type"] = json!(true);
        }
        for (name, value) in &self.own {
            info[name.as_str()] = value.clone();
        }
        let mut request = json!({ "service_info": info });
        if let Some(ttl) = self.ttl {
            // A whole number as such: not every registry takes a fraction.
            request["ttl"] = if ttl.subsec_nanos() == 0 { json!(ttl.as_secs()) } else { json!(ttl.as_secs_f64()) };
        }
        request
    }
}

/// A JSON merge patch (RFC 7396): `null` takes away, objects are gone into, all else is put.
fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.shift_remove(key);
            }
            Value::Object(patch) => {
                let within = target.entry(key.as_str()).or_insert_with(|| json!({}));
                if !within.is_object() {
                    *within = json!({});
                }
                if let Value::Object(within) = within {
                    merge(within, patch);
                }
            }
            value => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_all_that_was_said_and_nothing_else() {
        let plain = ServiceInfo::new("a", 1).host("h").request(None, Some("other"));
        assert_eq!(plain, json!({"service_info": {"name": "a", "host": "h", "port": 1}}));
        let full = ServiceInfo::new("a", 1)
            .id("i")
            .service_type("t")
            .tag("b")
            .metadata("c", 2)
            .singleton(true)
            .allow_duplicate_service_type(true)
            .field("version", "1.0.0")
            .ttl(Duration::from_millis(1500))
            .request(None, Some("found"));
        let info = json!({"name": "a", "host": "found", "port": 1, "id": "i", "type": "t", "tags": ["b"],
                          "metadata": {"c": 2}, "singleton": true, "allow_duplicate_service_type": true,
                          "version": "1.0.0"});
        assert_eq!(full, json!({"service_info": info, "ttl": 1.5}));
    }

    #[test]
    fn metadata_are_patched_as_the_rfc_has_it() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let mut target = object(json!({"a": 1, "b": {"c": 1, "d": 2}, "e": 1}));
        merge(
            &mut target,
            &object(json!({"a": null, "b": {"c": null, "f": 3}, "e": {"g": null, "h": 1}, "i": [null]})),
        );
        assert_eq!(Value::Object(target), json!({"b": {"d": 2, "f": 3}, "e": {"h": 1}, "i": [null]}));
    }

    #[test]
    fn an_id_is_made_as_a_registry_makes_it() {
        let info = ServiceInfo::new("My Stage", 1);
        let id = info.make_id();
        assert!(id.starts_with("my-stage-") && id.len() == 9 + 36, "{id}");
        assert_ne!(id, info.make_id());
    }
}
