//! What all tests here need: a schema of their own, and a hand in the database that is not the backend's.

use std::sync::atomic::{AtomicUsize, Ordering};

use registry_plugin_api::{Backend, Host, Options, Position, Record, Result};
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

/// The position, and each id with its revision.
pub(crate) fn revisions(contents: (Option<Position>, Vec<Record>)) -> (Option<Position>, Vec<(String, u64)>) {
    (contents.0, contents.1.into_iter().map(|record| (record.id, record.revision)).collect())
}
