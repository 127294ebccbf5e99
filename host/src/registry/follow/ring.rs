//! The recent changes, oldest first: as many as may be kept.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::event::{Event, EventKind};
use crate::protocol::filter::Filter;
use crate::registry::policy::Following;

/// About what a change takes besides its text, and what each of its types takes, in bytes.
const ENTRY_BYTES: usize = 160;
const TYPE_BYTES: usize = 48;
/// How much of a document is looked at in the time that it takes to compare two types, in bytes.
const STEP_BYTES: usize = 64;

/// A change, ready to be told.
pub(super) struct Entry {
    pub(super) revision: u64,
    kind: EventKind,
    /// What the service is discovered by: after a registration, or before it went.
    types: Arc<[Arc<str>]>,
    before: Before,
    json: Bytes,
    /// Where in it the service's record stands.
    service_info: Range<usize>,
}

/// What a registration took the place of, by its types.
#[derive(Clone)]
pub(super) enum Before {
    /// There was no such service; or it is a removal.
    Nothing,
    /// A service with these types.
    Types(Arc<[Arc<str>]>),
    /// Nobody knows any more.
    Unknown,
}

/// How a change is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    /// As its event.
    Event,
    /// As one that takes the service out of what is wanted.
    Leave,
}

impl Entry {
    pub(super) fn new(event: &Event, revision: u64, types: Arc<[Arc<str>]>, before: Before) -> Self {
        let Event { kind, json, service_info, .. } = event;
        Entry { revision, kind: *kind, types, before, json: json.clone(), service_info: service_info.clone() }
    }

    /// The event's body.
    pub(super) fn json(&self) -> &Bytes {
        &self.json
    }

    /// What the service is discovered by since then, or was until then.
    pub(super) fn types_now(&self) -> &Arc<[Arc<str>]> {
        &self.types
    }

    /// It took the place of a service with these types.
    pub(super) fn replaces(&mut self, types: Arc<[Arc<str>]>) {
        self.before = Before::Types(types);
    }

    /// The types that it concerns, those before it among them.
    pub(super) fn types(&self) -> impl Iterator<Item = &Arc<str>> {
        self.types.iter().chain(self.types_before())
    }

    fn types_before(&self) -> &[Arc<str>] {
        match &self.before {
            Before::Types(types) => types,
            Before::Nothing | Before::Unknown => &[],
        }
    }

    /// How it is told to whoever wants to hear of these services, if it is.
    pub(super) fn telling(&self, filter: &Filter) -> Option<Telling> {
        let record = || str::from_utf8(self.json.get(self.service_info.clone()).unwrap_or_default()).unwrap_or("{}");
        let is_wanted = match filter.is_type_only() {
            true => filter.matches(&self.types, "{}"),
            false => filter.matches(&self.types, record()),
        };
        if is_wanted {
            return Some(Telling::Event);
        }
        let was_wanted = match &self.before {
            Before::Nothing => false,
            Before::Unknown => true,
            // What else it said of itself is not known any more.
            Before::Types(types) => filter.service_type.iter().chain(&filter.tags).all(|wanted| has(types, wanted)),
        };
        let telling = if self.kind == EventKind::Register { Telling::Leave } else { Telling::Event };
        was_wanted.then_some(telling)
    }

    /// About how many steps it takes to find out.
    pub(super) fn steps(&self, filter: &Filter) -> usize {
        let compared = filter.service_type.iter().len() + filter.tags.len();
        let types = compared * (self.types.len() + self.types_before().len());
        let document = if filter.is_type_only() { 0 } else { self.json.len() / STEP_BYTES };
        1 + types + document
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.json.len() + TYPE_BYTES * self.types.len()
    }
}

fn has(types: &[Arc<str>], wanted: &str) -> bool {
    types.iter().any(|name| **name == *wanted)
}

/// The recent changes. Each has a number, one more than that of the change before it.
pub(super) struct Ring {
    max: Following,
    entries: VecDeque<Entry>,
    /// The number of the first one.
    first: u64,
    bytes: usize,
    /// Every change with a greater revision is here.
    complete_after: u64,
}

impl Ring {
    /// No changes, of which those after this revision will be kept.
    pub(super) fn after(revision: u64, max: Following) -> Self {
        Ring { max, entries: VecDeque::new(), first: 0, bytes: 0, complete_after: revision }
    }

    /// Sets how many changes are kept.
    pub(super) fn set_max(&mut self, max: Following) {
        self.max = max;
        self.shrink();
    }

    /// Adds a change. The oldest have to go if there are too many; the newest always stays.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.entries.len() > 1
            && (self.entries.len() > self.max.changes || self.bytes > self.max.bytes)
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.first += 1;
            self.complete_after = oldest.revision;
        }
    }

    /// Forgets everything: only changes after this revision will be kept.
    pub(super) fn clear(&mut self, revision: u64) {
        self.first += self.entries.len() as u64;
        self.entries.clear();
        (self.bytes, self.complete_after) = (0, revision);
    }

    /// How many there are, and about how much memory they take, in bytes.
    pub(super) fn extent(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// Every change with a greater revision is here.
    pub(super) fn complete_after(&self) -> u64 {
        self.complete_after
    }

    /// The revision of the newest change.
    pub(super) fn newest(&self) -> u64 {
        self.entries.back().map_or(self.complete_after, |newest| newest.revision)
    }

    /// The number of the first change that is still here, and that of the one that comes next.
    pub(super) fn numbers(&self) -> Range<u64> {
        self.first..self.first + self.entries.len() as u64
    }

    /// The number of the first change with a greater revision.
    pub(super) fn after_revision(&self, revision: u64) -> u64 {
        self.first + self.entries.partition_point(|entry| entry.revision <= revision) as u64
    }

    /// The change with this number, if it is still here.
    pub(super) fn get(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}
