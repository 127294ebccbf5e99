//! Keys, tokens and certificates: who the registry is, and who may talk to it.
//!
//! A [`key`] pair lives in [`certificate`] files, as CZMQ and pyzmq write them. The registry has one that only it may
//! read ([`key_file`]), and public ones of the clients that it serves ([`authorized`]). The [`guard`] lets those in,
//! and knows each as a [`principal`]; over HTTP a [`token`] does the same, or a certificate of [`tls`], whose name [`x509`]
//! reads. Rules say what they may do ([`access`]), quotas how much each may have ([`quota`]), and the log what they tried
//! beyond that ([`audit`]).

pub mod access;
pub mod audit;
#[expect(clippy::disallowed_methods, reason = "at the start, and then on a thread of its own")]
pub mod authorized;
mod clients;
pub mod guard;
pub mod origin;
pub mod principal;
pub mod quota;
mod revoked;
#[expect(clippy::disallowed_methods, reason = "at the start, and then on a thread of its own")]
pub mod tls;
pub mod token;
pub mod x509;

pub use authorized::{Authorized, AuthorizedError};
pub use registry_zmtp::keys::{KeyFileError, certificate, key, key_file, secret_file};
