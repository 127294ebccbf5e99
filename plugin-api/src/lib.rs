//! What a storage backend of the service registry is written against.
//!
//! The host keeps all services in its memory, answers every read from there, and knows the rules of the registry. A
//! backend is what makes the services outlive the host: a library that the host loads when it starts, named by one
//! line of `registry.toml`. This crate is all that such a library needs: one trait, [`Backend`], a few plain types,
//! and one macro, [`export_backend!`]. There is no `unsafe` and no foreign type in a plugin.
//!
//! # Two commands
//! `registry plugin new NAME --api PATH` writes a crate that works as it is, with tests: a durable store, to go on from.
//! `registry plugin check FILE` tries whether a plugin keeps the contract below, and shows the shortest history in which
//! it does not. What is rare needs more than its defaults: `--kills 300`, `--histories 1000`. **A power cut is not
//! tried**: a process that is killed leaves the system's caches whole, so a `commit` that never syncs passes. That one
//! returns only after `fsync`, and that a new file's directory is synced as well, is the author's to see to.
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
//! # A path until this crate is on a package registry; from then on `registry-plugin-api = "1"`.
//! registry-plugin-api = { path = "../registry/plugin-api" }
//! ```
//! `src/lib.rs`:
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::{Mutex, PoisonError};
//!
//! use registry_plugin_api::*;
//!
//! struct Smallest {
//!     epoch: String,
//!     contents: Mutex<(u64, BTreeMap<String, Record>)>,
//! }
//!
//! export_backend!(Smallest);
//!
//! impl Backend for Smallest {
//!     const CAPABILITIES: Capabilities = Capabilities::NONE;
//!
//!     async fn open(_options: Options, _host: Host) -> Result<Self> {
//!         Ok(Smallest { epoch: new_epoch(), contents: Mutex::default() })
//!     }
//!
//!     async fn load(&self, _after: Cursor) -> Result<Page> {
//!         let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
//!         Ok(Page::new(&self.epoch, contents.0).with_records(contents.1.values().cloned().collect()))
//!     }
//!
//!     async fn commit(&self, changes: Vec<Change>) -> Result<Vec<Outcome>> {
//!         let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
//!         let (revision, records) = &mut *contents;
//!         let mut outcomes = Vec::new();
//!         for change in changes {
//!             let found = records.contains_key(change.id());
//!             outcomes.push(match change {
//!                 Change::Put { mut record, .. } => {
//!                     *revision += 1;
//!                     record.revision = *revision;
//!                     records.insert(record.id.clone(), record);
//!                     Outcome::Done { revision: *revision }
//!                 }
//!                 _ if !found => Outcome::Missing,
//!                 Change::Remove { id, .. } => {
//!                     *revision += 1;
//!                     records.remove(&id);
//!                     Outcome::Done { revision: *revision }
//!                 }
//!                 Change::Renew { id, last_heartbeat_ms } => {
//!                     records.entry(id).and_modify(|record| record.last_heartbeat_ms = last_heartbeat_ms);
//!                     Outcome::Done { revision: *revision }
//!                 }
//!             });
//!         }
//!         Ok(outcomes)
//!     }
//! }
//!
//! // What the host does, and a unit test can do as well:
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let store = Smallest::open(Options::default(), Host::for_tests()).await?;
//! let put = Change::Put { record: Record::new("a", "{}"), unique: None };
//! assert_eq!(store.commit(vec![put]).await?, [Outcome::Done { revision: 1 }]);
//! let gone = Change::Remove { id: "b".to_string(), reason: RemoveReason::Expired };
//! assert_eq!(store.commit(vec![gone]).await?, [Outcome::Missing]);
//! assert_eq!(store.load(Cursor::start()).await?.records[0].id, "a");
//! # Ok::<(), Error>(()) }).unwrap();
//! ```
//! Built with `cargo build --release`, it is `target/release/libregistry_mine.so`. The host takes it by its path,
//! whatever it is called. Only to be found by a short name, `plugin = "mine"`, it has to be called
//! `libregistry_mine.so` and to lie beside the host's program or in `backend.plugin_dir`.
//!
//! A test of the options calls [`Options::check`] with a map of `serde_json`: `serde_json = "1"` has to be among the
//! crate's dependencies or dev-dependencies for that.
//!
//! # The contract
//! - **What the host calls.** [`open`](Backend::open) once; then [`load`](Backend::load) until there is no next page;
//!   then [`commit`](Backend::commit) whenever something has changed; at the end [`close`](Backend::close). A backend
//!   that says so in its [`Capabilities`] is also asked to [`watch`](Backend::watch) and to
//!   [`discover`](Backend::discover).
//! - **What a backend stores** is a [`Record`]: an id, a few keys, and a JSON document that it keeps as it is.
//! - **One host, one store.** While a durable store is open, whoever opens it a second time is refused, in this process
//!   and in every other, by a line that says so; only a [`shared`](Capabilities::shared) store lets others in. A lock is
//!   gone when the backend is closed and dropped, and when the process has died.
//! - **The revision counts changes**: exactly one more for each `Put` and `Remove` that is done, in the order of the
//!   group, and no other number is ever skipped. The host hands it on, and clients tell by a gap that they have missed
//!   an event. So a store that counts in its own way (by transactions, say) keeps a counter of its own.
//! - **One write decides.** The change, the record's revision and the store's revision reach the disk together, or not
//!   at all. After a crash a first part of the group that was under way may be there, or all of it, or nothing; the
//!   revision is that of what is there, and all that was acknowledged before is there too. One transaction for the
//!   group, or one line with a checksum, does it; a counter beside the data does not.
//! - **What it does not do**: read a clock, expire services, check ids, decide what is unique. The host does, with the
//!   same rules for every backend. Only a store that several hosts [share](Capabilities::shared) repeats one of them.
//! - **Waiting.** Calls come from one thread that does nothing else, so a backend may block. It may also use tokio in
//!   the ordinary way: with the feature `tokio`, which is on by default, the plugin has a runtime of its own.
//!   Without the feature it waits by [`Host::sleep`].
//! - **Every `await` may be the last**: the host may give up a call. Each change can be repeated, and is.
//! - **Errors** have a [kind](ErrorKind), by which the host decides whether to try again, and a line for the operator.
//! - **A panic** is caught and becomes an error of the call, with file and line. The backend is called again
//!   afterwards. This needs `panic = "unwind"`, cargo's default: a plugin without it is not loaded.
//! - **Logs**: events of the `tracing` crate appear in the host's log, under the plugin's own targets.
//! - **Options**: what is declared in [`Backend::OPTIONS`] can be set in `[backend.options]`, is checked by the host,
//!   and arrives complete and of the right type.
//!
//! # Versions
//! The version of this crate is that of the contract, and not that of the host. A plugin that was built against any
//! `1.x` works in a host with any other `1.x`, older or newer, whatever compiler built either of them: all that
//! passes between them has a fixed layout, which is checked when the plugin is loaded. A plugin's author has nothing
//! to do for it. A plugin for another major version is refused, by a line that names both versions.
//!
//! Within a major version
//! - [`Backend`] may get methods and constants that have a default; a plugin that lacks one is served as if it had it;
//! - types that are `non_exhaustive` may get fields and variants, [`Host`] may get methods, and [`Capabilities`] may get promises;
//! - nothing that is there is taken away, renamed, or given another meaning.

#[doc(hidden)]
pub mod abi;
mod backend;
mod error;
mod host;
mod options;
mod record;

pub use backend::{Backend, Capabilities};
pub use error::{Error, ErrorKind, Result};
pub use host::Host;
pub use options::{OptionSpec, Options};
pub use record::{Change, Cursor, Observed, Outcome, Page, Query, Record, RemoveReason};

/// A name for a new history of changes: 128 random bits in hexadecimal. See [`Page::epoch`].
pub fn new_epoch() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

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
