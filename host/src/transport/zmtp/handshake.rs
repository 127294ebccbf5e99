//! From the first byte of a connection to the moment when both sides are ready
//! ([RFC 37](https://rfc.zeromq.org/spec/37/); for NULL, "The NULL Security Mechanism").
//!
//! A pure state machine: bytes in, bytes out, and in the end a [`Peer`].

use bytes::{Bytes, BytesMut};

use super::codec::{self, Decoder, FrameError, Kind};
use super::command::{self, Command, CommandError, Metadata};
use super::greeting::{self, GREETING_BYTES, GreetingError, Mechanism};

/// The longest command of a handshake, in bytes. The peer's metadata are in one of them.
const COMMAND_BYTES_MAX: usize = 8192;

/// What the server's side of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes requests and answers them.
    Router,
    /// Takes subscriptions and sends events.
    Publisher,
}

impl Role {
    fn socket_type(self) -> &'static str {
        match self {
            Role::Router => "ROUTER",
            // It wants to see subscriptions, but to its peers it is a PUB.
            Role::Publisher => "PUB",
        }
    }

    /// The peers that RFC 37 lets it talk to.
    fn peers(self) -> &'static [&'static str] {
        match self {
            Role::Router => &["REQ", "DEALER", "ROUTER"],
            Role::Publisher => &["SUB", "XSUB"],
        }
    }
}

/// Who is at the other end, when both sides are ready.
#[derive(Debug)]
pub struct Peer {
    /// The 1 of ZMTP 3.1; 0 for those that know neither PING nor SUBSCRIBE.
    pub minor_version: u8,
    /// What it says of itself.
    pub metadata: Metadata,
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
}

/// A handshake under way.
#[derive(Debug)]
pub struct Handshake {
    role: Role,
    mechanism: Mechanism,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Greeting,
    Ready { minor_version: u8 },
}

impl Handshake {
    /// Begins one: appends what the server says first.
    pub fn begin(role: Role, out: &mut BytesMut) -> Self {
        let mechanism = Mechanism::Null;
        out.extend_from_slice(&greeting::ours(mechanism));
        Handshake { role, mechanism, stage: Stage::Greeting }
    }

    /// Goes on with what has come, and appends what is to be answered. When both sides are ready, the peer comes back,
    /// and what is left in the decoder is its first traffic.
    ///
    /// # Errors
    /// If nothing can come of it. What was appended then tells the peer why, if it can be told.
    pub fn advance(&mut self, input: &mut Decoder, out: &mut BytesMut) -> Result<Option<Peer>, HandshakeError> {
        if let Stage::Greeting = self.stage {
            let Some(minor_version) = greeting::read(input.peek(), self.mechanism)? else { return Ok(None) };
            input.take(GREETING_BYTES);
            let ready = command::body("READY", &command::metadata(self.role.socket_type()));
            codec::put_frame(Kind::Command, &ready, out);
            self.stage = Stage::Ready { minor_version };
        }
        let Stage::Ready { minor_version } = self.stage else { return Ok(None) };
        let Some(frame) = input.next_frame(COMMAND_BYTES_MAX)? else { return Ok(None) };
        if frame.kind != Kind::Command {
            return Err(HandshakeError::Unexpected("a message".into()));
        }
        let metadata = self.metadata(&frame.body).inspect_err(|error| {
            if !matches!(error, HandshakeError::Peer(_)) {
                command::put_error(&error.to_string(), out);
            }
        })?;
        Ok(Some(Peer { minor_version, metadata }))
    }

    /// What the peer's READY says.
    fn metadata(&self, body: &Bytes) -> Result<Metadata, HandshakeError> {
        let (name, data) = command::split(body)?;
        if name != b"READY" {
            return Err(match command::read(body)? {
                Command::Error(reason) => HandshakeError::Peer(reason),
                _ => HandshakeError::Unexpected(format!("{:?}", String::from_utf8_lossy(name))),
            });
        }
        let metadata = command::read_metadata(data)?;
        let fits = self.role.peers().iter().any(|peer| peer.as_bytes() == &metadata.socket_type[..]);
        if !fits {
            let theirs = String::from_utf8_lossy(&metadata.socket_type).into_owned();
            return Err(HandshakeError::SocketType { theirs, ours: self.role.socket_type() });
        }
        Ok(metadata)
    }
}
