//! `config check`, `config show`: the configuration, without a registry.

use crate::config::{self, Loaded};
use crate::plugin::{self, Plugin};
use crate::transport::zmtp::security::Security;

use super::arguments::Configuration;
use super::output::{self, Failure};

/// Says whether the host would start with this configuration, as far as that can be said without opening the store.
pub(super) fn check(from: &Configuration) -> Result<(), Failure> {
    let loaded = match config::load(from.config.as_deref(), &from.set) {
        Ok(loaded) => loaded,
        Err(error) => {
            // All of them in one go, each in its line; the last one ends the command.
            let Some((last, others)) = error.problems().split_last() else { return Err(error.into()) };
            others.iter().for_each(|problem| output::note(problem));
            return Err(Failure::Failed(last.clone()));
        }
    };
    check_plugin(&loaded)?;
    let security = Security::load(&loaded.config.security).map_err(|error| super::failed(error.into()))?;
    security.warnings().iter().for_each(|warning| output::note(warning));
    loaded.unused_options().iter().for_each(|(_, line)| output::note(line));
    let what = match &loaded.file {
        Some(file) => format!("{} is fine; the store was not opened", file.display()),
        None => format!("no {} here; the defaults are fine; the store was not opened", config::DEFAULT_FILE),
    };
    output::line(&what)
}

fn check_plugin(loaded: &Loaded) -> Result<(), Failure> {
    let backend = &loaded.config.backend;
    let path =
        plugin::find(&backend.plugin, backend.plugin_dir.as_deref()).map_err(|error| super::failed(error.into()))?;
    let plugin = Plugin::load(&path).map_err(|error| super::failed(error.into()))?;
    loaded.check_options(&plugin).map_err(Failure::Failed)?;
    output::line(&format!("plugin {:?} is {}", backend.plugin, path.display()))
}

/// Prints what is in force.
pub(super) fn show(from: &Configuration, json: bool) -> Result<(), Failure> {
    let loaded = config::load(from.config.as_deref(), &from.set)?;
    match json {
        true => output::json(&loaded.to_json()),
        false => output::line(loaded.to_toml().trim_end()),
    }
}
