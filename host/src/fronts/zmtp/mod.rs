//! The transport that faces clients: ROUTER and PUB over ZMTP 3.1, within limits. The protocol itself is in the crate
//! [`registry_zmtp`].
//!
//! It is written for peers that are hostile, careless or merely slow: see [`limits`] for what a peer can cost. A reply
//! goes back over the connection that its request came by, and nowhere else. What a peer calls itself (its routing
//! identity) means nothing here, so nobody gets another's replies by taking its name, and a client that connects anew
//! need not wait until its old connection is given up.
//!
//! | module | what it does | does I/O |
//! |---|---|---|
//! | [`cause`] | why connections end | |
//! | [`stream`] | TCP and Unix sockets as one | yes |
//! | [`connection`] | one connection | yes |
//! | [`limits`] | what clients may cost | |
//! | [`memory`] | how much waits, and whether there is room for more | |
//! | [`report`] | what operators are told of clients that went too far | |
//! | [`hub`] | what the connections share | |
//! | [`accept`] | lets connections in | yes |

pub mod accept;
pub mod cause;
pub mod connection;
pub mod hub;
pub mod limits;
pub mod memory;
pub mod report;
pub mod stream;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::config;
use crate::fronts::ipc::{IpcListeners, SocketFiles};
use crate::fronts::roll::Roll;
use crate::fronts::{Inbound, Listeners, Transport};
use crate::metrics::Metrics;
use crate::protocol::request::Request;
use crate::security::guard::Guard;

use connection::{Entrance, Peer};
use hub::Hub;
use limits::Limits;
use stream::Listener;

/// How long peers get, when the server stops, to take what is sent to them.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// How long they get to leave by themselves afterwards. What is unread when a connection is cut is lost to both sides.
const LEAVE_MAX: Duration = Duration::from_millis(250);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// How soon it is looked who has to make room for others.
const PRESSED: Duration = Duration::from_millis(100);
/// How often the connections are looked at for those that are late or silent, at most and at least.
const CHECK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// ROUTER for requests, ROUTER for heartbeats, PUB for events.
pub struct Zmtp {
    hub: Rc<Hub>,
    /// The memory's round that the server knows of.
    round: u64,
    tasks: Vec<JoinHandle<()>>,
    /// Removes them when the server stops.
    _sockets: SocketFiles,
}

impl Zmtp {
    /// Serves the listeners. Has to be called within a [`LocalSet`](tokio::task::LocalSet).
    ///
    /// # Errors
    /// If a listener cannot be used.
    pub fn serve(listeners: Listeners, limits: Limits, guard: Guard, metrics: Arc<Metrics>) -> io::Result<Self> {
        let hub = Hub::new(limits, guard, metrics);
        let entrances = Entrance::ALL;
        let mut doors = Vec::new();
        for (listener, entrance) in
            [listeners.requests, listeners.heartbeats, listeners.events].into_iter().zip(entrances)
        {
            doors.push((Listener::tcp(listener)?, entrance));
        }
        let mut sockets = SocketFiles::default();
        if let Some(IpcListeners { requests, events, heartbeats, files }) = listeners.ipc {
            sockets = files;
            for (listener, entrance) in [requests, heartbeats, events].into_iter().zip(entrances) {
                doors.push((Listener::unix(listener)?, entrance));
            }
        }
        let accept = |(listener, entrance)| tokio::task::spawn_local(accept::accept(listener, entrance, hub.clone()));
        let mut tasks: Vec<_> = doors.into_iter().map(accept).collect();
        tasks.push(tokio::task::spawn_local(watch(hub.clone())));
        tasks.push(tokio::task::spawn_local(make_room(hub.clone())));
        Ok(Zmtp { hub, round: 0, tasks, _sockets: sockets })
    }
}

/// Looks after the connections, and tells operators what was done about those that went too far.
async fn watch(hub: Rc<Hub>) {
    loop {
        let limits = hub.limits.get();
        let shortest = limits.handshake_timeout.min(limits.heartbeat_interval).min(limits.heartbeat_timeout);
        let shortest = shortest.min(limits.unread_timeout);
        tokio::time::sleep((shortest / 4).clamp(CHECK.0, CHECK.1)).await;
        hub.check();
        hub.reload_keys();
        let line = hub.report.borrow_mut().line(Instant::now());
        if let Some(line) = line {
            tracing::warn!("{line}");
        }
    }
}

/// Makes room for long replies when somebody waits for it.
async fn make_room(hub: Rc<Hub>) {
    loop {
        hub.memory.pressed().await;
        tokio::time::sleep(PRESSED).await;
        hub.make_room_for_wanted();
    }
}

impl Transport for Zmtp {
    type Peer = Peer;

    async fn receive(&mut self, batch: &mut Vec<Inbound<Self::Peer>>) {
        let (Hub { inbox, memory, .. }, round) = (&*self.hub, &mut self.round);
        let messages_or_room = |context: &mut Context<'_>| {
            if inbox.poll_take(batch, context).is_ready() {
                return Poll::Ready(());
            }
            if memory.round() != *round {
                *round = memory.round();
                return Poll::Ready(());
            }
            if memory.wanted() > 0 { memory.poll_round(*round, context) } else { Poll::Pending }
        };
        std::future::poll_fn(messages_or_room).await;
    }

    fn ready(&mut self, inbound: Inbound<Self::Peer>) -> Option<Inbound<Self::Peer>> {
        let connection = inbound.peer.connection().clone();
        connection.ready_for(inbound)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.hub.memory.has_room(bytes)
    }

    fn may_wait(&self, peer: &Self::Peer) -> bool {
        peer.may_wait()
    }

    fn note_asked(&self, peer: &Self::Peer, request: Option<&Request>) {
        peer.note_asked(request);
    }

    fn call_roll(&self, roll: &mut Roll<'_>) {
        self.hub.call_roll(roll);
    }

    fn is_gone(&self, peer: &Self::Peer) -> bool {
        peer.is_over()
    }

    fn reply(&mut self, peer: Self::Peer, first: &[&[u8]], shared: Option<&Arc<[Bytes]>>, rest: &[u8]) {
        self.hub.reply(&peer, first, shared, rest);
    }

    fn publish(&mut self, topic: &'static str, body: Bytes) {
        self.hub.publish(&Bytes::from_static(topic.as_bytes()), &body);
    }

    fn set_limits(&mut self, limits: &config::Limits, server: &config::Server) {
        self.hub.set_limits(limits.for_transport(server));
    }

    fn flush(&mut self) {
        self.hub.flush();
    }

    async fn close(mut self) {
        self.tasks.drain(..).for_each(|task| task.abort());
        self.hub.inbox.close();
        self.hub.flush();
        let deadline = Instant::now() + FLUSH_MAX;
        while !self.hub.connections().iter().all(|connection| connection.is_flushed()) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        self.hub.connections().iter().for_each(|connection| connection.finish());
        let deadline = Instant::now() + LEAVE_MAX;
        while self.hub.connection_count() > 0 && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }
}
