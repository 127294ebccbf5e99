//! What goes to a peer: replies and events, and what waits when it does not read.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use crate::transport::Inbound;
use crate::transport::zmtp::cause::Cause;
use crate::transport::zmtp::codec::Kind;
use crate::transport::zmtp::command;
use crate::transport::zmtp::report::Incident;
use crate::transport::zmtp::subscriber::Event;

use super::{Connection, Phase, State};

/// What a peer may have waiting in any case, in bytes, however much waits for all.
const SHARE_BYTES: usize = 16 * 1024;
/// How much is handed to the network at once, where it is made of many events, and what an idle connection may keep.
const WRITE_BYTES: usize = 64 * 1024;

impl Connection {
    /// Whether the peer has subscribed to this topic.
    pub fn wants(&self, topic: &[u8]) -> bool {
        matches!(&self.state.borrow().phase, Phase::Publisher(subscriber) if subscriber.wants(topic))
    }

    /// Gives a message back if the peer has read so much of its replies that it can be answered; keeps it else.
    pub fn ready_for(&self, message: Inbound<Rc<Connection>>) -> Option<Inbound<Rc<Connection>>> {
        let state = &mut *self.state.borrow_mut();
        if self.is_full(state)
            && let Err(error) = write(state)
        {
            self.end(state, Cause::Network(error));
        }
        // What a peer has asked for is done, also if it does not wait for the answer.
        if state.writer.is_none() {
            return Some(message);
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
    pub(super) fn is_full(&self, state: &State) -> bool {
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
    }

    /// Counts anew what waits for and from this peer.
    pub(super) fn count_buffered(&self, state: &mut State) {
        let parts = match &state.phase {
            Phase::Handshake(_) => 0,
            Phase::Router(assembly) => assembly.bytes(),
            Phase::Publisher(subscriber) => subscriber.subscription_bytes(),
        };
        let held_back: usize = state.held_back.iter().flat_map(|message| &message.frames).map(Bytes::len).sum();
        let before = std::mem::replace(&mut state.buffered, state.wire.bytes() + parts + held_back);
        self.hub.buffered.set(self.hub.buffered.get() + state.buffered - before);
    }

    /// Whether so much waits for all peers together that this one may not have so many bytes more.
    pub(super) fn is_crowded(&self, state: &mut State, more: usize) -> bool {
        self.count_buffered(state);
        self.hub.buffered.get() + more > self.hub.limits.buffered_bytes && state.buffered + more > SHARE_BYTES
    }

    /// Queues an event, which [`flush`](Connection::flush) sends.
    pub fn publish(&self, event: Rc<Event>) {
        let state = &mut *self.state.borrow_mut();
        if let Phase::Publisher(subscriber) = &mut state.phase {
            let dropped = subscriber.queue(event, self.hub.limits.event_queue_bytes);
            if dropped > 0 {
                let mut report = self.hub.report.borrow_mut();
                report.note(self.address, Incident::Missed, "reads too slowly", dropped as u64);
            }
        }
    }

    pub(super) fn put_command(&self, state: &mut State, name: &str, data: &[u8]) -> Result<(), Cause> {
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
}

fn has_events(state: &State) -> bool {
    matches!(&state.phase, Phase::Publisher(subscriber) if !subscriber.is_empty())
}

/// Writes until there is nothing to write or the network takes no more; then the task is woken to wait for it.
pub(super) fn write(state: &mut State) -> io::Result<()> {
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
