//! Where to move: the store that a configuration names, opened to be filled.

use std::path::PathBuf;
use std::time::Duration;

use registry_plugin_api::Capabilities;
use tokio::task::JoinHandle;

use crate::cli::store_trial::path_option;
use crate::config::{Backend, Loaded, Source};
use crate::registry::Promises;
use crate::server::start::load_plugin;
use crate::store::{Purpose, Store};

/// How long changes are held for a move, if nobody says so.
const HOLD: Duration = Duration::from_millis(200);

/// What names the store to move to.
pub(crate) enum To {
    /// A configuration that has been read.
    Loaded(Box<Loaded>),
    /// A configuration file.
    File(PathBuf),
}

/// On which terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long changes may be held, before they are let go and it is tried again.
    pub(super) hold: Duration,
    /// The store in charge is left even if its last write cannot be made.
    pub(super) is_abandoning: bool,
}

impl Terms {
    pub(crate) fn new(hold: Option<Duration>, is_abandoning: bool) -> Self {
        Terms { hold: hold.unwrap_or(HOLD), is_abandoning }
    }
}

/// Where to.
pub(in crate::server) struct Target {
    pub(super) backend: Backend,
    pub(super) plugin: String,
    pub(super) promises: Promises,
    /// The plugin, and its file if it has one.
    pub(super) described: String,
}

/// What becomes of opening it.
pub(super) type Opening = JoinHandle<Result<(Store, Target), String>>;

impl To {
    /// Opens the store on a thread of its own.
    pub(super) fn open(self) -> Opening {
        tokio::task::spawn_blocking(move || open(self).map_err(|error| error.to_string()))
    }
}

fn open(to: To) -> Result<(Store, Target), Box<dyn std::error::Error + Send + Sync>> {
    let loaded = match to {
        To::Loaded(loaded) => *loaded,
        To::File(file) => {
            let loaded = Source { file: Some(file), sets: Vec::new() }.read()?;
            loaded.check_backend_of_file()?;
            loaded
        }
    };
    let plugin = load_plugin(&loaded)?;
    let backend = loaded.config.backend;
    let capabilities = plugin.capabilities(&backend.options)?;
    let [balances, history] = [Capabilities::NONE.balances(), Capabilities::NONE.history()];
    let promises = Promises { balances: capabilities.has(balances), history: capabilities.has(history) };
    let name = plugin.info().name.clone();
    let described = match path_option(&plugin, &backend.options) {
        Some(path) => format!("{name} ({path})"),
        None => name.clone(),
    };
    let store = Store::begin(plugin, backend.options.clone(), backend.call_timeout(), None, Purpose::Fill)?;
    Ok((store, Target { backend, plugin: name, promises, described }))
}
