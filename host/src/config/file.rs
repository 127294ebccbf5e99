//! The layer of `registry.toml`.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::layer::{Entry, Layer, Origin, leaves};

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
    leaves(&mut Vec::new(), &toml::Value::Table(root), &mut |path, value| {
        let line = offset_of(lines.get_ref(), path).map(|offset| line_at(&text, offset));
        let origin = Origin { label: name.clone(), line };
        let entry = Entry { path: path.to_vec(), value: value.clone(), origin };
        if let Err(problem) = layer.add(entry, str::to_string) {
            problems.push(problem);
        }
    });
    Some(layer)
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
