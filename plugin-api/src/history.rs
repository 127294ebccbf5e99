//! Recent changes, for stores that keep them.

use crate::Cursor;

/// One change, as the host tells of it: kept by backends that claim [`history`](crate::Capabilities::history).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The revision of the change.
    pub revision: u64,
    /// The host's text, as it came in [`Put::event`](crate::Put::event) or [`Remove::event`](crate::Remove::event).
    pub text: String,
}

impl Event {
    /// The event of the change with this revision.
    pub fn new(revision: u64, text: impl Into<String>) -> Self {
        Event { revision, text: text.into() }
    }
}

/// A part of the recent changes: see [`Backend::history`](crate::Backend::history).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// From where on nothing is missing: every change with a greater revision is among the events, of this page or
    /// another. The same in all pages. It is the revision of the epoch's first group, or one less than the greatest
    /// [`forget_before`](crate::Group::forget_before) since then. The host passes over events that are not after it.
    pub complete_after: u64,
    /// Events in the order of their revisions.
    pub events: Vec<Event>,
    /// Where to go on, or `None` if this was the last page.
    pub next: Option<Cursor>,
}

impl History {
    /// A page without events, which is the last one.
    pub fn new(complete_after: u64) -> Self {
        History { complete_after, events: Vec::new(), next: None }
    }

    /// The same page with these events.
    pub fn with_events(self, events: Vec<Event>) -> Self {
        History { events, ..self }
    }

    /// The same page, with more to come from `next`.
    pub fn with_next(self, next: Cursor) -> Self {
        History { next: Some(next), ..self }
    }
}
