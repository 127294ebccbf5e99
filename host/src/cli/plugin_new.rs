//! `plugin new`: the crate of a storage plugin that works as it is, from which an author goes on.
//!
//! It consists of the files in `plugin_template`, with a few `@WORDS@` replaced, and of the backend of
//! `examples/jsonl`. That example is a member of the workspace and passes the same tests as every plugin, so a new
//! plugin begins with code that works. The example asks cargo for its own name, and so fits any plugin.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use toml::Value;

use super::output::{self, Failure};

/// What to write where.
const FILES: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("plugin_template/Cargo.toml.in")),
    ("README.md", include_str!("plugin_template/README.md")),
    (".gitignore", include_str!("plugin_template/gitignore")),
    ("src/lib.rs", include_str!("../../../examples/jsonl/src/lib.rs")),
];

/// The plugins that lie beside the program, or may.
const SHIPPED: [&str; 4] = ["memory", "sqlite", "etcd", "postgres"];

const API_PACKAGE: &str = "registry-plugin-api";

/// The oldest Rust that builds this project, and so a plugin.
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// The plugin that is wanted.
#[derive(Args, Clone, Debug)]
pub(super) struct NewPlugin {
    /// The plugin's name, as in backend.plugin: its crate is called registry_NAME
    #[arg(value_parser = plugin_name)]
    name: String,
    /// The plugin-api directory of this project's source: the crate is not on a package registry yet
    #[arg(long, value_name = "PATH")]
    api: PathBuf,
    /// Where to write it: a directory that is empty or does not exist [default: ./registry_NAME]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Writes the crate, and says how to go on.
pub(super) fn new(wanted: &NewPlugin) -> Result<(), Failure> {
    let identifier = wanted.name.replace('-', "_");
    let package = format!("registry_{identifier}");
    let library = format!("{DLL_PREFIX}{package}{DLL_SUFFIX}");
    let api = dependency(&wanted.api)?;
    let directory = wanted.dir.clone().unwrap_or_else(|| PathBuf::from(&package));
    check_vacant(&directory)?;
    let rust = RUST_VERSION.to_string();
    let words =
        [("@PACKAGE@", &package), ("@NAME@", &identifier), ("@LIBRARY@", &library), ("@API@", &api), ("@RUST@", &rust)];
    for (file, template) in FILES {
        let text = words.iter().fold(template.to_string(), |text, (word, value)| text.replace(word, value));
        write(&directory.join(file), &text)?;
    }
    let shown = directory.display();
    let program = this_program();
    output::line(&format!(
        "{package} is in {shown}. Next, there:\n  \
         cargo test\n  \
         cargo build --release\n  \
         {program} plugin check ./target/release/{library}\n  \
         {program} -s backend.plugin=./target/release/{library}"
    ))
}

/// How this program is started: by its name if that is found, else by its path, as after a build by cargo.
fn this_program() -> String {
    let Ok(program) = std::env::current_exe() else { return "registry".to_string() };
    let is_this = |directory: PathBuf| directory.join("registry").canonicalize().is_ok_and(|found| found == program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).any(is_this) {
        true => "registry".to_string(),
        false => program.display().to_string(),
    }
}

/// A name that is fit for a crate, a library and `backend.plugin`.
fn plugin_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) || !text.chars().all(fits) {
        return Err("expected a name of a-z, 0-9, - and _ that begins with a letter".to_string());
    }
    if SHIPPED.contains(&text) {
        return Err("the registry comes with a plugin of that name, which would be found in its place".to_string());
    }
    match text.strip_prefix("registry_").or_else(|| text.strip_prefix("registry-")) {
        Some(rest) => Err(format!("the crate is called registry_NAME anyway: name it {rest:?}")),
        None => Ok(text.to_string()),
    }
}

/// How `Cargo.toml` names plugin-api, between the braces.
fn dependency(path: &Path) -> Result<String, Failure> {
    let manifest = path.join("Cargo.toml");
    let named = fs::read_to_string(&manifest).ok().and_then(|text| text.parse::<toml::Table>().ok());
    let named = named.as_ref().and_then(|manifest| manifest.get("package")?.get("name")?.as_str());
    if named != Some(API_PACKAGE) {
        let path = path.display();
        return Err(Failure::Failed(format!(
            "--api {path} does not hold the crate {API_PACKAGE}: name the plugin-api directory of this project's source"
        )));
    }
    // Absolute: it has to be right seen from the new crate.
    let absolute = path.canonicalize().map_err(|error| failed("find", path, &error))?;
    match absolute.to_str() {
        Some(path) => Ok(format!("path = {}", Value::from(path))),
        None => Err(Failure::Failed(format!("{} is not Unicode, which Cargo.toml is", absolute.display()))),
    }
}

/// Refuses a directory that has something in it.
fn check_vacant(directory: &Path) -> Result<(), Failure> {
    match fs::read_dir(directory).map(Iterator::count) {
        Ok(0) => Ok(()),
        Ok(_) => {
            let directory = directory.display();
            Err(Failure::Failed(format!("{directory} is not empty: give another directory with --dir")))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("write to", directory, &error)),
    }
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|error| failed("create", directory, &error))?;
    fs::write(file, text).map_err(|error| failed("write", file, &error))
}

fn failed(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot {action} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_the_host_can_find() {
        for name in ["x", "my-store", "store_2"] {
            assert_eq!(plugin_name(name).as_deref(), Ok(name));
        }
        let refused = ["", "2x", "_x", "-x", "My", "a b", "ä", "a/b", "registry_x", "registry-x"];
        for name in refused.into_iter().chain(SHIPPED) {
            assert!(plugin_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn every_word_of_a_template_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let dir = Some(directory.path().join("new"));
        let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugin-api");
        new(&NewPlugin { name: "my-store".to_string(), api, dir: dir.clone() }).unwrap();
        for (file, _) in FILES {
            let text = fs::read_to_string(dir.as_ref().unwrap().join(file)).unwrap();
            assert!(!text.contains('@'), "{file}: {text}");
        }
    }
}
