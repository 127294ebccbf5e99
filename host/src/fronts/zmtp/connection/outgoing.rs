//! What goes to a peer: replies and events, and what waits when it does not read.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use crate::fronts::zmtp::cause::Cause;
use crate::fronts::zmtp::memory::{Kept, Shared};
use crate::fronts::zmtp::report::Incident;
use crate::fronts::zmtp::stream::Writer;
use crate::fronts::{Frames, Inbound};
use registry_zmtp::codec::Kind;
use registry_zmtp::command;
use registry_zmtp::wire::Wire;

use super::backlog::Backlog;
use super::events::{Event, Events};
use super::{Connection, Peer, Phase, State};

/// What a peer may have waiting in any case, in bytes, however much waits for all.
pub const SHARE_BYTES: usize = 16 * 1024;
/// From how many bytes on something is kept where it is, rather than copied for each peer.
const LONG_BYTES: usize = 16 * 1024;
/// How much is handed to the network at once, where it is made of many events.
const WRITE_BYTES: usize = 64 * 1024;
/// How much is handed to the network before others have their turn: a hundred connections may each have a turn before the
/// next message is answered.
const TURN_BYTES: usize = 32 * 1024;
/// How much more it takes to encrypt something than to write it.
const SEALING_COST: usize = 4;
/// How large a buffer an idle connection may keep.
const KEPT_BYTES: usize = 4 * 1024;

impl Connection {
    /// Whether the peer has subscribed to this topic.
    pub fn wants(&self, topic: &[u8]) -> bool {
        matches!(&self.state.borrow().phase, Phase::Publisher(wanted, _) if wanted.wants(topic))
    }

    /// Gives a message back if the peer has read enough of its replies to get another; otherwise keeps it for later.
    pub fn ready_for(&self, message: Inbound<Peer>) -> Option<Inbound<Peer>> {
        let state = &mut *self.state.borrow_mut();
        if self.is_full(state) {
            match self.write(state) {
                Ok(()) => self.recount(state),
                Err(error) => self.end(state, Cause::Network(error)),
            }
        }
        // What a peer has asked for is done, even if it does not wait for the answer.
        let is_due = state.writer.is_none() || !self.is_full(state);
        // What came before it comes first. If it is still full, the task is woken as soon as the peer has read some.
        if state.held_back.messages.is_empty() && is_due {
            return Some(message);
        }
        self.keep(state, message);
        None
    }

    fn keep(&self, state: &mut State, mut message: Inbound<Peer>) {
        // Copies: a few bytes do not keep the buffer that they came in.
        message.frames = message.frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect::<Frames>();
        state.held_back.bytes += size_of::<Inbound<Peer>>() + message.frames.iter().map(Bytes::len).sum::<usize>();
        state.held_back.messages.push_back(message);
        state.turn.has_more = true;
        self.recount(state);
    }

    /// Whether as many bytes wait for the peer as may: few, while little room is left for all.
    pub(super) fn is_full(&self, state: &State) -> bool {
        let (own, shared) = state.backlog.bytes();
        let waiting = state.wire.out.len() + own + shared;
        let reply_queue_bytes = self.hub.limits.get().reply_queue_bytes;
        let max = if self.hub.memory.is_tight() { reply_queue_bytes.min(SHARE_BYTES) } else { reply_queue_bytes };
        matches!(state.phase, Phase::Router(_)) && waiting >= max
    }

    /// Queues a reply, which [`flush`](Connection::flush) sends. Its last frame is made of `shared` and `rest`.
    pub fn reply(&self, first: &[&[u8]], shared: Option<&Arc<[Bytes]>>, rest: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        if state.writer.is_none() {
            return;
        }
        let wire = &mut state.wire;
        let shared = shared.map(|pieces| self.hub.memory.share(Kept::Many(pieces.clone())));
        let long = shared.as_ref().map_or(0, Shared::len);
        let first_bytes = first.iter().map(|frame| wire.frame_bytes(frame.len())).sum::<usize>();
        let bytes = first_bytes + wire.frame_bytes(long + rest.len());
        state.turn.replied += bytes;
        wire.out.reserve(if long < LONG_BYTES { bytes } else { bytes - long });
        first.iter().for_each(|frame| wire.put(Kind::Message { more: true }, frame));
        match shared {
            None => wire.put(Kind::Message { more: false }, rest),
            Some(shared) if long < LONG_BYTES => {
                wire.put(Kind::Message { more: false }, &[&shared.pieces().concat()[..], rest].concat());
            }
            Some(shared) => put_long(wire, &mut state.backlog, shared, 0, rest),
        }
    }

    /// Queues an event, which [`flush`](Connection::flush) sends.
    pub fn publish(&self, event: Rc<Event>) {
        let state = &mut *self.state.borrow_mut();
        if let Phase::Publisher(_, events) = &mut state.phase {
            let dropped = events.queue(event, self.hub.limits.get().event_queue_bytes);
            if dropped > 0 {
                self.missed.set(self.missed.get() + dropped as u64);
                let mut report = self.hub.report.borrow_mut();
                report.note(self.address, Incident::Missed, "reads too slowly", dropped as u64);
            }
        }
    }

    /// Queues a command. A client that asks and never reads has to wait with its further requests; a subscriber has
    /// none, and is cut off.
    pub(super) fn put_command(&self, state: &mut State, name: &str, data: &[u8]) -> Result<(), Cause> {
        let is_over = state.wire.out.len() > self.hub.limits.get().reply_queue_bytes;
        if is_over && matches!(state.phase, Phase::Publisher(..)) {
            return Err(Cause::Unread);
        }
        state.wire.put(Kind::Command, &command::body(name, data));
        Ok(())
    }

    /// Writes as much as the network takes. The task sees to the rest.
    pub fn flush(&self) {
        let state = &mut *self.state.borrow_mut();
        match self.write(state) {
            Ok(()) => self.recount(state),
            Err(error) => self.end(state, Cause::Network(error)),
        }
    }

    /// Whether the network has all that the peer is to get.
    pub fn is_flushed(&self) -> bool {
        let state = self.state.borrow();
        state.writer.is_none() || !state.has_unwritten()
    }

    /// Tells the peer that nothing more comes.
    pub fn finish(&self) {
        if let Some(writer) = &self.state.borrow().writer {
            writer.shut_down();
        }
    }

    /// Writes until there is nothing to write, the network takes no more, or others have their turn. In the last two
    /// cases the task is woken to go on.
    pub(super) fn write(&self, state: &mut State) -> io::Result<()> {
        let mut left = TURN_BYTES;
        while !state.blocked && left > 0 && state.has_unwritten() {
            let Some(writer) = &state.writer else { break };
            let events = if let Phase::Publisher(_, events) = &mut state.phase { Some(events) } else { None };
            let mut next = Next { wire: &mut state.wire, backlog: &mut state.backlog, events };
            let prepared = next.prepare();
            left = left.saturating_sub(prepared * SEALING_COST);
            if prepared > 0 {
                continue;
            }
            match next.write(writer, &mut self.hub.scratch.borrow_mut(), left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    left = left.saturating_sub(written);
                    state.liveness.note_taken();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.blocked = true;
                    state.liveness.note_blocked();
                    self.wake();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if left == 0 && state.has_unwritten() {
            self.wake();
        }
        if state.wire.out.is_empty() && state.wire.out.capacity() > KEPT_BYTES {
            state.wire.out = BytesMut::new();
        }
        Ok(())
    }
}

impl State {
    fn has_unwritten(&self) -> bool {
        let has_events = matches!(&self.phase, Phase::Publisher(_, events) if !events.is_empty());
        !self.wire.out.is_empty() || !self.backlog.is_empty() || has_events
    }
}

/// Appends the last frame of a message, whose parts are not copied. It begins at `from` in the first.
fn put_long(wire: &mut Wire, backlog: &mut Backlog, shared: Shared, from: usize, rest: &[u8]) {
    let bytes = shared.len() - from + rest.len();
    let sealed = wire.begin_last(bytes);
    backlog.push_own(&mut wire.out);
    match sealed {
        Some(message) => backlog.push_sealed(message, shared, from, rest),
        None => {
            backlog.push_shared(shared, from);
            wire.out.extend_from_slice(rest);
        }
    }
}

/// What is written next: the backlog, what stands in the buffer, and then events.
struct Next<'a> {
    wire: &'a mut Wire,
    backlog: &'a mut Backlog,
    events: Option<&'a mut Events>,
}

impl Next<'_> {
    /// Makes something ready to be written: how many bytes had to be looked at for it. 0 if it is ready.
    fn prepare(&mut self) -> usize {
        if !self.backlog.is_empty() {
            return self.backlog.prepare();
        }
        if !self.wire.out.is_empty() {
            return 0;
        }
        let Some(events) = &mut self.events else { return 0 };
        if self.wire.is_encrypted() {
            seal_events(self.wire, self.backlog, events)
        } else {
            pick_long(self.backlog, events)
        }
    }

    /// Writes what is ready: how many bytes that were.
    fn write(&mut self, writer: &Writer, scratch: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        if !self.backlog.is_empty() {
            let written = writer.try_write_vectored(&self.backlog.slices(&self.wire.out, max))?;
            let beyond = self.backlog.advance(written);
            self.wire.out.advance(beyond);
            return Ok(written);
        }
        if !self.wire.out.is_empty() {
            let written = writer.try_write(&self.wire.out)?;
            self.wire.out.advance(written);
            return Ok(written);
        }
        let Some(events) = &mut self.events else { return Ok(0) };
        write_events(events, self.backlog, writer, scratch)
    }
}

/// Encrypts some events, or begins with a long one.
fn seal_events(wire: &mut Wire, backlog: &mut Backlog, events: &mut Events) -> usize {
    while wire.out.len() < WRITE_BYTES
        && backlog.is_empty()
        && let Some(event) = events.take_oldest()
    {
        wire.put(Kind::Message { more: true }, &event.topic);
        if event.body.len() < LONG_BYTES {
            wire.put(Kind::Message { more: false }, &event.body);
        } else {
            put_long(wire, backlog, event.held.clone(), event.frames.len() - event.body.len(), &[]);
        }
    }
    wire.out.len().max(1)
}

/// Lets a long event be written from where it is.
fn pick_long(backlog: &mut Backlog, events: &mut Events) -> usize {
    if events.oldest().is_none_or(|event| event.frames.len() < LONG_BYTES) {
        return 0;
    }
    events.take_oldest().map_or(0, |event| {
        backlog.push_shared(event.held.clone(), 0);
        1
    })
}

/// Writes many events at once. They are gathered in a buffer that all connections share, so a stuck subscriber holds no
/// copies.
fn write_events(
    events: &mut Events,
    backlog: &mut Backlog,
    writer: &Writer,
    scratch: &mut Vec<u8>,
) -> io::Result<usize> {
    scratch.clear();
    for event in events.iter().take_while(|event| event.frames.len() < LONG_BYTES) {
        if scratch.len() >= WRITE_BYTES {
            break;
        }
        scratch.extend_from_slice(&event.frames);
    }
    let written = writer.try_write(scratch)?;
    let mut left = written;
    while left > 0
        && let Some(event) = events.take_oldest()
    {
        if left < event.frames.len() {
            backlog.push_shared(event.held.clone(), left);
            break;
        }
        left -= event.frames.len();
    }
    Ok(written)
}
