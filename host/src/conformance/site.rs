//! Where the stores of a check are: each in a fresh directory.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use registry_plugin_api::Capabilities;
use serde_json::{Map, Value};

use super::Settings;
use super::lane::{Called, Caller, Store, UnderWay};
use crate::plugin::Plugin;

/// What stands in an option's value for the directory of the store.
const DIRECTORY: &str = "{dir}";

/// The plugin that is checked, and what is needed to open stores of it.
pub(super) struct Site {
    plugin: Plugin,
    /// With [`DIRECTORY`] still in them.
    options: Map<String, Value>,
    caller: Caller,
    root: PathBuf,
    places: AtomicUsize,
}

impl Site {
    /// # Errors
    /// One line that says what is wrong with the options.
    pub(super) fn new(plugin: Plugin, settings: &Settings) -> Result<Self, String> {
        let mut options = settings.options.clone();
        let info = plugin.info();
        let durable = info.capabilities.has(Capabilities::NONE.durable());
        let is_placed = |options: &Map<String, Value>| !durable || options.values().any(names_directory);
        let path = info.options.iter().find(|option| option.name() == "path" && option.kind() == "text");
        if let Some(path) = path.filter(|path| !is_placed(&options) && !options.contains_key(path.name())) {
            options.insert(path.name().to_string(), format!("{DIRECTORY}/store").into());
        }
        plugin.check_options(&options).map_err(|error| error.to_string())?;
        if !is_placed(&options) {
            return Err(format!(
                "plugin {:?} is durable, but no option says where a new store is to be: give one that has {DIRECTORY} in \
                 it, such as --options path={DIRECTORY}/store",
                info.name
            ));
        }
        let caller = Caller { limit: settings.timeout, under_way: UnderWay::default() };
        Ok(Site { plugin, options, caller, root: settings.directory.clone(), places: AtomicUsize::new(0) })
    }

    pub(super) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    pub(super) fn claimed(&self) -> Capabilities {
        self.plugin.info().capabilities
    }

    pub(super) fn call_limit(&self) -> Duration {
        self.caller.limit
    }

    pub(super) fn under_way(&self) -> UnderWay {
        self.caller.under_way.clone()
    }

    /// A place for a new store.
    pub(super) fn place(&self) -> Place {
        let number = self.places.fetch_add(1, Ordering::Relaxed);
        let directory = self.root.join(number.to_string());
        // If it cannot be made, the plugin says so when it opens the store.
        let made = fs::create_dir(&directory);
        let with_directory = |value: &Value| match value.as_str() {
            Some(text) => text.replace(DIRECTORY, &directory.to_string_lossy()).into(),
            None => value.clone(),
        };
        let options = self.options.iter().map(|(name, value)| (name.clone(), with_directory(value))).collect();
        Place { directory, options, _made: made }
    }

    pub(super) fn open(&self, place: &Place) -> Called<Store> {
        self.open_with(&place.options)
    }

    pub(super) fn open_with(&self, options: &Map<String, Value>) -> Called<Store> {
        self.caller.open(&self.plugin, options)
    }
}

/// A directory for one store, and the options that put the store there. It is removed when it goes out of scope.
pub(super) struct Place {
    directory: PathBuf,
    pub options: Map<String, Value>,
    _made: io::Result<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed now is removed with the directory of the whole check.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn names_directory(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains(DIRECTORY))
}
