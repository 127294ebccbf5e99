//! What is asked of a registry that may not be sure of itself: what it knows only if it is fresh, and the end of a mass
//! expiry.

use serde_json::value::RawValue;

use super::{Request, is_empty, missing};
use crate::json;
use crate::registration::invalid_value;
use crate::reply::Reply;

/// The oldest that anybody can want to be content with, in seconds: 100 years, as for `ttl`.
pub const MAX_STALE_SECONDS_MAX: f64 = 3_153_600_000.0;

/// How an operator ends a mass expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// The services are gone: remove them now.
    Remove,
    /// The services live: each gets a full ttl to be heard of.
    Keep,
}

impl Expiry {
    /// All ways.
    pub const ALL: [Expiry; 2] = [Expiry::Remove, Expiry::Keep];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Expiry::Remove => "remove",
            Expiry::Keep => "keep",
        }
    }
}

/// How a mass expiry is to be ended.
pub(super) fn expiry(value: Option<&RawValue>) -> Result<Expiry, Reply> {
    let value = value.filter(|value| !is_empty(value)).ok_or_else(|| missing("mass_expiry"))?;
    let word = json::text(value.get());
    let known = Expiry::ALL.into_iter().find(|way| word.as_deref() == Some(way.as_str()));
    known.ok_or_else(|| invalid_value("mass_expiry", "\"remove\" or \"keep\"", value.get()))
}

/// A flag that is off if nothing is said.
pub(super) fn flag(field: &'static str, value: Option<&RawValue>) -> Result<bool, Reply> {
    match value.map(RawValue::get) {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(invalid_value(field, "true or false", other)),
    }
}

/// The read, with what it says of how old its answer may be.
pub(super) fn fresh(read: Request, max_stale: Option<&RawValue>) -> Result<Request, Reply> {
    let Some(value) = max_stale.filter(|value| value.get() != "null") else { return Ok(read) };
    let is_number = value.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let seconds = value.get().parse::<f64>().ok().filter(|_| is_number);
    match seconds {
        Some(seconds) if (0.0..=MAX_STALE_SECONDS_MAX).contains(&seconds) => {
            Ok(Request::Fresh { max_stale_ms: (seconds * 1000.0) as u64, read: Box::new(read) })
        }
        _ => {
            let expected = "a number of seconds from 0 to 3153600000 (100 years)";
            Err(invalid_value("max_stale", expected, value.get()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, Port, parse};
    use super::*;

    fn asked(request: &str) -> Result<Request, String> {
        let parsed = parse(request.as_bytes(), Port::Requests, &Limits::default());
        parsed.request.map_err(|refusal| refusal.finish(None).into_text())
    }

    #[test]
    fn a_mass_expiry_is_ended_one_way_or_the_other() {
        for way in Expiry::ALL {
            let request = format!("{{\"action\":\"expiry\",\"mass_expiry\":\"{}\"}}", way.as_str());
            assert!(matches!(asked(&request), Ok(Request::Expiry(read)) if read == way), "{request}");
        }
        let refusal = asked(r#"{"action":"expiry"}"#).unwrap_err();
        assert!(refusal.contains("Missing required field: mass_expiry"), "{refusal}");
        let refusal = asked(r#"{"action":"expiry","mass_expiry":"stop"}"#).unwrap_err();
        assert!(refusal.contains(r#"expected \"remove\" or \"keep\", got \"stop\""#), "{refusal}");
    }

    #[test]
    fn a_read_says_how_old_its_answer_may_be() {
        let get = |max_stale: &str| asked(&format!(r#"{{"action":"get","service_id":"x","max_stale":{max_stale}}}"#));
        for (seconds, ms) in [("0", 0), ("2.5", 2500), ("3153600000", 3_153_600_000_000)] {
            let Ok(Request::Fresh { max_stale_ms, read }) = get(seconds) else { panic!("{seconds}") };
            assert!(max_stale_ms == ms && matches!(*read, Request::Get { .. }), "{seconds}");
        }
        assert!(matches!(get("null"), Ok(Request::Get { .. })));
        for wrong in ["-1", "\"2\"", "3153600001", "true", "[]", "1e400"] {
            let refusal = get(wrong).unwrap_err();
            assert!(refusal.contains("max_stale") && refusal.contains("invalid_request"), "{wrong}: {refusal}");
        }
        // Only reads know the field.
        assert!(matches!(asked(r#"{"action":"renew","service_id":"x","max_stale":"?"}"#), Ok(Request::Renew { .. })));
    }
}
