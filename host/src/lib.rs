//! A service registry for microservices that talk over ZeroMQ: one host process, storage in plugins.
//!
//! Frames come in through [`transport`], become requests in [`protocol`], are answered by the core in [`registry`],
//! and what has to last goes through [`store`] to a [`plugin`]. [`server`] is the loop that ties them together,
//! [`serve`] starts it. [`config`] and [`cli`] are what operators see.
//!
//! The core knows no sockets, clocks or files; the host knows no SQL; plugins know no sockets.

pub mod cli;
pub mod config;
pub mod conformance;
pub mod fronts;
mod log;
pub mod migrate;
mod open_files;
pub mod plugin;
pub mod registry;
pub mod security;
pub mod server;
pub mod store;
mod text;

/// Where these were before.
pub mod transport {
    pub mod zmtp;
    pub use crate::fronts::*;
}
pub use server::start as serve;
pub use registry_protocol as protocol;
