//! Keys: who somebody is.
//!
//! A [`key`] pair lives in [`certificate`] files, as CZMQ and pyzmq write them. The half that proves who somebody is has
//! to be in one that nobody else can read ([`key_file()`]).

pub mod certificate;
pub mod key;
mod key_file;
mod z85;

pub use key_file::{KeyFileError, key_file, secret_file, whole};
