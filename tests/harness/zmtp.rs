//! ZMTP 3.0 clients, written out so that tests see the very frames: a DEALER, which can send any layout, and a SUB.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::PATIENCE;

/// The flag of a frame that has others of the same message behind it.
pub const MORE: u8 = 1;
/// The flag of a frame whose length has eight bytes.
pub const LONG: u8 = 2;
/// The flag of a frame that is a command.
pub const COMMAND: u8 = 4;

struct Connection {
    stream: TcpStream,
    /// Bytes that have come, up to the end of which no message has been taken yet.
    buffer: Vec<u8>,
}

impl Connection {
    fn connect(port: u16, socket_type: &str, identity: &[u8]) -> Connection {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
        stream.set_nodelay(true).expect("the stream can be set");
        stream.set_read_timeout(Some(PATIENCE)).expect("the stream can be set");
        let mut connection = Connection { stream, buffer: Vec::new() };
        let mut greeting = [0; 64];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        connection.write(&greeting);
        let mut theirs = [0; 64];
        connection.stream.read_exact(&mut theirs).expect("the server greets");
        assert_eq!((theirs[0], theirs[9], theirs[10]), (0xff, 0x7f, 3), "a ZMTP 3 greeting");
        let mut ready = b"\x05READY".to_vec();
        for (name, value) in [("Socket-Type", socket_type.as_bytes()), ("Identity", identity)] {
            ready.push(name.len() as u8);
            ready.extend(name.as_bytes());
            ready.extend((value.len() as u32).to_be_bytes());
            ready.extend(value);
        }
        connection.write_frame(COMMAND, &ready);
        let ready = connection.read().expect("the server is ready");
        assert!(ready[0].0 & COMMAND != 0 && ready[0].1.starts_with(b"\x05READY"), "READY, got {ready:?}");
        connection
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    fn write_frame(&mut self, flags: u8, body: &[u8]) {
        self.write(&frame(flags, body));
    }

    /// The frames of the next message or command with their flags, or `None` if it is not complete within the read
    /// timeout. What has come of it by then is kept.
    fn read(&mut self) -> Option<Vec<Frame>> {
        loop {
            if let Some((frames, length)) = parse(&self.buffer) {
                self.buffer.drain(..length);
                return Some(frames);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => panic!("the server has closed the connection"),
                Ok(count) => self.buffer.extend(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) => panic!("the connection failed: {error}"),
            }
        }
    }

    fn read_message(&mut self) -> Option<Vec<Vec<u8>>> {
        let frames = self.read()?;
        let body = |(flags, body)| {
            assert_eq!(flags & COMMAND, 0, "a message, not a command: {body:?}");
            body
        };
        Some(frames.into_iter().map(body).collect())
    }
}

/// The flags and the body of a frame.
type Frame = (u8, Vec<u8>);

/// The first message, if it is complete, and its length in bytes.
fn parse(bytes: &[u8]) -> Option<(Vec<Frame>, usize)> {
    let mut frames = Vec::new();
    let mut position = 0;
    loop {
        let (flags, header, length) = frame_header(&bytes[position..])?;
        let end = position + header + length;
        frames.push((flags, bytes.get(position + header..end)?.to_vec()));
        position = end;
        if flags & MORE == 0 {
            return Some((frames, position));
        }
    }
}

/// The bytes of one frame.
pub fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 9);
    match u8::try_from(body.len()) {
        Ok(length) => bytes.extend([flags, length]),
        Err(_) => {
            bytes.push(flags | LONG);
            bytes.extend((body.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(body);
    bytes
}

/// Flags, length of the header and length of the body, if the header is complete.
pub fn frame_header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let flags = *bytes.first()?;
    if flags & LONG == 0 {
        return Some((flags, 2, usize::from(*bytes.get(1)?)));
    }
    let length: [u8; 8] = bytes.get(1..9)?.try_into().ok()?;
    Some((flags, 9, u64::from_be_bytes(length) as usize))
}

/// A DEALER.
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Connects to a port of this machine, with an identity of the server's choice.
    pub fn connect(port: u16) -> Client {
        Client::connect_as(port, b"")
    }

    /// Connects with an identity.
    pub fn connect_as(port: u16, identity: &[u8]) -> Client {
        Client { connection: Connection::connect(port, "DEALER", identity) }
    }

    /// Sends a message of these frames.
    pub fn send(&mut self, frames: &[&[u8]]) {
        let mut bytes = Vec::new();
        for (position, body) in frames.iter().enumerate() {
            let more = if position + 1 < frames.len() { MORE } else { 0 };
            bytes.extend(frame(more, body));
        }
        self.connection.write(&bytes);
    }

    /// The next message's frames.
    pub fn receive(&mut self) -> Vec<Vec<u8>> {
        self.connection.read_message().expect("the server answers")
    }

    /// The next message's frames, if one comes within this time.
    pub fn receive_within(&mut self, time: Duration) -> Option<Vec<Vec<u8>>> {
        self.connection.stream.set_read_timeout(Some(time)).expect("the stream can be set");
        let message = self.connection.read_message();
        self.connection.stream.set_read_timeout(Some(PATIENCE)).expect("the stream can be set");
        message
    }

    /// Sends a request as cgse clients do, and gives the reply.
    pub fn call(&mut self, request: Value) -> Value {
        self.send(&[b"REQ", request.to_string().as_bytes()]);
        let reply = self.receive();
        assert_eq!(reply[0], b"RESPONSE");
        serde_json::from_slice(&reply[1]).expect("a reply is JSON")
    }
}

/// A SUB that is subscribed to everything.
pub struct Subscriber {
    connection: Connection,
}

impl Subscriber {
    /// Connects to a port of this machine, and subscribes.
    pub fn connect(port: u16) -> Subscriber {
        let mut connection = Connection::connect(port, "SUB", b"");
        connection.write_frame(0, b"\x01");
        Subscriber { connection }
    }

    /// The next event: topic and body.
    pub fn next(&mut self) -> (String, Value) {
        self.next_within(PATIENCE).expect("an event comes")
    }

    /// The next event, if one comes within this time.
    pub fn next_within(&mut self, time: Duration) -> Option<(String, Value)> {
        self.connection.stream.set_read_timeout(Some(time)).expect("the stream can be set");
        let message = self.connection.read_message()?;
        let [topic, body] = &message[..] else { panic!("an event has two frames, not {}", message.len()) };
        let body = serde_json::from_slice(body).expect("an event is JSON");
        Some((String::from_utf8_lossy(topic).into_owned(), body))
    }
}
