//! The seam between the registry and ZeroMQ: requests come in as batches of frames, replies and events go out.
//!
//! No type of a ZeroMQ library crosses it. Sending never waits: a client that does not read loses its replies, and
//! nobody else notices.

pub mod ipc;
pub mod zeromq;

use std::fmt::Debug;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::config::Server;
use crate::protocol::request::Port;
use crate::security::key::PublicKey;

use ipc::{IpcError, IpcListeners};

/// The frames of a message, without the routing identity. What clients send has three at most.
pub type Frames = SmallVec<[Bytes; 3]>;

/// A message as it came in.
#[derive(Clone, Debug)]
pub struct Inbound<P> {
    /// The port it came in by.
    pub port: Port,
    /// Where it came from, and so where its reply goes.
    pub peer: P,
    /// Whose key the client has proved to hold; `None` without CURVE.
    pub client: Option<PublicKey>,
    /// The frames.
    pub frames: Frames,
}

/// What the server needs of ZeroMQ.
pub trait Transport {
    /// The way back to a client. It says where to send, never who somebody is.
    type Peer: Clone + Debug;

    /// Waits until messages are there, and adds them to the batch. Nothing is lost if the future is dropped before it
    /// is ready.
    fn receive(&mut self, batch: &mut Vec<Inbound<Self::Peer>>) -> impl Future<Output = ()>;

    /// Gives a message back if it is to be answered now. It comes again later if its sender has not read enough of what
    /// it was answered before.
    fn ready(&mut self, inbound: Inbound<Self::Peer>) -> Option<Inbound<Self::Peer>>;

    /// Queues a reply, or drops it if the peer is gone or does not read.
    fn reply(&mut self, peer: Self::Peer, frames: &[&[u8]]);

    /// Queues an event for whoever subscribes to its topic.
    fn publish(&mut self, topic: &'static str, body: Bytes);

    /// Sends what is queued, without waiting for anybody.
    fn flush(&mut self);

    /// Stops listening and lets go what has been sent.
    fn close(self) -> impl Future<Output = ()>;
}

/// The ports, bound but not served yet: whoever connects waits in the kernel's queue. So a port in use is known
/// before a store is opened, and nobody is answered before everything is loaded.
#[derive(Debug)]
pub struct Listeners {
    /// For requests.
    pub requests: TcpListener,
    /// For heartbeats.
    pub heartbeats: TcpListener,
    /// For events.
    pub events: TcpListener,
    /// The same for clients on this machine, if they are wanted.
    pub ipc: Option<IpcListeners>,
}

/// A port cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// One of TCP.
    #[error("cannot listen on tcp://{address} (server.{key}): {error}{}", hint(error))]
    Tcp {
        /// Where it should have been.
        address: SocketAddr,
        /// What says so.
        key: &'static str,
        /// What the system says.
        error: std::io::Error,
    },
    /// A Unix socket.
    #[error(transparent)]
    Ipc(#[from] IpcError),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; is another registry running?",
        std::io::ErrorKind::AddrNotAvailable => "; server.bind is no address of this machine",
        _ => "",
    }
}

impl Listeners {
    /// Binds the configured ports.
    ///
    /// # Errors
    /// The first port that cannot be bound, with its key.
    pub fn bind(server: &Server) -> Result<Self, BindError> {
        let [requests, events, heartbeats] = ports(server);
        Ok(Listeners {
            requests: bind(server, requests)?,
            events: bind(server, events)?,
            heartbeats: bind(server, heartbeats)?,
            ipc: server.ipc_dir.as_deref().map(IpcListeners::bind).transpose()?,
        })
    }

    /// All that would keep [`bind`](Self::bind) from its work now. Ports are bound for a moment, and no file is made.
    pub fn obstacles(server: &Server) -> Vec<BindError> {
        let tcp = ports(server).into_iter().filter_map(|port| bind(server, port).err());
        let ipc = server.ipc_dir.as_deref().and_then(|directory| ipc::check(directory).err());
        tcp.chain(ipc.map(BindError::Ipc)).collect()
    }
}

/// The configured ports for requests, events and heartbeats, each with its key.
fn ports(server: &Server) -> [(u16, &'static str); 3] {
    [(server.req_port, "req_port"), (server.pub_port, "pub_port"), (server.heartbeat_port, "heartbeat_port")]
}

fn bind(server: &Server, (port, key): (u16, &'static str)) -> Result<TcpListener, BindError> {
    let address = SocketAddr::new(server.listen_ip(), port);
    TcpListener::bind(address).map_err(|error| BindError::Tcp { address, key, error })
}
