//! A durable store in PostgreSQL: a schema of its own in any database, on a server that may be replicated.
//!
//! A group of changes is one call of a function in the server: one statement, one transaction, one round trip. So no
//! lock ever waits for the host, however long that is frozen. What happens around it: `server.rs` connects, `schema.rs`
//! makes the tables and the function, and `session.rs` sees to it that one host alone writes.
//!
//! # After a backup was restored
//! A database that is restored on another server, or to a point in time, is noticed, and the host begins a new epoch. One
//! that is put back on the same server with `pg_restore` is not: run `UPDATE registry.store SET epoch = NULL` before a
//! host starts.

use registry_plugin_api::{
    Backend, Capabilities, Change, Cursor, Error, ErrorKind, Event, Group, History, Host, OptionSpec, Options, Outcome,
    Page, Put, Record, Remove, Renew, Result, export_backend,
};
use tokio::sync::Mutex;
use tokio_postgres::Row;

use crate::schema::Schema;
use crate::server::Server;
use crate::session::{Session, Sessions};

mod schema;
mod server;
mod session;

/// A page ends after so many records or events, or after so many bytes of them, whichever comes first.
const PAGE_RECORDS: i64 = 4096;
const PAGE_BYTES: i64 = 8 << 20;
/// PostgreSQL's indexes take keys of up to a third of a page, less what it adds.
const ID_BYTES_MAX: usize = 2600;
/// A value may have 1 GB, and so may all values of a statement together.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// The backend: a schema in a database, and the session that may write to it.
pub struct Postgres {
    server: Server,
    schema: Schema,
    sessions: Mutex<Sessions>,
}

export_backend!(Postgres);

impl Backend for Postgres {
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::text("url", None, "the database: postgres://USER:PASSWORD@HOST[:PORT][,HOST...]/DATABASE").secret(),
        OptionSpec::text("schema", Some("registry"), "the schema in the database; it is made if it is not there"),
        OptionSpec::text("ca", Some(""), "a file with the authorities that sign the server's certificate, as PEM"),
    ];

    fn capabilities(_options: &Options) -> Capabilities {
        Capabilities::NONE.durable().history()
    }

    async fn open(options: Options, _host: Host) -> Result<Self> {
        let server = Server::new(options.text("url"), options.text("ca"))?;
        let schema = Schema::new(options.text("schema"))?;
        let sessions = Mutex::new(Sessions::open(&server, &schema).await?);
        Ok(Postgres { server, schema, sessions })
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        let mut sessions = self.sessions.lock().await;
        let session = sessions.take(&self.server, &self.schema).await?;
        let page = read_page(&session, &self.schema, &after).await;
        sessions.put_back(session, page).map_err(|error| self.server.error("read from", &error))
    }

    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        let statement = Statement::new(&group);
        let mut sessions = self.sessions.lock().await;
        // Whatever becomes of the call, the session goes with it unless it is put back.
        let session = sessions.take(&self.server, &self.schema).await?;
        let found = statement.call(&session, &self.schema, &group).await;
        let found = sessions.put_back(session, found).map_err(|error| self.server.error("write to", &error))?;
        sessions.acknowledged(group.position.revision);
        Ok(statement.outcomes(found))
    }

    async fn history(&self, after: Cursor) -> Result<History> {
        let mut sessions = self.sessions.lock().await;
        let session = sessions.take(&self.server, &self.schema).await?;
        let history = read_history(&session, &self.schema, &after).await;
        sessions.put_back(session, history).map_err(|error| self.server.error("read from", &error))
    }

    /// Gives the lock back. A session that is lost has none.
    async fn close(&self) -> Result<()> {
        self.sessions.lock().await.close().await.map_err(|error| self.server.error("close", &error))
    }
}

type Postgreses<T> = std::result::Result<T, tokio_postgres::Error>;

/// The changes of a group as columns, as the function takes them, without those that are refused.
#[derive(Default)]
struct Statement<'group> {
    kinds: Vec<i16>,
    ids: Vec<&'group [u8]>,
    documents: Vec<Option<&'group str>>,
    types: Vec<Option<String>>,
    ttls_ms: Vec<Option<i64>>,
    heartbeats_ms: Vec<Option<i64>>,
    revisions: Vec<Option<i64>>,
    events: Vec<&'group str>,
    /// For each change of the group, why it is refused; `None` for those that are in the columns.
    refusals: Vec<Option<Error>>,
}

impl<'group> Statement<'group> {
    fn new(group: &'group Group) -> Self {
        let mut statement = Statement::default();
        for change in &group.changes {
            let refusal = refusal(change).or_else(|| statement.push(change));
            statement.refusals.push(refusal);
        }
        statement
    }

    fn push(&mut self, change: &'group Change) -> Option<Error> {
        let mut row = |kind, document, types, ttl_ms, heartbeat_ms: Option<u64>, revision: Option<u64>, event| {
            self.kinds.push(kind);
            self.ids.push(change.id().as_bytes());
            self.documents.push(document);
            self.types.push(types);
            self.ttls_ms.push(ttl_ms);
            self.heartbeats_ms.push(heartbeat_ms.map(u64::cast_signed));
            self.revisions.push(revision.map(u64::cast_signed));
            self.events.push(event);
        };
        match change {
            Change::Put(Put { record, event, .. }) => {
                let Record { document, ttl_ms, last_heartbeat_ms, revision, .. } = record;
                let types = serde_json::Value::from(record.types.as_slice()).to_string();
                let ttl_ms = Some(ttl_ms.cast_signed());
                row(0, Some(document.as_str()), Some(types), ttl_ms, Some(*last_heartbeat_ms), Some(*revision), event);
            }
            Change::Remove(Remove { revision, event, .. }) => row(1, None, None, None, None, Some(*revision), event),
            Change::Renew(Renew { last_heartbeat_ms, .. }) => {
                row(2, None, None, None, Some(*last_heartbeat_ms), None, "");
            }
            _ => {
                return Some(match Outcome::unknown() {
                    Outcome::Refused(error) => error,
                    _ => Error::internal("an unknown change is not refused"),
                });
            }
        }
        None
    }

    /// Makes the changes. For each that is not refused: whether its record was there, or is now.
    async fn call(&self, session: &Session, schema: &Schema, group: &Group) -> Postgreses<Vec<bool>> {
        let commit = session.prepare(&schema.commit()).await?;
        let undone: Vec<i64> = group.undone.iter().map(|revision| revision.cast_signed()).collect();
        let (epoch, revision) = (&group.position.epoch, group.position.revision.cast_signed());
        let row = session
            .client()
            .query_one(
                &commit,
                &[
                    &session.fence(),
                    epoch,
                    &revision,
                    &group.forget_before.cast_signed(),
                    &undone,
                    &self.kinds,
                    &self.ids,
                    &self.documents,
                    &self.types,
                    &self.ttls_ms,
                    &self.heartbeats_ms,
                    &self.revisions,
                    &self.events,
                ],
            )
            .await?;
        row.try_get(0)
    }

    fn outcomes(self, found: Vec<bool>) -> Vec<Outcome> {
        let mut found = found.into_iter().map(Outcome::done_if);
        let outcome = |refusal: Option<Error>| match refusal {
            Some(error) => Outcome::Refused(error),
            None => found.next().unwrap_or(Outcome::Missing),
        };
        self.refusals.into_iter().map(outcome).collect()
    }
}

/// Why PostgreSQL cannot take a change. One of a record that can never have been stored finds nothing.
fn refusal(change: &Change) -> Option<Error> {
    let Change::Put(Put { record, event, .. }) = change else { return None };
    let (id_bytes, text_bytes) = (record.id.len(), record.document.len().max(event.len()));
    let reason = if id_bytes > ID_BYTES_MAX {
        format!("the service's id has {id_bytes} bytes, and PostgreSQL's index takes {ID_BYTES_MAX}")
    } else if text_bytes > TEXT_BYTES_MAX {
        format!("the service has {text_bytes} bytes, expected {TEXT_BYTES_MAX} at most")
    } else if record.document.contains('\0') || event.contains('\0') {
        "the service holds U+0000, which PostgreSQL's text cannot".to_string()
    } else {
        return None;
    };
    Some(Error::new(ErrorKind::Unsupported, reason))
}

async fn read_page(session: &Session, schema: &Schema, after: &Cursor) -> Postgreses<Page> {
    let position = session.position(schema).await?;
    let select = session.prepare(&schema.select_page()).await?;
    let rows = session.client().query(&select, &[&after.as_str().as_bytes(), &PAGE_RECORDS, &PAGE_BYTES]).await?;
    let records = rows.iter().map(read_record).collect::<Postgreses<Vec<_>>>()?;
    let next = records.last().map(|record| Cursor::after(&record.id));
    let page = Page::new(position).with_records(records);
    // Where there are no more records, no page follows.
    Ok(match next {
        Some(next) => page.with_next(next),
        None => page,
    })
}

fn read_record(row: &Row) -> Postgreses<Record> {
    let mut record = Record::new(row.try_get::<_, schema::Text>(0)?.0, row.try_get::<_, String>(1)?);
    record.types = row.try_get::<_, schema::Types>(2)?.0;
    record.ttl_ms = row.try_get::<_, i64>(3)?.cast_unsigned();
    record.last_heartbeat_ms = row.try_get::<_, i64>(4)?.cast_unsigned();
    record.revision = row.try_get::<_, i64>(5)?.cast_unsigned();
    Ok(record)
}

async fn read_history(session: &Session, schema: &Schema, after: &Cursor) -> Postgreses<History> {
    let complete_after = session.events_after(schema).await?;
    let after = after.as_str().parse().unwrap_or(complete_after.cast_signed());
    let select = session.prepare(&schema.select_events()).await?;
    let rows = session.client().query(&select, &[&after, &PAGE_RECORDS, &PAGE_BYTES]).await?;
    let event = |row: &Row| Ok(Event::new(row.try_get::<_, i64>(0)?.cast_unsigned(), row.try_get::<_, String>(1)?));
    let events = rows.iter().map(event).collect::<Postgreses<Vec<_>>>()?;
    let next = events.last().map(|event| Cursor::after(event.revision.to_string()));
    let history = History::new(complete_after).with_events(events);
    Ok(match next {
        Some(next) => history.with_next(next),
        None => history,
    })
}
