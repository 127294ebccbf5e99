//! What a backend stores, and how it gives it back.

/// One service, as a backend stores it: a few keys and a JSON document.
///
/// The host makes and reads the document; a backend keeps it as it is. Whatever a service may grow in later versions
/// grows inside the document, so that a plugin built today stores it too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The service's id: the key, unique in the store. Not empty, at most some thousand bytes of any Unicode, which may
    /// hold U+0000. If the store cannot take an id (it is too long for its keys, say), it
    /// [refuses](crate::Outcome::Refused) the record; it never cuts or changes an id.
    pub id: String,
    /// The service as JSON text: one object. It never holds a raw U+0000: JSON escapes it.
    pub document: String,
    /// The service types that the service answers to, without repetition, for stores that index by type. They are also
    /// in the document. Any Unicode, as in an id.
    pub types: Vec<String>,
    /// How long the service lives after a heartbeat, in milliseconds.
    pub ttl_ms: u64,
    /// When the service was last heard of, in milliseconds since the Unix epoch. A [`Renew`](crate::Renew) moves it.
    pub last_heartbeat_ms: u64,
    /// The revision of the change that put the record. The host gives it.
    pub revision: u64,
}

impl Record {
    /// A record with an id and a document; the other fields are zero or empty, to be set as needed.
    pub fn new(id: impl Into<String>, document: impl Into<String>) -> Self {
        Record { id: id.into(), document: document.into(), ..Record::default() }
    }
}

/// How far a store's history goes. The host gives it with each [`Group`](crate::Group), and the store keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Position {
    /// The name of the history in which the revision counts: random text, without spaces, of at most 64 bytes.
    pub epoch: String,
    /// The revision of the last change. Revisions grow from change to change, not always by one, and stay below 2^53.
    pub revision: u64,
}

impl Position {
    /// A revision in an epoch.
    pub fn new(epoch: impl Into<String>, revision: u64) -> Self {
        Position { epoch: epoch.into(), revision }
    }
}

/// Where [`Backend::load`](crate::Backend::load) or [`Backend::history`](crate::Backend::history) goes on: a backend's
/// own text, which the host hands back unread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// Before the first record or event.
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
    /// The position that came with the last [`Group`](crate::Group); the same in all pages. `None` if no group was ever
    /// committed, or if the backend knows that the store is not the one that the last group was committed to (somebody
    /// restored a backup, say): then the host begins a new epoch.
    pub position: Option<Position>,
    /// The records of this page, in the store's own order.
    pub records: Vec<Record>,
    /// Where to go on, or `None` if this was the last page.
    pub next: Option<Cursor>,
}

impl Page {
    /// A page with no records, which is the last one.
    pub fn new(position: Option<Position>) -> Self {
        Page { position, records: Vec::new(), next: None }
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
