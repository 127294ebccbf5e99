//! The clients that may connect.
//!
//! They are the public certificates (`*.key`) of a directory, or all those in one file. A set that is in use can be
//! loaded again: whoever holds it asks now and then, and a set that cannot be loaded changes nothing.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::certificate::{Certificate, CertificateError};
use super::key::PublicKey;

/// Much longer than a file with all clients will be.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The keys of clients, with the names that their certificates or files have.
#[derive(Debug)]
pub struct Authorized {
    path: PathBuf,
    names: HashMap<PublicKey, String>,
    warnings: Vec<String>,
    /// The files when they were last looked at, whether they could be loaded or not; `None` if they were not there.
    seen: Option<Vec<Stamp>>,
}

/// The keys cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizedError {
    /// Something is not there, or not to be read.
    #[error("cannot read {}: {error}; expected {EXPECTED}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is not a certificate.
    #[error("{}: {error}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: CertificateError,
    },
    /// Something that is neither a file nor a directory, or a file that is far too large.
    #[error("{} cannot be used: expected {EXPECTED}", .0.display())]
    NoFile(PathBuf),
}

const EXPECTED: &str = "a directory with public certificates (*.key) of clients, or a file with some";

/// What tells one state of a file from another: also if it is as long as before, or was put there with an old time.
/// `changed` is the time that nobody can set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    path: PathBuf,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Authorized {
    /// Loads the keys that are allowed.
    ///
    /// # Errors
    /// The first file that cannot be used, and why. No key is left out silently.
    pub fn load(path: &Path) -> Result<Self, AuthorizedError> {
        let seen = look(path)?;
        let (names, warnings) = read(path, &seen)?;
        Ok(Authorized { path: path.to_path_buf(), names, warnings, seen: Some(seen) })
    }

    /// The name of the client with that key, if it is allowed.
    pub fn name(&self, key: &PublicKey) -> Option<&str> {
        self.names.get(key).map(String::as_str)
    }

    /// How many keys are allowed.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nobody is allowed.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What somebody should look at, though the keys can be used; one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether the files are others than when they were last looked at. It reads no file, only what the directory says.
    pub fn changed(&self) -> bool {
        look(&self.path).ok() != self.seen
    }

    /// Loads the keys again if [`Self::changed`], and says whether it did.
    ///
    /// # Errors
    /// As [`Self::load`]. The keys are those that they were, and the next call tries again only if something changes.
    pub fn reload(&mut self) -> Result<bool, AuthorizedError> {
        let now = look(&self.path);
        if now.as_ref().ok() == self.seen.as_ref() {
            return Ok(false);
        }
        self.seen = now.as_ref().ok().cloned();
        (self.names, self.warnings) = read(&self.path, &now?)?;
        Ok(true)
    }
}

/// The files: the certificates of a directory, or the one file.
fn look(path: &Path) -> Result<Vec<Stamp>, AuthorizedError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        |error| AuthorizedError::Unreadable { path, error }
    };
    let metadata = fs::metadata(path).map_err(unreadable(path))?;
    if !metadata.is_dir() {
        return Ok(vec![stamp(path, &metadata)?]);
    }
    let mut stamps = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable(path))? {
        let file = entry.map_err(unreadable(path))?.path();
        if file.extension() == Some(OsStr::new("key")) {
            stamps.push(stamp(&file, &fs::metadata(&file).map_err(unreadable(&file))?)?);
        }
    }
    stamps.sort();
    Ok(stamps)
}

fn stamp(path: &Path, metadata: &Metadata) -> Result<Stamp, AuthorizedError> {
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(AuthorizedError::NoFile(path.to_path_buf()));
    }
    Ok(Stamp {
        path: path.to_path_buf(),
        inode: metadata.ino(),
        length: metadata.len(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

type Names = HashMap<PublicKey, String>;

fn read(path: &Path, files: &[Stamp]) -> Result<(Names, Vec<String>), AuthorizedError> {
    let mut names = Names::new();
    let mut warnings = Vec::new();
    for Stamp { path: file, .. } in files {
        let shown = file.display();
        let text = fs::read_to_string(file);
        let text = text.map_err(|error| AuthorizedError::Unreadable { path: file.clone(), error })?;
        let certificates = Certificate::parse_all(&text);
        let certificates = certificates.map_err(|error| AuthorizedError::Malformed { path: file.clone(), error })?;
        for certificate in certificates {
            let stem = || file.file_stem().unwrap_or_default().to_string_lossy();
            let name = certificate.get("name").filter(|name| !name.is_empty());
            let name = name.map_or_else(|| stem().into_owned(), String::from);
            if certificate.secret.is_some() {
                warnings.push(format!(
                    "{shown} holds the secret key of {name}: it belongs on the client only; a new pair is safer"
                ));
            }
            match names.get(&certificate.public) {
                Some(first) => warnings.push(format!("{shown} has the key of {first} again, for {name}: ignored")),
                None => {
                    names.insert(certificate.public, name);
                }
            }
        }
    }
    if names.is_empty() {
        warnings.push(format!("{} holds no certificates (*.key): no client can connect", path.display()));
    }
    Ok((names, warnings))
}

#[cfg(test)]
mod tests {
    use super::super::certificate::{public_text, secret_text};
    use super::super::key::KeyPair;
    use super::*;

    fn put(directory: &Path, file: &str, text: &str) {
        fs::write(directory.join(file), text).unwrap();
    }

    fn nameless(keys: &KeyPair) -> String {
        format!("metadata\ncurve\n    public-key = \"{}\"\n", keys.public())
    }

    #[test]
    fn a_directory_allows_those_whose_keys_are_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let [camera, stage, backup, stranger] = std::array::from_fn(|_| KeyPair::generate());
        put(directory.path(), "camera.key", &nameless(&camera));
        put(directory.path(), "b.key", &public_text(&stage, "stage 2"));
        // None of these are certificates of clients.
        put(directory.path(), "backup.key~", &nameless(&backup));
        put(directory.path(), "own.key_secret", &secret_text(&backup, "own"));
        put(directory.path(), "README", "the clients of this registry");
        let authorized = Authorized::load(directory.path()).unwrap();
        assert_eq!(authorized.name(camera.public()), Some("camera"));
        assert_eq!(authorized.name(stage.public()), Some("stage 2"));
        assert_eq!(authorized.name(backup.public()), None);
        assert_eq!(authorized.name(stranger.public()), None);
        assert_eq!(authorized.len(), 2);
        assert!(authorized.warnings().is_empty(), "{:?}", authorized.warnings());
    }

    #[test]
    fn a_file_allows_all_that_are_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two] = std::array::from_fn(|_| KeyPair::generate());
        put(directory.path(), "clients", &(public_text(&one, "one") + &nameless(&two)));
        let authorized = Authorized::load(&directory.path().join("clients")).unwrap();
        assert_eq!(authorized.name(one.public()), Some("one"));
        assert_eq!(authorized.name(two.public()), Some("clients"));
        put(directory.path(), "alone.key", &nameless(&two));
        let authorized = Authorized::load(&directory.path().join("alone.key")).unwrap();
        assert_eq!((authorized.len(), authorized.name(two.public())), (1, Some("alone")));
    }

    #[test]
    fn warns_of_what_should_not_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let authorized = Authorized::load(directory.path()).unwrap();
        assert!(authorized.is_empty() && authorized.warnings()[0].contains("no client can connect"));
        let keys = KeyPair::generate();
        put(directory.path(), "a.key", &secret_text(&keys, "a"));
        put(directory.path(), "b.key", &public_text(&keys, "b"));
        let authorized = Authorized::load(directory.path()).unwrap();
        assert_eq!(authorized.name(keys.public()), Some("a"));
        let [secret, twice] = authorized.warnings() else { panic!("{:?}", authorized.warnings()) };
        assert!(secret.contains("a.key") && secret.contains("secret key of a"), "{secret}");
        assert!(twice.contains("b.key") && twice.contains("again"), "{twice}");
        assert!(!format!("{authorized:?}").contains(keys.secret().to_z85().as_str()));
    }

    #[test]
    fn one_bad_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "good.key", &nameless(&KeyPair::generate()));
        put(directory.path(), "bad.key", "curve\n    public-key = \"too short\"\n");
        let error = Authorized::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("bad.key: line 2: expected a key") && !error.contains('\n'), "{error}");
        fs::remove_file(directory.path().join("bad.key")).unwrap();
        fs::create_dir(directory.path().join("bad.key")).unwrap();
        let error = Authorized::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("bad.key cannot be used: expected a directory with"), "{error}");
        let error = Authorized::load(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent") && error.contains("expected a directory with"), "{error}");
    }

    #[test]
    fn what_changes_is_loaded_again() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two, three] = std::array::from_fn(|_| KeyPair::generate());
        put(directory.path(), "one.key", &nameless(&one));
        let mut authorized = Authorized::load(directory.path()).unwrap();
        assert!(!authorized.changed());
        assert!(!authorized.reload().unwrap());
        // Added.
        put(directory.path(), "two.key", &nameless(&two));
        assert!(authorized.changed());
        assert!(authorized.reload().unwrap());
        assert!(!authorized.changed());
        assert_eq!(authorized.len(), 2);
        // Another key of the same length, by rename, with the same time.
        let modified = fs::metadata(directory.path().join("two.key")).unwrap().modified().unwrap();
        put(directory.path(), "new", &nameless(&three));
        fs::File::options().write(true).open(directory.path().join("new")).unwrap().set_modified(modified).unwrap();
        fs::rename(directory.path().join("new"), directory.path().join("two.key")).unwrap();
        assert!(authorized.reload().unwrap());
        assert_eq!((authorized.name(two.public()), authorized.name(three.public())), (None, Some("two")));
        // Removed.
        fs::remove_file(directory.path().join("one.key")).unwrap();
        assert!(authorized.reload().unwrap());
        assert_eq!((authorized.name(one.public()), authorized.len()), (None, 1));
    }

    #[test]
    fn a_set_that_cannot_be_loaded_changes_nothing_and_is_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyPair::generate();
        let path = directory.path().join("clients");
        fs::create_dir(&path).unwrap();
        put(&path, "one.key", &nameless(&keys));
        let mut authorized = Authorized::load(&path).unwrap();
        put(&path, "two.key", "half a cert");
        assert!(authorized.reload().unwrap_err().to_string().contains("two.key"));
        assert!(!authorized.changed());
        assert!(!authorized.reload().unwrap());
        assert_eq!(authorized.name(keys.public()), Some("one"));
        // The whole directory is away.
        fs::rename(&path, directory.path().join("away")).unwrap();
        assert!(authorized.changed());
        assert!(authorized.reload().unwrap_err().to_string().contains("clients"));
        assert!(!authorized.changed());
        assert!(!authorized.reload().unwrap());
        assert_eq!(authorized.name(keys.public()), Some("one"));
        // And back again, in order.
        fs::rename(directory.path().join("away"), &path).unwrap();
        fs::remove_file(path.join("two.key")).unwrap();
        assert!(authorized.changed());
        assert!(authorized.reload().unwrap());
        assert_eq!(authorized.name(keys.public()), Some("one"));
    }
}
