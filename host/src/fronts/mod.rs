//! Fronts: what stands between clients and the core. Requests come in, replies and events go out.
//!
//! A [`Front`] turns what arrives into a [`Request`] and a [`Reply`] into what leaves, and nothing of how it does so
//! crosses this seam. Sending never waits: a client that does not read loses its replies, and nobody else notices.
//!
//! | module | what it is |
//! |---|---|
//! | [`both`] | two fronts as one |
//! | [`http`] | the front that speaks HTTP, on a thread of its own |
//! | [`messages`] | the front that speaks ZeroMQ messages, over a [`Transport`] that carries them |
//! | [`metered`] | counts what passes through a front |
//! | [`roll`] | who is connected |
//! | [`ipc`] | Unix sockets for clients on this machine |
//! | [`zmtp`] | the transport that faces clients, within limits |
//! | [`zeromq`] | a transport on the crate of that name, to compare with |

pub mod both;
pub mod http;
#[expect(clippy::disallowed_methods, reason = "sockets are made before anybody is served, and removed at the end")]
pub mod ipc;
pub mod messages;
pub mod metered;
pub mod roll;
pub mod zeromq;
pub mod zmtp;

use std::fmt::Debug;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};

use crate::config::{self, Http, Server};
use crate::protocol::event::{Event, Notice};
use crate::protocol::reply::Reply;
use crate::protocol::request::Request;
use crate::security::origin::Address;
use crate::security::principal::Principal;

use ipc::{IpcError, IpcListeners};
pub use messages::{Frames, Inbound, Messages, Transport};
use roll::Roll;

/// A request, and who waits for its answer.
#[derive(Debug)]
pub struct Asked<C> {
    /// Where the reply goes.
    pub caller: C,
    /// Who asks.
    pub principal: Principal,
    /// From where.
    pub address: Address,
    /// Whether a client has asked for it: not the front, to answer what a client has asked for.
    pub is_first: bool,
    /// The request, or the reply that refuses what cannot be read.
    pub request: Result<Request, Reply>,
}

impl<C> Asked<C> {
    /// The same, with another way back.
    fn with_caller<D>(self, other: impl FnOnce(C) -> D) -> Asked<D> {
        let Asked { caller, principal, address, is_first, request } = self;
        Asked { caller: other(caller), principal, address, is_first, request }
    }
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

    /// Tells who is connected, as far as the roll has room for it.
    fn call_roll(&self, roll: &mut Roll<'_>);

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
    #[error("cannot listen on {scheme}://{address} ({key}): {error}{}", hint(key, error))]
    Tcp {
        /// What is spoken there: `tcp` or `http`.
        scheme: &'static str,
        /// The address.
        address: SocketAddr,
        /// The key that asks for it.
        key: &'static str,
        /// What the system says.
        error: std::io::Error,
    },
    /// A Unix socket.
    #[error(transparent)]
    Ipc(#[from] IpcError),
}

fn hint(key: &str, error: &std::io::Error) -> String {
    match (error.kind(), key.split_once('.')) {
        (std::io::ErrorKind::AddrInUse, _) => "; is another registry running?".to_string(),
        (std::io::ErrorKind::AddrNotAvailable, Some((table, _))) => {
            format!("; {table}.bind is no address of this machine")
        }
        _ => String::new(),
    }
}

impl BindError {
    /// Whether somebody else listens there.
    pub fn is_taken(&self) -> bool {
        matches!(self, BindError::Tcp { error, .. } if error.kind() == std::io::ErrorKind::AddrInUse)
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
    [
        (server.req_port, "server.req_port"),
        (server.pub_port, "server.pub_port"),
        (server.heartbeat_port, "server.heartbeat_port"),
    ]
}

fn bind(server: &Server, (port, key): (u16, &'static str)) -> Result<TcpListener, BindError> {
    bind_at("tcp", SocketAddr::new(server.listen_ip(), port), key)
}

/// Binds the port for HTTP; none if HTTP is off.
///
/// # Errors
/// It cannot be bound.
pub fn bind_http(http: &Http) -> Result<Option<TcpListener>, BindError> {
    http.address().map(|address| bind_at("http", address, "http.port")).transpose()
}

#[expect(clippy::disallowed_methods, reason = "before anybody is served, and of an address, not a name")]
fn bind_at(scheme: &'static str, address: SocketAddr, key: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).map_err(|error| BindError::Tcp { scheme, address, key, error })
}
