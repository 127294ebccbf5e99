//! What comes from a peer: frames, and what they ask for.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::fronts::Inbound;
use crate::fronts::zmtp::cause::Cause;
use registry_zmtp::assembly::Assembly;
use registry_zmtp::codec::{Frame, Kind};
use registry_zmtp::command::{self, Command};
use registry_zmtp::handshake::{self, SocketType};

use super::{Connection, Entrance, Peer, Phase, State};

/// How many frames of one peer are looked at before others have their turn: at first, and at most.
pub(super) const TURN_FRAMES: (usize, usize) = (8, 128);
/// How many bytes of answers to one turn are much: a peer that asks for so much gets shorter turns.
const TURN_BYTES: usize = 64 * 1024;

impl Connection {
    /// Takes what is complete, as far as one turn goes.
    pub(super) fn take(self: &Rc<Self>, bytes: BytesMut) -> Result<(), Cause> {
        let state = &mut *self.state.borrow_mut();
        state.liveness.hear(Instant::now());
        if !bytes.is_empty() {
            state.wire.input.feed(bytes);
        }
        if !self.shake_hands(state)? {
            return Ok(());
        }
        self.bring_back(state);
        self.begin_turn(state);
        let requests = self.take_frames(state)?;
        self.pause(state, requests);
        self.recount(state);
        Ok(())
    }

    /// Goes on with the handshake: whether it is done.
    fn shake_hands(&self, state: &mut State) -> Result<bool, Cause> {
        let Phase::Handshake(handshake) = &mut state.phase else { return Ok(true) };
        let socket_type = self.entrance.socket_type();
        let is_allowed = |client: &_| self.hub.guard.admits(client, socket_type);
        let Some(peer) = handshake.advance(&mut state.wire, is_allowed)? else {
            state.wire.input.settle();
            return Ok(false);
        };
        self.begin(state, peer);
        Ok(true)
    }

    /// A peer that is asked for little gets longer turns, one that asks for much gets shorter ones.
    fn begin_turn(&self, state: &mut State) {
        let turn = &mut state.turn;
        let replied = std::mem::take(&mut turn.replied);
        turn.frames = if replied > TURN_BYTES { turn.frames / 2 } else { turn.frames * 2 }.clamp(1, TURN_FRAMES.1);
        turn.has_more = true;
    }

    /// Takes frames until the turn is over, or until nothing more may be asked: how many requests came to their end.
    fn take_frames(self: &Rc<Self>, state: &mut State) -> Result<u32, Cause> {
        let mut requests = 0;
        for _ in 0..state.turn.frames {
            if self.is_unanswered(state) {
                break;
            }
            let frame = state.wire.next_frame(self.hub.limits.get().message_bytes).map_err(Cause::offence)?;
            let Some(frame) = frame else {
                state.turn.has_more = false;
                self.settle(state);
                break;
            };
            requests += self.frame(state, frame)?;
        }
        Ok(requests)
    }

    /// Keeps what has come of a message that is not complete, and nothing else.
    fn settle(&self, state: &mut State) {
        state.wire.input.settle();
        let mut unfinished = state.wire.input.peek().len();
        if let Phase::Router(assembly) = &mut state.phase {
            assembly.settle();
            unfinished += assembly.bytes();
        }
        state.liveness.note_unfinished(unfinished);
    }

    /// Lets the peer wait if it asks more often than it may. Requests that came together are paid for together.
    fn pause(&self, state: &mut State, requests: u32) {
        let per_second = self.hub.limits.get().requests_per_second;
        if per_second > 0 && requests > 0 {
            let cost = Duration::from_secs(1) * requests / per_second;
            state.turn.paused_until = Some(state.liveness.heard + cost);
        }
    }

    /// Lets the server have what it could not answer yet.
    fn bring_back(&self, state: &mut State) {
        state.held_back.bytes = 0;
        while let Some(message) = state.held_back.messages.pop_front() {
            state.turn.batch = self.hub.inbox.arrived(message);
        }
    }

    /// Takes what a peer has still asked for before it left: one turn more.
    pub(super) fn take_rest(self: &Rc<Self>) {
        let state = &mut *self.state.borrow_mut();
        if !self.hub.inbox.is_closed() {
            self.bring_back(state);
            for _ in 0..TURN_FRAMES.1 {
                let Ok(Some(frame)) = state.wire.next_frame(self.hub.limits.get().message_bytes) else { break };
                if self.frame(state, frame).is_err() {
                    break;
                }
            }
        }
        self.forget(state);
    }

    fn begin(&self, state: &mut State, peer: handshake::Peer) {
        self.hub.note_ready(self);
        state.liveness.minor_version = peer.minor_version;
        state.client = peer.client;
        state.phase = match self.entrance.socket_type() {
            SocketType::Router => Phase::Router(Assembly::default()),
            SocketType::Publisher => Phase::Publisher(Default::default(), Default::default()),
        };
        tracing::trace!(connection = self.id, identity = ?peer.metadata.identity, "a peer is ready");
    }

    /// Does what a frame asks for. How many requests that were.
    fn frame(self: &Rc<Self>, state: &mut State, frame: Frame) -> Result<u32, Cause> {
        let limits = self.hub.limits.get();
        let more = match frame.kind {
            Kind::Command => return self.command(state, &frame.body).map(|()| 0),
            Kind::Message { more } => more,
        };
        match &mut state.phase {
            Phase::Router(assembly) => {
                let whole = assembly.add(frame.body, more, limits.message_frames, limits.message_bytes);
                let Some(frames) = whole.map_err(Cause::offence)? else { return Ok(0) };
                let Entrance::Requests(port) = self.entrance else { return Ok(0) };
                let peer = Peer::new(self.clone());
                let (client, address) = (state.client, self.from);
                state.turn.batch = self.hub.inbox.arrived(Inbound { port, peer, client, address, frames });
                Ok(1)
            }
            Phase::Publisher(..) => {
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
                let ttl = Duration::from_millis(u64::from(ttl_tenths) * 100);
                state.liveness.peer_ttl = (ttl_tenths > 0).then_some(ttl);
                self.put_command(state, "PONG", &context)?;
            }
            Command::Error(reason) => return Err(Cause::Offence(format!("it sent an error: {reason}"))),
            Command::Pong | Command::Unknown => {}
        }
        Ok(())
    }

    fn subscribe(&self, state: &mut State, topic: &[u8]) -> Result<(), Cause> {
        if let Phase::Publisher(wanted, _) = &mut state.phase {
            wanted.add(topic, self.hub.limits.get().subscriptions).map_err(Cause::offence)?;
            self.hub.forget_audiences();
        }
        Ok(())
    }

    fn cancel(&self, state: &mut State, topic: &[u8]) {
        if let Phase::Publisher(wanted, _) = &mut state.phase {
            wanted.cancel(topic);
            self.hub.forget_audiences();
        }
    }
}
