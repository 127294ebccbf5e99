//! What operators are told of a connection.

use std::time::Instant;

use crate::fronts::roll::{Client, Following, TOPIC_SHOWN_MAX, TOPICS_SHOWN_MAX};
use crate::protocol::registration::cut;
use crate::security::origin::Origin;
use crate::security::principal::Principal;

use super::{Connection, Phase, State};

/// How many bytes wait for the peer and from it: not the buffers that it may keep besides.
fn waiting_bytes(state: &State) -> usize {
    let kept = match &state.phase {
        Phase::Handshake(_) => 0,
        Phase::Router(assembly) => assembly.bytes(),
        Phase::Publisher(_, events) => events.bytes(),
    };
    let (own, shared) = state.backlog.bytes();
    state.wire.input.peek().len() + state.wire.out.len() + own + shared + state.held_back.bytes + kept
}

impl Connection {
    /// Who is at the other end, as far as is known yet.
    pub fn origin(&self) -> Origin {
        let state = self.state.borrow();
        let principal = match (&state.phase, state.client) {
            (_, Some(key)) => Principal::Key(key),
            (Phase::Handshake(_), None) if self.hub.guard.keys().is_some() => Principal::Stranger,
            (_, None) => Principal::Nobody,
        };
        Origin { principal, address: self.from }
    }

    /// All that is known of it.
    pub fn client(&self, now: Instant) -> Client {
        let origin = self.origin();
        let state = self.state.borrow();
        Client {
            connection: self.id,
            front: self.entrance.as_str(),
            origin,
            is_ready: !matches!(state.phase, Phase::Handshake(_)),
            age: now.saturating_duration_since(state.liveness.began),
            silent: now.saturating_duration_since(state.liveness.heard),
            deeds: self.deeds.borrow().clone(),
            unanswered: self.unanswered.get(),
            waits: self.waits.get(),
            waiting_bytes: Some(waiting_bytes(&state)),
            following: self.following(&state),
        }
    }

    fn following(&self, state: &State) -> Option<Following> {
        let Phase::Publisher(wanted, _) = &state.phase else { return None };
        let shown = |topic: &bytes::Bytes| cut(&String::from_utf8_lossy(topic), TOPIC_SHOWN_MAX).into_owned();
        let topics = wanted.topics().take(TOPICS_SHOWN_MAX).map(shown).collect();
        Some(Following { subscriptions: wanted.count(), topics, missed: self.missed.get() })
    }
}
