//! Calls of a store, as tests make them.

use registry_plugin_api::{Backend, Change, Cursor, Group, Outcome, Position, Put, Record, Remove, Result};

pub(crate) fn put(id: &str, revision: u64) -> Change {
    let mut record = Record::new(id, format!("{{\"revision\":{revision}}}"));
    record.revision = revision;
    Put::new(record).with_event(format!("put {id:?}")).into()
}

pub(crate) fn remove(id: &str, revision: u64) -> Change {
    Remove::new(id, revision).with_event(format!("remove {id:?}")).into()
}

pub(crate) fn group(revision: u64, changes: &[Change]) -> Group {
    Group::new(Position::new("epoch", revision), changes.to_vec())
}

pub(crate) async fn commit(store: &impl Backend, revision: u64, changes: &[Change]) -> Result<Vec<Outcome>> {
    store.commit(group(revision, changes)).await
}

/// The position, and all records.
pub(crate) async fn contents(store: &impl Backend) -> (Option<Position>, Vec<Record>) {
    let (mut next, mut records, mut position) = (Some(Cursor::start()), Vec::new(), None);
    while let Some(after) = next {
        let page = store.load(after).await.unwrap();
        records.extend(page.records);
        (next, position) = (page.next, page.position);
    }
    (position, records)
}

pub(crate) fn ids(contents: &(Option<Position>, Vec<Record>)) -> Vec<&str> {
    contents.1.iter().map(|record| record.id.as_str()).collect()
}
