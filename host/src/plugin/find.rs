//! From what `registry.toml` calls a plugin to the plugin's file.

use std::env;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{self, Path, PathBuf};

/// Why there is no file for a name. One line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say it
pub enum FindError {
    #[error("{name:?} is not a plugin name: expected a-z, 0-9, - and _, or a path with a {separator:?}", separator = path::MAIN_SEPARATOR)]
    Name { name: String },
    #[error(
        "no plugin {name:?}: there is no {file} in {}: build or install it, or give its path",
        list(.searched)
    )]
    NotFound { name: String, file: String, searched: Vec<PathBuf> },
}

fn list(directories: &[PathBuf]) -> String {
    let shown: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
    shown.join(", ")
}

/// The file of the plugin that is called `name_or_path`.
///
/// A value with a path separator is a path, and taken as it is. A name (`sqlite`) stands for a library
/// (`libregistry_sqlite.so`), which is searched in `plugin_dir` if it is given, and else in the directory of the
/// running program, in `plugins` there, and in `../lib/registry` from there. The current directory is not searched:
/// loading a library runs it.
///
/// # Errors
/// If it is no name, or no such file is found: then with all directories that were searched.
pub fn find(name_or_path: &str, plugin_dir: Option<&Path>) -> Result<PathBuf, FindError> {
    find_from(name_or_path, plugin_dir, env::current_exe().ok().as_deref().and_then(Path::parent))
}

fn find_from(name_or_path: &str, plugin_dir: Option<&Path>, program_dir: Option<&Path>) -> Result<PathBuf, FindError> {
    if name_or_path.contains(path::is_separator) {
        return Ok(PathBuf::from(name_or_path));
    }
    let name = name_or_path.to_string();
    let is_name_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(is_name_char) {
        return Err(FindError::Name { name });
    }
    let file = format!("{DLL_PREFIX}registry_{}{DLL_SUFFIX}", name.replace('-', "_"));
    let searched: Vec<PathBuf> = match (plugin_dir, program_dir) {
        (Some(directory), _) => vec![directory.to_path_buf()],
        (None, Some(program)) => {
            let installed = program.parent().map(|prefix| prefix.join("lib").join("registry"));
            [program.to_path_buf(), program.join("plugins")].into_iter().chain(installed).collect()
        }
        (None, None) => Vec::new(),
    };
    let found = searched.iter().map(|directory| directory.join(&file)).find(|candidate| candidate.is_file());
    found.ok_or(FindError::NotFound { name, file, searched })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn library(directory: &Path, name: &str) -> PathBuf {
        fs::create_dir_all(directory).unwrap();
        let file = directory.join(format!("{DLL_PREFIX}registry_{name}{DLL_SUFFIX}"));
        fs::write(&file, "").unwrap();
        file
    }

    #[test]
    fn a_value_with_a_separator_is_a_path() {
        assert_eq!(find("./odd name.so", Some(Path::new("/plugins"))).unwrap(), Path::new("./odd name.so"));
    }

    #[test]
    fn a_name_is_searched_beside_the_program_then_in_plugins_then_in_lib() {
        let prefix = tempfile::tempdir().unwrap();
        let bin = prefix.path().join("bin");
        let in_lib = library(&prefix.path().join("lib/registry"), "my_store");
        assert_eq!(find_from("my-store", None, Some(&bin)).unwrap(), in_lib);
        let in_plugins = library(&bin.join("plugins"), "my_store");
        assert_eq!(find_from("my-store", None, Some(&bin)).unwrap(), in_plugins);
        let beside = library(&bin, "my_store");
        assert_eq!(find_from("my-store", None, Some(&bin)).unwrap(), beside);
    }

    #[test]
    fn with_a_plugin_dir_nothing_else_is_searched() {
        let prefix = tempfile::tempdir().unwrap();
        let bin = prefix.path().join("bin");
        library(&bin, "store");
        let other = prefix.path().join("other");
        let error = find_from("store", Some(&other), Some(&bin)).unwrap_err().to_string();
        assert!(error.contains("other") && !error.contains("bin"), "{error}");
    }

    #[test]
    fn not_found_names_every_directory_that_was_searched() {
        let error = find_from("store", None, Some(Path::new("/opt/none/bin"))).unwrap_err().to_string();
        let file = format!("{DLL_PREFIX}registry_store{DLL_SUFFIX}");
        for part in [file.as_str(), "/opt/none/bin,", "/opt/none/bin/plugins", "/opt/none/lib/registry"] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn what_is_neither_name_nor_path_is_refused() {
        for name in ["", "SQLite", "libregistry_sqlite.so", "sqlite ", "späti", ".."] {
            assert!(matches!(find(name, None), Err(FindError::Name { .. })), "{name:?}");
        }
    }
}
