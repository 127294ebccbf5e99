//! The recent changes, oldest first: as many as may be kept.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::long::{Longs, Place};
use crate::protocol::event::{Event, EventKind};
use crate::protocol::filter::Filter;
use crate::registry::policy::Following;

/// About what a change takes besides its text, and what each of its types takes, in bytes.
const ENTRY_BYTES: usize = 192;
const TYPE_BYTES: usize = 48;
/// How much of a document is looked at in the time that it takes to compare two types, in bytes.
pub(super) const STEP_BYTES: usize = 64;

/// A change, ready to be told.
pub(super) struct Entry {
    pub(super) revision: u64,
    kind: EventKind,
    /// What the service is discovered by: after a registration, or before it went.
    types: Arc<[Arc<str>]>,
    before: Before,
    /// Empty if it has been left out.
    json: Bytes,
    service_id: Arc<str>,
    /// How long it was in any case.
    full_bytes: usize,
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
        let Event { kind, service_id, json, service_info } = event;
        Entry {
            revision,
            kind: *kind,
            types,
            before,
            json: json.clone(),
            service_id: service_id.clone(),
            full_bytes: json.len(),
            service_info: service_info.clone(),
        }
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
        if self.json.is_empty() {
            return None;
        }
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

    /// About how many steps it takes for somebody in a room, who asks for nothing but a type or for more.
    pub(super) fn steps_at(&self, is_plain: bool) -> usize {
        1 + if is_plain { 0 } else { self.json.len() / STEP_BYTES }
    }

    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.json.len() + TYPE_BYTES * self.types.len()
    }

    /// What a store keeps of it, which leaves nothing out.
    fn stored_bytes(&self) -> usize {
        self.bytes() - self.json.len() + self.full_bytes
    }

    /// What it is to the changes of the same service before and after it.
    fn place(&self, number: u64) -> Place {
        let is_register = self.kind == EventKind::Register;
        let (is_first, is_same) = match &self.before {
            Before::Nothing => (true, false),
            Before::Types(types) => (false, *types == self.types),
            Before::Unknown => (false, false),
        };
        let follows = is_register && matches!(self.before, Before::Types(_));
        Place { number, bytes: self.full_bytes, follows, is_plain: is_register && (is_first || is_same) }
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
    longs: Longs,
    /// The number of the first change that a store is to keep, how much it keeps from there on, and the revision before.
    stored: u64,
    stored_bytes: usize,
    stored_after: u64,
}

impl Ring {
    /// No changes, of which those after this revision will be kept.
    pub(super) fn after(revision: u64, max: Following) -> Self {
        Ring {
            max,
            entries: VecDeque::new(),
            first: 0,
            bytes: 0,
            complete_after: revision,
            longs: Longs::default(),
            stored: 0,
            stored_bytes: 0,
            stored_after: revision,
        }
    }

    /// Sets how many changes are kept from now on.
    pub(super) fn set_max(&mut self, max: Following, bound: Option<u64>) {
        self.max = max;
        self.shrink(bound);
    }

    /// Adds a change. The oldest have to go if there are too many; the newest always stays, and so do those behind
    /// `bound`: nobody may be told of them yet.
    pub(super) fn push(&mut self, entry: Entry, bound: Option<u64>) {
        let number = self.numbers().end;
        self.bytes += entry.bytes();
        self.stored_bytes += entry.stored_bytes();
        let left_out = self.longs.note(&entry.service_id, entry.place(number), self.max.bytes);
        self.entries.push_back(entry);
        for number in left_out {
            self.leave_out(number);
        }
        self.shrink(bound);
    }

    fn shrink(&mut self, bound: Option<u64>) {
        self.limit_stored(bound);
        while self.entries.len() > 1
            && (self.entries.len() > self.max.changes || self.bytes > self.max.bytes)
            && self.entries.front().is_some_and(|oldest| bound.is_none_or(|bound| oldest.revision < bound))
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.longs.forget(&oldest.service_id, self.first);
            self.first += 1;
            self.complete_after = oldest.revision;
            if self.stored < self.first {
                self.stored = self.first;
                self.stored_bytes -= oldest.stored_bytes();
                self.stored_after = oldest.revision;
            }
        }
    }

    /// Leaves out a change that another one of the same service follows.
    fn leave_out(&mut self, number: u64) {
        let entry = number.checked_sub(self.first).and_then(|at| self.entries.get_mut(usize::try_from(at).ok()?));
        if let Some(entry) = entry {
            self.bytes -= entry.json.len();
            entry.json = Bytes::new();
        }
    }

    /// What a store keeps is bounded in all: it leaves nothing out.
    fn limit_stored(&mut self, bound: Option<u64>) {
        while self.stored_bytes > self.max.bytes
            && self.stored + 1 < self.numbers().end
            && let Some(entry) = self.get(self.stored).filter(|entry| bound.is_none_or(|bound| entry.revision < bound))
        {
            let (bytes, revision) = (entry.stored_bytes(), entry.revision);
            (self.stored_bytes, self.stored_after) = (self.stored_bytes - bytes, revision);
            self.stored += 1;
        }
    }

    /// A store need not keep the changes up to this revision.
    pub(super) fn stored_after(&self) -> u64 {
        self.stored_after
    }

    /// Forgets everything: only changes after this revision will be kept.
    pub(super) fn clear(&mut self, revision: u64) {
        self.first += self.entries.len() as u64;
        self.entries.clear();
        self.longs.clear();
        (self.bytes, self.complete_after) = (0, revision);
        (self.stored, self.stored_bytes, self.stored_after) = (self.first, 0, revision);
    }

    /// The same, and what was there before is not what comes next: whoever has waited for that has missed something.
    pub(super) fn begin_anew(&mut self, revision: u64) {
        self.clear(revision);
        self.first += 1;
        self.stored = self.first;
    }

    /// How many there are, and about how much memory they take, in bytes.
    pub(super) fn extent(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// Every change with a greater revision is here.
    pub(super) fn complete_after(&self) -> u64 {
        self.complete_after
    }

    /// How much memory a change takes, on average, in bytes.
    pub(super) fn mean_bytes(&self) -> usize {
        self.bytes / self.entries.len().max(1)
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
