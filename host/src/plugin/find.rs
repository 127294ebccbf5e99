//! From what `registry.toml` calls a plugin to the plugin's file.

use std::env;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::path::{self, Path, PathBuf};

/// Why there is no file for a name. One line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // the messages say it
pub enum FindError {
    #[error("{name:?} is not a plugin name: expected a-z, 0-9, - and _, or a path with a {separator:?}{hint}", separator = path::MAIN_SEPARATOR, hint = path_hint(.name))]
    Name { name: String },
    #[error(
        "no plugin {name:?}: there is no {file} in {}: build or install it, or give its path \
         (backend.plugin_dir says where to look, `registry plugin list` shows what is there)",
        list(.searched)
    )]
    NotFound { name: String, file: String, searched: Vec<PathBuf> },
}

fn path_hint(name: &str) -> String {
    if name.ends_with(DLL_SUFFIX) { format!(", such as \".{}{name}\"", path::MAIN_SEPARATOR) } else { String::new() }
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
    let searched = directories(plugin_dir, program_dir);
    let found = searched.iter().map(|directory| directory.join(&file)).find(|candidate| candidate.is_file());
    found.ok_or(FindError::NotFound { name, file, searched })
}

/// Where names are searched, in this order.
fn directories(plugin_dir: Option<&Path>, program_dir: Option<&Path>) -> Vec<PathBuf> {
    match (plugin_dir, program_dir) {
        (Some(directory), _) => vec![directory.to_path_buf()],
        (None, Some(program)) => {
            let installed = program.parent().map(|prefix| prefix.join("lib").join("registry"));
            [program.to_path_buf(), program.join("plugins")].into_iter().chain(installed).collect()
        }
        (None, None) => Vec::new(),
    }
}

/// All files that look like plugins (`libregistry_*.so`) in the directories that [`find`] searches, in the order of
/// the search, and by name within a directory. Of two with the same name, `find` takes the first. What cannot be
/// listed is passed over, as a search would pass over it.
pub fn find_all(plugin_dir: Option<&Path>) -> Vec<PathBuf> {
    find_all_from(plugin_dir, env::current_exe().ok().as_deref().and_then(Path::parent))
}

fn find_all_from(plugin_dir: Option<&Path>, program_dir: Option<&Path>) -> Vec<PathBuf> {
    let prefix = format!("{DLL_PREFIX}registry_");
    let looks_like_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && name.ends_with(DLL_SUFFIX) && path.is_file()
    };
    let files_in = |directory: PathBuf| {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(looks_like_one).collect();
        files.sort();
        files
    };
    directories(plugin_dir, program_dir).into_iter().flat_map(files_in).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn all_are_found_in_the_order_of_the_search() {
        let prefix = tempfile::tempdir().unwrap();
        let bin = prefix.path().join("bin");
        let in_lib = library(&prefix.path().join("lib/registry"), "a");
        let beside = [library(&bin, "b"), library(&bin, "c")];
        fs::write(bin.join("libother.so"), "").unwrap();
        fs::write(bin.join(format!("{DLL_PREFIX}registry_d.rlib")), "").unwrap();
        fs::create_dir(bin.join(format!("{DLL_PREFIX}registry_e{DLL_SUFFIX}"))).unwrap();
        assert_eq!(find_all_from(None, Some(&bin)), [beside[0].clone(), beside[1].clone(), in_lib]);
        assert_eq!(find_all_from(Some(&bin), None), beside);
        assert_eq!(find_all_from(Some(Path::new("/opt/none")), None), [""; 0].map(PathBuf::from));
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
