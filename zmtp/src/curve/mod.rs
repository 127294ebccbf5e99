//! CURVE, ZeroMQ's encryption and authentication (ZeroMQ RFC 26, in ZMTP: RFC 25), both sides of it.
//!
//! Nothing here reads a socket: bodies of ZMTP commands go in and come out. A handshake is HELLO and WELCOME, INITIATE
//! and READY; then all traffic is in MESSAGEs. Each connection has keys of its own, which are forgotten with it: who
//! records the traffic and gets at the long-term keys later can read nothing.
//!
//! What the specifications do not say, and libzmq does: HELLO, WELCOME, INITIATE, READY and ERROR are ZMTP command
//! frames, but a MESSAGE is a ZMTP *message* frame without MORE, whatever is inside. A MESSAGE in a command frame
//! would be taken for a command by libzmq once it is opened.

mod cipher;
pub mod client;
mod fields;
pub mod server;
pub mod session;

pub use cipher::Sealer;
pub use client::{ClientHandshake, ClientStep};
pub use server::{ServerHandshake, Step};
pub use session::{Flags, LongMessage, MESSAGE_OVERHEAD, Session, SessionError};

#[cfg(test)]
mod tests;

/// Why a handshake has failed. The connection is to be closed; nothing more is said to the other side.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Something else came than what was due.
    #[error("CURVE: expected {0}, got something else")]
    Unexpected(&'static str),
    /// A command is too long or too short.
    #[error("CURVE: {command} has the wrong length, {length} bytes")]
    Length {
        /// Which one.
        command: &'static str,
        /// Its length in bytes, with its name.
        length: usize,
    },
    /// HELLO is of another version than 1.0.
    #[error("CURVE: expected version 1.0, got {0}.{1}")]
    Version(u8, u8),
    /// HELLO's padding is not empty.
    #[error("CURVE: HELLO's padding is not zero")]
    Padding,
    /// A box does not open, or holds something else than it should.
    #[error("CURVE: {0} cannot be opened: it was made with other keys, or changed on the way")]
    Sealed(&'static str),
    /// INITIATE's cookie is not the one that WELCOME gave.
    #[error("CURVE: INITIATE's cookie is not the one that was given on this connection")]
    Cookie,
    /// The client does not prove that it holds the secret key that belongs to its public key.
    #[error("CURVE: INITIATE does not prove who the client is")]
    Vouch,
    /// The server has answered with ERROR.
    #[error("CURVE: the server refuses this client's key: {0}")]
    Refused(String),
    /// The handshake is over, well or not.
    #[error("CURVE: a handshake command after the handshake")]
    Over,
}
