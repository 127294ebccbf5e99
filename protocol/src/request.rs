//! Requests: JSON in, a [`Request`] or a refusal that names what is wrong out.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json;
use crate::registration::{Registration, cut, invalid_value};
use crate::reply::{Code, Reply};

/// How much of an action that does not exist is shown, in characters.
const ACTION_SHOWN_MAX: usize = 80;

/// The words by which clients say what they want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Add a service, or update the one with the same id.
    Register,
    /// Remove a service.
    Deregister,
    /// A heartbeat.
    Renew,
    /// One service.
    Get,
    /// All services, or all of a type.
    List,
    /// Any healthy service of a type.
    Discover,
    /// Is the registry there?
    Health,
    /// Its settings and services.
    Info,
    /// Stop the server.
    Terminate,
}

impl Action {
    /// All actions.
    pub const ALL: [Action; 9] = [
        Action::Register,
        Action::Deregister,
        Action::Renew,
        Action::Get,
        Action::List,
        Action::Discover,
        Action::Health,
        Action::Info,
        Action::Terminate,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Register => "register",
            Action::Deregister => "deregister",
            Action::Renew => "renew",
            Action::Get => "get",
            Action::List => "list",
            Action::Discover => "discover",
            Action::Health => "health",
            Action::Info => "info",
            Action::Terminate => "terminate",
        }
    }
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Add a service, or update the one with the same id.
    Register(Box<Registration>),
    /// Remove a service.
    Deregister {
        /// The service's id.
        service_id: String,
    },
    /// A heartbeat: the service lives for another ttl.
    Renew {
        /// The service's id.
        service_id: String,
    },
    /// One service.
    Get {
        /// The service's id.
        service_id: String,
    },
    /// All services, or all of a type.
    List {
        /// The type; `None` means all.
        service_type: Option<String>,
    },
    /// Any healthy service of a type.
    Discover {
        /// The type.
        service_type: String,
    },
    /// Is the registry there?
    Health,
    /// Its settings and services.
    Info,
    /// Stop the server.
    Terminate,
}

/// What a client has to be allowed for a request to be answered.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// Nothing: everybody may ask.
    None,
    /// To see services.
    Read,
    /// To register this service; and to change the one with its id, if there is one.
    Register(&'a Registration),
    /// To change the service with this id: its own, or anybody's.
    Change(&'a str),
    /// To stop the server.
    Terminate,
}

impl Request {
    /// The right that it needs.
    pub fn right(&self) -> Right<'_> {
        match self {
            Request::Health => Right::None,
            Request::Get { .. } | Request::List { .. } | Request::Discover { .. } | Request::Info => Right::Read,
            Request::Register(registration) => Right::Register(registration),
            Request::Deregister { service_id } | Request::Renew { service_id } => Right::Change(service_id),
            Request::Terminate => Right::Terminate,
        }
    }
}

/// A request with what has to come back with its reply.
#[derive(Debug)]
pub struct Parsed {
    /// The request, or the reply that refuses it.
    pub request: Result<Request, Reply>,
    /// The client's `request_id`, as JSON text.
    pub request_id: Option<Box<str>>,
}

/// Which port a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The request port.
    Requests,
    /// The heartbeat port, where every request is a renewal, whatever its `action` says.
    Heartbeats,
}

/// What a request may ask for at most, and where requests go.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How deep objects and arrays may be nested that are kept.
    pub json_depth: usize,
    /// The longest id that a service can be registered with, in bytes.
    pub id_bytes: usize,
    /// The longest name of a service, in bytes.
    pub name_bytes: usize,
    /// The longest type of a service, in bytes; tags are types.
    pub type_bytes: usize,
    /// The most types of one service.
    pub types: usize,
    /// The number of the request port, for clients that ask the heartbeat port by mistake.
    pub requests_port: Option<u16>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { json_depth: 64, id_bytes: 512, name_bytes: 256, type_bytes: 256, types: 256, requests_port: None }
    }
}

/// Reads a request.
pub fn parse(body: &[u8], port: Port, limits: &Limits) -> Parsed {
    let fields = match read_fields(body) {
        Ok(fields) => fields,
        Err(error) => {
            let refusal = Reply::failure(Code::InvalidJson, "Invalid JSON format").text("message", &error.to_string());
            return Parsed { request: Err(refusal), request_id: None };
        }
    };
    let request_id = match request_id(&fields) {
        Ok(request_id) => request_id,
        Err(refusal) => return Parsed { request: Err(refusal), request_id: None },
    };
    let request = match port {
        Port::Requests => fields.request(limits),
        Port::Heartbeats => fields.beat(limits),
    };
    Parsed { request, request_id }
}

/// The fields of a request that mean something, as JSON text that has not been looked into yet.
#[derive(Default)]
struct Fields<'a> {
    action: Option<&'a RawValue>,
    service_id: Option<&'a RawValue>,
    service_type: Option<&'a RawValue>,
    service_info: Option<&'a RawValue>,
    ttl: Option<&'a RawValue>,
    request_id: Option<&'a RawValue>,
}

fn read_fields(body: &[u8]) -> serde_json::Result<Fields<'_>> {
    // The reader looks at what it passes over as little as it can. All of it has to be text, which is seen once, and not
    // for each string of it.
    let text = str::from_utf8(body).map_err(serde::de::Error::custom)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let fields = json.deserialize_map(FieldsVisitor)?;
    json.end()?;
    Ok(fields)
}

/// Unlike a derived one, this visitor lets the last of equal keys win, as the JSON readers that clients know do.
struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields<'de>, M::Error> {
        let mut fields = Fields::default();
        while let Some(Key(key)) = map.next_key()? {
            let field = match &*key {
                "action" => &mut fields.action,
                "service_id" => &mut fields.service_id,
                "service_type" => &mut fields.service_type,
                "service_info" => &mut fields.service_info,
                "ttl" => &mut fields.ttl,
                "request_id" => &mut fields.request_id,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = Some(map.next_value()?);
        }
        Ok(fields)
    }
}

/// A key that is copied only if it has escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl Fields<'_> {
    fn request(&self, limits: &Limits) -> Result<Request, Reply> {
        let Some(action) = self.action.filter(|value| !is_empty(value)) else {
            return Err(missing("action"));
        };
        let text = json::text(action.get());
        let word = text.as_deref().unwrap_or(action.get());
        let known = Action::ALL.into_iter().find(|action| text.is_some() && action.as_str() == word);
        let Some(action) = known else {
            let error = format!("Unknown action: {}", cut(word, ACTION_SHOWN_MAX));
            return Err(Reply::failure(Code::UnknownAction, &error));
        };
        Ok(match action {
            Action::Register => Request::Register(Box::new(self.registration(limits)?)),
            Action::Deregister => Request::Deregister { service_id: self.service_id()? },
            Action::Renew => Request::Renew { service_id: self.service_id()? },
            Action::Get => Request::Get { service_id: self.service_id()? },
            Action::List => Request::List { service_type: optional("service_type", self.service_type)? },
            Action::Discover => {
                let service_type = optional("service_type", self.service_type)?;
                Request::Discover { service_type: service_type.ok_or_else(|| missing("service_type"))? }
            }
            Action::Health => Request::Health,
            Action::Info => Request::Info,
            Action::Terminate => Request::Terminate,
        })
    }

    fn registration(&self, limits: &Limits) -> Result<Registration, Reply> {
        let service_info = self.service_info.ok_or_else(|| missing("service_info"))?;
        // The request itself is one level.
        let depth = 1 + json::depth(service_info.get());
        if depth > limits.json_depth {
            let problem = format!("nested {depth} deep, expected at most {}", limits.json_depth);
            let error = format!("Invalid value for service_info: {problem}");
            return Err(Reply::failure(Code::InvalidRequest, &error));
        }
        Registration::read(service_info, self.ttl, limits)
    }

    /// What is asked at the heartbeat port, whatever its `action` says.
    fn beat(&self, limits: &Limits) -> Result<Request, Reply> {
        match optional("service_id", self.service_id)? {
            Some(service_id) => Ok(Request::Renew { service_id }),
            None => {
                let requests_port = limits.requests_port.map_or("the request port".into(), |port| port.to_string());
                let message = format!("this is the heartbeat port; requests go to {requests_port}");
                Err(missing("service_id").text("message", &message))
            }
        }
    }

    fn service_id(&self) -> Result<String, Reply> {
        optional("service_id", self.service_id)?.ok_or_else(|| missing("service_id"))
    }
}

/// The `request_id` as JSON text: a string or a number, which go back as they are.
fn request_id(fields: &Fields<'_>) -> Result<Option<Box<str>>, Reply> {
    match fields.request_id.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(json) if json.starts_with(['"', '-']) || json.starts_with(|c: char| c.is_ascii_digit()) => {
            Ok(Some(json.into()))
        }
        Some(json) => Err(invalid_value("request_id", "a string or a number", json)),
    }
}

fn optional(field: &'static str, value: Option<&RawValue>) -> Result<Option<String>, Reply> {
    match value.filter(|value| !is_empty(value)) {
        None => Ok(None),
        Some(value) => match json::text(value.get()) {
            Some(text) => Ok(Some(text.into_owned())),
            None => Err(invalid_value(field, "a string", value.get())),
        },
    }
}

fn missing(field: &str) -> Reply {
    Reply::failure(Code::InvalidRequest, &format!("Missing required field: {field}"))
}

/// What the Python registry takes for a missing value: whatever is false in Python.
fn is_empty(value: &RawValue) -> bool {
    matches!(value.get(), "null" | "\"\"" | "false" | "0" | "[]" | "{}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { json_depth: 10, ..Limits::default() }
    }

    /// What a registration of this `service_info` is refused with, if it is.
    fn refusal(service_info: &str) -> Option<String> {
        let request = format!("{{\"action\":\"register\",\"service_info\":{service_info}}}");
        parse(request.as_bytes(), Port::Requests, &limits()).request.err().map(|reply| reply.finish(None).rest)
    }

    #[test]
    fn texts_are_what_their_json_says_with_and_without_escapes() {
        for text in ["a", "é漢", "\"", "\\", "a\\\"b\"", "\n\t\u{1}", "ends with \\", "'"] {
            let request = serde_json::json!({"action": "discover", "service_type": text}).to_string();
            match parse(request.as_bytes(), Port::Requests, &limits()).request {
                Ok(Request::Discover { service_type }) => assert_eq!(service_type, text),
                other => panic!("{request} became {other:?}"),
            }
        }
        let escaped = br#"{"\u0061ction":"\u0067et","service_id":"\u0078"}"#;
        let request = parse(escaped, Port::Requests, &limits()).request;
        assert!(matches!(request, Ok(Request::Get { service_id }) if service_id == "x"));
    }

    #[test]
    fn what_is_not_utf_8_is_refused_wherever_it_stands() {
        for body in
            [&b"{\"action\":\"list\",\"x\":\"\xff\"}"[..], b"{\"action\":\"list\xff\"}", b"{\"\xff\":1}", b"\xff"]
        {
            let refusal =
                parse(body, Port::Requests, &limits()).request.map(|_| ()).map_err(|reply| reply.finish(None).rest);
            assert!(refusal.is_err_and(|refusal| refusal.contains("invalid_json")), "{body:?}");
        }
    }

    #[test]
    fn what_is_kept_may_not_be_nested_too_deep() {
        let register = |levels: usize| {
            let metadata = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            let info = format!("{{\"name\":\"n\",\"host\":\"h\",\"port\":1,\"metadata\":{{\"m\":{metadata}}}}}");
            let request = format!("{{\"action\":\"register\",\"service_info\":{info}}}");
            parse(request.as_bytes(), Port::Requests, &limits())
                .request
                .map(|_| ())
                .map_err(|reply| reply.finish(None).rest)
        };
        register(7).expect("ten levels are fine");
        let refusal = register(8).unwrap_err();
        assert!(refusal.contains("service_info: nested 11 deep, expected at most 10"), "{refusal}");
    }

    /// One message keeps nobody else waiting, whatever is in it. To be run by hand:
    /// `cargo test --release -p registry-protocol long -- --ignored --nocapture`.
    #[test]
    #[ignore = "measures, in a release build"]
    fn long_messages_are_read_quickly() {
        const BYTES: usize = 1 << 20;
        let fill = |piece: &dyn Fn(usize) -> String| {
            let mut text = String::new();
            (0..)
                .map(piece)
                .take_while(|piece| {
                    text.len() + piece.len() < BYTES - 200 && {
                        text += piece;
                        true
                    }
                })
                .count();
            text.trim_end_matches(',').to_string()
        };
        let register = |more: String| {
            format!("{{\"action\":\"register\",\"service_info\":{{\"name\":\"n\",\"host\":\"h\",\"port\":1,{more}}}}}")
        };
        let nested = BYTES / 2 - 100;
        for (what, request) in [
            ("tags", register(format!("\"tags\":[{}]", fill(&|n| format!("\"{n}\","))))),
            ("equal tags", register(format!("\"tags\":[{}]", fill(&|n| format!("\"{}\",", n % 7))))),
            ("metadata", register(format!("\"metadata\":{{{}}}", fill(&|n| format!("\"{n}\":1,"))))),
            ("fields", register(fill(&|n| format!("\"{n}\":1,")))),
            ("fields with escapes", register(fill(&|n| format!("\"\\u0041{n}\":1,")))),
            ("equal fields", register(fill(&|_| "\"a\":1,".into()))),
            ("fields of the request", format!("{{\"action\":\"list\",{}}}", fill(&|n| format!("\"{n}\":1,")))),
            ("a string", register(format!("\"x\":\"{}\"", "x".repeat(BYTES - 200)))),
            ("escapes", register(format!("\"x\":\"{}\"", "\\ud83d\\ude00".repeat(BYTES / 12 - 20)))),
            ("strings with escapes", register(format!("\"x\":[{}]", fill(&|_| "\"\\ud83d\\ude00\",".into())))),
            ("a name", register(format!("\"name\":\"{}\"", "x".repeat(BYTES - 200)))),
            ("an action", format!("{{\"action\":\"{}\"}}", "x".repeat(BYTES - 200))),
            ("a service_id", format!("{{\"action\":\"get\",\"service_id\":\"{}\"}}", "x".repeat(BYTES - 200))),
            ("numbers", register(format!("\"x\":[{}]", fill(&|_| "1,".into())))),
            ("space", register(format!("\"x\":[{}1]", " ".repeat(BYTES - 200)))),
            ("arrays", register(format!("\"x\":{}1{}", "[".repeat(nested), "]".repeat(nested)))),
            ("objects", register(format!("\"x\":[{}]", fill(&|_| "{\"a\":{}},".into())))),
        ] {
            let took = (0..5).map(|_| {
                let start = std::time::Instant::now();
                let request = parse(request.as_bytes(), Port::Requests, &Limits::default()).request;
                if let Ok(Request::Register(registration)) = request {
                    registration.into_document("i", None);
                }
                start.elapsed()
            });
            let took = took.min().unwrap_or_default();
            println!("{what}: {:.1} ms", took.as_secs_f64() * 1000.0);
            assert!(took.as_millis() < 50, "{what} took {took:?}");
        }
    }

    #[test]
    fn whoever_asks_at_the_heartbeat_port_is_told_so() {
        for (requests_port, expected) in
            [(Some(5556), "requests go to 5556\""), (None, "requests go to the request port\"")]
        {
            let limits = Limits { requests_port, ..limits() };
            for body in ["{\"action\":\"list\"}", "{\"action\":\"renew\",\"service_id\":\"\"}"] {
                let refusal = parse(body.as_bytes(), Port::Heartbeats, &limits).request.unwrap_err().finish(None).rest;
                assert!(
                    refusal.contains("\"Missing required field: service_id\",\"code\":\"invalid_request\""),
                    "{refusal}"
                );
                assert!(refusal.contains("\"message\":\"this is the heartbeat port; ") && refusal.contains(expected));
            }
        }
    }

    #[test]
    fn what_others_have_to_read_is_valid() {
        for value in
            ["\"a\u{1}\"", "\"\\x\"", "\"\\u12\"", "01", "1.", "[1,]", "{\"a\":1,}", "{\"a\"}", "nul", "\"\\ud800\""]
        {
            let info = format!("{{\"name\":\"n\",\"host\":\"h\",\"port\":1,\"x\":{value}}}");
            assert!(refusal(&info).is_some(), "{value}");
        }
    }
}
