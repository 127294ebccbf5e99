//! A durable store in etcd, under a prefix of its own: on a replicated cluster, the services outlive any machine.
//!
//! A group of changes goes in transactions as large as etcd takes, one after the other: each leaves a first part of the
//! group, and the position that fits it. What happens around that: `server.rs` connects, `keys.rs` says what lies under
//! which key, `batch.rs` makes transactions of changes, and `session.rs` sees to it that one host alone writes.
//!
//! # After a backup was restored
//! A snapshot that is restored makes another cluster, as long as its `--initial-cluster-token` is a new one. That is
//! noticed, and the host begins a new epoch. Otherwise run `etcdctl del /registry/head` before a host starts.
//!
//! # What etcd needs
//! Each change, and about once a second each heartbeat, is a revision that etcd keeps until it is compacted: start it with
//! `--auto-compaction-mode=periodic --auto-compaction-retention=5m` and a `--quota-backend-bytes` of some gigabytes.

use std::sync::Arc;

use registry_plugin_api::{
    Backend, Capabilities, Cursor, Error, ErrorKind, Group, Host, OptionSpec, Options, Outcome, Page, Result,
    export_backend,
};
use tokio::sync::Mutex;

use crate::batch::{Batch, Limits};
use crate::keys::Keys;
use crate::server::Server;
use crate::session::{Refusal, Sessions};

mod batch;
mod keys;
mod server;
mod session;

/// The backend: a prefix in a cluster, and the session that may write there.
pub struct Etcd {
    server: Arc<Server>,
    sessions: Mutex<Sessions>,
}

export_backend!(Etcd);

impl Backend for Etcd {
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::text("endpoints", Some("http://127.0.0.1:2379"), "the cluster's members, separated by commas"),
        OptionSpec::text(
            "prefix",
            Some("/registry"),
            "what all keys begin with; what lies there is the registry's alone",
        ),
        OptionSpec::text("user", Some(""), "who the registry is to etcd, if it asks"),
        OptionSpec::text("password", Some(""), "the user's password").secret(),
        OptionSpec::text("ca", Some(""), "a file with the authorities that sign the members' certificates, as PEM"),
        OptionSpec::text("cert", Some(""), "a file with the registry's own certificate, as PEM"),
        OptionSpec::text("key", Some(""), "a file with the key of that certificate, as PEM"),
    ];

    fn capabilities(_options: &Options) -> Capabilities {
        Capabilities::NONE.durable()
    }

    async fn open(options: Options, _host: Host) -> Result<Self> {
        let server = Arc::new(Server::new(&options)?);
        let keys = Keys::new(options.text("prefix"))?;
        let sessions = Mutex::new(Sessions::open(&server, keys).await?);
        Ok(Etcd { server, sessions })
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        let mut sessions = self.sessions.lock().await;
        let session = sessions.take(&self.server).await?;
        let page = session.read_page(&self.server, &after).await?;
        sessions.put_back(session);
        Ok(page)
    }

    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        let mut sessions = self.sessions.lock().await;
        // Whatever becomes of the call, the session goes with it unless it is put back.
        let mut session = sessions.take(&self.server).await?;
        let mut outcomes = Vec::with_capacity(group.changes.len());
        let mut limits = Limits::default();
        let mut is_whole = false;
        while !is_whole {
            let batch = Batch::new(session.keys(), &group, outcomes.len(), session.head(), limits);
            match session.write(&batch).await {
                Ok(responses) => {
                    is_whole = batch.is_last();
                    outcomes.extend(batch.outcomes(&responses));
                }
                // Nothing of it was stored.
                Err(Refusal::TooLarge) if batch.len() > 1 => limits = limits.half(),
                Err(Refusal::TooLarge) if batch.len() == 1 => {
                    let reason = "the service is larger than etcd takes (--max-request-bytes)";
                    outcomes.push(Outcome::Refused(Error::new(ErrorKind::Unsupported, reason)));
                }
                Err(Refusal::TooLarge) => return Err(Error::internal("etcd takes not even a position")),
                Err(Refusal::Other(error)) => return Err(self.server.error("write to", &error)),
                Err(Refusal::Fenced) => return Err(self.server.fenced()),
            }
        }
        sessions.acknowledged(group.position.revision);
        sessions.put_back(session);
        Ok(outcomes)
    }

    /// Makes room for another host at once. Without it, that has to wait until the lease is over.
    async fn close(&self) -> Result<()> {
        self.sessions.lock().await.close().await.map_err(|error| self.server.error("close", &error))
    }
}
