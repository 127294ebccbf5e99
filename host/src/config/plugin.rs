//! `[backend.options]`, checked against what the plugin declares.

use registry_plugin_api::Options;

use super::{Loaded, options, schema};
use crate::plugin::{Plugin, find, find_all};

impl Loaded {
    /// Checks `[backend.options]` against what the plugin declares.
    ///
    /// # Errors
    /// One line that names the plugin, the option, where it stands, and what was expected.
    pub fn check_options(&self, plugin: &Plugin) -> Result<(), String> {
        let (options, declared) = (&self.config.backend.options, &plugin.info().options);
        let refusal = |place: Option<&String>, error| {
            let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
            format!("[{}] for {:?}{place}: {error}", self.table(), self.config.backend.plugin)
        };
        // Each by itself, so that what is wrong is known together with where it stands.
        for (name, value) in options {
            let declaration = declared.iter().find(|option| option.name() == name);
            let declared = declaration.map_or(&declared[..], std::slice::from_ref);
            let alone = [(name.clone(), value.clone())].into_iter().collect();
            if let Err(error) = Options::check(declared, alone) {
                return Err(refusal(self.place(&format!("{}.{name}", self.table())), error));
            }
        }
        // What is wrong without standing anywhere: an option that is missing.
        plugin.check_options(options).map_err(|error| refusal(None, error))
    }

    /// A line for each option that has no effect because it stands in another plugin's table, and whether that looks
    /// like a slip: there is no plugin of the table's name.
    pub fn unused_options(&self) -> Vec<(bool, String)> {
        let plugin_dir = self.config.backend.plugin_dir.as_deref();
        let configured = options::short_name(&self.config.backend.plugin);
        let others = find_all(plugin_dir).iter().map(|file| options::short_name(&file.to_string_lossy())).collect();
        let known: Vec<String> = [vec![configured], others].concat();
        let line = |key: &String| {
            let table = key.split('.').nth(schema::OPTIONS.len()).unwrap_or_default();
            let is_slip = !known.contains(&table.replace('-', "_")) && find(table, plugin_dir).is_err();
            let slip = match nearest(table, &known) {
                _ if !is_slip => String::new(),
                Some(name) => format!(": did you mean [{}.{name}]?", self.table()),
                None => format!("; no plugin {table:?} is found here, `registry plugin list` shows those that are"),
            };
            let place = self.place(key).map(|place| format!(" ({place})")).unwrap_or_default();
            (
                is_slip,
                format!("{key}{place} has no effect while backend.plugin is {:?}{slip}", self.config.backend.plugin),
            )
        };
        self.unused.iter().map(line).collect()
    }

    fn table(&self) -> String {
        schema::OPTIONS.join(".")
    }

    fn place(&self, key: &str) -> Option<&String> {
        self.places.get(key)
    }
}

fn nearest<'a>(table: &str, known: &'a [String]) -> Option<&'a String> {
    let likeness = |name: &String| strsim::normalized_damerau_levenshtein(table, name);
    known.iter().filter(|name| likeness(name) >= 0.6).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}
