//! Requests as JSON text, made of what means something to the registry and of what readers of JSON stumble over. The
//! fuzzer's bytes say what is taken; when they are used up, the text ends.

use arbitrary::{Result, Unstructured};

const ACTIONS: [&str; 10] =
    ["register", "deregister", "renew", "get", "list", "discover", "health", "info", "terminate", "types"];
const IDS: [&str; 4] = ["a", "b", "Camera 7", "é"];
const TYPES: [&str; 4] = ["t", "u", "v", ""];
const REQUEST_KEYS: [&str; 14] = [
    "action",
    "service_info",
    "service_id",
    "service_type",
    "ttl",
    "request_id",
    "something_else",
    "tags",
    "metadata",
    "version",
    "fields",
    "limit",
    "cursor",
    "wait",
];
const INFO_KEYS: [&str; 14] = [
    "name",
    "host",
    "port",
    "type",
    "tags",
    "metadata",
    "id",
    "singleton",
    "allow_duplicate_service_type",
    "ttl",
    "last_heartbeat",
    "health",
    "something_else",
    "$serde_json::private::RawValue",
];
/// Scalars as they are written. The last ones are names that `serde_json` keeps for itself, plain and escaped, and text
/// that is JSON.
const SCALARS: [&str; 32] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-0",
    "30",
    "65535",
    "65536",
    "8080.0",
    "1e3",
    "1E-400",
    "1e400",
    "0.001",
    "3153600000",
    "123456789012345678901234567890",
    "\"\"",
    "\"a\"",
    "\"t\"",
    "\"type\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"\\\"[{\\\\\"",
    "\"\u{7f}é\u{2028}\"",
    "\"[[[[[[[[1]]]]]]]]\"",
    "\"{\\\"name\\\":\\\"n\\\",\\\"host\\\":\\\"h\\\",\\\"port\\\":1}\"",
    "\"12\"",
    "\"$serde_json::private::Number\"",
    "\"$serde_json::private::RawValue\"",
    "\"\\u0024serde_json::private::Number\"",
    "\"$serde_json::private::Raw\\u0056alue\"",
];

/// A request, most often a valid one.
pub fn request(u: &mut Unstructured<'_>) -> String {
    let mut text = String::new();
    // What is written until the bytes are used up is no request, and has to be refused as well.
    let _ = object(u, &mut text, &REQUEST_KEYS, 8, |u, text, key| match key {
        "action" => choose(u, text, &ACTIONS),
        "service_id" => choose(u, text, &IDS),
        "service_type" => choose(u, text, &TYPES),
        "service_info" => service_info(u, text),
        "tags" | "fields" => list(u, text, 3, |u, text| choose(u, text, &TYPES)),
        "metadata" => object(u, text, &["type", "m"], 3, |u, text, _| any(u, text, 1)),
        "version" => choose(u, text, &["1", "^1.2, <3", "*", ">=2.0.0-rc.1", "1..2"]),
        "limit" | "wait" => choose_plain(u, text, &["0", "1", "3", "1000", "0.5", "null"]),
        "cursor" => choose(u, text, &["0.0.0.0", "1.2.t", "1.2.3.4.5", "é"]),
        _ => any(u, text, 0),
    });
    text
}

fn service_info(u: &mut Unstructured<'_>, text: &mut String) -> Result<()> {
    // Most often with what it has to have.
    if u.ratio(7, 8)? {
        text.push_str("{\"name\":\"Camera 7\",\"host\":\"h\",\"port\":80,");
        let mut rest = String::new();
        let written = info_fields(u, &mut rest);
        text.push_str(rest.strip_prefix('{').filter(|rest| *rest != "}").unwrap_or("\"type\":\"t\"}"));
        return written;
    }
    info_fields(u, text)
}

fn info_fields(u: &mut Unstructured<'_>, text: &mut String) -> Result<()> {
    object(u, text, &INFO_KEYS, 6, |u, text, key| match key {
        "id" | "name" => choose(u, text, &IDS),
        "type" => choose(u, text, &TYPES),
        "tags" => list(u, text, 3, |u, text| choose(u, text, &TYPES)),
        "metadata" => object(u, text, &["type", "m", "$serde_json::private::Number"], 3, |u, text, _| any(u, text, 1)),
        "singleton" | "allow_duplicate_service_type" => choose_plain(u, text, &["true", "false", "null"]),
        _ => any(u, text, 1),
    })
}

/// Any value, nested and odd ones too.
fn any(u: &mut Unstructured<'_>, text: &mut String, depth: usize) -> Result<()> {
    if depth > 8 {
        return choose_plain(u, text, &SCALARS);
    }
    match u.int_in_range(0..=11_u8)? {
        0 => list(u, text, 3, |u, text| any(u, text, depth + 1)),
        1 | 2 => object(u, text, &[], 3, |u, text, _| any(u, text, depth + 1)),
        3 => {
            let levels = u.int_in_range(0..=130)?;
            (0..levels).for_each(|_| text.push('['));
            (0..levels).for_each(|_| text.push(']'));
            if levels == 0 {
                text.push('1');
            }
            Ok(())
        }
        4 => {
            let word: &str = u.arbitrary()?;
            text.push_str(&serde_json::Value::from(word).to_string());
            Ok(())
        }
        _ => choose_plain(u, text, &SCALARS),
    }
}

fn list(
    u: &mut Unstructured<'_>,
    text: &mut String,
    most: usize,
    mut item: impl FnMut(&mut Unstructured<'_>, &mut String) -> Result<()>,
) -> Result<()> {
    text.push('[');
    for position in 0..u.int_in_range(0..=most)? {
        if position > 0 {
            text.push(',');
        }
        item(u, text)?;
    }
    text.push(']');
    Ok(())
}

/// An object with some of these keys; with others too, if there are none.
fn object(
    u: &mut Unstructured<'_>,
    text: &mut String,
    keys: &[&str],
    most: usize,
    mut value: impl FnMut(&mut Unstructured<'_>, &mut String, &str) -> Result<()>,
) -> Result<()> {
    text.push('{');
    for position in 0..u.int_in_range(0..=most)? {
        if position > 0 {
            text.push_str(", ");
        }
        let key = match keys {
            [] => {
                let words: Vec<&str> = SCALARS.into_iter().filter(|scalar| scalar.starts_with('"')).collect();
                text.push_str(u.choose(&words)?);
                "?"
            }
            keys => {
                let key = *u.choose(keys)?;
                text.push_str(&format!("\"{key}\""));
                key
            }
        };
        text.push(':');
        // Now and then something else than the key is for.
        if u.ratio(1, 10)? {
            any(u, text, 1)?;
        } else {
            value(u, text, key)?;
        }
    }
    text.push('}');
    Ok(())
}

fn choose(u: &mut Unstructured<'_>, text: &mut String, words: &[&str]) -> Result<()> {
    text.push_str(&format!("\"{}\"", u.choose(words)?));
    Ok(())
}

fn choose_plain(u: &mut Unstructured<'_>, text: &mut String, words: &[&str]) -> Result<()> {
    text.push_str(u.choose(words)?);
    Ok(())
}

/// How deep objects and arrays are nested in JSON text that is valid.
pub fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
                    if byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    deepest
}
