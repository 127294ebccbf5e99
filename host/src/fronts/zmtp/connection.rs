//! One connection: its bytes are read into messages, and replies and events become bytes.
//!
//! Each connection has a task that reads. Replies and events are written as soon as they are there; the task writes what
//! the network did not take at once.
//!
//! | file | what it does |
//! |---|---|
//! | `incoming` | what comes: frames, and what they ask for |
//! | `outgoing` | what goes: replies, events and commands, as the network takes them |
//! | `backlog` | long pieces that wait to be written |
//! | `events` | events that wait for a subscriber |
//! | `liveness` | what time brings: peers that are late, silent, or hold much for long |
//! | `seen` | what operators are told of it |
//! | `peer` | the way back to the sender of a request |

mod backlog;
mod events;
mod incoming;
mod liveness;
mod outgoing;
mod peer;
mod seen;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::fronts::Inbound;
use crate::fronts::roll::Deeds;
use crate::protocol::request::Port;
use crate::security::key::PublicKey;
use crate::security::origin::Address;

use super::cause::Cause;
use super::hub::Hub;
use super::stream::{Reader, Writer};
use registry_zmtp::assembly::Assembly;
use registry_zmtp::handshake::{Handshake, SocketType};
use registry_zmtp::subscriptions::Subscriptions;
use registry_zmtp::wire::Wire;

use backlog::Backlog;
pub use events::Event;
use events::Events;
pub use liveness::Holding;
use liveness::Liveness;
pub use outgoing::SHARE_BYTES;
pub use peer::Peer;

/// How much is read at once at most.
const READ_BYTES: usize = 64 * 1024;
/// How much free space a buffer has at least before it is read into.
const READ_BYTES_MIN: usize = 8 * 1024;

/// Where a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// A port for requests.
    Requests(Port),
    /// The port for events.
    Events,
}

impl Entrance {
    pub(super) const ALL: [Entrance; 3] =
        [Entrance::Requests(Port::Requests), Entrance::Requests(Port::Heartbeats), Entrance::Events];

    /// As operators know it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Entrance::Requests(Port::Requests) => "requests",
            Entrance::Requests(Port::Heartbeats) => "heartbeats",
            Entrance::Events => "events",
        }
    }

    fn socket_type(self) -> SocketType {
        match self {
            Entrance::Requests(_) => SocketType::Router,
            Entrance::Events => SocketType::Publisher,
        }
    }
}

/// A peer that is connected.
pub struct Connection {
    /// Which one, in the order in which they came.
    pub id: u64,
    /// The peer's machine, if it is not this one.
    pub address: Option<IpAddr>,
    /// The other end of the connection, to be shown.
    from: Address,
    entrance: Entrance,
    hub: Rc<Hub>,
    /// Whether it is on the hub's list of connections with something to send.
    pub is_listed: Cell<bool>,
    /// How many of its requests are not answered yet.
    unanswered: Cell<usize>,
    /// How many of those wait for something to happen.
    waits: Cell<usize>,
    /// What it has asked for.
    deeds: RefCell<Deeds>,
    /// How many events it has missed.
    missed: Cell<u64>,
    /// Wakes the task.
    waker: RefCell<Option<Waker>>,
    state: RefCell<State>,
}

struct State {
    /// Without it the connection is over.
    writer: Option<Writer>,
    phase: Phase,
    wire: Wire,
    /// Whose key the peer has proved to hold.
    client: Option<PublicKey>,
    backlog: Backlog,
    /// Whether the network took no more when it was last tried.
    blocked: bool,
    held_back: HeldBack,
    turn: Turn,
    liveness: Liveness,
    /// How many bytes the connection had for itself when that was last counted.
    counted: usize,
}

enum Phase {
    Handshake(Handshake),
    Router(Assembly),
    Publisher(Subscriptions, Events),
}

/// Messages that cannot be answered yet: the peer has to read some of its replies first.
#[derive(Default)]
struct HeldBack {
    messages: VecDeque<Inbound<Peer>>,
    bytes: usize,
}

/// How long the peer may be looked at before others are.
struct Turn {
    /// How many frames it has.
    frames: usize,
    /// Whether the last one was over before all that had come was looked at.
    has_more: bool,
    /// How many bytes of replies there were since then.
    replied: usize,
    /// The last batch that a message of the peer went into.
    batch: u64,
    /// Until when nothing is to be read.
    paused_until: Option<Instant>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.id)
    }
}

impl Connection {
    /// Where it came in.
    pub fn entrance(&self) -> Entrance {
        self.entrance
    }

    /// A connection that has just come in.
    pub fn new(id: u64, address: Option<SocketAddr>, entrance: Entrance, writer: Writer, hub: Rc<Hub>) -> Rc<Self> {
        let mut wire = Wire::default();
        let handshake = Handshake::begin(entrance.socket_type(), hub.guard.keys(), &mut wire.out);
        let state = RefCell::new(State {
            writer: Some(writer),
            phase: Phase::Handshake(handshake),
            wire,
            client: None,
            backlog: Backlog::default(),
            blocked: false,
            held_back: HeldBack::default(),
            turn: Turn { frames: incoming::TURN_FRAMES.0, has_more: false, replied: 0, batch: 0, paused_until: None },
            liveness: Liveness::begin(Instant::now()),
            counted: 0,
        });
        let connection = Rc::new(Connection {
            id,
            address: address.map(|address| address.ip()),
            from: Address::of_peer(address),
            entrance,
            hub,
            is_listed: Cell::new(false),
            unanswered: Cell::new(0),
            waits: Cell::new(0),
            deeds: RefCell::default(),
            missed: Cell::new(0),
            waker: RefCell::new(None),
            state,
        });
        connection.flush();
        connection
    }

    /// Reads what comes, and writes what could not be written at once, until the connection is over.
    pub async fn drive(self: Rc<Self>, mut reader: Reader) {
        let mut pause = pin!(tokio::time::sleep(Duration::ZERO));
        std::future::poll_fn(|context| self.poll(&mut reader, pause.as_mut(), context)).await;
    }

    /// Ready when the connection is over.
    fn poll(
        self: &Rc<Self>,
        reader: &mut Reader,
        mut pause: Pin<&mut tokio::time::Sleep>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        self.will_wake(context);
        loop {
            self.write_on(context);
            if self.is_over() {
                self.take_rest();
                return Poll::Ready(());
            }
            ready!(self.poll_may_take(pause.as_mut(), context));
            ready!(self.poll_turn(reader, context));
        }
    }

    fn will_wake(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether the connection is over.
    pub fn is_over(&self) -> bool {
        self.state.borrow().writer.is_none()
    }

    /// Writes what waits, until there is nothing left or the network takes no more. The task is woken when it does.
    fn write_on(&self, context: &mut Context<'_>) {
        loop {
            {
                let state = &mut *self.state.borrow_mut();
                let Some(writer) = &state.writer else { return };
                if state.blocked && writer.poll_ready(context).is_pending() {
                    return;
                }
                state.blocked = false;
            }
            self.flush();
            if !self.state.borrow().blocked {
                return;
            }
        }
    }

    /// Ready when the peer may have a turn. What it may not send yet waits in the network.
    fn poll_may_take(&self, mut pause: Pin<&mut tokio::time::Sleep>, context: &mut Context<'_>) -> Poll<()> {
        let (batch, has_more) = {
            let state = &mut *self.state.borrow_mut();
            // Writing and answering each wake the task.
            if self.is_full(state) || self.is_unanswered(state) {
                state.wire.input.settle();
                return Poll::Pending;
            }
            if let Some(until) = state.turn.paused_until
                && pause.deadline() != until.into()
            {
                pause.as_mut().reset(until.into());
            }
            (state.turn.batch, state.turn.has_more)
        };
        if self.hub.limits.get().requests_per_second > 0 {
            ready!(pause.as_mut().poll(context));
        }
        self.hub.inbox.poll_turn(batch, has_more, context)
    }

    /// Gives the peer a turn with what has come. Others come before its next one.
    fn poll_turn(self: &Rc<Self>, reader: &mut Reader, context: &mut Context<'_>) -> Poll<()> {
        let has_more = self.state.borrow().turn.has_more;
        if has_more {
            self.received(BytesMut::new());
        } else {
            match ready!(self.poll_read(reader, context)) {
                Ok(bytes) if bytes.is_empty() => self.close(Cause::Left),
                Ok(bytes) => self.received(bytes),
                Err(error) => self.close(Cause::Network(error)),
            }
        }
        if self.state.borrow().turn.has_more {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn poll_read(&self, reader: &mut Reader, context: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
        let buffer = &mut *self.hub.buffer.borrow_mut();
        if buffer.capacity() - buffer.len() < READ_BYTES_MIN {
            buffer.reserve(READ_BYTES);
        }
        let read = ready!(reader.poll_read(context, buffer));
        Poll::Ready(read.map(|_| buffer.split()))
    }

    fn received(self: &Rc<Self>, bytes: BytesMut) {
        if self.hub.inbox.is_closed() {
            self.state.borrow_mut().turn.has_more = false;
            return;
        }
        let result = self.take(bytes);
        // What is answered right here: the handshake, PING, and why the connection ends.
        self.flush();
        if let Err(cause) = result {
            self.close(cause);
        }
        self.hub.make_room_if_over();
    }

    /// Whether the core has as many requests of the peer as it may have at a time. Those that wait here can go on.
    fn is_unanswered(&self, state: &State) -> bool {
        state.held_back.messages.is_empty() && self.unanswered.get() >= self.hub.limits.get().requests_waiting
    }

    /// Whether one of its requests may wait for long. Never all of them: its others would not be read meanwhile, and it
    /// would not be seen leaving.
    pub fn may_wait(&self) -> bool {
        self.unanswered.get() <= (self.hub.limits.get().requests_waiting / 2).max(1)
    }

    /// Counts anew what the connection has for itself.
    fn recount(&self, state: &mut State) {
        let kept = match &state.phase {
            Phase::Handshake(_) => 0,
            Phase::Router(assembly) => assembly.bytes(),
            Phase::Publisher(wanted, events) => wanted.bytes() + events.own_bytes(),
        };
        let now = state.wire.held() + state.backlog.bytes().0 + state.held_back.bytes + kept;
        self.hub.memory.recount(std::mem::replace(&mut state.counted, now), now);
    }

    /// Ends the connection if its key is not authorized any longer, for what it does here.
    pub fn check_key(&self) {
        let client = self.state.borrow().client;
        let guard = &self.hub.guard;
        let is_out = |client: &PublicKey| match self.entrance {
            Entrance::Requests(_) => !guard.is_authorized(client),
            Entrance::Events => !guard.is_authorized(client) || !guard.may_read(client),
        };
        if client.is_some_and(|client| is_out(&client)) {
            self.close(Cause::Revoked);
        }
    }

    /// Ends the connection.
    pub fn close(&self, cause: Cause) {
        self.end(&mut self.state.borrow_mut(), cause);
    }

    fn end(&self, state: &mut State, cause: Cause) {
        if state.writer.take().is_none() {
            return;
        }
        if let Some((incident, reason)) = cause.incident() {
            self.hub.report.borrow_mut().note(self.address, incident, reason, 1);
        }
        tracing::debug!(connection = self.id, address = ?self.address, "a connection is over: {cause}");
        // What a peer asked for before it left is still done; of one that was cut off nothing more is wanted.
        let has_left = matches!(cause, Cause::Left | Cause::Network(_)) && matches!(state.phase, Phase::Router(_));
        if !has_left {
            self.forget(state);
        }
        if matches!(state.phase, Phase::Publisher(..)) {
            self.hub.forget_audiences();
        }
        self.hub.remove(self);
        self.wake();
    }

    /// Lets go of all that has come and is to go.
    fn forget(&self, state: &mut State) {
        state.wire = Wire::default();
        state.backlog = Backlog::default();
        state.held_back = HeldBack::default();
        state.turn.has_more = false;
        match &mut state.phase {
            Phase::Handshake(_) => {}
            Phase::Router(assembly) => *assembly = Assembly::default(),
            Phase::Publisher(wanted, events) => (*wanted, *events) = Default::default(),
        }
        self.recount(state);
    }
}
