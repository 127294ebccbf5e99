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

// Nothing blocks the thread that serves: clippy.toml names what would. Exceptions stand here and in mod.rs of these
// modules, each with its reason.
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

// What operators see.
#[expect(clippy::disallowed_methods, reason = "a command of its own: its thread serves nobody")]
mod cli;
#[expect(clippy::disallowed_methods, reason = "read before anybody is served")]
pub mod config;
mod log;
mod text;

// From the network to the core: what is said, who says it, and how it gets here.
pub mod fronts;
pub use registry_protocol as protocol;
pub mod metrics;
pub mod security;

// The core, and the loop that runs it.
#[deny(clippy::disallowed_types)]
pub mod registry;
mod server;

// What lasts: the store's lane, plugins, and the rules that they are held to.
#[expect(clippy::disallowed_methods, reason = "a command of its own: its thread serves nobody")]
pub mod conformance;
#[expect(clippy::disallowed_methods, reason = "a command of its own: its thread serves nobody")]
mod migrate;
#[expect(clippy::disallowed_methods, reason = "before anybody is served, or on a thread of its own")]
pub mod plugin;
#[expect(clippy::disallowed_methods, reason = "the store's lane is a thread of its own")]
pub mod store;

// What the system allows.
mod open_files;

pub use cli::main;
pub use server::clock;
