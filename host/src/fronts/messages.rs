//! The front that speaks ZeroMQ: requests and replies are messages of a few frames, one of them JSON.
//!
//! A [`Transport`] carries the messages; no type of a ZeroMQ library crosses it.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use crate::config;
use crate::protocol::event::{Event, Notice};
use crate::protocol::frames::{self, Layout};
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::{self, Limits, Parsed, Port, Request};
use crate::security::key::PublicKey;
use crate::security::origin::Address;

use super::{Asked, Front};

/// The frames of a message, without the routing identity.
pub use registry_zmtp::Frames;

/// A message as it came in.
#[derive(Clone, Debug)]
pub struct Inbound<P> {
    /// The port it came in by.
    pub port: Port,
    /// Where it came from, and so where its reply goes.
    pub peer: P,
    /// Whose key the client has proved to hold; `None` without CURVE.
    pub client: Option<PublicKey>,
    /// The other end of the connection, as far as it is known.
    pub address: Address,
    /// The frames.
    pub frames: Frames,
}

/// Carries messages: ROUTER for requests, ROUTER for heartbeats, PUB for events.
pub trait Transport {
    /// The way back to whoever sent a request. It says where to send, never who somebody is. When it is dropped, the
    /// request is done, answered or not.
    type Peer: Debug;

    /// Waits until messages are there, and adds them to the batch, heartbeats first; or until there is room again for a
    /// long reply. Nothing is lost if the future is dropped before it is ready.
    fn receive(&mut self, batch: &mut Vec<Inbound<Self::Peer>>) -> impl Future<Output = ()>;

    /// Gives a message back if it is to be answered now. It comes again later if its sender has not read enough of what
    /// it was answered before.
    fn ready(&mut self, inbound: Inbound<Self::Peer>) -> Option<Inbound<Self::Peer>>;

    /// Whether there is room for a reply of so many bytes. If there is none, clients that hold memory and do nothing are
    /// cut off for it, and [`receive`](Transport::receive) is ready when there is room.
    fn has_room(&self, bytes: usize) -> bool;

    /// Whether a request of this peer may wait for long: so many of its others are still to come through.
    fn may_wait(&self, peer: &Self::Peer) -> bool;

    /// Whether a peer is known to be gone.
    fn is_gone(&self, peer: &Self::Peer) -> bool;

    /// Queues a reply, or drops it if the peer is gone or does not read. `first` are the frames before the last one,
    /// which is `shared` and then `rest`: many clients may be sent the same `shared` pieces, whose memory counts once. A
    /// client more costs no more than a pointer, however many pieces there are.
    fn reply(&mut self, peer: Self::Peer, first: &[&[u8]], shared: Option<&Arc<[Bytes]>>, rest: &[u8]);

    /// Queues an event for whoever subscribes to its topic.
    fn publish(&mut self, topic: &'static str, body: Bytes);

    /// Sets what clients may cost from now on, as far as the transport knows limits.
    fn set_limits(&mut self, limits: &config::Limits, server: &config::Server);

    /// Sends what is queued, without waiting for anybody.
    fn flush(&mut self);

    /// Stops listening and lets go what has been sent.
    fn close(self) -> impl Future<Output = ()>;
}

/// Messages over a transport, as a front.
pub struct Messages<T> {
    transport: T,
    limits: Limits,
}

/// The way back for a reply.
#[derive(Debug)]
pub struct Caller<P> {
    peer: P,
    layout: Layout,
    request_id: Option<Box<str>>,
}

impl<T: Transport> Messages<T> {
    /// Speaks over a transport. Requests may ask for as much as `limits` says.
    pub fn over(transport: T, limits: Limits) -> Self {
        Messages { transport, limits }
    }
}

impl<T: Transport> Front for Messages<T> {
    type Message = Inbound<T::Peer>;
    type Caller = Caller<T::Peer>;

    async fn receive(&mut self, batch: &mut Vec<Self::Message>) {
        self.transport.receive(batch).await;
    }

    fn read(&mut self, message: Self::Message) -> Option<Asked<Self::Caller>> {
        let Inbound { port, peer, client, address, frames } = self.transport.ready(message)?;
        let principal = client.into();
        Some(match frames::open(&frames) {
            Ok((layout, body)) => {
                let Parsed { mut request, request_id } = request::parse(body, port, &self.limits);
                if request.as_ref().is_ok_and(Request::may_wait) && !self.transport.may_wait(&peer) {
                    let message = "too many requests of this connection wait, half as many as limits.requests_waiting";
                    let refusal = Reply::failure(Code::Overloaded, "Too many requests");
                    request = Err(refusal.text("message", message));
                }
                Asked { caller: Caller { peer, layout, request_id }, principal, address, request }
            }
            Err((layout, problem)) => {
                tracing::debug!(%problem, "a message in no known layout");
                let refusal = Reply::failure(Code::InvalidRequest, "Invalid message frames").text("message", &problem);
                let caller = Caller { peer, layout, request_id: None };
                Asked { caller, principal, address, request: Err(refusal) }
            }
        })
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.transport.has_room(bytes)
    }

    fn is_gone(&self, caller: &Self::Caller) -> bool {
        self.transport.is_gone(&caller.peer)
    }

    fn reply(&mut self, caller: Self::Caller, reply: Reply) {
        let Caller { peer, layout, request_id } = caller;
        if !layout.is_answered() {
            return;
        }
        let body = reply.finish(request_id.as_deref());
        self.transport.reply(peer, &layout.head(), body.kept(), body.rest().as_bytes());
    }

    fn publish(&mut self, event: Event) {
        self.transport.publish(event.kind.as_str(), event.json);
    }

    fn notify(&mut self, notice: Notice) {
        self.transport.publish(notice.topic, Bytes::from(notice.json));
    }

    fn set_limits(&mut self, limits: &config::Limits, server: &config::Server) {
        let requests_port = self.limits.requests_port;
        self.limits = request::Limits { requests_port, ..limits.for_requests(0) };
        self.transport.set_limits(limits, server);
    }

    fn flush(&mut self) {
        self.transport.flush();
    }

    async fn close(self) {
        self.transport.close().await;
    }
}
