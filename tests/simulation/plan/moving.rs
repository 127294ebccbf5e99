//! A move to the other store, with what may go wrong at any of its steps.

use rand::RngExt;

use super::{Action, Does, Fate, Fault, Settings, Writer, one_of};
use crate::host::{STEPS, Wish};

impl Writer {
    pub(super) fn moving(&mut self, settings: &Settings) -> Vec<Action> {
        let mut actions = Vec::new();
        for _ in 0..one_of(&mut self.rng, &[0, 0, 0, 1, 2]) {
            let fault = self.store_fault();
            let does = if self.rng.random_bool(0.3) { Does::Store(fault) } else { Does::Other(fault) };
            actions.push(Action { after_ms: 0, does });
        }
        // Changes are let go that were held for too long, and come between.
        for _ in 0..one_of(&mut self.rng, &[0, 0, 1, 3]) {
            let delay_ms = one_of(&mut self.rng, &[60, 150, 250]);
            let does = Does::Other(Fault::Next { any: true, delay_ms, fate: Fate::Done });
            actions.push(Action { after_ms: 0, does });
        }
        let opens_ms = one_of(&mut self.rng, &[0, 1, 20, 300]);
        let steps = one_of(&mut self.rng, &[0, 1, 2, 3, 5, 8, 13, 30]);
        let part = one_of(&mut self.rng, &[0, 80, 128, 200, 255]);
        let dies = self.rng.random_bool(0.5).then(|| (one_of(&mut self.rng, &STEPS), steps, part));
        let wish = Wish { opens_ms, names_other: self.rng.random_bool(0.5), dies };
        actions.push(Action { after_ms: 0, does: Does::Swap { host: 0, wish } });
        if dies.is_some_and(|(step, ..)| matches!(step, "taking back" | "unmarking")) {
            // Mostly it is the last write of the store in charge that fails then.
            let fate = one_of(&mut self.rng, &[Fate::LostReply, Fate::Nothing]);
            actions.push(Action { after_ms: 0, does: Does::Store(Fault::Next { any: false, delay_ms: 0, fate }) });
        }
        // It takes some groups of the store.
        let lasts_ms = opens_ms + 6 * settings.store_ms + one_of(&mut self.rng, &[0, 0, 0, 300, 3000]);
        let mut left_ms = lasts_ms;
        for _ in 0..self.rng.random_range(0..10) {
            let after_ms = self.rng.random_range(0..=left_ms / 3);
            left_ms -= after_ms;
            actions.push(Action { after_ms, does: self.request() });
        }
        let does = match self.rng.random_range(0..6) {
            0..3 => Does::Kill { host: 0, steps, part, down_ms: self.down_ms() },
            3 => Does::Stop { host: 0, down_ms: self.down_ms() },
            4 => Does::Store(self.store_fault()),
            _ => self.request(),
        };
        actions.push(Action { after_ms: self.rng.random_range(0..=left_ms), does });
        actions
    }
}
