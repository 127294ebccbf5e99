//! Requests: JSON in, a [`Request`] or a refusal that names what is wrong out.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json;
use crate::registration::{Registration, check_length, cut, invalid_value};
use crate::reply::{Code, Reply};

/// How much of an action that does not exist is shown, in characters.
const ACTION_SHOWN_MAX: usize = 80;
/// The longest `request_id` as it is written, in bytes: it is kept until the reply leaves.
const REQUEST_ID_BYTES_MAX: usize = 1024;

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

/// The right that a client needs for a request.
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

/// A request, and what must come back with its reply.
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
    /// The longest id of a service, in bytes.
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
    // The reader does not check what it skips. One check of the whole is cheaper than one for each string.
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
            Action::Deregister => Request::Deregister { service_id: self.service_id(limits)? },
            Action::Renew => Request::Renew { service_id: self.service_id(limits)? },
            Action::Get => Request::Get { service_id: self.service_id(limits)? },
            Action::List => Request::List { service_type: self.service_type(limits)? },
            Action::Discover => {
                Request::Discover { service_type: self.service_type(limits)?.ok_or_else(|| missing("service_type"))? }
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
        match optional("service_id", self.service_id, limits.id_bytes)? {
            Some(service_id) => Ok(Request::Renew { service_id }),
            None => {
                let requests_port = limits.requests_port.map_or("the request port".into(), |port| port.to_string());
                let message = format!("this is the heartbeat port; requests go to {requests_port}");
                Err(missing("service_id").text("message", &message))
            }
        }
    }

    fn service_id(&self, limits: &Limits) -> Result<String, Reply> {
        optional("service_id", self.service_id, limits.id_bytes)?.ok_or_else(|| missing("service_id"))
    }

    fn service_type(&self, limits: &Limits) -> Result<Option<String>, Reply> {
        optional("service_type", self.service_type, limits.type_bytes)
    }
}

/// The `request_id` as JSON text: a string or a number, which go back as they are.
fn request_id(fields: &Fields<'_>) -> Result<Option<Box<str>>, Reply> {
    match fields.request_id.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(json) if json.len() > REQUEST_ID_BYTES_MAX => {
            let expected = format!("at most {REQUEST_ID_BYTES_MAX} bytes");
            Err(invalid_value("request_id", &expected, &format!("{} bytes", json.len())))
        }
        Some(json) if json.starts_with(['"', '-']) || json.starts_with(|c: char| c.is_ascii_digit()) => {
            Ok(Some(json.into()))
        }
        Some(json) => Err(invalid_value("request_id", "a string or a number", json)),
    }
}

/// A text of limited length, since it may have to wait.
fn optional(field: &'static str, value: Option<&RawValue>, bytes_max: usize) -> Result<Option<String>, Reply> {
    let Some(value) = value.filter(|value| !is_empty(value)) else { return Ok(None) };
    let text = json::text(value.get()).ok_or_else(|| invalid_value(field, "a string", value.get()))?;
    check_length(field, &text, bytes_max)?;
    Ok(Some(text.into_owned()))
}

fn missing(field: &str) -> Reply {
    Reply::failure(Code::InvalidRequest, &format!("Missing required field: {field}"))
}

/// What the Python registry takes for a missing value: whatever is false in Python.
fn is_empty(value: &RawValue) -> bool {
    matches!(value.get(), "null" | "\"\"" | "false" | "0" | "[]" | "{}")
}

#[cfg(test)]
mod tests;
