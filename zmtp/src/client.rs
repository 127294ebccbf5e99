//! The connecting side: one connection to a server, over TCP or a Unix socket, with or without CURVE.
//!
//! It is not made again when it is lost: only its user knows what was lost with it.

use std::io;
use std::path::PathBuf;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::Frames;
use crate::keys::key::{KeyPair, PublicKey};

use super::assembly::{Assembly, TooLarge};
use super::codec::{self, FrameError, Kind};
use super::command::{self, Command, CommandError, Metadata};
use super::curve::{self, ClientHandshake, ClientStep};
use super::greeting::{self, GREETING_BYTES, GreetingError, Mechanism, Side};
use super::wire::{Wire, WireError};

/// The longest message that is taken, in bytes. What a registry lists can be long; only a mistake is longer than this.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
const FRAMES_MAX: usize = 64;

/// Where a server is.
#[derive(Clone, Debug)]
pub enum Address {
    /// A host's name or address, and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// What a client needs for CURVE.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Who it is.
    pub own: KeyPair,
    /// Who the server has to be.
    pub server: PublicKey,
}

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ClientError {
    #[error(transparent)]
    Network(#[from] io::Error),
    #[error("the connection was closed during the handshake{0}")]
    Handshake(&'static str),
    #[error("the connection was closed")]
    Closed,
    #[error("{0}")]
    Greeting(#[from] GreetingError),
    #[error(transparent)]
    Curve(#[from] curve::HandshakeError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("the server gave up: {0}")]
    Server(String),
    #[error(
        "your public key {key} is not authorized{}: copy your .key file (not .key_secret) into the registry's directory \
         of clients",
        if *reads { ", or not allowed to read" } else { "" }
    )]
    NotAuthorized { key: PublicKey, reads: bool },
    #[error("this is no port for {wanted}, but {}", port_of(theirs))]
    WrongPort { theirs: String, wanted: &'static str },
}

/// What a server's socket of this type is for.
fn port_of(socket_type: &str) -> String {
    match socket_type {
        "ROUTER" | "REP" => "one for requests or heartbeats".to_string(),
        "PUB" | "XPUB" => "one for events".to_string(),
        other => format!("a {other:?} socket, which no registry has"),
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// A connection that is ready.
pub struct Client {
    stream: Box<dyn Stream>,
    wire: Wire,
    assembly: Assembly,
}

impl Client {
    /// Connects, and does the handshake: CURVE if there are keys, else NULL. `socket_type` is `REQ`, `SUB` and the like.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(address: &Address, socket_type: &str, keys: Option<&Keys>) -> Result<Self, ClientError> {
        let stream: Box<dyn Stream> = match address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        let mut client = Client { stream, wire: Wire::default(), assembly: Assembly::default() };
        client.greet(if keys.is_some() { Mechanism::Curve } else { Mechanism::Null }).await?;
        let metadata = command::metadata(socket_type);
        let theirs = match keys {
            Some(keys) => client.prove(keys, metadata.to_vec()).await.map_err(|error| match error {
                // What a ZAP handler would answer: that the key is unknown, or may not do this.
                ClientError::Curve(curve::HandshakeError::Refused(status)) if status == "400" => {
                    ClientError::NotAuthorized { key: *keys.own.public(), reads: socket_type == "SUB" }
                }
                error => error,
            })?,
            None => {
                client.put_command(&command::body("READY", &metadata));
                let ready = client.handshake_command(": does the server want keys?").await?;
                match command::split(&ready)? {
                    (b"READY", metadata) => command::read_metadata(metadata)?,
                    _ => return Err(not_ready(&ready)),
                }
            }
        };
        check_port(socket_type, &theirs.socket_type)?;
        Ok(client)
    }

    async fn greet(&mut self, mechanism: Mechanism) -> Result<(), ClientError> {
        self.wire.out.extend_from_slice(&greeting::theirs(mechanism));
        self.flush().await?;
        while greeting::read_from(Side::Server, self.wire.input.peek(), mechanism)?.is_none() {
            self.read().await?.then_some(()).ok_or(ClientError::Handshake(""))?;
        }
        self.wire.input.take(GREETING_BYTES);
        Ok(())
    }

    /// CURVE's handshake.
    async fn prove(&mut self, keys: &Keys, metadata: Vec<u8>) -> Result<Metadata, ClientError> {
        let (mut handshake, mut say) = ClientHandshake::new(keys.own.clone(), keys.server, metadata)?;
        loop {
            self.put_command(&say);
            let heard = self.handshake_command(": is the server's public key another one?").await?;
            match handshake.receive(&heard)? {
                ClientStep::Reply(command) => say = command,
                ClientStep::Established { session, metadata } => {
                    self.wire.encrypt(session);
                    return Ok(command::read_metadata(metadata.into())?);
                }
            }
        }
    }

    /// Sends what is to go, and waits for the next command of the handshake.
    async fn handshake_command(&mut self, hint: &'static str) -> Result<Bytes, ClientError> {
        self.flush().await?;
        loop {
            if let Some(frame) = self.wire.input.next_frame(MESSAGE_BYTES_MAX)? {
                return Ok(frame.body);
            }
            self.read().await?.then_some(()).ok_or(ClientError::Handshake(hint))?;
        }
    }

    fn put_command(&mut self, body: &[u8]) {
        codec::put_frame(Kind::Command, body, &mut self.wire.out);
    }

    /// Sends a message of at least one frame.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn send(&mut self, frames: &[&[u8]]) -> Result<(), ClientError> {
        let Some((last, first)) = frames.split_last() else { return Ok(()) };
        first.iter().for_each(|frame| self.wire.put(Kind::Message { more: true }, frame));
        self.wire.put(Kind::Message { more: false }, last);
        self.flush().await
    }

    /// Waits for the next message. Nothing is lost if the future is dropped before it is ready.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn receive(&mut self) -> Result<Frames, ClientError> {
        loop {
            while let Some(frame) = self.wire.next_frame(MESSAGE_BYTES_MAX)? {
                if let Kind::Message { more } = frame.kind {
                    if let Some(frames) = self.assembly.add(frame.body, more, FRAMES_MAX, MESSAGE_BYTES_MAX)? {
                        return Ok(frames);
                    }
                } else if let Command::Ping { context, .. } = command::read(&frame.body)? {
                    self.wire.put(Kind::Command, &command::body("PONG", &context));
                }
            }
            self.flush().await?;
            self.read().await?.then_some(()).ok_or(ClientError::Closed)?;
        }
    }

    /// Reads what is there. `false` if nothing more will come.
    async fn read(&mut self) -> Result<bool, ClientError> {
        let mut bytes = bytes::BytesMut::with_capacity(16 * 1024);
        if self.stream.read_buf(&mut bytes).await? == 0 {
            return Ok(false);
        }
        self.wire.input.feed(bytes);
        Ok(true)
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        while !self.wire.out.is_empty() {
            let written = self.stream.write(&self.wire.out).await?;
            self.wire.out.advance(written);
        }
        Ok(())
    }
}

/// Why something else came than READY.
fn not_ready(command: &Bytes) -> ClientError {
    match command::read(command) {
        Ok(Command::Error(reason)) => ClientError::Server(reason),
        Ok(_) => ClientError::Handshake(": expected READY, got another command"),
        Err(error) => ClientError::Command(error),
    }
}

/// Whether the server's socket answers ours.
fn check_port(ours: &str, theirs: &[u8]) -> Result<(), ClientError> {
    let (wanted, expected): (_, &[&[u8]]) = match ours {
        "SUB" => ("events", &[b"PUB", b"XPUB"]),
        _ => ("requests", &[b"ROUTER", b"REP", b"DEALER"]),
    };
    if expected.contains(&theirs) {
        return Ok(());
    }
    Err(ClientError::WrongPort { theirs: String::from_utf8_lossy(theirs).escape_debug().to_string(), wanted })
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client with a socket of this type is told by a server that has one of that type.
    async fn met(ours: &str, theirs: &'static str) -> Result<Client, String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = bytes::BytesMut::from(&greeting::ours(Mechanism::Null)[..]);
            codec::put_frame(Kind::Command, &command::body("READY", &command::metadata(theirs)), &mut bytes);
            stream.write_all(&bytes).await.unwrap();
            stream
        };
        let address = Address::Tcp("127.0.0.1".into(), port);
        let (_stream, client) = tokio::join!(server, Client::connect(&address, ours, None));
        client.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_wrong_port_is_named_by_what_it_is_for() {
        let error = met("REQ", "PUB").await.unwrap_err();
        assert_eq!(error, "this is no port for requests, but one for events");
        let error = met("SUB", "ROUTER").await.unwrap_err();
        assert_eq!(error, "this is no port for events, but one for requests or heartbeats");
        let error = met("REQ", "PULL").await.unwrap_err();
        assert_eq!(error, "this is no port for requests, but a \"PULL\" socket, which no registry has");
        met("REQ", "ROUTER").await.unwrap();
        met("SUB", "PUB").await.unwrap();
    }
}
