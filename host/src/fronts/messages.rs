//! The front that speaks ZeroMQ: requests and replies are messages of a few frames, one of them JSON.
//!
//! A [`Transport`] carries the messages; no type of a ZeroMQ library crosses it. What comes from many connections gathers
//! in an [`Inbox`] until the server has time for it.

use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::config;
use crate::protocol::event::{Event, Notice};
use crate::protocol::frames::{self, Layout};
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::{self, Limits, Parsed, Port, Request};
use crate::security::key::PublicKey;
use crate::security::origin::Address;

use super::roll::Roll;
use super::{Asked, Front};

/// How many bytes of messages are taken off all connections before the earlier ones have been answered, and one message
/// beyond.
const BATCH_BYTES: usize = 256 * 1024;

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

/// The messages that have arrived over all connections and wait for the server. It takes them a batch at a time; while
/// one is full, what comes waits in the network.
pub struct Inbox<P> {
    heartbeats: RefCell<Vec<Inbound<P>>>,
    requests: RefCell<Vec<Inbound<P>>>,
    /// How many bytes these two have.
    bytes: Cell<usize>,
    /// Which batch they are.
    batch: Cell<u64>,
    /// The most messages of a batch.
    batch_max: usize,
    /// Wakes the server when a message is there.
    server: RefCell<Option<Waker>>,
    waiting: RefCell<Waiting>,
    closed: Cell<bool>,
}

/// Connections that wait for a turn.
#[derive(Default)]
struct Waiting {
    /// Those without a message in this batch. They come first.
    without: Vec<Waker>,
    /// Those that have had a turn.
    after_a_turn: Vec<Waker>,
}

impl<P> Inbox<P> {
    /// Without messages; so many are a full batch.
    pub fn new(batch_max: usize) -> Self {
        Inbox {
            heartbeats: RefCell::default(),
            requests: RefCell::default(),
            bytes: Cell::new(0),
            batch: Cell::new(1),
            batch_max,
            server: RefCell::default(),
            waiting: RefCell::default(),
            closed: Cell::new(false),
        }
    }

    /// A message is there for the server. The number of the batch that it is part of.
    pub fn arrived(&self, message: Inbound<P>) -> u64 {
        let bytes: usize = message.frames.iter().map(Bytes::len).sum();
        self.bytes.set(self.bytes.get() + bytes);
        let messages = match message.port {
            Port::Requests => &self.requests,
            Port::Heartbeats => &self.heartbeats,
        };
        messages.borrow_mut().push(message);
        if let Some(server) = self.server.borrow_mut().take() {
            server.wake();
        }
        self.batch.get()
    }

    /// Ready when a connection may have a turn. One whose last message went into batch `last` and that has more gets one
    /// turn in a batch. Those that had none are before the others in the next one: else a few that send all the time
    /// could keep all others waiting.
    pub fn poll_turn(&self, last: u64, has_more: bool, context: &mut Context<'_>) -> Poll<()> {
        let had_turn = last == self.batch.get();
        let messages = self.requests.borrow().len() + self.heartbeats.borrow().len();
        let is_full = messages >= self.batch_max || self.bytes.get() >= BATCH_BYTES;
        let has_to_wait = is_full || (had_turn && has_more);
        // When the server stops there are no more batches, and what comes is passed over.
        if !has_to_wait || self.closed.get() {
            return Poll::Ready(());
        }
        let waiting = &mut *self.waiting.borrow_mut();
        let list = if had_turn { &mut waiting.after_a_turn } else { &mut waiting.without };
        list.push(context.waker().clone());
        Poll::Pending
    }

    /// Ready when there were messages, which are in the server's batch now. Heartbeats come first: their senders are
    /// alive, whatever is asked next.
    pub fn poll_take(&self, batch: &mut Vec<Inbound<P>>, context: &mut Context<'_>) -> Poll<()> {
        batch.append(&mut self.heartbeats.borrow_mut());
        batch.append(&mut self.requests.borrow_mut());
        if batch.is_empty() {
            *self.server.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.bytes.set(0);
        self.batch.set(self.batch.get() + 1);
        self.wake_waiting();
        Poll::Ready(())
    }

    /// From now on nothing is read.
    pub fn close(&self) {
        self.closed.set(true);
        self.wake_waiting();
    }

    /// Whether nothing is read any longer.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn wake_waiting(&self) {
        let waiting = &mut *self.waiting.borrow_mut();
        waiting.without.drain(..).chain(waiting.after_a_turn.drain(..)).for_each(Waker::wake);
    }
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

    /// Takes note of what a peer has asked for; `None` if it cannot be read.
    fn note_asked(&self, peer: &Self::Peer, request: Option<&Request>);

    /// Tells who is connected, as far as the roll has room for it.
    fn call_roll(&self, roll: &mut Roll<'_>);

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
                self.transport.note_asked(&peer, request.as_ref().ok());
                Asked { caller: Caller { peer, layout, request_id }, principal, address, is_first: true, request }
            }
            Err((layout, problem)) => {
                tracing::debug!(%problem, "a message in no known layout");
                self.transport.note_asked(&peer, None);
                let refusal = Reply::failure(Code::InvalidRequest, "Invalid message frames").text("message", &problem);
                let caller = Caller { peer, layout, request_id: None };
                Asked { caller, principal, address, is_first: true, request: Err(refusal) }
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

    fn call_roll(&self, roll: &mut Roll<'_>) {
        self.transport.call_roll(roll);
    }

    fn flush(&mut self) {
        self.transport.flush();
    }

    async fn close(self) {
        self.transport.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(port: Port, peer: u32, bytes: usize) -> Inbound<u32> {
        let frames = std::iter::once(Bytes::from(vec![b'x'; bytes])).collect();
        Inbound { port, peer, client: None, address: Address::Unknown, frames }
    }

    /// Who is in the batch that the server takes, if there is one.
    fn take(inbox: &Inbox<u32>) -> Option<Vec<u32>> {
        let mut batch = Vec::new();
        let is_ready = inbox.poll_take(&mut batch, &mut Context::from_waker(Waker::noop())).is_ready();
        is_ready.then(|| batch.iter().map(|message| message.peer).collect())
    }

    fn has_turn(inbox: &Inbox<u32>, last: u64, has_more: bool) -> bool {
        inbox.poll_turn(last, has_more, &mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn heartbeats_are_taken_before_requests() {
        let inbox = Inbox::new(10);
        assert_eq!(take(&inbox), None);
        for (port, peer) in [(Port::Requests, 1), (Port::Heartbeats, 2), (Port::Requests, 3), (Port::Heartbeats, 4)] {
            inbox.arrived(message(port, peer, 1));
        }
        assert_eq!(take(&inbox), Some(vec![2, 4, 1, 3]));
        assert_eq!(take(&inbox), None);
    }

    #[test]
    fn nobody_has_a_turn_while_a_batch_is_full() {
        for (batch_max, bytes) in [(2, 1), (10, BATCH_BYTES / 2)] {
            let inbox = Inbox::new(batch_max);
            for port in [Port::Requests, Port::Heartbeats] {
                assert!(has_turn(&inbox, 0, false));
                inbox.arrived(message(port, 1, bytes));
            }
            assert!(!has_turn(&inbox, 0, false));
            take(&inbox);
            assert!(has_turn(&inbox, 0, false));
        }
    }

    #[test]
    fn who_has_more_gets_one_turn_in_a_batch() {
        let inbox = Inbox::new(10);
        let batch = inbox.arrived(message(Port::Requests, 1, 1));
        assert!(has_turn(&inbox, batch, false) && !has_turn(&inbox, batch, true));
        assert!(has_turn(&inbox, batch - 1, true));
        take(&inbox);
        assert!(has_turn(&inbox, batch, true));
    }

    #[test]
    fn all_have_turns_when_it_is_closed() {
        let inbox = Inbox::new(1);
        let batch = inbox.arrived(message(Port::Requests, 1, 1));
        assert!(!has_turn(&inbox, batch, true) && !inbox.is_closed());
        inbox.close();
        assert!(has_turn(&inbox, batch, true) && inbox.is_closed());
    }
}
