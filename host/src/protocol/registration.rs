//! `service_info`: what a service says about itself, checked field by field and turned into its document.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use crate::protocol::reply::{Code, Reply};
use crate::security::key::PublicKey;

/// The time to live of a service that does not say, in seconds.
const TTL_SECONDS_DEFAULT: u64 = 30;
/// The shortest time to live, in seconds: times are kept in milliseconds.
const TTL_SECONDS_MIN: f64 = 0.001;
/// The longest time to live: a hundred years. It keeps deadlines far from where they would overflow.
const TTL_SECONDS_MAX: f64 = 100.0 * 365.0 * 86_400.0;
/// Keys of a record that the registry writes. What a client sends for them is not kept, so that a client can send
/// back a record that it was given. `owner_key` says whose the service is, and nobody may say that but the registry.
const OWN_KEYS: [&str; 4] = ["ttl", "last_heartbeat", "health", OWNER_KEY];
/// Where a record says whose it is.
pub(crate) const OWNER_KEY: &str = "owner_key";
/// How the keys begin by which `serde_json` knows its own kinds of values again. It would take a client's object with
/// such a key for a number, or for JSON in a string, which nobody has looked at: how deep that is nested, for one.
const RESERVED: &str = "$serde_json::private::";

/// A service that wants to be registered: all fields checked, lacking only an id if it brought none.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The id that the client gave.
    pub id: Option<String>,
    /// The service's name.
    pub name: String,
    /// The type that a demand for uniqueness is about: `type`, or else `metadata.type`.
    pub service_type: Option<String>,
    /// All types that the service is discovered by: its tags, and `metadata.type`.
    pub types: Vec<String>,
    /// How long it was as JSON, in bytes: about what it takes to keep it.
    pub bytes: usize,
    /// Time to live in milliseconds.
    pub ttl_ms: u64,
    /// The service asks to be the only one of its type.
    pub singleton: bool,
    /// The service does not mind others of its type, though the server demands unique types.
    pub allow_duplicate_service_type: bool,
    /// The record as it will be shown, without `last_heartbeat` and `health`. The id is still to be filled in.
    fields: Map<String, Value>,
}

impl Registration {
    /// Reads `service_info` and the `ttl` beside it, both JSON text.
    ///
    /// # Errors
    /// The reply that refuses the registration, naming the field and what it should be.
    pub fn read(service_info: &str, ttl: Option<&str>) -> Result<Self, Reply> {
        if let Some(key) = reserved_key(service_info) {
            return Err(invalid_value("service_info", &format!("no key that begins with {RESERVED}"), key));
        }
        let info = match serde_json::from_str(service_info) {
            Ok(Value::Object(info)) => info,
            Ok(_) => return Err(invalid_value("service_info", "an object", service_info)),
            Err(error) => {
                let error = format!("Invalid value for service_info: {error}");
                return Err(Reply::failure(Code::InvalidRequest, &error));
            }
        };
        for field in ["name", "host", "port"] {
            if !info.contains_key(field) {
                let error = format!("Missing required field in service_info: {field}");
                return Err(Reply::failure(Code::InvalidRequest, &error));
            }
        }
        Registration::from_fields(Info(info), service_info.len(), ttl)
    }

    fn from_fields(mut info: Info, bytes: usize, ttl: Option<&str>) -> Result<Self, Reply> {
        let id = info.optional_text("id")?;
        let name = info.text("name")?;
        let host = info.text("host")?;
        let port = info.port()?;
        let own_type = info.optional_text("type")?;
        let mut tags = info.tags()?;
        let mut metadata = info.metadata()?;
        let singleton = info.flag("singleton")?;
        let allow_duplicate_service_type = info.flag("allow_duplicate_service_type")?;
        let (ttl, ttl_ms) = read_ttl(ttl)?;
        if singleton && allow_duplicate_service_type {
            return Err(Reply::failure(Code::InvalidServiceTypePolicy, "invalid_service_type_policy")
                .text("message", "singleton and allow_duplicate_service_type cannot both be true."));
        }

        if let Some(own_type) = &own_type {
            if !tags.contains(own_type) {
                tags.push(own_type.clone());
            }
            metadata.insert("type".to_string(), Value::from(own_type.as_str()));
        }
        let metadata_type = metadata.get("type").and_then(Value::as_str).filter(|text| !text.is_empty());
        let service_type = own_type.or_else(|| metadata_type.map(String::from));
        let mut types: Vec<String> = Vec::with_capacity(tags.len() + 1);
        for tag in tags.iter().map(String::as_str).chain(metadata_type) {
            if !types.iter().any(|known| known == tag) {
                types.push(tag.to_string());
            }
        }

        let mut fields = Map::new();
        fields.insert("id".to_string(), Value::Null);
        fields.insert("name".to_string(), Value::from(name.as_str()));
        fields.insert("host".to_string(), Value::from(host));
        fields.insert("port".to_string(), Value::from(port));
        fields.insert("type".to_string(), service_type.as_deref().map_or(Value::Null, Value::from));
        fields.insert("tags".to_string(), Value::from(tags));
        fields.insert("metadata".to_string(), Value::Object(metadata));
        fields.insert("ttl".to_string(), Value::Number(ttl));
        for (key, value) in info.0 {
            if !OWN_KEYS.contains(&key.as_str()) {
                fields.entry(key).or_insert(value);
            }
        }
        Ok(Registration {
            id,
            name,
            service_type,
            types,
            bytes,
            ttl_ms,
            singleton,
            allow_duplicate_service_type,
            fields,
        })
    }

    /// The service's document with this id: JSON text. `owner` is the key that the service belongs to.
    pub fn into_document(mut self, id: &str, owner: Option<&PublicKey>) -> String {
        self.fields.insert("id".to_string(), Value::from(id));
        if let Some(owner) = owner {
            self.fields.insert(OWNER_KEY.to_string(), Value::from(owner.to_string()));
        }
        Value::Object(self.fields).to_string()
    }
}

/// The fields of `service_info`, taken out one by one; what stays behind is the client's own.
struct Info(Map<String, Value>);

impl Info {
    /// A value, or `None` if it is absent or null. What is left keeps its order, which is the client's.
    fn take(&mut self, field: &str) -> Option<Value> {
        self.0.shift_remove(field).filter(|value| !value.is_null())
    }

    fn text(&mut self, field: &'static str) -> Result<String, Reply> {
        match self.take(field) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            other => Err(refuse(field, "a non-empty string", &other.unwrap_or_default())),
        }
    }

    /// A text; absent, null and empty are the same.
    fn optional_text(&mut self, field: &'static str) -> Result<Option<String>, Reply> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(other) => Err(refuse(field, "a string", &other)),
        }
    }

    fn port(&mut self) -> Result<u16, Reply> {
        let value = self.take("port").unwrap_or_default();
        match value.as_u64().and_then(|port| u16::try_from(port).ok()) {
            Some(port) if port > 0 => Ok(port),
            _ => Err(refuse("port", "an integer from 1 to 65535", &value)),
        }
    }

    fn tags(&mut self) -> Result<Vec<String>, Reply> {
        let Some(value) = self.take("tags") else { return Ok(Vec::new()) };
        let texts = |tags: &Vec<Value>| tags.iter().map(|tag| tag.as_str().map(String::from)).collect();
        value.as_array().and_then(texts).ok_or_else(|| refuse("tags", "a list of strings", &value))
    }

    fn metadata(&mut self) -> Result<Map<String, Value>, Reply> {
        match self.take("metadata") {
            None => Ok(Map::new()),
            Some(Value::Object(metadata)) => Ok(metadata),
            Some(other) => Err(refuse("metadata", "an object", &other)),
        }
    }

    /// A flag stays among the client's own fields: it is part of the record.
    fn flag(&self, field: &'static str) -> Result<bool, Reply> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(refuse(field, "true or false", other)),
        }
    }
}

/// The ttl as it will be shown, and in milliseconds.
fn read_ttl(json: Option<&str>) -> Result<(Number, u64), Reply> {
    let Some(json) = json.filter(|json| *json != "null") else {
        return Ok((Number::from(TTL_SECONDS_DEFAULT), TTL_SECONDS_DEFAULT * 1000));
    };
    let refusal = || invalid_value("ttl", "a positive number of seconds, at most 3153600000 (100 years)", json);
    // See `RESERVED`: an object can pass for a number.
    let number: Number = Some(json)
        .filter(|json| !json.starts_with('{'))
        .and_then(|json| serde_json::from_str(json).ok())
        .ok_or_else(refusal)?;
    match number.as_f64() {
        Some(seconds) if (TTL_SECONDS_MIN..=TTL_SECONDS_MAX).contains(&seconds) => {
            Ok((number, (seconds * 1000.0).round() as u64))
        }
        _ => Err(refusal()),
    }
}

/// The first key in JSON text that is reserved, as it is written there: with escapes, perhaps.
fn reserved_key(json: &str) -> Option<&str> {
    if !json.contains(RESERVED) && !json.contains("\\u") {
        return None;
    }
    let mut rest = json;
    loop {
        rest = &rest[rest.find('"')?..];
        let mut escaped = false;
        let closes = |byte: u8| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        };
        let (text, after) = rest.split_at(1 + rest.bytes().skip(1).position(closes)? + 1);
        let is_reserved = |key: String| key.starts_with(RESERVED);
        if after.trim_start().starts_with(':') && serde_json::from_str(text).is_ok_and(is_reserved) {
            return Some(text);
        }
        rest = after;
    }
}

fn refuse(field: &'static str, expected: &str, got: &Value) -> Reply {
    invalid_value(&format!("service_info.{field}"), expected, &got.to_string())
}

/// What clients say can be as long as a message: the beginning of it, in characters.
pub(crate) fn cut(text: &str, characters_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// The refusal of a field's value. `got` is JSON, shown cut if it is long.
pub(crate) fn invalid_value(field: &str, expected: &str, got: &str) -> Reply {
    const SHOWN_MAX: usize = 80;
    let got = cut(got, SHOWN_MAX);
    Reply::failure(Code::InvalidRequest, &format!("Invalid value for {field}: expected {expected}, got {got}"))
        .text("field", field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(service_info: &str, ttl: Option<&str>) -> Option<String> {
        Registration::read(service_info, ttl).err().map(|reply| reply.finish(None))
    }

    /// `serde_json` has names of its own for numbers and for JSON in a string, and looks for them in what clients send.
    #[test]
    fn nothing_in_a_string_is_taken_for_json() {
        let info = |extra: &str| format!("{{\"name\":\"n\",\"host\":\"h\",\"port\":1,{extra}}}");
        for key in ["$serde_json::private::RawValue", "\\u0024serde_json::pri\\u0076ate::RawValue"] {
            for extra in [format!("{{\"{key}\":\"[[[[]]]]\"}}"), format!("[\"\\\"\",{{\"x\":1, \"{key}\" : \"\"}}]")] {
                let refusal = refusal(&info(&format!("\"metadata\":{{\"m\":{extra}}}")), None);
                assert!(refusal.is_some_and(|refusal| refusal.contains("no key that begins with")), "{extra}");
            }
        }
        let whole =
            "{\"$serde_json::private::RawValue\":\"{\\\"name\\\":\\\"n\\\",\\\"host\\\":\\\"h\\\",\\\"port\\\":1}\"}";
        assert!(refusal(whole, None).is_some_and(|refusal| refusal.contains("no key that begins with")));
        assert!(refusal(&info("\"x\":{\"$serde_json::private::Number\":\"1\"}"), None).is_some());
        let ttl = refusal(&info("\"x\":1"), Some("{\"$serde_json::private::Number\":\"5\"}"));
        assert!(ttl.is_some_and(|refusal| refusal.contains("Invalid value for ttl")));
        // The same as a value is text like any other, and other escapes are no harm.
        for extra in ["\"x\":\"$serde_json::private::Number\"", "\"\\u00e9\":{\"\\u0024serde_json\":\"\\\\u\"}"] {
            assert_eq!(refusal(&info(extra), Some("5")), None, "{extra}");
        }
    }
}
