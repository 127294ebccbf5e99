//! From path, query and body to a request of the protocol.
//!
//! What is said becomes the JSON that a client of ZeroMQ would have sent, and is read as that is: one set of rules, and
//! one set of words for what breaks them. Nothing here does I/O.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::protocol::json::push_text;
use crate::protocol::registration::{cut, invalid_value};
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::{self, Action, Limits, Port, Request};

use super::table::{Kind, Operation, Parameter, Payload, Place};

/// How much of what nobody knows is shown, in characters.
const SHOWN_MAX: usize = 80;

/// The fields of a request, each with its JSON.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(&'static str, String)>);

impl Fields {
    /// What a request says. `path` has what stands in the path, decoded.
    ///
    /// # Errors
    /// The reply that refuses it, naming what is wrong.
    pub(super) fn read(operation: &Operation, path: &[(&str, &str)], query: &str, body: &[u8]) -> Result<Self, Reply> {
        let mut fields = Fields::default();
        for parameter in operation.parameters.iter().filter(|parameter| parameter.place == Place::Path) {
            let said = path.iter().find(|(name, _)| *name == parameter.name);
            said.into_iter().for_each(|(_, text)| fields.set(parameter.name, quoted(text)));
        }
        fields.read_query(operation.parameters, query)?;
        let id = fields.take("service_id", matches!(operation.body, Payload::Service));
        match operation.body {
            Payload::None if body.trim_ascii().is_empty() => {}
            Payload::None => return Err(invalid("Unexpected body", "this request has none")),
            Payload::Service => fields.read_service(body, id.as_deref())?,
            Payload::Members(members) => fields.read_members(members, body)?,
        }
        Ok(fields)
    }

    /// Sets a field, in the place of one that has this name.
    pub(super) fn set(&mut self, name: &'static str, json: String) {
        self.0.retain(|(known, _)| *known != name);
        self.0.push((name, json));
    }

    /// The JSON of a field.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, json)| &**json)
    }

    /// Leaves a field out.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| *known != name);
    }

    /// The request that has these fields.
    ///
    /// # Errors
    /// The reply that refuses it.
    pub(super) fn request(&self, action: Action, limits: &Limits) -> Result<Request, Reply> {
        let length: usize = self.0.iter().map(|(name, json)| name.len() + json.len() + 4).sum();
        let mut text = String::with_capacity(length + 40);
        text.push_str("{\"action\":\"");
        text.push_str(action.as_str());
        text.push('"');
        for (name, json) in &self.0 {
            text.push_str(",\"");
            text.push_str(name);
            text.push_str("\":");
            text.push_str(json);
        }
        text.push('}');
        request::parse(text.as_bytes(), Port::Requests, limits).request
    }

    fn take(&mut self, name: &str, is_wanted: bool) -> Option<String> {
        let place = self.0.iter().position(|(known, _)| is_wanted && *known == name)?;
        Some(self.0.swap_remove(place).1)
    }

    fn read_query(&mut self, parameters: &'static [Parameter], query: &str) -> Result<(), Reply> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, text) = (decoded(name)?, decoded(text)?);
            let mut known = parameters.iter().filter(|parameter| parameter.place == Place::Query);
            let Some(parameter) = known.clone().find(|parameter| parameter.name == name) else {
                let known: Vec<&str> = known.by_ref().map(|parameter| parameter.name).collect();
                let expected = if known.is_empty() { "none".to_string() } else { known.join(", ") };
                let error = format!("Unknown parameter: {}", cut(&name, SHOWN_MAX));
                return Err(invalid(&error, &format!("expected {expected}")));
            };
            self.add(parameter, &text)?;
        }
        for (_, json) in &mut self.0 {
            if json.starts_with('[') && !json.ends_with(']') {
                json.push(']');
            }
        }
        Ok(())
    }

    /// Takes in what a parameter of the query says. A list is still open.
    fn add(&mut self, parameter: &Parameter, text: &str) -> Result<(), Reply> {
        let name = parameter.name;
        let json = match parameter.kind {
            // Nothing is no text, and so an empty list.
            Kind::Texts | Kind::Names if text.is_empty() => String::new(),
            Kind::Names => text.split(',').map(quoted).collect::<Vec<_>>().join(","),
            Kind::Whole | Kind::Between(..) | Kind::Number | Kind::UpTo(_) | Kind::Object
                if is_json(text, parameter.kind) =>
            {
                text.to_string()
            }
            _ => quoted(text),
        };
        let before = self.0.iter_mut().find(|(known, _)| *known == name).map(|(_, json)| json);
        match (before, parameter.kind) {
            (None, Kind::Texts | Kind::Names) => self.0.push((name, format!("[{json}"))),
            (Some(before), Kind::Texts | Kind::Names) => {
                let is_between = !before.ends_with('[') && !json.is_empty();
                before.push_str(if is_between { "," } else { "" });
                before.push_str(&json);
            }
            (None, _) => self.0.push((name, json)),
            (Some(_), _) => {
                let error = format!("Invalid value for {name}: expected once, got several");
                return Err(invalid(&error, "of these parameters each stands once").text("field", name));
            }
        }
        Ok(())
    }

    /// A service's record: its `ttl` is a field beside it, and it has the id of the path, if that has one.
    fn read_service(&mut self, body: &[u8], id: Option<&str>) -> Result<(), Reply> {
        let Object { text, members, is_empty, .. } = Object::read(body, &["ttl", "id"])?;
        if let Some(ttl) = members[0] {
            self.set("ttl", ttl.get().to_string());
        }
        let is_same = |own: &RawValue| {
            let texts =
                [Some(own.get()), id].map(|json| json.and_then(|json| serde_json::from_str::<Cow<'_, str>>(json).ok()));
            texts[0] == texts[1]
        };
        let record = match (members[1].filter(|own| !["null", "\"\""].contains(&own.get())), id) {
            (Some(own), Some(id)) if !is_same(own) => {
                let expected = format!("{id}, as in the path, or none");
                return Err(invalid_value("id", &expected, own.get()));
            }
            (None, Some(id)) => {
                // Of equal keys the last counts.
                let comma = if is_empty { "" } else { "," };
                format!("{}{comma}\"id\":{id}}}", &text[..text.len() - 1])
            }
            _ => text.to_string(),
        };
        self.set("service_info", record);
        Ok(())
    }

    fn read_members(&mut self, known: &'static [Parameter], body: &[u8]) -> Result<(), Reply> {
        let names: Vec<&str> = known.iter().map(|parameter| parameter.name).collect();
        let object = Object::read(body, &names)?;
        if let Some(unknown) = object.unknown {
            let error = format!("Unknown field: {}", cut(&unknown, SHOWN_MAX));
            return Err(invalid(&error, &format!("expected {}", names.join(", "))));
        }
        for (parameter, json) in known.iter().zip(object.members) {
            json.into_iter().for_each(|json| self.set(parameter.name, json.get().to_string()));
        }
        Ok(())
    }
}

/// A body that is an object.
struct Object<'a> {
    /// Without what stands around it.
    text: &'a str,
    /// What stands under the names that were asked for, in their order.
    members: Vec<Option<&'a RawValue>>,
    /// The first name that was not.
    unknown: Option<String>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    fn read(body: &'a [u8], names: &[&str]) -> Result<Self, Reply> {
        let wrong = |error: String| Reply::failure(Code::InvalidJson, "Invalid JSON format").text("message", &error);
        let text = str::from_utf8(body).map_err(|error| wrong(error.to_string()))?.trim_ascii();
        if text.is_empty() {
            return Err(wrong("expected one JSON object as the body, got nothing".into()));
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let found = json.deserialize_map(Members { names }).and_then(|found| json.end().map(|()| found));
        let (members, unknown, is_empty) = found.map_err(|error| wrong(error.to_string()))?;
        Ok(Object { text, members, unknown, is_empty })
    }
}

struct Members<'n> {
    names: &'n [&'n str],
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = (Vec<Option<&'de RawValue>>, Option<String>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut members = vec![None; self.names.len()];
        let (mut unknown, mut is_empty) = (None, true);
        while let Some(Key(key)) = map.next_key()? {
            is_empty = false;
            match self.names.iter().position(|name| *name == key) {
                Some(place) => members[place] = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                    unknown.get_or_insert_with(|| key.into_owned());
                }
            }
        }
        Ok((members, unknown, is_empty))
    }
}

/// A key that is copied only if it has escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Whether a text is JSON of such a kind. What is none is handed on as text, which the protocol refuses by its name.
fn is_json(text: &str, kind: Kind) -> bool {
    let begins_well = match kind {
        Kind::Object => text.starts_with('{'),
        _ => text.starts_with(|c: char| c == '-' || c.is_ascii_digit()),
    };
    begins_well && serde_json::from_str::<&RawValue>(text).is_ok()
}

fn decoded(text: &str) -> Result<String, Reply> {
    let text = text.replace('+', " ");
    let text = percent_decode_str(&text).decode_utf8().map(Cow::into_owned);
    text.map_err(|_| invalid("Invalid query", "what is escaped there is no UTF-8"))
}

fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    push_text(&mut json, text);
    json
}

fn invalid(error: &str, message: &str) -> Reply {
    Reply::failure(Code::InvalidRequest, error).text("message", message)
}

#[cfg(test)]
mod tests;
