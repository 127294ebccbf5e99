//! A backend that keeps services in memory for as long as the host runs: for development, for tests, and as the
//! example to copy when a backend of your own is to be written.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Mutex, MutexGuard, PoisonError};

use registry_plugin_api::{
    Backend, Change, Cursor, Group, Host, Options, Outcome, Page, Position, Record, Result, export_backend,
};

/// How many records [`Memory::load`] returns at a time.
const PAGE_RECORDS: usize = 1000;

/// A store that begins empty at each start.
#[derive(Default)]
pub struct Memory {
    contents: Mutex<Contents>,
}

#[derive(Default)]
struct Contents {
    position: Option<Position>,
    /// By id, in an order that a [`Cursor`] can go on in.
    records: BTreeMap<String, Record>,
}

export_backend!(Memory);

impl Backend for Memory {
    async fn open(_options: Options, _host: Host) -> Result<Self> {
        tracing::info!("services are kept in memory only: they are gone when the host stops");
        Ok(Memory::default())
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        let contents = self.contents();
        let start = if after.is_start() { Unbounded } else { Excluded(after.as_str()) };
        let mut rest = contents.records.range::<str, _>((start, Unbounded)).map(|(_, record)| record);
        let records: Vec<Record> = rest.by_ref().take(PAGE_RECORDS).cloned().collect();
        let next = records.last().filter(|_| rest.next().is_some()).map(|last| Cursor::after(&last.id));
        let page = Page::new(contents.position.clone()).with_records(records);
        Ok(match next {
            Some(next) => page.with_next(next),
            None => page,
        })
    }

    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        let mut contents = self.contents();
        contents.position = Some(group.position);
        Ok(group.changes.into_iter().map(|change| contents.apply(change)).collect())
    }
}

impl Memory {
    /// No panic can leave half a change behind, so the contents are whole even if the lock is poisoned.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn apply(&mut self, change: Change) -> Outcome {
        match change {
            Change::Put(put) => {
                self.records.insert(put.record.id.clone(), put.record);
                Outcome::Done
            }
            Change::Remove(remove) => Outcome::done_if(self.records.remove(&remove.id).is_some()),
            Change::Renew(renew) => {
                let record = self.records.get_mut(&renew.id);
                Outcome::done_if(record.map(|record| record.last_heartbeat_ms = renew.last_heartbeat_ms).is_some())
            }
            _ => Outcome::unknown(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use registry_plugin_api::Put;

    use super::*;

    #[tokio::test]
    async fn each_record_is_loaded_once_over_several_pages() -> Result<()> {
        let store = Memory::open(Options::default(), Host::for_tests()).await?;
        let expected: BTreeSet<String> = (0..2 * PAGE_RECORDS).map(|number| format!("id {number}")).collect();
        let puts = expected.iter().map(|id| Put::new(Record::new(id, "{}")).into());
        store.commit(Group::new(Position::new("epoch", 1), puts.collect())).await?;
        let (mut loaded, mut pages, mut next) = (Vec::new(), 0, Some(Cursor::start()));
        while let Some(after) = next {
            let page = store.load(after).await?;
            loaded.extend(page.records.into_iter().map(|record| record.id));
            (pages, next) = (pages + 1, page.next);
        }
        assert_eq!((loaded.len(), pages), (expected.len(), 2));
        assert_eq!(loaded.into_iter().collect::<BTreeSet<_>>(), expected);
        Ok(())
    }
}
