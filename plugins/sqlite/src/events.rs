//! The recent changes: the host's text of each, by revision, written and forgotten in the transaction of its group.

use registry_plugin_api::{Cursor, Event, History};
use rusqlite::Connection;

use crate::{PAGE_BYTES, PAGE_RECORDS};

/// How many events a group forgets at most: more than it brings, so that few are left over, and few enough not to hold
/// the group up.
const FORGOTTEN_MAX: i64 = 4096;

const SELECT_PAGE: &str = "SELECT revision, text FROM events WHERE revision > ?1 ORDER BY revision";

/// Keeps an event, if there is something to keep.
pub(crate) fn keep(connection: &Connection, revision: u64, text: &str) -> rusqlite::Result<()> {
    if !text.is_empty() {
        let mut keep = connection.prepare_cached("INSERT OR REPLACE INTO events (revision, text) VALUES (?1, ?2)")?;
        keep.execute((revision.cast_signed(), text))?;
    }
    Ok(())
}

/// Forgets the events of changes that are not in the store.
pub(crate) fn forget(connection: &Connection, revisions: &[u64]) -> rusqlite::Result<()> {
    let mut forget = connection.prepare_cached("DELETE FROM events WHERE revision = ?1")?;
    for revision in revisions {
        forget.execute([revision.cast_signed()])?;
    }
    Ok(())
}

/// Lets the events count from that revision on, and forgets the oldest of those before it.
pub(crate) fn forget_before(connection: &Connection, revision: u64) -> rusqlite::Result<()> {
    let revision = revision.cast_signed();
    let mut count =
        connection.prepare_cached("UPDATE position SET events_after = ?1 - 1 WHERE events_after < ?1 - 1")?;
    count.execute([revision])?;
    let mut forget = connection.prepare_cached(
        "DELETE FROM events
         WHERE revision IN (SELECT revision FROM events WHERE revision < ?1 ORDER BY revision LIMIT ?2)",
    )?;
    forget.execute((revision, FORGOTTEN_MAX))?;
    Ok(())
}

/// Begins a history that is complete after that revision.
pub(crate) fn begin(connection: &Connection, revision: u64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM events", [])?;
    connection.execute("UPDATE position SET events_after = ?1", [revision.cast_signed()])?;
    Ok(())
}

/// A page of events, after the revision that the cursor holds.
pub(crate) fn read_page(connection: &Connection, after: &Cursor) -> rusqlite::Result<History> {
    let complete_after: i64 =
        connection.query_row("SELECT coalesce(max(events_after), 0) FROM position", [], |row| row.get(0))?;
    let history = History::new(complete_after.cast_unsigned());
    let mut select = connection.prepare_cached(SELECT_PAGE)?;
    let mut rows = select.query([after.as_str().parse().unwrap_or(complete_after)])?;
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let event = Event::new(row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, String>(1)?);
        let revision = event.revision;
        bytes += event.text.len();
        events.push(event);
        if events.len() == PAGE_RECORDS || bytes >= PAGE_BYTES {
            return Ok(history.with_events(events).with_next(Cursor::after(revision.to_string())));
        }
    }
    Ok(history.with_events(events))
}
