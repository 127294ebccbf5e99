//! A backup on its way into a running registry: in parts, each of some services, and an end that says how many there are.
//!
//! A service is as `list` shows it, and is checked as if it registered.

use serde_json::value::RawValue;

use crate::json;
use crate::registration::{Registration, invalid_value};
use crate::reply::Reply;
use crate::request::{Limits, missing};

/// How ids begin under which a registry keeps the services of a backup until they are in charge.
pub const RESTORING: &str = "registry:restoring:";
/// How many services one part may have.
pub const PART_SERVICES_MAX: usize = 1000;
/// How many parts, and how many services, an upload may have: what every reader of JSON can tell from its neighbours.
const COUNT_MAX: u64 = (1 << 53) - 1;

/// One step of a restore.
#[derive(Clone, Debug)]
pub enum Restore {
    /// Some services more.
    Part {
        /// The upload's name, which its client has made up.
        upload: String,
        /// Which part it is, from 0 on: the first begins an upload.
        part: u64,
        /// The services.
        services: Vec<Restored>,
    },
    /// All are there, and take the place of those that the registry has.
    End {
        /// The upload's name.
        upload: String,
        /// How many services there are in all parts together.
        total: u64,
        /// Even if the registry has services.
        replaces: bool,
    },
}

/// The fields of a step, as JSON.
#[derive(Clone, Copy, Default)]
pub(crate) struct RestoreFields<'a> {
    pub(crate) upload: Option<&'a RawValue>,
    pub(crate) part: Option<&'a RawValue>,
    pub(crate) total: Option<&'a RawValue>,
    pub(crate) replace: Option<&'a RawValue>,
}

impl Restore {
    /// Reads a step of the upload with this name.
    ///
    /// # Errors
    /// The reply that refuses it; about one of the services it has its place among them as `item`.
    pub(crate) fn read(
        upload: String,
        fields: RestoreFields<'_>,
        services: Option<&RawValue>,
        replaces: bool,
        limits: &Limits,
    ) -> Result<Self, Reply> {
        match (count("part", fields.part)?, count("total", fields.total)?) {
            (Some(_), Some(_)) => {
                let error = "Invalid value for total: expected either part, with services, or total, at the end";
                Err(Reply::failure(crate::reply::Code::InvalidRequest, error))
            }
            (None, None) => Err(missing("part")),
            (None, Some(total)) => Ok(Restore::End { upload, total, replaces }),
            (Some(part), None) => {
                let list = services.ok_or_else(|| missing("services"))?.get();
                let expected = format!("a list of up to {PART_SERVICES_MAX} services as list shows them");
                if !list.starts_with('[') || json::items(list).nth(PART_SERVICES_MAX).is_some() {
                    return Err(invalid_value("services", &expected, list));
                }
                let read = |(place, item): (usize, &str)| {
                    Restored::read(item, limits).map_err(|refusal| refusal.number("item", place as u64))
                };
                let services = json::items(list).enumerate().map(read).collect::<Result<_, _>>()?;
                Ok(Restore::Part { upload, part, services })
            }
        }
    }
}

fn count(field: &str, value: Option<&RawValue>) -> Result<Option<u64>, Reply> {
    let Some(json) = value.map(RawValue::get).filter(|json| *json != "null") else { return Ok(None) };
    let number = json.parse().ok().filter(|number| *number <= COUNT_MAX);
    number.map(Some).ok_or_else(|| invalid_value(field, "a whole number from 0 on", json))
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

#[cfg(test)]
mod tests {
    use crate::request::{Parsed, Port, Request, parse};

    use super::*;

    fn asked(fields: &str) -> Result<Restore, String> {
        let body = format!(r#"{{"action":"restore"{fields}}}"#);
        let Parsed { request, .. } = parse(body.as_bytes(), Port::Requests, &Limits::default());
        match request {
            Ok(Request::Restore(restore)) => Ok(*restore),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.finish(None).into_text()),
        }
    }

    #[test]
    fn a_backup_comes_in_parts_and_has_an_end() {
        let service = r#"{"id":"a","name":"n","host":"h","port":1,"ttl":5,"last_heartbeat":7}"#;
        let part = asked(&format!(r#","upload":"u","part":3,"services":[{service},{service}]"#));
        let Ok(Restore::Part { upload, part: 3, services }) = part else { panic!("{part:?}") };
        assert_eq!((upload.as_str(), services.len(), services[1].last_heartbeat), ("u", 2, 7));
        assert_eq!((&*services[0].document, services[0].registration.ttl_ms), (service, 5000));
        assert!(matches!(asked(r#","upload":"u","total":2"#), Ok(Restore::End { total: 2, replaces: false, .. })));
        let end = asked(r#","upload":"u","total":0,"replace":true"#);
        assert!(matches!(end, Ok(Restore::End { total: 0, replaces: true, .. })));
    }

    #[test]
    fn a_step_that_is_none_is_refused_by_name() {
        for (fields, expected) in [
            ("", "Missing required field: upload"),
            (r#","upload":"u""#, "Missing required field: part"),
            (r#","upload":"u","part":0"#, "Missing required field: services"),
            (
                r#","upload":"u","part":-1,"services":[]"#,
                "Invalid value for part: expected a whole number from 0 on, got -1",
            ),
            (r#","upload":"u","part":0,"total":1,"services":[]"#, "expected either part, with services, or total"),
            (r#","upload":"u","total":"1""#, "Invalid value for total: expected a whole number from 0 on"),
            (r#","upload":"u","part":0,"services":{}"#, "Invalid value for services: expected a list of up to 1000"),
            (r#","upload":"u","total":1,"replace":1"#, "Invalid value for replace: expected true or false"),
        ] {
            let refusal = asked(fields).unwrap_err();
            assert!(refusal.contains(expected), "{fields}: {refusal}");
        }
        let good = r#"{"id":"a","name":"n","host":"h","port":1}"#;
        let refusal = asked(&format!(r#","upload":"u","part":0,"services":[{good},{{"id":"b"}}]"#)).unwrap_err();
        assert!(
            refusal.contains("Missing required field in service_info: name") && refusal.contains("\"item\":1"),
            "{refusal}"
        );
        let many = vec![good; PART_SERVICES_MAX + 1].join(",");
        assert!(asked(&format!(r#","upload":"u","part":0,"services":[{many}]"#)).is_err());
        let long = "u".repeat(65);
        assert!(asked(&format!(r#","upload":"{long}","total":1"#)).unwrap_err().contains("upload"));
    }
}
