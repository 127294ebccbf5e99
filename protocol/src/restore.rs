//! `restore`: all services anew, from a backup, a part in each request.

use serde_json::value::RawValue;

use crate::json;
use crate::registration::{Registration, invalid_value};
use crate::reply::Reply;
use crate::request::{Limits, optional};

/// How many services one part may have.
const PART_MAX: usize = 10_000;
/// The longest name of a restoration, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A part of a restoration.
#[derive(Clone, Debug)]
pub struct Restore {
    /// Which restoration it is a part of, as the reply to the first part says; `None` begins one.
    pub name: Option<String>,
    /// The services of this part.
    pub services: Vec<Restored>,
    /// All parts are there: they take the place of what is registered.
    pub is_last: bool,
}

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

/// The fields of a request.
#[derive(Clone, Copy, Default)]
pub(crate) struct RestoreFields<'a> {
    pub(crate) restore: Option<&'a RawValue>,
    pub(crate) services: Option<&'a RawValue>,
}

impl Restore {
    /// Reads a part.
    ///
    /// # Errors
    /// The reply that refuses it, naming the service that is wrong by its place, from 1.
    pub(crate) fn read(fields: RestoreFields<'_>, is_last: bool, limits: &Limits) -> Result<Self, Reply> {
        let list = fields.services.map_or("[]", RawValue::get);
        if !list.starts_with('[') {
            return Err(invalid_value("services", "a list of services as list shows them", list));
        }
        let count = json::items(list).count();
        if count > PART_MAX {
            return Err(invalid_value("services", &format!("at most {PART_MAX} in one part"), &count.to_string()));
        }
        let services = json::items(list)
            .enumerate()
            .map(|(place, item)| restored(item, limits).map_err(|refusal| refusal.number("place", place as u64 + 1)));
        let name = optional("restore", fields.restore, NAME_BYTES_MAX)?;
        Ok(Restore { name, services: services.collect::<Result<_, _>>()?, is_last })
    }
}

fn restored(item: &str, limits: &Limits) -> Result<Restored, Reply> {
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
