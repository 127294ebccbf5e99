//! Keys: who the registry is, and who may talk to it.
//!
//! A [`key`] pair lives in [`certificate`] files, as CZMQ and pyzmq write them. The registry has one that only it may
//! read ([`key_file`]), and public ones of the clients that it serves ([`authorized`]). What those may do is said by
//! rules ([`access`]).

pub mod access;
pub mod audit;
pub mod authorized;
pub mod certificate;
pub mod guard;
pub mod key;
mod key_file;
pub mod principal;
mod z85;

pub use authorized::{Authorized, AuthorizedError};
pub use key_file::{KeyFileError, key_file};
