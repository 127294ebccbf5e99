//! A configuration as text: TOML with each value's origin beside it, and JSON for programs.

use std::fmt::Write;

use registry_plugin_api::SECRET;
use serde_json::{Map, json};
use toml::Value;

use super::layer::{DEFAULT, one_line};
use super::{Backend, Config, Loaded, schema};

impl Loaded {
    /// What is in force, as TOML that can be loaded again, but for the options that are `secret`. A comment behind each
    /// value names its origin.
    pub fn to_toml(&self, secret: &[&str]) -> String {
        let mut lines: Vec<(String, String)> = Vec::new();
        // Options are JSON, whose numbers only `serde_json` itself can write: they come separately.
        let backend = Backend { options: serde_json::Map::new(), ..self.config.backend.clone() };
        let config = Config { backend, ..self.config.clone() };
        let root = Value::try_from(config).unwrap_or_else(|_| Value::Table(toml::Table::new()));
        let mut table = "";
        for (key, _) in schema::KEYS {
            let (section, name) = key.split_once('.').unwrap_or(("", key));
            if section != table {
                lines.push((header(&lines, section), String::new()));
                table = section;
            }
            match root.get(section).and_then(|values| values.get(name)) {
                Some(value) => lines.push((format!("{name} = {}", one_line(value)), self.origin(key))),
                None => lines.push((format!("# {name} is not set"), String::new())),
            }
        }
        let options = schema::OPTIONS.join(".");
        lines.push((header(&lines, &options), String::new()));
        for (name, value) in &self.shown_options(secret) {
            // Quoted unless it is a bare key; JSON's escapes are TOML's.
            let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
            let shown = if bare { name.clone() } else { one_line(&Value::String(name.clone())) };
            let value = one_line(&toml_of(value));
            lines.push((format!("{shown} = {value}"), self.origin(&format!("{options}.{name}"))));
        }
        aligned(&lines)
    }

    /// What is in force, as JSON, but for the options that are `secret`: `config`, `origins` by dotted key, and the
    /// `file` that was read or null.
    pub fn to_json(&self, secret: &[&str]) -> serde_json::Value {
        let backend = Backend { options: self.shown_options(secret), ..self.config.backend.clone() };
        let config = Config { backend, ..self.config.clone() };
        json!({ "config": config, "origins": self.origins, "file": self.file, "unused": self.unused })
    }

    fn shown_options(&self, secret: &[&str]) -> Map<String, serde_json::Value> {
        let shown = |(name, value): (&String, &serde_json::Value)| match secret.contains(&name.as_str()) {
            true => (name.clone(), SECRET.into()),
            false => (name.clone(), without_password(value)),
        };
        self.config.backend.options.iter().map(shown).collect()
    }

    fn origin(&self, key: &str) -> String {
        self.origins.get(key).cloned().unwrap_or_else(|| DEFAULT.to_string())
    }
}

/// An option's value without the password of a URL: `scheme://user:password@host`.
fn without_password(value: &serde_json::Value) -> serde_json::Value {
    let shown = value.as_str().and_then(|text| {
        let (scheme, rest) = text.split_once("://")?;
        // The last @, because passwords are not always escaped as they should be.
        let (login, host) = rest.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:{SECRET}@{host}").into())
    });
    shown.unwrap_or_else(|| value.clone())
}

/// An option's value as TOML. It came from TOML or is a plain value, so it has a counterpart.
fn toml_of(value: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match value {
        Json::Null => Value::String(String::new()),
        Json::Bool(boolean) => Value::Boolean(*boolean),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            (None, number) => Value::Float(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(values) => Value::Array(values.iter().map(toml_of).collect()),
        Json::Object(values) => Value::Table(values.iter().map(|(key, value)| (key.clone(), toml_of(value))).collect()),
    }
}

fn header(above: &[(String, String)], table: &str) -> String {
    let gap = if above.is_empty() { "" } else { "\n" };
    format!("{gap}[{table}]")
}

/// One line each, with the comments in one column.
fn aligned(lines: &[(String, String)]) -> String {
    // A long value pushes only its own comment out.
    let width = lines.iter().map(|(text, _)| text.chars().count()).filter(|width| *width <= 48).max().unwrap_or(0);
    let mut out = String::new();
    for (text, comment) in lines {
        let _ = match comment.as_str() {
            "" => writeln!(out, "{text}"),
            comment => writeln!(out, "{text:width$}  # {}", comment.replace(char::is_control, " ")),
        };
    }
    out
}
