//! A durable store in one SQLite file.
//!
//! A group of changes is one transaction, and a commit that returns has been synced to the disk. The file belongs to
//! one host at a time and is locked for as long as it is open: the [`Backend`] here never meets another writer.
//!
//! The other files see to it that this one meets a sound database: `file.rs` finds and claims the file, `schema.rs`
//! tells whose it is and makes the tables, `upgrade.rs` brings up to date what an earlier version has written, and
//! `takeover.rs` brings in what the Python registry stored. `events.rs` keeps the recent changes.
//!
//! # Versions
//! The tables have a version of their own, in `PRAGMA user_version`. All since 1 are opened: an older one is upgraded in
//! one transaction, after a copy of the file as it was has been put beside it (`service_registry.db.schema-1`). A newer one
//! is refused by a line that names the registry that has made it.
//!
//! # After a backup was restored
//! A copy of the file is a store like any other, and knows nothing of what was committed after it was made. If you put
//! one in place of the file, run `sqlite3 service_registry.db "DELETE FROM position"` before a host starts: it then
//! begins a new epoch, and clients list everything again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use registry_plugin_api::{
    Backend, Capabilities, Change, Cursor, Error, ErrorKind, Group, History, Host, OptionSpec, Options, Outcome, Page,
    Position, Put, Record, Remove, Renew, Result, export_backend,
};
use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, TransactionBehavior};

use crate::file::DatabaseFile;

mod events;
mod file;
mod schema;
mod takeover;
mod upgrade;

/// A page ends after so many records, or after so many bytes of them, whichever comes first.
const PAGE_RECORDS: usize = 4096;
const PAGE_BYTES: usize = 8 << 20;

/// In the order of the ids, so that the last id of a page says where the next one begins.
const SELECT_PAGE: &str =
    "SELECT id, document, types, ttl_ms, last_heartbeat_ms, revision FROM services WHERE id > ?1 ORDER BY id";

/// The backend: an open database.
pub struct Sqlite {
    /// SQLite wants one caller at a time. Before `file`, so that it is closed before the file is free to be opened
    /// again.
    connection: Mutex<Connection>,
    file: DatabaseFile,
}

export_backend!(Sqlite);

impl Backend for Sqlite {
    const OPTIONS: &'static [OptionSpec] = &[OptionSpec::text(
        "path",
        Some("service_registry.db"),
        "the database file, relative to the directory the host runs in",
    )];

    fn capabilities(_options: &Options) -> Capabilities {
        Capabilities::NONE.durable().history()
    }

    async fn open(options: Options, _host: Host) -> Result<Self> {
        let file = DatabaseFile::claim(options.text("path"))?;
        let connection = schema::open(&file)?;
        Ok(Sqlite { connection: Mutex::new(connection), file })
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        read_page(&self.connection(), &after).map_err(|error| self.file.error("read", error))
    }

    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        self.file.check_in_place()?;
        let mut connection = self.connection();
        let applied = match apply_group(&mut connection, &group) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                // The log has room of its own: it begins anew once all of it is in the database.
                start_log_anew(&connection).and_then(|()| apply_group(&mut connection, &group))
            }
            applied => applied,
        };
        applied.map_err(|error| self.file.error("write", error))
    }

    async fn history(&self, after: Cursor) -> Result<History> {
        events::read_page(&self.connection(), &after).map_err(|error| self.file.error("read", error))
    }

    /// Moves what is in the log to the database, so that one file holds everything while no host runs.
    async fn close(&self) -> Result<()> {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.connection().query_row(checkpoint, [], |_| Ok(())).map_err(|error| self.file.error("close", error))
    }
}

impl Sqlite {
    /// A panic in the middle of a transaction has rolled it back: the connection is as good as before.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves what is in the log to the database, so that the next group is written to the log's beginning.
fn start_log_anew(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
}

/// All changes, the events and the position in one transaction, which is rolled back where anything fails.
fn apply_group(connection: &mut Connection, group: &Group) -> rusqlite::Result<Vec<Outcome>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before = position(&transaction)?;
    events::forget(&transaction, &group.undone)?;
    let mut outcomes = Vec::with_capacity(group.changes.len());
    for change in &group.changes {
        outcomes.push(match apply(&transaction, change) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => {
                let refusal = "the service is too large for SQLite, which takes up to 1 GB";
                Outcome::Refused(Error::new(ErrorKind::Unsupported, refusal))
            }
            applied => applied?,
        });
    }
    set_position(&transaction, &group.position)?;
    match before {
        Some(before) if before.epoch == group.position.epoch => {
            events::forget_before(&transaction, group.forget_before)?;
        }
        _ => events::begin(&transaction, group.position.revision)?,
    }
    transaction.commit()?;
    Ok(outcomes)
}

/// One change with its event. One that is too large has done nothing.
fn apply(connection: &Connection, change: &Change) -> rusqlite::Result<Outcome> {
    let found = match change {
        Change::Put(Put { record, event, .. }) => {
            events::keep(connection, record.revision, event)?;
            put(connection, record).or_else(|error| {
                events::forget(connection, &[record.revision])?;
                Err(error)
            })?
        }
        Change::Remove(Remove { id, revision, event, .. }) => {
            events::keep(connection, *revision, event)?;
            connection.prepare_cached("DELETE FROM services WHERE id = ?1")?.execute([id])?
        }
        Change::Renew(Renew { id, last_heartbeat_ms, .. }) => {
            let mut renew = connection.prepare_cached("UPDATE services SET last_heartbeat_ms = ?2 WHERE id = ?1")?;
            renew.execute((id, last_heartbeat_ms.cast_signed()))?
        }
        _ => return Ok(Outcome::unknown()),
    };
    Ok(Outcome::done_if(found > 0))
}

/// Stores the record and returns the number of rows, which is 1. SQLite's integers are signed: a `u64` is stored as
/// the same 64 bits.
fn put(connection: &Connection, record: &Record) -> rusqlite::Result<usize> {
    let mut put = connection.prepare_cached(
        "INSERT INTO services (id, document, types, ttl_ms, last_heartbeat_ms, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET document = excluded.document, types = excluded.types, ttl_ms = excluded.ttl_ms,
             last_heartbeat_ms = excluded.last_heartbeat_ms, revision = excluded.revision",
    )?;
    put.execute((
        &record.id,
        &record.document,
        serde_json::Value::from(record.types.as_slice()).to_string(),
        record.ttl_ms.cast_signed(),
        record.last_heartbeat_ms.cast_signed(),
        record.revision.cast_signed(),
    ))
}

/// The position, unless the file is new or somebody has removed it.
fn position(connection: &Connection) -> rusqlite::Result<Option<Position>> {
    let mut select = connection.prepare_cached("SELECT epoch, revision FROM position")?;
    let read = |row: &Row| Ok(Position::new(row.get::<_, String>(0)?, row.get::<_, i64>(1)?.cast_unsigned()));
    select.query_row([], read).optional()
}

fn set_position(connection: &Connection, position: &Position) -> rusqlite::Result<()> {
    let mut set = connection.prepare_cached(
        "INSERT INTO position (one, epoch, revision, events_after) VALUES (1, ?1, ?2, ?2)
         ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, revision = excluded.revision",
    )?;
    set.execute((&position.epoch, position.revision.cast_signed()))?;
    Ok(())
}

fn read_page(connection: &Connection, after: &Cursor) -> rusqlite::Result<Page> {
    let page = Page::new(position(connection)?);
    let mut select = connection.prepare_cached(SELECT_PAGE)?;
    let mut rows = select.query([after.as_str()])?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let record = read_record(row)?;
        bytes += record.document.len();
        records.push(record);
        if records.len() == PAGE_RECORDS || bytes >= PAGE_BYTES {
            let next = records.last().map(|record| Cursor::after(&record.id)).unwrap_or_default();
            return Ok(page.with_records(records).with_next(next));
        }
    }
    Ok(page.with_records(records))
}

fn read_record(row: &Row) -> rusqlite::Result<Record> {
    let mut record = Record::new(row.get::<_, String>(0)?, row.get::<_, String>(1)?);
    let types: String = row.get(2)?;
    record.types = serde_json::from_str(&types)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, Type::Text, Box::new(error)))?;
    record.ttl_ms = row.get::<_, i64>(3)?.cast_unsigned();
    record.last_heartbeat_ms = row.get::<_, i64>(4)?.cast_unsigned();
    record.revision = row.get::<_, i64>(5)?.cast_unsigned();
    Ok(record)
}

#[cfg(test)]
mod tests {
    //! What needs a hand on the connection. All else is in `tests/`.

    use rusqlite::limits::Limit;

    use super::*;

    fn put_of(id: &str, document_bytes: usize, event: &str) -> Change {
        let mut record = Record::new(id, "x".repeat(document_bytes));
        record.revision = u64::from(id.as_bytes()[0]);
        Put::new(record).with_event(event).into()
    }

    fn group(revision: u64, changes: &[Change]) -> Group {
        Group::new(Position::new("epoch", revision), changes.to_vec())
    }

    fn open() -> (tempfile::TempDir, DatabaseFile, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services.db");
        let file = DatabaseFile::claim(path.to_str().unwrap()).unwrap();
        let connection = schema::open(&file).unwrap();
        (directory, file, connection)
    }

    fn ids(connection: &Connection) -> Vec<String> {
        let page = read_page(connection, &Cursor::start()).unwrap();
        page.records.into_iter().map(|record| record.id).collect()
    }

    #[test]
    fn a_full_disk_leaves_nothing_of_the_group_and_the_next_one_works_once_there_is_room() {
        let (_directory, file, mut connection) = open();
        apply_group(&mut connection, &group(1, &[put_of("before", 10, "")])).unwrap();
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        let limit_pages = |pages| {
            connection.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0)).unwrap();
        };
        limit_pages(pages + 2);
        let group = group(2, &[put_of("small", 10, "small"), put_of("large", 1 << 20, "large")]);
        let error = file.error("write", apply_group(&mut connection, &group).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().ends_with("services.db: the disk is full"), "{error}");
        assert_eq!(ids(&connection), ["before"]);
        assert_eq!(position(&connection).unwrap(), Some(Position::new("epoch", 1)));
        assert_eq!(events::read_page(&connection, &Cursor::start()).unwrap().events, []);

        connection.pragma_update_and_check(None, "max_page_count", 1 << 20, |_| Ok(())).unwrap();
        let outcomes = apply_group(&mut connection, &group).unwrap();
        assert_eq!(outcomes, [Outcome::Done, Outcome::Done]);
        assert_eq!(ids(&connection), ["before", "large", "small"]);
    }

    #[test]
    fn a_service_that_is_too_large_is_refused_alone() {
        let (_directory, _file, mut connection) = open();
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, 10_000).unwrap();
        apply_group(&mut connection, &group(1, &[])).unwrap();
        let large_event = "x".repeat(20_000);
        let changes = [
            put_of("a", 10, "a"),
            put_of("large", 20_000, "large"),
            put_of("row", 9_999, "row"),
            put_of("event", 10, &large_event),
            put_of("b", 10, "b"),
        ];
        let outcomes = apply_group(&mut connection, &group(200, &changes)).unwrap();
        let is_refused =
            |outcome: &Outcome| matches!(outcome, Outcome::Refused(error) if error.kind() == ErrorKind::Unsupported);
        assert!(outcomes[1..4].iter().all(is_refused), "{outcomes:?}");
        assert_eq!((&outcomes[0], &outcomes[4]), (&Outcome::Done, &Outcome::Done));
        let kept = events::read_page(&connection, &Cursor::start()).unwrap().events;
        assert_eq!(kept.iter().map(|event| event.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(ids(&connection), ["a", "b"]);
    }

    #[test]
    fn every_commit_is_synced_to_a_log_that_is_locked() {
        let (_directory, _file, connection) = open();
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
        assert_eq!(pragma("journal_mode").unwrap(), "wal".to_string().into());
        assert_eq!(pragma("synchronous").unwrap(), 2.into());
        assert_eq!(pragma("locking_mode").unwrap(), "exclusive".to_string().into());
    }
}
