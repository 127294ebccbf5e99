//! What is asked of a registry that may not be sure of itself: what it knows only if it is fresh, the end of a mass
//! expiry, and that it leaves its store.

use std::time::Duration;

use serde_json::value::RawValue;

use super::{Request, is_empty, missing};
use crate::json;
use crate::registration::invalid_value;
use crate::reply::Reply;

/// The oldest that anybody can want to be content with, in seconds: 100 years, as for `ttl`.
pub const MAX_STALE_SECONDS_MAX: f64 = 3_153_600_000.0;

/// How long changes may be held for a move to another store, in seconds.
const HOLD_SECONDS: std::ops::RangeInclusive<f64> = 0.05..=60.0;

/// A move to another store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The configuration file at the server whose `[backend]` says which.
    pub file: String,
    /// How long changes may wait for it, if the client says so.
    pub hold: Option<Duration>,
    /// The store is left even if its last write cannot be made.
    pub is_abandoning: bool,
}

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

/// How long changes may be held.
pub(super) fn hold(value: Option<&RawValue>) -> Result<Option<Duration>, Reply> {
    let Some(json) = value.map(RawValue::get).filter(|json| *json != "null") else { return Ok(None) };
    let seconds = json.parse::<f64>().ok().filter(|seconds| HOLD_SECONDS.contains(seconds));
    let seconds = seconds.ok_or_else(|| invalid_value("hold", "a number of seconds from 0.05 to 60", json))?;
    Ok(Some(Duration::from_secs_f64(seconds)))
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
    fn a_swap_says_how_long_changes_may_wait_and_whether_the_store_is_given_up() {
        let swap = |more: &str| asked(&format!(r#"{{"action":"swap","file":"to.toml"{more}}}"#));
        let hold = |seconds| Some(Duration::from_secs_f64(seconds));
        for (more, hold, is_abandoning) in [
            ("", None, false),
            (r#","hold":null,"abandon":null"#, None, false),
            (r#","hold":0.05"#, hold(0.05), false),
            (r#","hold":60,"abandon":true"#, hold(60.0), true),
        ] {
            let Ok(Request::Swap(swap)) = swap(more) else { panic!("{more}") };
            assert_eq!(*swap, Swap { file: "to.toml".into(), hold, is_abandoning });
        }
        for wrong in ["0.04", "61", "\"5\"", "true", "-1", "NaN"] {
            assert!(swap(&format!(r#","hold":{wrong}"#)).is_err(), "{wrong}");
        }
        let refusal = swap(r#","hold":61"#).unwrap_err();
        assert!(
            refusal.contains("Invalid value for hold: expected a number of seconds from 0.05 to 60, got 61"),
            "{refusal}"
        );
        assert!(swap(r#","abandon":"yes""#).unwrap_err().contains("Invalid value for abandon: expected true or false"));
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
