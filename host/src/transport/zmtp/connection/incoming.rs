//! What comes from a peer: frames, and what they ask for.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::transport::Inbound;
use crate::transport::zmtp::assembly::Assembly;
use crate::transport::zmtp::cause::Cause;
use crate::transport::zmtp::codec::{Frame, Kind};
use crate::transport::zmtp::command::{self, Command};
use crate::transport::zmtp::handshake::{Peer, Role};
use crate::transport::zmtp::subscriber::Subscriber;

use super::{Connection, Entrance, Phase, State};

/// How many frames of one peer are looked at before others have their turn: at first, and at most.
pub(super) const TURN_FRAMES: (usize, usize) = (8, 128);
/// How many bytes of answers to one turn are much: a peer that asks for so much gets shorter turns.
const TURN_BYTES: usize = 64 * 1024;

impl Connection {
    /// Takes what is complete, as far as one turn goes.
    pub(super) fn take(self: &Rc<Self>, bytes: BytesMut) -> Result<(), Cause> {
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
        self.bring_back(state);
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

    /// Lets the server have what it could not answer yet.
    fn bring_back(&self, state: &mut State) {
        while let Some(message) = state.held_back.pop_front() {
            state.batch = self.hub.arrived(message);
        }
    }

    /// Takes what a peer has still asked for before it left: one turn more.
    pub(super) fn take_rest(self: &Rc<Self>) {
        let state = &mut *self.state.borrow_mut();
        if !self.hub.is_closing() {
            self.bring_back(state);
            for _ in 0..TURN_FRAMES.1 {
                let Ok(Some(frame)) = state.wire.next_frame(self.hub.limits.message_bytes) else { break };
                if self.frame(state, frame).is_err() {
                    break;
                }
            }
        }
        self.forget(state);
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
}
