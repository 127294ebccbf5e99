//! `[[security.rules]]`: whether they can be used, and if not, which part of which rule is wrong.

use toml::{Table, Value};

use super::layer::one_line;
use crate::security::key::PublicKey;

/// Stands for every client.
pub(super) const EVERYBODY: &str = "*";
/// What was expected, if it is no list of rules at all.
pub(super) const EXPECTED: &str = "tables [[security.rules]], each with clients and allow";

const RIGHTS: [&str; 3] = ["read", "register", "admin"];
const FIELDS: [&str; 4] = ["clients", "allow", "types", "names"];

/// Says what is wrong with the rules, if anything is.
pub(super) fn read(value: &Value) -> Result<(), String> {
    let rules = value.as_array().ok_or_else(|| format!("{}: expected {EXPECTED}", one_line(value)))?;
    for (index, rule) in rules.iter().enumerate() {
        let wrong = |problem: String| format!("rule {}: {problem}", index + 1);
        let rule = rule.as_table().ok_or_else(|| wrong(format!("{}: expected {EXPECTED}", one_line(rule))))?;
        read_rule(rule).map_err(wrong)?;
    }
    Ok(())
}

fn read_rule(rule: &Table) -> Result<(), String> {
    if let Some(unknown) = rule.keys().find(|field| !FIELDS.contains(&field.as_str())) {
        let likeness = |field: &&&str| (strsim::normalized_damerau_levenshtein(field, unknown) * 100.0) as u32;
        let nearest = FIELDS.iter().max_by_key(likeness).filter(|field| likeness(field) >= 60);
        let hint = nearest.map(|field| format!(": did you mean {field}?"));
        let hint = hint.unwrap_or_else(|| format!(": expected {}", FIELDS.join(", ")));
        return Err(format!("unknown key {unknown}{hint}"));
    }
    let keys = "a list of public keys of 40 characters, such as `registry keygen` prints, or [\"*\"] for everybody";
    let is_client = |text: &str| text == EVERYBODY || text.parse::<PublicKey>().is_ok();
    texts(rule, "clients", keys, is_client)?.filter(|list| !list.is_empty()).ok_or_else(|| missing("clients", keys))?;
    let rights = "a list of \"read\", \"register\" and \"admin\"";
    let allow = texts(rule, "allow", rights, |text| RIGHTS.contains(&text))?;
    let allow = allow.filter(|list| !list.is_empty()).ok_or_else(|| missing("allow", rights))?;
    for field in ["types", "names"] {
        let patterns = "a list of texts that are not empty, in which * stands for any text";
        let list = texts(rule, field, patterns, |text| !text.is_empty())?;
        if list.is_some() && (!allow.contains(&"register") || allow.contains(&"admin")) {
            return Err(format!(
                "{field} says which services may be registered, but allow is {}: expected it with \"register\", and \
                 without \"admin\", which is everything",
                one_line(&rule["allow"])
            ));
        }
        if list.is_some_and(|list| list.is_empty()) {
            return Err(format!("{field} = []: expected {patterns}; without {field} any will do"));
        }
    }
    Ok(())
}

fn missing(field: &str, expected: &str) -> String {
    format!("{field} is missing or empty: expected {expected}")
}

/// The texts of a list, if it is there.
fn texts<'a>(
    rule: &'a Table,
    field: &str,
    expected: &str,
    is_right: impl Fn(&str) -> bool,
) -> Result<Option<Vec<&'a str>>, String> {
    let Some(value) = rule.get(field) else { return Ok(None) };
    let wrong = |value: &Value| format!("{field} has {}: expected {expected}", one_line(value));
    let list = value.as_array().ok_or_else(|| wrong(value))?;
    let text = |value: &'a Value| value.as_str().filter(|text| is_right(text)).ok_or_else(|| wrong(value));
    list.iter().map(text).collect::<Result<_, _>>().map(Some)
}
