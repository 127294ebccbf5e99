//! Fields of requests that are about one life of a service, from a registration to the next: its generation, renewals
//! of many at once, changes of its metadata.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json;
use crate::patch::Patch;
use crate::registration::{check_length, invalid_value};
use crate::reply::Reply;
use crate::request::Limits;

/// How many services can be renewed by one message.
pub const RENEWALS_MAX: usize = 1000;
/// How many entries of a service's history can be asked for.
pub const ENTRIES_MAX: u64 = 1000;
/// The greatest generation: what every reader of JSON can tell from its neighbours.
pub const GENERATION_MAX: u64 = (1 << 53) - 1;

/// A heartbeat among several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The service's id.
    pub service_id: String,
    /// Only if the service is of this generation.
    pub generation: Option<u64>,
}

/// A change of a service's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The service's id.
    pub service_id: String,
    /// Only if the service is of this generation.
    pub generation: Option<u64>,
    /// What is to be changed.
    pub metadata: Patch,
}

/// `generation`: a whole number, or none.
///
/// # Errors
/// The reply that refuses anything else.
pub(crate) fn generation(field: &str, value: Option<&RawValue>) -> Result<Option<u64>, Reply> {
    match value.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(json) => match json.parse() {
            Ok(number) if number <= GENERATION_MAX => Ok(Some(number)),
            _ => Err(invalid_value(field, "a whole number, as register answered", json)),
        },
    }
}

/// `limit` of a service's history.
///
/// # Errors
/// The reply that refuses what is no such number.
pub(crate) fn entries(value: Option<&RawValue>) -> Result<Option<usize>, Reply> {
    match value.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(json) => match json.parse::<u64>() {
            Ok(number) if (1..=ENTRIES_MAX).contains(&number) => Ok(Some(number as usize)),
            _ => Err(invalid_value("limit", &format!("a whole number from 1 to {ENTRIES_MAX}"), json)),
        },
    }
}

/// One of `services`, if it says more than the id.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    service_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    generation: Option<&'a RawValue>,
}

/// `services`: ids, or objects with `service_id` and maybe `generation`.
///
/// # Errors
/// The reply that refuses anything else.
pub(crate) fn renewals(services: &RawValue, limits: &Limits) -> Result<Vec<Renewal>, Reply> {
    let list = services.get();
    if !list.starts_with('[') {
        return Err(invalid_value("services", "a list of ids, or of objects with service_id and generation", list));
    }
    let count = json::items(list).count();
    if count > RENEWALS_MAX {
        return Err(invalid_value("services", &format!("at most {RENEWALS_MAX}"), &count.to_string()));
    }
    json::items(list).map(|item| renewal(item, limits)).collect()
}

fn renewal(item: &str, limits: &Limits) -> Result<Renewal, Reply> {
    let expected = "an id, or an object with service_id";
    let named: Option<Named<'_>> =
        Some(item).filter(|item| item.starts_with('{')).and_then(|item| serde_json::from_str(item).ok());
    let (id, generation) = match &named {
        Some(named) => {
            (named.service_id.map_or("null", RawValue::get), generation("services.generation", named.generation)?)
        }
        None => (item, None),
    };
    let service_id = json::text(id).filter(|id| !id.is_empty());
    let service_id = service_id.ok_or_else(|| invalid_value("services", expected, item))?;
    check_length("services", &service_id, limits.id_bytes)?;
    Ok(Renewal { service_id: service_id.into_owned(), generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).unwrap()
    }

    fn refused(reply: Reply) -> String {
        reply.finish(None).into_text()
    }

    #[test]
    fn a_generation_is_a_number_that_every_client_can_write() {
        let read = |number: u64| generation("generation", Some(&raw(&number.to_string()))).map_err(refused);
        assert_eq!(read(GENERATION_MAX), Ok(Some(GENERATION_MAX)));
        assert!(read(GENERATION_MAX + 1).unwrap_err().contains("expected a whole number, as register answered"));
    }

    #[test]
    fn so_many_services_are_renewed_at_once_and_no_more() {
        let read = |count: usize| {
            let services = raw(&format!("[{}]", vec!["\"x\""; count].join(",")));
            renewals(&services, &Limits::default()).map(|renewals| renewals.len()).map_err(refused)
        };
        assert_eq!(read(RENEWALS_MAX), Ok(RENEWALS_MAX));
        for count in [RENEWALS_MAX + 1, RENEWALS_MAX + 2] {
            assert!(read(count).unwrap_err().contains(&format!("expected at most 1000, got {count}")));
        }
    }
}
