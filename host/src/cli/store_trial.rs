//! Whether a store can be opened, found out without changing it: a copy of it is opened.
//!
//! Opening a store may make it, repair it or bring it up to date, and the contract has no call that only looks. By
//! convention a store that is a file has a text option `path`. So the file is copied, with those that lie beside it
//! under longer names (logs and journals), and the plugin is told to open the copy.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use registry_plugin_api::Capabilities;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::log::counted;
use crate::plugin::Plugin;
use crate::store;

/// What is larger takes too long to copy, and too much room.
const BYTES_MAX: u64 = 1 << 30;

/// Says what is known of the store then, as the end of a sentence.
///
/// # Errors
/// Why it could not be opened.
pub(super) fn open(plugin: &Plugin, options: &Map<String, Value>) -> Result<String, String> {
    let Some(name) = path_option(plugin, options) else {
        let capabilities = plugin.capabilities(options).map_err(|error| error.to_string())?;
        return match capabilities.has(Capabilities::NONE.durable()) {
            true => Ok("was not opened: only one in a file can be tried without changing it".to_string()),
            // Nothing of it outlives the trial.
            false => open_with(plugin, options.clone()).map(|_| "is empty at each start".to_string()),
        };
    };
    let path = Path::new(&name);
    let Some(file_name) = path.file_name() else { return Err(format!("{name:?} is no file's name")) };
    let scratch = scratch()?;
    let copy = scratch.path().join(file_name);
    let told = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {
            OpenOptions::new().write(true).open(path).map_err(|error| format!("{name} cannot be written: {error}"))?;
            let files = files_of(path).map_err(|error| format!("cannot read {name}: {error}"))?;
            if files.iter().map(|(_, bytes)| bytes).sum::<u64>() > BYTES_MAX {
                return Ok(format!("{name} was not opened: it is too large to be tried by a copy"));
            }
            for (file, _) in &files {
                let target = scratch.path().join(file.file_name().unwrap_or_default());
                fs::copy(file, target).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            }
            |services| format!("has {}", counted(services, "service", "services"))
        }
        // Whether it can be one is the plugin's to say; what is in it need not be copied for that.
        Ok(metadata) if metadata.is_dir() => {
            fs::create_dir(&copy).map_err(|error| format!("cannot make a directory for the trial: {error}"))?;
            |_| "is a directory, and was not opened".to_string()
        }
        Ok(_) => return Err(format!("{name} is a device, pipe or socket, expected a file")),
        Err(error) if error.kind() == ErrorKind::NotFound => |_| "is going to be made".to_string(),
        Err(error) => return Err(format!("cannot open {name}: {error}")),
    };
    check_directory(path).map_err(|why| format!("{name}: {why}"))?;
    let mut options = options.clone();
    options.insert("path".to_string(), copy.display().to_string().into());
    match open_with(plugin, options) {
        Ok(services) => Ok(format!("{name} {}", told(services))),
        // The plugin speaks of the copy.
        Err(error) => Err(error.replace(&*copy.to_string_lossy(), &name)),
    }
}

/// The file of the store, if that is how the plugin is told of it.
pub(crate) fn path_option(plugin: &Plugin, options: &Map<String, Value>) -> Option<String> {
    let declared = plugin.info().options.iter().find(|option| option.name() == "path" && option.kind() == "text")?;
    let path = options.get("path").cloned().or_else(|| declared.default_value())?;
    path.as_str().map(String::from)
}

fn scratch() -> Result<TempDir, String> {
    let scratch = tempfile::Builder::new().prefix("registry-check-").tempdir();
    scratch.map_err(|error| format!("cannot make a directory for the trial: {error}"))
}

/// The file and those beside it that belong to it, with their lengths.
fn files_of(path: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let mut files = Vec::new();
    for entry in fs::read_dir(directory_of(path))? {
        let entry = entry?;
        let metadata = fs::metadata(entry.path());
        if entry.file_name().as_encoded_bytes().starts_with(name)
            && let Some(metadata) = metadata.ok().filter(fs::Metadata::is_file)
        {
            files.push((entry.path(), metadata.len()));
        }
    }
    Ok(files)
}

/// Whether there is a directory for the file, in which others may be made beside it.
fn check_directory(path: &Path) -> Result<(), String> {
    let directory = directory_of(path);
    if !directory.is_dir() {
        return Err(format!("there is no directory {}, expected one that exists", directory.display()));
    }
    // A file without a name, which nobody ever sees.
    tempfile::tempfile_in(directory)
        .map(drop)
        .map_err(|error| format!("the directory {} cannot be written: {error}", directory.display()))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens a store, reads all of it, and says how many services there are.
fn open_with(plugin: &Plugin, options: Map<String, Value>) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(async {
        let (backend, contents) = store::open(plugin, options).await.map_err(|error| error.to_string())?;
        backend.close().await.map_err(|error| error.to_string())?;
        Ok(contents.records.len())
    })
}
