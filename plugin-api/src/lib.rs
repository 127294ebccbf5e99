//! What a storage backend of the service registry is written against.
//!
//! The host keeps all services in its memory, answers every read from there, and knows the rules of the registry. A
//! backend is what makes the services outlive the host: a library that the host loads when it starts, named by one
//! line of `registry.toml`. This crate is all that such a library needs: one trait, [`Backend`], a few plain types,
//! and one macro, [`export_backend!`]. There is no `unsafe` and no foreign type in a plugin.
//!
//! # Two commands
//! `registry plugin new NAME --api PATH` writes a crate that works as it is, with tests: a durable store, to go on
//! from. `registry plugin check FILE` tries whether a plugin keeps the contract below, and shows the shortest history
//! in which it does not. Rare faults need more than its defaults: `--kills 300`, `--histories 1000`. **It cannot try a
//! power cut**: a killed process leaves the system's caches whole, so a `commit` that never syncs passes. You have to
//! make sure that `commit` returns only after `fsync`, and that a new file's directory is synced as well.
//!
//! # The smallest plugin
//! `Cargo.toml`:
//! ```toml
//! [package]
//! name = "registry_mine"
//! version = "0.1.0"
//! edition = "2024"
//!
//! [lib]
//! # `cdylib` is the plugin; `rlib` is for tests in `tests/`, which could not use the crate without it.
//! crate-type = ["cdylib", "rlib"]
//!
//! [dependencies]
//! # A path until this crate is on a package registry; from then on `registry-plugin-api = "0.1"`.
//! registry-plugin-api = { path = "../registry/plugin-api" }
//! ```
//! `src/lib.rs`:
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::{Mutex, PoisonError};
//!
//! use registry_plugin_api::*;
//!
//! #[derive(Default)]
//! struct Smallest {
//!     contents: Mutex<(Option<Position>, BTreeMap<String, Record>)>,
//! }
//!
//! export_backend!(Smallest);
//!
//! impl Backend for Smallest {
//!     async fn open(_options: Options, _host: Host) -> Result<Self> {
//!         Ok(Smallest::default())
//!     }
//!
//!     async fn load(&self, _after: Cursor) -> Result<Page> {
//!         let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
//!         Ok(Page::new(contents.0.clone()).with_records(contents.1.values().cloned().collect()))
//!     }
//!
//!     async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
//!         let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
//!         let (position, records) = &mut *contents;
//!         *position = Some(group.position);
//!         Ok(group.changes.into_iter().map(|change| match change {
//!             Change::Put(put) => {
//!                 records.insert(put.record.id.clone(), put.record);
//!                 Outcome::Done
//!             }
//!             Change::Remove(remove) => Outcome::done_if(records.remove(&remove.id).is_some()),
//!             Change::Renew(renew) => {
//!                 let found = records.get_mut(&renew.id);
//!                 Outcome::done_if(found.map(|record| record.last_heartbeat_ms = renew.last_heartbeat_ms).is_some())
//!             }
//!             _ => Outcome::unknown(),
//!         }).collect())
//!     }
//! }
//!
//! // What the host does, and a unit test can do as well:
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = Smallest::open(Options::default(), Host::for_tests()).await?;
//! let changes = vec![Put::new(Record::new("a", "{}")).into(), Remove::new("b", 2).into()];
//! let outcomes = store.commit(Group::new(Position::new("epoch", 2), changes)).await?;
//! assert_eq!(outcomes, [Outcome::Done, Outcome::Missing]);
//! assert_eq!(store.load(Cursor::start()).await?.records[0].id, "a");
//! # Ok::<(), Error>(()) }).unwrap();
//! ```
//! `cargo build --release` makes `target/release/libregistry_mine.so`. The host loads it by its path, whatever its
//! name. To be found by a short name, `plugin = "mine"`, it has to be called `libregistry_mine.so` and lie beside the
//! host's program or in `backend.plugin_dir`.
//!
//! A test of the options calls [`Options::check`] with a map of `serde_json`, which has to be a dependency of the crate
//! then.
//!
//! # The contract
//! - **What the host calls.** [`open`](Backend::open) once; then [`load`](Backend::load) until there is no next page;
//!   then [`commit`](Backend::commit) whenever something has changed; at the end [`close`](Backend::close). A backend
//!   that says so in its [`Capabilities`] is also asked for its [`history`](Backend::history) and to
//!   [`discover`](Backend::discover).
//! - **What a backend stores** is a [`Record`] for each id, a JSON document with a few keys beside it, and one
//!   [`Position`]. It keeps both as they are.
//! - **One host, one store.** While a durable store is open, opening it again is refused, in this process and in every
//!   other, by a line that says so. A lock does it, which has to be gone once the backend is closed and dropped, and
//!   when the process has died.
//! - **A group is made in order**, and an id may come more than once in it.
//! - **One write decides.** The changes of a group and its [position](Group::position) reach the disk together, or a
//!   first part of the changes with a position that fits them, or nothing. After a crash all that was acknowledged is
//!   there. One transaction for the group, or one line with a checksum, does it; a position in another file does not.
//! - **What it does not do**: count, read a clock, expire services, check ids, decide what is unique. The host does,
//!   with the same rules for every backend.
//! - **Waiting.** Calls come from one thread that does nothing else, so a backend may block. It may also use tokio in
//!   the ordinary way: with the feature `tokio`, which is on by default, the plugin has a runtime of its own.
//!   Without the feature it waits by [`Host::sleep`].
//! - **Every `await` may be the last**: the host may give up a call. It then restores the records that were concerned,
//!   so each change must be one that can be repeated. What was given up must not land later.
//! - **Errors** have a [kind](ErrorKind), by which the host decides whether to try again, and a line for the operator.
//! - **A panic** is caught and becomes an error of the call, with file and line. The backend is called again
//!   afterwards. This needs `panic = "unwind"`, cargo's default: a plugin without it is not loaded.
//! - **Logs**: events of the `tracing` crate appear in the host's log, under the plugin's own targets.
//! - **Options**: what is declared in [`Backend::OPTIONS`] can be set in `[backend.options]`, is checked by the host,
//!   and arrives complete and of the right type. The host shows the value of every option, except those declared
//!   [`secret`](OptionSpec::secret).
//!
//! # A store that was replaced or restored
//! Clients follow changes by their revisions. If a backup were restored under the same epoch, they would take its
//! revision 7 for the revision 7 that they know. So:
//! - The position lies in the store, in the same file or database as the records. A new store has none:
//!   [`Page::position`] is `None`, the host begins a new epoch, and all clients list everything again.
//! - A backend that notices that its store is not the one that it wrote last gives `None` as well, with the records
//!   that are there. A database server that was restored to a point in time names another timeline, for example.
//! - A backend whose store is a file cannot notice that somebody copied a backup over it. Give operators a way to say
//!   so: SQLite's is to delete the row of its table `position`.
//!
//! # Database servers
//! A backend may keep its store in a server, as `plugins/postgres` and `plugins/etcd` do. What differs from a file:
//! - **One statement or one transaction for a group.** A round trip for each of up to 3072 changes is too slow: pass
//!   arrays, or one JSON text to a function in the server.
//! - **What was given up must not land later.** When the host gives up a call, its statement may be on its way, or hang
//!   in a server that is frozen and goes on a minute later, when the client has long been told that nothing has
//!   changed. So fence each session: before a new session writes, it ends the one before (`pg_terminate_backend`), or
//!   takes the next number in a row that every transaction compares. The comparison has to be part of the transaction
//!   that it guards. After a call that was given up, begin a new session.
//! - **Reconnect inside the plugin**, at the next call. Until then calls fail with
//!   [`Unavailable`](ErrorKind::Unavailable), at once rather than after `call_timeout`. The host tries again; reads and
//!   heartbeats go on without the store.
//! - **Several addresses** of one server are tried one after the other, each for a time that bounds all of it: one that
//!   is frozen takes connections and says nothing, and client libraries may wait for it, or go on asking a dead one.
//! - **A second host is refused** by a lock that the server frees when the session dies, such as an advisory lock. A
//!   session that is lost has lost its lock: take it again before anything is written.
//! - **Limits.** An id or type may be longer than the server's keys, and may hold U+0000, which PostgreSQL's `text`
//!   cannot: store bytes, or [refuse](Outcome::Refused) the record. A document holds no raw U+0000, but perhaps the
//!   escape `\u0000`, which `jsonb` cannot: use `text` or `json`.
//! - **Passwords** are [secret](OptionSpec::secret) options. Keep them out of messages: operators read those, and so do
//!   clients that may ask for the host's health.
//! - **`call_timeout`** bounds `commit` and `discover` only. `open`, `load` and `history` may take their time.
//!
//! *Several hosts on one store, and notification from the server, wait for the contract for shared stores. This
//! contract is for stores that one host has to itself.*
//!
//! # A store's own format
//! The host gives a store texts and numbers, and reads them whichever of its versions has written them: that is its own
//! business. Yours is how they lie there. Write down in the store itself which format it has and which version of the plugin
//! has made it, in a place that no format moves, such as the first line or a table of its own. Open every older format; before
//! you change one, put a copy beside it that begins a new epoch (it has no position), and change it in one step, so that a
//! kill leaves it as it was or changed. Refuse a newer one with [`ErrorKind::Corrupt`], and say who made it, what you read and
//! what to do: `registry backup` with the newer version and `registry restore` with the older one lead back. Keep a format as
//! long as the old version can read what you write. `upgrade.rs` of the SQLite plugin does all that in a page.
//!
//! # Versions
//! The version of this crate is that of the contract, and not that of the host. A plugin that was built against any
//! `0.1.x` works in a host with any other `0.1.x`, older or newer, whatever compiler built either of them: all that
//! passes between them has a fixed layout, which is checked when the plugin is loaded. A plugin's author has nothing
//! to do for it. A plugin for another series, `0.2`, is refused, by a line that names both versions.
//!
//! Within a series
//! - [`Backend`] may get methods and constants that have a default; a plugin that lacks one is served as if it had it;
//! - types that are `non_exhaustive` may get fields and variants, [`Host`] may get methods, and [`Capabilities`] may
//!   get promises; a change of a kind that a plugin does not know is [refused](Outcome::Refused) before it reaches the
//!   plugin, and the other changes of its group are made;
//! - nothing that is there is taken away, renamed, or given another meaning.
//!
//! **What will still change, and why this is not 1.0**: stores that several hosts share need a contract of their own,
//! with conditions on changes and a watch that tells them all. Swapping the store of a running host and restoring one
//! may ask more of a backend. What does not fit into this series comes in a new one: then plugins have to be built
//! again, and the changelog says what to change. 1.0 follows when all of that has been built.

#[doc(hidden)]
pub mod abi;
mod backend;
mod error;
mod group;
mod history;
mod host;
mod options;
mod query;
mod record;

pub use backend::{Backend, Capabilities};
pub use error::{Error, ErrorKind, Result};
pub use group::{Change, Group, Outcome, Put, Remove, Renew};
pub use history::{Event, History};
pub use host::Host;
pub use options::{OptionSpec, Options, SECRET};
pub use query::Query;
pub use record::{Cursor, Page, Position, Record};

/// Exports a [`Backend`] as this library's storage backend. Once in a crate, whose `crate-type` holds `cdylib`.
///
/// The backend has the crate's version and its name without `registry_`: logs and `registry health` call it so.
#[macro_export]
macro_rules! export_backend {
    ($backend:ty) => {
        const _: () = {
            struct Exported;

            impl $crate::abi::glue::Exported for Exported {
                type Backend = $backend;
                const NAME: &'static str = env!("CARGO_PKG_NAME");
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");
                const UNWINDS: bool = cfg!(panic = "unwind");
            }

            #[unsafe(export_name = "registry_storage_plugin")]
            static HEADER: $crate::abi::PluginHeader = $crate::abi::glue::header::<Exported>();
        };
    };
}
