//! A ZMTP connection that may be lost at any moment, which is an ordinary end of it here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::harness::zmtp::{COMMAND, MORE, frame, frame_header};

/// How long a handshake may take: a host may be held up meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Wire {
    stream: TcpStream,
    /// Bytes that have come, up to the end of which no message has been taken yet.
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects to a port of this machine. A receive buffer that is `small` fills up soon.
    pub(crate) fn connect(port: u16, socket_type: &str, small: bool) -> io::Result<Wire> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if small {
            socket.set_recv_buffer_size(2048)?;
        }
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut wire = Wire { stream, buffer: Vec::new() };
        let mut greeting = [0; 64];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        let mut ready = b"\x05READY".to_vec();
        for (name, value) in [("Socket-Type", socket_type.as_bytes()), ("Identity", b"")] {
            ready.push(name.len() as u8);
            ready.extend(name.as_bytes());
            ready.extend((value.len() as u32).to_be_bytes());
            ready.extend(value);
        }
        wire.stream.write_all(&[&greeting[..], &frame(COMMAND, &ready)].concat())?;
        wire.stream.set_read_timeout(Some(PATIENCE))?;
        wire.stream.read_exact(&mut [0; 64])?;
        match wire.next_frame(Instant::now() + PATIENCE)? {
            Some((flags, body)) if flags & COMMAND != 0 && body.starts_with(b"\x05READY") => Ok(wire),
            other => Err(io::Error::other(format!("{other:?} instead of READY"))),
        }
    }

    /// Subscribes to everything, and waits until that has an effect: a PING is read after it.
    pub(crate) fn subscribe(&mut self) -> io::Result<()> {
        let ping = frame(COMMAND, b"\x04PING\0\0s");
        self.stream.write_all(&[frame(0, b"\x01"), ping].concat())?;
        match self.next_frame(Instant::now() + PATIENCE)? {
            Some((flags, body)) if flags & COMMAND != 0 && body == b"\x04PONGs" => Ok(()),
            other => Err(io::Error::other(format!("{other:?} instead of PONG"))),
        }
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, frames: &[&[u8]]) -> io::Result<()> {
        let more = |at: usize| if at + 1 < frames.len() { MORE } else { 0 };
        let bytes: Vec<Vec<u8>> = frames.iter().enumerate().map(|(at, body)| frame(more(at), body)).collect();
        self.stream.write_all(&bytes.concat())
    }

    /// The last frame of the next message, if one comes within this time.
    pub(crate) fn receive(&mut self, within: Duration) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + within;
        loop {
            let Some((flags, body)) = self.next_frame(deadline)? else { return Ok(None) };
            if flags & COMMAND != 0 {
                if let Some(context) = body.strip_prefix(b"\x04PING").and_then(|rest| rest.get(2..)) {
                    self.stream.write_all(&frame(COMMAND, &[b"\x04PONG", context].concat()))?;
                }
            } else if flags & MORE == 0 {
                return Ok(Some(body));
            }
        }
    }

    fn next_frame(&mut self, deadline: Instant) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((flags, header, length)) = frame_header(&self.buffer)
                && self.buffer.len() >= header + length
            {
                let body = self.buffer[header..header + length].to_vec();
                self.buffer.drain(..header + length);
                return Ok(Some((flags, body)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.buffer.extend(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
