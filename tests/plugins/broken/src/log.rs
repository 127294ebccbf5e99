//! The file behind the store: a line of JSON for each change, in order, only ever appended to.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::{thread, time::Duration};

use registry_plugin_api::{Change, Error, Record, RemoveReason, Result};
use serde_json::{Value, json};

/// A line.
#[derive(Clone)]
pub(crate) enum Entry {
    Epoch(String),
    /// A change, the store's revision after it, and when it was made, in milliseconds since the Unix epoch.
    Changed(u64, Change, u64),
}

impl Entry {
    fn to_line(&self) -> String {
        let value = match self {
            Entry::Epoch(epoch) => json!(["epoch", epoch]),
            Entry::Changed(revision, Change::Put { record, .. }, at_ms) => {
                let Record { id, document, types, ttl_ms, last_heartbeat_ms, .. } = record;
                json!(["put", revision, at_ms, id, document, types, ttl_ms, last_heartbeat_ms])
            }
            Entry::Changed(revision, Change::Remove { id, reason }, at_ms) => {
                json!(["remove", revision, at_ms, id, *reason == RemoveReason::Expired])
            }
            Entry::Changed(revision, Change::Renew { id, last_heartbeat_ms }, at_ms) => {
                json!(["renew", revision, at_ms, id, last_heartbeat_ms])
            }
        };
        format!("{value}\n")
    }

    fn from_line(line: &str) -> Option<Entry> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |at: usize| value[at].as_str().map(str::to_string);
        let kind = value[0].as_str()?;
        if kind == "epoch" {
            return Some(Entry::Epoch(text(1)?));
        }
        let (revision, at_ms) = (value[1].as_u64()?, value[2].as_u64()?);
        let change = match kind {
            "put" => {
                let mut record = Record::new(text(3)?, text(4)?);
                record.types =
                    value[5].as_array()?.iter().filter_map(|word| word.as_str().map(str::to_string)).collect();
                record.ttl_ms = value[6].as_u64()?;
                record.last_heartbeat_ms = value[7].as_u64()?;
                record.revision = revision;
                Change::Put { record, unique: None }
            }
            "remove" => {
                let reason = if value[4].as_bool()? { RemoveReason::Expired } else { RemoveReason::Deregistered };
                Change::Remove { id: text(3)?, reason }
            }
            "renew" => Change::Renew { id: text(3)?, last_heartbeat_ms: value[4].as_u64()? },
            _ => return None,
        };
        Some(Entry::Changed(revision, change, at_ms))
    }
}

/// The file, read up to some place.
pub(crate) struct Log {
    file: File,
    read: u64,
}

impl Log {
    pub(crate) fn open(path: &str) -> Result<Log> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        Ok(Log { file: file.map_err(|error| Error::unavailable(format!("cannot open {path}: {error}")))?, read: 0 })
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

    pub(crate) fn lock(&self) -> Result<()> {
        self.file.lock().map_err(failed)
    }

    pub(crate) fn unlock(&self) -> Result<()> {
        self.file.unlock().map_err(failed)
    }

    /// What has been added since it was last read.
    pub(crate) fn read_on(&mut self) -> Result<Vec<Entry>> {
        self.file.seek(SeekFrom::Start(self.read)).map_err(failed)?;
        let mut text = String::new();
        self.file.read_to_string(&mut text).map_err(failed)?;
        // What a writer who was killed has left of its last line is no line.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        self.read += text.len() as u64;
        let read = |line| Entry::from_line(line).ok_or_else(|| Error::corrupt(format!("no line of this log: {line}")));
        text.lines().map(read).collect()
    }

    /// Appends the entries. All that is in the file must have been read, and the file be locked.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> Result<()> {
        self.file.set_len(self.read).map_err(failed)?;
        let text: String = entries.iter().map(Entry::to_line).collect();
        self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.read += text.len() as u64;
        Ok(())
    }

    /// Appends the entries from the last to the first, and takes its time.
    pub(crate) fn append_backwards(&mut self, entries: &[Entry]) -> Result<()> {
        for entry in entries.iter().rev() {
            self.append(std::slice::from_ref(entry))?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::unavailable(format!("the log fails: {error}"))
}
