//! `service_info`: what a service says about itself, checked field by field and turned into its document.
//!
//! The document is made of the text that the client sent: what the registry does not know is never looked into, and
//! everything here takes time linear in that text's length.

use std::borrow::Cow;
use std::collections::HashSet;

use foldhash::fast::RandomState;
use serde_json::Number;
use serde_json::value::RawValue;

use crate::drain::DRAIN_KEY;
use crate::json::{self, Member};
use crate::reply::{Code, Reply};
use crate::request::Limits;
use crate::restore::RESTORING;

/// The time to live of a service that does not say, in seconds.
const TTL_SECONDS_DEFAULT: u64 = 30;
/// The shortest time to live, in seconds: times are kept in milliseconds.
const TTL_SECONDS_MIN: f64 = 0.001;
/// The longest time to live: a hundred years. It keeps deadlines far from where they would overflow.
const TTL_SECONDS_MAX: f64 = 100.0 * 365.0 * 86_400.0;
/// What such a duration is, in words.
pub(crate) const DURATION_SECONDS: &str = "a positive number of seconds, at most 3153600000 (100 years)";
/// How long a time to live may be as text: it is kept as the client wrote it, and a number can have any length.
const TTL_CHARACTERS_MAX: usize = 32;
/// What a random id has behind the name, in bytes: a dash and a UUID.
const UUID_BYTES: usize = 37;
/// Keys of a record that the registry writes. What a client sends for them is not kept, so that a client can send
/// back a record that it was given. `owner_key` says whose the service is, which only the registry may say.
const OWN_KEYS: [&str; 6] = ["ttl", "last_heartbeat", "health", OWNER_KEY, GENERATION_KEY, DRAIN_KEY];
/// Where a record says whose it is.
pub const OWNER_KEY: &str = "owner_key";
/// Where a record says which registration of its id it is.
pub const GENERATION_KEY: &str = "generation";
/// How much longer a record is with that, in bytes.
pub const GENERATION_BYTES: usize = ",\"generation\":1764115200000".len();
/// How the keys begin by which `serde_json` recognizes its own kinds of values. In a record that is read with it, a
/// client's object with such a key would become a number, or JSON in a string that nobody has checked.
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
    /// How long it was as JSON, with its ttl, in bytes: about what it takes to keep it.
    pub bytes: usize,
    /// Time to live in milliseconds.
    pub ttl_ms: u64,
    /// The service asks to be the only one of its type.
    pub singleton: bool,
    /// The service does not mind others of its type, though the server demands unique types.
    pub allow_duplicate_service_type: bool,
    /// The record as it will be shown, from behind the id on, without `last_heartbeat`, `health` and the closing brace.
    document: String,
}

impl Registration {
    /// Reads `service_info` and the `ttl` beside it.
    ///
    /// # Errors
    /// The reply that refuses the registration, naming the field and what it should be.
    pub fn read(service_info: &RawValue, ttl: Option<&RawValue>, limits: &Limits) -> Result<Self, Reply> {
        let json = service_info.get();
        if !json.starts_with('{') {
            return Err(invalid_value("service_info", "an object", json));
        }
        check_strings_of("service_info", json)?;
        let info = Info::read(json);
        for (field, value) in [("name", info.name), ("host", info.host), ("port", info.port)] {
            if value.is_none() {
                let error = format!("Missing required field in service_info: {field}");
                return Err(Reply::failure(Code::InvalidRequest, &error));
            }
        }
        Registration::from_fields(info, json.len(), ttl, limits)
    }

    fn from_fields(info: Info<'_>, bytes: usize, ttl: Option<&RawValue>, limits: &Limits) -> Result<Self, Reply> {
        let id = optional_text("id", info.id)?;
        let name = required_text("name", info.name)?;
        let host = required_text("host", info.host)?;
        let port = port(info.port)?;
        let own_type = optional_text("type", info.own_type)?;
        let mut tags = Tags::read(info.tags, limits)?;
        let mut metadata = metadata(info.metadata)?;
        let singleton = flag("singleton", info.singleton)?;
        let allow_duplicate_service_type = flag("allow_duplicate_service_type", info.allow_duplicate_service_type)?;
        let bytes = bytes + ttl.map_or(0, |ttl| ttl.get().len());
        let (ttl, ttl_ms) = read_ttl(ttl.map(RawValue::get))?;
        if singleton && allow_duplicate_service_type {
            return Err(Reply::failure(Code::InvalidServiceTypePolicy, "invalid_service_type_policy")
                .text("message", "singleton and allow_duplicate_service_type cannot both be true."));
        }

        let own_type_json = own_type.as_deref().map(json_text).unwrap_or_default();
        let mut added_tag = None;
        if let Some(own_type) = &own_type {
            check_length("service_info.type", own_type, limits.type_bytes)?;
            added_tag = tags.add(own_type.clone()).then_some(&*own_type_json);
            let member = Member { key: "type".into(), literal: "\"type\"", value: &own_type_json };
            match metadata.iter_mut().find(|member| member.key == "type") {
                Some(existing) => *existing = member,
                None => metadata.push(member),
            }
        }
        let metadata_type = metadata.iter().find(|member| member.key == "type");
        let metadata_type = metadata_type.and_then(|member| json::text(member.value)).filter(|text| !text.is_empty());
        if let Some(metadata_type) = &metadata_type {
            check_length("service_info.metadata.type", metadata_type, limits.type_bytes)?;
            tags.add(metadata_type.clone());
        }
        if tags.types.len() > limits.types {
            return Err(too_many("service_info.type", limits, tags.types.len()));
        }
        let service_type = own_type.as_deref().or(metadata_type.as_deref());
        check_length("service_info.name", &name, limits.name_bytes)?;
        check_id(id.as_deref(), &name, limits)?;

        let mut document = String::with_capacity(bytes + 100);
        document.push_str(",\"name\":");
        json::push_text(&mut document, &name);
        document.push_str(",\"host\":");
        json::push_text(&mut document, &host);
        document.push_str(",\"port\":");
        json::push_number(&mut document, port.into());
        document.push_str(",\"type\":");
        match service_type {
            Some(service_type) => json::push_text(&mut document, service_type),
            None => document.push_str("null"),
        }
        document.push_str(",\"tags\":[");
        push_separated(
            &mut document,
            tags.json.map(json::items).into_iter().flatten().chain(added_tag),
            String::push_str,
        );
        document.push_str("],\"metadata\":{");
        push_separated(&mut document, &metadata, push_member);
        document.push_str("},\"ttl\":");
        document.push_str(&ttl);
        for member in &info.own {
            document.push(',');
            push_member(&mut document, member);
        }
        Ok(Registration {
            id: id.map(Cow::into_owned),
            name: name.into_owned(),
            service_type: service_type.map(String::from),
            types: tags.types,
            bytes,
            ttl_ms,
            singleton,
            allow_duplicate_service_type,
            document,
        })
    }

    /// The service's document with this id: JSON text. `owner` is the key that the service belongs to, `generation` the
    /// number of the registration.
    pub fn into_document(self, id: &str, owner: Option<&str>, generation: u64) -> String {
        let mut document = String::with_capacity(self.document.len() + id.len() + 112);
        document.push_str("{\"id\":");
        json::push_text(&mut document, id);
        document.push_str(&self.document);
        if let Some(owner) = owner {
            document.push_str(",\"");
            document.push_str(OWNER_KEY);
            document.push_str("\":");
            json::push_text(&mut document, owner);
        }
        push_generation(&mut document, generation);
        document.push('}');
        document
    }
}

/// Adds to a document that lacks its closing brace which registration it is of.
pub fn push_generation(document: &mut String, generation: u64) {
    document.push_str(",\"");
    document.push_str(GENERATION_KEY);
    document.push_str("\":");
    json::push_number(document, generation);
}

/// The fields of `service_info`, of equal ones the last, as JSON.
#[derive(Default)]
struct Info<'a> {
    id: Option<&'a str>,
    name: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<&'a str>,
    own_type: Option<&'a str>,
    tags: Option<&'a str>,
    metadata: Option<&'a str>,
    singleton: Option<&'a str>,
    allow_duplicate_service_type: Option<&'a str>,
    /// The client's own fields, which are kept as they are; so are the flags.
    own: Vec<Member<'a>>,
}

impl<'a> Info<'a> {
    fn read(json: &'a str) -> Self {
        let mut info = Info::default();
        for member in members(json) {
            let field = match &*member.key {
                "id" => &mut info.id,
                "name" => &mut info.name,
                "host" => &mut info.host,
                "port" => &mut info.port,
                "type" => &mut info.own_type,
                "tags" => &mut info.tags,
                "metadata" => &mut info.metadata,
                key if OWN_KEYS.contains(&key) => continue,
                key => {
                    match key {
                        "singleton" => info.singleton = Some(member.value),
                        "allow_duplicate_service_type" => info.allow_duplicate_service_type = Some(member.value),
                        _ => {}
                    }
                    info.own.push(member);
                    continue;
                }
            };
            *field = Some(member.value);
        }
        json::without_repetition(&mut info.own);
        info
    }
}

/// The members of an object whose strings have been checked.
fn members(object: &str) -> impl Iterator<Item = Member<'_>> {
    json::members(object).map(|(literal, value)| Member {
        key: json::text(literal).unwrap_or_default(),
        literal,
        value,
    })
}

/// The tags as the client wrote them, and what the service is discovered by: each of its types once.
struct Tags<'a> {
    json: Option<&'a str>,
    types: Vec<String>,
    known: HashSet<Cow<'a, str>, RandomState>,
}

impl<'a> Tags<'a> {
    fn read(json: Option<&'a str>, limits: &Limits) -> Result<Self, Reply> {
        let json = json.filter(|json| *json != "null");
        let mut tags = Tags { json, types: Vec::new(), known: HashSet::default() };
        let Some(json) = json else { return Ok(tags) };
        if !json.starts_with('[') || json::items(json).any(|item| !item.starts_with('"')) {
            return Err(refuse("tags", "a list of strings", Some(json)));
        }
        let count = json::items(json).count();
        if count > limits.types {
            return Err(too_many("service_info.tags", limits, count));
        }
        for tag in json::items(json) {
            let tag = json::text(tag).unwrap_or_default();
            check_length("service_info.tags", &tag, limits.type_bytes)?;
            tags.add(tag);
        }
        Ok(tags)
    }

    /// Adds a type, and says whether it is new.
    fn add(&mut self, name: Cow<'a, str>) -> bool {
        let is_new = !self.known.contains(&name);
        if is_new {
            self.types.push(name.to_string());
            self.known.insert(name);
        }
        is_new
    }
}

/// An object's members.
fn metadata(json: Option<&str>) -> Result<Vec<Member<'_>>, Reply> {
    match json.filter(|json| *json != "null") {
        None => Ok(Vec::new()),
        Some(json) if json.starts_with('{') => {
            let mut metadata = members(json).collect();
            json::without_repetition(&mut metadata);
            Ok(metadata)
        }
        other => Err(refuse("metadata", "an object", other)),
    }
}

fn required_text<'a>(field: &'static str, json: Option<&'a str>) -> Result<Cow<'a, str>, Reply> {
    let text = json.and_then(json::text).filter(|text| !text.is_empty());
    text.ok_or_else(|| refuse(field, "a non-empty string", json))
}

/// A text; absent, null and empty are the same.
fn optional_text<'a>(field: &'static str, json: Option<&'a str>) -> Result<Option<Cow<'a, str>>, Reply> {
    let Some(json) = json.filter(|json| *json != "null") else { return Ok(None) };
    let text = json::text(json).ok_or_else(|| refuse(field, "a string", Some(json)))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn port(json: Option<&str>) -> Result<u16, Reply> {
    let port = json.and_then(|json| json.parse().ok()).filter(|port| *port > 0);
    port.ok_or_else(|| refuse("port", "an integer from 1 to 65535", json))
}

fn flag(field: &'static str, json: Option<&str>) -> Result<bool, Reply> {
    match json {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        other => Err(refuse(field, "true or false", other)),
    }
}

/// The ttl as it will be shown, and in milliseconds.
fn read_ttl(json: Option<&str>) -> Result<(Cow<'_, str>, u64), Reply> {
    let Some(json) = json.filter(|json| *json != "null") else {
        return Ok((TTL_SECONDS_DEFAULT.to_string().into(), TTL_SECONDS_DEFAULT * 1000));
    };
    if json.len() > TTL_CHARACTERS_MAX {
        return Err(invalid_value("ttl", &format!("a number of at most {TTL_CHARACTERS_MAX} characters"), json));
    }
    match seconds_to_ms(json) {
        Some(ms) => Ok((json.into(), ms)),
        None => Err(invalid_value("ttl", DURATION_SECONDS, json)),
    }
}

/// A duration that a client gives in seconds, in milliseconds: none that would overflow.
pub(crate) fn seconds_to_ms(json: &str) -> Option<u64> {
    // An object can pass for a number, see `RESERVED`.
    let number: Option<Number> =
        Some(json).filter(|json| !json.starts_with('{')).and_then(|json| serde_json::from_str(json).ok());
    let seconds = number.and_then(|number| number.as_f64())?;
    (TTL_SECONDS_MIN..=TTL_SECONDS_MAX).contains(&seconds).then(|| (seconds * 1000.0).round() as u64)
}

/// Refuses reserved keys and lone surrogates: every client that lists services must be able to read the record.
pub(crate) fn check_strings_of(field: &str, json: &str) -> Result<(), Reply> {
    if !json.contains("\\u") && !json.contains(RESERVED) {
        return Ok(());
    }
    for (string, is_key) in json::strings(json) {
        if is_key && json::begins_with(string, RESERVED) {
            return Err(invalid_value(field, &format!("no key that begins with {RESERVED}"), string));
        }
        // Only a surrogate can be alone.
        let mut triples = string.as_bytes().windows(3);
        if triples.any(|bytes| matches!(bytes, b"\\ud" | b"\\uD")) && json::text(string).is_none() {
            return Err(invalid_value(field, "no lone surrogate", string));
        }
    }
    Ok(())
}

pub(crate) fn check_length(field: &str, text: &str, bytes_max: usize) -> Result<(), Reply> {
    if text.len() > bytes_max {
        let (expected, got) = (format!("at most {bytes_max} bytes"), format!("{} bytes", text.len()));
        return Err(invalid_value(field, &expected, &got));
    }
    Ok(())
}

fn too_many(field: &str, limits: &Limits, got: usize) -> Reply {
    invalid_value(field, &format!("at most {} types of one service", limits.types), &got.to_string())
}

/// Checks the length of the id, or of the id that the service will get: it must be able to register again with that.
fn check_id(id: Option<&str>, name: &str, limits: &Limits) -> Result<(), Reply> {
    match id {
        Some(id) if id.starts_with(RESTORING) => {
            Err(invalid_value("service_info.id", &format!("one that does not begin with {RESTORING}"), id))
        }
        Some(id) => check_length("service_info.id", id, limits.id_bytes),
        None => check_length("service_info.name", &name.to_lowercase(), limits.id_bytes.saturating_sub(UUID_BYTES)),
    }
}

fn push_separated<T>(json: &mut String, parts: impl IntoIterator<Item = T>, mut push: impl FnMut(&mut String, T)) {
    for (position, part) in parts.into_iter().enumerate() {
        if position > 0 {
            json.push(',');
        }
        push(json, part);
    }
}

fn push_member(json: &mut String, member: &Member<'_>) {
    json.push_str(member.literal);
    json.push(':');
    json::push_compact(json, member.value);
}

fn json_text(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json::push_text(&mut json, text);
    json
}

fn refuse(field: &'static str, expected: &str, got: Option<&str>) -> Reply {
    invalid_value(&format!("service_info.{field}"), expected, got.unwrap_or("null"))
}

/// What clients say can be as long as a message: the beginning of it, in characters.
pub fn cut(text: &str, characters_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// The refusal of a field's value. `got` is JSON, shown cut if it is long.
pub fn invalid_value(field: &str, expected: &str, got: &str) -> Reply {
    const SHOWN_MAX: usize = 80;
    let got = cut(got, SHOWN_MAX);
    Reply::failure(Code::InvalidRequest, &format!("Invalid value for {field}: expected {expected}, got {got}"))
        .text("field", field)
}

#[cfg(test)]
mod tests;
