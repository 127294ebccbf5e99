//! `plugin inspect`, `plugin list`: what plugins say of themselves, without opening a store.
//!
//! Both load the libraries, which runs their initialisers. As with `backend.plugin`, naming a file or a directory means
//! trusting it.

use std::collections::BTreeSet;
use std::path::Path;

use registry_plugin_api::abi::load::API_VERSION;
use registry_plugin_api::{OptionSpec, SECRET};
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::config;
use crate::plugin::{self, LoadError, Plugin};

use super::arguments::Configuration;
use super::output::{self, Failure, printable};

/// Shows all that one plugin says of itself.
pub(super) fn inspect(name_or_path: &str, from: &Configuration, as_json: bool) -> Result<(), Failure> {
    let plugin = super::plugin::load(name_or_path, from)?;
    match as_json {
        true => output::json(&describe(&plugin)),
        false => output::line(&text(&plugin)),
    }
}

/// Shows the plugins in the directories that the host searches.
pub(super) fn list(from: &Configuration, as_json: bool) -> Result<(), Failure> {
    let plugin_dir = config::load(from.config.as_deref(), &from.set)?.config.backend.plugin_dir;
    let files = plugin::find_all(plugin_dir.as_deref());
    let mut names = BTreeSet::new();
    let found: Vec<Found> = files
        .iter()
        .map(|file| Found { file, hidden: !names.insert(file.file_name()), loaded: Plugin::load(file) })
        .collect();
    if as_json {
        return output::json(&found.iter().map(Found::describe).collect());
    }
    if found.is_empty() {
        output::note("no plugins in the directories that are searched: see backend.plugin_dir in registry.toml");
        return Ok(());
    }
    let head = ["NAME", "VERSION", "CAPABILITIES", "FILE"].map(String::from).to_vec();
    let rows = found.iter().filter_map(Found::row);
    output::line(&aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))?;
    for found in &found {
        match &found.loaded {
            Err(error) => output::note(&super::failure_line(error)),
            Ok(plugin) if found.hidden => {
                let (name, file) = (&plugin.info().name, found.file.display());
                output::note(&format!("{file} is not what {name:?} stands for: an earlier directory has one too"));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

/// A file that looks like a plugin.
struct Found<'a> {
    file: &'a Path,
    /// Whether there is another of that name in an earlier directory.
    hidden: bool,
    loaded: Result<Plugin, LoadError>,
}

impl Found<'_> {
    fn row(&self) -> Option<Vec<String>> {
        let info = self.loaded.as_ref().ok()?.info();
        let file = self.file.display().to_string();
        Some(vec![info.name.clone(), info.version.clone(), words(&info.capabilities.names()), file])
    }

    fn describe(&self) -> Value {
        match &self.loaded {
            Ok(plugin) => {
                let mut value = describe(plugin);
                value["hidden"] = self.hidden.into();
                value
            }
            Err(error) => json!({"file": self.file.display().to_string(), "error": super::failure_line(error)}),
        }
    }
}

fn describe(plugin: &Plugin) -> Value {
    let info = plugin.info();
    let options = info.options.iter().map(|option| {
        json!({
            "name": option.name(),
            "type": option.kind(),
            "required": option.default_value().is_none(),
            "default": shown_default(option),
            "secret": option.is_secret(),
            "help": option.help(),
        })
    });
    json!({
        "name": info.name,
        "version": info.version,
        "package": info.package,
        "file": plugin.path().display().to_string(),
        "plugin_api": info.api_version,
        "compiler": (!info.rustc.is_empty()).then_some(&info.rustc),
        "unwinds": info.unwinds,
        "capabilities": info.capabilities.names(),
        "options": options.collect::<Vec<_>>(),
    })
}

fn text(plugin: &Plugin) -> String {
    let info = plugin.info();
    let compiler = if info.rustc.is_empty() { "not known" } else { &info.rustc };
    // One that does not unwind has been refused when it was loaded.
    let panics = if info.unwinds { "unwind, and are caught" } else { "abort" };
    let facts = [
        ("version", info.version.clone()),
        ("package", info.package.clone()),
        ("file", plugin.path().display().to_string()),
        ("plugin-api", format!("{} (this host has {API_VERSION})", info.api_version)),
        ("compiler", compiler.to_string()),
        ("panics", panics.to_string()),
        ("capabilities", words(&info.capabilities.names())),
    ];
    let mut rows = vec![vec!["name".to_string(), info.name.clone()]];
    rows.extend(facts.map(|(what, value)| vec![what.to_string(), value]));
    if info.options.is_empty() {
        rows.push(vec!["options".to_string(), "none".to_string()]);
        return aligned(&rows);
    }
    let options: Vec<Vec<String>> = info.options.iter().map(option_row).collect();
    format!("{}\noptions\n{}", aligned(&rows), aligned(&options))
}

fn option_row(option: &OptionSpec) -> Vec<String> {
    let value = match shown_default(option) {
        None => "must be given".to_string(),
        Some(Value::String(_)) if option.is_secret() => format!("default {SECRET}"),
        Some(value) => format!("default {value}"),
    };
    vec![format!("  {}", option.name()), kind(option), value, option.help().to_string()]
}

/// The word for its type, and whether its value is shown.
fn kind(option: &OptionSpec) -> String {
    let secret = if option.is_secret() { ", secret" } else { "" };
    format!("{}{secret}", option.kind())
}

fn shown_default(option: &OptionSpec) -> Option<Value> {
    let default = option.default_value()?;
    Some(if option.is_secret() { SECRET.into() } else { default })
}

fn words(capabilities: &[&str]) -> String {
    if capabilities.is_empty() { "none".to_string() } else { capabilities.join(", ") }
}

/// Rows of the same number of cells, with aligned columns.
fn aligned(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = |(cell, width): (&String, &usize)| cell.clone() + &" ".repeat(width.saturating_sub(cell.width()));
        row.iter().zip(&widths).map(padded).collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_says_what_it_is_when_it_is_not_given() {
        let rows = [
            OptionSpec::text("path", Some("a.db"), "the file"),
            OptionSpec::integer("page_size", None, "records to a page"),
            OptionSpec::text("password", Some("hunter2"), "for the database").secret(),
        ];
        let text = aligned(&rows.each_ref().map(option_row));
        let expected = concat!(
            "  path       text          default \"a.db\"    the file\n",
            "  page_size  integer       must be given     records to a page\n",
            "  password   text, secret  default (secret)  for the database",
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn what_a_plugin_says_cannot_steer_the_terminal() {
        assert_eq!(aligned(&[vec!["\x1b[2J".to_string(), "a\nb".to_string()]]), "\\u{1b}[2J  a\\u{a}b");
    }
}
