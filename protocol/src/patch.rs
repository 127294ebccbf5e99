//! A JSON merge patch (RFC 7396) onto the `metadata` of a service's document, from text to text: what the patch does
//! not name stays as it was written, and all takes time linear in both texts.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use serde_json::value::RawValue;

use crate::json::{self, push_compact, string_end, value_end};
use crate::registration::{check_strings_of, invalid_value};
use crate::reply::Reply;
use crate::request::Limits;

/// What the request and the record are nested in: the patch's place in both is two levels down.
const LEVELS_ABOVE: usize = 2;

/// What is to be changed of a service's `metadata`: a JSON object that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    json: Box<str>,
    document_bytes_max: usize,
}

impl Patch {
    /// Reads a patch.
    ///
    /// # Errors
    /// The reply that refuses it, naming what is wrong.
    pub fn read(json: &RawValue, limits: &Limits) -> Result<Self, Reply> {
        let json = json.get();
        if !json.starts_with('{') {
            return Err(invalid_value("metadata", "an object", json));
        }
        let depth = LEVELS_ABOVE + json::depth(json);
        if depth > limits.json_depth {
            let expected = format!("nested at most {} deep", limits.json_depth);
            return Err(invalid_value("metadata", &expected, &format!("{depth}")));
        }
        check_strings_of("metadata", json)?;
        if json::members(json).any(|(key, _)| json::text(key).is_some_and(|key| key == "type")) {
            let expected = "no \"type\": a service's types change when it registers again";
            return Err(invalid_value("metadata.type", expected, "one"));
        }
        Ok(Patch { json: json.into(), document_bytes_max: limits.document_bytes })
    }

    /// How long it is, in bytes.
    pub fn bytes(&self) -> usize {
        self.json.len()
    }

    /// A service's document with the patch in its `metadata`.
    ///
    /// # Errors
    /// The reply that refuses what would become too long.
    pub fn apply(&self, document: &str) -> Result<String, Reply> {
        let mut patched = String::with_capacity(document.len() + self.json.len() + 16);
        let patch = Node::read(&mut &*self.json);
        let mut patch = Some(patch);
        for (key, value) in json::members(document) {
            patched.push(if patched.is_empty() { '{' } else { ',' });
            patched.push_str(key);
            patched.push(':');
            let is_metadata = json::text(key).is_some_and(|key| key == "metadata");
            match patch.take_if(|_| is_metadata) {
                Some(patch) => push_merged(&mut patched, Some(Node::read(&mut { value })), patch),
                None => patched.push_str(value),
            }
        }
        if let Some(patch) = patch {
            patched.push_str(if patched.is_empty() { "{" } else { "," });
            patched.push_str("\"metadata\":");
            push_merged(&mut patched, None, patch);
        }
        patched.push('}');
        if patched.len() > self.document_bytes_max && patched.len() > document.len() {
            let expected = format!("a record of at most {} bytes", self.document_bytes_max);
            return Err(invalid_value("metadata", &expected, &format!("{} bytes", patched.len())));
        }
        Ok(patched)
    }
}

/// JSON text, of which only objects have been looked into.
enum Node<'a> {
    Object(Vec<(&'a str, Node<'a>)>),
    Other(&'a str),
}

impl<'a> Node<'a> {
    /// Takes a value off the text. Each byte is looked at once.
    fn read(rest: &mut &'a str) -> Self {
        skip(rest, "");
        if !rest.starts_with('{') {
            let (value, after) = rest.split_at(value_end(rest.as_bytes()));
            *rest = after;
            return Node::Other(value);
        }
        *rest = &rest[1..];
        let mut members = Vec::new();
        loop {
            skip(rest, ",");
            if !rest.starts_with('"') {
                // The end of the object.
                *rest = rest.get(1..).unwrap_or_default();
                return Node::Object(members);
            }
            let (key, after) = rest.split_at(string_end(rest.as_bytes()));
            *rest = after;
            skip(rest, ":");
            members.push((key, Node::read(rest)));
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Node::Other("null"))
    }
}

/// Leaves out space, and one of these.
fn skip(rest: &mut &str, separators: &str) {
    *rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || separators.contains(c));
}

/// What a key says: keys that are written differently may say the same.
fn said(key: &str) -> Cow<'_, str> {
    json::text(key).unwrap_or(Cow::Borrowed(key))
}

fn push_merged(json: &mut String, target: Option<Node<'_>>, patch: Node<'_>) {
    let members = match patch {
        Node::Other(value) => return push_compact(json, value),
        Node::Object(members) => members,
    };
    let target = match target {
        Some(Node::Object(members)) => members,
        _ => Vec::new(),
    };
    let count = members.len();
    // Of equal keys the last counts.
    let mut patch: HashMap<Cow<'_, str>, (&str, Option<Node<'_>>, usize), RandomState> = HashMap::default();
    for (place, (key, value)) in members.into_iter().enumerate() {
        patch.insert(said(key), (key, Some(value), place));
    }
    let mut begins = '{';
    let mut push_key = |json: &mut String, key: &str| {
        json.push(std::mem::replace(&mut begins, ','));
        json.push_str(key);
        json.push(':');
    };
    // Each key of the target at the place where it first stands, with its last value.
    let mut last: HashMap<Cow<'_, str>, usize, RandomState> = HashMap::default();
    for (place, (key, _)) in target.iter().enumerate() {
        last.insert(said(key), place);
    }
    let is_repeated = last.len() < target.len();
    let mut target: Vec<(&str, Option<Node<'_>>)> = target.into_iter().map(|(key, value)| (key, Some(value))).collect();
    let mut done: HashSet<usize, RandomState> = HashSet::default();
    for place in 0..target.len() {
        let key = target[place].0;
        let from = if is_repeated { last.get(&said(key)).copied().unwrap_or(place) } else { place };
        if is_repeated && !done.insert(from) {
            continue;
        }
        let Some(value) = target[from].1.take() else { continue };
        match patch.get_mut(&said(key)).and_then(|(_, patch, _)| patch.take()) {
            Some(patch) if patch.is_null() => {}
            Some(patch) => {
                push_key(json, key);
                push_merged(json, Some(value), patch);
            }
            None => {
                push_key(json, key);
                push_node(json, value);
            }
        }
    }
    let mut new: Vec<Option<(&str, Node<'_>)>> = Vec::new();
    new.resize_with(count, || None);
    for (_, (key, value, place)) in patch {
        new[place] = value.filter(|value| !value.is_null()).map(|value| (key, value));
    }
    for (key, value) in new.into_iter().flatten() {
        push_key(json, key);
        push_merged(json, None, value);
    }
    if begins == '{' {
        json.push('{');
    }
    json.push('}');
}

/// A value as it was.
fn push_node(json: &mut String, node: Node<'_>) {
    match node {
        Node::Other(value) => push_compact(json, value),
        Node::Object(members) => {
            json.push('{');
            for (place, (key, value)) in members.into_iter().enumerate() {
                if place > 0 {
                    json.push(',');
                }
                json.push_str(key);
                json.push(':');
                push_node(json, value);
            }
            json.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn patch(json: &str) -> Result<Patch, String> {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        Patch::read(raw, &Limits::default()).map_err(|reply| reply.finish(None).into_text())
    }

    fn merged(metadata: &str, by: &str) -> String {
        let document = format!("{{\"id\":\"a\",\"metadata\":{metadata},\"ttl\":30}}");
        let patched = patch(by).unwrap().apply(&document).unwrap();
        let inside =
            patched.strip_prefix("{\"id\":\"a\",\"metadata\":").and_then(|rest| rest.strip_suffix(",\"ttl\":30}"));
        inside.unwrap_or_else(|| panic!("{patched}")).to_string()
    }

    /// The rules as the RFC writes them.
    fn as_in_the_rfc(target: Value, patch: &Value) -> Value {
        let Value::Object(members) = patch else { return patch.clone() };
        let mut target = if target.is_object() { target } else { json!({}) };
        for (key, value) in members {
            let fields = target.as_object_mut().unwrap();
            if value.is_null() {
                fields.shift_remove(key);
            } else {
                let before = fields.get(key).cloned().unwrap_or(Value::Null);
                fields.insert(key.clone(), as_in_the_rfc(before, value));
            }
        }
        target
    }

    /// The table in appendix A of RFC 7396, as far as the patch is an object, and more.
    #[test]
    fn a_patch_does_what_the_rfc_says() {
        for (target, patch, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"["a"]"#, r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("null", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            (r#"{"a":{"x":[ 1, {"y" : null}]}}"#, r#"{ "b" : [ null ] }"#, r#"{"a":{"x":[1,{"y":null}]},"b":[null]}"#),
            // As they are written, whatever they say.
            (r#"{"n":1.50,"t":"\u00e9"}"#, r#"{"m":1e2}"#, r#"{"n":1.50,"t":"\u00e9","m":1e2}"#),
            (r#"{"é":1}"#, r#"{"\u00e9":2}"#, r#"{"é":2}"#),
            (r#"{"a":1,"b":2,"a":{"c":3}}"#, r#"{"a":{"d":4}}"#, r#"{"a":{"c":3,"d":4},"b":2}"#),
            (r#"{"a":{"x":1,"y":{"z":2}}}"#, r#"{"b":3}"#, r#"{"a":{"x":1,"y":{"z":2}},"b":3}"#),
            ("{}", r#"{"a":1,"b":2,"a":3}"#, r#"{"b":2,"a":3}"#),
        ] {
            assert_eq!(merged(target, patch), expected, "{target} by {patch}");
            let [target, patch, expected]: [Value; 3] =
                [target, patch, expected].map(|json| serde_json::from_str(json).unwrap());
            assert_eq!(as_in_the_rfc(target, &patch), expected, "{patch}");
        }
    }

    #[test]
    fn a_document_without_metadata_gets_some() {
        let patched = patch(r#"{"a":1}"#).unwrap().apply(r#"{"id":"a"}"#).unwrap();
        assert_eq!(patched, r#"{"id":"a","metadata":{"a":1}}"#);
    }

    #[test]
    fn what_cannot_be_a_patch_is_named() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(62), "]".repeat(62));
        assert!(patch(&format!("{{\"a\":{}1{}}}", "[".repeat(61), "]".repeat(61))).is_ok());
        for (json, part) in [
            ("7", "expected an object, got 7"),
            (r#"{"\u0074ype":"web"}"#, "metadata.type"),
            (r#"{"a":"\ud800"}"#, "no lone surrogate"),
            (r#"{"$serde_json::private::Number":"1"}"#, "no key that begins with"),
            (&deep, "nested at most 64 deep"),
        ] {
            let refusal = patch(json).unwrap_err();
            assert!(refusal.contains(part) && refusal.contains("\"code\":\"invalid_request\""), "{refusal}");
        }
    }

    #[test]
    fn a_record_that_becomes_too_long_is_refused_and_one_that_becomes_shorter_is_not() {
        let limits = Limits { document_bytes: 40, ..Limits::default() };
        let read = |json: &str| Patch::read(serde_json::from_str(json).unwrap(), &limits).unwrap();
        let document = format!("{{\"id\":\"a\",\"metadata\":{{\"a\":\"{}\",\"b\":1}}}}", "x".repeat(40));
        let refusal = read(r#"{"c":1}"#).apply(&document).unwrap_err().finish(None).into_text();
        assert!(refusal.contains("a record of at most 40 bytes"), "{refusal}");
        assert!(read(r#"{"b":null}"#).apply(&document).is_ok());
        assert!(read(r#"{"a":null,"c":1}"#).apply(&document).is_ok());
        assert!(read(r#"{"b":2}"#).apply(&document).is_ok(), "it stays as long as it is");
        let short = r#"{"id":"a"}"#;
        let longest = format!("{{\"a\":\"{}\"}}", "x".repeat(10));
        assert_eq!(read(&longest).bytes(), longest.len());
        assert_eq!(read(&longest).apply(short).map(|patched| patched.len()).ok(), Some(40));
        assert!(read(&longest.replace("xx", "xxx")).apply(short).is_err());
    }
}
