//! A front that counts what passes through it: requests by what was asked and how it was answered, how long that took,
//! and the changes that are announced.
//!
//! No clock is read for it: see [`Metrics`]. The requests of a turn have all taken as long as the turn, which is what
//! the last of them had to wait.

use std::sync::Arc;

use crate::config;
use crate::metrics::{self, Kind, Metrics};
use crate::protocol::event::{Event, Notice};
use crate::protocol::reply::Reply;

use super::roll::Roll;
use super::{Asked, Front};

/// A front, and what is counted.
pub struct Metered<F> {
    front: F,
    metrics: Arc<Metrics>,
    /// How many requests of each kind were answered in the turn in which they came, and when that began.
    at_once: [u64; Kind::ALL.len()],
    turn: u64,
}

/// The way back, and what is to be counted.
#[derive(Debug)]
pub struct Caller<C> {
    caller: C,
    /// When the turn began in which the request came, in nanoseconds.
    arrived: u64,
    asked: metrics::Asked,
    /// `None` if it does not matter how long it takes.
    kind: Option<Kind>,
}

impl<F> Metered<F> {
    /// Counts what passes through this front.
    pub fn over(front: F, metrics: Arc<Metrics>) -> Self {
        Metered { front, metrics, at_once: Default::default(), turn: 0 }
    }

    /// Takes note of how long the turn has taken that has just ended.
    fn end_turn(&mut self) {
        let took = self.metrics.now.get().saturating_sub(self.turn);
        for (histogram, count) in self.metrics.latency.iter().zip(&mut self.at_once) {
            match std::mem::take(count) {
                0 => {}
                count => histogram.note(took, count),
            }
        }
    }
}

impl<F: Front> Front for Metered<F> {
    type Message = F::Message;
    type Caller = Caller<F::Caller>;

    /// The clock is read before each call.
    fn receive(&mut self, batch: &mut Vec<F::Message>) -> impl Future<Output = ()> {
        self.end_turn();
        self.front.receive(batch)
    }

    fn read(&mut self, message: F::Message) -> Option<Asked<Self::Caller>> {
        let asked = self.front.read(message)?;
        let (name, kind) = match &asked.request {
            Ok(request) => {
                let action = request.action();
                (action.into(), Kind::of(action).filter(|_| !request.may_wait()))
            }
            Err(_) => (metrics::Asked::UNREADABLE, None),
        };
        let arrived = self.metrics.now.get();
        Some(asked.with_caller(|caller| Caller { caller, arrived, asked: name, kind }))
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.front.has_room(bytes)
    }

    fn is_gone(&self, caller: &Self::Caller) -> bool {
        self.front.is_gone(&caller.caller)
    }

    fn reply(&mut self, Caller { caller, arrived, asked, kind }: Self::Caller, reply: Reply) {
        self.metrics.requests.note(asked, reply.code());
        if let Some(kind) = kind {
            let now = self.metrics.now.get();
            if arrived == now {
                self.turn = now;
                self.at_once[kind as usize] += 1;
            } else {
                self.metrics.latency[kind as usize].note(now.saturating_sub(arrived), 1);
            }
        }
        self.front.reply(caller, reply);
    }

    fn publish(&mut self, event: Event) {
        self.metrics.changes[event.kind as usize].add(1);
        self.front.publish(event);
    }

    fn notify(&mut self, notice: Notice) {
        self.front.notify(notice);
    }

    fn set_limits(&mut self, limits: &config::Limits, server: &config::Server) {
        self.front.set_limits(limits, server);
    }

    fn call_roll(&self, roll: &mut Roll<'_>) {
        self.front.call_roll(roll);
    }

    fn flush(&mut self) {
        self.front.flush();
    }

    async fn close(self) {
        self.front.close().await;
    }
}
