//! One live service: its document, which is fixed until it registers again, and what moves with each heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry_plugin_api::Record;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::json::{Shown, push_number};
use crate::protocol::registration::{OWNER_KEY, Registration};
use crate::registry::moment::Now;
use crate::security::key::PublicKey;
use crate::security::principal::Principal;

/// What is shown of a service besides its document.
const MOVING: [&str; 2] = ["last_heartbeat", "health"];
/// About what one service takes in memory besides its texts: its place in the collection and the indices, and the
/// store's own entry for it. Measured with a million small services and the memory plugin.
const SERVICE_BYTES: usize = 700;
/// How much clients are shown of a service besides its document, in bytes, at most.
const SHOWN_BYTES: usize = 64;
/// About what each of its types takes besides the text, here and in the store.
const TYPE_BYTES: usize = 160;

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
}

impl Service {
    /// A service that registers now, and belongs to whoever registers it.
    pub(super) fn new(id: Arc<str>, registration: Registration, principal: Principal, now: Now) -> Self {
        let owner = principal.key().copied();
        let types = registration.types.iter().map(|name| Arc::from(name.as_str())).collect();
        let ttl_ms = registration.ttl_ms;
        let document = registration.into_document(&id, owner.map(|key| key.to_string()).as_deref()).into();
        let (heartbeat_ms, last_heartbeat_ms) = (now.uptime_ms, now.unix_ms);
        Service { id, document, types, owner, ttl_ms, heartbeat_ms, last_heartbeat_ms, revision: 0 }
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
        })
    }

    /// What the store keeps of it.
    pub(super) fn to_record(&self) -> Record {
        let mut record = Record::new(&*self.id, &*self.document);
        record.types = self.types.iter().map(|name| name.to_string()).collect();
        record.ttl_ms = self.ttl_ms;
        record.last_heartbeat_ms = self.last_heartbeat_ms;
        record.revision = self.revision;
        record
    }

    /// The id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let types = self.types.iter().map(|name| name.len());
        memory_bytes(self.document.len(), self.id.len(), types)
    }

    /// About how long it is as clients see it, in bytes.
    pub(super) fn shown_bytes(&self) -> usize {
        self.document.len() + SHOWN_BYTES
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

    /// Whether it is within its ttl.
    pub(super) fn is_passing(&self, uptime_ms: u64) -> bool {
        self.deadline_ms() >= uptime_ms
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

    /// What clients see of it at a moment.
    pub(super) fn at(&self, uptime_ms: u64) -> Seen<'_> {
        Seen { service: self, uptime_ms }
    }
}

/// What clients see of a service at a moment.
pub(super) struct Seen<'a> {
    service: &'a Service,
    uptime_ms: u64,
}

impl Shown for Seen<'_> {
    fn show(&self, json: &mut String) {
        let Seen { service, uptime_ms } = self;
        json.push_str(&service.document[..service.document.len() - 1]);
        json.push_str(",\"last_heartbeat\":");
        push_number(json, service.last_heartbeat_ms / 1000);
        json.push_str(",\"health\":\"");
        json.push_str(if service.is_passing(*uptime_ms) { "passing" } else { "critical" });
        json.push_str("\"}");
    }
}

impl Seen<'_> {
    /// As a text of its own.
    pub(super) fn to_json(&self) -> String {
        let mut json = String::with_capacity(self.service.shown_bytes());
        self.show(&mut json);
        json
    }
}

/// About how much memory a service takes with a document, an id and types of these lengths, in bytes.
pub(super) fn memory_bytes(document: usize, id: usize, types: impl Iterator<Item = usize>) -> usize {
    // The document and the texts stand here once and in the store once.
    SERVICE_BYTES + 2 * (document + id) + types.map(|name| TYPE_BYTES + 2 * name).sum::<usize>()
}

/// A document that somebody has stored as it was shown.
fn without_moving(document: &str) -> Result<Arc<str>, String> {
    let mut fields: Map<String, Value> = serde_json::from_str(document).map_err(|error| error.to_string())?;
    fields.retain(|field, _| !MOVING.contains(&field.as_str()));
    Ok(Value::Object(fields).to_string().into())
}
