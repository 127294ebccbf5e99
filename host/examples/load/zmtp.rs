//! A client's end of a ZMTP 3.0 connection with the NULL mechanism, which never waits.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::Result;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;
const GREETING_BYTES: usize = 64;
/// How long the server may take to accept its first connection.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// What the client is.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Kind {
    /// Sends ["REQ", json], as cgse's clients do.
    Dealer,
    /// Sends ["", json].
    Req,
    /// A DEALER that sends [json].
    #[value(skip)]
    Bare,
    /// A subscriber to everything.
    #[value(skip)]
    Sub,
}

impl Kind {
    fn socket_type(self) -> &'static str {
        match self {
            Kind::Dealer | Kind::Bare => "DEALER",
            Kind::Req => "REQ",
            Kind::Sub => "SUB",
        }
    }

    /// A request as the bytes that go over the connection.
    pub(crate) fn message(self, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Kind::Dealer => push_frame(&mut bytes, b"REQ", MORE),
            Kind::Req => push_frame(&mut bytes, b"", MORE),
            Kind::Bare | Kind::Sub => {}
        }
        push_frame(&mut bytes, body, 0);
        bytes
    }
}

/// How far the handshake is.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Greeting,
    Ready,
    Done,
}

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    kind: Kind,
    stage: Stage,
    /// What the network has not taken yet.
    out: Vec<u8>,
    /// The beginning of what has not come as a whole yet.
    rest: Vec<u8>,
}

impl Connection {
    /// Connects, again and again while nobody listens yet, and has `poll` tell of the connection under that token.
    pub(crate) fn open(address: SocketAddr, kind: Kind, poll: &Registry, token: Token) -> Result<Self> {
        let start = Instant::now();
        let stream = loop {
            match std::net::TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() > START_TIMEOUT => {
                    return Err(format!("cannot connect to {address}: {error}").into());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let mut connection = Connection { stream, kind, stage: Stage::Greeting, out: Vec::new(), rest: Vec::new() };
        // Signature, version 3.0, mechanism NULL, filled up.
        let mut greeting = [0; GREETING_BYTES];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        connection.send(&greeting)?;
        Ok(connection)
    }

    /// Whether the handshake is done.
    pub(crate) fn is_ready(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Sends bytes: now, or with a later [`flush`](Self::flush) what the network does not take.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.extend_from_slice(bytes);
        self.flush()
    }

    /// Adds bytes to what the next [`flush`](Self::flush) sends.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Sends what the network takes.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.stream.write(&self.out[sent..]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.out.drain(..sent);
        Ok(())
    }

    /// Reads what is there, and hands on the last frame of each message. `buffer` is working space.
    pub(crate) fn receive(&mut self, buffer: &mut [u8], mut message: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        loop {
            // What was kept is read on from.
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            let length = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err("the server has closed a connection".into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let filled = kept + length;
            let mut bytes = &buffer[..filled];
            self.take(&mut bytes, &mut message)?;
            self.rest.clear();
            self.rest.extend_from_slice(bytes);
            // Less than there was room for means that nothing is left.
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, bytes: &mut &[u8], message: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if self.stage == Stage::Greeting {
            let Some((_, rest)) = bytes.split_at_checked(GREETING_BYTES) else { return Ok(()) };
            *bytes = rest;
            self.stage = Stage::Ready;
            self.send(&ready(self.kind))?;
        }
        while let Some((flags, body)) = next_frame(bytes) {
            match flags & (COMMAND | MORE) {
                0 => message(body)?,
                COMMAND if self.stage == Stage::Ready => {
                    self.stage = Stage::Done;
                    if self.kind == Kind::Sub {
                        let subscription = self.kind.message(&[1]);
                        self.send(&subscription)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The command READY with the one property that is required.
fn ready(kind: Kind) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend((kind.socket_type().len() as u32).to_be_bytes());
    body.extend(kind.socket_type().as_bytes());
    let mut bytes = Vec::new();
    push_frame(&mut bytes, &body, COMMAND);
    bytes
}

/// Takes a frame off the bytes, if it is complete: its flags and its body.
fn next_frame<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (flags, length, body) = match **bytes {
        [flags, length, ref body @ ..] if flags & LONG == 0 => (flags, u64::from(length), body),
        [flags, a, b, c, d, e, f, g, h, ref body @ ..] => (flags, u64::from_be_bytes([a, b, c, d, e, f, g, h]), body),
        _ => return None,
    };
    let (body, rest) = body.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some((flags, body))
}

fn push_frame(out: &mut Vec<u8>, body: &[u8], flags: u8) {
    match u8::try_from(body.len()) {
        Ok(length) => out.extend([flags, length]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend((body.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}
