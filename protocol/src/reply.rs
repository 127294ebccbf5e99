//! Replies: one JSON object each, written straight into text.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::json::{Shown, push_number, push_text};

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
    /// The service type must be unique and is taken.
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
    /// What the client knows of the history is too old to go on from, or of another history: it has to list again.
    Compacted,
    /// Another registration has taken the place of the one that was named.
    Replaced,
    /// The service was deregistered, not long ago.
    Deregistered,
    /// The server has not loaded its services yet.
    Starting,
    /// What the server knows is older than the client wants.
    Stale,
    /// The configuration cannot be used: nothing has been changed.
    ConfigRefused,
    /// The client has as many services as it may.
    QuotaExceeded,
    /// The client asks more often than it may.
    TooManyRequests,
}

impl Code {
    /// All words.
    pub const ALL: [Code; 19] = [
        Code::InvalidJson,
        Code::InvalidRequest,
        Code::UnknownAction,
        Code::NotFound,
        Code::NoneHealthy,
        Code::DuplicateServiceType,
        Code::InvalidServiceTypePolicy,
        Code::BackendUnavailable,
        Code::BackendRefused,
        Code::Overloaded,
        Code::Forbidden,
        Code::Compacted,
        Code::Replaced,
        Code::Deregistered,
        Code::Starting,
        Code::Stale,
        Code::ConfigRefused,
        Code::QuotaExceeded,
        Code::TooManyRequests,
    ];

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
            Code::Compacted => "compacted",
            Code::Replaced => "replaced",
            Code::Deregistered => "deregistered",
            Code::Starting => "starting",
            Code::Stale => "stale",
            Code::ConfigRefused => "config_refused",
            Code::QuotaExceeded => "quota_exceeded",
            Code::TooManyRequests => "too_many_requests",
        }
    }
}

/// Room for what most replies say: they are written without growing.
const REPLY_BYTES: usize = 512;

/// A reply in the making: JSON text that lacks its closing brace.
#[derive(Clone, Debug)]
pub struct Reply {
    code: Option<Code>,
    retry_after_ms: Option<u64>,
    /// What stands before the rest, and in other replies too: nothing in most.
    shared: Option<Arc<[Bytes]>>,
    json: String,
}

/// The JSON text of a reply, in pieces.
#[derive(Clone, Debug)]
pub struct Body {
    shared: Option<Arc<[Bytes]>>,
    rest: String,
}

impl Body {
    /// What comes first: the same `Bytes` in each reply that shares them. A piece may end within a character.
    pub fn shared(&self) -> &[Bytes] {
        self.shared.as_deref().unwrap_or_default()
    }

    /// The same, to be kept for as long as it is needed.
    pub fn kept(&self) -> Option<&Arc<[Bytes]>> {
        self.shared.as_ref()
    }

    /// What follows.
    pub fn rest(&self) -> &str {
        &self.rest
    }

    /// What follows, to be kept without a copy.
    pub fn into_rest(self) -> String {
        self.rest
    }

    /// All of it, in one text.
    pub fn into_text(self) -> String {
        if self.shared.is_none() {
            return self.rest;
        }
        let mut bytes = self.shared().concat();
        bytes.extend_from_slice(self.rest.as_bytes());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Reply {
    /// `success: true`.
    pub fn success() -> Self {
        Reply::begin("{\"success\":true")
    }

    /// `success: false`, with a text for humans and old clients, and a word for programs.
    pub fn failure(code: Code, error: &str) -> Self {
        let reply = Reply::begin("{\"success\":false").text("error", error).text("code", code.as_str());
        Reply { code: Some(code), ..reply }
    }

    /// A reply that begins with these pieces: a successful one that lacks its closing brace, and that many clients get.
    pub fn with_shared(pieces: Arc<[Bytes]>) -> Self {
        Reply { code: None, retry_after_ms: None, shared: Some(pieces), json: String::new() }
    }

    /// The text so far, with a list under this key begun: the first of the pieces that
    /// [`with_shared`](Self::with_shared) takes. The list's end is another.
    pub fn begin_list(mut self, key: &'static str) -> String {
        self.key(key);
        self.json.push('[');
        self.json
    }

    /// How long it is so far, without what it shares with others, in bytes.
    pub fn len(&self) -> usize {
        self.json.len()
    }

    /// Whether nothing is in it, which never is.
    pub fn is_empty(&self) -> bool {
        self.json.is_empty()
    }

    /// Why it is a failure, if it is.
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    /// Says in how many milliseconds it makes sense to ask again.
    pub fn retry_after(self, ms: u64) -> Self {
        Reply { retry_after_ms: Some(ms), ..self.seconds("retry_after", ms) }
    }

    /// In how many milliseconds it makes sense to ask again, if that is known.
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.retry_after_ms
    }

    fn begin(json: &str) -> Self {
        let mut reply =
            Reply { code: None, retry_after_ms: None, shared: None, json: String::with_capacity(REPLY_BYTES) };
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

    /// Adds a span of time in seconds, to the millisecond.
    pub fn seconds(mut self, key: &'static str, ms: u64) -> Self {
        self.key(key);
        // Writing to a string cannot fail.
        let _ = write!(self.json, "{:?}", ms as f64 / 1000.0);
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

    /// Adds JSON that is written already.
    pub fn written(mut self, key: &'static str, json: &str) -> Self {
        self.key(key);
        self.json.push_str(json);
        self
    }

    /// Adds a service's record.
    pub fn service(mut self, key: &'static str, service: &impl Shown) -> Self {
        self.key(key);
        service.show(&mut self.json);
        self
    }

    /// Adds a list of records.
    pub fn services(mut self, key: &'static str, services: impl Iterator<Item = impl Shown>) -> Self {
        self.key(key);
        self.json.push('[');
        for (position, service) in services.enumerate() {
            if position > 0 {
                self.json.push(',');
            }
            service.show(&mut self.json);
        }
        self.json.push(']');
        self
    }

    /// The whole reply. `request_id`, itself JSON, comes back to the client as it was sent.
    pub fn finish(mut self, request_id: Option<&str>) -> Body {
        if let Some(request_id) = request_id {
            self.key("request_id");
            self.json.push_str(request_id);
        }
        self.json.push('}');
        Body { shared: self.shared, rest: self.json }
    }

    fn key(&mut self, key: &str) {
        self.json.push_str(",\"");
        self.json.push_str(key);
        self.json.push_str("\":");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_any_length_are_json() {
        let long = "x".repeat(2 * REPLY_BYTES);
        let json = Reply::success().text("long", &long).number("most", u64::MAX).finish(Some("7")).into_text();
        let expected = serde_json::json!({"success": true, "long": long, "most": u64::MAX, "request_id": 7});
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), expected);
    }

    #[test]
    fn replies_are_written_field_by_field() {
        struct Camera(u8);
        impl Shown for Camera {
            fn show(&self, json: &mut String) {
                let _ = write!(json, "{{\"id\":{}}}", self.0);
            }
        }
        let reply = Reply::success()
            .text("text", "a\"b")
            .number("number", 7)
            .boolean("yes", true)
            .boolean("no", false)
            .seconds("seconds", 1250)
            .seconds("whole", 2000)
            .json("json", &serde_json::json!({"a": [1, null]}))
            .written("written", "[{}]")
            .service("service", &Camera(1))
            .services("none", [].into_iter().map(Camera))
            .services("services", [1, 2, 3].into_iter().map(Camera));
        let expected = concat!(
            r#"{"success":true,"text":"a\"b","number":7,"yes":true,"no":false,"seconds":1.25,"whole":2.0,"json":{"a":[1,null]},"#,
            r#""written":[{}],"#,
            r#""service":{"id":1},"none":[],"services":[{"id":1},{"id":2},{"id":3}],"request_id":-1.50}"#
        );
        let body = reply.finish(Some("-1.50"));
        assert_eq!((body.rest(), body.shared().len()), (expected, 0));
        assert_eq!(body.into_text(), expected);
    }

    #[test]
    fn replies_that_share_pieces_each_end_for_themselves() {
        // Cut within a character.
        let begin = Reply::success().begin_list("services");
        let (first, second) = "\"é\"]".as_bytes().split_at(2);
        let pieces: Arc<[Bytes]> = [begin.as_bytes(), first, second].map(Bytes::copy_from_slice).into();
        for request_id in [None, Some("\"a\"")] {
            let body = Reply::with_shared(pieces.clone()).number("revision", 7).finish(request_id);
            assert!(body.shared().iter().zip(&*pieces).all(|(one, other)| one.as_ptr() == other.as_ptr()));
            assert!(body.kept().is_some_and(|kept| Arc::ptr_eq(kept, &pieces)), "to keep them copies nothing");
            let reply: Value = serde_json::from_str(&body.into_text()).unwrap();
            assert_eq!((&reply["services"][0], &reply["revision"]), (&Value::from("é"), &Value::from(7)));
            assert_eq!(reply.get("request_id"), request_id.map(|_| Value::from("a")).as_ref());
        }
        let alone = Reply::success().finish(None);
        assert!(alone.shared().is_empty() && alone.kept().is_none());
    }

    #[test]
    fn a_failure_keeps_its_code() {
        for code in Code::ALL {
            let reply = Reply::failure(code, "no");
            assert_eq!(reply.code(), Some(code));
            let word = code.as_str();
            assert_eq!(
                reply.finish(None).into_text(),
                format!("{{\"success\":false,\"error\":\"no\",\"code\":\"{word}\"}}")
            );
        }
        assert_eq!(Reply::success().code(), None);
    }
}
