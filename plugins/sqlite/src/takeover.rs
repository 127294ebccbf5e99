//! Taking over the database of the Python registry (`cgse-core`), so that a host that replaces it knows its services.
//!
//! Its table is read once, inside the transaction that makes ours, and stays in the file under another name: nothing
//! that somebody may want back is deleted.

use registry_plugin_api::Record;
use rusqlite::types::Value as Column;
use rusqlite::{Connection, Row, Transaction};
use serde_json::{Map, Number, Value, json};

use crate::file::DatabaseFile;
use crate::schema::create_tables;

/// What the Python registry calls its only table, and what it is called afterwards.
pub(crate) const TABLE: &str = "services";
const KEPT_TABLE: &str = "services_cgse";

/// The columns of that table: name, type, `NOT NULL`, part of the primary key.
const COLUMNS: [(&str, &str, bool, bool); 8] = [
    ("id", "TEXT", false, true),
    ("name", "TEXT", true, false),
    ("host", "TEXT", true, false),
    ("port", "INTEGER", true, false),
    ("metadata", "TEXT", false, false),
    ("ttl", "INTEGER", true, false),
    ("last_heartbeat", "INTEGER", true, false),
    ("tags", "TEXT", false, false),
];

/// Whether the table is the Python registry's, and not just one of the same name.
pub(crate) fn has_columns(connection: &Connection) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare("SELECT name, type, \"notnull\", pk > 0 FROM pragma_table_info(?1)")?;
    let columns = statement
        .query_map([TABLE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<Vec<(String, String, bool, bool)>>>()?;
    let expected = COLUMNS.map(|(name, kind, not_null, key)| (name.to_string(), kind.to_string(), not_null, key));
    Ok(columns == expected)
}

/// Makes the registry's tables and fills them with the Python registry's services.
pub(crate) fn take_over(file: &DatabaseFile, transaction: &Transaction) -> rusqlite::Result<()> {
    transaction.execute_batch(&format!("ALTER TABLE {TABLE} RENAME TO {KEPT_TABLE}"))?;
    create_tables(transaction)?;
    let (mut taken, mut skipped) = (0, 0);
    let mut statement = transaction.prepare(&format!("SELECT * FROM {KEPT_TABLE} ORDER BY rowid"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        match read_row(row) {
            Ok(mut record) => {
                taken += 1;
                record.revision = taken;
                crate::put(transaction, &record)?;
            }
            Err(reason) => {
                skipped += 1;
                let id = shown_id(row);
                tracing::warn!(file = file.name(), id, reason, "skipped a service of the Python registry");
            }
        }
    }
    let kept_as = KEPT_TABLE;
    tracing::info!(file = file.name(), taken, skipped, kept_as, "took over the services of the Python registry");
    Ok(())
}

/// The id of a row that may have none.
fn shown_id(row: &Row) -> String {
    match column(row, "id") {
        Ok(Column::Text(id)) => id,
        Ok(other) => other.data_type().to_string(),
        Err(reason) => reason,
    }
}

/// One row as the host would store it, or why it is none.
fn read_row(row: &Row) -> Result<Record, String> {
    let id = text(row, "id")?.filter(|id| !id.is_empty()).ok_or("id is empty, expected text")?;
    let name = text(row, "name")?.ok_or("name is null, expected text")?;
    let host = text(row, "host")?.ok_or("host is null, expected text")?;
    let port = port(row)?;
    let metadata = metadata(row)?;
    let mut tags = tags(row)?;
    let (ttl, ttl_ms) = ttl(row)?;
    let last_heartbeat_ms = last_heartbeat_ms(row)?;

    let service_type = metadata.get("type").and_then(Value::as_str).filter(|word| !word.is_empty());
    if let Some(word) = service_type
        && !tags.iter().any(|tag| tag == word)
    {
        tags.push(word.to_string());
    }
    let document = json!({
        "id": id, "name": name, "host": host, "port": port,
        "type": service_type, "tags": tags, "metadata": metadata, "ttl": ttl,
    });
    let mut record = Record::new(id, document.to_string());
    record.types = without_repetition(tags);
    record.ttl_ms = ttl_ms;
    record.last_heartbeat_ms = last_heartbeat_ms;
    Ok(record)
}

fn port(row: &Row) -> Result<u16, String> {
    match column(row, "port")? {
        Column::Integer(port) => {
            u16::try_from(port).map_err(|_| format!("port is {port}, expected a number from 0 to 65535"))
        }
        other => Err(unexpected("port", &other, "a whole number")),
    }
}

/// The time to live, in seconds as it was written and in milliseconds.
fn ttl(row: &Row) -> Result<(Number, u64), String> {
    let (ttl, ttl_ms) = match column(row, "ttl")? {
        Column::Integer(seconds) => (Number::from(seconds), u64::try_from(seconds).ok().and_then(to_ms)),
        Column::Real(seconds) if seconds.is_finite() => {
            let ttl_ms = (seconds * 1000.0).round();
            // Beyond 2^53 a float has no whole milliseconds any more.
            let in_range = (1.0..9_007_199_254_740_992.0).contains(&ttl_ms);
            (Number::from_f64(seconds).ok_or("ttl is no number")?, in_range.then_some(ttl_ms as u64))
        }
        other => return Err(unexpected("ttl", &other, "seconds")),
    };
    match ttl_ms {
        Some(ttl_ms) if ttl_ms > 0 => Ok((ttl, ttl_ms)),
        _ => Err(format!("ttl is {ttl}, expected a positive number of seconds")),
    }
}

fn last_heartbeat_ms(row: &Row) -> Result<u64, String> {
    match column(row, "last_heartbeat")? {
        Column::Integer(seconds) => u64::try_from(seconds)
            .ok()
            .and_then(to_ms)
            .ok_or_else(|| format!("last_heartbeat is {seconds}, expected seconds since 1970")),
        other => Err(unexpected("last_heartbeat", &other, "whole seconds since 1970")),
    }
}

fn to_ms(seconds: u64) -> Option<u64> {
    seconds.checked_mul(1000).filter(|ms| i64::try_from(*ms).is_ok())
}

/// As the Python registry reads it: null and empty text stand for nothing.
fn metadata(row: &Row) -> Result<Map<String, Value>, String> {
    match text(row, "metadata")? {
        Some(metadata) if !metadata.is_empty() => {
            serde_json::from_str(&metadata).map_err(|error| format!("metadata is no JSON object: {error}"))
        }
        _ => Ok(Map::new()),
    }
}

fn tags(row: &Row) -> Result<Vec<String>, String> {
    match text(row, "tags")? {
        Some(tags) if !tags.is_empty() => {
            serde_json::from_str(&tags).map_err(|error| format!("tags is no JSON array of strings: {error}"))
        }
        _ => Ok(Vec::new()),
    }
}

fn text(row: &Row, name: &str) -> Result<Option<String>, String> {
    match column(row, name)? {
        Column::Text(text) => Ok(Some(text)),
        Column::Null => Ok(None),
        other => Err(unexpected(name, &other, "text")),
    }
}

/// The value of a column, whatever its type: SQLite lets any column of an old table hold anything.
fn column(row: &Row, name: &str) -> Result<Column, String> {
    row.get(name).map_err(|error| format!("{name} cannot be read: {error}"))
}

fn unexpected(name: &str, found: &Column, expected: &str) -> String {
    format!("{name} is {}, expected {expected}", found.data_type())
}

fn without_repetition(tags: Vec<String>) -> Vec<String> {
    let mut types: Vec<String> = Vec::with_capacity(tags.len());
    for tag in tags {
        if !types.contains(&tag) {
            types.push(tag);
        }
    }
    types
}
