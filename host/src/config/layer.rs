//! One layer of the configuration: values, each with its origin, and how layers are laid over each other.

use std::fmt;

use ::config::{ConfigError, Map, Source};
use toml::Value;

use super::{Config, schema};

/// The label of what nobody has said.
pub(super) const DEFAULT: &str = "default";

/// Where a value stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Origin {
    /// `default`, a file's name, an environment variable or `--set`.
    pub label: String,
    /// The line in the file, from 1.
    pub line: Option<usize>,
}

impl Origin {
    pub(super) fn new(label: impl Into<String>) -> Self {
        Origin { label: label.into(), line: None }
    }

    /// Whether nobody has said it.
    pub(super) fn is_default(&self) -> bool {
        self.label == DEFAULT
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}", self.label),
            None => f.write_str(&self.label),
        }
    }
}

/// A value at a key.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The parts of the dotted key.
    pub path: Vec<String>,
    pub value: Value,
    pub origin: Origin,
}

impl Entry {
    pub(super) fn key(&self) -> String {
        self.path.join(".")
    }
}

/// The values that one origin gives.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    pub entries: Vec<Entry>,
}

impl Layer {
    /// The defaults.
    pub(super) fn defaults() -> Self {
        Layer::of(&Config::default(), DEFAULT)
    }

    /// All values of a configuration but the plugin's options, whose numbers TOML may not have.
    pub(super) fn of(config: &Config, label: &str) -> Self {
        let mut config = config.clone();
        config.backend.options.clear();
        let values = Value::try_from(config).unwrap_or_else(|_| Value::Table(toml::Table::new()));
        let mut layer = Layer::default();
        leaves(&mut Vec::new(), &values, &mut |path, value| {
            layer.entries.push(Entry { path: path.to_vec(), value: value.clone(), origin: Origin::new(label) });
        });
        layer
    }

    /// The value at a key, if this layer has one.
    pub(super) fn get(&self, path: &[String]) -> Option<&Entry> {
        self.entries.iter().rfind(|entry| entry.path == path)
    }

    /// The label of each value's origin, by dotted key.
    pub(super) fn origins(&self) -> impl Iterator<Item = (String, String)> {
        self.entries.iter().map(|entry| (entry.key(), entry.origin.label.clone()))
    }

    /// Takes a value in if it may stand at its key, else says why not. `suggest` turns a known key into what the
    /// operator would have to write.
    pub(super) fn add(&mut self, entry: Entry, suggest: impl Fn(&str) -> String) -> Result<(), String> {
        let (key, origin) = (entry.key(), &entry.origin);
        match schema::kind_of(&key) {
            Some(kind) if kind.accepts(&entry.value) => {}
            Some(kind) => {
                if let Some(problem) = kind.problem(&entry.value) {
                    return Err(format!("{key} ({origin}): {problem}"));
                }
                let (value, expected) = (one_line(&entry.value), kind.expected());
                return Err(format!("{key} = {value} ({origin}): expected {expected}"));
            }
            None if schema::is_option(&entry.path) => {}
            None if schema::is_table(&entry.path) => {
                let value = one_line(&entry.value);
                return Err(format!("{key} = {value} ({origin}): expected a table, with keys below {key}"));
            }
            None => {
                let hint = schema::nearest(&key).map(|name| format!(": did you mean {}?", suggest(&name)));
                let hint = hint.unwrap_or_else(|| ": `registry config show` lists all keys".to_string());
                return Err(format!("unknown key {key} ({origin}){hint}"));
            }
        }
        self.entries.push(entry);
        Ok(())
    }
}

/// The layer of `--set key=value` flags.
pub(super) fn from_sets(sets: &[String], lower: &[&Layer], problems: &mut Vec<String>) -> Layer {
    let mut layer = Layer::default();
    for set in sets {
        let Some((key, text)) = set.split_once('=') else {
            problems.push(format!("--set {set}: expected key=value, such as server.req_port=5556"));
            continue;
        };
        let path: Vec<String> = key.trim().split('.').map(str::to_string).collect();
        let value = value_of(&path, text, lower);
        let entry = Entry { path, value, origin: Origin::new("--set") };
        if let Err(problem) = layer.add(entry, str::to_string) {
            problems.push(problem);
        }
    }
    layer
}

/// The value that a text stands for at a key. An option keeps its type in a lower layer, so that a path that looks like
/// a number stays text.
pub(super) fn value_of(path: &[String], text: &str, lower: &[&Layer]) -> Value {
    if let Some(kind) = schema::kind_of(&path.join(".")) {
        return kind.parse(text);
    }
    let below = lower.iter().rev().find_map(|layer| layer.get(path));
    match below {
        Some(entry) if entry.value.is_str() => {
            schema::unquoted(text).unwrap_or_else(|| Value::String(text.to_string()))
        }
        _ => schema::parse_option(text),
    }
}

/// Lays the layers over each other, the last one on top.
pub(super) fn merge(layers: &[Layer]) -> Result<Config, ConfigError> {
    layers
        .iter()
        .fold(::config::Config::builder(), |builder, layer| builder.add_source(layer.clone()))
        .build()?
        .try_deserialize()
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, ::config::Value>, ConfigError> {
        let mut root = toml::Table::new();
        for entry in &self.entries {
            insert(&mut root, &entry.path, entry.value.clone());
        }
        Ok(root.into_iter().map(|(key, value)| (key, layered(value))).collect())
    }
}

fn insert(table: &mut toml::Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.clone(), value);
        }
        [key, rest @ ..] => {
            let below = table.entry(key.clone()).or_insert_with(|| Value::Table(toml::Table::new()));
            if let Value::Table(below) = below {
                insert(below, rest, value);
            }
        }
    }
}

fn layered(value: Value) -> ::config::Value {
    match value {
        Value::String(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Boolean(boolean) => boolean.into(),
        Value::Datetime(datetime) => datetime.to_string().into(),
        Value::Array(values) => values.into_iter().map(layered).collect::<Vec<_>>().into(),
        Value::Table(table) => {
            table.into_iter().map(|(key, value)| (key, layered(value))).collect::<Map<_, _>>().into()
        }
    }
}

/// Calls `each` with every value that is no table, and with tables that are empty.
pub(super) fn leaves(path: &mut Vec<String>, value: &Value, each: &mut impl FnMut(&[String], &Value)) {
    match value {
        Value::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                path.push(key.clone());
                leaves(path, value, each);
                path.pop();
            }
        }
        // Nothing stands in an empty table; only its name can be wrong.
        Value::Table(_) if path.is_empty() || schema::is_table(path) => {}
        _ => each(path, value),
    }
}

/// A value as TOML, in one line however it was written, and with nothing in it that a terminal would obey.
pub(super) fn one_line(value: &Value) -> String {
    let text = match value {
        // JSON's escapes are TOML's, and TOML's own writer would use several lines for text that has some.
        Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        other => other.to_string().replace('\n', " "),
    };
    text.chars().map(|c| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
}
