//! One connection: its bytes are read into messages, and replies and events become bytes.
//!
//! Each connection has a task that reads. Writing is tried at once by whoever has something to write; only what the
//! peer's network does not take is left to the task.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use crate::protocol::request::Port;
use crate::security::key::PublicKey;
use crate::transport::Inbound;

use super::assembly::Assembly;
use super::cause::Cause;
use super::codec::{Frame, Kind};
use super::command::{self, Command};
use super::handshake::{Handshake, Peer, Role};
use super::hub::Hub;
use super::limits::count;
use super::stream::{Reader, Writer};
use super::subscriber::{Event, Subscriber};
use super::wire::Wire;

/// How much is read at once at most.
const READ_BYTES: usize = 64 * 1024;
/// How much free space a buffer has at least before it is read into.
const READ_BYTES_MIN: usize = 8 * 1024;
/// How many frames of one peer are looked at before others have their turn: at first, and at most.
const TURN_FRAMES: (usize, usize) = (8, 128);
/// How many bytes of answers to one turn are much: a peer that asks for so much gets shorter turns.
const TURN_BYTES: usize = 64 * 1024;
/// What a peer may have waiting in any case, in bytes, however much waits for all.
const SHARE_BYTES: usize = 16 * 1024;
/// How much is handed to the network at once, where it is made of many events, and what an idle connection may keep.
const WRITE_BYTES: usize = 64 * 1024;

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
            turn: TURN_FRAMES.0,
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
            {
                let state = &mut *self.state.borrow_mut();
                let Some(writer) = &state.writer else { return Poll::Ready(()) };
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

    /// Takes what is complete, as far as one turn goes.
    fn take(self: &Rc<Self>, bytes: BytesMut) -> Result<(), Cause> {
        let state = &mut *self.state.borrow_mut();
        state.heard = Instant::now();
        state.asked = false;
        if !bytes.is_empty() {
            state.wire.input.feed(bytes);
        }
        if let Phase::Handshake(handshake) = &mut state.phase {
            let peer = handshake.advance(&mut state.wire)?;
            let Some(peer) = peer else {
                state.wire.input.settle();
                return Ok(());
            };
            self.ready(state, peer);
        }
        if self.is_crowded(state, 0) {
            return Err(Cause::Crowded);
        }
        let limits = &self.hub.limits;
        let mut requests = 0;
        while let Some(message) = state.held_back.pop_front() {
            state.batch = self.hub.arrived(message);
        }
        let replied = std::mem::take(&mut state.replied);
        state.turn = if replied > TURN_BYTES { state.turn / 2 } else { state.turn * 2 }.clamp(1, TURN_FRAMES.1);
        state.has_more = true;
        for _ in 0..state.turn {
            let Some(frame) = state.wire.next_frame(limits.message_bytes).map_err(Cause::offence)? else {
                state.has_more = false;
                state.wire.input.settle();
                if let Phase::Router(assembly) = &mut state.phase {
                    assembly.settle();
                }
                break;
            };
            requests += self.frame(state, frame)?;
        }
        if limits.requests_per_second > 0 && requests > 0 {
            // Those that came together are paid for together.
            let cost = Duration::from_secs(1) * requests / limits.requests_per_second;
            state.paused_until = Some(state.heard + cost);
        }
        Ok(())
    }

    fn ready(&self, state: &mut State, peer: Peer) {
        self.hub.is_ready(self);
        state.minor_version = peer.minor_version;
        state.client = peer.client;
        state.phase = match self.entrance.role() {
            Role::Router => Phase::Router(Assembly::default()),
            Role::Publisher => Phase::Publisher(Subscriber::default()),
        };
        tracing::trace!(connection = self.id, identity = ?peer.metadata.identity, "a peer is ready");
    }

    /// Does what a frame asks for. How many requests that were.
    fn frame(self: &Rc<Self>, state: &mut State, frame: Frame) -> Result<u32, Cause> {
        let limits = &self.hub.limits;
        let more = match frame.kind {
            Kind::Command => return self.command(state, &frame.body).map(|()| 0),
            Kind::Message { more } => more,
        };
        match &mut state.phase {
            Phase::Router(assembly) => {
                let whole = assembly.add(frame.body, more, limits.message_frames, limits.message_bytes);
                let Some(frames) = whole.map_err(Cause::offence)? else { return Ok(0) };
                let Entrance::Requests(port) = self.entrance else { return Ok(0) };
                state.batch = self.hub.arrived(Inbound { port, peer: self.clone(), client: state.client, frames });
                Ok(1)
            }
            Phase::Publisher(_) => {
                // Before ZMTP 3.1 subscriptions came as messages. Others mean nothing here.
                match *frame.body {
                    [1, ref topic @ ..] if !more => self.subscribe(state, topic)?,
                    [0, ref topic @ ..] if !more => self.cancel(state, topic),
                    _ => {}
                }
                Ok(0)
            }
            Phase::Handshake(_) => Ok(0),
        }
    }

    fn command(&self, state: &mut State, body: &Bytes) -> Result<(), Cause> {
        match command::read(body).map_err(Cause::offence)? {
            Command::Subscribe(topic) => self.subscribe(state, &topic)?,
            Command::Cancel(topic) => self.cancel(state, &topic),
            Command::Ping { ttl_tenths, context } => {
                state.peer_ttl = (ttl_tenths > 0).then(|| Duration::from_millis(u64::from(ttl_tenths) * 100));
                self.put_command(state, "PONG", &context)?;
            }
            Command::Error(reason) => return Err(Cause::Offence(format!("it sent an error: {reason}"))),
            Command::Pong | Command::Unknown => {}
        }
        Ok(())
    }

    fn subscribe(&self, state: &mut State, topic: &[u8]) -> Result<(), Cause> {
        if let Phase::Publisher(subscriber) = &mut state.phase {
            subscriber.subscribe(topic, self.hub.limits.subscriptions).map_err(Cause::offence)?;
            self.hub.forget_audiences();
        }
        Ok(())
    }

    fn cancel(&self, state: &mut State, topic: &[u8]) {
        if let Phase::Publisher(subscriber) = &mut state.phase {
            subscriber.cancel(topic);
            self.hub.forget_audiences();
        }
    }

    /// Whether the peer has subscribed to this topic.
    pub fn wants(&self, topic: &[u8]) -> bool {
        matches!(&self.state.borrow().phase, Phase::Publisher(subscriber) if subscriber.wants(topic))
    }

    /// Gives a message back if the peer has read so much of its replies that it can be answered; keeps it else.
    pub fn ready_for(&self, message: Inbound<Rc<Connection>>) -> Option<Inbound<Rc<Connection>>> {
        let state = &mut *self.state.borrow_mut();
        if state.writer.is_none() {
            return None;
        }
        if self.is_full(state)
            && let Err(error) = write(state)
        {
            self.end(state, Cause::Network(error));
            return None;
        }
        // What came before it comes first. If it is still full, the task is woken as soon as the peer has read some.
        if state.held_back.is_empty() && !self.is_full(state) {
            return Some(message);
        }
        state.held_back.push_back(message);
        state.has_more = true;
        None
    }

    /// Whether as many bytes wait for the peer as may.
    fn is_full(&self, state: &State) -> bool {
        matches!(state.phase, Phase::Router(_)) && state.wire.out.len() >= self.hub.limits.reply_queue_bytes
    }

    /// Queues a reply, which [`flush`](Connection::flush) sends.
    pub fn reply(&self, frames: &[&[u8]]) {
        let state = &mut *self.state.borrow_mut();
        if state.writer.is_none() {
            return;
        }
        let bytes: usize = frames.iter().map(|frame| state.wire.frame_bytes(frame.len())).sum();
        if let Err(cause) = self.admit(state, bytes) {
            return self.end(state, cause);
        }
        let Some((last, first)) = frames.split_last() else { return };
        state.replied += bytes;
        state.wire.out.reserve(bytes);
        first.iter().for_each(|frame| state.wire.put(Kind::Message { more: true }, frame));
        state.wire.put(Kind::Message { more: false }, last);
        self.count_buffered(state);
    }

    /// Counts anew what waits for and from this peer.
    fn count_buffered(&self, state: &mut State) {
        let parts = if let Phase::Router(assembly) = &state.phase { assembly.bytes() } else { 0 };
        let held_back: usize = state.held_back.iter().flat_map(|message| &message.frames).map(Bytes::len).sum();
        let before = std::mem::replace(&mut state.buffered, state.wire.bytes() + parts + held_back);
        self.hub.buffered.set(self.hub.buffered.get() + state.buffered - before);
    }

    /// Whether so much waits for all peers together that this one may not have so many bytes more.
    fn is_crowded(&self, state: &mut State, more: usize) -> bool {
        self.count_buffered(state);
        self.hub.buffered.get() + more > self.hub.limits.buffered_bytes && state.buffered + more > SHARE_BYTES
    }

    /// Queues an event, which [`flush`](Connection::flush) sends.
    pub fn publish(&self, event: Rc<Event>) {
        let state = &mut *self.state.borrow_mut();
        if let Phase::Publisher(subscriber) = &mut state.phase {
            let dropped = subscriber.queue(event, self.hub.limits.event_queue_bytes);
            count(&self.hub.counters.missed_events, dropped as u64);
        }
    }

    fn put_command(&self, state: &mut State, name: &str, data: &[u8]) -> Result<(), Cause> {
        let body = command::body(name, data);
        // Who asks and never reads is a client's business, whose requests wait then, but not a subscriber's.
        let is_over = state.wire.out.len() > self.hub.limits.reply_queue_bytes;
        if is_over && matches!(state.phase, Phase::Publisher(_)) {
            return Err(Cause::Unread);
        }
        self.admit(state, state.wire.frame_bytes(body.len()))?;
        state.wire.put(Kind::Command, &body);
        Ok(())
    }

    /// One answer fits always, however long it is, if the peer has taken all before it.
    fn admit(&self, state: &mut State, bytes: usize) -> Result<(), Cause> {
        if !state.wire.out.is_empty() && self.is_crowded(state, bytes) { Err(Cause::Crowded) } else { Ok(()) }
    }

    /// Writes as much as the network takes. The task sees to the rest.
    pub fn flush(&self) {
        let state = &mut *self.state.borrow_mut();
        match write(state) {
            Ok(()) => self.count_buffered(state),
            Err(error) => self.end(state, Cause::Network(error)),
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
            if let Err(cause) = sent.and_then(|()| Ok(write(state)?)) {
                self.end(state, cause);
            }
        }
    }

    /// Whether the network has all that the peer is to get.
    pub fn is_flushed(&self) -> bool {
        let state = self.state.borrow();
        state.writer.is_none() || (state.wire.out.is_empty() && !has_events(&state))
    }

    /// Tells the peer that nothing more comes.
    pub fn finish(&self) {
        if let Some(writer) = &self.state.borrow().writer {
            writer.shut_down();
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

    fn end(&self, state: &mut State, cause: Cause) {
        if state.writer.take().is_none() {
            return;
        }
        cause.count(&self.hub.counters);
        tracing::debug!(connection = self.id, address = ?self.address, "a connection is over: {cause}");
        state.wire = Wire::default();
        if let Phase::Router(assembly) = &mut state.phase {
            *assembly = Assembly::default();
        }
        state.held_back = VecDeque::new();
        self.count_buffered(state);
        state.has_more = false;
        if let Phase::Publisher(subscriber) = &mut state.phase {
            *subscriber = Subscriber::default();
            self.hub.forget_audiences();
        }
        self.hub.remove(self);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

fn has_events(state: &State) -> bool {
    matches!(&state.phase, Phase::Publisher(subscriber) if !subscriber.is_empty())
}

/// Writes until there is nothing to write or the network takes no more; then the task is woken to wait for it.
fn write(state: &mut State) -> io::Result<()> {
    let Some(writer) = &state.writer else { return Ok(()) };
    if state.blocked {
        return Ok(());
    }
    loop {
        if state.wire.out.is_empty()
            && let Phase::Publisher(subscriber) = &mut state.phase
        {
            while state.wire.out.len() < WRITE_BYTES
                && let Some(event) = subscriber.take_oldest()
            {
                state.wire.put_event(&event);
            }
        }
        if state.wire.out.is_empty() {
            break;
        }
        match writer.try_write(&state.wire.out) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => {
                // Whoever reads on is there, also if what he says is not read meanwhile.
                if state.stuck.take().is_some() {
                    state.heard = Instant::now();
                }
                state.wire.out.advance(length);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                state.blocked = true;
                state.stuck.get_or_insert_with(Instant::now);
                if let Some(waker) = &state.waker {
                    waker.wake_by_ref();
                }
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if state.wire.out.is_empty() {
        state.wire.out.clear();
        if state.wire.out.capacity() > WRITE_BYTES {
            state.wire.out = BytesMut::new();
        }
    }
    Ok(())
}
