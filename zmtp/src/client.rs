//! The connecting side: one connection to a server, over TCP or a Unix socket, with or without CURVE.
//!
//! It is not made again when it is lost: only its user knows what was lost with it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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
/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 * 1024;

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

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A connection that is ready.
pub struct Client {
    stream: Box<dyn Stream>,
    wire: Wire,
    assembly: Assembly,
    local_address: Option<SocketAddr>,
    knows_ping: bool,
    heard: Instant,
}

impl Client {
    /// Connects, and does the handshake: CURVE if there are keys, else NULL. `socket_type` is `REQ`, `SUB` and the like.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(address: &Address, socket_type: &str, keys: Option<&Keys>) -> Result<Self, ClientError> {
        let mut local_address = None;
        let stream: Box<dyn Stream> = match address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                local_address = Some(stream.local_addr()?);
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        let (wire, assembly) = (Wire::default(), Assembly::default());
        let mut client = Client { stream, wire, assembly, local_address, knows_ping: false, heard: Instant::now() };
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
        let minor = loop {
            match greeting::read_from(Side::Server, self.wire.input.peek(), mechanism)? {
                Some(minor) => break minor,
                None => self.read().await?.then_some(()).ok_or(ClientError::Handshake(""))?,
            }
        };
        self.knows_ping = minor >= 1;
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
        self.put(frames);
        self.flush().await
    }

    /// Takes a message of at least one frame, which is sent by whatever waits next: [`receive`](Self::receive), say.
    pub fn put(&mut self, frames: &[&[u8]]) {
        let Some((last, first)) = frames.split_last() else { return };
        first.iter().for_each(|frame| self.wire.put(Kind::Message { more: true }, frame));
        self.wire.put(Kind::Message { more: false }, last);
    }

    /// Takes a PING, which is sent as a message is. `false` if the server's version knows none.
    pub fn put_ping(&mut self, ttl: Duration) -> bool {
        let tenths = u16::try_from(ttl.as_millis() / 100).unwrap_or(u16::MAX);
        if self.knows_ping {
            self.wire.put(Kind::Command, &command::body("PING", &tenths.to_be_bytes()));
        }
        self.knows_ping
    }

    /// Sends of what was taken as much as goes without waiting: for somebody who must not wait any more.
    pub fn send_now(&mut self) {
        while !self.wire.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(&mut Context::from_waker(Waker::noop()), &self.wire.out) {
                Poll::Ready(Ok(written)) if written > 0 => self.wire.out.advance(written),
                _ => return,
            }
        }
    }

    /// How long nothing has come.
    pub fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// This end of the connection, if it is one over TCP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    /// Waits for the next message, and sends meanwhile what was taken. Nothing is lost if the future is dropped before
    /// it is ready.
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
                    continue;
                }
                match command::read(&frame.body)? {
                    Command::Ping { context, .. } => {
                        self.wire.put(Kind::Command, &command::body("PONG", &context));
                    }
                    Command::Error(reason) => return Err(ClientError::Server(reason)),
                    _ => {}
                }
            }
            self.read().await?.then_some(()).ok_or(ClientError::Closed)?;
        }
    }

    /// Reads what is there, and writes meanwhile what is to go: a server that waits for its replies to be read need not
    /// read. `false` if nothing more will come.
    async fn read(&mut self) -> Result<bool, ClientError> {
        let mut buffer = [0; READ_BYTES];
        let count = poll_fn(|context| {
            let written = self.poll_flush(context);
            let mut buffer = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(read) => Poll::Ready(read.map(|()| buffer.filled().len())),
                // Only now: a server that is gone may have said something before.
                Poll::Pending => match written {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    _ => Poll::Pending,
                },
            }
        });
        let count = count.await?;
        if count > 0 {
            self.heard = Instant::now();
            self.wire.input.feed(BytesMut::from(&buffer[..count]));
        }
        Ok(count > 0)
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        Ok(poll_fn(|context| self.poll_flush(context)).await?)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.wire.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.wire.out) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.wire.out.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

    /// A server of ZMTP 3 in this minor version, and its client.
    async fn pair(minor: u8) -> (TcpStream, Client) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp("127.0.0.1".into(), listener.local_addr().unwrap().port());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = BytesMut::from(&greeting::ours(Mechanism::Null)[..]);
            bytes[11] = minor;
            codec::put_frame(Kind::Command, &command::body("READY", &command::metadata("ROUTER")), &mut bytes);
            stream.write_all(&bytes).await.unwrap();
            // The greeting and the READY of the client.
            let mut theirs = [0; GREETING_BYTES + 2 + 6 + 12 + 4 + 6 + 9 + 4];
            stream.read_exact(&mut theirs).await.unwrap();
            stream
        };
        let (stream, client) = tokio::join!(server, Client::connect(&address, "DEALER", None));
        (stream, client.unwrap())
    }

    fn message(body: &[u8]) -> BytesMut {
        let mut bytes = BytesMut::new();
        codec::put_frame(Kind::Message { more: false }, body, &mut bytes);
        bytes
    }

    #[tokio::test]
    async fn a_ping_is_for_those_who_know_it() {
        for (minor, is_sent) in [(0, false), (1, true)] {
            let (mut stream, mut client) = pair(minor).await;
            assert_eq!(client.put_ping(Duration::from_secs(2)), is_sent);
            client.send(&[b"end"]).await.unwrap();
            let mut expected = BytesMut::new();
            if is_sent {
                codec::put_frame(Kind::Command, b"\x04PING\x00\x14", &mut expected);
            }
            expected.extend_from_slice(&message(b"end"));
            let mut sent = vec![0; expected.len()];
            stream.read_exact(&mut sent).await.unwrap();
            assert_eq!(sent, expected, "to ZMTP 3.{minor}");
        }
    }

    #[tokio::test]
    async fn what_was_put_leaves_while_a_message_is_waited_for_however_much_it_is() {
        const COUNT: usize = 20_000;
        let (mut stream, mut client) = pair(1).await;
        let long = vec![7; 1000];
        (0..COUNT).for_each(|_| client.put(&[&long]));
        // A server that reads nothing before its own words are read.
        let server = async {
            for _ in 0..COUNT {
                stream.write_all(&message(&long)).await.unwrap();
            }
            let mut all = vec![0; COUNT * message(&long).len()];
            stream.read_exact(&mut all).await.unwrap();
            stream.write_all(&message(b"end")).await.unwrap();
        };
        let client = async {
            while client.receive().await.unwrap()[0] != b"end"[..] {}
            assert!(client.silence() < Duration::from_secs(10) && client.local_address().is_some());
        };
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(server, client) })
            .await
            .expect("both go on");
    }

    #[tokio::test]
    async fn what_a_server_said_before_it_went_is_heard() {
        let (mut stream, mut client) = pair(1).await;
        let mut bytes = message(b"last");
        command::put_error("too many", &mut bytes);
        stream.write_all(&bytes).await.unwrap();
        drop(stream);
        client.put(&[b"nobody reads this"]);
        assert_eq!(client.receive().await.unwrap()[0], b"last"[..]);
        assert_eq!(client.receive().await.unwrap_err().to_string(), "the server gave up: too many");
    }
}
