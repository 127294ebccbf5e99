//! The file with a secret key.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::certificate::{Certificate, CertificateError};
use super::key::KeyPair;

/// Longer than any certificate.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why a secret key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It is not there, or not to be read.
    #[error("cannot read {}: {error}", whole(path).display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Something else than a file, or one that is far too large.
    #[error("{} is no key file: expected a secret certificate, such as `registry keygen` writes", .0.display())]
    NoFile(PathBuf),
    /// Others could have read it.
    #[error(
        "{} can be read or changed by others (mode {:04o}): expected 0600; run: chmod 600 {}",
        path.display(), mode & 0o7777, path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not a certificate.
    #[error("{}: {error}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: CertificateError,
    },
    /// It is a public certificate.
    #[error("{} has no secret-key: expected a secret certificate, whose name usually ends in .key_secret", .0.display())]
    NoSecretKey(PathBuf),
    /// The keys do not belong together.
    #[error("{}: the public-key is not the one that belongs to the secret-key", .0.display())]
    Mismatch(PathBuf),
}

/// Where a relative path leads to, for messages: a program may run in another directory than whoever wrote it thought.
pub fn whole(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Loads the key pair of a secret certificate that nobody else can read.
///
/// # Errors
/// See [`KeyFileError`]; each says what was expected, and where.
pub fn key_file(path: &Path) -> Result<KeyPair, KeyFileError> {
    let text = secret_file(path)?;
    let path = path.to_path_buf();
    let certificate = match Certificate::parse(&text) {
        Ok(certificate) => certificate,
        Err(error) => return Err(KeyFileError::Malformed { path, error }),
    };
    let Some(secret) = certificate.secret else { return Err(KeyFileError::NoSecretKey(path)) };
    let keys = KeyPair::from(secret);
    if *keys.public() == certificate.public { Ok(keys) } else { Err(KeyFileError::Mismatch(path)) }
}

/// The text of a file with a secret key of any kind, which nobody else can read.
///
/// # Errors
/// [`KeyFileError::Unreadable`], [`KeyFileError::Exposed`] or [`KeyFileError::NoFile`].
pub fn secret_file(path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
    let unreadable = |error| KeyFileError::Unreadable { path: path.to_path_buf(), error };
    // First, because opening a pipe would wait. Everything else is asked of the file that was opened.
    if std::fs::metadata(path).map_err(unreadable)?.is_file() {
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if metadata.mode() & others_of(path) != 0 {
            return Err(KeyFileError::Exposed { path: path.to_path_buf(), mode: metadata.mode() });
        }
        if metadata.len() <= FILE_BYTES_MAX {
            return read(file, metadata.len()).map_err(unreadable);
        }
    }
    Err(KeyFileError::NoFile(path.to_path_buf()))
}

/// The bits of a mode by which others get at a file. systemd lets a service read its credentials by an access control
/// list, which shows among the bits of the group; nobody else can enter their directory.
fn others_of(path: &Path) -> u32 {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty());
    if credentials.is_some_and(|directory| path.parent() == Some(Path::new(&directory))) { 0o037 } else { 0o077 }
}

fn read(file: File, length: u64) -> std::io::Result<Zeroizing<String>> {
    // With room for all of it: a string that grows leaves copies of secrets behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(length).unwrap_or_default() + 1));
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::super::certificate::{public_text, secret_text};
    use super::*;

    struct Place {
        _directory: tempfile::TempDir,
        file: PathBuf,
    }

    fn place(text: &str, mode: u32) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("registry.key_secret");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        Place { _directory: directory, file }
    }

    fn refused(place: &Place) -> String {
        let error = key_file(&place.file).unwrap_err().to_string();
        assert!(error.contains(place.file.to_str().unwrap()) && !error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn loads_a_key_that_nobody_else_can_read() {
        let keys = KeyPair::generate();
        for mode in [0o600, 0o400, 0o700] {
            let loaded = key_file(&place(&secret_text(&keys, "x"), mode).file).unwrap();
            assert_eq!(loaded.public(), keys.public());
            assert_eq!(loaded.secret().as_bytes(), keys.secret().as_bytes());
        }
    }

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused_with_the_remedy() {
        let text = secret_text(&KeyPair::generate(), "x");
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o610] {
            let place = place(&text, mode);
            let error = refused(&place);
            assert!(error.contains(&format!("chmod 600 {}", place.file.display())), "{error}");
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let keys = KeyPair::generate();
        let error = refused(&place(&public_text(&keys, "x"), 0o600));
        assert!(error.contains("no secret-key") && error.contains(".key_secret"), "{error}");
        let mixed =
            secret_text(&keys, "x").replace(&keys.public().to_string(), &KeyPair::generate().public().to_string());
        assert!(refused(&place(&mixed, 0o600)).contains("belongs"));
        assert!(refused(&place("", 0o600)).contains("no public-key"));
        assert!(refused(&place("nonsense", 0o600)).contains("line 1"));
        assert!(refused(&place(&"#\n".repeat(40_000), 0o600)).contains("no key file"));
        let missing = Place { file: "/nonexistent/registry.key_secret".into(), ..place("", 0o600) };
        assert!(refused(&missing).contains("cannot read"));
        let relative = Place { file: "nowhere.key_secret".into(), ..place("", 0o600) };
        let expected = std::env::current_dir().unwrap().join("nowhere.key_secret");
        assert!(refused(&relative).contains(expected.to_str().unwrap()), "it says where that is");
        let directory = tempfile::tempdir().unwrap();
        let directory = Place { file: directory.path().to_path_buf(), _directory: directory };
        assert!(refused(&directory).contains("no key file"));
    }
}
