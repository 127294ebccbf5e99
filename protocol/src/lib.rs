//! What is said on the wire, apart from sockets: [`frames`] finds the request in a message, [`request`] and
//! [`registration`] read it, [`reply`] and [`event`] write what goes back. Nothing here does I/O, and nothing here knows
//! the core or the host: both know this crate.
//!
//! A new action is a variant of [`request::Action`] and [`request::Request`], the right that it needs
//! ([`request::Right`]), and a chapter below; the compiler and `tests/protocol_doc.rs` ask for all of these.
#![doc = ""]
#![doc = include_str!("../../docs/protocol.md")]
// No clock, no socket, no file: see clippy.toml.
#![cfg_attr(not(test), deny(clippy::disallowed_types, clippy::disallowed_methods))]

pub mod clients;
pub mod drain;
pub mod event;
pub mod filter;
pub mod frames;
pub mod json;
pub mod lives;
pub mod page;
pub mod patch;
pub mod registration;
pub mod reply;
pub mod request;
pub mod restore;
pub mod watch;
