//! What time brings: peers that are late, silent, or hold much for long.

use std::time::{Duration, Instant};

use crate::fronts::zmtp::cause::Cause;

use super::{Connection, Phase, State};

/// How much a message has to grow before its sender counts as sending on, in bytes.
const PROGRESS_BYTES: usize = 4096;

/// Between these the time counts for which a peer has left alone what it holds. Much counts even if it is new, and little
/// does not outweigh it however old it is.
const IDLE_COUNTED: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// When the peer last did what.
pub(super) struct Liveness {
    pub(super) began: Instant,
    /// When something came from the peer.
    pub(super) heard: Instant,
    /// Whether the peer was asked since then.
    asked: bool,
    /// The 1 of ZMTP 3.1.
    pub(super) minor_version: u8,
    /// How long the peer takes the connection to live without its hearing, if it has said so.
    pub(super) peer_ttl: Option<Duration>,
    /// When the peer stopped taking what waits for it, if something does.
    stuck: Option<Instant>,
    /// How much of a message had come when the sender last went on, in bytes, and when that was.
    unfinished: usize,
    went_on: Instant,
}

impl Liveness {
    /// For a connection that comes in now.
    pub(super) fn begin(now: Instant) -> Self {
        Liveness {
            began: now,
            heard: now,
            asked: false,
            minor_version: 0,
            peer_ttl: None,
            stuck: None,
            unfinished: 0,
            went_on: now,
        }
    }

    /// Something has come.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.asked = false;
    }

    /// So many bytes are there of a message that is not complete. A few more at a time do not count as going on.
    pub(super) fn note_unfinished(&mut self, bytes: usize) {
        if bytes < self.unfinished || bytes >= self.unfinished + PROGRESS_BYTES {
            self.unfinished = bytes;
            self.went_on = self.heard;
        }
    }

    /// The peer has taken some of what waits. So it is there, even while what it sends is not looked at.
    pub(super) fn note_taken(&mut self) {
        if self.stuck.take().is_some() {
            self.heard = Instant::now();
        }
    }

    /// The network takes no more.
    pub(super) fn note_blocked(&mut self) {
        self.stuck.get_or_insert_with(Instant::now);
    }

    /// For how long the peer has neither taken what waits for it nor gone on with what it sends.
    fn idle(&self, now: Instant) -> Duration {
        let stuck = self.stuck.map_or(Duration::ZERO, |since| now.duration_since(since));
        let silent = if self.unfinished > 0 { now.duration_since(self.went_on) } else { Duration::ZERO };
        stuck.max(silent)
    }
}

/// What a connection keeps from others.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    /// How many bytes wait for it, or from it.
    pub bytes: usize,
    /// For how long the peer has done nothing about that.
    pub idle: Duration,
}

impl Holding {
    /// How much it weighs when somebody has to go.
    pub fn weight(&self) -> u128 {
        self.bytes as u128 * self.idle.clamp(IDLE_COUNTED.0, IDLE_COUNTED.1).as_millis()
    }
}

impl Connection {
    /// Does what time brings: a peer that is late or silent is dropped, one that has become silent is asked.
    pub fn check(&self, now: Instant) {
        let limits = self.hub.limits.get();
        let state = &mut *self.state.borrow_mut();
        if let Phase::Handshake(_) = state.phase {
            if now.duration_since(state.liveness.began) >= limits.handshake_timeout {
                self.end(state, Cause::SlowHandshake);
            }
            return;
        }
        // A subscriber that is stuck misses the oldest events, and costs no more than its queue. One that knows PING, takes
        // nothing and says nothing is silent all the same: whether it is there cannot be known.
        let is_stuck = state.liveness.stuck.is_some_and(|since| now.duration_since(since) >= limits.unread_timeout);
        if is_stuck && matches!(state.phase, Phase::Router(_)) {
            return self.end(state, Cause::Unread);
        }
        // What a peer sends while it has to wait is not heard.
        let is_paused = state.turn.paused_until.is_some_and(|until| now < until);
        if self.is_unanswered(state) || is_paused {
            state.liveness.heard = now;
        }
        let silence = now.duration_since(state.liveness.heard);
        let knows_ping = state.liveness.minor_version >= 1;
        let is_gone = knows_ping && silence >= limits.heartbeat_timeout;
        if is_gone || state.liveness.peer_ttl.is_some_and(|ttl| silence >= ttl) {
            self.end(state, Cause::Silent);
        } else if knows_ping && !state.liveness.asked && silence >= limits.heartbeat_interval {
            self.ask(state);
        }
    }

    fn ask(&self, state: &mut State) {
        state.liveness.asked = true;
        let timeout = self.hub.limits.get().heartbeat_timeout;
        let ttl_tenths = u16::try_from(timeout.as_millis() / 100).unwrap_or(u16::MAX);
        let sent = self.put_command(state, "PING", &ttl_tenths.to_be_bytes());
        if let Err(cause) = sent.and_then(|()| Ok(self.write(state)?)) {
            self.end(state, cause);
        }
    }

    /// What the connection keeps from others.
    pub fn holding(&self, now: Instant) -> Holding {
        let state = &*self.state.borrow();
        let events = if let Phase::Publisher(_, events) = &state.phase { events.bytes() } else { 0 };
        Holding { bytes: state.counted + state.backlog.bytes().1 + events, idle: state.liveness.idle(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_go_first_that_hold_most_for_longest() {
        let weight = |bytes, millis| Holding { bytes, idle: Duration::from_millis(millis) }.weight();
        assert!(weight(4_000_000, 2000) > weight(4_000_000, 1000));
        assert!(weight(4_000_000, 1000) > weight(100_000, 1000));
        assert!(weight(20_000, 5000) > weight(100_000, 50), "who sends on is spared");
        assert!(weight(4_000_000, 1000) > weight(20_000, 3_600_000), "little does not become much by its age");
        assert!(weight(1_000_000, 0) > weight(1000, 1000), "much counts at once");
    }

    #[test]
    fn a_few_bytes_now_and_then_are_no_progress() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::begin(start);
        let mut hear = |seconds, bytes| {
            liveness.hear(at(seconds));
            liveness.note_unfinished(bytes);
            liveness.idle(at(seconds))
        };
        assert_eq!(hear(1, 100_000), Duration::ZERO);
        assert_eq!(hear(2, 100_001), Duration::from_secs(1));
        assert_eq!(hear(3, 100_000 + PROGRESS_BYTES), Duration::ZERO);
        assert_eq!(hear(9, 100_001 + PROGRESS_BYTES), Duration::from_secs(6));
        assert_eq!(hear(10, 50), Duration::ZERO, "it was complete, and the next has begun");
        assert_eq!(hear(11, 0), Duration::ZERO);
        assert_eq!(liveness.idle(at(99)), Duration::ZERO, "who has sent all owes nothing");
    }
}
