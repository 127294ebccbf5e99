//! The reference: what a store holds after what it has acknowledged, as the contract has it.

use std::collections::BTreeMap;

use registry_plugin_api::{Change, Event, Group, History, Outcome, Position, Put, Record, Remove};

use super::lane::{Loaded, Mismatch};
use super::rules::Rule;

/// What a store must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub position: Position,
    pub records: BTreeMap<String, Record>,
    /// The events that a store with a history has kept.
    pub events: BTreeMap<u64, String>,
    /// The history has to be complete after this revision.
    pub forgotten: u64,
}

impl Model {
    /// What the store holds now, taken as right.
    pub(super) fn of(loaded: &Loaded) -> Result<Model, Mismatch> {
        check_pages(loaded)?;
        let Some(position) = loaded.position().cloned() else {
            let expected = "`load` to give the position of the last group";
            return Err(Mismatch::new(Rule::Position, expected, "`None`"));
        };
        let records = loaded.records().map(|record| (record.id.clone(), record.clone())).collect();
        let events = loaded.events().map(|event| (event.revision, event.text.clone())).collect();
        let forgotten = loaded.history.first().map_or(0, |page| page.complete_after);
        Ok(Model { position, records, events, forgotten })
    }

    /// The group of these changes, as a host would make it: with revisions that have gaps, and with events.
    pub(super) fn group(&self, changes: &[Change]) -> Group {
        let mut group = Group::new(self.position.clone(), changes.to_vec());
        let last = &mut group.position.revision;
        for change in &mut group.changes {
            let (revision, event) = match change {
                Change::Put(put) => (&mut put.record.revision, &mut put.event),
                Change::Remove(remove) => (&mut remove.revision, &mut remove.event),
                _ => continue,
            };
            *last += 1 + *last % 3;
            *revision = *last;
            // Some changes have no event.
            *event = if last.is_multiple_of(5) { String::new() } else { format!("{{\"of\":{last}}}") };
        }
        // As if changes behind the last one had been refused.
        *last += *last % 2 + if changes.is_empty() { 2 } else { 0 };
        group
    }

    /// Takes in what became of a group.
    pub(super) fn apply(&mut self, group: &Group, outcomes: &[Outcome]) -> Result<(), Mismatch> {
        self.undo(&group.undone);
        for (place, (change, outcome)) in group.changes.iter().zip(outcomes).enumerate() {
            let expected = if self.make(change) { Outcome::Done } else { Outcome::Missing };
            if *outcome != expected {
                let expected = format!("`{expected:?}` for change {} ({})", place + 1, describe(change));
                return Err(Mismatch::new(Rule::Outcomes, expected, format!("`{outcome:?}`")));
            }
        }
        self.forgotten = self.forgotten.max(group.forget_before.saturating_sub(1));
        if group.position.epoch != self.position.epoch {
            self.events.clear();
            self.forgotten = group.position.revision;
        }
        self.position = group.position.clone();
        Ok(())
    }

    pub(super) fn undo(&mut self, revisions: &[u64]) {
        self.events.retain(|revision, _| !revisions.contains(revision));
    }

    /// Makes a change. Says whether there was something to be changed.
    pub(super) fn make(&mut self, change: &Change) -> bool {
        match change {
            Change::Put(Put { record, event, .. }) => {
                self.keep(record.revision, event);
                self.records.insert(record.id.clone(), record.clone());
                true
            }
            Change::Remove(Remove { id, revision, event, .. }) => {
                self.keep(*revision, event);
                self.records.remove(id).is_some()
            }
            Change::Renew(renew) => {
                let record = self.records.get_mut(&renew.id);
                record.map(|record| record.last_heartbeat_ms = renew.last_heartbeat_ms).is_some()
            }
            _ => false,
        }
    }

    fn keep(&mut self, revision: u64, event: &str) {
        if !event.is_empty() {
            self.events.insert(revision, event.to_string());
        }
    }

    /// Whether this is what has been loaded.
    pub(super) fn compare(&self, loaded: &Loaded) -> Result<(), Mismatch> {
        check_pages(loaded)?;
        self.compare_records(loaded)?;
        if loaded.position() != Some(&self.position) {
            let expected = format!("`load` to give the position {}", shown(Some(&self.position)));
            return Err(Mismatch::new(Rule::Position, expected, shown(loaded.position())));
        }
        self.compare_history(loaded)
    }

    /// Whether the recent changes are what they must be, if they are kept at all.
    pub(super) fn compare_history(&self, loaded: &Loaded) -> Result<(), Mismatch> {
        let broken = |expected: String, got: String| Err(Mismatch::new(Rule::History, expected, got));
        let Some(&History { complete_after, .. }) = loaded.history.first() else { return Ok(()) };
        if loaded.history.iter().any(|page| page.complete_after != complete_after) {
            return broken("the same `complete_after` in all pages".to_string(), "another".to_string());
        }
        if complete_after != self.forgotten {
            let expected = format!("a history that is complete after {}", self.forgotten);
            return broken(expected, format!("`complete_after` is {complete_after}"));
        }
        let mut last = 0;
        for Event { revision, text, .. } in loaded.events() {
            if *revision <= last {
                return broken(
                    "events in the order of their revisions".to_string(),
                    format!("{revision} after {last}"),
                );
            }
            last = *revision;
            if *revision > complete_after && self.events.get(revision) != Some(text) {
                let expected = match self.events.get(revision) {
                    Some(event) => format!("the event {event} at revision {revision}"),
                    None => format!("no event at revision {revision}"),
                };
                return broken(expected, format!("the event {text}"));
            }
        }
        let told: BTreeMap<u64, &String> = loaded.events().map(|event| (event.revision, &event.text)).collect();
        match self.events.keys().find(|revision| **revision > complete_after && !told.contains_key(revision)) {
            None => Ok(()),
            Some(missing) => broken(
                format!("the event of the change with revision {missing}, since `complete_after` is {complete_after}"),
                format!("{} events without it", told.len()),
            ),
        }
    }

    pub(super) fn compare_records(&self, loaded: &Loaded) -> Result<(), Mismatch> {
        let found: BTreeMap<&str, &Record> = loaded.records().map(|record| (record.id.as_str(), record)).collect();
        for (id, expected) in &self.records {
            let Some(record) = found.get(id.as_str()) else {
                let expected = format!("`load` to give the record {}", name(id));
                return Err(Mismatch::new(Rule::Contents, expected, format!("{} records without it", found.len())));
            };
            if let Some((field, expected, got)) = difference(expected, record) {
                let expected = format!("the {field} {expected} in the record {}", name(id));
                return Err(Mismatch::new(Rule::Contents, expected, got));
            }
        }
        match found.keys().find(|id| !self.records.contains_key(**id)) {
            None => Ok(()),
            Some(id) => {
                let expected = format!("no record {}, which is not in the store", name(id));
                Err(Mismatch::new(Rule::Contents, expected, "`load` gives it"))
            }
        }
    }

    /// What the host commits if it does not know whether changes of these records were stored: the records as they are,
    /// with the revisions that they have. `undone` are the revisions that these changes had.
    pub(super) fn restoration(&self, ids: &[String], position: Position, undone: Vec<u64>) -> Group {
        let restored = ids.iter().map(|id| match self.records.get(id) {
            Some(record) => Put::new(record.clone()).into(),
            None => Remove::new(id, self.position.revision).into(),
        });
        let mut group = Group::new(position, restored.collect());
        group.undone = undone;
        group
    }
}

/// The revision that a change has, if it has one of its own.
pub(super) fn revision_of(change: &Change) -> Option<u64> {
    match change {
        Change::Put(put) => Some(put.record.revision),
        Change::Remove(remove) => Some(remove.revision),
        _ => None,
    }
}

fn shown(position: Option<&Position>) -> String {
    position.map_or("`None`".to_string(), |position| format!("{} in epoch {:?}", position.revision, position.epoch))
}

/// What holds of the pages of any store while nobody writes to it.
fn check_pages(loaded: &Loaded) -> Result<(), Mismatch> {
    let mut seen = BTreeMap::new();
    for (number, page) in loaded.pages.iter().enumerate() {
        let number = number + 1;
        if page.position.as_ref() != loaded.position() {
            let expected = format!("the position {} of the first page in page {number}", shown(loaded.position()));
            return Err(Mismatch::new(Rule::Pages, expected, shown(page.position.as_ref())));
        }
        for record in &page.records {
            if let Some(before) = seen.insert(&record.id, number) {
                let expected = format!("the record {} once", name(&record.id));
                return Err(Mismatch::new(
                    Rule::Pages,
                    expected,
                    format!("it is in page {before} and in page {number}"),
                ));
            }
        }
    }
    Ok(())
}

/// The first field that differs, as it should be, and as it is.
fn difference(expected: &Record, got: &Record) -> Option<(&'static str, String, String)> {
    let texts = [("id", &expected.id, &got.id), ("document", &expected.document, &got.document)];
    let text = texts.into_iter().find(|(_, expected, got)| expected != got);
    if let Some((field, expected, got)) = text {
        return Some((field, text_around(expected, got), text_around(got, expected)));
    }
    if expected.types != got.types {
        let shown = |types: &[String], other: &[String]| text_around(&format!("{types:?}"), &format!("{other:?}"));
        return Some(("types", shown(&expected.types, &got.types), shown(&got.types, &expected.types)));
    }
    let numbers = [
        ("ttl_ms", expected.ttl_ms, got.ttl_ms),
        ("last_heartbeat_ms", expected.last_heartbeat_ms, got.last_heartbeat_ms),
        ("revision", expected.revision, got.revision),
    ];
    let number = numbers.into_iter().find(|(_, expected, got)| expected != got);
    number.map(|(field, expected, got)| (field, expected.to_string(), got.to_string()))
}

/// Text, or of a long one its length and the part where it differs from the other.
fn text_around(text: &str, other: &str) -> String {
    const SHOWN: usize = 60;
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    let same = text.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let start = same.saturating_sub(SHOWN / 4);
    let part: String = text.chars().skip(start).take(SHOWN).collect();
    format!("{part:?} (from character {start} of {} bytes)", text.len())
}

/// An id as it is shown to people.
pub(super) fn name(id: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match id.chars().count() {
        1..=60 if id.chars().all(is_plain) => id.to_string(),
        0..=60 => format!("{id:?}"),
        length => format!("{:?}… ({length} characters)", id.chars().take(60).collect::<String>()),
    }
}

/// A change as it is shown to people.
pub(super) fn describe(change: &Change) -> String {
    let kind = match change {
        Change::Put(_) => "Put",
        Change::Remove(_) => "Remove",
        _ => "Renew",
    };
    format!("{kind} {}", name(change.id()))
}
