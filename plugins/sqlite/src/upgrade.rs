//! Bringing a database up to date that an earlier registry has written, or the Python registry.
//!
//! The file is changed in one transaction, and a copy of it as it was is beside it before that ends: whoever goes back to
//! the earlier version has something to go back to, in an epoch of its own. A kill at any moment leaves the file as it
//! was, or upgraded.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use registry_plugin_api::{Error, Result};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::file::DatabaseFile;
use crate::schema::{EVENTS, Older, POSITION, SCHEMA_VERSION, VERSIONS, check_tables};
use crate::takeover;

/// Which version this is.
const OWN: &str = env!("CARGO_PKG_VERSION");
/// How much is shown of what a database says of its version.
const VERSION_SHOWN_MAX: usize = 32;

/// From schema version 1, which kept the position in a table called `history`, and no events.
const FROM_1: [&str; 4] =
    [POSITION, EVENTS, "INSERT INTO position SELECT one, epoch, revision, revision FROM history", "DROP TABLE history"];
/// From schema version 2, which did not say who had made it.
const FROM_2: [&str; 1] = [VERSIONS];
/// What leads from each schema version to the next.
const STEPS: [&[&str]; SCHEMA_VERSION as usize - 1] = [&FROM_1, &FROM_2];

/// Has whoever opens a copy begin a new epoch: what has happened since is not in it, and clients are to list again.
fn beginning_anew(older: Older) -> &'static str {
    match older {
        Older::Registry(1) => "UPDATE history SET epoch = lower(hex(randomblob(16)))",
        Older::Registry(_) => "DELETE FROM position",
        Older::Cgse => "",
    }
}

/// Brings the database up to date, of which this connection holds the lock.
pub(crate) fn run(file: &DatabaseFile, connection: &mut Connection, older: Older) -> Result<()> {
    let copy = Copy::make(file, connection, older)?;
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Exclusive)
        .map_err(|error| file.error("upgrade", error))?;
    match older {
        Older::Registry(from) => {
            // Epoch and revision stay, so clients notice nothing.
            upgrade(&transaction, from).map_err(|error| file.unavailable_or_damaged("upgrade", error))?;
        }
        Older::Cgse => takeover::take_over(file, &transaction).map_err(|error| file.error("upgrade", error))?,
    }
    check_tables(file, &transaction)?;
    let kept_as = copy.keep()?;
    transaction.commit().map_err(|error| file.error("upgrade", error))?;
    if let Older::Registry(from) = older {
        tracing::info!(file = file.name(), from, to = SCHEMA_VERSION, kept_as, "upgraded the database");
    } else {
        tracing::info!(file = file.name(), kept_as, "a copy of the Python registry's database is kept");
    }
    Ok(())
}

fn upgrade(transaction: &Transaction, from: i32) -> rusqlite::Result<()> {
    let steps = STEPS.iter().skip(usize::try_from(from - 1).unwrap_or(STEPS.len()));
    steps.copied().flatten().try_for_each(|sql| transaction.execute_batch(sql))?;
    note_version(transaction)
}

/// Writes down of which schema version the database is now, and which registry has made it so.
pub(crate) fn note_version(transaction: &Transaction) -> rusqlite::Result<()> {
    transaction.execute("INSERT OR REPLACE INTO versions (schema, registry) VALUES (?1, ?2)", (SCHEMA_VERSION, OWN))?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)
}

/// Why a database of a later schema version is not opened, and what to do.
pub(crate) fn too_new(file: &DatabaseFile, connection: &Connection, version: i32) -> Error {
    let name = file.name();
    let select = "SELECT registry FROM versions WHERE schema = ?1";
    // Every later version keeps this table; a message is no place to fail if one does not.
    let made_by = connection.query_row(select, [version], |row| row.get::<_, String>(0)).optional().ok().flatten();
    let made_by = made_by.unwrap_or_default();
    let made_by: String = made_by.chars().filter(char::is_ascii_graphic).take(VERSION_SHOWN_MAX).collect();
    let newer = if made_by.is_empty() { "a newer registry".into() } else { format!("the newer registry {made_by}") };
    let copies = (1..=SCHEMA_VERSION).rev().map(|version| beside(file.path(), Older::Registry(version)));
    let copy = copies.into_iter().find(|copy| copy.exists());
    let copy = copy.map(|copy| format!("; as it was before the upgrade it is in {}", copy.display()));
    Error::corrupt(format!(
        "{name} was written by {newer} (schema version {version}; this is {OWN}, which reads 1 to {SCHEMA_VERSION}): use that \
         one, or run `registry backup` with it and `registry restore` with this one, into another file{}",
        copy.unwrap_or_default()
    ))
}

/// A copy of the database as it was, beside it.
struct Copy<'a> {
    file: &'a DatabaseFile,
    /// Where it is until it is to be kept.
    part: PathBuf,
    /// Where it is then.
    kept: PathBuf,
}

impl<'a> Copy<'a> {
    /// Copies the database, on to the disk.
    fn make(file: &'a DatabaseFile, connection: &Connection, older: Older) -> Result<Self> {
        let kept = beside(file.path(), older);
        let copy = Copy { file, part: with_suffix(&kept, ".part"), kept };
        let made_empty = || -> io::Result<fs::Permissions> {
            match fs::remove_file(&copy.part) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            // What is in it is nobody's business whose the database was not.
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(&copy.part)?;
            Ok(fs::metadata(file.path())?.permissions())
        };
        let permissions = made_empty().map_err(|error| copy.failed(&error.to_string()))?;
        let part = copy.part.to_str().ok_or_else(|| copy.failed("its path is not UTF-8"))?;
        // By SQLite, with what is still in its log. To read the file beside SQLite would drop the lock on it.
        connection.execute("VACUUM INTO ?1", [part]).map_err(|error| copy.failed_in_sqlite(&error))?;
        let marked = || -> rusqlite::Result<()> {
            let part = Connection::open(&copy.part)?;
            // Nothing is left beside it that a kill would leave there.
            part.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
            part.execute_batch(beginning_anew(older))
        };
        marked().map_err(|error| match error.sqlite_error_code() {
            // It has not the tables of its version.
            Some(rusqlite::ErrorCode::Unknown) => file.damaged(&error.to_string()),
            _ => copy.failed_in_sqlite(&error),
        })?;
        let synced = || -> io::Result<()> {
            let part = File::options().write(true).open(&copy.part)?;
            part.set_permissions(permissions)?;
            part.sync_all()
        };
        synced().map_err(|error| copy.failed(&error.to_string()))?;
        Ok(copy)
    }

    /// Puts it where it stays, in place of an older one, and says where.
    fn keep(self) -> Result<String> {
        let moved = || -> io::Result<()> {
            fs::rename(&self.part, &self.kept)?;
            let directory = self.kept.parent().unwrap_or(Path::new("."));
            File::open(directory)?.sync_all()
        };
        moved().map_err(|error| self.failed(&error.to_string()))?;
        Ok(self.kept.display().to_string())
    }

    fn failed_in_sqlite(&self, error: &rusqlite::Error) -> Error {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => self.failed("the disk is full"),
            _ => self.failed(&error.to_string()),
        }
    }

    fn failed(&self, reason: &str) -> Error {
        let (name, kept) = (self.file.name(), self.kept.display());
        Error::unavailable(format!(
            "cannot copy {name} to {kept}, which is done before it is upgraded: {reason} (the database is as it was)"
        ))
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        // Once it is kept, there is none.
        let _ = fs::remove_file(&self.part);
    }
}

/// Where the copy of a database is kept.
fn beside(path: &Path, older: Older) -> PathBuf {
    match older {
        Older::Registry(version) => with_suffix(path, &format!(".schema-{version}")),
        Older::Cgse => with_suffix(path, ".cgse"),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}
