//! The binary interface between the host and a plugin. Neither side's authors meet it: a plugin is written against
//! [`Backend`](crate::Backend) and exported with [`export_backend!`](crate::export_backend), and the host loads it
//! through [`load`].
//!
//! Nothing else in the project names the crates that make it possible (`abi_stable`, which checks at load time that
//! both sides lay out memory in the same way, and `async-ffi`), so that replacing them is this directory and one new
//! series of versions (`0.y`, and later `x`).
//!
//! What is here may grow within a series, in three ways only:
//! - a function or a field is added at the end of a table ([`module`]), after the `last_prefix_field` mark, which
//!   does not move;
//! - a method of [`module::RawBackend`] is added at its end, with a default body that answers `Unsupported`;
//! - a value ([`types`]) carries something new under a name in its `ext` list, which the other side may not know.
//!
//! No Rust enum crosses by value: a `u32` code does, and each side has an answer to a code that it does not know.

pub mod budget;
pub mod emit;
pub mod glue;
pub mod guard;
pub mod load;
pub mod log;
pub mod module;
#[cfg(feature = "tokio")]
mod runtime;
#[cfg(test)]
mod tests;
pub mod types;

/// What [`export_backend!`](crate::export_backend) names the one symbol that a plugin exports.
pub const SYMBOL: &str = "registry_storage_plugin";

/// What [`export_backend!`](crate::export_backend) exports: the start of everything the host asks a plugin for.
pub use abi_stable::library::LibHeader as PluginHeader;
