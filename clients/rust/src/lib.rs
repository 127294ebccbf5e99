//! A client of the service registry: services that stay registered for as long as their process lives, discovery,
//! changes as they happen, and a cache that answers without asking.
//!
//! | | |
//! |---|---|
//! | [`Service`] | the usual case: five lines make a process discoverable for as long as it lives |
//! | [`Registry`] | a client: all calls; `register`, `discover`, `list`, `watch`, ... |
//! | [`Registration`] | a service that is kept registered |
//! | [`Watch`] | changes as they happen, a stream |
//! | [`Cache`] | the services that are meant, always at hand |
//!
//! All of it runs on [tokio](https://tokio.rs) and speaks ZMTP by itself: no libzmq is needed. It keeps its promises while
//! registries are restarted, networks hang and processes are suspended: `clients/behaviours.md` lists them, each with
//! the test that tries it.
//!
//! - **Time-outs on everything.** No call waits for ever: see [`Builder::timeout`].
//! - **One connection**, over TCP or a Unix socket, with CURVE keys if the registry asks for some, carries everything.
//!   Each request has a number of its own, so a late reply answers no other question.
//! - **A registry that is away** is waited for, in the background, with waits that grow and are spread.
//! - **Nothing there is never "cannot tell"**: a call that could not be answered is an error.
//!
//! [`Registry::connect`] and [`Service::start`] take the host. For the one that the variable `REGISTRY_CONNECT` names, or
//! else `127.0.0.1:5556`, it is `Registry::builder().connect()`: [`Builder`] has all settings.
//!
//! Before maintenance, [`Service::drain`] keeps others from being given the service, which stays registered;
//! [`Service::undrain`] ends that.
//!
//! `examples/fleet.rs` is a small fleet of services that follow each other.
//!
//! What it does is logged with [`tracing`]: lost and new connections, registrations made again.
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), registry_client::Error> {
//! use registry_client::{Filter, Registry};
//!
//! let registry = Registry::connect("registry.example:5556")?;
//! for camera in registry.list(Filter::of_type("camera").tag("north")).await?.services {
//!     println!("{} is at {:?}", camera.name(), camera.address());
//! }
//! registry.close().await;
//! # Ok(()) }
//! ```

mod answer;
mod cache;
mod change;
mod endpoint;
mod error;
mod filter;
mod info;
pub mod keys;
mod link;
mod record;
mod registration;
mod registry;
mod service;
mod settings;
mod values;
mod watch;

pub use cache::Cache;
pub use change::{Change, ChangeKind};
pub use endpoint::Endpoint;
pub use error::{Code, ConnectionError, ConnectionProblem, Error, ProtocolProblem, Refusal};
pub use filter::Filter;
pub use info::ServiceInfo;
pub use link::Connectivity;
pub use record::Record;
pub use registration::{Registration, State};
pub use registry::Registry;
pub use registry_zmtp::client::Keys;
pub use service::Service;
pub use settings::Builder;
pub use values::{Drain, Health, HistoryEntry, Listing, Position, TypeCount};
pub use watch::Watch;

/// The examples of the page that everybody reads first.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
