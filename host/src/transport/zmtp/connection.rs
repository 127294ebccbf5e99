//! One connection: its bytes are read into messages, and replies and events become bytes.
//!
//! Each connection has a task that reads. Writing is tried at once by whoever has something to write; only what the
//! peer's network does not take is left to the task. What is done with what comes is in `incoming`, and what waits
//! for the peer in `outgoing`.

mod incoming;
mod outgoing;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::protocol::request::Port;
use crate::security::key::PublicKey;
use crate::transport::Inbound;

use super::assembly::Assembly;
use super::cause::Cause;
use super::handshake::{Handshake, Role};
use super::hub::Hub;
use super::stream::{Reader, Writer};
use super::subscriber::Subscriber;
use super::wire::Wire;

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
    fn role(self) -> Role {
        match self {
            Entrance::Requests(_) => Role::Router,
            Entrance::Events => Role::Publisher,
        }
    }
}

/// A peer that is connected.
pub struct Connection {
    /// Which one, in the order in which they came.
    pub id: u64,
    /// The peer's machine, if it is not this one.
    pub address: Option<IpAddr>,
    entrance: Entrance,
    hub: Rc<Hub>,
    /// Whether the hub has it on the list of those that have something to send.
    pub is_listed: Cell<bool>,
    state: RefCell<State>,
}

struct State {
    /// Without it the connection is over.
    writer: Option<Writer>,
    /// Wakes the task.
    waker: Option<Waker>,
    phase: Phase,
    wire: Wire,
    /// Whether the network took no more when it was last tried.
    blocked: bool,
    began: Instant,
    /// When something came from the peer.
    heard: Instant,
    /// Whether the peer was asked since then.
    asked: bool,
    /// The 1 of ZMTP 3.1.
    minor_version: u8,
    /// Whose key the peer has proved to hold.
    client: Option<PublicKey>,
    /// How long the peer takes the connection to live without its hearing, if it has said so.
    peer_ttl: Option<Duration>,
    /// Messages that wait until the peer has read more of its replies.
    held_back: VecDeque<Inbound<Rc<Connection>>>,
    /// Since when the peer has taken nothing of what waits for it, if something does.
    stuck: Option<Instant>,
    /// Whether the last turn was over before all that had come was looked at.
    has_more: bool,
    /// How many frames the peer's turn has.
    turn: usize,
    /// How many bytes of replies there were since the last turn.
    replied: usize,
    /// The last batch that a message of the peer went into.
    batch: u64,
    /// How many bytes waited when that was last counted.
    buffered: usize,
    /// Until when nothing is to be read, if the task has not taken note of it yet.
    paused_until: Option<Instant>,
}

enum Phase {
    Handshake(Handshake),
    Router(Assembly),
    Publisher(Subscriber),
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.id)
    }
}

impl Connection {
    /// A connection that has just come in.
    pub fn new(id: u64, address: Option<IpAddr>, entrance: Entrance, writer: Writer, hub: Rc<Hub>) -> Rc<Self> {
        let now = Instant::now();
        let mut wire = Wire::default();
        let handshake = Handshake::begin(entrance.role(), &hub.security, &mut wire.out);
        let state = RefCell::new(State {
            writer: Some(writer),
            waker: None,
            phase: Phase::Handshake(handshake),
            wire,
            blocked: false,
            began: now,
            heard: now,
            asked: false,
            minor_version: 0,
            client: None,
            peer_ttl: None,
            held_back: VecDeque::new(),
            stuck: None,
            has_more: false,
            turn: incoming::TURN_FRAMES.0,
            replied: 0,
            batch: 0,
            buffered: 0,
            paused_until: None,
        });
        let connection = Rc::new(Connection { id, address, entrance, hub, is_listed: Cell::new(false), state });
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
        loop {
            if self.state.borrow().writer.is_none() {
                self.take_rest();
                return Poll::Ready(());
            }
            {
                let state = &mut *self.state.borrow_mut();
                let Some(writer) = &state.writer else { continue };
                if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    state.waker = Some(context.waker().clone());
                }
                if state.blocked && writer.poll_ready(context).is_ready() {
                    state.blocked = false;
                }
                if let Some(until) = state.paused_until.take() {
                    pause.as_mut().reset(until.into());
                }
            }
            if !self.is_blocked() {
                self.flush();
                if self.is_blocked() {
                    continue;
                }
            }
            // What a peer may not send yet waits in the network. Writing goes on, and wakes the task.
            if self.is_full(&self.state.borrow()) {
                return Poll::Pending;
            }
            if self.hub.limits.requests_per_second > 0 {
                ready!(pause.as_mut().poll(context));
            }
            let (batch, has_more) = {
                let state = self.state.borrow();
                (state.batch, state.has_more)
            };
            ready!(self.hub.poll_room(batch, has_more, context));
            if has_more {
                self.received(BytesMut::new());
            } else {
                match ready!(self.poll_read(reader, context)) {
                    Ok(bytes) if bytes.is_empty() => self.close(Cause::Left),
                    Ok(bytes) => self.received(bytes),
                    Err(error) => self.close(Cause::Network(error)),
                }
            }
            if self.state.borrow().has_more {
                // Others first.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn poll_read(&self, reader: &mut Reader, context: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
        let buffer = &mut *self.hub.buffer.borrow_mut();
        if buffer.capacity() - buffer.len() < READ_BYTES_MIN {
            buffer.reserve(READ_BYTES);
        }
        let read = ready!(reader.poll_read(context, buffer));
        Poll::Ready(read.map(|_| buffer.split()))
    }

    fn is_blocked(&self) -> bool {
        self.state.borrow().blocked
    }

    fn received(self: &Rc<Self>, bytes: BytesMut) {
        if self.hub.is_closing() {
            self.state.borrow_mut().has_more = false;
            return;
        }
        let result = self.take(bytes);
        // What is answered right here: the handshake, PING, and why the connection ends.
        self.flush();
        if let Err(cause) = result {
            self.close(cause);
        }
    }

    /// Does what time brings: a peer that is late or silent is dropped, one that has become silent is asked.
    pub fn check(&self, now: Instant) {
        let limits = &self.hub.limits;
        let state = &mut *self.state.borrow_mut();
        if let Phase::Handshake(_) = state.phase {
            if now.duration_since(state.began) >= limits.handshake_timeout {
                self.end(state, Cause::SlowHandshake);
            }
            return;
        }
        // A subscriber may be stuck for as long as it likes: it costs no more than its queue.
        let is_stuck = state.stuck.is_some_and(|since| now.duration_since(since) >= limits.unread_timeout);
        if is_stuck && matches!(state.phase, Phase::Router(_)) {
            return self.end(state, Cause::Unread);
        }
        let silence = now.duration_since(state.heard);
        let knows_ping = state.minor_version >= 1;
        let is_gone = knows_ping && silence >= limits.heartbeat_timeout;
        if is_gone || state.peer_ttl.is_some_and(|ttl| silence >= ttl) {
            self.end(state, Cause::Silent);
        } else if knows_ping && !state.asked && silence >= limits.heartbeat_interval {
            state.asked = true;
            let ttl_tenths = u16::try_from(limits.heartbeat_timeout.as_millis() / 100).unwrap_or(u16::MAX);
            let sent = self.put_command(state, "PING", &ttl_tenths.to_be_bytes());
            if let Err(cause) = sent.and_then(|()| Ok(outgoing::write(state)?)) {
                self.end(state, cause);
            }
        }
    }

    /// Ends the connection if its key is not authorized any longer.
    pub fn check_key(&self) {
        let client = self.state.borrow().client;
        if client.is_some_and(|client| !self.hub.security.is_authorized(&client)) {
            self.close(Cause::Revoked);
        }
    }

    /// Ends the connection.
    pub fn close(&self, cause: Cause) {
        self.end(&mut self.state.borrow_mut(), cause);
    }

    /// Lets go of all that has come and is to go.
    fn forget(&self, state: &mut State) {
        state.wire = Wire::default();
        state.held_back = VecDeque::new();
        state.has_more = false;
        match &mut state.phase {
            Phase::Handshake(_) => {}
            Phase::Router(assembly) => *assembly = Assembly::default(),
            Phase::Publisher(subscriber) => *subscriber = Subscriber::default(),
        }
        self.count_buffered(state);
    }

    fn end(&self, state: &mut State, cause: Cause) {
        if state.writer.take().is_none() {
            return;
        }
        if let Some((incident, reason)) = cause.incident() {
            self.hub.report.borrow_mut().note(self.address, incident, reason, 1);
        }
        tracing::debug!(connection = self.id, address = ?self.address, "a connection is over: {cause}");
        // Whoever has just left may have asked for something before; of others nothing more is wanted.
        let has_left = matches!(cause, Cause::Left | Cause::Network(_)) && matches!(state.phase, Phase::Router(_));
        if !has_left {
            self.forget(state);
        }
        if matches!(state.phase, Phase::Publisher(_)) {
            self.hub.forget_audiences();
        }
        self.hub.remove(self);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}
