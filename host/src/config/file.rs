//! The layer of `registry.toml`.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::layer::{Entry, Layer, Origin, leaves};
use super::schema;

/// Reads a file. What is wrong with it goes to `problems`; `None` if it cannot be read at all.
pub(super) fn read(path: &Path, problems: &mut Vec<String>) -> Option<Layer> {
    let name = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(format!("cannot read the configuration {name}: {error}"));
            return None;
        }
    };
    let (root, lines) = match (text.parse::<toml::Table>(), DeTable::parse(&text)) {
        (Ok(root), Ok(lines)) => (root, lines),
        (Err(error), _) | (_, Err(error)) => {
            problems.push(syntax_error(&name, &text, &error));
            return None;
        }
    };
    let mut layer = Layer::default();
    let root = toml::Value::Table(without_unknown_tables(root, &mut Vec::new(), &mut |path| {
        let line = offset_of(lines.get_ref(), path).map(|offset| line_at(&text, offset));
        problems.push(unknown_table(path, &Origin { label: name.clone(), line }));
    }));
    leaves(&mut Vec::new(), &root, &mut |path, value| {
        let line = offset_of(lines.get_ref(), path).map(|offset| line_at(&text, offset));
        let origin = Origin { label: name.clone(), line };
        let entry = Entry { path: path.to_vec(), value: value.clone(), origin };
        if let Err(problem) = layer.add(entry, str::to_string) {
            problems.push(problem);
        }
    });
    Some(layer)
}

/// Takes out the tables below which no key is known, each of which is one mistake however many keys it has.
fn without_unknown_tables(table: toml::Table, path: &mut Vec<String>, each: &mut impl FnMut(&[String])) -> toml::Table {
    let mut known = toml::Table::new();
    for (key, value) in table {
        path.push(key.clone());
        match value {
            // A key with keys below it is a wrong value, and what is below the options is the plugin's.
            toml::Value::Table(below) if schema::kind_of(&path.join(".")).is_none() && !schema::is_option(path) => {
                if schema::is_table(path) {
                    known.insert(key, toml::Value::Table(without_unknown_tables(below, path, each)));
                } else {
                    each(path);
                }
            }
            value => drop(known.insert(key, value)),
        }
        path.pop();
    }
    known
}

fn unknown_table(path: &[String], origin: &Origin) -> String {
    let tables = schema::tables().join(", ");
    let hint = schema::nearest_table(&path.join(".")).map(|name| format!(": did you mean [{name}]?"));
    format!("unknown table [{}] ({origin}){}", path.join("."), hint.unwrap_or_else(|| format!(": expected {tables}")))
}

fn syntax_error(name: &str, text: &str, error: &toml::de::Error) -> String {
    let reason = error.message().trim().replace('\n', ", ");
    match error.span() {
        Some(span) => format!("{name}, line {}: {reason}", line_at(text, span.start)),
        None => format!("{name}: {reason}"),
    }
}

/// Where the key stands, in bytes.
fn offset_of(table: &DeTable<'_>, path: &[String]) -> Option<usize> {
    let (key, rest) = path.split_first()?;
    let (found, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
    match value.get_ref() {
        DeValue::Table(below) if !rest.is_empty() => offset_of(below, rest),
        _ => Some(found.span().start),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
