//! A service as a backup has it: what `list` shows of it, checked as if it registered.

use serde_json::value::RawValue;

use crate::json;
use crate::registration::{Registration, invalid_value};
use crate::reply::Reply;
use crate::request::Limits;

/// A service as a backup has it.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What can be told of it by its fields.
    pub registration: Registration,
    /// When it was last heard of, in seconds since the Unix epoch.
    pub last_heartbeat: u64,
    /// All of it, as JSON.
    pub document: String,
}

impl Restored {
    /// Reads one: a line of a backup.
    ///
    /// # Errors
    /// The reply that refuses it, naming what is wrong.
    pub fn read(item: &str, limits: &Limits) -> Result<Self, Reply> {
        let not_one = || invalid_value("services", "a service as list shows it", item);
        let json: &RawValue = serde_json::from_str(item).map_err(|_| not_one())?;
        let field = |name: &str| {
            let is_it = |key: &str| json::text(key).is_some_and(|key| key == name);
            json::members(item).find(|(key, _)| is_it(key)).map(|(_, value)| value)
        };
        if !item.starts_with('{') {
            return Err(not_one());
        }
        let depth = 2 + json::depth(item);
        if depth > limits.json_depth {
            let expected = format!("nested at most {} deep", limits.json_depth);
            return Err(invalid_value("services", &expected, &depth.to_string()));
        }
        let ttl = field("ttl").map(serde_json::from_str::<&RawValue>).transpose().map_err(|_| not_one())?;
        let registration = Registration::read(json, ttl, limits)?;
        if registration.id.is_none() {
            return Err(invalid_value("services", "an id", item));
        }
        let last_heartbeat = field("last_heartbeat").and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
        Ok(Restored { registration, last_heartbeat, document: item.to_string() })
    }
}
