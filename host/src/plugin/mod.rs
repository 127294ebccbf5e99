//! Storage plugins: finding a plugin's file, loading it, and calling the store that it opens.
//!
//! A library is loaded once and never unloaded: code, tables and log texts of the plugin stay valid for as long as
//! the process lives. A file that is no plugin, or not one for this host, is refused before any of its functions is
//! called, except for what the dynamic loader itself runs.

mod backend;
mod error;
mod file;
mod find;
mod library;
mod timer;

use std::path::{self, Path, PathBuf};

use registry_plugin_api::abi::load::{API_VERSION, Refusal, Started};
use registry_plugin_api::{Capabilities, Error, OptionSpec, Options, Result};
use serde_json::{Map, Value};

pub use backend::OpenBackend;
pub use error::LoadError;
pub use find::{FindError, find, find_all};

/// What a plugin says of itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PluginInfo {
    /// What an operator calls it: the package's name without `registry_` or `registry-`.
    pub name: String,
    /// The name of its package, which is also the target of its log.
    pub package: String,
    /// Its own version.
    pub version: String,
    /// The version of plugin-api that it was built against.
    pub api_version: String,
    /// The compiler that built it, as `rustc --version` has it; empty if that is not known.
    pub rustc: String,
    /// Whether its panics can be caught. A plugin for which this is false is not loaded.
    pub unwinds: bool,
    /// What it promises if no options are given.
    pub capabilities: Capabilities,
    /// The options that it knows.
    pub options: Vec<OptionSpec>,
}

/// A plugin that is loaded.
pub struct Plugin {
    path: PathBuf,
    info: PluginInfo,
    started: Started,
}

impl Plugin {
    /// Loads the plugin in that file. The same file can be loaded again, and is then there once.
    ///
    /// # Errors
    /// One line that names the file, what is wrong with it, and what to do.
    pub fn load(file: impl AsRef<Path>) -> std::result::Result<Plugin, LoadError> {
        // The dynamic loader would search its own directories for a name without a separator.
        let path = path::absolute(&file).unwrap_or_else(|_| file.as_ref().to_path_buf());
        file::check(&path)?;
        let module = library::open(&path)?;
        let module = module.map_err(|refusal| refused(&path, refusal))?;
        let told = module.info();
        if !told.unwinds {
            return Err(LoadError::Aborts { path });
        }
        let started = module.start::<timer::ThisHost>();
        let started = started.map_err(|error| LoadError::Start { path: path.clone(), error })?;
        let capabilities = started.capabilities(NO_OPTIONS.to_string());
        let capabilities = capabilities.map_err(|error| LoadError::Start { path: path.clone(), error })?;
        let info = PluginInfo {
            name: short_name(&told.name).to_string(),
            package: told.name,
            version: told.version,
            api_version: told.api_version,
            rustc: told.rustc,
            unwinds: told.unwinds,
            capabilities,
            options: told.options,
        };
        Ok(Plugin { path, info, started })
    }

    /// The file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    /// Checks `[backend.options]` against what the plugin declares, without opening anything.
    ///
    /// # Errors
    /// [`InvalidOption`](registry_plugin_api::ErrorKind::InvalidOption), naming the option and what was expected.
    pub fn check_options(&self, options: &Map<String, Value>) -> Result<()> {
        Options::check(&self.info.options, options.clone()).map(drop)
    }

    /// What it promises when it is opened with these options.
    ///
    /// # Errors
    /// As [`check_options`](Self::check_options), but that nothing has to be given; and if the plugin panics.
    pub fn capabilities(&self, options: &Map<String, Value>) -> Result<Capabilities> {
        let text = serde_json::to_string(options).map_err(Error::invalid_option)?;
        self.started.capabilities(text)
    }

    /// Opens a store with these options.
    ///
    /// # Errors
    /// As [`check_options`](Self::check_options), and whatever the backend says.
    pub async fn open(&self, options: Map<String, Value>) -> Result<OpenBackend> {
        self.check_options(&options)?;
        let text = serde_json::to_string(&options).map_err(Error::invalid_option)?;
        Ok(OpenBackend::new(self.started.open(text).await?))
    }
}

/// As JSON.
const NO_OPTIONS: &str = "{}";

fn short_name(package: &str) -> &str {
    package.strip_prefix("registry_").or_else(|| package.strip_prefix("registry-")).unwrap_or(package)
}

fn refused(path: &Path, refusal: Refusal) -> LoadError {
    let path = path.to_path_buf();
    match refusal {
        Refusal::Version { built_against } => LoadError::OtherVersion { path, built_against },
        Refusal::Layout { built_against, report } => {
            // Hundreds of lines, of use to somebody who changed plugin-api.
            tracing::debug!(path = %path.display(), built_against, host = API_VERSION, "layouts differ:\n{report}");
            LoadError::OtherLayout { path, built_against }
        }
        Refusal::Broken(reason) => LoadError::Broken { path, reason },
    }
}
