//! The reference: what a store holds after what it has acknowledged, as the contract has it.

use std::collections::BTreeMap;

use registry_plugin_api::{Change, Outcome, Record, RemoveReason};

use super::lane::{Loaded, Mismatch};
use super::rules::Rule;

/// What a store must hold.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub epoch: String,
    pub revision: u64,
    pub records: BTreeMap<String, Record>,
}

impl Model {
    /// What the store holds now, taken as right.
    pub(super) fn of(loaded: &Loaded) -> Result<Model, Mismatch> {
        check_pages(loaded)?;
        let records = loaded.records().map(|record| (record.id.clone(), record.clone())).collect();
        Ok(Model { epoch: loaded.epoch().to_string(), revision: loaded.revision(), records })
    }

    /// Takes in what became of a group of changes.
    pub(super) fn apply(&mut self, changes: &[Change], outcomes: &[Outcome]) -> Result<(), Mismatch> {
        for (position, (change, outcome)) in changes.iter().zip(outcomes).enumerate() {
            self.apply_one(change, outcome).map_err(|mismatch| {
                let expected = format!("{} for change {} ({})", mismatch.expected, position + 1, describe(change));
                Mismatch { expected, ..mismatch }
            })?;
        }
        Ok(())
    }

    fn apply_one(&mut self, change: &Change, outcome: &Outcome) -> Result<(), Mismatch> {
        let is_there = self.records.contains_key(change.id());
        match change {
            Change::Put { record, .. } => {
                let revision = self.grown(outcome)?;
                self.records.insert(record.id.clone(), at_revision(record, revision));
            }
            _ if !is_there => {
                return match outcome {
                    Outcome::Missing => Ok(()),
                    other => Err(Mismatch::new(Rule::Outcomes, "`Missing`", format!("{other:?}"))),
                };
            }
            Change::Remove { id, .. } => {
                self.grown(outcome)?;
                self.records.remove(id);
            }
            Change::Renew { id, last_heartbeat_ms } => {
                let revision = done(outcome)?;
                if revision != self.revision {
                    let expected = format!("the revision to stay {}", self.revision);
                    return Err(Mismatch::new(Rule::Revisions, expected, revision.to_string()));
                }
                self.records.entry(id.clone()).and_modify(|record| record.last_heartbeat_ms = *last_heartbeat_ms);
            }
        }
        Ok(())
    }

    /// The revision of a change that has moved it.
    fn grown(&mut self, outcome: &Outcome) -> Result<u64, Mismatch> {
        let revision = done(outcome)?;
        if revision != self.revision + 1 {
            let expected = format!("the revision {}, one more than before,", self.revision + 1);
            return Err(Mismatch::new(Rule::Revisions, expected, revision.to_string()));
        }
        self.revision = revision;
        Ok(revision)
    }

    /// Whether this is what has been loaded.
    pub(super) fn compare(&self, loaded: &Loaded) -> Result<(), Mismatch> {
        check_pages(loaded)?;
        if loaded.revision() != self.revision {
            let expected = format!("`load` to tell the revision {}", self.revision);
            return Err(Mismatch::new(Rule::Revisions, expected, loaded.revision().to_string()));
        }
        self.compare_records(loaded)?;
        self.compare_epoch(loaded)
    }

    pub(super) fn compare_epoch(&self, loaded: &Loaded) -> Result<(), Mismatch> {
        match loaded.epoch() == self.epoch {
            true => Ok(()),
            false => {
                Err(Mismatch::new(Rule::Epoch, format!("the epoch {:?}", self.epoch), format!("{:?}", loaded.epoch())))
            }
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

    /// What the host does to a record of which it does not know whether its last change was stored.
    pub(super) fn restoring(&self, id: &str) -> Change {
        match self.records.get(id) {
            Some(record) => Change::Put { record: at_revision(record, 0), unique: None },
            None => Change::Remove { id: id.to_string(), reason: RemoveReason::Deregistered },
        }
    }
}

/// The same record, but for the revision: what can be said of a change that was not acknowledged.
pub(super) fn same_but_revision(one: &Record, other: &Record) -> bool {
    at_revision(one, other.revision) == *other
}

/// The same record with that revision.
pub(super) fn at_revision(record: &Record, revision: u64) -> Record {
    let mut record = record.clone();
    record.revision = revision;
    record
}

fn done(outcome: &Outcome) -> Result<u64, Mismatch> {
    match outcome {
        Outcome::Done { revision } => Ok(*revision),
        other => Err(Mismatch::new(Rule::Outcomes, "`Done`", format!("{other:?}"))),
    }
}

/// What holds of the pages of any store while nobody writes to it.
fn check_pages(loaded: &Loaded) -> Result<(), Mismatch> {
    let mut seen = BTreeMap::new();
    for (number, page) in loaded.pages.iter().enumerate() {
        let number = number + 1;
        if page.epoch != loaded.epoch() {
            let expected = format!("the epoch {:?} of the first page in page {number}", loaded.epoch());
            return Err(Mismatch::new(Rule::Pages, expected, format!("{:?}", page.epoch)));
        }
        if page.revision != loaded.revision() {
            let expected = format!("the revision {} of the first page in page {number}", loaded.revision());
            return Err(Mismatch::new(Rule::Pages, expected, page.revision.to_string()));
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
    match change {
        Change::Put { record, .. } => format!("Put {}", name(&record.id)),
        Change::Remove { id, .. } => format!("Remove {}", name(id)),
        Change::Renew { id, .. } => format!("Renew {}", name(id)),
    }
}
