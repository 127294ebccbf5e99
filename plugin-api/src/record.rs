//! What a backend stores, and what it is told to do with it.

/// One service, as a backend stores it: a few keys and a JSON document.
///
/// The host makes and reads the document; a backend keeps it as it is. Whatever a service may grow in later
/// versions grows inside the document, so that a plugin built today stores it too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The service's id: the key. Not empty, any Unicode, of any length, unique in the store. One that the store cannot
    /// take (too long for its keys, say) is [`Refused`](Outcome::Refused), not cut.
    pub id: String,
    /// The service as JSON text: one object.
    pub document: String,
    /// The service types that the service answers to, without repetition. Also in the document; here for stores that
    /// index by type.
    pub types: Vec<String>,
    /// How long the service lives after a heartbeat, in milliseconds.
    pub ttl_ms: u64,
    /// When the service was last heard of, in milliseconds since the Unix epoch. A [`Change::Renew`] moves it.
    pub last_heartbeat_ms: u64,
    /// The store's revision when this record was last put. The store sets it: it is 0 in a [`Change::Put`], and
    /// counts in what [`load`](crate::Backend::load) and [`watch`](crate::Backend::watch) return.
    pub revision: u64,
}

impl Record {
    /// A record with an id and a document; the other fields are zero or empty, to be set as needed.
    pub fn new(id: impl Into<String>, document: impl Into<String>) -> Self {
        Record { id: id.into(), document: document.into(), ..Record::default() }
    }
}

/// One thing to be done to the store: see [`Backend::commit`](crate::Backend::commit).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Store the record, in place of the one with the same id if there is one.
    Put {
        /// What to store.
        record: Record,
        /// Refuse with [`Outcome::Conflict`] if another record of this service type is in the store. The host has
        /// looked already, so only a [`shared`](crate::Capabilities::shared) store, which other hosts write to as
        /// well, needs to look again.
        unique: Option<String>,
    },
    /// Remove the record with this id.
    Remove {
        /// The record's id.
        id: String,
        /// Why it goes. A shared store hands it on to the other hosts, which announce it.
        reason: RemoveReason,
    },
    /// Set [`last_heartbeat_ms`](Record::last_heartbeat_ms) of the record with this id. This is no change that
    /// anybody is told of: the store's revision stays.
    Renew {
        /// The record's id.
        id: String,
        /// The new value, in milliseconds since the Unix epoch.
        last_heartbeat_ms: u64,
    },
}

impl Change {
    /// The id of the record that is changed.
    pub fn id(&self) -> &str {
        match self {
            Change::Put { record, .. } => &record.id,
            Change::Remove { id, .. } | Change::Renew { id, .. } => id,
        }
    }
}

/// Why a record is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveReason {
    /// The service, or somebody on its behalf, asked for it.
    Deregistered,
    /// No heartbeat came within the ttl.
    Expired,
}

/// What became of one [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is stored, and stays stored if the machine loses power now (where the backend claims
    /// [`durable`](crate::Capabilities::durable)).
    Done {
        /// The store's revision after the change: for `Put` and `Remove` one more than before, for `Renew` what
        /// it was.
        revision: u64,
    },
    /// There is no record with that id to remove or to renew. Nothing has changed.
    Missing,
    /// `Put` with `unique`: another record of that type is in the store. Nothing has changed.
    Conflict {
        /// The other record's id.
        id: String,
    },
    /// This one change cannot be stored (too large for the store, say), and nothing of it has been; the others of
    /// its group are not concerned. The error is of the kind [`Unsupported`](crate::ErrorKind::Unsupported), because
    /// trying again is of no use; its message is shown to the client.
    Refused(crate::Error),
}

/// Where [`Backend::load`](crate::Backend::load) goes on: a backend's own text, handed back to it unread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// Before the first record.
    pub fn start() -> Self {
        Cursor::default()
    }

    /// After what `position` stands for, in a backend's own terms (the last id of the page, say). Not empty.
    pub fn after(position: impl Into<String>) -> Self {
        Cursor(position.into())
    }

    /// The position, empty at the start.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the start.
    pub fn is_start(&self) -> bool {
        self.0.is_empty()
    }
}

/// A part of all records: see [`Backend::load`](crate::Backend::load).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// The name of the history that the revision counts in. It stays with the store: a new store is a new epoch
    /// ([`new_epoch`](crate::new_epoch)), and a store that was opened again is not.
    pub epoch: String,
    /// The store's revision: the number of `Put`s and `Remove`s since the store began. All pages of a store that nobody
    /// writes to meanwhile have the same.
    pub revision: u64,
    /// The records of this page, in the store's own order.
    pub records: Vec<Record>,
    /// Where to go on, or `None` if this was the last page.
    pub next: Option<Cursor>,
}

impl Page {
    /// A page with no records, which is the last one.
    pub fn new(epoch: impl Into<String>, revision: u64) -> Self {
        Page { epoch: epoch.into(), revision, records: Vec::new(), next: None }
    }

    /// The same page with these records.
    pub fn with_records(self, records: Vec<Record>) -> Self {
        Page { records, ..self }
    }

    /// The same page, with more to come from `next`.
    pub fn with_next(self, next: Cursor) -> Self {
        Page { next: Some(next), ..self }
    }
}

/// A change that [`Backend::watch`](crate::Backend::watch) has seen in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observed {
    /// The store's revision after it.
    pub revision: u64,
    /// What was changed. `unique` is `None` here.
    pub change: Change,
}

impl Observed {
    /// A change and the store's revision after it.
    pub fn new(revision: u64, change: Change) -> Self {
        Observed { revision, change }
    }
}

/// A `discover` request: see [`Backend::discover`](crate::Backend::discover).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Query {
    /// The service type that is asked for.
    pub service_type: String,
    /// The ids of the healthy services of that type: one of them is to be chosen. At least two.
    pub candidates: Vec<String>,
}

impl Query {
    /// A request for one of `candidates`.
    pub fn new(service_type: impl Into<String>, candidates: Vec<String>) -> Self {
        Query { service_type: service_type.into(), candidates }
    }
}
