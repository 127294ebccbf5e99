//! Requests: JSON in, a [`Request`] or a refusal that names what is wrong out.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::protocol::registration::{Registration, invalid_value};
use crate::protocol::reply::{Code, Reply};

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

/// Reads a request. Its objects and arrays may be nested `json_depth_max` deep at most, where they are kept.
pub fn parse(body: &[u8], port: Port, json_depth_max: usize) -> Parsed {
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
        Port::Requests => fields.request(json_depth_max),
        Port::Heartbeats => fields.service_id().map(|service_id| Request::Renew { service_id }),
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
    fn request(&self, json_depth_max: usize) -> Result<Request, Reply> {
        let Some(action) = self.action.filter(|value| !is_empty(value)) else {
            return Err(missing("action"));
        };
        let unknown = |action: &str| Reply::failure(Code::UnknownAction, &format!("Unknown action: {action}"));
        let Some(action) = text(action) else {
            return Err(unknown(action.get()));
        };
        Ok(match &*action {
            "register" => {
                let service_info = self.service_info.ok_or_else(|| missing("service_info"))?;
                // The request itself is one level.
                let depth = 1 + depth(service_info.get());
                if depth > json_depth_max {
                    let problem = format!("nested {depth} deep, expected at most {json_depth_max}");
                    let error = format!("Invalid value for service_info: {problem}");
                    return Err(Reply::failure(Code::InvalidRequest, &error));
                }
                Request::Register(Box::new(Registration::read(service_info.get(), self.ttl.map(RawValue::get))?))
            }
            "deregister" => Request::Deregister { service_id: self.service_id()? },
            "renew" => Request::Renew { service_id: self.service_id()? },
            "get" => Request::Get { service_id: self.service_id()? },
            "list" => Request::List { service_type: optional("service_type", self.service_type)? },
            "discover" => Request::Discover { service_type: required("service_type", self.service_type)? },
            "health" => Request::Health,
            "info" => Request::Info,
            "terminate" => Request::Terminate,
            other => return Err(unknown(other)),
        })
    }

    fn service_id(&self) -> Result<String, Reply> {
        required("service_id", self.service_id)
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

fn required(field: &'static str, value: Option<&RawValue>) -> Result<String, Reply> {
    optional(field, value)?.ok_or_else(|| missing(field))
}

fn optional(field: &'static str, value: Option<&RawValue>) -> Result<Option<String>, Reply> {
    match value.filter(|value| !is_empty(value)) {
        None => Ok(None),
        Some(value) => match text(value) {
            Some(text) => Ok(Some(text.into_owned())),
            None => Err(invalid_value(field, "a string", value.get())),
        },
    }
}

/// How deep objects and arrays are nested in a JSON text.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth -= 1,
            _ => {}
        }
    }
    deepest
}

fn missing(field: &str) -> Reply {
    Reply::failure(Code::InvalidRequest, &format!("Missing required field: {field}"))
}

/// What the Python registry takes for a missing value: whatever is false in Python.
fn is_empty(value: &RawValue) -> bool {
    matches!(value.get(), "null" | "\"\"" | "false" | "0" | "[]" | "{}")
}

fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    // A string without escapes is what stands between its quotes: that it is well-formed has been seen.
    let plain = value.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    if let Some(plain) = plain.filter(|text| text.bytes().all(|byte| byte != b'\\')) {
        return Some(Cow::Borrowed(plain));
    }
    serde_json::from_str::<Key<'_>>(value.get()).ok().map(|Key(text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_that_of_objects_and_arrays_not_of_text() {
        for (json, expected) in [
            ("1", 0),
            ("\"[[[\"", 0),
            ("[]", 1),
            ("[[], {\"a\": [1]}]", 3),
            (r#"["\"[[[[", "]"]"#, 1),
            (r#"["\\", [[]]]"#, 3),
        ] {
            assert_eq!(depth(json), expected, "{json}");
        }
    }

    #[test]
    fn texts_are_what_their_json_says_with_and_without_escapes() {
        for text in ["a", "é漢", "\"", "\\", "a\\\"b\"", "\n\t\u{1}", "ends with \\", "'"] {
            let request = serde_json::json!({"action": "discover", "service_type": text}).to_string();
            match parse(request.as_bytes(), Port::Requests, 10).request {
                Ok(Request::Discover { service_type }) => assert_eq!(service_type, text),
                other => panic!("{request} became {other:?}"),
            }
        }
        let escaped = br#"{"\u0061ction":"\u0067et","service_id":"\u0078"}"#;
        let request = parse(escaped, Port::Requests, 10).request;
        assert!(matches!(request, Ok(Request::Get { service_id }) if service_id == "x"));
    }

    #[test]
    fn what_is_not_utf_8_is_refused_wherever_it_stands() {
        for body in
            [&b"{\"action\":\"list\",\"x\":\"\xff\"}"[..], b"{\"action\":\"list\xff\"}", b"{\"\xff\":1}", b"\xff"]
        {
            let refusal = parse(body, Port::Requests, 10).request.map(|_| ()).map_err(|reply| reply.finish(None));
            assert!(refusal.is_err_and(|refusal| refusal.contains("invalid_json")), "{body:?}");
        }
    }

    #[test]
    fn what_is_kept_may_not_be_nested_too_deep() {
        let register = |levels: usize| {
            let metadata = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            let info = format!("{{\"name\":\"n\",\"host\":\"h\",\"port\":1,\"metadata\":{{\"m\":{metadata}}}}}");
            let request = format!("{{\"action\":\"register\",\"service_info\":{info}}}");
            parse(request.as_bytes(), Port::Requests, 10).request.map(|_| ()).map_err(|reply| reply.finish(None))
        };
        register(7).expect("ten levels are fine");
        let refusal = register(8).unwrap_err();
        assert!(refusal.contains("service_info: nested 11 deep, expected at most 10"), "{refusal}");
    }
}
