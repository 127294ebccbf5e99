//! A durable store in one SQLite file.
//!
//! A group of changes is one transaction, and a commit that returns has been synced to the disk. The file belongs to
//! one host at a time and is locked for as long as it is open: the [`Backend`] here never meets another writer.
//!
//! The other files see to it that this one meets a sound database: `file.rs` finds and claims the file, `schema.rs`
//! tells whose it is and makes the tables, `takeover.rs` brings in what the Python registry stored.

use std::sync::{Mutex, MutexGuard, PoisonError};

use registry_plugin_api::{
    Backend, Capabilities, Change, Cursor, Error, ErrorKind, Host, OptionSpec, Options, Outcome, Page, Record, Result,
    export_backend,
};
use rusqlite::types::Type;
use rusqlite::{Connection, ErrorCode, Row, TransactionBehavior};

use crate::file::DatabaseFile;

mod file;
mod schema;
mod takeover;

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
    const CAPABILITIES: Capabilities = Capabilities::NONE.durable();

    const OPTIONS: &'static [OptionSpec] = &[OptionSpec::text(
        "path",
        Some("service_registry.db"),
        "the database file, relative to the directory the host runs in",
    )];

    async fn open(options: Options, _host: Host) -> Result<Self> {
        let file = DatabaseFile::claim(options.text("path"))?;
        let connection = schema::open(&file)?;
        Ok(Sqlite { connection: Mutex::new(connection), file })
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        read_page(&self.connection(), &after).map_err(|error| self.file.error("read", error))
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Vec<Outcome>> {
        self.file.check_in_place()?;
        apply_group(&mut self.connection(), &changes).map_err(|error| self.file.error("write", error))
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

/// All changes in one transaction, which is rolled back where anything fails.
fn apply_group(connection: &mut Connection, changes: &[Change]) -> rusqlite::Result<Vec<Outcome>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (_, before) = history(&transaction)?;
    let mut revision = before;
    let mut outcomes = Vec::with_capacity(changes.len());
    for change in changes {
        let outcome = match apply(&transaction, change, revision) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::TooBig) => {
                let refusal = "the service is too large for SQLite, which takes up to 1 GB";
                Outcome::Refused(Error::new(ErrorKind::Unsupported, refusal))
            }
            applied => applied?,
        };
        if let Outcome::Done { revision: after } = outcome {
            revision = after;
        }
        outcomes.push(outcome);
    }
    if revision != before {
        set_revision(&transaction, revision)?;
    }
    transaction.commit()?;
    Ok(outcomes)
}

/// One change, where `revision` is the store's so far.
fn apply(connection: &Connection, change: &Change, revision: u64) -> rusqlite::Result<Outcome> {
    let (found, revision) = match change {
        // `unique` is for stores that others write to as well.
        Change::Put { record, unique: _ } => (put(connection, record, revision + 1)?, revision + 1),
        Change::Remove { id, reason: _ } => {
            let mut delete = connection.prepare_cached("DELETE FROM services WHERE id = ?1")?;
            (delete.execute([id])?, revision + 1)
        }
        Change::Renew { id, last_heartbeat_ms } => {
            let mut renew = connection.prepare_cached("UPDATE services SET last_heartbeat_ms = ?2 WHERE id = ?1")?;
            (renew.execute((id, last_heartbeat_ms.cast_signed()))?, revision)
        }
    };
    Ok(if found == 0 { Outcome::Missing } else { Outcome::Done { revision } })
}

/// Stores the record and returns the number of rows, which is 1. SQLite's integers are signed: a `u64` is stored as
/// the same 64 bits.
fn put(connection: &Connection, record: &Record, revision: u64) -> rusqlite::Result<usize> {
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
        revision.cast_signed(),
    ))
}

/// The epoch and the revision.
fn history(connection: &Connection) -> rusqlite::Result<(String, u64)> {
    connection
        .prepare_cached("SELECT epoch, revision FROM history")?
        .query_row([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))
}

fn set_revision(connection: &Connection, revision: u64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE history SET revision = ?1")?.execute([revision.cast_signed()])?;
    Ok(())
}

fn read_page(connection: &Connection, after: &Cursor) -> rusqlite::Result<Page> {
    let (epoch, revision) = history(connection)?;
    let page = Page::new(epoch, revision);
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

    fn put_of(id: &str, document_bytes: usize) -> Change {
        Change::Put { record: Record::new(id, "x".repeat(document_bytes)), unique: None }
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
        apply_group(&mut connection, &[put_of("before", 10)]).unwrap();
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        let limit_pages = |pages| {
            connection.pragma_update_and_check(None, "max_page_count", pages, |row| row.get::<_, i64>(0)).unwrap();
        };
        limit_pages(pages + 2);
        let group = [put_of("small", 10), put_of("large", 1 << 20)];
        let error = file.error("write", apply_group(&mut connection, &group).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().ends_with("services.db: the disk is full"), "{error}");
        assert_eq!(ids(&connection), ["before"]);
        assert_eq!(history(&connection).unwrap().1, 1);

        connection.pragma_update_and_check(None, "max_page_count", 1 << 20, |_| Ok(())).unwrap();
        let outcomes = apply_group(&mut connection, &group).unwrap();
        assert_eq!(outcomes, [Outcome::Done { revision: 2 }, Outcome::Done { revision: 3 }]);
        assert_eq!(ids(&connection), ["before", "large", "small"]);
    }

    #[test]
    fn a_service_that_is_too_large_is_refused_alone() {
        let (_directory, _file, mut connection) = open();
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, 10_000).unwrap();
        let group = [put_of("a", 10), put_of("large", 20_000), put_of("row", 9_999), put_of("b", 10)];
        let outcomes = apply_group(&mut connection, &group).unwrap();
        assert_eq!(outcomes[0], Outcome::Done { revision: 1 });
        let is_refused =
            |outcome: &Outcome| matches!(outcome, Outcome::Refused(error) if error.kind() == ErrorKind::Unsupported);
        assert!(outcomes[1..3].iter().all(is_refused), "{outcomes:?}");
        assert_eq!(outcomes[3], Outcome::Done { revision: 2 });
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
