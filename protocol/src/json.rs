//! JSON text, taken apart and written without building a tree: both take time linear in the text's length.
//!
//! The functions that read expect valid JSON without space around it, as a [`RawValue`](serde_json::value::RawValue)
//! is. From other text they make something, but they never panic.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;

pub(crate) mod equal;

/// What clients are shown as a service's record. A trait, so that nothing here depends on the core's services.
pub trait Shown {
    /// Appends the record: a JSON object.
    fn show(&self, json: &mut String);
}

/// The values of an array.
pub(crate) fn items(array: &str) -> impl Iterator<Item = &str> {
    let mut rest = inside(array);
    std::iter::from_fn(move || next_value(&mut rest))
}

/// The members of an object: keys as they are written, in their quotes, and values.
pub(crate) fn members(object: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = inside(object);
    std::iter::from_fn(move || Some((next_value(&mut rest)?, next_value(&mut rest)?)))
}

/// A member of an object.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    /// What the key says.
    pub(crate) key: Cow<'a, str>,
    /// The key as it is written, in its quotes.
    pub(crate) literal: &'a str,
    /// The value, as JSON.
    pub(crate) value: &'a str,
}

/// Leaves one of the members with equal keys: the value is the last one's and the place the first one's, as readers of
/// JSON have it.
pub(crate) fn without_repetition(members: &mut Vec<Member<'_>>) {
    let mut places: HashMap<&str, usize, RandomState> = HashMap::default();
    places.reserve(members.len());
    let mut repeated = Vec::new();
    for (place, member) in members.iter().enumerate() {
        match places.entry(&*member.key) {
            Entry::Vacant(entry) => drop(entry.insert(place)),
            Entry::Occupied(entry) => repeated.push((*entry.get(), place)),
        }
    }
    for (first, place) in &repeated {
        members[*first].value = members[*place].value;
    }
    let mut place = 0..;
    let mut repeated = repeated.into_iter().map(|(_, place)| place).peekable();
    if repeated.peek().is_some() {
        members.retain(|_| repeated.next_if_eq(&place.next().unwrap_or_default()).is_none());
    }
}

/// All strings in JSON text, keys among them: each as it is written, in its quotes, and whether it is a key.
pub(crate) fn strings(json: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = json;
    std::iter::from_fn(move || {
        rest = &rest[rest.find('"')?..];
        let (string, after) = rest.split_at(string_end(rest.as_bytes()));
        rest = after;
        Some((string, after.trim_ascii_start().starts_with(':')))
    })
}

/// What a JSON string says. `None` for other values, and for strings with a lone surrogate, which say nothing.
pub(crate) fn text(json: &str) -> Option<Cow<'_, str>> {
    let plain = json.strip_prefix('"')?.strip_suffix('"')?;
    if plain.bytes().all(|byte| byte != b'\\') {
        return Some(Cow::Borrowed(plain));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// Whether a JSON string, once its escapes are read, begins with this text of letters, digits and `$:_`.
pub(crate) fn begins_with(string: &str, text: &str) -> bool {
    let mut rest = string.strip_prefix('"').unwrap_or(string);
    text.bytes().all(|expected| {
        let (byte, length) = match rest.as_bytes() {
            [b'\\', b'u', ..] => {
                (rest.get(2..6).and_then(|hex| u8::try_from(u16::from_str_radix(hex, 16).ok()?).ok()), 6)
            }
            [byte, ..] => (Some(*byte), 1),
            [] => return false,
        };
        rest = rest.get(length..).unwrap_or_default();
        byte == Some(expected)
    })
}

/// How deep objects and arrays are nested.
pub(crate) fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut position) = (0_usize, 0, 0);
    let bytes = json.as_bytes();
    while let Some(byte) = bytes.get(position) {
        position += 1;
        match byte {
            b'"' => position += string_end(&bytes[position - 1..]) - 1,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Appends JSON text without the space between its parts.
pub(crate) fn push_compact(json: &mut String, text: &str) {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    let bytes = text.as_bytes();
    let (mut begin, mut position) = (0, 0);
    while let Some(byte) = bytes.get(position) {
        if *byte == b'"' {
            position += string_end(&bytes[position..]);
        } else if is_space(byte) {
            json.push_str(&text[begin..position]);
            position += bytes[position..].iter().take_while(|byte| is_space(byte)).count();
            begin = position;
        } else {
            position += 1;
        }
    }
    json.push_str(&text[begin..]);
}

/// Appends a JSON string.
pub fn push_text(json: &mut String, text: &str) {
    // What has nothing to escape, as ids and most texts, is copied.
    if text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
        json.push('"');
        json.push_str(text);
        json.push('"');
    } else {
        json.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// Appends a whole number.
pub fn push_number(json: &mut String, value: u64) {
    json.push_str(itoa::Buffer::new().format(value));
}

/// What stands between the brackets of an array or an object.
fn inside(json: &str) -> &str {
    json.get(1..json.len().saturating_sub(1)).unwrap_or_default()
}

/// Takes a value, or a key, and what separates it from the one before.
fn next_value<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let begins = |byte: u8| !matches!(byte, b',' | b':' | b' ' | b'\n' | b'\r' | b'\t');
    let begin = rest.bytes().position(begins)?;
    let (value, after) = rest[begin..].split_at(value_end(&rest.as_bytes()[begin..]));
    *rest = after;
    Some(value)
}

/// How long the value is that these bytes begin with.
pub(crate) fn value_end(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(b'"') => string_end(bytes),
        Some(b'{' | b'[') => {
            let (mut depth, mut position) = (0_usize, 0);
            while let Some(byte) = bytes.get(position) {
                match byte {
                    b'"' => position += string_end(&bytes[position..]) - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth == 1 => return position + 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                position += 1;
            }
            bytes.len()
        }
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b':' | b'}' | b']' | b'"' | b' ' | b'\n' | b'\r' | b'\t');
            bytes.iter().skip(1).position(ends).map_or(bytes.len(), |position| position + 1)
        }
    }
}

/// How long the string is that these bytes begin with, its quotes included.
pub(crate) fn string_end(bytes: &[u8]) -> usize {
    let mut position = 1;
    loop {
        match bytes.get(position) {
            Some(b'"') => return position + 1,
            Some(b'\\') => position += 2,
            Some(_) => position += 1,
            None => return bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// JSON with everything in it that could be taken for something else.
    const ODD: &str =
        r#"{"a":[1,-2.5,"]",{"x":"}"}], "b\"":"\\", "c" : {"d":[[ ],{}],"é":"漢:,"},"":null,"e":"\"{[" ,"f": true}"#;

    #[test]
    fn values_come_out_as_they_are_written() {
        let found: Vec<_> = members(ODD).collect();
        let expected = [
            (r#""a""#, r#"[1,-2.5,"]",{"x":"}"}]"#),
            (r#""b\"""#, r#""\\""#),
            (r#""c""#, r#"{"d":[[ ],{}],"é":"漢:,"}"#),
            (r#""""#, "null"),
            (r#""e""#, r#""\"{[""#),
            (r#""f""#, "true"),
        ];
        assert_eq!(found, expected);
        assert_eq!(items(found[0].1).collect::<Vec<_>>(), ["1", "-2.5", "\"]\"", "{\"x\":\"}\"}"]);
        assert_eq!(items("[]").chain(items("[ ]")).count() + members("{}").chain(members("{\n}")).count(), 0);
        let found: Vec<_> = strings(ODD).collect();
        assert_eq!(found.iter().filter(|(_, is_key)| *is_key).count(), 9);
        assert_eq!(found[..4], [("\"a\"", true), ("\"]\"", false), ("\"x\"", true), ("\"}\"", false)]);
        assert_eq!(found.len(), 14);
    }

    #[test]
    fn of_equal_keys_the_last_counts_at_the_place_of_the_first() {
        let object = r#"{"a":1,"b":2,"\u0061":3,"c":4,"b":5}"#;
        let member = |(literal, value)| Member { key: text(literal).unwrap(), literal, value };
        let mut found: Vec<_> = members(object).map(member).collect();
        without_repetition(&mut found);
        let found: Vec<_> = found.iter().map(|member| (&*member.key, member.value)).collect();
        assert_eq!(found, [("a", "3"), ("b", "5"), ("c", "4")]);
    }

    #[test]
    fn depth_is_that_of_objects_and_arrays_not_of_text() {
        for (json, expected) in [
            ("1", 0),
            ("\"[[[\"", 0),
            ("[]", 1),
            ("[[], {\"a\": [1]}]", 3),
            (r#"["\"[[[[", "]"]"#, 1),
            (r#"["\\", [[]]]"#, 3),
            (ODD, 4),
        ] {
            assert_eq!(depth(json), expected, "{json}");
        }
    }

    #[test]
    fn only_space_between_parts_is_left_out() {
        for json in [ODD, " \n1\t", "[ 1 ,\r\n\" 2 \\\" \" , { \"a b\" : [ ] } ]", "\"\""] {
            let mut compact = String::new();
            push_compact(&mut compact, json);
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(compact, value.to_string());
        }
    }

    #[test]
    fn the_beginning_of_a_string_is_known_behind_escapes() {
        for string in [r#""$a::b""#, r#""\u0024a::b""#, r#""$\u0061:\u003A""#, r#""\u0024\u0061\u003a\u003a""#] {
            assert!(begins_with(string, "$a::"), "{string}");
        }
        for string in [r#""""#, r#""$a:""#, r#""a$a::""#, r#""\\u0024a::""#, r#""\u0124a::""#, r#""\u00"#] {
            assert!(!begins_with(string, "$a::"), "{string}");
        }
    }

    #[test]
    fn texts_are_escaped_where_json_wants_it_and_only_there() {
        for said in ["", "\\", "a-1", "\u{7f}é漢\u{10ffff}", "\"", "a\\b", "\n", "\u{0}", "\u{1f}x", "tab\there"] {
            let mut json = String::from("[");
            push_text(&mut json, said);
            assert_eq!(json, format!("[{}", Value::from(said)), "{said:?}");
            assert_eq!(text(&json[1..]).as_deref(), Some(said));
        }
        assert_eq!(text(r#""\ud800""#), None);
        assert_eq!(text("7"), None);
    }

    /// What is no JSON has no meaning, but does no harm.
    #[test]
    fn anything_can_be_taken_apart() {
        for end in (0..=ODD.len()).filter(|end| ODD.is_char_boundary(*end)) {
            for text in [&ODD[..end], &ODD[end..]] {
                let count = members(text).count() + items(text).count() + strings(text).count() + depth(text);
                assert!(count <= 4 * text.len());
                push_compact(&mut String::new(), text);
            }
        }
    }
}
