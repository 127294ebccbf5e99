//! The transport on the `zeromq` crate.
//!
//! What we learnt about that crate (0.7) shapes this file: it runs on a single-threaded runtime, since its
//! ROUTER can lock up on several threads; each send is polled once and never awaited, since one peer that does not
//! read would stop everybody; and messages are taken in batches, since one at a time halves the rate. The crate has
//! no limits that one could set (a peer's queue holds 100,000 messages), and its parser trusts announced sizes, so
//! the ports belong on a network whose peers are trusted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use zeromq::{PubSocket, RouterRecvHalf, RouterSendHalf, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

use crate::config;
use crate::fronts::roll::Roll;
use crate::fronts::{Inbound, Listeners, Transport};
use crate::protocol::request::{Port, Request};
use crate::security::origin::Address;

/// When the server stops, the crate's writers get this long: the crate does not tell when they are done.
const LINGER: Duration = Duration::from_millis(250);

/// ROUTER for requests, ROUTER for heartbeats, PUB for events.
pub struct ZeroMq {
    requests: Router,
    heartbeats: Router,
    events: PubSocket,
    /// How many messages are taken off the sockets at once.
    batch_max: usize,
}

/// The way back to a client.
#[derive(Clone, Debug)]
pub struct Route {
    port: Port,
    /// The routing identity. The crate sends to whoever had it last.
    identity: Bytes,
}

struct Router {
    port: Port,
    sender: RouterSendHalf,
    receiver: RouterRecvHalf,
}

impl ZeroMq {
    /// Serves the listeners. Call it on a single-threaded runtime.
    ///
    /// # Errors
    /// The crate cannot use a listener.
    pub async fn serve(listeners: Listeners, batch_max: usize) -> Result<Self, zeromq::ZmqError> {
        let mut events = PubSocket::new();
        events.bind_listener(listeners.events).await?;
        Ok(ZeroMq {
            requests: Router::serve(listeners.requests, Port::Requests).await?,
            heartbeats: Router::serve(listeners.heartbeats, Port::Heartbeats).await?,
            events,
            batch_max,
        })
    }
}

impl Router {
    async fn serve(listener: std::net::TcpListener, port: Port) -> Result<Self, zeromq::ZmqError> {
        let mut socket = RouterSocket::new();
        socket.bind_listener(listener).await?;
        let (sender, receiver) = socket.split();
        Ok(Router { port, sender, receiver })
    }

    async fn receive(&mut self) -> Option<Inbound<Route>> {
        let message = match self.receiver.recv().await {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(port = ?self.port, %error, "a message could not be received");
                return None;
            }
        };
        let mut frames = message.into_vec();
        let peer = Route { port: self.port, identity: frames.remove(0) };
        Some(Inbound { port: self.port, peer, client: None, address: Address::Unknown, frames: frames.into() })
    }

    /// Takes what is there without waiting.
    fn take_ready(&mut self, batch: &mut Vec<Inbound<Route>>, batch_max: usize) {
        while batch.len() < batch_max
            && let Some(received) = self.receive().now_or_never()
        {
            batch.extend(received);
        }
    }
}

impl Transport for ZeroMq {
    type Peer = Route;

    async fn receive(&mut self, batch: &mut Vec<Inbound<Route>>) {
        loop {
            // Heartbeats first: their senders are alive, whatever the requests ask.
            self.heartbeats.take_ready(batch, self.batch_max);
            self.requests.take_ready(batch, self.batch_max);
            if !batch.is_empty() {
                return;
            }
            let received = tokio::select! {
                received = self.heartbeats.receive() => received,
                received = self.requests.receive() => received,
            };
            batch.extend(received);
        }
    }

    /// The crate does not tell what waits for whom.
    fn ready(&mut self, inbound: Inbound<Route>) -> Option<Inbound<Route>> {
        Some(inbound)
    }

    /// The crate's queues have bounds of their own, which it does not tell.
    fn has_room(&self, _bytes: usize) -> bool {
        true
    }

    /// The crate takes whatever comes.
    fn may_wait(&self, _: &Route) -> bool {
        true
    }

    /// Nothing is known of its connections.
    fn note_asked(&self, _: &Route, _: Option<&Request>) {}

    /// The crate does not tell.
    fn call_roll(&self, _: &mut Roll<'_>) {}

    /// The crate does not tell.
    fn is_gone(&self, _: &Route) -> bool {
        false
    }

    fn reply(&mut self, route: Route, first: &[&[u8]], shared: Option<&Arc<[Bytes]>>, rest: &[u8]) {
        let router = match route.port {
            Port::Requests => &mut self.requests,
            Port::Heartbeats => &mut self.heartbeats,
        };
        let mut message = ZmqMessage::from(route.identity);
        first.iter().for_each(|frame| message.push_back(Bytes::copy_from_slice(frame)));
        message.push_back(match shared {
            None => Bytes::copy_from_slice(rest),
            // A frame is one piece for the crate.
            Some(shared) => [&shared.concat(), rest].concat().into(),
        });
        match router.sender.send(message).now_or_never() {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%error, "a reply was dropped: the client is gone"),
            None => tracing::warn!("a reply was dropped: the client does not read"),
        }
    }

    fn publish(&mut self, topic: &'static str, body: Bytes) {
        let mut message = ZmqMessage::from(Bytes::from_static(topic.as_bytes()));
        message.push_back(body);
        // PUB never waits: a subscriber that cannot keep up misses events, and sees that by the revision.
        if let Some(Err(error)) = self.events.send(message).now_or_never() {
            tracing::warn!(%error, "an event could not be published");
        }
    }

    /// The crate knows no limits.
    fn set_limits(&mut self, _: &config::Limits, _: &config::Server) {}

    /// Everything is with the crate's own tasks already.
    fn flush(&mut self) {}

    async fn close(mut self) {
        // Dropping a ROUTER lets its writers finish, but PUB hands out events in a task of its own.
        self.events.unbind_all().await;
        tokio::time::sleep(LINGER / 5).await;
        drop(self);
        tokio::time::sleep(LINGER).await;
    }
}
