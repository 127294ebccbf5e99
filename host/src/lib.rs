//! A service registry for microservices that talk over ZeroMQ: one host process, storage in plugins.
//!
//! A request comes in through one of the [`fronts`], is answered by the core in [`registry`], and what has to last goes
//! through [`store`] to a [`plugin`]. The loop in `server` ties them together. [`config`] and `cli` are what operators
//! see.
//!
//! The core knows no sockets, clocks or files; the host knows no SQL; plugins know no sockets.
//!
//! This library is the program's, and promises nothing to others. What is public is what `main` runs, and what tests,
//! fuzzing, examples and benches reach in for.

// What operators see.
mod cli;
pub mod config;
mod log;
mod text;

// From the network to the core: what is said, who says it, and how it gets here.
pub mod fronts;
pub use registry_protocol as protocol;
pub mod security;

// The core, and the loop that runs it.
pub mod registry;
mod server;

// What lasts: the store's lane, plugins, and the rules that they are held to.
pub mod conformance;
mod migrate;
pub mod plugin;
pub mod store;

// What the system allows.
mod open_files;

pub use cli::main;
pub use server::clock;

/// The front that faces clients, and the seam under its former name.
pub mod transport {
    pub mod zmtp;
    pub use crate::fronts::*;
}
use server::start as serve;
