//! A durable store in a redb database: one file, and one transaction for each group of changes.
//!
//! Three tables. What a heartbeat changes is in one of its own, so that a renewal does not write the document again.
//! redb syncs each transaction when it is committed, and locks the file for as long as it is open. It is checked when
//! it is opened.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read};
use std::ops::Bound::{Excluded, Unbounded};
use std::panic;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, StorageError, Table, TableDefinition,
    TableHandle,
};
use registry_plugin_api::{
    Backend, Capabilities, Change, Cursor, Error, Group, Host, OptionSpec, Options, Outcome, Page, Position, Record,
    Result, export_backend,
};

/// By id: the document, the types, the ttl and the revision.
const SERVICES: TableDefinition<&str, (&str, Vec<&str>, u64, u64)> = TableDefinition::new("services");
/// By id: when the service was last heard of.
const HEARTBEATS: TableDefinition<&str, u64> = TableDefinition::new("heartbeats");
/// The epoch and the revision: one row, and none in a new store. Its name tells our databases from others.
const POSITION: TableDefinition<&str, (&str, u64)> = TableDefinition::new("registry_redb 1");
const POSITION_ROW: &str = "history";

const PAGE_RECORDS: usize = 1000;

/// What a redb file begins with.
const MAGIC: &[u8] = b"redb\x1A\n\xA9\r\n";

/// The backend: an open database.
pub struct Redb {
    path: PathBuf,
    database: Database,
}

export_backend!(Redb);

impl Backend for Redb {
    const OPTIONS: &'static [OptionSpec] = &[OptionSpec::text(
        "path",
        Some("service_registry.redb"),
        "the database file, relative to the directory the host runs in",
    )];

    fn capabilities(_options: &Options) -> Capabilities {
        Capabilities::NONE.durable()
    }

    async fn open(options: Options, _host: Host) -> Result<Self> {
        let path = PathBuf::from(options.text("path"));
        if path.file_name().is_none() {
            return Err(Error::invalid_option(format!("option \"path\" is {path:?}, expected a file")));
        }
        check_file(&path)?;
        let database = Database::create(&path).map_err(|error| failed("open", &path, error))?;
        let store = Redb { path, database };
        store.make_tables()?;
        Ok(store)
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        self.read_page(after.as_str()).map_err(|error| failed("read", &self.path, *error))
    }

    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        self.write_group(&group).map_err(|error| failed("write", &self.path, *error))
    }
}

/// redb's errors are large, and an error is rare.
type Redbs<T> = std::result::Result<T, Box<redb::Error>>;

/// For `map_err`: redb has an error type for each step, and one that all become.
fn boxed(error: impl Into<redb::Error>) -> Box<redb::Error> {
    Box::new(error.into())
}

impl Redb {
    /// In a new database; those of ours have them.
    fn make_tables(&self) -> Result<()> {
        let make = || -> Redbs<()> {
            let transaction = self.database.begin_write().map_err(boxed)?;
            transaction.open_table(POSITION).map_err(boxed)?;
            transaction.open_table(SERVICES).map_err(boxed)?;
            transaction.open_table(HEARTBEATS).map_err(boxed)?;
            transaction.commit().map_err(boxed)
        };
        make().map_err(|error| failed("write", &self.path, *error))?;
        sync_directory(&self.path).map_err(|error| failed("write", &self.path, error))
    }

    /// All changes in one transaction, which is given up where anything fails.
    fn write_group(&self, group: &Group) -> Redbs<Vec<Outcome>> {
        let mut transaction = self.database.begin_write().map_err(boxed)?;
        transaction.set_durability(Durability::Immediate).map_err(boxed)?;
        let mut outcomes = Vec::with_capacity(group.changes.len());
        {
            let mut tables = Tables {
                services: transaction.open_table(SERVICES).map_err(boxed)?,
                heartbeats: transaction.open_table(HEARTBEATS).map_err(boxed)?,
            };
            for change in &group.changes {
                outcomes.push(tables.apply(change)?);
            }
            let position = (group.position.epoch.as_str(), group.position.revision);
            transaction.open_table(POSITION).map_err(boxed)?.insert(POSITION_ROW, position).map_err(boxed)?;
        }
        transaction.commit().map_err(boxed)?;
        Ok(outcomes)
    }

    fn read_page(&self, after: &str) -> Redbs<Page> {
        let transaction = self.database.begin_read().map_err(boxed)?;
        let position = transaction.open_table(POSITION).map_err(boxed)?.get(POSITION_ROW).map_err(boxed)?;
        let page = Page::new(position.map(|row| Position::new(row.value().0, row.value().1)));
        let services = transaction.open_table(SERVICES).map_err(boxed)?;
        let heartbeats = transaction.open_table(HEARTBEATS).map_err(boxed)?;
        // No id is empty, so that the empty cursor is before all of them.
        let mut rows = services.range::<&str>((Excluded(after), Unbounded)).map_err(boxed)?;
        let mut records = Vec::new();
        for row in rows.by_ref().take(PAGE_RECORDS) {
            let (id, fields) = row.map_err(boxed)?;
            let (document, types, ttl_ms, revision) = fields.value();
            let mut record = Record::new(id.value(), document);
            record.types = types.into_iter().map(String::from).collect();
            (record.ttl_ms, record.revision) = (ttl_ms, revision);
            let heartbeat = heartbeats.get(id.value()).map_err(boxed)?;
            record.last_heartbeat_ms = heartbeat.map_or(0, |heartbeat| heartbeat.value());
            records.push(record);
        }
        let next = records.last().filter(|_| rows.next().is_some()).map(|last| Cursor::after(&last.id));
        let page = page.with_records(records);
        Ok(match next {
            Some(next) => page.with_next(next),
            None => page,
        })
    }
}

/// The tables of a transaction.
struct Tables<'transaction> {
    services: Table<'transaction, &'static str, (&'static str, Vec<&'static str>, u64, u64)>,
    heartbeats: Table<'transaction, &'static str, u64>,
}

impl Tables<'_> {
    fn apply(&mut self, change: &Change) -> Redbs<Outcome> {
        match change {
            Change::Put(put) => {
                let record = &put.record;
                let types = record.types.iter().map(String::as_str).collect();
                let fields = (record.document.as_str(), types, record.ttl_ms, record.revision);
                // The first thing to be written, so that nothing has been if it is refused.
                match self.services.insert(record.id.as_str(), fields) {
                    Err(StorageError::ValueTooLarge(bytes)) => {
                        let refusal = format!("the service has {bytes} bytes, which is more than redb takes");
                        return Ok(Outcome::Refused(Error::new(registry_plugin_api::ErrorKind::Unsupported, refusal)));
                    }
                    other => drop(other.map_err(boxed)?),
                }
                self.heartbeats.insert(record.id.as_str(), record.last_heartbeat_ms).map_err(boxed)?;
                Ok(Outcome::Done)
            }
            Change::Remove(remove) => {
                let found = self.services.remove(remove.id.as_str()).map_err(boxed)?.is_some();
                self.heartbeats.remove(remove.id.as_str()).map_err(boxed)?;
                Ok(Outcome::done_if(found))
            }
            Change::Renew(renew) => {
                let found = self.services.get(renew.id.as_str()).map_err(boxed)?.is_some();
                if found {
                    self.heartbeats.insert(renew.id.as_str(), renew.last_heartbeat_ms).map_err(boxed)?;
                }
                Ok(Outcome::done_if(found))
            }
            _ => Ok(Outcome::unknown()),
        }
    }
}

/// Refuses a file that is not ours or is damaged, and leaves it as it is. redb writes to what it opens, and trusts it:
/// so a copy in memory is opened first, with the check that redb makes if it is asked to, of every page.
fn check_file(path: &Path) -> Result<()> {
    let unreadable = |error| failed("read", path, redb::Error::Io(error));
    let foreign = || {
        let path = path.display();
        Error::corrupt(format!("{path} is not a database of registry_redb: name another file, or move this one away"))
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    // While somebody writes to it, there is nothing to be copied. redb has the same lock.
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(failed("open", path, redb::Error::DatabaseAlreadyOpen)),
        Err(TryLockError::Error(error)) => return Err(unreadable(error)),
        Ok(()) => {}
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.is_empty() {
        return Ok(());
    }
    if !bytes.starts_with(MAGIC) {
        return Err(foreign());
    }
    // Of some damage redb panics.
    let looked_at = panic::catch_unwind(|| is_ours(&bytes));
    let damaged = |_| boxed(StorageError::Corrupted("its own tables cannot be read".to_string()));
    match looked_at.map_err(damaged).flatten() {
        Ok(true) => Ok(()),
        Ok(false) => Err(foreign()),
        // Memory can be read: what is asked for is behind its end.
        Err(error) if matches!(*error, redb::Error::Io(_)) => {
            Err(failed("open", path, StorageError::Corrupted("it is cut off".to_string())))
        }
        Err(error) => Err(failed("open", path, *error)),
    }
}

/// Whether a database is ours, which is one that is whole.
fn is_ours(bytes: &[u8]) -> Redbs<bool> {
    let copy = InMemoryBackend::new();
    copy.set_len(bytes.len() as u64).and_then(|()| copy.write(0, bytes)).map_err(boxed)?;
    let mut builder = Database::builder();
    let database = builder.set_check_integrity_on_open(true).create_with_backend(copy).map_err(boxed)?;
    let transaction = database.begin_read().map_err(boxed)?;
    Ok(transaction.list_tables().map_err(boxed)?.any(|table| table.name() == POSITION.name()))
}

/// A new file has a name only once its directory has been synced.
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn failed(action: &str, path: &Path, error: impl Into<redb::Error>) -> Error {
    let path = path.display();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen => {
            Error::unavailable(format!("{path} is in use by another host: stop that one first"))
        }
        redb::Error::Io(error) => Error::unavailable(format!("cannot {action} {path}: {error}")),
        redb::Error::PreviousIo => Error::unavailable(format!(
            "cannot {action} {path}: an earlier write failed, and redb goes on only after it is opened again: restart \
             the registry"
        )),
        redb::Error::Corrupted(reason) => {
            Error::corrupt(format!("{path} is damaged ({reason}): restore it from a backup, or move it away"))
        }
        error => Error::internal(format!("cannot {action} {path}: {error}")),
    }
}
