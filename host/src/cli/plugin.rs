//! `plugin`: for authors of storage plugins, and for operators who choose one.

use std::env::consts::DLL_SUFFIX;
use std::path::Path;

use clap::Subcommand;

use crate::config;
use crate::plugin::{self, Plugin};

use super::EXIT_CODES;
use super::arguments::Configuration;
use super::output::Failure;
use super::plugin_check::{self, CheckChild, CheckPlugin};
use super::plugin_inspect;
use super::plugin_new::{self, NewPlugin};

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Write the crate of a new storage plugin, which works as it is
    #[command(after_help = format!("\
Example:
  registry plugin new my_store --api path/to/plugin-api
  cd registry_my_store && cargo test

{EXIT_CODES}"))]
    New(NewPlugin),
    /// Show what a plugin says of itself: version, promises, options
    #[command(after_help = EXIT_CODES)]
    Inspect {
        /// The plugin's file, or its name as in backend.plugin
        #[arg(value_name = "FILE|NAME")]
        name_or_path: String,
        #[command(flatten)]
        from: Configuration,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// List the plugins that can be named in backend.plugin, and say why others cannot be loaded
    #[command(after_help = EXIT_CODES)]
    List {
        #[command(flatten)]
        from: Configuration,
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Try whether a plugin does what the contract of plugin-api says
    #[command(after_help = plugin_check::help())]
    Check(CheckPlugin),
    /// What `check` runs, and kills
    #[command(hide = true)]
    CheckChild(CheckChild),
}

impl PluginCommand {
    /// The configuration that the command goes by, if it goes by one.
    pub(super) fn configuration(&mut self) -> Option<&mut Configuration> {
        match self {
            PluginCommand::Inspect { from, .. } | PluginCommand::List { from, .. } => Some(from),
            PluginCommand::Check(wanted) => Some(&mut wanted.from),
            PluginCommand::New(_) | PluginCommand::CheckChild(_) => None,
        }
    }
}

/// Runs the command.
pub(super) fn run(command: &PluginCommand) -> Result<(), Failure> {
    match command {
        PluginCommand::New(wanted) => plugin_new::new(wanted),
        PluginCommand::Inspect { name_or_path, from, json } => plugin_inspect::inspect(name_or_path, from, *json),
        PluginCommand::List { from, json } => plugin_inspect::list(from, *json),
        PluginCommand::Check(wanted) => plugin_check::check(wanted),
        PluginCommand::CheckChild(wanted) => plugin_check::work_as_child(wanted),
    }
}

/// Loads the plugin that is meant by a file, or by a name as `backend.plugin` has it.
pub(super) fn load(name_or_path: &str, from: &Configuration) -> Result<Plugin, Failure> {
    // A path needs no configuration, and must not fail because of one. No name ends as a library's file does.
    let is_path = name_or_path.contains(std::path::is_separator)
        || name_or_path.ends_with(DLL_SUFFIX)
        || Path::new(name_or_path).is_file();
    let path = match is_path {
        true => name_or_path.into(),
        false => {
            let plugin_dir = config::load(from.config.as_deref(), &from.set)?.config.backend.plugin_dir;
            plugin::find(name_or_path, plugin_dir.as_deref()).map_err(|error| super::failed(error.into()))?
        }
    };
    Plugin::load(path).map_err(|error| super::failed(error.into()))
}
