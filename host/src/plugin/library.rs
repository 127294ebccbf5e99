//! Opens a library and looks for a plugin in it.

use std::error::Error;
use std::ffi::c_void;
use std::mem;
use std::path::Path;

use libloading::Library;
use registry_plugin_api::abi::SYMBOL;
use registry_plugin_api::abi::load::{Module, Refusal};

use super::LoadError;

/// The inner result is about a library that is a plugin.
#[allow(unsafe_code)]
pub(super) fn open(path: &Path) -> Result<Result<Module, Refusal>, LoadError> {
    // SAFETY: this runs what the library does when it is loaded, and nothing can be known of that: whoever names a
    // file as a plugin trusts it. That it is whole has been checked.
    let library = unsafe { open_now(path) }.map_err(|error| {
        // What the loader says is the source of the error.
        let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        // It begins with the path, which the message has already.
        let reason = text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text).replace('\n', " ");
        // From outside, such a program looks like a library.
        if reason.contains("position-independent executable") {
            return LoadError::NotALibrary { path: path.to_path_buf(), reason: "it is a program" };
        }
        LoadError::Unloadable { path: path.to_path_buf(), reason }
    })?;
    // SAFETY: the symbol is read as an address only.
    let symbol = unsafe { library.get::<*const c_void>(SYMBOL) }.map(|symbol| *symbol);
    let symbol = symbol.map_err(|_| LoadError::NotAPlugin { path: path.to_path_buf() })?;
    // Never unloaded from here on: the plugin starts threads, and hands out references to its own data.
    mem::forget(library);
    // SAFETY: it is the address of that symbol, and the library stays.
    Ok(unsafe { Module::check(symbol) })
}

/// Resolves all symbols at once: one that is missing is to be found now, and not when it is called.
#[cfg(unix)]
#[allow(unsafe_code)]
unsafe fn open_now(path: &Path) -> Result<Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: as the caller says.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map(Into::into)
}

#[cfg(not(unix))]
#[allow(unsafe_code)]
unsafe fn open_now(path: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: as the caller says.
    unsafe { Library::new(path) }
}
