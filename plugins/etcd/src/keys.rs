//! What lies under which key, below the prefix:
//!
//! | key | value |
//! |---|---|
//! | `format` | the version of all this: 1 |
//! | `owner` | which host has the store; there for as long as that host's lease |
//! | `fence` | the name of the last host; moved by each of its sessions, and compared by every transaction |
//! | `head` | the position, as JSON |
//! | `services/ID/document` | a service: a line of JSON with its other fields, and its document |
//! | `services/ID/heartbeat` | when it was last heard of, in milliseconds, if this key is newer than the other |
//!
//! In an id, `%` and `/` are `%25` and `%2F`.

use etcd_client::KeyValue;
use registry_plugin_api::{Error, Position, Record, Result};
use serde::{Deserialize, Serialize};

/// The version of all this. A store with another one is refused.
pub(crate) const FORMAT: &str = "1";

/// The keys of one store.
#[derive(Clone)]
pub(crate) struct Keys {
    /// Ends in a slash.
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Result<Self> {
        let trimmed = prefix.trim_end_matches('/');
        if trimmed.is_empty() {
            return Err(Error::invalid_option(format!(
                "option \"prefix\" is {prefix:?}, expected one like \"/registry\""
            )));
        }
        Ok(Keys { prefix: format!("{trimmed}/") })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn format(&self) -> String {
        format!("{}format", self.prefix)
    }

    pub(crate) fn owner(&self) -> String {
        format!("{}owner", self.prefix)
    }

    pub(crate) fn fence(&self) -> String {
        format!("{}fence", self.prefix)
    }

    pub(crate) fn head(&self) -> String {
        format!("{}head", self.prefix)
    }

    pub(crate) fn services(&self) -> String {
        format!("{}services/", self.prefix)
    }

    /// What all keys of a service begin with, and those of no other one.
    pub(crate) fn service(&self, id: &str) -> String {
        let id = id.replace('%', "%25").replace('/', "%2F");
        format!("{}services/{id}/", self.prefix)
    }

    pub(crate) fn record(&self, id: &str) -> String {
        self.service(id) + RECORD
    }

    pub(crate) fn heartbeat(&self, id: &str) -> String {
        self.service(id) + HEARTBEAT
    }

    /// Whose key it is, and whether it is the record.
    fn parse<'key>(&self, key: &'key str) -> Option<(String, &'key str)> {
        let (id, name) = key.strip_prefix(&self.services())?.split_once('/')?;
        Some((id.replace("%2F", "/").replace("%25", "%"), name))
    }

    /// The records of a page of keys, in order. A record whose heartbeat is not in the page is not among them, if the
    /// page is not the last: the second value is the key where the next one has to begin.
    pub(crate) fn read_records(&self, page: &[KeyValue], is_last: bool) -> Result<(Vec<Record>, Option<String>)> {
        let mut records: Vec<(Record, i64)> = Vec::new();
        for pair in page {
            let damaged =
                |reason: &str| Error::corrupt(format!("{:?} in etcd {reason}", String::from_utf8_lossy(pair.key())));
            let key = pair.key_str().map_err(|_| damaged("is no text"))?;
            let value = pair.value_str().map_err(|_| damaged("holds no text"))?;
            match self.parse(key) {
                Some((id, RECORD)) => {
                    let record =
                        read_record(id, value).map_err(|error| damaged(&format!("cannot be read: {error}")))?;
                    records.push((record, pair.mod_revision()));
                }
                Some((id, HEARTBEAT)) => {
                    let heartbeat_ms = value.parse().map_err(|_| damaged("is no time"))?;
                    match records.last_mut() {
                        Some((record, written)) if record.id == id && pair.mod_revision() > *written => {
                            record.last_heartbeat_ms = heartbeat_ms;
                        }
                        _ => {}
                    }
                }
                _ => return Err(damaged("is not the registry's")),
            }
        }
        let last = page.last().and_then(|pair| pair.key_str().ok()).unwrap_or_default();
        let next = match (is_last, last.strip_suffix(RECORD)) {
            (true, _) => None,
            (false, Some(_)) if records.len() > 1 => {
                records.pop();
                Some(last.to_string())
            }
            // Behind the last key.
            (false, _) => Some(format!("{last}\0")),
        };
        Ok((records.into_iter().map(|(record, _)| record).collect(), next))
    }
}

/// In the order of the alphabet, so that a record's heartbeat comes right after it.
const RECORD: &str = "document";
const HEARTBEAT: &str = "heartbeat";

/// What stands before the document.
#[derive(Serialize, Deserialize)]
struct Fields {
    types: Vec<String>,
    ttl_ms: u64,
    last_heartbeat_ms: u64,
    revision: u64,
}

pub(crate) fn record_value(record: &Record, last_heartbeat_ms: u64) -> String {
    let Record { types, ttl_ms, revision, document, .. } = record;
    let fields = serde_json::json!({
        "types": types, "ttl_ms": ttl_ms, "last_heartbeat_ms": last_heartbeat_ms, "revision": revision,
    });
    format!("{fields}\n{document}")
}

fn read_record(id: String, value: &str) -> std::result::Result<Record, serde_json::Error> {
    let (fields, document) = value.split_once('\n').unwrap_or((value, ""));
    let Fields { types, ttl_ms, last_heartbeat_ms, revision } = serde_json::from_str(fields)?;
    let mut record = Record::new(id, document);
    (record.types, record.ttl_ms) = (types, ttl_ms);
    (record.last_heartbeat_ms, record.revision) = (last_heartbeat_ms, revision);
    Ok(record)
}

/// The position, and the cluster that it was written to: another one was made from a snapshot.
#[derive(Serialize, Deserialize)]
struct Head {
    epoch: String,
    revision: u64,
    cluster: String,
}

pub(crate) fn head_value(position: &Position, cluster: u64) -> String {
    let (epoch, revision) = (&position.epoch, position.revision);
    serde_json::json!({ "epoch": epoch, "revision": revision, "cluster": format!("{cluster:x}") }).to_string()
}

/// The position, unless it was written to another cluster.
pub(crate) fn read_head(value: &[u8], cluster: u64) -> Result<Option<Position>> {
    let head: Head = serde_json::from_slice(value)
        .map_err(|error| Error::corrupt(format!("the key \"head\" of the registry in etcd is damaged: {error}")))?;
    Ok((head.cluster == format!("{cluster:x}")).then(|| Position::new(head.epoch, head.revision)))
}
