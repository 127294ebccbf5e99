//! One live service: its document, which is fixed until it registers again, and what moves with each heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry_plugin_api::Record;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::json::{Shown, push_number};
use crate::protocol::registration::{OWNER_KEY, Registration};
use crate::registry::Now;
use crate::security::key::PublicKey;

/// What is shown of a service besides its document.
const MOVING: [&str; 2] = ["last_heartbeat", "health"];

/// A service as the core holds it.
#[derive(Clone, Debug)]
pub struct Service {
    id: Arc<str>,
    /// The record as JSON, without `last_heartbeat` and `health`: what the store keeps, and what replies begin with.
    document: Arc<str>,
    types: Arc<[Arc<str>]>,
    /// The key that registered it, if clients have keys.
    owner: Option<PublicKey>,
    ttl_ms: u64,
    /// The last heartbeat on the clock that deadlines go by.
    heartbeat_ms: u64,
    /// The last heartbeat on the wall clock, to be shown.
    last_heartbeat_ms: u64,
    /// The store's revision when it was last put.
    pub(super) revision: u64,
    /// Within its ttl. Kept by the collection that the service is in, which knows when the ttl ends.
    pub(super) passing: bool,
}

impl Service {
    /// A service that registers now, for the client with this key.
    pub(super) fn new(id: Arc<str>, registration: Registration, owner: Option<PublicKey>, now: Now) -> Self {
        let types = registration.types.iter().map(|name| Arc::from(name.as_str())).collect();
        let ttl_ms = registration.ttl_ms;
        let document = registration.into_document(&id, owner.map(|key| key.to_string()).as_deref()).into();
        let (heartbeat_ms, last_heartbeat_ms) = (now.uptime_ms, now.unix_ms);
        Service { id, document, types, owner, ttl_ms, heartbeat_ms, last_heartbeat_ms, revision: 0, passing: true }
    }

    /// A service that a store has kept. Its time to live begins anew: the store cannot know whether it has been heard
    /// of since.
    ///
    /// # Errors
    /// Why the record cannot be a service.
    pub(super) fn from_record(record: Record, now: Now) -> Result<Self, String> {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(&record.document)
            .map_err(|error| format!("its document is no JSON object: {error}"))?;
        let id = fields.get("id").and_then(|id| serde_json::from_str::<String>(id.get()).ok());
        if id.as_ref() != Some(&record.id) {
            return Err("its document has another id".into());
        }
        if let Some(absent) = ["name", "host", "port"].iter().find(|field| !fields.contains_key(**field)) {
            return Err(format!("its document has no {absent}"));
        }
        if record.ttl_ms == 0 {
            return Err("its ttl is zero".into());
        }
        // A service whose owner cannot be told would be anybody's.
        let owner = fields.get(OWNER_KEY).map(|key| serde_json::from_str::<String>(key.get()));
        let owner = owner.map(|key| key.ok().and_then(|key| key.parse().ok()).ok_or("its owner_key is no key"));
        let owner = owner.transpose()?;
        let document = match MOVING.iter().any(|field| fields.contains_key(*field)) {
            true => without_moving(&record.document)?,
            false => record.document.trim().into(),
        };
        Ok(Service {
            id: record.id.into(),
            document,
            types: record.types.iter().map(|name| Arc::from(name.as_str())).collect(),
            owner,
            ttl_ms: record.ttl_ms,
            heartbeat_ms: now.uptime_ms,
            last_heartbeat_ms: record.last_heartbeat_ms,
            revision: record.revision,
            passing: true,
        })
    }

    /// What the store keeps of it.
    pub(super) fn to_record(&self) -> Record {
        let mut record = Record::new(&*self.id, &*self.document);
        record.types = self.types.iter().map(|name| name.to_string()).collect();
        record.ttl_ms = self.ttl_ms;
        record.last_heartbeat_ms = self.last_heartbeat_ms;
        record
    }

    /// The id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// How much is kept of it, in bytes, not counting what all services take.
    pub(super) fn bytes(&self) -> usize {
        self.document.len()
    }

    /// The types that it is discovered by.
    pub(super) fn types(&self) -> &Arc<[Arc<str>]> {
        &self.types
    }

    /// The key that it belongs to.
    pub(super) fn owner(&self) -> Option<&PublicKey> {
        self.owner.as_ref()
    }

    /// The last moment at which it is passing, on the clock that deadlines go by.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.heartbeat_ms.saturating_add(self.ttl_ms)
    }

    /// The last heartbeat on the wall clock, in milliseconds since the Unix epoch.
    pub(super) fn last_heartbeat_ms(&self) -> u64 {
        self.last_heartbeat_ms
    }

    /// It was heard of. `last_heartbeat_ms` is the wall clock's time of it.
    pub(super) fn beat(&mut self, heartbeat_ms: u64, last_heartbeat_ms: u64) {
        self.heartbeat_ms = heartbeat_ms;
        self.last_heartbeat_ms = last_heartbeat_ms;
    }

    /// Keeps the later heartbeat of the two: `earlier` is what this service takes the place of.
    pub(super) fn inherit_heartbeat(&mut self, earlier: &Service) {
        if earlier.heartbeat_ms > self.heartbeat_ms {
            self.beat(earlier.heartbeat_ms, earlier.last_heartbeat_ms);
        }
    }
}

impl Shown for Service {
    fn id(&self) -> &Arc<str> {
        &self.id
    }

    fn show(&self, json: &mut String) {
        json.push_str(&self.document[..self.document.len() - 1]);
        json.push_str(",\"last_heartbeat\":");
        push_number(json, self.last_heartbeat_ms / 1000);
        json.push_str(",\"health\":\"");
        json.push_str(if self.passing { "passing" } else { "critical" });
        json.push_str("\"}");
    }
}

/// A document that somebody has stored as it was shown.
fn without_moving(document: &str) -> Result<Arc<str>, String> {
    let mut fields: Map<String, Value> = serde_json::from_str(document).map_err(|error| error.to_string())?;
    fields.retain(|field, _| !MOVING.contains(&field.as_str()));
    Ok(Value::Object(fields).to_string().into())
}
