//! Opening the database: taking its lock, telling whose it is, and making what is in it.
//!
//! Either the file is a registry's of this version when that ends, or it is as it was: a file that is refused keeps every
//! byte, and so do its `-wal` and `-shm`. What an earlier version has written is brought up to date in
//! [`upgrade`](crate::upgrade).

use std::time::Duration;

use registry_plugin_api::{Cursor, Error, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::file::DatabaseFile;
use crate::{takeover, upgrade};

/// What marks a database as a registry's, in SQLite's header: "SReg".
pub(crate) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"SReg");

/// The version of the tables. A file with a greater one is refused, one with a smaller one is upgraded.
pub(crate) const SCHEMA_VERSION: i32 = 3;

/// A service is a row with a rowid, not a `WITHOUT ROWID` one: those are for rows much smaller than a page, and a
/// document may be larger than one.
const SERVICES: &str = "
    CREATE TABLE services (
        id TEXT NOT NULL PRIMARY KEY,
        document TEXT NOT NULL,
        types TEXT NOT NULL,
        ttl_ms INTEGER NOT NULL,
        last_heartbeat_ms INTEGER NOT NULL,
        revision INTEGER NOT NULL
    ) STRICT;
";

/// The position has no row in a new store. `events_after` is the revision after which the events are complete.
pub(crate) const POSITION: &str = "
    CREATE TABLE position (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch TEXT NOT NULL,
        revision INTEGER NOT NULL,
        events_after INTEGER NOT NULL
    ) STRICT;
";

pub(crate) const EVENTS: &str = "
    CREATE TABLE events (
        revision INTEGER PRIMARY KEY,
        text TEXT NOT NULL
    ) STRICT;
";

/// Which registry has made the database one of this schema version, and of those that it was before. It stays as it is in
/// all later versions: a registry that cannot read such a file says who can.
pub(crate) const VERSIONS: &str = "
    CREATE TABLE versions (
        schema INTEGER PRIMARY KEY,
        registry TEXT NOT NULL
    ) STRICT;
";

/// Opens the database, alone, and makes it a registry's if it is new, an earlier registry's or the Python registry's.
pub(crate) fn open(file: &DatabaseFile) -> Result<Connection> {
    open_by(file, connect(file).map_err(|error| file.error("open", error))?)
}

fn open_by(file: &DatabaseFile, mut connection: Connection) -> Result<Connection> {
    let failed = |error| file.error("open", error);
    if connection.is_readonly("main").map_err(failed)? {
        let name = file.name();
        return Err(Error::unavailable(format!(
            "{name} cannot be written, expected a file that the registry may write"
        )));
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive).map_err(failed)?;
    let older = settle(file, &transaction)?;
    transaction.commit().map_err(failed)?;
    if let Some(older) = older {
        upgrade::run(file, &mut connection, older)?;
    }
    let journal_mode = start_log(&connection).map_err(failed)?;
    if journal_mode != "wal" {
        let name = file.name();
        return Err(Error::internal(format!("{name} has the journal mode {journal_mode}, expected wal")));
    }
    let services = count(&connection).map_err(failed)?;
    tracing::info!(file = file.name(), schema_version = SCHEMA_VERSION, services, journal_mode, "opened the database");
    Ok(connection)
}

/// A connection that has not read anything yet. It takes the lock with the first transaction and keeps it until it is
/// closed or the process dies, and no other process can so much as read. It needs no `-shm` file for that.
fn connect(file: &DatabaseFile) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // A log that is there must survive if the file is refused. One that is not there is made when the database is
    // read, and closing removes it again.
    let keep_log = file.has_log();
    let connection = Connection::open_with_flags(file.path(), flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep_log)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Turns to the write-ahead log, where a commit is one write and one sync. Returns the mode that SQLite is in now.
fn start_log(connection: &Connection) -> rusqlite::Result<String> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
}

/// Whose database it is.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    /// Nobody's: it is empty.
    New,
    /// A registry's, with this schema version.
    Registry(i32),
    /// The Python registry's.
    Cgse,
    /// Another program's. Holds what speaks for that.
    Foreign(String),
}

/// What has to be upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Older {
    /// A registry's, with this schema version.
    Registry(i32),
    /// The Python registry's.
    Cgse,
}

/// Makes a new database a registry's, or says what it is, or refuses it. One that is to be upgraded is as it was.
fn settle(file: &DatabaseFile, transaction: &Transaction) -> Result<Option<Older>> {
    let failed = |error| file.error("open", error);
    let name = file.name();
    match identify(transaction).map_err(failed)? {
        Origin::New => create_tables(transaction).map_err(failed)?,
        Origin::Cgse => {
            check_pages(file, transaction)?;
            return Ok(Some(Older::Cgse));
        }
        Origin::Registry(SCHEMA_VERSION) => {
            check_pages(file, transaction)?;
            check_tables(file, transaction)?;
        }
        Origin::Registry(version) if version > SCHEMA_VERSION => {
            return Err(upgrade::too_new(file, transaction, version));
        }
        Origin::Registry(version @ 1..) => {
            check_pages(file, transaction)?;
            return Ok(Some(Older::Registry(version)));
        }
        Origin::Registry(version) => {
            return Err(file.damaged(&format!("schema version {version}, expected 1 to {SCHEMA_VERSION}")));
        }
        Origin::Foreign(signs) => {
            return Err(Error::corrupt(format!(
                "{name} belongs to another program ({signs}), expected a registry's database: name another file"
            )));
        }
    }
    Ok(None)
}

fn identify(connection: &Connection) -> rusqlite::Result<Origin> {
    let application_id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let user_version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if application_id == APPLICATION_ID {
        return Ok(Origin::Registry(user_version));
    }
    let mut statement = connection
        .prepare(r"SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name")?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    if application_id == 0 && user_version == 0 {
        if names.is_empty() {
            return Ok(Origin::New);
        }
        if names == [takeover::TABLE] && takeover::has_columns(connection)? {
            return Ok(Origin::Cgse);
        }
    }
    Ok(Origin::Foreign(signs(application_id, user_version, &names)))
}

/// What an operator may know a foreign database by, in a few words.
fn signs(application_id: i32, user_version: i32, names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect();
    if names.len() > SHOWN {
        shown.push(format!("{} more", names.len() - SHOWN));
    }
    let contents = if shown.is_empty() { "nothing".to_string() } else { shown.join(", ") };
    format!("application id {application_id:#x}, version {user_version}, it holds {contents}")
}

/// Makes the tables of a new store.
pub(crate) fn create_tables(transaction: &Transaction) -> rusqlite::Result<()> {
    for table in [SERVICES, POSITION, EVENTS, VERSIONS] {
        transaction.execute_batch(table)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    upgrade::note_version(transaction)
}

/// Looks at every page. It costs about what loading costs, once, and finds damage before anything is written on top.
fn check_pages(file: &DatabaseFile, connection: &Connection) -> Result<()> {
    let found: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| file.error("check", error))?;
    match found.lines().last() {
        Some("ok") => Ok(()),
        reason => Err(file.damaged(reason.unwrap_or_default())),
    }
}

/// A registry's database has the registry's tables.
pub(crate) fn check_tables(file: &DatabaseFile, connection: &Connection) -> Result<()> {
    let check = || -> rusqlite::Result<()> {
        connection.prepare(crate::SELECT_PAGE)?;
        crate::position(connection)?;
        crate::events::read_page(connection, &Cursor::start())?;
        connection.prepare("SELECT schema, registry FROM versions")?;
        Ok(())
    };
    check().map_err(|error| file.unavailable_or_damaged("check", error))
}

fn count(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM services", [], |row| row.get(0))
}
