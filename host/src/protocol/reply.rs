//! Replies: one JSON object each, written straight into text.

use std::fmt::Write;

use serde_json::Value;

use crate::registry::Service;

/// The stable words by which programs tell failures apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The frames or the JSON cannot be read.
    InvalidJson,
    /// A field is missing or has a value that it cannot have.
    InvalidRequest,
    /// There is no such action.
    UnknownAction,
    /// No service has that id.
    NotFound,
    /// No service of that type is healthy.
    NoneHealthy,
    /// The service type has to be unique and is taken.
    DuplicateServiceType,
    /// `singleton` and `allow_duplicate_service_type` contradict each other.
    InvalidServiceTypePolicy,
    /// The storage failed or did not answer in time: nothing has been changed.
    BackendUnavailable,
    /// The storage cannot store this service: nothing has been changed.
    BackendRefused,
    /// More changes wait for the storage than are allowed to.
    Overloaded,
    /// The server does not allow it.
    Forbidden,
}

impl Code {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::InvalidJson => "invalid_json",
            Code::InvalidRequest => "invalid_request",
            Code::UnknownAction => "unknown_action",
            Code::NotFound => "not_found",
            Code::NoneHealthy => "none_healthy",
            Code::DuplicateServiceType => "duplicate_service_type",
            Code::InvalidServiceTypePolicy => "invalid_service_type_policy",
            Code::BackendUnavailable => "backend_unavailable",
            Code::BackendRefused => "backend_refused",
            Code::Overloaded => "overloaded",
            Code::Forbidden => "forbidden",
        }
    }
}

/// Room for what most replies say: they are written without growing.
const REPLY_BYTES: usize = 512;

/// A reply in the making: JSON text that lacks its closing brace.
#[derive(Clone, Debug)]
pub struct Reply {
    json: String,
}

impl Reply {
    /// `success: true`.
    pub fn success() -> Self {
        Reply::begin("{\"success\":true")
    }

    /// `success: false`, with a text for people and old clients, and a word for programs.
    pub fn failure(code: Code, error: &str) -> Self {
        Reply::begin("{\"success\":false").text("error", error).text("code", code.as_str())
    }

    fn begin(json: &str) -> Self {
        let mut reply = Reply { json: String::with_capacity(REPLY_BYTES) };
        reply.json.push_str(json);
        reply
    }

    /// Adds a text.
    pub fn text(mut self, key: &'static str, value: &str) -> Self {
        self.key(key);
        push_text(&mut self.json, value);
        self
    }

    /// Adds a whole number.
    pub fn number(mut self, key: &'static str, value: u64) -> Self {
        self.key(key);
        push_number(&mut self.json, value);
        self
    }

    /// Adds `true` or `false`.
    pub fn boolean(mut self, key: &'static str, value: bool) -> Self {
        self.key(key);
        self.json.push_str(if value { "true" } else { "false" });
        self
    }

    /// Adds any JSON.
    pub fn json(mut self, key: &'static str, value: &Value) -> Self {
        self.key(key);
        // Writing to a string cannot fail.
        let _ = write!(self.json, "{value}");
        self
    }

    /// Adds a service's record.
    pub fn service(mut self, key: &'static str, service: &Service) -> Self {
        self.key(key);
        service.render(&mut self.json);
        self
    }

    /// Adds a list of records.
    pub fn services<'a>(mut self, key: &'static str, services: impl Iterator<Item = &'a Service>) -> Self {
        self.key(key);
        self.json.push('[');
        for (position, service) in services.enumerate() {
            if position > 0 {
                self.json.push(',');
            }
            service.render(&mut self.json);
        }
        self.json.push(']');
        self
    }

    /// The whole JSON text. `request_id`, itself JSON, comes back to the client as it was sent.
    pub fn finish(mut self, request_id: Option<&str>) -> String {
        if let Some(request_id) = request_id {
            self.key("request_id");
            self.json.push_str(request_id);
        }
        self.json.push('}');
        self.json
    }

    fn key(&mut self, key: &str) {
        self.json.push_str(",\"");
        self.json.push_str(key);
        self.json.push_str("\":");
    }
}

/// Appends a JSON string.
pub(crate) fn push_text(json: &mut String, text: &str) {
    // What has nothing to escape, as ids and most texts, is copied.
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&Value::from(text).to_string());
    }
}

/// Appends a whole number.
pub(crate) fn push_number(json: &mut String, value: u64) {
    json.push_str(itoa::Buffer::new().format(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_where_json_wants_it_and_only_there() {
        for text in ["", "a-1", "\u{7f}é漢\u{10ffff}", "\"", "a\\b", "\n", "\u{0}", "\u{1f}x", "tab\there"] {
            let mut json = String::from("[");
            push_text(&mut json, text);
            assert_eq!(json, format!("[{}", Value::from(text)), "{text:?}");
        }
    }

    #[test]
    fn replies_of_any_length_are_json() {
        let long = "x".repeat(2 * REPLY_BYTES);
        let json = Reply::success().text("long", &long).number("most", u64::MAX).finish(Some("7"));
        let expected = serde_json::json!({"success": true, "long": long, "most": u64::MAX, "request_id": 7});
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), expected);
    }
}
