//! The tables and the function that a store is made of, in a schema of its own.
//!
//! Ids and types may hold U+0000, which PostgreSQL's text cannot: an id is bytes, and the types are JSON, which escapes
//! it.

use std::error;

use registry_plugin_api::{Error, ErrorKind, Result};
use tokio_postgres::types::{FromSql, Type};

/// The version of the tables. A store with a greater one is refused.
pub(crate) const VERSION: i32 = 1;

/// Whether there is a schema of that name, and whose it is: a registry's by the comment on its table `store`.
pub(crate) const IDENTIFY: &str = "
    SELECT count(DISTINCT n.oid) > 0, count(c.oid) > 0, coalesce(bool_or(
        c.relname = 'store' AND obj_description(c.oid, 'pg_class') = 'the store of a service registry (registry_postgres)'
    ), false)
    FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    WHERE n.nspname = $1";

/// The code of the error when a session is not the one that may write.
pub(crate) const FENCED: &str = "RG001";

/// PostgreSQL cuts longer names.
const NAME_BYTES_MAX: usize = 63;

/// What the function's body stands between: too long to be in a name.
const BODY: &str = "$the_body_of_the_function_that_makes_one_group_of_changes_in_a_registry$";
const _: () = assert!(BODY.len() > NAME_BYTES_MAX);

/// How many events a group forgets at most: more than it brings, so that few are left over, and few enough not to hold
/// the group up.
const FORGOTTEN_MAX: usize = 4096;

/// The name of the schema.
pub(crate) struct Schema {
    name: String,
    /// As SQL writes it.
    quoted: String,
}

impl Schema {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let is_reserved = name.starts_with("pg_") || name == "information_schema";
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') || is_reserved {
            return Err(Error::new(
                ErrorKind::InvalidOption,
                format!(
                    "option \"schema\" is {name:?}, expected a name of 1 to {NAME_BYTES_MAX} bytes that PostgreSQL does \
                     not use itself"
                ),
            ));
        }
        Ok(Schema { name: name.to_string(), quoted: format!("\"{}\"", name.replace('"', "\"\"")) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn version(&self) -> String {
        format!("SELECT version FROM {}.store", self.quoted)
    }

    /// Makes the schema itself, for which one needs the right to make schemas in the database.
    pub(crate) fn create(&self) -> String {
        format!("CREATE SCHEMA {}", self.quoted)
    }

    /// What leads from a version to the newest, one transaction for each step. A new schema has version 0.
    pub(crate) fn steps(&self, from: i32) -> impl Iterator<Item = String> {
        let steps = [self.tables()];
        steps.into_iter().zip(0..).filter(move |(_, version)| *version >= from).map(|(step, version)| {
            let (s, version) = (&self.quoted, version + 1);
            // Nobody waits for it: the host has the lock.
            format!("BEGIN; SET LOCAL statement_timeout = 0; {step} UPDATE {s}.store SET version = {version}; COMMIT;")
        })
    }

    fn tables(&self) -> String {
        let s = &self.quoted;
        let commit = self.create_commit();
        format!(
            "CREATE TABLE {s}.store (
                 one boolean PRIMARY KEY DEFAULT true CHECK (one),
                 version integer NOT NULL,
                 -- The session that may write has this number, and its host this name.
                 fence bigint NOT NULL DEFAULT 0,
                 host uuid,
                 -- Which server this was written on, and in which of its histories.
                 server text,
                 -- The position, if epoch is not null.
                 epoch text,
                 revision bigint NOT NULL DEFAULT 0,
                 -- The events are complete after this revision.
                 events_after bigint NOT NULL DEFAULT 0
             );
             COMMENT ON TABLE {s}.store IS 'the store of a service registry (registry_postgres)';
             INSERT INTO {s}.store (version) VALUES (0);
             -- Room in each page for what heartbeats change.
             CREATE TABLE {s}.services (
                 id bytea PRIMARY KEY,
                 document text NOT NULL,
                 types text NOT NULL,
                 ttl_ms bigint NOT NULL,
                 last_heartbeat_ms bigint NOT NULL,
                 revision bigint NOT NULL
             ) WITH (fillfactor = 70);
             CREATE TABLE {s}.events (revision bigint PRIMARY KEY, text text NOT NULL);
             {commit}"
        )
    }

    /// The function that makes a group of changes. It is locked against other sessions by the row that it looks at
    /// first, and for as long as it runs.
    fn create_commit(&self) -> String {
        let s = &self.quoted;
        format!(
            "CREATE FUNCTION {s}.commit_group(
                 own_fence bigint, new_epoch text, new_revision bigint, forget_before bigint, undone bigint[],
                 kinds smallint[], ids bytea[], documents text[], types text[], ttls_ms bigint[],
                 heartbeats_ms bigint[], revisions bigint[], texts text[]
             ) RETURNS boolean[] LANGUAGE plpgsql AS {BODY}
             #variable_conflict use_column
             DECLARE
                 store {s}.store;
                 change record;
                 outcomes boolean[] := '{{}}';
             BEGIN
                 SELECT * INTO STRICT store FROM {s}.store FOR UPDATE;
                 IF store.fence <> own_fence THEN
                     RAISE EXCEPTION 'another session may write (number %, not %)', store.fence, own_fence
                         USING ERRCODE = '{FENCED}';
                 END IF;
                 DELETE FROM {s}.events WHERE revision = ANY (undone);
                 FOR change IN
                     SELECT * FROM unnest(kinds, ids, documents, types, ttls_ms, heartbeats_ms, revisions, texts)
                         WITH ORDINALITY AS c (kind, id, document, types, ttl_ms, heartbeat_ms, revision, text, place)
                     ORDER BY place
                 LOOP
                     IF change.kind = 0 THEN
                         INSERT INTO {s}.services (id, document, types, ttl_ms, last_heartbeat_ms, revision)
                         VALUES (change.id, change.document, change.types, change.ttl_ms, change.heartbeat_ms,
                             change.revision)
                         ON CONFLICT (id) DO UPDATE SET document = excluded.document, types = excluded.types,
                             ttl_ms = excluded.ttl_ms, last_heartbeat_ms = excluded.last_heartbeat_ms,
                             revision = excluded.revision;
                     ELSIF change.kind = 1 THEN
                         DELETE FROM {s}.services WHERE id = change.id;
                     ELSE
                         UPDATE {s}.services SET last_heartbeat_ms = change.heartbeat_ms WHERE id = change.id;
                     END IF;
                     outcomes := outcomes || FOUND;
                     IF change.text <> '' THEN
                         INSERT INTO {s}.events (revision, text) VALUES (change.revision, change.text)
                         ON CONFLICT (revision) DO UPDATE SET text = excluded.text;
                     END IF;
                 END LOOP;
                 IF store.epoch IS DISTINCT FROM new_epoch THEN
                     DELETE FROM {s}.events;
                     UPDATE {s}.store SET epoch = new_epoch, revision = new_revision, events_after = new_revision;
                 ELSE
                     UPDATE {s}.store SET revision = new_revision,
                         events_after = greatest(events_after, forget_before - 1);
                     DELETE FROM {s}.events WHERE revision IN (
                         SELECT revision FROM {s}.events WHERE revision < forget_before
                         ORDER BY revision LIMIT {FORGOTTEN_MAX});
                 END IF;
                 RETURN outcomes;
             END
             {BODY};"
        )
    }

    pub(crate) fn commit(&self) -> String {
        format!("SELECT {}.commit_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)", self.quoted)
    }

    /// A store that was written on another server, or in a history that ended, has no position.
    pub(crate) fn take_over(&self) -> String {
        format!(
            "UPDATE {}.store SET fence = fence + 1, host = gen_random_uuid(), server = $1,
                 epoch = CASE WHEN server IS DISTINCT FROM $1 THEN NULL ELSE epoch END
             RETURNING fence, host::text",
            self.quoted
        )
    }

    /// Moves the fence of a host whose session was lost. What it knows to be stored has to be there.
    pub(crate) fn come_back(&self) -> String {
        format!(
            "UPDATE {}.store SET fence = fence + 1, server = $1,
                 epoch = CASE WHEN revision < $3 THEN NULL ELSE epoch END
             WHERE host::text = $2
             RETURNING fence, revision",
            self.quoted
        )
    }

    pub(crate) fn position(&self) -> String {
        format!("SELECT epoch, revision FROM {}.store", self.quoted)
    }

    pub(crate) fn events_after(&self) -> String {
        format!("SELECT events_after FROM {}.store", self.quoted)
    }

    /// In the order of the ids, so that the last id of a page says where the next one begins. The first record that goes
    /// over the bytes of a page still belongs to it.
    pub(crate) fn select_page(&self) -> String {
        format!(
            "SELECT id, document, types, ttl_ms, last_heartbeat_ms, revision FROM (
                 SELECT *, sum(octet_length(document)) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                     AS before
                 FROM (SELECT * FROM {}.services WHERE id > $1 ORDER BY id LIMIT $2) AS longest
             ) AS page WHERE before IS NULL OR before < $3 ORDER BY id",
            self.quoted
        )
    }

    pub(crate) fn select_events(&self) -> String {
        format!(
            "SELECT revision, text FROM (
                 SELECT *, sum(octet_length(text))
                     OVER (ORDER BY revision ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
                 FROM (SELECT * FROM {}.events WHERE revision > $1 ORDER BY revision LIMIT $2) AS longest
             ) AS page WHERE before IS NULL OR before < $3 ORDER BY revision",
            self.quoted
        )
    }
}

type FromSqlResult<T> = std::result::Result<T, Box<dyn error::Error + Sync + Send>>;

/// Text that is stored as bytes.
pub(crate) struct Text(pub String);

impl FromSql<'_> for Text {
    fn from_sql(_: &Type, raw: &[u8]) -> FromSqlResult<Self> {
        Ok(Text(String::from_utf8(raw.to_vec())?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::BYTEA
    }
}

/// A list of text that is stored as JSON.
pub(crate) struct Types(pub Vec<String>);

impl FromSql<'_> for Types {
    fn from_sql(_: &Type, raw: &[u8]) -> FromSqlResult<Self> {
        Ok(Types(serde_json::from_slice(raw)?))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TEXT
    }
}
