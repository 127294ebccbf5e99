//! What all tests here need: a schema of their own, and a hand in the database that is not the backend's.

use std::sync::atomic::{AtomicUsize, Ordering};

use registry_plugin_api::{
    Backend, Change, Cursor, Group, Host, Options, Outcome, Position, Put, Record, Remove, Result,
};
use registry_postgres::Postgres;
use serde_json::json;
use tokio_postgres::{Client, Config, NoTls};

use crate::stores::server;

/// A schema that is dropped when the test is over.
pub(crate) struct Place {
    pub(crate) schema: String,
    /// The database, and a session of its own.
    pub(crate) url: String,
    pub(crate) sql: Client,
}

impl Place {
    /// None without a server.
    pub(crate) async fn new() -> Option<Place> {
        let url = server("REGISTRY_TEST_POSTGRES")?;
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // With what has to be quoted.
        let schema = format!("T\"{}\" '\\%$$ $function$ {number}", std::process::id());
        let sql = connect(&url).await;
        Some(Place { schema, url, sql })
    }

    /// The schema as SQL writes it.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }

    pub(crate) async fn open(&self) -> Result<Postgres> {
        self.open_at(&self.url).await
    }

    pub(crate) async fn open_at(&self, url: &str) -> Result<Postgres> {
        open(json!({ "url": url, "schema": self.schema })).await
    }

    /// The URL for another role.
    pub(crate) fn url_as(&self, role: &str, password: &str) -> String {
        let (_, rest) = self.url.split_once('@').unwrap();
        format!("postgres://{role}:{password}@{rest}")
    }

    /// Runs SQL with `{s}` for the schema.
    pub(crate) async fn run(&self, sql: &str) {
        self.sql.batch_execute(&sql.replace("{s}", &self.quoted())).await.unwrap();
    }

    pub(crate) async fn remove(self) {
        self.run("DROP SCHEMA {s} CASCADE").await;
    }
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = url.parse::<Config>().unwrap().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn open(options: serde_json::Value) -> Result<Postgres> {
    let options = Options::check(Postgres::OPTIONS, options.as_object().unwrap().clone())?;
    Postgres::open(options, Host::for_tests()).await
}

pub(crate) fn put(id: &str, revision: u64) -> Change {
    let mut record = Record::new(id, format!("{{\"revision\":{revision}}}"));
    record.revision = revision;
    Put::new(record).with_event(format!("put {id:?}")).into()
}

pub(crate) fn remove(id: &str, revision: u64) -> Change {
    Remove::new(id, revision).with_event(format!("remove {id:?}")).into()
}

pub(crate) fn group(revision: u64, changes: &[Change]) -> Group {
    Group::new(Position::new("epoch", revision), changes.to_vec())
}

pub(crate) async fn commit(store: &Postgres, revision: u64, changes: &[Change]) -> Result<Vec<Outcome>> {
    store.commit(group(revision, changes)).await
}

/// The position, and each id with its revision.
pub(crate) async fn contents(store: &Postgres) -> (Option<Position>, Vec<(String, u64)>) {
    let (mut next, mut records, mut position) = (Some(Cursor::start()), Vec::new(), None);
    while let Some(after) = next {
        let page = store.load(after).await.unwrap();
        records.extend(page.records.into_iter().map(|record| (record.id, record.revision)));
        (next, position) = (page.next, page.position);
    }
    (position, records)
}

pub(crate) fn ids(contents: &(Option<Position>, Vec<(String, u64)>)) -> Vec<&str> {
    contents.1.iter().map(|(id, _)| id.as_str()).collect()
}
