//! Where the stores of a check are: each in a fresh directory.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use registry_plugin_api::{Capabilities, Error, OptionSpec};
use serde_json::{Map, Value};

use super::Settings;
use super::lane::{Called, Caller, Secrets, Store, UnderWay};
use crate::plugin::{Plugin, PluginInfo};

/// What stands in an option's value for the directory of the store.
const DIRECTORY: &str = "{dir}";

/// What is given for a secret option to see whether it is told.
pub(super) const WRONG_SECRET: &str = "no-such-secret-of-yours";

/// The plugin that is checked, and what is needed to open stores of it.
pub(super) struct Site {
    plugin: Plugin,
    /// With [`DIRECTORY`] still in them.
    options: Map<String, Value>,
    claimed: Capabilities,
    caller: Caller,
    root: PathBuf,
    places: AtomicUsize,
    outside: Arc<Mutex<Vec<PathBuf>>>,
}

impl Site {
    /// # Errors
    /// One line that says what is wrong with the options.
    pub(super) fn new(plugin: Plugin, settings: &Settings) -> Result<Self, String> {
        let mut options = settings.options.clone();
        let info = plugin.info();
        let wrong = |error: Error| error.message().to_string();
        let mut claimed = plugin.capabilities(&options).map_err(wrong)?;
        let is_placed = |options: &Map<String, Value>| options.values().any(names_directory);
        let durable = Capabilities::NONE.durable();
        let path = info.options.iter().find(|option| option.name() == "path" && option.kind() == "text");
        if let Some(path) = path.filter(|_| claimed.has(durable) && !is_placed(&options))
            && !options.contains_key(path.name())
        {
            options.insert(path.name().to_string(), format!("{DIRECTORY}/store").into());
            claimed = plugin.capabilities(&options).map_err(wrong)?;
        }
        plugin.check_options(&options).map_err(wrong)?;
        if claimed.has(durable) && !is_placed(&options) {
            return Err(unplaced(info));
        }
        let is_secret = |name: &String| info.options.iter().any(|option| option.is_secret() && option.name() == name);
        let secrets = options.iter().filter(|(name, _)| is_secret(name)).filter_map(|(_, value)| value.as_str());
        // One of a few characters would be found anywhere.
        let mut secrets: Vec<String> = secrets.filter(|value| value.len() > 3).map(String::from).collect();
        secrets.push(WRONG_SECRET.to_string());
        let caller = Caller {
            limit: settings.timeout,
            under_way: UnderWay::default(),
            secrets: Secrets::new(secrets),
            keeps_history: claimed.has(Capabilities::NONE.history()),
        };
        Ok(Site {
            plugin,
            options,
            claimed,
            caller,
            root: settings.directory.clone(),
            places: AtomicUsize::new(0),
            outside: Arc::default(),
        })
    }

    pub(super) fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    pub(super) fn claimed(&self) -> Capabilities {
        self.claimed
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.caller.secrets
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
        let outside = self.claimed.has(Capabilities::NONE.durable()).then(|| Arc::clone(&self.outside));
        Place { directory, options, outside, is_used: AtomicBool::new(false), _made: made }
    }

    /// What `{dir}` stood for where a durable store was made that is not in that directory, so that nobody removes it.
    pub(super) fn outside(&self) -> Vec<PathBuf> {
        self.outside.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn open(&self, place: &Place) -> Called<Store> {
        self.open_with(place, &place.options)
    }

    /// Opens a store in that place with other options.
    pub(super) fn open_with(&self, place: &Place, options: &Map<String, Value>) -> Called<Store> {
        let store = self.caller.open(&self.plugin, options)?;
        place.is_used.store(true, Ordering::Relaxed);
        Ok(store)
    }
}

/// A directory for one store, and the options that put the store there. It is removed when it goes out of scope.
pub(super) struct Place {
    directory: PathBuf,
    pub options: Map<String, Value>,
    outside: Option<Arc<Mutex<Vec<PathBuf>>>>,
    /// Whether a store was opened there.
    is_used: AtomicBool,
    _made: io::Result<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let is_empty = fs::read_dir(&self.directory).is_ok_and(|mut files| files.next().is_none());
        if let Some(outside) = self.outside.as_ref().filter(|_| is_empty && self.is_used.load(Ordering::Relaxed)) {
            outside.lock().unwrap_or_else(PoisonError::into_inner).push(self.directory.clone());
        }
        // What cannot be removed now is removed with the directory of the whole check.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What a durable plugin is refused with whose stores would all be one. It suggests only options that there are.
fn unplaced(info: &PluginInfo) -> String {
    let texts: Vec<&str> = info.options.iter().filter(|option| option.kind() == "text").map(OptionSpec::name).collect();
    let name = &info.name;
    if texts.is_empty() {
        return format!(
            "plugin {name:?} is durable, but has no text option that could say where a new store is to be: each check \
             needs a store of its own"
        );
    }
    format!(
        "plugin {name:?} is durable, but no option says where a new store is to be: give one of its text options ({}) \
         a value that has {DIRECTORY} in it, which becomes a short path that is another for each store",
        texts.join(", ")
    )
}

fn names_directory(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.contains(DIRECTORY))
}
