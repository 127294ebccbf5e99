//! From the first byte of a connection to the moment when both sides are ready
//! ([RFC 37](https://rfc.zeromq.org/spec/37/); for NULL, "The NULL Security Mechanism"; for CURVE see
//! [`curve`]).
//!
//! A pure state machine: bytes in, bytes out, and in the end a [`Peer`].

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::keys::key::{KeyPair, PublicKey};

use super::codec::{self, FrameError, Kind};
use super::command::{self, Command, CommandError, Metadata};
use super::curve::{self, ServerHandshake, Step};
use super::greeting::{self, GREETING_BYTES, GreetingError, Mechanism};
use super::wire::Wire;

/// The longest command of a handshake, in bytes. The peer's metadata are in one of them.
const COMMAND_BYTES_MAX: usize = 8192;

/// What the accepting side's socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketType {
    /// Takes requests and answers them.
    Router,
    /// Takes subscriptions and sends events.
    Publisher,
}

impl SocketType {
    fn name(self) -> &'static str {
        match self {
            SocketType::Router => "ROUTER",
            // It wants to see subscriptions, but to its peers it is a PUB.
            SocketType::Publisher => "PUB",
        }
    }

    /// The peers that RFC 37 lets it talk to.
    fn peers(self) -> &'static [&'static str] {
        match self {
            SocketType::Router => &["REQ", "DEALER", "ROUTER"],
            SocketType::Publisher => &["SUB", "XSUB"],
        }
    }

    fn check(self, metadata: Metadata) -> Result<Metadata, HandshakeError> {
        if self.peers().iter().any(|peer| peer.as_bytes() == &metadata.socket_type[..]) {
            return Ok(metadata);
        }
        let theirs = String::from_utf8_lossy(&metadata.socket_type).into_owned();
        Err(HandshakeError::SocketType { theirs, ours: self.name() })
    }
}

/// Who is at the other end, when both sides are ready.
#[derive(Debug, PartialEq, Eq)]
pub struct Peer {
    /// The 1 of ZMTP 3.1; 0 for those that know neither PING nor SUBSCRIBE.
    pub minor_version: u8,
    /// What it says of itself.
    pub metadata: Metadata,
    /// Whose key it has proved to hold; `None` without CURVE.
    pub client: Option<PublicKey>,
}

/// Why it came to nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum HandshakeError {
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("expected READY, got {0}")]
    Unexpected(String),
    #[error("a {theirs:?} cannot talk to a {ours}")]
    SocketType { theirs: String, ours: &'static str },
    #[error("the peer gave up: {0}")]
    Peer(String),
    #[error(transparent)]
    Curve(#[from] curve::HandshakeError),
    #[error("the key {0} is not allowed here")]
    Refused(PublicKey),
}

impl HandshakeError {
    /// The same in a few words, of which there are not many: for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            HandshakeError::Greeting(GreetingError::NotZmtp) => "not ZeroMQ",
            HandshakeError::Greeting(GreetingError::Version(_)) => "ZeroMQ older than 4",
            HandshakeError::Greeting(GreetingError::Mechanism { .. } | GreetingError::SameSide(_)) => "wrong mechanism",
            HandshakeError::SocketType { .. } => "wrong type of socket",
            HandshakeError::Peer(_) => "the client gave up",
            HandshakeError::Refused(_) => "key not authorized",
            HandshakeError::Curve(_) => "CURVE failed",
            HandshakeError::Frame(_) | HandshakeError::Command(_) | HandshakeError::Unexpected(_) => "malformed",
        }
    }
}

/// A handshake under way.
#[derive(Debug)]
pub struct Handshake {
    socket_type: SocketType,
    /// The server's, if clients have to prove theirs.
    keys: Option<Arc<[KeyPair]>>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Greeting,
    Null { minor_version: u8 },
    Curve { minor_version: u8, handshake: ServerHandshake },
}

impl Handshake {
    /// Begins one: appends what the server says first. With a key pair, or several of which clients may know any, clients
    /// have to prove theirs (CURVE); without one nobody is asked (NULL).
    pub fn begin(socket_type: SocketType, keys: Option<Arc<[KeyPair]>>, out: &mut BytesMut) -> Self {
        let handshake = Handshake { socket_type, keys, stage: Stage::Greeting };
        out.extend_from_slice(&greeting::ours(handshake.mechanism()));
        handshake
    }

    fn mechanism(&self) -> Mechanism {
        if self.keys.is_some() { Mechanism::Curve } else { Mechanism::Null }
    }

    /// Goes on with what has come, and appends what is to be answered. When both sides are ready, the peer comes back,
    /// and what is left on the wire is its first traffic, encrypted if that was agreed. `is_allowed` is asked about a key
    /// that a client has proved to hold.
    ///
    /// # Errors
    /// If nothing can come of it. What was appended then tells the peer why, if it can be told.
    pub fn advance(
        &mut self,
        wire: &mut Wire,
        is_allowed: impl Fn(&PublicKey) -> bool,
    ) -> Result<Option<Peer>, HandshakeError> {
        if let Stage::Greeting = self.stage {
            let Some(minor_version) = greeting::read(wire.input.peek(), self.mechanism())? else {
                return Ok(None);
            };
            wire.input.take(GREETING_BYTES);
            self.stage = self.greeted(minor_version, &mut wire.out);
        }
        while let Some(frame) = wire.input.next_frame(COMMAND_BYTES_MAX)? {
            if frame.kind != Kind::Command {
                return Err(HandshakeError::Unexpected("a message".into()));
            }
            if let Some(peer) = self.command(&frame.body, wire, &is_allowed)? {
                return Ok(Some(peer));
            }
        }
        Ok(None)
    }

    fn greeted(&self, minor_version: u8, out: &mut BytesMut) -> Stage {
        let metadata = command::metadata(self.socket_type.name());
        match &self.keys {
            None => {
                // Neither side waits for the other's.
                codec::put_frame(Kind::Command, &command::body("READY", &metadata), out);
                Stage::Null { minor_version }
            }
            Some(keys) => {
                Stage::Curve { minor_version, handshake: ServerHandshake::new(keys.clone(), metadata.to_vec()) }
            }
        }
    }

    fn command(
        &mut self,
        body: &Bytes,
        wire: &mut Wire,
        is_allowed: &impl Fn(&PublicKey) -> bool,
    ) -> Result<Option<Peer>, HandshakeError> {
        match &mut self.stage {
            Stage::Greeting => Ok(None),
            Stage::Null { minor_version } => {
                let metadata = null_metadata(body).and_then(|metadata| self.socket_type.check(metadata));
                let metadata = metadata.inspect_err(|error| {
                    if !matches!(error, HandshakeError::Peer(_)) {
                        command::put_error(&error.to_string(), &mut wire.out);
                    }
                })?;
                Ok(Some(Peer { minor_version: *minor_version, metadata, client: None }))
            }
            Stage::Curve { minor_version, handshake } => {
                match handshake.receive(body, is_allowed)? {
                    Step::Reply(command) => {
                        codec::put_frame(Kind::Command, &command, &mut wire.out);
                        Ok(None)
                    }
                    Step::Refused { client, error } => {
                        codec::put_frame(Kind::Command, &error, &mut wire.out);
                        Err(HandshakeError::Refused(client))
                    }
                    Step::Established { client, metadata, ready, session } => {
                        // First: by our READY a client at the wrong port sees what this one is for.
                        codec::put_frame(Kind::Command, &ready, &mut wire.out);
                        let metadata = self.socket_type.check(command::read_metadata(metadata.into())?)?;
                        wire.encrypt(session);
                        Ok(Some(Peer { minor_version: *minor_version, metadata, client: Some(client) }))
                    }
                }
            }
        }
    }
}

/// What the peer's READY says.
fn null_metadata(body: &Bytes) -> Result<Metadata, HandshakeError> {
    let (name, data) = command::split(body)?;
    if name == b"READY" {
        return Ok(command::read_metadata(data)?);
    }
    Err(match command::read(body)? {
        Command::Error(reason) => HandshakeError::Peer(reason),
        _ => HandshakeError::Unexpected(format!("{:?}", String::from_utf8_lossy(name))),
    })
}

#[cfg(test)]
mod tests;
