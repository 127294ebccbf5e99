//! A client's end of a ZMTP 3.0 connection with the NULL mechanism, which waits, and can be as rude as it likes.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;
use socket2::{Domain, Socket, Type};

use crate::Result;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;
/// Longer than any attack keeps a registry busy that is worth measuring.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// What every reply has.
#[derive(Deserialize)]
pub(crate) struct Reply {
    pub(crate) success: bool,
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    error: String,
}

impl Reply {
    /// In a word or two.
    pub(crate) fn text(&self) -> &str {
        match (self.success, &*self.code) {
            (true, _) => "done",
            (false, "") => &self.error,
            (false, code) => code,
        }
    }
}

impl Client {
    /// Connects as a DEALER.
    pub(crate) fn connect(port: u16) -> Result<Self> {
        Client::open(port, "DEALER", None)
    }

    /// Connects as a DEALER or a SUB, with room for so many bytes that it has not read, if that is said.
    pub(crate) fn open(port: u16, socket_type: &str, room_bytes: Option<usize>) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(bytes) = room_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::with_capacity(1 << 16, stream.try_clone()?);
        let mut client = Client { stream, reader };
        // Signature, version 3.0, mechanism NULL, filled up.
        let mut greeting = [0; 64];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        client.write(&greeting)?;
        client.reader.read_exact(&mut greeting)?;
        let mut ready = b"\x05READY\x0bSocket-Type".to_vec();
        ready.extend((socket_type.len() as u32).to_be_bytes());
        ready.extend(socket_type.as_bytes());
        client.write(&frame(COMMAND, &ready))?;
        let (flags, _) = client.frame()?;
        if flags & COMMAND == 0 {
            return Err("the registry's first frame is no command".into());
        }
        Ok(client)
    }

    /// Another handle on the connection's sending side.
    pub(crate) fn sender(&self) -> Result<TcpStream> {
        Ok(self.stream.try_clone()?)
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, body: &[u8]) -> Result<()> {
        self.write(&message(body))
    }

    /// The last frame of the next message.
    pub(crate) fn receive(&mut self) -> Result<Vec<u8>> {
        loop {
            let (flags, body) = self.frame()?;
            if flags & (COMMAND | MORE) == 0 {
                return Ok(body);
            }
        }
    }

    /// Whether more has been read already than was taken.
    pub(crate) fn has_more(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// The next reply.
    pub(crate) fn reply(&mut self) -> Result<Reply> {
        let body = self.receive()?;
        serde_json::from_slice(&body)
            .map_err(|error| format!("{error} in {}", String::from_utf8_lossy(&body[..body.len().min(200)])).into())
    }

    /// Sends a request and waits for its reply.
    pub(crate) fn ask(&mut self, body: &[u8]) -> Result<Reply> {
        self.send(body)?;
        self.reply()
    }

    fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.reader.read_exact(&mut head)?;
        let [flags, length] = head;
        let length = if flags & LONG == 0 {
            u64::from(length)
        } else {
            let mut bytes = [length, 0, 0, 0, 0, 0, 0, 0];
            self.reader.read_exact(&mut bytes[1..])?;
            u64::from_be_bytes(bytes)
        };
        let mut body = vec![0; usize::try_from(length)?];
        self.reader.read_exact(&mut body)?;
        Ok((flags, body))
    }
}

/// A request as the bytes that go over the connection, framed as cgse's clients do.
pub(crate) fn message(body: &[u8]) -> Vec<u8> {
    let mut bytes = frame(MORE, b"REQ");
    bytes.extend(frame(0, body));
    bytes
}

/// The bytes of one frame.
pub(crate) fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 9);
    match u8::try_from(body.len()) {
        Ok(length) => bytes.extend([flags, length]),
        Err(_) => {
            bytes.push(flags | LONG);
            bytes.extend((body.len() as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(body);
    bytes
}
