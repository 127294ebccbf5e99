//! `drain` and `undrain`: a service that stays registered and is discovered by nobody.
//!
//! Whether it is drained stands in its document, so that a store keeps it and everybody sees it.

use serde_json::value::RawValue;

use crate::json;
use crate::registration::{DURATION_SECONDS, invalid_value, seconds_to_ms};
use crate::reply::Reply;

/// Where a record says that its service is drained.
pub const DRAIN_KEY: &str = "drain";
/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 512;

/// That a service is to be drained, or not to be drained any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The service's id.
    pub service_id: String,
    /// Only if the service is of this generation.
    pub generation: Option<u64>,
    /// For how long and why; `None` ends it.
    pub order: Option<Order>,
}

/// For how long a service is to be drained, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// For so many milliseconds; `None` until somebody ends it.
    pub for_ms: Option<u64>,
    /// What is told of it.
    pub reason: Option<String>,
}

impl Order {
    /// Reads `seconds` and `reason`.
    ///
    /// # Errors
    /// The reply that refuses them.
    pub(crate) fn read(seconds: Option<&RawValue>, reason: Option<&RawValue>) -> Result<Self, Reply> {
        let for_ms = match seconds.map(RawValue::get) {
            None | Some("null") => None,
            Some(json) => Some(seconds_to_ms(json).ok_or_else(|| invalid_value("seconds", DURATION_SECONDS, json))?),
        };
        Ok(Order { for_ms, reason: crate::request::optional("reason", reason, REASON_BYTES_MAX)? })
    }
}

/// What a record says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// When it ends, in milliseconds since the Unix epoch; `None` if somebody has to end it.
    pub until_unix_ms: Option<u64>,
}

/// Whether a document says that its service is drained.
pub fn drained(document: &str) -> Option<Drained> {
    let (_, mark) = json::members(document).find(|(key, _)| is_mark(key))?;
    let until = json::members(mark).find(|(key, _)| json::text(key).is_some_and(|key| key == "until"));
    let until_unix_ms = until.and_then(|(_, until)| until.parse::<u64>().ok()).map(|until| until.saturating_mul(1000));
    Some(Drained { until_unix_ms })
}

/// A document that says that its service is drained since this moment, in milliseconds since the Unix epoch.
pub fn mark(document: &str, order: &Order, unix_ms: u64) -> String {
    let mut mark = String::from("{\"since\":");
    json::push_number(&mut mark, unix_ms / 1000);
    if let Some(for_ms) = order.for_ms {
        mark.push_str(",\"until\":");
        // In whole seconds, and never sooner than was asked for.
        json::push_number(&mut mark, unix_ms.saturating_add(for_ms).div_ceil(1000));
    }
    if let Some(reason) = &order.reason {
        mark.push_str(",\"reason\":");
        json::push_text(&mut mark, reason);
    }
    mark.push('}');
    with_mark(document, Some(&mark))
}

/// A document that says nothing of it.
pub fn unmark(document: &str) -> String {
    with_mark(document, None)
}

/// A document that says of it what another one says.
pub fn carry(from: &str, document: &str) -> String {
    let mark = json::members(from).find(|(key, _)| is_mark(key)).map(|(_, mark)| mark);
    with_mark(document, mark)
}

fn is_mark(key: &str) -> bool {
    json::text(key).is_some_and(|key| key == DRAIN_KEY)
}

fn with_mark(document: &str, mark: Option<&str>) -> String {
    let mut marked = String::with_capacity(document.len() + mark.map_or(0, str::len) + 16);
    let mut push = |key: &str, value: &str| {
        marked.push(if marked.is_empty() { '{' } else { ',' });
        marked.push_str(key);
        marked.push(':');
        marked.push_str(value);
    };
    json::members(document).filter(|(key, _)| !is_mark(key)).for_each(|(key, value)| push(key, value));
    if let Some(mark) = mark {
        push("\"drain\"", mark);
    }
    if marked.is_empty() {
        marked.push('{');
    }
    marked.push('}');
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_the_last_field_and_goes_without_a_trace() {
        let document = r#"{"id":"s","metadata":{"drain":1},"generation":7}"#;
        let order = Order { for_ms: Some(1500), reason: Some("a \"disk\"".into()) };
        let marked = mark(document, &order, 10_900);
        let expected =
            r#"{"id":"s","metadata":{"drain":1},"generation":7,"drain":{"since":10,"until":13,"reason":"a \"disk\""}}"#;
        assert_eq!(marked, expected);
        assert_eq!(drained(&marked), Some(Drained { until_unix_ms: Some(13_000) }));
        assert_eq!(carry(&marked, document), marked);
        assert_eq!(unmark(&marked), document);
        assert_eq!(drained(document), None);
        let forever = mark(&marked, &Order::default(), 20_000);
        assert_eq!(forever, r#"{"id":"s","metadata":{"drain":1},"generation":7,"drain":{"since":20}}"#);
        assert_eq!(drained(&forever), Some(Drained { until_unix_ms: None }));
    }
}
