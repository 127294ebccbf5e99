//! `[backend.options]`: which of them are the configured plugin's.
//!
//! Options that stand there directly are for the configured plugin, whichever that is. Those one table deeper,
//! `[backend.options.sqlite]`, are for the plugin of that name only, and win. So each plugin keeps its options in the
//! file while `plugin = "…"` is the one line that changes. A plugin's options are text, numbers and truth values, never
//! tables, so the two cannot be confused.

use std::path::Path;

use super::layer::{Entry, Layer};
use super::schema;

/// Leaves the configured plugin's options in the layers, all of them directly in `backend.options`, and returns those
/// of other plugins.
pub(super) fn for_plugin<const N: usize>(layers: [Layer; N]) -> ([Layer; N], Vec<Entry>) {
    let plugin = layers.iter().flat_map(|layer| &layer.entries).rfind(|entry| entry.key() == "backend.plugin");
    let plugin = plugin.and_then(|entry| entry.value.as_str()).map(short_name).unwrap_or_default();
    let mut unused = Vec::new();
    let layers = layers.map(|layer| {
        let (groups, mut entries): (Vec<_>, Vec<_>) = layer.entries.into_iter().partition(is_grouped);
        for mut entry in groups {
            if entry.path[schema::OPTIONS.len()].replace('-', "_") == plugin {
                entry.path.remove(schema::OPTIONS.len());
                entries.retain(|direct: &Entry| direct.path != entry.path);
                entries.push(entry);
            } else {
                unused.push(entry);
            }
        }
        Layer { entries }
    });
    (layers, unused)
}

fn is_grouped(entry: &Entry) -> bool {
    schema::is_option(&entry.path) && entry.path.len() > schema::OPTIONS.len() + 1
}

/// `sqlite` for `sqlite` and for `/opt/libregistry_sqlite.so` alike; dashes become underscores, as in the file's name.
pub(super) fn short_name(plugin: &str) -> String {
    if !plugin.contains(std::path::is_separator) {
        return plugin.replace('-', "_");
    }
    let stem = Path::new(plugin).file_stem().and_then(|stem| stem.to_str()).unwrap_or(plugin);
    let name = stem.strip_prefix(std::env::consts::DLL_PREFIX).unwrap_or(stem);
    name.strip_prefix("registry_").unwrap_or(name).to_string()
}
