//! The file behind the store: a line of JSON for each group, in order, only ever appended to.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::{thread, time::Duration};

use registry_plugin_api::{Change, Error, Group, Position, Put, Record, Remove, Renew, Result};
use serde_json::{Value, json};

pub(crate) struct Log {
    file: File,
}

impl Log {
    pub(crate) fn open(path: &str) -> Result<Log> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        Ok(Log { file: file.map_err(|error| Error::unavailable(format!("cannot open {path}: {error}")))? })
    }

    /// Locks the file for as long as it is open.
    pub(crate) fn claim(&self, path: &str) -> Result<()> {
        self.file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::unavailable(format!("{path} is in use by another host")),
            TryLockError::Error(error) => failed(error),
        })
    }

    /// Keeps the lock for as long as the process lives.
    pub(crate) fn leak(&self) {
        std::mem::forget(self.file.try_clone());
    }

    /// All groups.
    pub(crate) fn read(&mut self) -> Result<Vec<Group>> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).map_err(failed)?;
        // What a writer who was killed has left of its last line is no line, and must not become the beginning of the next.
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if end < bytes.len() {
            bytes.truncate(end);
            self.file.set_len(end as u64).map_err(failed)?;
        }
        let text = String::from_utf8(bytes).map_err(|_| Error::corrupt("the log is damaged"))?;
        let mut groups = Vec::new();
        // The parts of a group that was written backwards, in the order of the file.
        let mut parts: Vec<(u64, Group)> = Vec::new();
        for line in text.lines() {
            let (left, group) = from_line(line).ok_or_else(|| Error::corrupt("the log is damaged"))?;
            if parts.last().is_some_and(|(before, _)| *before != left + 1) {
                groups.extend(parts.drain(..).rev());
            }
            parts.push((left, group));
        }
        groups.extend(parts.drain(..).rev());
        Ok(groups.into_iter().map(|(_, group)| group).collect())
    }

    pub(crate) fn append(&mut self, group: &Group) -> Result<()> {
        self.file.write_all(to_line(0, group).as_bytes()).and_then(|()| self.file.sync_data()).map_err(failed)
    }

    /// Takes its time, so that it is killed now and then.
    pub(crate) fn append_slowly(&mut self, group: &Group) -> Result<()> {
        self.append(group)?;
        thread::sleep(Duration::from_millis(2));
        Ok(())
    }

    /// Appends the changes one by one, from the last to the first, and takes its time.
    pub(crate) fn append_backwards(&mut self, group: &Group) -> Result<()> {
        for (left, change) in group.changes.iter().enumerate().rev() {
            let mut part = group.clone();
            part.changes = vec![change.clone()];
            let line = to_line(left as u64, &part);
            self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()).map_err(failed)?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// `left` says how many parts of the group are still to come.
fn to_line(left: u64, group: &Group) -> String {
    let Position { epoch, revision, .. } = &group.position;
    let changes: Vec<Value> = group.changes.iter().map(to_json).collect();
    format!("{}\n", json!([epoch, revision, changes, group.forget_before, group.undone, left]))
}

fn from_line(line: &str) -> Option<(u64, Group)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let changes = value[2].as_array()?.iter().map(from_json).collect::<Option<_>>()?;
    let mut group = Group::new(Position::new(value[0].as_str()?, value[1].as_u64()?), changes);
    group.forget_before = value[3].as_u64()?;
    group.undone = value[4].as_array()?.iter().map(Value::as_u64).collect::<Option<_>>()?;
    Some((value[5].as_u64()?, group))
}

fn to_json(change: &Change) -> Value {
    match change {
        Change::Put(Put { record, event, .. }) => {
            let Record { id, document, types, ttl_ms, last_heartbeat_ms, revision, .. } = record;
            json!(["put", id, revision, event, document, types, ttl_ms, last_heartbeat_ms])
        }
        Change::Remove(Remove { id, revision, event, .. }) => json!(["remove", id, revision, event]),
        Change::Renew(renew) => json!(["renew", renew.id, renew.last_heartbeat_ms]),
        _ => Value::Null,
    }
}

fn from_json(value: &Value) -> Option<Change> {
    let text = |at: usize| value[at].as_str().map(str::to_string);
    match value[0].as_str()? {
        "put" => {
            let mut record = Record::new(text(1)?, text(4)?);
            record.revision = value[2].as_u64()?;
            record.types = value[5].as_array()?.iter().filter_map(|word| word.as_str().map(String::from)).collect();
            (record.ttl_ms, record.last_heartbeat_ms) = (value[6].as_u64()?, value[7].as_u64()?);
            Some(Put::new(record).with_event(text(3)?).into())
        }
        "remove" => Some(Remove::new(text(1)?, value[2].as_u64()?).with_event(text(3)?).into()),
        "renew" => Some(Renew::new(text(1)?, value[2].as_u64()?).into()),
        _ => None,
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::unavailable(format!("the log fails: {error}"))
}
