//! What is in a database while no host has it open, read by other means than the host's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Row};
use serde_json::Value;

use crate::history::Service;

/// The name of the database in its directory.
pub(crate) const NAME: &str = "registry.db";
/// What belongs to a database.
const FILES: [&str; 2] = [NAME, "registry.db-wal"];

/// What a host is going to find.
pub(crate) struct Stored {
    pub(crate) epoch: String,
    pub(crate) revision: u64,
    pub(crate) contents: Vec<Result<Service, String>>,
    pub(crate) history: Vec<(u64, Value)>,
    /// Every change with a greater revision is in the history.
    pub(crate) complete_after: u64,
}

impl Stored {
    /// What there is by what has been told of changes, if that goes back to the beginning and can be read.
    pub(crate) fn told(&self) -> Option<BTreeMap<String, Value>> {
        self.told_until(u64::MAX)
    }

    /// What there was when the change with this revision was the last.
    pub(crate) fn told_until(&self, revision: u64) -> Option<BTreeMap<String, Value>> {
        if self.complete_after > 0 {
            return None;
        }
        let mut services = BTreeMap::new();
        for (_, event) in self.history.iter().take_while(|(number, _)| *number <= revision) {
            let service = Service::read(event["service"].clone()).ok()?;
            match event["type"].as_str()? {
                "register" => services.insert(service.id, service.fixed),
                _ => services.remove(&service.id),
            };
        }
        Some(services)
    }

    /// Whether a service was ever stored like this.
    pub(crate) fn had(&self, id: &str, fixed: &Value) -> bool {
        let told = self.history.iter().filter_map(|(_, event)| Service::read(event["service"].clone()).ok());
        self.contents.iter().flatten().cloned().chain(told).any(|service| service.id == id && service.fixed == *fixed)
    }

    /// Why that is not what is stored, if so.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let told = self.told()?;
        let stored = self.contents.iter().flatten().map(|service| (service.id.clone(), service.fixed.clone()));
        let stored: BTreeMap<String, Value> = stored.collect();
        let ids = told.keys().chain(stored.keys());
        let differs = |id: &&String| told.get(*id) != stored.get(*id);
        let id = ids.clone().find(differs)?;
        Some(format!("{id}: told was {:?}, stored is {:?}", told.get(id), stored.get(id)))
    }
}

/// Copies a database that no host has open.
pub(crate) fn copy(from: &Path, to: &Path) {
    for name in FILES {
        let _ = fs::remove_file(to.join(name));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).expect("a database can be copied");
        }
    }
}

/// The files of a database that are there, with something in them.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let is_filled = |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0);
    FILES.iter().map(|name| directory.join(name)).filter(is_filled).collect()
}

/// Reads a database by a copy: SQLite itself would change it.
pub(crate) fn read(directory: &Path) -> Result<Stored, String> {
    let copied = tempfile::tempdir().expect("there is room for a copy");
    copy(directory, copied.path());
    read_copy(&copied.path().join(NAME)).map_err(|error| error.to_string())
}

fn read_copy(path: &Path) -> rusqlite::Result<Stored> {
    let connection = Connection::open(path)?;
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(rusqlite::Error::InvalidParameterName(check));
    }
    let select = "SELECT epoch, revision, events_after FROM position";
    let (epoch, revision, complete_after) = connection.query_row(select, [], |row| {
        let number = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.cast_unsigned());
        Ok((row.get::<_, String>(0)?, number(1)?, number(2)?))
    })?;
    let select = "SELECT id, document, ttl_ms, last_heartbeat_ms FROM services NOT INDEXED ORDER BY rowid";
    let contents = connection.prepare(select)?.query_map([], read_record)?.collect::<rusqlite::Result<_>>()?;
    let event = |row: &Row<'_>| {
        let text = unsealed(row.get(1)?);
        let event = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), event))
    };
    let select = "SELECT revision, text FROM events ORDER BY revision";
    let history = connection.prepare(select)?.query_map([], event)?.collect::<rusqlite::Result<_>>()?;
    Ok(Stored { epoch, revision, contents, history, complete_after })
}

/// A text without the checksum that the host adds to it.
fn unsealed(mut text: String) -> String {
    if let Some(start) = text.rfind(",\"crc32\":\"").filter(|start| text.len() - start == 20) {
        text.replace_range(start.., "}");
    }
    text
}

/// A record as the checker sees it.
fn read_record(row: &Row<'_>) -> rusqlite::Result<Result<Service, String>> {
    let (id, document): (String, String) = (row.get(0)?, unsealed(row.get(1)?));
    let (ttl_ms, last_heartbeat_ms): (i64, i64) = (row.get(2)?, row.get(3)?);
    let read = || {
        let document: Value = serde_json::from_str(&document).map_err(|error| format!("{id}: {error}"))?;
        let mut service = Service::read(document)?;
        service.last_heartbeat = Some(last_heartbeat_ms.cast_unsigned() / 1000);
        if (&service.id, service.ttl_ms) != (&id, ttl_ms.cast_unsigned()) {
            return Err(format!("the record {id} with ttl {ttl_ms} holds {}", service.fixed));
        }
        Ok(service)
    };
    Ok(read())
}
