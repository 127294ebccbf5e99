//! What a backend is told to do, and what it answers.

use crate::{Error, ErrorKind, Position, Record};

/// What one [`commit`](crate::Backend::commit) is to do: changes, to be made in order, and the store's position after
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Group {
    /// The store's position once the group is done, whatever becomes of its single changes. The store keeps it in the
    /// same write as the changes, and gives it back in [`Page::position`](crate::Page::position).
    pub position: Position,
    /// The changes. An id may come more than once: the second change of an id goes by what the first has left. There
    /// may be none, and then only the position is to be stored.
    pub changes: Vec<Change>,
    /// The host no longer needs events with a lower revision, and may not have given all of them. The history is
    /// [complete](crate::History::complete_after) after `forget_before - 1` then, if not later, and older events are
    /// forgotten by and by. Only for backends that keep their [`history`](crate::Capabilities::history); the others
    /// ignore it.
    pub forget_before: u64,
    /// Revisions of changes that the host gave up without knowing what became of them, and that this group undoes:
    /// their events, if they are in the store, never happened and have to go. Only for backends that keep their
    /// [`history`](crate::Capabilities::history); the others ignore it.
    pub undone: Vec<u64>,
}

impl Group {
    /// A group of changes after which the store is at `position`.
    pub fn new(position: Position, changes: Vec<Change>) -> Self {
        Group { position, changes, forget_before: 0, undone: Vec::new() }
    }
}

/// One thing to be done to the store: see [`Backend::commit`](crate::Backend::commit).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Store a record.
    Put(Put),
    /// Remove a record.
    Remove(Remove),
    /// Note a heartbeat.
    Renew(Renew),
}

impl Change {
    /// The id of the record that is changed.
    pub fn id(&self) -> &str {
        match self {
            Change::Put(put) => &put.record.id,
            Change::Remove(remove) => &remove.id,
            Change::Renew(renew) => &renew.id,
        }
    }
}

/// Store the record, in place of the one with the same id if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Put {
    /// What to store.
    pub record: Record,
    /// How the host tells of this change: text for the [`history`](crate::Capabilities::history), kept under the
    /// record's revision. Empty if there is nothing to keep.
    pub event: String,
}

impl Put {
    /// Stores `record`, without an event.
    pub fn new(record: Record) -> Self {
        Put { record, event: String::new() }
    }

    /// The same with an event.
    pub fn with_event(self, event: impl Into<String>) -> Self {
        Put { event: event.into(), ..self }
    }
}

/// Remove the record with this id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remove {
    /// The record's id.
    pub id: String,
    /// The revision of this change.
    pub revision: u64,
    /// How the host tells of this change: text for the [`history`](crate::Capabilities::history), kept under `revision`
    /// even if the record is [`Missing`](Outcome::Missing). Empty if there is nothing to keep.
    pub event: String,
}

impl Remove {
    /// Removes the record with this id, without an event.
    pub fn new(id: impl Into<String>, revision: u64) -> Self {
        Remove { id: id.into(), revision, event: String::new() }
    }

    /// The same with an event.
    pub fn with_event(self, event: impl Into<String>) -> Self {
        Remove { event: event.into(), ..self }
    }
}

/// Set [`last_heartbeat_ms`](Record::last_heartbeat_ms) of the record with this id, and nothing else of it. Nobody is
/// told of it, and it has no revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renew {
    /// The record's id.
    pub id: String,
    /// The new value, in milliseconds since the Unix epoch.
    pub last_heartbeat_ms: u64,
}

impl Renew {
    /// Sets the last heartbeat of the record with this id.
    pub fn new(id: impl Into<String>, last_heartbeat_ms: u64) -> Self {
        Renew { id: id.into(), last_heartbeat_ms }
    }
}

impl From<Put> for Change {
    fn from(put: Put) -> Self {
        Change::Put(put)
    }
}

impl From<Remove> for Change {
    fn from(remove: Remove) -> Self {
        Change::Remove(remove)
    }
}

impl From<Renew> for Change {
    fn from(renew: Renew) -> Self {
        Change::Renew(renew)
    }
}

/// What became of one [`Change`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is stored, and stays stored if the machine loses power now (if the backend claims
    /// [`durable`](crate::Capabilities::durable)).
    Done,
    /// There is no record with that id to remove or to renew. The host takes the removal as done, and puts the record
    /// that it wanted to renew again.
    Missing,
    /// This one change cannot be stored (too large for the store, say), and nothing of it has been; the others of its
    /// group are not concerned. The error is of the kind [`Unsupported`](crate::ErrorKind::Unsupported), because
    /// trying again is of no use; its message is shown to the client.
    Refused(Error),
}

impl Outcome {
    /// [`Done`](Outcome::Done) if the record was there, [`Missing`](Outcome::Missing) if it was not.
    pub fn done_if(found: bool) -> Self {
        if found { Outcome::Done } else { Outcome::Missing }
    }

    /// The answer to a kind of change that the backend does not know, for the last arm of its `match`.
    pub fn unknown() -> Self {
        Outcome::Refused(Error::new(ErrorKind::Unsupported, "the backend does not know this kind of change"))
    }
}
