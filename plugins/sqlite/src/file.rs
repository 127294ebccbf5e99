//! The database file, as the operating system sees it: where it is, who else has it, and whether it may be opened.
//!
//! SQLite repairs what it opens (it rolls back, it deletes a log that it takes for stale), so whatever is to be left
//! untouched has to be found out before. What only SQLite can tell is in [`schema`](crate::schema).

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use registry_plugin_api::{Error, Result};
use rusqlite::ErrorCode;

use crate::schema::APPLICATION_ID;

/// What an SQLite database begins with, and how long its header is.
const MAGIC: &[u8] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;

/// The files that are open in this process. SQLite's locks are the process's: they keep other processes out, and not
/// a second backend in this one. Worse, closing *any* handle to a file drops the locks that the process has on it, so
/// not even the header may be looked at while the file is open.
static CLAIMED: Mutex<BTreeSet<Identity>> = Mutex::new(BTreeSet::new());

/// A database file that this process may open once, until this is dropped.
pub(crate) struct DatabaseFile {
    /// As the operator wrote it, for messages.
    name: String,
    /// Absolute and without symbolic links, so that it stays the same file whatever the working directory.
    path: PathBuf,
    identity: Identity,
}

impl DatabaseFile {
    /// Claims the file that the operator named, making an empty one if there is none. Refuses what cannot be a
    /// registry's database, if that can be seen from outside, and leaves it as it is.
    pub(crate) fn claim(name: &str) -> Result<Self> {
        if name.is_empty() || name == ":memory:" {
            return Err(Error::invalid_option(format!(
                "option \"path\" is {name:?}, expected a file: to store nothing, use the memory backend"
            )));
        }
        let given = Path::new(name);
        check_directory(name, given)?;
        match fs::metadata(given) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(Error::invalid_option(format!("{name} is a directory, expected a database file")));
            }
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::invalid_option(format!("{name} is a device or pipe, expected a database file")));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => create(name, given)?,
            Err(error) => return Err(Error::unavailable(format!("cannot open {name}: {error}"))),
        }
        let file = Self::claim_existing(name, given)?;
        file.check_contents()?;
        Ok(file)
    }

    fn claim_existing(name: &str, given: &Path) -> Result<Self> {
        let locate = || -> io::Result<(PathBuf, Identity)> {
            let path = given.canonicalize()?;
            let identity = identity(&path)?;
            Ok((path, identity))
        };
        let (path, identity) = locate().map_err(|error| Error::unavailable(format!("cannot open {name}: {error}")))?;
        if !claimed().insert(identity.clone()) {
            return Err(Error::unavailable(format!("{name} is in use by this process already, by another backend")));
        }
        Ok(DatabaseFile { name: name.to_string(), path, identity })
    }

    /// As the operator wrote it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a write-ahead log beside it, from a program that did not close the database.
    pub(crate) fn has_log(&self) -> bool {
        sibling(&self.path, "-wal").exists()
    }

    /// Refuses to go on if the file has been moved, removed or replaced: SQLite would go on writing to the one that
    /// it has open, where nobody would find it again.
    pub(crate) fn check_in_place(&self) -> Result<()> {
        match identity(&self.path) {
            Ok(identity) if identity == self.identity => Ok(()),
            _ => Err(Error::unavailable(format!(
                "{} has been moved, removed or replaced while it was open: put it back, or restart the registry",
                self.name
            ))),
        }
    }

    /// What went wrong in SQLite, as an error that names the file. `action` is what was to be done with it.
    pub(crate) fn error(&self, action: &str, error: rusqlite::Error) -> Error {
        let name = &self.name;
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Error::unavailable(format!("{name} is in use by another process (another registry host?)"))
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => self.damaged(&error.to_string()),
            Some(ErrorCode::DiskFull) => Error::unavailable(format!("cannot {action} {name}: the disk is full")),
            Some(ErrorCode::CannotOpen) => {
                Error::unavailable(format!("cannot {action} {name}: {error} (its directory must be writable too)"))
            }
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::OutOfMemory
                | ErrorCode::FileLockingProtocolFailed,
            ) => Error::unavailable(format!("cannot {action} {name}: {error}")),
            Some(_) => Error::internal(format!("cannot {action} {name}: {error}")),
            // Not SQLite, but a value that is not what was written.
            None => self.damaged(&error.to_string()),
        }
    }

    /// What went wrong with tables that the backend has made: what is not the machine's doing can only be damage.
    pub(crate) fn unavailable_or_damaged(&self, action: &str, error: rusqlite::Error) -> Error {
        let damaged = self.damaged(&error.to_string());
        let error = self.error(action, error);
        if error.kind() == registry_plugin_api::ErrorKind::Unavailable { error } else { damaged }
    }

    /// The file cannot be what the backend has written.
    pub(crate) fn damaged(&self, reason: &str) -> Error {
        let name = &self.name;
        Error::corrupt(format!(
            "{name} is damaged ({reason}): restore it from a backup, or move it and {name}-wal away to begin anew"
        ))
    }

    /// Who may not write the file, and whose it is: what `ls -l` and `id` would tell.
    fn not_writable(&self) -> String {
        let name = &self.name;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let owner = |path: &Path| fs::metadata(path).map(|metadata| (user_name(metadata.uid()), metadata.mode()));
            // A process's files in /proc belong to whom it runs as.
            if let (Ok((us, _)), Ok((owner, mode))) = (owner(Path::new("/proc/self")), owner(&self.path)) {
                return format!("{name} is not writable by {us} ({:04o} {owner})", mode & 0o7777);
            }
        }
        format!("{name} is not writable by the user that the registry runs as")
    }

    fn check_contents(&self) -> Result<()> {
        let name = &self.name;
        let unreadable = |error| Error::unavailable(format!("cannot read {name}: {error}"));
        if fs::metadata(&self.path).map_err(unreadable)?.permissions().readonly() {
            return Err(Error::unavailable(format!(
                "{name} is read-only, expected a file that the registry may write"
            )));
        }
        // SQLite itself would open it for reading alone, and fail at its first write with "disk I/O error".
        let file = File::options().read(true).write(true).open(&self.path).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => Error::unavailable(self.not_writable()),
            _ => unreadable(error),
        })?;
        let mut header = Vec::new();
        file.take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(unreadable)?;
        if header.is_empty() {
            return refuse_orphaned_log(name, &self.path);
        }
        if !header.starts_with(MAGIC) {
            return Err(Error::corrupt(format!(
                "{name} is not an SQLite database, expected a registry's: name another file, or move this one away"
            )));
        }
        let Some(application_id) = header.get(68..72).filter(|_| header.len() == HEADER_BYTES) else {
            return Err(self.damaged("it ends in the middle of its header"));
        };
        // Our own interrupted transaction is rolled back by SQLite. Another program's is not ours to touch.
        if application_id != APPLICATION_ID.to_be_bytes() && is_filled(&sibling(&self.path, "-journal")) {
            return Err(Error::corrupt(format!(
                "{name} belongs to another program, which has not finished a transaction ({name}-journal), expected a \
                 registry's database: open it with that program once, or name another file"
            )));
        }
        Ok(())
    }
}

impl Drop for DatabaseFile {
    fn drop(&mut self) {
        claimed().remove(&self.identity);
    }
}

/// The set stays sound whatever panicked while it was locked: an insert or a remove is all that happens to it.
fn claimed() -> MutexGuard<'static, BTreeSet<Identity>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check_directory(name: &str, given: &Path) -> Result<()> {
    let directory = match given.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let metadata = match fs::metadata(directory) {
        Ok(metadata) if metadata.is_dir() => metadata,
        _ => {
            let directory = directory.display();
            return Err(Error::invalid_option(format!(
                "cannot open {name}: there is no directory {directory}, expected one that exists"
            )));
        }
    };
    // On other systems the bit says nothing about a directory.
    if cfg!(unix) && metadata.permissions().readonly() {
        let directory = directory.display();
        return Err(Error::unavailable(format!(
            "cannot open {name}: the directory {directory} is read-only, expected one that the registry may write"
        )));
    }
    Ok(())
}

fn create(name: &str, given: &Path) -> Result<()> {
    if given.is_symlink() {
        return Err(Error::invalid_option(format!("{name} is a symbolic link to nothing, expected a database file")));
    }
    refuse_orphaned_log(name, given)?;
    match File::create_new(given) {
        Ok(_) => Ok(()),
        // Another host was faster: the lock tells which of the two goes on.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::unavailable(format!("cannot create {name}: {error}"))),
    }
}

/// Where there is no database, SQLite deletes its write-ahead log, which may hold all that was stored.
fn refuse_orphaned_log(name: &str, path: &Path) -> Result<()> {
    if !is_filled(&sibling(path, "-wal")) {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "{name} is missing or empty but its log {name}-wal is not, expected both: put {name} back, or move the log away \
         to begin anew"
    )))
}

fn is_filled(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}

/// A file that SQLite keeps beside the database.
fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut sibling = OsString::from(path);
    sibling.push(suffix);
    PathBuf::from(sibling)
}

/// A user's name, or the number where none is known.
#[cfg(unix)]
fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let has_uid = |line: &&str| line.split(':').nth(2).is_some_and(|field| field == uid.to_string());
    let name = users.lines().find(has_uid).and_then(|line| line.split(':').next());
    name.map_or_else(|| format!("user {uid}"), String::from)
}

/// What tells a file from all others, by whatever path it is reached.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    #[cfg(unix)]
    device_and_inode: (u64, u64),
    /// Where files have no number to be had. It does not see through hard links.
    #[cfg(not(unix))]
    canonical_path: PathBuf,
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path)?;
    Ok(Identity { device_and_inode: (metadata.dev(), metadata.ino()) })
}

#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
    Ok(Identity { canonical_path: path.canonicalize()? })
}
