//! `[[security.rules]]`, `[[http.tokens]]` and `[[http.rules]]`: whether they can be used, and if not, which part of which one is wrong.

use std::collections::HashSet;

use toml::{Table, Value};

use super::layer::one_line;
use crate::security::key::PublicKey;
use crate::security::principal::Name;
use crate::security::token::Hash;

/// Stands for every client.
pub(super) const EVERYBODY: &str = "*";
/// What was expected, if it is no list of rules at all.
pub(super) const EXPECTED: &str = "tables [[security.rules]], each with clients and allow";

pub(super) const EXPECTED_TOKENS: &str = "tables [[http.tokens]], each with name, hash and allow";

pub(super) const EXPECTED_CLIENT_RULES: &str = "tables [[http.rules]], each with clients and allow";

/// What can be allowed.
pub(crate) const RIGHTS: [&str; 3] = ["read", "register", "admin"];

/// Says what is wrong with the rules, if anything is.
pub(super) fn read(value: &Value) -> Result<(), String> {
    each(value, "rule", EXPECTED, read_rule)
}

/// Says what is wrong with the tokens, if anything is.
pub(super) fn read_tokens(value: &Value) -> Result<(), String> {
    each(value, "token", EXPECTED_TOKENS, read_token)?;
    let tables = value.as_array().into_iter().flatten().filter_map(Value::as_table);
    let mut seen = HashSet::new();
    for (index, token) in tables.enumerate() {
        for field in ["name", "hash"] {
            if !seen.insert((field, token[field].as_str())) {
                return Err(format!("token {}: {field} is that of another token: expected one of its own", index + 1));
            }
        }
    }
    Ok(())
}

/// Says what is wrong with the rules for certificates, if anything is.
pub(super) fn read_client_rules(value: &Value) -> Result<(), String> {
    each(value, "rule", EXPECTED_CLIENT_RULES, |rule| {
        let names = format!(
            "a list of names of certificates of at most {} bytes, in which * stands for any text",
            Name::BYTES_MAX
        );
        read_clients(rule, &names, |text| Name::new(text).is_some())
    })
}

/// Says what is wrong with one token, if anything is.
pub(crate) fn token_problem(token: &Table) -> Option<String> {
    read_token(token).err()
}

/// Looks at each table of a list.
pub(super) fn each(
    value: &Value,
    what: &str,
    expected: &str,
    read: impl Fn(&Table) -> Result<(), String>,
) -> Result<(), String> {
    let list = value.as_array().ok_or_else(|| format!("{}: expected {expected}", one_line(value)))?;
    for (index, table) in list.iter().enumerate() {
        let wrong = |problem: String| format!("{what} {}: {problem}", index + 1);
        let table = table.as_table().ok_or_else(|| wrong(format!("{}: expected {expected}", one_line(table))))?;
        read(table).map_err(wrong)?;
    }
    Ok(())
}

fn read_rule(rule: &Table) -> Result<(), String> {
    let keys = "a list of public keys of 40 characters, such as `registry keygen` prints, or [\"*\"] for everybody";
    let is_client = |text: &str| text == EVERYBODY || text.parse::<PublicKey>().is_ok();
    read_clients(rule, keys, is_client)
}

/// For whom something is allowed, and what.
fn read_clients(rule: &Table, expected: &str, is_client: impl Fn(&str) -> bool) -> Result<(), String> {
    known(rule, &["clients", "allow", "types", "names"])?;
    let clients = texts(rule, "clients", expected, is_client)?;
    clients.filter(|list| !list.is_empty()).ok_or_else(|| missing("clients", expected))?;
    read_rights(rule)
}

fn read_token(token: &Table) -> Result<(), String> {
    known(token, &["name", "hash", "allow", "types", "names"])?;
    let name = format!("a text of at most {} bytes", Name::BYTES_MAX);
    let hash = "sha256: and 64 hexadecimal digits, such as `registry token` prints";
    let is_hash = |text: &str| text.parse::<Hash>().is_ok();
    for (field, expected, is_right) in
        [("name", &*name, &(|text: &str| Name::new(text).is_some()) as &dyn Fn(&str) -> bool), ("hash", hash, &is_hash)]
    {
        let value = token.get(field).ok_or_else(|| missing(field, expected))?;
        if !value.as_str().is_some_and(is_right) {
            return Err(format!("{field} is {}: expected {expected}", one_line(value)));
        }
    }
    read_rights(token)
}

/// Says which field is one that nobody knows.
pub(super) fn known(table: &Table, fields: &[&str]) -> Result<(), String> {
    let Some(unknown) = table.keys().find(|field| !fields.contains(&field.as_str())) else { return Ok(()) };
    let likeness = |field: &&&str| (strsim::normalized_damerau_levenshtein(field, unknown) * 100.0) as u32;
    let nearest = fields.iter().max_by_key(likeness).filter(|field| likeness(field) >= 60);
    let hint = nearest.map(|field| format!(": did you mean {field}?"));
    let hint = hint.unwrap_or_else(|| format!(": expected {}", fields.join(", ")));
    Err(format!("unknown key {unknown}{hint}"))
}

/// What is allowed, and with which services.
fn read_rights(rule: &Table) -> Result<(), String> {
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

pub(super) fn missing(field: &str, expected: &str) -> String {
    format!("{field} is missing or empty: expected {expected}")
}

/// The texts of a list, if it is there.
pub(super) fn texts<'a>(
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
