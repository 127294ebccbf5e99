//! Restoring a backup into a store that has only itself for it: at any moment, all of before or all of the backup counts.
//!
//! The contract has a group whole, or a first part of it, so no group may decide about many records. What decides is the
//! position alone, which every store writes whole:
//!
//! | step | what is written, in groups of limited size | what counts, should the host die now |
//! |---|---|---|
//! | staging | the backup's records, under ids of their own | what was there before; the rest is removed at the next start |
//! | marking | a [mark](super::mark) with the name of this restore, alone | one or the other |
//! | dropping, putting | what the backup has not goes, what it has comes under its own id | what is staged under that name |
//! | beginning | a new epoch, alone | the records under their own ids, which are the backup's |
//! | clearing | what was staged goes | the same; the rest is removed at the next start |
//!
//! A host that finds the mark goes on from there, before anybody is served: what is staged is all that it needs.

use std::collections::HashSet;
use std::ops::Range;

use registry_plugin_api::{Change, Group, Outcome, Position, Put, Record, Remove, Result};

use super::mark::Mark;
use super::{new_epoch, seal};
use crate::plugin::OpenBackend;
use crate::protocol::restore::RESTORING;

/// How many records a group has, and how long they are together, in bytes, at most; and one record beyond.
const GROUP: usize = 1000;
const GROUP_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Step {
    Staging,
    Marking,
    Dropping,
    Putting,
    Beginning,
    Clearing,
    Done,
}

/// What is to be written for a restore, group by group.
#[derive(Debug)]
pub(crate) struct Journal {
    name: String,
    /// Where the store stood, and where it will.
    before: Position,
    after: Position,
    records: Vec<Record>,
    /// The ids of what is to be removed.
    gone: Vec<String>,
    staged: Vec<String>,
    step: Step,
    /// What the next group is about.
    part: Range<usize>,
    /// The ids of records that the store does not take.
    refused: HashSet<String>,
    is_taken_back: bool,
}

impl Journal {
    /// Puts `records`, which get revisions of their own, in place of all records of a store at this position, which has
    /// these ids.
    pub(crate) fn new(before: Position, records: Vec<Record>, there: impl Iterator<Item = String>) -> Self {
        let name = format!("{:016x}", rand::random::<u64>());
        let staged = (0..records.len()).map(|number| format!("{RESTORING}{name}:{number}")).collect();
        Journal::from(Step::Staging, name, before, (records, staged), there)
    }

    /// Goes on with a restore of this name, of which these records were found, in a store at this position. The records
    /// are sound, with nothing added to them. What was staged and is no service is left out.
    fn resumed(name: String, before: Position, found: Vec<Record>) -> Self {
        let own = format!("{RESTORING}{name}:");
        let (staged, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|record| record.id.starts_with(&own));
        let (trash, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|record| is_staged(&record.id));
        let ids = staged.iter().chain(&trash).map(|record| record.id.clone()).collect();
        let named = |record: Record| {
            #[derive(serde::Deserialize)]
            struct Document {
                id: String,
            }
            let Document { id } = serde_json::from_str(&record.document).ok()?;
            Some(with_id(record, id))
        };
        let records = staged.into_iter().filter_map(named).collect();
        Journal::from(Step::Dropping, name, before, (records, ids), others.into_iter().map(|record| record.id))
    }

    fn from(
        step: Step,
        name: String,
        before: Position,
        (mut records, staged): (Vec<Record>, Vec<String>),
        there: impl Iterator<Item = String>,
    ) -> Self {
        for (record, revision) in records.iter_mut().zip(before.revision + 1..) {
            record.revision = revision;
        }
        let kept: HashSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
        let gone = there.filter(|id| !kept.contains(id.as_str())).collect();
        let after = Position::new(new_epoch(), before.revision + records.len() as u64);
        let (refused, is_taken_back) = (HashSet::new(), false);
        let mut journal =
            Journal { name, before, after, records, gone, staged, step, part: 0..0, refused, is_taken_back };
        journal.go_on();
        journal
    }

    /// The next group to be written, the same one until it is [`answered`](Self::answered); `None` if all is done.
    pub(crate) fn group(&self) -> Option<Group> {
        let part = self.part.clone();
        let before = self.before.revision;
        let mark = |revision| Mark::Restoring(self.name.clone()).at(revision);
        let removed = |ids: &[String], revision| -> Vec<Change> {
            ids.iter().map(|id| Remove::new(id.as_str(), revision).into()).collect()
        };
        let (position, changes) = match self.step {
            Step::Staging => {
                let named = self.staged[part.clone()].iter().zip(&self.records[part]);
                let staged = named.map(|(id, record)| {
                    let mut record = with_id(record.clone(), id.clone());
                    record.revision = before;
                    Put::new(record).into()
                });
                (self.before.clone(), staged.collect())
            }
            Step::Marking => (mark(before), Vec::new()),
            Step::Dropping => (mark(before), removed(&self.gone[part], before)),
            Step::Putting => {
                let records = &self.records[part];
                let revision = records.last().map_or(before, |record| record.revision);
                (mark(revision), records.iter().map(|record| Put::new(record.clone()).into()).collect())
            }
            Step::Beginning => (self.after.clone(), Vec::new()),
            Step::Clearing => {
                let position = if self.is_taken_back { &self.before } else { &self.after };
                (position.clone(), removed(&self.staged[part], position.revision))
            }
            Step::Done => return None,
        };
        let mut group = Group::new(position, changes);
        // While it may still be taken back, who watches goes on from what is there.
        if self.is_decided() {
            group.forget_before = group.position.revision + 1;
        }
        Some(group)
    }

    /// The store has written the group.
    ///
    /// # Errors
    /// It does not take a record, so that the restore is to be [taken back](Self::take_back).
    pub(crate) fn answered(&mut self, outcomes: &[Outcome]) -> std::result::Result<(), String> {
        for (place, outcome) in outcomes.iter().enumerate() {
            let (Outcome::Refused(error), Some(record)) = (outcome, self.records.get(self.part.start + place)) else {
                continue;
            };
            match self.step {
                Step::Staging => return Err(format!("it does not take the service {:?}: {error}", record.id)),
                Step::Putting => {
                    tracing::error!("the storage does not take the service {:?} of the backup: {error}", record.id);
                    self.refused.insert(record.id.clone());
                    // What stood under its id before must not come back.
                    self.staged.push(record.id.clone());
                }
                _ => {}
            }
        }
        self.part.start = self.part.end;
        self.go_on();
        Ok(())
    }

    /// Goes to what is to be written next.
    fn go_on(&mut self) {
        loop {
            let (count, then) = match self.step {
                Step::Staging => (self.records.len(), Step::Marking),
                Step::Marking => (1, Step::Dropping),
                Step::Dropping => (self.gone.len(), Step::Putting),
                Step::Putting => (self.records.len(), Step::Beginning),
                Step::Beginning => (1, Step::Clearing),
                Step::Clearing => (self.staged.len(), Step::Done),
                Step::Done => return,
            };
            let start = self.part.start;
            if start < count {
                let has_records = matches!(self.step, Step::Staging | Step::Putting);
                let bytes = |place: usize| if has_records { self.records[place].document.len() } else { 0 };
                let (mut end, mut sum) = (start, 0);
                while end < count && end - start < GROUP && sum < GROUP_BYTES {
                    sum += bytes(end);
                    end += 1;
                }
                self.part = start..end;
                return;
            }
            (self.step, self.part) = (then, 0..0);
        }
    }

    /// Whether the backup counts, whatever happens.
    pub(crate) fn is_decided(&self) -> bool {
        self.step > Step::Marking && !self.is_taken_back
    }

    /// Whether the next group decides.
    pub(crate) fn is_deciding(&self) -> bool {
        self.step == Step::Marking
    }

    /// Whether nothing is restored any more.
    pub(crate) fn is_taken_back(&self) -> bool {
        self.is_taken_back
    }

    /// Removes these as well in the end, which another restore has staged and left behind.
    pub(crate) fn clear_too(&mut self, left: Vec<String>) {
        self.staged.extend(left);
    }

    /// What was staged, and may be there still.
    pub(crate) fn into_staged(self) -> Vec<String> {
        self.staged
    }

    /// Removes what was staged: nothing is restored.
    pub(crate) fn take_back(&mut self) {
        self.is_taken_back = true;
        (self.step, self.part) = (Step::Clearing, 0..0);
        self.go_on();
    }

    /// Where the store stands at the end, and the records that are in it.
    pub(crate) fn into_restored(self) -> (Position, Vec<Record>) {
        let Journal { after, mut records, refused, .. } = self;
        records.retain(|record| !refused.contains(&record.id));
        (after, records)
    }

    /// Writes all that is left to be written.
    ///
    /// # Errors
    /// What the store says to a group. It can be gone on with when the store is opened the next time.
    pub(crate) async fn write(&mut self, backend: &OpenBackend, is_durable: bool) -> Result<()> {
        while let Some(mut group) = self.group() {
            if is_durable {
                seal::seal(&mut group);
            }
            let outcomes = backend.commit(group).await?;
            self.answered(&outcomes).map_err(registry_plugin_api::Error::internal)?;
        }
        Ok(())
    }
}

fn with_id(mut record: Record, id: String) -> Record {
    record.id = id;
    record
}

/// Whether this is the id of a record that is staged.
pub(crate) fn is_staged(id: &str) -> bool {
    id.starts_with(RESTORING)
}

/// The rest of a restore under which the last host has died: its name, in a store at this position with these records.
/// Those that are damaged are named.
pub(super) fn resume(name: String, before: Position, mut found: Vec<Record>) -> (Journal, Vec<String>) {
    let mut damaged = Vec::new();
    seal::open_records(&mut found, &mut damaged);
    (Journal::resumed(name, before, found), damaged)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What a store keeps, which makes a group whole or a first part of it.
    #[derive(Clone, Default)]
    struct Kept {
        position: Position,
        records: BTreeMap<String, Record>,
    }

    impl Kept {
        fn make(&mut self, group: &Group, count: usize) -> Vec<Outcome> {
            self.position = group.position.clone();
            group.changes[..count].iter().for_each(|change| match change {
                Change::Put(put) => drop(self.records.insert(put.record.id.clone(), put.record.clone())),
                change => drop(self.records.remove(change.id())),
            });
            vec![Outcome::Done; count]
        }

        fn sealed(&mut self, mut group: Group, count: usize) -> Vec<Outcome> {
            seal::seal(&mut group);
            self.make(&group, count)
        }

        /// What counts, once a host has been started on it, which may die again after so many groups.
        fn opened(&self, lives: usize) -> (Position, Vec<Record>) {
            let mut kept = self.clone();
            for life in 0..=lives {
                let found: Vec<Record> = kept.records.values().cloned().collect();
                let Some(Mark::Restoring(name)) = Mark::of(&kept.position) else {
                    let mut found: Vec<_> = found.into_iter().filter(|record| !is_staged(&record.id)).collect();
                    seal::open_records(&mut found, &mut Vec::new());
                    return (kept.position, found);
                };
                let (mut journal, damaged) = resume(name, kept.position.clone(), found);
                assert_eq!(damaged, Vec::<String>::new());
                let most = if life == lives { usize::MAX } else { life };
                for _ in 0..most {
                    let Some(group) = journal.group() else { break };
                    let count = group.changes.len();
                    let outcomes = kept.sealed(group, count);
                    journal.answered(&outcomes).unwrap();
                }
            }
            kept.opened(0)
        }
    }

    fn record(id: &str, port: u64) -> Record {
        let mut record = Record::new(id, format!(r#"{{"id":"{id}","port":{port}}}"#));
        record.ttl_ms = 5000;
        record
    }

    fn refused() -> Outcome {
        Outcome::Refused(registry_plugin_api::Error::corrupt("no"))
    }

    fn ports(records: &[Record]) -> Vec<(String, String)> {
        records.iter().map(|record| (record.id.clone(), record.document.clone())).collect()
    }

    #[test]
    fn at_any_moment_all_of_before_counts_or_all_of_the_backup() {
        let mut kept = Kept::default();
        let before: Vec<Record> = (0..1500).map(|number| record(&format!("s{number:04}"), 1)).collect();
        let puts = before.iter().cloned().map(|record| Put::new(record).into()).collect();
        kept.sealed(Group::new(Position::new("epoch", 1500), puts), 1500);
        let backup: Vec<Record> = (700..2900).map(|number| record(&format!("s{number:04}"), 2)).collect();
        let ids = kept.records.keys().cloned().collect::<Vec<_>>();
        let mut journal = Journal::new(kept.position.clone(), backup.clone(), ids.into_iter());
        let (mut groups, mut was_decided) = (0, false);
        while let Some(group) = journal.group() {
            assert!(group.changes.len() <= GROUP);
            let last = group.changes.iter().filter_map(|change| match change {
                Change::Put(put) => Some(put.record.revision),
                _ => None,
            });
            assert!(last.max().unwrap_or_default() <= group.position.revision);
            for count in [0, 1, group.changes.len() / 2, group.changes.len()] {
                let mut torn = kept.clone();
                torn.sealed(group.clone(), count.min(group.changes.len()));
                for lives in 0..3 {
                    let (position, records) = torn.opened(lives);
                    assert_eq!(Mark::of(&position), None);
                    let is_restored = was_decided || group.position.epoch.starts_with("registry:");
                    match is_restored {
                        true => assert!(ports(&records) == ports(&backup) && position.epoch != "epoch", "{groups}"),
                        false => assert!(ports(&records) == ports(&before) && position.epoch == "epoch", "{groups}"),
                    }
                    let last = records.iter().map(|record| record.revision).max();
                    assert!(last <= Some(position.revision));
                }
            }
            was_decided |= group.position.epoch != "epoch";
            groups += 1;
            let count = group.changes.len();
            let outcomes = kept.sealed(group, count);
            journal.answered(&outcomes).unwrap();
            assert_eq!(journal.is_decided(), was_decided);
        }
        assert_eq!(groups, 3 + 1 + 1 + 3 + 1 + 3);
        assert!(kept.records.keys().all(|id| !is_staged(id)));
        let (position, records) = journal.into_restored();
        assert_eq!((kept.position, ports(&records)), (position, ports(&backup)));
    }

    #[test]
    fn what_is_taken_back_leaves_nothing_behind() {
        let mut kept = Kept::default();
        let position = Position::new("epoch", 1);
        let left = format!("{RESTORING}earlier:0");
        let there = [record("a", 1), record(&left, 1)].map(|record| Put::new(record).into());
        kept.sealed(Group::new(position.clone(), there.into()), 2);
        let mut journal =
            Journal::new(position.clone(), vec![record("b", 2), record("c", 2)], ["a".into()].into_iter());
        journal.clear_too(vec![left]);
        let group = journal.group().unwrap();
        kept.sealed(group, 2);
        assert!(journal.answered(&[Outcome::Done, refused()]).unwrap_err().contains("\"c\": no"));
        journal.take_back();
        while let Some(group) = journal.group() {
            assert!(!journal.is_decided());
            kept.sealed(group.clone(), group.changes.len());
            journal.answered(&[]).unwrap();
        }
        assert_eq!((kept.position, kept.records.keys().collect::<Vec<_>>()), (position, vec![&"a".to_string()]));
    }

    #[test]
    fn what_the_store_does_not_take_in_the_end_is_left_out() {
        let mut journal = Journal::new(Position::new("epoch", 1), vec![record("a", 2), record("b", 2)], [].into_iter());
        journal.answered(&[]).unwrap();
        journal.answered(&[]).unwrap();
        assert!(journal.is_decided());
        journal.answered(&[refused(), Outcome::Done]).unwrap();
        journal.answered(&[]).unwrap();
        let cleared: Vec<_> = journal.group().unwrap().changes.iter().map(|change| change.id().to_string()).collect();
        assert_eq!(cleared[2..], ["a"], "nor is what it had before");
        assert_eq!(ports(&journal.into_restored().1), ports(&[record("b", 2)]));
    }

    #[test]
    fn long_records_go_in_groups_of_their_own() {
        let long = |id: &str| Record::new(id, format!(r#"{{"id":"{id}","x":"{}"}}"#, "x".repeat(GROUP_BYTES)));
        let journal = Journal::new(Position::new("e", 1), vec![long("a"), long("b")], [].into_iter());
        assert_eq!(journal.group().unwrap().changes.len(), 1);
    }
}
