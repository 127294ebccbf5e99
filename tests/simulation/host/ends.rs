//! How a host ends, and how the next one begins.

use std::collections::VecDeque;

use registry_host::registry::Now;

use super::swap::Swap;
use super::{Around, CLOSE_MAX_MS, FLUSH_MAX_MS, Host, Killed, Life, Quiet, Uptime};
use crate::adapter::{Core, Kept};
use crate::history::{End, Found, How, What};
use crate::store::Answer;

impl Host {
    pub(super) fn end(&mut self, mut life: Life, how: How, part: u8, around: &mut Around<'_>) {
        let host = self.number;
        life.note_held(host, around);
        // What the store has said, and nobody has heard.
        for Answer { sent_at_ms, text, end, .. } in std::mem::take(&mut life.answers) {
            let end = if end == End::Refused { end } else { End::Failed };
            around.history.push(around.now_ms, What::Committed { host, sent_at_ms, end, text });
        }
        let other = 1 - life.in_charge;
        if let Some((sent_at_ms, text)) = around.stores[life.in_charge].abandon(host, part, around.reached) {
            around.history.push(around.now_ms, What::Committed { host, sent_at_ms, end: End::Failed, text });
        }
        // One store has nothing to do with the other.
        let part_of_other = if around.now_ms.is_multiple_of(2) { part } else { 255 - part };
        if let Some((_, text)) = around.stores[other].abandon(host, part_of_other, around.reached) {
            around.history.push(around.now_ms, What::Note(format!("store {other}: {text}")));
        }
        around.history.push(around.now_ms, What::Ended { host, how });
        self.named = life.in_charge;
        if life.is_unsure || life.swap.is_some() {
            self.leave(&life, other, around);
        }
        // What had reached the host is gone with it.
        self.inbox.clear();
        self.start_at_ms = around.now_ms + life.down_ms.max(1);
    }

    /// It ends while it moves: somebody has to tell which store is in charge.
    fn leave(&mut self, life: &Life, other: usize, around: &mut Around<'_>) {
        let is_left = |swap: &Swap| swap.leaves_other() && !around.stores[other].kept.is_new();
        let leaves_other = life.is_unsure || life.swap.as_ref().is_some_and(is_left);
        let stores = std::iter::once(life.in_charge).chain(leaves_other.then_some(other));
        let found = |kept: &Kept| {
            let (epoch, revision) = kept.position();
            Found { epoch, revision, contents: kept.contents() }
        };
        let kept = stores.map(|store| &around.stores[store].kept).filter(|kept| kept.is_in_charge());
        around.history.push(around.now_ms, What::Left { host: self.number, stores: kept.map(found).collect() });
        if let Some(swap) = &life.swap {
            around.reached.note(&format!("kill: while a move is {}", swap.step_name()));
            if leaves_other && swap.names_other() {
                self.named = other;
            }
        }
    }

    /// `serve::run`: the store is opened and loaded, then time begins.
    pub(super) fn start(&mut self, around: &mut Around<'_>) {
        let store = &mut around.stores[self.named];
        if !store.is_there(around.now_ms) {
            // Whoever starts it tries again.
            self.start_at_ms = around.now_ms + 500;
            return;
        }
        let kept = &mut store.kept;
        if !kept.is_in_charge() {
            around.reached.note("start: on the other store");
            around.history.push(around.now_ms, What::Refused { host: self.number, store: self.named });
            self.refused += 1;
            self.named = 1 - self.named;
            self.start_at_ms = around.now_ms + 1;
            if self.refused > 2 {
                // There is a way out, if somebody has to find one.
                around.stores[self.named].kept.reopen();
            }
            return;
        }
        (self.refused, self.starts) = (0, self.starts + 1);
        let position = kept.open();
        let seed = around.settings.seed ^ (self.starts << 32);
        let core = Core::load(around.settings, kept, &position, seed, around.unix_ms);
        let (epoch, revision) = (position.epoch, position.revision);
        let (contents, history) = (kept.contents(), around.settings.keeps_history.then(|| kept.history()));
        if contents.iter().flatten().any(|service| service.drain.is_some()) {
            around.reached.note("start: a drained service is there");
        }
        let complete_after = if around.settings.keeps_history { kept.complete_after() } else { revision };
        around.history.push(
            around.now_ms,
            What::Started { host: self.number, epoch, revision, contents, history, complete_after },
        );
        self.life = Some(Life {
            core,
            in_charge: self.named,
            answers: VecDeque::new(),
            others: VecDeque::new(),
            swap: None,
            leaving: None,
            is_unsure: false,
            storage_fails: false,
            uptime: Uptime::default(),
            quiet: Quiet::default(),
            is_turn_of_messages: true,
            began_ms: around.now_ms,
            revision,
            told: revision,
            wake_at_ms: around.now_ms,
            held_from_ms: 0,
            held_until_ms: 0,
            is_to_stop: false,
            stopping: None,
            closing: None,
            dies: None,
            down_ms: 0,
            restless_turns: 0,
            is_in_turn: false,
        });
    }
}

impl Life {
    /// `Server::finish`, from one answer of the store to the next, and what comes after it.
    pub(super) fn finish(
        &mut self,
        number: usize,
        since_ms: u64,
        now: Now,
        around: &mut Around<'_>,
    ) -> Result<Option<How>, Killed> {
        if let Some((_, how)) = self.closing {
            return self.close(number, how, now, around);
        }
        if let Some(answer) = self.answers.pop_front() {
            let has_failed = answer.result.is_err();
            self.answered(answer, now, number, around);
            if has_failed {
                self.dispatch(number, now, around)?;
                return self.close(number, How::StoppedInTrouble, now, around);
            }
        }
        if around.now_ms >= since_ms + FLUSH_MAX_MS {
            return self.close(number, How::StoppedInTrouble, now, around);
        }
        self.core.tick(now);
        self.core.hurry();
        self.dispatch(number, now, around)?;
        if self.core.is_idle() && !self.core.has_lists() && !self.store_is_asked() {
            return self.close(number, How::Stopped, now, around);
        }
        self.sleep(number, now, around);
        Ok(None)
    }

    /// The end of `Server::stop`: a store that is not in charge is waited for.
    fn close(&mut self, number: usize, how: How, now: Now, around: &mut Around<'_>) -> Result<Option<How>, Killed> {
        self.abandon_swap(number, around);
        let (since_ms, how) = *self.closing.get_or_insert((around.now_ms, how));
        while let Some(answer) = self.others.pop_front() {
            self.step()?;
            self.other_answered(&answer, number, around);
        }
        if self.leaving.is_none() || around.now_ms >= since_ms + CLOSE_MAX_MS {
            return Ok(Some(how));
        }
        self.sleep(number, now, around);
        Ok(None)
    }
}
