//! The way to what a host leaves behind that dies: a change is stored too late for its client together with one that is in
//! time, and the host is killed while it takes the former back.

use rand::RngExt;

use super::{Action, CLIENTS, Does, Fate, Fault, Settings, Writer, one_of};
use crate::history::Ask;

impl Writer {
    /// The steps, one after the other. Whatever else is asked for meanwhile may make something else of it.
    pub(super) fn left_behind(&mut self, settings: &Settings) -> Vec<Action> {
        // The first group keeps the second waiting, which has one change from its begin and one from its end.
        let (first_ms, second_ms) = (self.rng.random_range(250..350), self.rng.random_range(160..300));
        let undo_ms = one_of(&mut self.rng, &[0, 100, 900, 4000]);
        let fate = one_of(&mut self.rng, &[Fate::Done, Fate::Done, Fate::LostReply, Fate::Nothing]);
        let slow = |delay_ms: u64, fate: Fate| Does::Store(Fault::Next { any: false, delay_ms, fate });
        let mut actions = Vec::new();
        for does in [slow(first_ms, Fate::Done), slow(second_ms, Fate::Done), slow(undo_ms, fate), self.change()] {
            actions.push(Action { after_ms: 0, does });
        }
        for _ in 0..self.rng.random_range(1..3) {
            actions.push(Action { after_ms: 2, does: self.change() });
        }
        for place in 0..self.rng.random_range(1..3) {
            actions.push(Action { after_ms: if place == 0 { first_ms - 20 } else { 2 }, does: self.change() });
        }
        let landed_ms = second_ms + 20 + 2 * settings.store_ms;
        for place in 0..self.rng.random_range(1..4) {
            let ask = Ask::List { service_type: self.rng.random_bool(0.2).then(|| self.service_type()) };
            let does = Does::Ask { client: self.rng.random_range(0..CLIENTS), host: 0, ask, times: 1 };
            actions.push(Action { after_ms: if place == 0 { landed_ms } else { 1 }, does });
        }
        let (steps, part) = (self.rng.random_range(0..6), one_of(&mut self.rng, &[0, 0, 128, 255]));
        let does = Does::Kill { host: 0, steps, part, down_ms: self.down_ms() };
        actions.push(Action { after_ms: self.rng.random_range(0..=undo_ms.min(500)), does });
        actions
    }

    fn change(&mut self) -> Does {
        let client = self.rng.random_range(0..CLIENTS);
        let ask = match self.rng.random_bool(0.7) {
            true => Ask::Register(self.registration(client)),
            false => Ask::Deregister { id: self.id_of(client), generation: None },
        };
        Does::Ask { client, host: 0, ask, times: 1 }
    }
}
