//! What loading a plugin can fail of. Every message is one line: the file, what is wrong with it, what to do.

use std::io;
use std::path::{Path, PathBuf};

use registry_plugin_api::Error;
use registry_plugin_api::abi::load::API_VERSION;

/// Why a file is not used as a plugin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say it
pub enum LoadError {
    #[error("no plugin file at {}: check the path, or build the plugin", .path.display())]
    Missing { path: PathBuf },
    #[error("{} is {what}, not a plugin file: name the library itself", .path.display())]
    NotAFile { path: PathBuf, what: &'static str },
    #[error("cannot read plugin file {}: {error}: let the user that runs this host read it", .path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("plugin file {} is not a shared library ({reason}): name a plugin's library", .path.display())]
    NotALibrary { path: PathBuf, reason: &'static str },
    #[error("plugin file {} is cut off after {length} bytes: copy it again", .path.display())]
    Truncated { path: PathBuf, length: u64 },
    #[error("plugin file {} is a library for another kind of machine: build the plugin for this one", .path.display())]
    OtherMachine { path: PathBuf },
    #[error("plugin file {} cannot be loaded: {reason}: install what it needs, or build it on this system", .path.display())]
    Unloadable { path: PathBuf, reason: String },
    #[error("{} is a library but not a registry plugin: expected one that has export_backend!", .path.display())]
    NotAPlugin { path: PathBuf },
    #[error(
        "plugin {} was built against plugin-api {built_against}, but this host has {API_VERSION}: \
         rebuild the plugin against plugin-api {API_VERSION}",
        .path.display()
    )]
    OtherVersion { path: PathBuf, built_against: String },
    #[error(
        "plugin {} names plugin-api {built_against}, but its data is laid out otherwise than in this host's \
         {API_VERSION}: rebuild the plugin against the plugin-api of this host (level debug logs the differences)",
        .path.display()
    )]
    OtherLayout { path: PathBuf, built_against: String },
    #[error("plugin {} does not work: {reason}: rebuild it", .path.display())]
    Broken { path: PathBuf, reason: String },
    #[error(
        "plugin {} was built with panic = \"abort\", so that its first panic would end this host: \
         rebuild it with panic = \"unwind\"",
        .path.display()
    )]
    Aborts { path: PathBuf },
    #[error("plugin {} failed to start: {error}: report it to the plugin's author", .path.display())]
    Start { path: PathBuf, error: Error },
}

impl LoadError {
    /// The file that is not used.
    pub fn path(&self) -> &Path {
        match self {
            LoadError::Missing { path }
            | LoadError::NotAFile { path, .. }
            | LoadError::Unreadable { path, .. }
            | LoadError::NotALibrary { path, .. }
            | LoadError::Truncated { path, .. }
            | LoadError::OtherMachine { path }
            | LoadError::Unloadable { path, .. }
            | LoadError::NotAPlugin { path }
            | LoadError::OtherVersion { path, .. }
            | LoadError::OtherLayout { path, .. }
            | LoadError::Broken { path, .. }
            | LoadError::Aborts { path }
            | LoadError::Start { path, .. } => path,
        }
    }
}
