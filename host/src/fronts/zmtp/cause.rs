//! Why connections end.

use std::fmt::Display;
use std::io;

use super::report::Incident;
use registry_zmtp::handshake::HandshakeError;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Cause {
    #[error("the peer has left")]
    Left,
    #[error("the network failed: {0}")]
    Network(#[from] io::Error),
    #[error("the handshake failed: {0}")]
    Handshake(#[from] HandshakeError),
    #[error("the handshake took too long")]
    SlowHandshake,
    #[error("it had to make room before it was ready")]
    Evicted,
    #[error("the peer broke a rule: {0}")]
    Offence(String),
    #[error("the peer does not read its replies")]
    Unread,
    #[error("too much waits for all clients together, and for this one more than its share")]
    Crowded,
    #[error("nothing was heard of the peer")]
    Silent,
    #[error("the peer's key is not authorized any longer")]
    Revoked,
}

impl Cause {
    /// The peer has sent what it must not.
    pub fn offence(error: impl Display) -> Cause {
        Cause::Offence(error.to_string())
    }

    /// What operators are told of it, if anything: what came to an end, and why, in a few words.
    pub fn incident(&self) -> Option<(Incident, &'static str)> {
        Some(match self {
            Cause::Handshake(error) => (Incident::Handshake, error.kind()),
            Cause::SlowHandshake => (Incident::Handshake, "too slow"),
            Cause::Evicted => (Incident::Handshake, "made room for others"),
            Cause::Offence(_) => (Incident::Dropped, "broke a rule"),
            Cause::Unread => (Incident::Dropped, "does not read its replies"),
            Cause::Crowded => (Incident::Dropped, "held too much memory"),
            Cause::Silent => (Incident::Dropped, "silent"),
            Cause::Left | Cause::Network(_) | Cause::Revoked => return None,
        })
    }
}
