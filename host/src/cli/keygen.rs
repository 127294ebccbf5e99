//! `keygen`: a key pair in two files, as pyzmq and CZMQ name them.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use toml::Value;

use super::EXIT_CODES;
use super::output::{self, Failure};
use crate::security::certificate::{public_text, secret_text};
use crate::security::key::KeyPair;

/// What `keygen` is asked for.
#[derive(Args, Clone, Debug)]
pub(super) struct NewKeys {
    /// The file for the public key; the secret key goes to FILE_secret. No file is ever overwritten
    #[arg(long, value_name = "FILE", default_value = "registry.key")]
    out: PathBuf,
    /// Whose key it is: the registry's log calls a client by this name [default: the file's name]
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// Whose keys they will be, for the instructions that follow [default: registry if FILE is registry.key, else
    /// client]
    #[arg(long = "for", value_name = "WHO", value_enum)]
    owner: Option<Owner>,
}

/// Who uses a key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Owner {
    Registry,
    Client,
}

/// What `--help` says after the options.
pub(super) fn help() -> String {
    format!(
        "\
CZMQ and pyzmq (zmq.auth) read and write the same kind of files.

Examples:
  registry keygen                    for the registry
  registry keygen --out camera.key   for a client

{EXIT_CODES}"
    )
}

/// Writes the files, and says how to go on.
pub(super) fn keygen(wanted: &NewKeys) -> Result<(), Failure> {
    let public = &wanted.out;
    let mut secret = OsString::from(public);
    secret.push("_secret");
    let secret = PathBuf::from(secret);
    let stem = public.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let Some(name) = wanted.name.clone().or(stem) else {
        return Err(Failure::Failed(format!("--out {} is no file's name", public.display())));
    };
    let name = self::name(&name).map_err(|why| Failure::Failed(format!("{name:?}: {why}; give one with --name")))?;

    let keys = KeyPair::generate();
    write_new(&secret, &secret_text(&keys, &name), 0o600)?;
    if let Err(failure) = write_new(public, &public_text(&keys, &name), 0o644) {
        // Half a pair is of no use, and would be in the way.
        let _ = std::fs::remove_file(&secret);
        return Err(failure);
    }

    // The host may be started elsewhere.
    let full = std::path::absolute(&secret).unwrap_or_else(|_| secret.clone());
    let by_name =
        if public.file_name().is_some_and(|name| name == "registry.key") { Owner::Registry } else { Owner::Client };
    let public = output::printable(&public.display().to_string());
    let secret = output::printable(&secret.display().to_string());
    let next = match wanted.owner.unwrap_or(by_name) {
        Owner::Registry => format!(
            "Next, in registry.toml:\n  \
             [security]\n  \
             mechanism = \"curve\"\n  \
             key_file = {full}\n  \
             authorized_clients = \"/a/directory/with/the/public/keys/of/clients\"\n\
             Clients need {public} besides keys of their own: registry keygen --out camera.key",
            full = Value::from(full.display().to_string()),
        ),
        Owner::Client => format!(
            "Next, copy {public} into the directory that security.authorized_clients names at the registry. Then, with \
             the registry's public key:\n  \
             registry list --key {secret} --server-key registry.key"
        ),
    };
    output::line(&format!(
        "{public}: the public key, to be given to others\n\
         {secret}: the secret key; only you can read it, and nobody else should\n\
         \n\
         public key: {key}\n\
         \n\
         {next}",
        key = keys.public(),
    ))
}

/// A name that can stand in a certificate.
fn name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains(|c: char| c.is_control() || c == '"') {
        return Err("expected a name without quotes and control characters".to_string());
    }
    Ok(text.to_string())
}

/// Writes a new file. It has its mode from the start, so that there is no moment in which others could read it.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| {
        let path = path.display();
        Failure::Failed(match error.kind() {
            ErrorKind::AlreadyExists => format!("{path} is there already: give another name with --out"),
            _ => format!("cannot create {path}: {error}"),
        })
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        let _ = std::fs::remove_file(path);
        Failure::Failed(format!("cannot write {}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::security::{Authorized, key_file};

    fn wanted(directory: &Path, file: &str, name: Option<&str>) -> NewKeys {
        NewKeys { out: directory.join(file), name: name.map(String::from), owner: None }
    }

    #[test]
    fn makes_a_pair_that_the_host_takes() {
        let directory = tempfile::tempdir().unwrap();
        keygen(&wanted(directory.path(), "registry.key", None)).unwrap();
        let keys = key_file(&directory.path().join("registry.key_secret")).unwrap();
        let authorized = Authorized::load(directory.path()).unwrap();
        assert_eq!(authorized.name(keys.public()), Some("registry"));
        assert!(authorized.warnings().is_empty());
        let mode = fs::metadata(directory.path().join("registry.key_secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        keygen(&wanted(directory.path(), "x.key", Some("camera 7"))).unwrap();
        let keys = key_file(&directory.path().join("x.key_secret")).unwrap();
        assert_eq!(Authorized::load(directory.path()).unwrap().name(keys.public()), Some("camera 7"));
    }

    #[test]
    fn overwrites_nothing_and_leaves_no_half_pair() {
        let directory = tempfile::tempdir().unwrap();
        for there in ["registry.key", "registry.key_secret"] {
            let file = directory.path().join(there);
            fs::write(&file, "precious").unwrap();
            let Err(Failure::Failed(text)) = keygen(&wanted(directory.path(), "registry.key", None)) else { panic!() };
            assert!(text.contains(&format!("{} is there already", file.display())), "{text}");
            assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
            fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn a_name_is_one_that_can_stand_in_quotes() {
        for good in ["a", "camera 7", "Ä"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in ["", "  ", "a\"b", "a\nb", "a\u{1b}[m"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
