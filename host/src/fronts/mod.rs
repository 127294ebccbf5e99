//! Fronts: what stands between clients and the core. Requests come in, replies and events go out.
//!
//! A [`Front`] turns what arrives into a [`Request`] and a [`Reply`] into what leaves, and nothing of how it does so
//! crosses this seam. Sending never waits: a client that does not read loses its replies, and nobody else notices.
//!
//! | module | what it is |
//! |---|---|
//! | [`messages`] | the front that speaks ZeroMQ messages, over a [`Transport`] that carries them |
//! | [`ipc`] | Unix sockets for clients on this machine |
//! | [`zmtp`] | the transport that faces clients, within limits |
//! | [`zeromq`] | a transport on the crate of that name, to compare with |

#[expect(clippy::disallowed_methods, reason = "sockets are made before anybody is served, and removed at the end")]
pub mod ipc;
pub mod messages;
pub mod zeromq;
pub mod zmtp;

use std::fmt::Debug;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};

use crate::config::{self, Server};
use crate::protocol::event::{Event, Notice};
use crate::protocol::reply::Reply;
use crate::protocol::request::Request;
use crate::security::origin::Address;
use crate::security::principal::Principal;

use ipc::{IpcError, IpcListeners};
pub use messages::{Frames, Inbound, Messages, Transport};

/// A request, and who waits for its answer.
#[derive(Debug)]
pub struct Asked<C> {
    /// Where the reply goes.
    pub caller: C,
    /// Who asks.
    pub principal: Principal,
    /// From where.
    pub address: Address,
    /// The request, or the reply that refuses what cannot be read.
    pub request: Result<Request, Reply>,
}

/// What the server needs of a front.
pub trait Front {
    /// A message that has not been read yet.
    type Message;
    /// The way back to a client. It says where to send, never who somebody is. When it is dropped, the request is done,
    /// answered or not.
    type Caller: Debug;

    /// Waits until messages are there, and adds them to the batch: those of clients that only say that they are alive
    /// come first; or until there is room again for a long reply. Nothing is lost if the future is dropped before it is
    /// ready.
    fn receive(&mut self, batch: &mut Vec<Self::Message>) -> impl Future<Output = ()>;

    /// The request in a message. `None` if it is not to be answered now: it comes again when its sender has read enough
    /// of what it was answered before.
    fn read(&mut self, message: Self::Message) -> Option<Asked<Self::Caller>>;

    /// Whether a reply of this length may be made now. What waits for clients is bounded; short replies always may.
    fn has_room(&self, bytes: usize) -> bool;

    /// Whether a client is known to be gone: nobody waits for its reply.
    fn is_gone(&self, caller: &Self::Caller) -> bool;

    /// Queues a reply, or drops it if the client is gone, does not read or wants none.
    fn reply(&mut self, caller: Self::Caller, reply: Reply);

    /// Queues an event for all who follow events of its kind.
    fn publish(&mut self, event: Event);

    /// Queues a notice for all who follow its topic.
    fn notify(&mut self, notice: Notice);

    /// Sets what clients may cost from now on.
    fn set_limits(&mut self, limits: &config::Limits, server: &config::Server);

    /// Sends what is queued, without waiting for anybody.
    fn flush(&mut self);

    /// Stops listening, and lets go what has been sent.
    fn close(self) -> impl Future<Output = ()>;
}

/// The ports, bound but not served yet: connections wait in the kernel's queue. So a port that is in use is found before
/// a store is opened, and nobody is answered before everything is loaded.
#[derive(Debug)]
pub struct Listeners {
    /// For requests.
    pub requests: TcpListener,
    /// For heartbeats.
    pub heartbeats: TcpListener,
    /// For events.
    pub events: TcpListener,
    /// Unix sockets for the same, if they are configured.
    pub ipc: Option<IpcListeners>,
}

/// A port cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// One of TCP.
    #[error("cannot listen on tcp://{address} (server.{key}): {error}{}", hint(error))]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The key of `[server]` that asks for it.
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

#[expect(clippy::disallowed_methods, reason = "before anybody is served, and of an address, not a name")]
fn bind(server: &Server, (port, key): (u16, &'static str)) -> Result<TcpListener, BindError> {
    let address = SocketAddr::new(server.listen_ip(), port);
    TcpListener::bind(address).map_err(|error| BindError::Tcp { address, key, error })
}
