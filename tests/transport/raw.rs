//! A client that sends any bytes and takes whatever comes, an end too.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::harness::PATIENCE;
use crate::harness::zmtp::{COMMAND, MORE, frame, frame_header};

/// What a ZMTP 3 client says first.
pub fn greeting(minor_version: u8, mechanism: &str) -> Vec<u8> {
    let mut greeting = vec![0; 64];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[11] = minor_version;
    greeting[12..12 + mechanism.len()].copy_from_slice(mechanism.as_bytes());
    greeting
}

/// A command.
pub fn command(name: &str, data: &[u8]) -> Vec<u8> {
    frame(COMMAND, &[&[name.len() as u8], name.as_bytes(), data].concat())
}

/// What a client says of itself.
pub fn ready(socket_type: &str, identity: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for (name, value) in [("Socket-Type", socket_type.as_bytes()), ("Identity", identity)] {
        data.push(name.len() as u8);
        data.extend(name.as_bytes());
        data.extend((value.len() as u32).to_be_bytes());
        data.extend(value);
    }
    command("READY", &data)
}

/// All that a client sends before it is ready.
pub fn hello(socket_type: &str, identity: &[u8]) -> Vec<u8> {
    [greeting(1, "NULL"), ready(socket_type, identity)].concat()
}

/// A message.
pub fn message(frames: &[&[u8]]) -> Vec<u8> {
    let last = frames.len() - 1;
    let flags = |position| if position < last { MORE } else { 0 };
    frames.iter().enumerate().flat_map(|(position, body)| frame(flags(position), body)).collect()
}

/// A request.
pub fn request(request: &Value) -> Vec<u8> {
    message(&[request.to_string().as_bytes()])
}

/// A connection.
pub struct Raw {
    stream: TcpStream,
    /// What has come and was not taken.
    bytes: Vec<u8>,
}

impl Raw {
    /// Connects, and says nothing.
    pub fn open(port: u16) -> Raw {
        Raw::open_from([127, 0, 0, 1], port).expect("the port is open")
    }

    /// Connects from an address of this machine.
    pub fn open_from(address: [u8; 4], port: u16) -> std::io::Result<Raw> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if address != [127, 0, 0, 1] {
            socket.bind(&SocketAddr::from((address, 0)).into())?;
        }
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Raw { stream, bytes: Vec::new() })
    }

    /// Connects and is ready, with as little room for what comes as the kernel gives: what is not read waits in the host.
    pub fn narrow(port: u16, socket_type: &str) -> Raw {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is a socket");
        socket.set_recv_buffer_size(4096).expect("the socket can be set");
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("the port is open");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("the stream can be set");
        let mut raw = Raw { stream, bytes: Vec::new() };
        raw.send(&hello(socket_type, b""));
        raw.expect_ready();
        raw
    }

    /// Connects and is ready, as far as the client is concerned: what the server says is not read.
    pub fn unread(port: u16, socket_type: &str, identity: &[u8]) -> Raw {
        let mut raw = Raw::open(port);
        raw.send(&hello(socket_type, identity));
        raw
    }

    /// Connects, says this and gets the server's READY.
    pub fn said(port: u16, hello: &[u8]) -> Raw {
        let mut raw = Raw::open(port);
        raw.send(hello);
        raw.expect_ready();
        raw
    }

    /// Another handle to the same connection, for sending while this one reads.
    pub fn second(&self) -> Raw {
        Raw { stream: self.stream.try_clone().expect("there is a file for it"), bytes: Vec::new() }
    }

    /// Connects as a DEALER that is ready.
    pub fn dealer(port: u16) -> Raw {
        Raw::said(port, &hello("DEALER", b""))
    }

    /// Connects as a SUB that is ready, and subscribes to everything.
    pub fn subscriber(port: u16) -> Raw {
        let mut raw = Raw::said(port, &hello("SUB", b""));
        raw.send(&command("SUBSCRIBE", b""));
        raw
    }

    /// Takes the server's greeting and READY.
    pub fn expect_ready(&mut self) {
        assert!(self.is_let_in(), "the server closes the connection before it is ready");
    }

    /// Takes the server's greeting, and what it answers: whether that is READY.
    pub fn is_let_in(&mut self) -> bool {
        while self.bytes.len() < 64 {
            if !self.fill() {
                return false;
            }
        }
        self.bytes.drain(..64);
        self.frame().is_some_and(|(flags, body)| flags & COMMAND != 0 && body.starts_with(b"\x05READY"))
    }

    /// Sends bytes. Whether they could be sent: the server may have closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if is_end(&error) => false,
            Err(error) => panic!("the server neither reads nor closes: {error}"),
        }
    }

    /// Sends as much of these bytes as goes without waiting: how many that were.
    pub fn send_some(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.set_nonblocking(true)?;
        let sent = self.stream.write(bytes);
        self.stream.set_nonblocking(false)?;
        match sent {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }

    /// Reads all that is there and passes it over: `false` if the connection is closed.
    pub fn skip(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("the stream can be set");
        let mut bytes = vec![0; 256 * 1024];
        let end = loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.stream.set_nonblocking(false).expect("the stream can be set");
        end
    }

    /// Tells the server that nothing more comes.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The next frame with its flags, or `None` if the connection is closed before.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((flags, header, length)) = frame_header(&self.bytes)
                && let Some(body) = self.bytes.get(header..header + length)
            {
                let body = body.to_vec();
                self.bytes.drain(..header + length);
                return Some((flags, body));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// The body of the next reply, which has no other frame. PINGs are answered on the way.
    pub fn reply(&mut self) -> Value {
        loop {
            let (flags, body) = self.frame().expect("the connection stays");
            match flags & COMMAND {
                0 => return serde_json::from_slice(&body).expect("a reply is JSON"),
                _ if body.starts_with(b"\x04PING") => assert!(self.send(&command("PONG", &body[7..]))),
                _ => panic!("a reply, not the command {body:?}"),
            }
        }
    }

    /// Sends a request and takes the reply.
    pub fn call(&mut self, asked: &Value) -> Value {
        assert!(self.send(&request(asked)), "the connection stays");
        self.reply()
    }

    /// Reads the rest, until the server closes the connection: what came, frames and all.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.bytes)
    }

    /// Whether the server closes the connection within this time. What else comes is passed over.
    pub fn closes_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        self.bytes.clear();
        let closed = loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            self.stream.set_read_timeout(Some(left)).expect("the stream can be set");
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) if is_end(&error) => break true,
                Err(_) => {}
            }
        };
        self.stream.set_read_timeout(Some(PATIENCE)).expect("the stream can be set");
        closed
    }

    /// Whether the server ends the connection though nothing is read that it sends.
    pub fn is_dropped(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            // More is sent, since nothing else tells.
            match self.send_some(&message(&[b"?"])) {
                Ok(_) => std::thread::sleep(Duration::from_millis(1)),
                Err(_) => return true,
            }
        }
        false
    }

    /// Whether something comes within this time. It is kept.
    pub fn has_something_within(&mut self, time: Duration) -> bool {
        if self.bytes.is_empty() {
            self.stream.set_read_timeout(Some(time)).expect("the stream can be set");
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_read_timeout(Some(PATIENCE)).expect("the stream can be set");
            return peeked.is_ok_and(|count| count > 0);
        }
        true
    }

    /// Leaves as a process does that is killed with bytes unread: by a reset.
    pub fn leave_at_once(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Reads what is there: `false` if the connection is closed.
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(count) => {
                self.bytes.extend(&bytes[..count]);
                count > 0
            }
            Err(error) if is_end(&error) => false,
            Err(error) => panic!("the server neither sends nor closes: {error}"),
        }
    }
}

fn is_end(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted)
}
