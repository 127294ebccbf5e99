//! What a storage backend of the service registry is written against.
mod backend;
mod error;
mod options;
mod record;

pub use backend::{Backend, Capabilities};
pub use error::{Error, ErrorKind, Result};
pub use options::{OptionSpec, Options};
pub use record::{Change, Cursor, Observed, Outcome, Page, Query, Record, RemoveReason};

/// The host, as a plugin sees it.
#[derive(Clone)]
pub struct Host {}

/// A name for a new history of changes: 128 random bits in hexadecimal. See [`Page::epoch`].
pub fn new_epoch() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}
