//! Sessions: one at a time may write, and what an earlier one has left on its way never lands.
//!
//! - A session holds an advisory lock, which the server frees when the session ends. A second host is refused by it.
//! - Each session has a number, the fence, and each commit compares it in its own transaction. Whoever takes the next
//!   number waits for the commit that is under way, if there is one, and no later one of an earlier session succeeds.
//! - A host has a name. One whose session was lost takes the next number only where its name still stands: if another
//!   host has had the store meanwhile, it is told so for ever.

use std::collections::HashMap;
use std::time::Duration;

use registry_plugin_api::{Error, ErrorKind, Position, Result};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Statement};

use crate::Postgreses;
use crate::schema::{IDENTIFY, Schema, VERSION};
use crate::server::{Server, is_harmless};

/// How long the lock of a process that was killed, or of a session that was ended, is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// Which server this is, and in which of its histories: a standby that is promoted begins a new one, and so does a
/// restoration to a point in time.
const WHICH_SERVER: &str = "
    SELECT system_identifier || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) FROM pg_control_system()";

/// A connection that may write.
pub(crate) struct Session {
    client: Client,
    fence: i64,
    lock: i64,
    /// By its text.
    prepared: Mutex<HashMap<String, Statement>>,
}

impl Session {
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// What each commit has to compare.
    pub(crate) fn fence(&self) -> i64 {
        self.fence
    }

    pub(crate) async fn prepare(&self, text: &str) -> Postgreses<Statement> {
        let mut prepared = self.prepared.lock().await;
        if let Some(statement) = prepared.get(text) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(text).await?;
        prepared.insert(text.to_string(), statement.clone());
        Ok(statement)
    }

    pub(crate) async fn position(&self, schema: &Schema) -> Postgreses<Option<Position>> {
        let row = self.client.query_one(&self.prepare(&schema.position()).await?, &[]).await?;
        let revision: i64 = row.try_get(1)?;
        Ok(row.try_get::<_, Option<String>>(0)?.map(|epoch| Position::new(epoch, revision.cast_unsigned())))
    }

    pub(crate) async fn events_after(&self, schema: &Schema) -> Postgreses<u64> {
        let row = self.client.query_one(&self.prepare(&schema.events_after()).await?, &[]).await?;
        Ok(row.try_get::<_, i64>(0)?.cast_unsigned())
    }
}

/// The process of a session in the server, and when it began: a number may come again.
struct Process {
    number: i32,
    began: String,
}

/// The session, and what it takes to begin another one in its place.
pub(crate) struct Sessions {
    current: Option<Session>,
    host: String,
    /// The processes that may still be at work for this host.
    processes: Vec<Process>,
    /// The greatest revision that is known to be stored.
    revision: i64,
}

impl Sessions {
    /// Begins this host's first session, making the tables if they are not there.
    pub(crate) async fn open(server: &Server, schema: &Schema) -> Result<Self> {
        let failed = |error| server.error("open", &error);
        let client = server.connect().await?;
        let process = process(&client).await.map_err(failed)?;
        let lock = lock(server, schema, &client).await?;
        settle(server, schema, &client).await?;
        let which = which_server(&client).await.map_err(failed)?;
        let before: Option<String> =
            client.query_one(&schema.position(), &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
        let row = client.query_one(&schema.take_over(), &[&which]).await.map_err(failed)?;
        let (fence, host) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        let session = Session { client, fence, lock, prepared: Mutex::default() };
        let position = session.position(schema).await.map_err(failed)?;
        if before.is_some() && position.is_none() {
            tracing::warn!(
                schema = schema.name(),
                "the store was restored, or its server replaced: a new epoch begins"
            );
        }
        let revision = position.map_or(0, |position| position.revision.cast_signed());
        Ok(Sessions { current: Some(session), host, processes: vec![process], revision })
    }

    /// The session, for one call. It has to be [put back](Self::put_back); if it is dropped, another one is begun.
    pub(crate) async fn take(&mut self, server: &Server, schema: &Schema) -> Result<Session> {
        match self.current.take() {
            Some(session) if !session.client.is_closed() => Ok(session),
            _ => self.come_back(server, schema).await,
        }
    }

    /// Keeps the session, unless what came of the call shows that it is lost.
    pub(crate) fn put_back<T>(&mut self, session: Session, result: Postgreses<T>) -> Postgreses<T> {
        if result.as_ref().err().is_none_or(is_harmless) {
            self.current = Some(session);
        }
        result
    }

    /// Notes that everything up to that revision is stored.
    pub(crate) fn acknowledged(&mut self, revision: u64) {
        self.revision = revision.cast_signed();
    }

    pub(crate) async fn close(&mut self) -> Postgreses<()> {
        match self.current.take() {
            Some(session) if !session.client.is_closed() => {
                session.client.execute("SELECT pg_advisory_unlock($1)", &[&session.lock]).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// A session in place of one that was lost, or given up with a statement on its way.
    async fn come_back(&mut self, server: &Server, schema: &Schema) -> Result<Session> {
        let failed = |error| server.error("reach", &error);
        let client = server.connect().await?;
        for Process { number, began } in &self.processes {
            let end =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2";
            client.execute(end, &[number, began]).await.map_err(failed)?;
        }
        self.processes.push(process(&client).await.map_err(failed)?);
        let lock = lock(server, schema, &client).await?;
        let which = which_server(&client).await.map_err(failed)?;
        let row = client.query_opt(&schema.come_back(), &[&which, &self.host, &self.revision]).await.map_err(failed)?;
        let Some(row) = row else {
            let reason = format!("another host has used schema {:?} meanwhile: restart this one", schema.name());
            return Err(server.refusal(ErrorKind::Unavailable, &reason));
        };
        let (fence, revision): (i64, i64) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        if revision < self.revision {
            let reason = format!(
                "it has lost changes that it had acknowledged (its revision is {revision}, and was {}): restart the \
                 registry, which then begins a new epoch",
                self.revision
            );
            return Err(server.refusal(ErrorKind::Corrupt, &reason));
        }
        tracing::info!(schema = schema.name(), fence, "connected to PostgreSQL again");
        self.processes.drain(..self.processes.len() - 1);
        Ok(Session { client, fence, lock, prepared: Mutex::default() })
    }
}

async fn process(client: &Client) -> Postgreses<Process> {
    let own = "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()";
    let row = client.query_one(own, &[]).await?;
    Ok(Process { number: row.try_get(0)?, began: row.try_get(1)? })
}

async fn which_server(client: &Client) -> Postgreses<String> {
    client.query_one(WHICH_SERVER, &[]).await?.try_get(0)
}

/// Takes the lock of the schema, and gives its number.
async fn lock(server: &Server, schema: &Schema, client: &Client) -> Result<i64> {
    let failed = |error| server.error("lock", &error);
    let take = "SELECT key, pg_try_advisory_lock(key) FROM hashtextextended($1, 0) AS key";
    let name = format!("registry_postgres {}", schema.name());
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let row = client.query_one(take, &[&name]).await.map_err(failed)?;
        let key: i64 = row.try_get(0).map_err(failed)?;
        if row.try_get(1).map_err(failed)? {
            return Ok(key);
        }
        if Instant::now() >= deadline {
            return Err(in_use(server, schema, client, key).await);
        }
        sleep(LOCK_INTERVAL).await;
    }
}

async fn in_use(server: &Server, schema: &Schema, client: &Client, key: i64) -> Error {
    let holder = "SELECT format('session %s from %s', pid, coalesce(host(client_addr), 'this machine'))
        FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (classid::bigint << 32) | objid::bigint = $1";
    let holder = client.query_opt(holder, &[&key]).await.ok().flatten();
    let holder = holder.and_then(|row| row.try_get::<_, String>(0).ok()).unwrap_or("a session".to_string());
    let name = schema.name();
    server.refusal(ErrorKind::Unavailable, &format!("schema {name:?} is in use by another registry host ({holder})"))
}

/// Makes the schema a registry's, or refuses it.
async fn settle(server: &Server, schema: &Schema, client: &Client) -> Result<()> {
    let failed = |error| server.error("open", &error);
    let encoding: String =
        client.query_one("SHOW server_encoding", &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    if encoding != "UTF8" {
        let reason = format!("the database is encoded in {encoding}, expected UTF8: name another database");
        return Err(server.refusal(ErrorKind::InvalidOption, &reason));
    }
    let name = schema.name();
    let row = client.query_one(IDENTIFY, &[&name]).await.map_err(failed)?;
    let has_schema: bool = row.try_get(0).map_err(failed)?;
    let (has_tables, is_ours): (bool, bool) = (row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?);
    if has_tables && !is_ours {
        let reason = format!("schema {name:?} belongs to another program: name another one by option \"schema\"");
        return Err(server.refusal(ErrorKind::Corrupt, &reason));
    }
    if !has_schema {
        client.batch_execute(&schema.create()).await.map_err(failed)?;
    }
    let version: i32 = match is_ours {
        true => client.query_one(&schema.version(), &[]).await.and_then(|row| row.try_get(0)).map_err(failed)?,
        false => 0,
    };
    if version > VERSION {
        let reason = format!(
            "schema {name:?} was written by a newer registry (schema version {version}, expected {VERSION}): use that one"
        );
        return Err(server.refusal(ErrorKind::Corrupt, &reason));
    }
    for step in schema.steps(version) {
        client.batch_execute(&step).await.map_err(failed)?;
    }
    Ok(())
}
