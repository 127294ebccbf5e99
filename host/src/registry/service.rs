//! One live service: its document, which is fixed until it registers again, and what moves with each heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use registry_plugin_api::Record;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::drain::{DRAIN_KEY, Drained, carry, drained};
use crate::protocol::json::{Shown, push_number};
use crate::protocol::lives::GENERATION_MAX;
use crate::protocol::registration::{GENERATION_KEY, OWNER_KEY, Registration, push_generation};
use crate::registry::moment::Now;
use crate::security::origin::{Address, Holder, Origin};
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
    /// Who registered it, if that was asked. Apart, because names are long and most services have none.
    owner: Option<Box<Principal>>,
    /// Where it was registered from, or heard of first since the start; what no store keeps.
    from: Address,
    /// Which registration it is: another one of the same id has another number.
    generation: u64,
    /// A store or a backup has kept it, and it has not been registered since.
    is_loaded: bool,
    ttl_ms: u64,
    /// The last heartbeat on the clock that deadlines go by.
    heartbeat_ms: u64,
    /// The last heartbeat on the wall clock, to be shown.
    last_heartbeat_ms: u64,
    /// The store's revision when it was last put.
    pub(super) revision: u64,
    /// How much longer it has since its last heartbeat, because nobody was heard of.
    granted_ms: u64,
    /// By how much `heartbeat_ms` has been moved since it was heard of.
    moved_ms: u64,
    /// It is discovered by nobody, since somebody wants it so.
    drained: Option<Drained>,
}

impl Service {
    /// A service that registers now, and belongs to whoever registers it.
    pub(super) fn new(id: Arc<str>, registration: Registration, by: Origin, generation: u64, now: Now) -> Self {
        let Origin { principal: owner, address: from } = by;
        let types = registration.types.iter().map(|name| Arc::from(name.as_str())).collect();
        let ttl_ms = registration.ttl_ms;
        let document = registration.into_document(&id, owner.written().as_deref(), generation).into();
        let (heartbeat_ms, last_heartbeat_ms) = (now.uptime_ms, now.unix_ms);
        let revision = 0;
        let (granted_ms, moved_ms, drained) = (0, 0, None);
        Service {
            id,
            document,
            types,
            owner: apart(owner),
            from,
            generation,
            is_loaded: false,
            ttl_ms,
            heartbeat_ms,
            last_heartbeat_ms,
            revision,
            granted_ms,
            moved_ms,
            drained,
        }
    }

    /// The same service, drained as this one is: what it takes the place of.
    pub(super) fn drained_like(mut self, earlier: Option<&Service>) -> Self {
        if let Some(earlier) = earlier.filter(|earlier| earlier.is_drained()) {
            self.document = carry(&earlier.document, &self.document).into();
            self.drained = earlier.drained;
        }
        self
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
        let owner = owner.map(|key| key.ok().and_then(|key| Principal::read(&key)).ok_or("its owner_key is no key"));
        let owner = owner.transpose()?.unwrap_or_default();
        let kept = fields.get(GENERATION_KEY).and_then(|generation| generation.get().parse().ok());
        // As far as no clock gets: else the next ones could be greater than clients may name.
        let kept = kept.filter(|generation| *generation <= GENERATION_MAX / 2);
        // One that is none is of another registry, or a client's own.
        let has_odd = kept.is_none() && fields.contains_key(GENERATION_KEY);
        let mut document = match has_odd || MOVING.iter().any(|field| fields.contains_key(*field)) {
            true => without_moving(&record.document, has_odd)?,
            false => record.document.trim().to_string(),
        };
        let generation = kept.unwrap_or(record.revision.min(GENERATION_MAX));
        if kept.is_none() {
            document.pop();
            push_generation(&mut document, generation);
            document.push('}');
        }
        let drained = fields.contains_key(DRAIN_KEY).then(|| drained(&document)).flatten();
        Ok(Service {
            id: record.id.into(),
            document: document.into(),
            types: record.types.iter().map(|name| Arc::from(name.as_str())).collect(),
            owner: apart(owner),
            from: Address::Unknown,
            generation,
            is_loaded: true,
            ttl_ms: record.ttl_ms,
            heartbeat_ms: now.uptime_ms,
            last_heartbeat_ms: record.last_heartbeat_ms,
            revision: record.revision,
            granted_ms: 0,
            moved_ms: 0,
            drained,
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

    /// The record, without what moves.
    pub(super) fn document(&self) -> &str {
        &self.document
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

    /// Whom it belongs to.
    pub(super) fn owner(&self) -> Principal {
        self.owner.as_deref().copied().unwrap_or_default()
    }

    /// Where it comes from, as far as is known.
    pub(super) fn from(&self) -> Address {
        self.from
    }

    /// It comes from there.
    pub(super) fn note_address(&mut self, address: Address) {
        self.from = address;
    }

    /// By whom is counted that it is there.
    pub(super) fn holder(&self) -> Holder {
        Origin { principal: self.owner(), address: self.from }.holder()
    }

    /// The types that it is discovered by, as texts.
    pub(super) fn type_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.types.iter().map(|name| &**name)
    }

    /// Which registration it is.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it was registered before that generation was, which is not known of any more: a backup was restored, or what
    /// the store has is old. Then nothing has taken its place.
    pub(super) fn is_before(&self, generation: u64) -> bool {
        self.is_loaded && generation > self.generation
    }

    /// The same service with another document.
    pub(super) fn with_document(&self, document: String) -> Self {
        Service { drained: drained(&document), document: document.into(), ..self.clone() }
    }

    /// Takes over the document of `changed`, which is stored, and what follows from it. All else stays.
    pub(super) fn amend(&mut self, changed: &Service) {
        self.document = changed.document.clone();
        self.drained = changed.drained;
        self.revision = changed.revision;
    }

    /// Whether it is to be discovered by nobody.
    pub(super) fn is_drained(&self) -> bool {
        self.drained.is_some()
    }

    /// When that ends by itself, in milliseconds since the Unix epoch.
    pub(super) fn drained_until_unix_ms(&self) -> Option<u64> {
        self.drained.and_then(|drained| drained.until_unix_ms)
    }

    /// How long it has not been heard of, in milliseconds.
    pub(super) fn silent_ms(&self, uptime_ms: u64) -> u64 {
        uptime_ms.saturating_sub(self.heartbeat_ms) + self.moved_ms
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
        (self.granted_ms, self.moved_ms) = (0, 0);
    }

    /// Moves its deadline by so much, though it was not heard of, and by no more than `most` since it was.
    pub(super) fn grant(&mut self, more_ms: u64, most_ms: u64) {
        let more_ms = more_ms.min(most_ms.saturating_sub(self.granted_ms));
        self.granted_ms += more_ms;
        self.move_to(self.heartbeat_ms + more_ms);
    }

    /// Gives it a full ttl from now on, though it was not heard of.
    pub(super) fn keep(&mut self, uptime_ms: u64) {
        self.move_to(self.heartbeat_ms.max(uptime_ms));
    }

    fn move_to(&mut self, heartbeat_ms: u64) {
        self.moved_ms += heartbeat_ms - self.heartbeat_ms;
        self.heartbeat_ms = heartbeat_ms;
    }

    /// The moment of its last heartbeat, or what stands for it, on the clock that deadlines go by.
    pub(super) fn heartbeat_ms(&self) -> u64 {
        self.heartbeat_ms
    }

    /// For how long it is passing after a heartbeat, in milliseconds.
    pub(super) fn ttl_ms(&self) -> u64 {
        self.ttl_ms
    }

    /// Keeps the later heartbeat of the two: `earlier` is what this service takes the place of.
    pub(super) fn inherit_heartbeat(&mut self, earlier: &Service) {
        if earlier.heartbeat_ms > self.heartbeat_ms {
            self.beat(earlier.heartbeat_ms, earlier.last_heartbeat_ms);
        }
    }

    /// What clients see of it at a moment.
    pub(super) fn at(&self, uptime_ms: u64) -> Seen<'_> {
        self.with(self.moving(uptime_ms))
    }

    /// What clients see of it if this is what moves with its heartbeats.
    pub(super) fn with(&self, moving: Moving) -> Seen<'_> {
        Seen { service: self, moving }
    }

    /// What moves with its heartbeats, as it is at a moment.
    pub(super) fn moving(&self, uptime_ms: u64) -> Moving {
        Moving { last_heartbeat_ms: self.last_heartbeat_ms, is_passing: self.is_passing(uptime_ms) }
    }
}

/// What is shown of a service and moves with its heartbeats.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moving {
    last_heartbeat_ms: u64,
    is_passing: bool,
}

/// What clients see of a service at a moment.
pub(super) struct Seen<'a> {
    service: &'a Service,
    moving: Moving,
}

impl Shown for Seen<'_> {
    fn show(&self, json: &mut String) {
        let Seen { service, moving } = self;
        json.push_str(&service.document[..service.document.len() - 1]);
        json.push_str(",\"last_heartbeat\":");
        push_number(json, moving.last_heartbeat_ms / 1000);
        json.push_str(",\"health\":\"");
        json.push_str(if moving.is_passing { "passing" } else { "critical" });
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

/// Nobody takes no room.
fn apart(owner: Principal) -> Option<Box<Principal>> {
    (owner != Principal::Nobody).then(|| Box::new(owner))
}

/// About how much memory a service takes with a document, an id and types of these lengths, in bytes.
pub(super) fn memory_bytes(document: usize, id: usize, types: impl Iterator<Item = usize>) -> usize {
    // The document and the texts stand here once and in the store once.
    SERVICE_BYTES + 2 * (document + id) + types.map(|name| TYPE_BYTES + 2 * name).sum::<usize>()
}

/// A document that somebody has stored as it was shown.
fn without_moving(document: &str, has_odd_generation: bool) -> Result<String, String> {
    let mut fields: Map<String, Value> = serde_json::from_str(document).map_err(|error| error.to_string())?;
    let is_left_out = |field: &str| MOVING.contains(&field) || has_odd_generation && field == GENERATION_KEY;
    fields.retain(|field, _| !is_left_out(field));
    Ok(Value::Object(fields).to_string())
}
