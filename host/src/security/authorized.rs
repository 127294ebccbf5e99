//! The clients that may connect.
//!
//! They are the public certificates (`*.key`) in a directory, or all those in one file. In a directory each file counts
//! for itself: one that is no certificate authorizes nobody, and keeps nobody else from being added or removed. One
//! file is taken as a whole, or stays as it was.
//!
//! Nothing here changes in place: [`Authorized::look_again`] makes a new set, so that files are read on a thread of
//! their own while the old set is in use.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use registry_zmtp::keys::whole;

use super::certificate::{Certificate, CertificateError};
use super::key::PublicKey;

/// Much longer than a file with all clients will be.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The keys of clients, with the names that their certificates or files give them.
#[derive(Debug)]
pub struct Authorized {
    path: PathBuf,
    /// In the order of their paths: the first to name a key gives it its name.
    files: Vec<Arc<ClientFile>>,
    names: HashMap<PublicKey, String>,
    warnings: Vec<String>,
    /// Why the files could not be looked at the last time, if they could not.
    away: Option<String>,
    problem_count: usize,
}

/// What operators are to be told of a new set, each in one line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// What cannot be used, and why.
    pub problems: Vec<String>,
    /// What should be looked at, though it can be used.
    pub warnings: Vec<String>,
}

/// The keys cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizedError {
    /// Something is not there, or not to be read.
    #[error("cannot read {}: {error}; expected {EXPECTED}", whole(path).display())]
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

impl AuthorizedError {
    /// Whether the file may be a good one all the same: the system would not let us read it. What is read and is no
    /// text is a bad one.
    fn is_of_the_system(&self) -> bool {
        matches!(self, AuthorizedError::Unreadable { error, .. }
            if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData))
    }
}

/// One file, as it was when it was last read.
#[derive(Debug)]
struct ClientFile {
    path: PathBuf,
    stamp: Option<Stamp>,
    clients: Vec<Listed>,
    problem: Option<Problem>,
}

/// A key that a file lists.
#[derive(Clone, Debug)]
struct Listed {
    key: PublicKey,
    name: String,
    has_secret: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    text: String,
    /// The next look may find it gone, though the file is the same.
    is_of_the_system: bool,
}

/// What tells one state of a file from another, even if it is as long as before or was put there with an old time:
/// nobody can set the time `changed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp { inode: metadata.ino(), length: metadata.len(), changed: (metadata.ctime(), metadata.ctime_nsec()) }
    }
}

impl Authorized {
    /// Loads the keys that are allowed. A bad file in a directory is among the [`problems`](Self::problems).
    ///
    /// # Errors
    /// The directory cannot be read, or the one file cannot be used.
    pub fn load(path: &Path) -> Result<Self, AuthorizedError> {
        let files = read_files(path, &[])?;
        Ok(Self::with_files(path.to_path_buf(), files))
    }

    fn with_files(path: PathBuf, files: Vec<Arc<ClientFile>>) -> Self {
        let mut names = HashMap::new();
        let mut warnings = Vec::new();
        for file in &files {
            let shown = file.path.display();
            for Listed { key, name, has_secret } in &file.clients {
                if *has_secret {
                    warnings.push(format!(
                        "{shown} holds the secret key of {name:?}: it belongs on the client only; a new pair is safer"
                    ));
                }
                match names.get(key) {
                    Some(first) => {
                        warnings.push(format!("{shown} has the key of {first:?} again, for {name:?}: ignored"));
                    }
                    None => drop(names.insert(*key, name.clone())),
                }
            }
        }
        if names.is_empty() {
            warnings.push(format!("{} holds no certificates (*.key): no client can connect", path.display()));
        }
        let problem_count = files.iter().filter(|file| file.problem.is_some()).count();
        Authorized { path, files, names, warnings, away: None, problem_count }
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

    /// What cannot be used, and why; one line each.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        let of_files = self.files.iter().filter_map(|file| file.problem.as_ref()).map(|problem| problem.text.as_str());
        self.away.as_deref().into_iter().chain(of_files)
    }

    /// How many problems there are.
    pub fn problem_count(&self) -> usize {
        self.problem_count
    }

    /// The problems and the warnings that were not there before: a bad file is told of again when it has changed.
    pub fn news(&self, before: &Self) -> News {
        let known: HashSet<*const ClientFile> = before.files.iter().map(Arc::as_ptr).collect();
        let is_new = |file: &&Arc<ClientFile>| !known.contains(&Arc::as_ptr(file));
        let of_files = self.files.iter().filter(is_new).filter_map(|file| file.problem.as_ref());
        let away = self.away.iter().filter(|_| self.away != before.away);
        let problems = away.cloned().chain(of_files.map(|problem| problem.text.clone())).collect();
        let known: HashSet<&String> = before.warnings.iter().collect();
        let warnings = self.warnings.iter().filter(|line| !known.contains(line)).cloned().collect();
        News { problems, warnings }
    }

    /// The set as it is now, if anything is different. Reads only files that have changed, and may block.
    ///
    /// If the directory is away or the one file is bad, all keys stay as they were, and that is a problem.
    pub fn look_again(&self) -> Option<Self> {
        match read_files(&self.path, &self.files) {
            Ok(files) => {
                let is_same = self.away.is_none()
                    && files.len() == self.files.len()
                    && std::iter::zip(&files, &self.files).all(|(now, before)| Arc::ptr_eq(now, before));
                (!is_same).then(|| Self::with_files(self.path.clone(), files))
            }
            Err(error) => {
                let away = Some(format!("{error}; the authorized clients stay as they were"));
                (away != self.away).then(|| Authorized {
                    path: self.path.clone(),
                    files: self.files.clone(),
                    names: self.names.clone(),
                    warnings: self.warnings.clone(),
                    away,
                    problem_count: self.problem_count + usize::from(self.away.is_none()),
                })
            }
        }
    }
}

/// The files: the certificates of a directory, or the one file. Those of `known` that are the same are not read again.
fn read_files(path: &Path, known: &[Arc<ClientFile>]) -> Result<Vec<Arc<ClientFile>>, AuthorizedError> {
    let unreadable = |error| AuthorizedError::Unreadable { path: path.to_path_buf(), error };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_dir() {
        let same = known.iter().find(|file| file.path == path && file.stamp == Some(Stamp::of(&metadata)));
        return match same {
            Some(same) => Ok(vec![same.clone()]),
            None => {
                let clients = read(path, &metadata)?;
                let stamp = Some(Stamp::of(&metadata));
                Ok(vec![Arc::new(ClientFile { path: path.to_path_buf(), stamp, clients, problem: None })])
            }
        };
    }
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension() == Some(OsStr::new("key")) {
            paths.push(file);
        }
    }
    paths.sort();
    let mut known = known.iter().peekable();
    Ok(paths
        .into_iter()
        .filter_map(|path| {
            while known.next_if(|file| file.path < path).is_some() {}
            look(path, known.peek().copied())
        })
        .collect())
}

/// One file of a directory. `None` if it has gone since the directory was read.
fn look(path: PathBuf, known: Option<&Arc<ClientFile>>) -> Option<Arc<ClientFile>> {
    let known = known.filter(|known| known.path == path);
    let metadata = fs::metadata(&path);
    if metadata.is_err() && fs::symlink_metadata(&path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return None;
    }
    let stamp = metadata.as_ref().ok().map(Stamp::of);
    let is_settled = |known: &&Arc<ClientFile>| {
        known.stamp == stamp
            && stamp.is_some()
            && known.problem.as_ref().is_none_or(|problem| !problem.is_of_the_system)
    };
    if let Some(known) = known.filter(is_settled) {
        return Some(known.clone());
    }
    let unreadable = |error| AuthorizedError::Unreadable { path: path.clone(), error };
    let file = match metadata.map_err(unreadable).and_then(|metadata| read(&path, &metadata)) {
        Ok(clients) => ClientFile { path, stamp, clients, problem: None },
        Err(error) => {
            let problem = Problem { text: error.to_string(), is_of_the_system: error.is_of_the_system() };
            if let Some(known) = known.filter(|known| known.stamp == stamp && known.problem.as_ref() == Some(&problem))
            {
                return Some(known.clone());
            }
            // A file that could not be read may still hold what it held.
            let before = known.filter(|_| problem.is_of_the_system).map(|known| known.clients.clone());
            ClientFile { path, stamp, clients: before.unwrap_or_default(), problem: Some(problem) }
        }
    };
    Some(Arc::new(file))
}

fn read(path: &Path, metadata: &Metadata) -> Result<Vec<Listed>, AuthorizedError> {
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(AuthorizedError::NoFile(path.to_path_buf()));
    }
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| AuthorizedError::Unreadable { path: path.to_path_buf(), error })?;
    let certificates = Certificate::parse_all(&text);
    let certificates = certificates.map_err(|error| AuthorizedError::Malformed { path: path.to_path_buf(), error })?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let client = |certificate: Certificate| {
        let name = certificate.get("name").filter(|name| !name.is_empty()).unwrap_or(&stem).to_string();
        Listed { key: certificate.public, name, has_secret: certificate.secret.is_some() }
    };
    Ok(certificates.into_iter().map(client).collect())
}

#[cfg(test)]
mod tests;
