//! `config check`, `config show`: the configuration, without a registry.

use crate::config::{self, Loaded};
use crate::fronts::{self, Listeners};
use crate::plugin::{self, Plugin};
use crate::security::guard::Guard;
use crate::security::tls::Tls;

use super::arguments::Configuration;
use super::output::{self, Failure};
use super::store_trial;

/// Says whether a registry would start with this configuration here and now: what `serve` refuses is refused here, and
/// nothing is changed. What a `running` registry holds is left out.
pub(super) fn check(from: &Configuration, running: bool) -> Result<(), Failure> {
    let loaded = match config::load(from.config.as_deref(), &from.set) {
        Ok(loaded) => loaded,
        Err(error) => return refused(error.problems().to_vec()),
    };
    let mut problems = Vec::new();
    match Guard::load(&loaded.config.security) {
        Ok(security) => {
            let of_quotas = loaded.config.quotas_for_nobody(|key| security.name(key).is_some());
            security.warnings().iter().chain(&of_quotas).for_each(|warning| output::note(warning));
        }
        Err(error) => problems.push(error.to_string()),
    }
    match loaded.config.http.enabled.then(|| Tls::load(&loaded.config.http)).transpose() {
        Ok(tls) => tls.flatten().iter().flat_map(|tls| tls.warnings()).for_each(|warning| output::note(warning)),
        Err(error) => problems.push(error.to_string()),
    }
    loaded.unused_options().iter().for_each(|(_, line)| output::note(line));
    let mut obstacles = if running { Vec::new() } else { Listeners::obstacles(&loaded.config.server) };
    match if running { Ok(None) } else { fronts::bind_http(&loaded.config.http) } {
        Err(error) if error.is_taken() && !loaded.is_set("http.port") => {
            output::note(&format!("there would be no HTTP: {error}"));
        }
        bound => obstacles.extend(bound.err()),
    }
    problems.extend(obstacles.iter().map(ToString::to_string));
    let plugin = plugin_of(&loaded).and_then(|plugin| loaded.check_options(&plugin).map(|()| plugin));
    match plugin {
        Ok(plugin) => {
            output::line(&format!("plugin {:?} is {}", loaded.config.backend.plugin, plugin.path().display()))?;
            // Who has the ports may have the store, too: half of what is being written looks like a damaged one.
            let store = match (running, obstacles.is_empty()) {
                (false, true) => store_trial::open(&plugin, &loaded.config.backend.options),
                (true, _) => Ok("was not opened: a registry is running".to_string()),
                (false, false) => Ok("was not opened; --running leaves out what a running registry holds".to_string()),
            };
            match store {
                Ok(store) => output::line(&format!("the store {store}"))?,
                Err(error) => problems.push(format!("the storage {} cannot be opened: {error}", plugin.info().name)),
            }
        }
        Err(problem) => problems.push(problem),
    }
    if !problems.is_empty() {
        return refused(problems);
    }
    output::line(&match &loaded.file {
        Some(file) => format!("{} is fine", file.display()),
        None => format!("no {} here; the defaults are fine", config::DEFAULT_FILE),
    })
}

/// All problems in one go, each in its line; the last one ends the command.
fn refused(mut problems: Vec<String>) -> Result<(), Failure> {
    let last = problems.pop().unwrap_or_default();
    problems.iter().for_each(|problem| output::note(problem));
    Err(Failure::Failed(last))
}

fn plugin_of(loaded: &Loaded) -> Result<Plugin, String> {
    let backend = &loaded.config.backend;
    let path = plugin::find(&backend.plugin, backend.plugin_dir.as_deref()).map_err(|error| error.to_string())?;
    Plugin::load(&path).map_err(|error| super::failure_line(&error))
}

/// Prints what is in force. Only the plugin knows which of its options are secret.
pub(super) fn show(from: &Configuration, json: bool) -> Result<(), Failure> {
    let loaded = config::load(from.config.as_deref(), &from.set)?;
    let plugin = match loaded.config.backend.options.is_empty() {
        true => None,
        false => plugin_of(&loaded).ok(),
    };
    let options = plugin.as_ref().map_or(&[][..], |plugin| &plugin.info().options);
    let secret: Vec<&str> = options.iter().filter(|option| option.is_secret()).map(|option| option.name()).collect();
    match json {
        true => output::json(&loaded.to_json(&secret)),
        false => output::line(loaded.to_toml(&secret).trim_end()),
    }
}
