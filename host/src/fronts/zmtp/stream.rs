//! TCP and Unix sockets as one.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener, tcp, unix};
use tokio_util::io::poll_read_buf;

/// How soon the kernel asks a silent peer that has no heartbeats of its own, and how often until it gives up.
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10)).with_retries(6);

/// How many connections may wait in the kernel until they are let in. The standard library's 128 are soon used up when
/// many connect at the same time, and a client that finds no place tries again only after a second.
pub(in crate::fronts) const BACKLOG: i32 = 4096;

/// Where connections come in.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A file.
    Unix(UnixListener),
}

/// What has come from a peer.
#[derive(Debug)]
pub enum Reader {
    /// Over a port.
    Tcp(tcp::OwnedReadHalf),
    /// Over a file.
    Unix(unix::OwnedReadHalf),
}

/// What goes to a peer. Without it the connection is over.
#[derive(Debug)]
pub enum Writer {
    /// Over a port.
    Tcp(tcp::OwnedWriteHalf),
    /// Over a file.
    Unix(unix::OwnedWriteHalf),
}

impl Listener {
    /// Takes over a listener for use with tokio.
    ///
    /// # Errors
    /// What the system says.
    pub fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        SockRef::from(&listener).listen(BACKLOG)?;
        TcpListener::from_std(listener).map(Listener::Tcp)
    }

    /// Takes over a listener for use with tokio.
    ///
    /// # Errors
    /// What the system says.
    pub fn unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        SockRef::from(&listener).listen(BACKLOG)?;
        UnixListener::from_std(listener).map(Listener::Unix)
    }

    /// Waits for a connection. The address is that of a peer's machine.
    ///
    /// # Errors
    /// What the system says: it may be out of file descriptors.
    pub async fn accept(&self) -> io::Result<(Reader, Writer, Option<SocketAddr>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                prepare(&stream);
                let (reader, writer) = stream.into_split();
                Ok((Reader::Tcp(reader), Writer::Tcp(writer), Some(address)))
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let (reader, writer) = stream.into_split();
                Ok((Reader::Unix(reader), Writer::Unix(writer), None))
            }
        }
    }
}

/// Neither option is needed for being right, and a peer may be gone already: so errors do not matter.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE);
}

impl Reader {
    /// Reads what is there into the free space of the buffer. 0 bytes mean that the peer sends no more.
    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Reader::Tcp(reader) => poll_read_buf(Pin::new(reader), context, buffer),
            Reader::Unix(reader) => poll_read_buf(Pin::new(reader), context, buffer),
        }
    }
}

impl Writer {
    /// Writes as much as can be written without waiting.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Writer::Tcp(writer) => writer.try_write(bytes),
            Writer::Unix(writer) => writer.try_write(bytes),
        }
    }

    /// The same with several pieces, one behind the other.
    pub fn try_write_vectored(&self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Writer::Tcp(writer) => writer.try_write_vectored(pieces),
            Writer::Unix(writer) => writer.try_write_vectored(pieces),
        }
    }

    /// Whether more can be written.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Writer::Tcp(writer) => writer.as_ref().poll_write_ready(context),
            Writer::Unix(writer) => writer.as_ref().poll_write_ready(context),
        }
    }

    /// Tells the peer that no more will come.
    pub fn shut_down(&self) {
        // A peer that is gone need not be told.
        let _ = match self {
            Writer::Tcp(writer) => SockRef::from(writer.as_ref()).shutdown(std::net::Shutdown::Write),
            Writer::Unix(writer) => SockRef::from(writer.as_ref()).shutdown(std::net::Shutdown::Write),
        };
    }
}
