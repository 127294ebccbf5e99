//! A host: the core, and the loop around it as `host/src/server/mod.rs` has it, played in simulated time.
//!
//! What is mirrored: `Server::run` (messages and the store's answers take turns; `tick`; the clean-up in a quiet moment;
//! `dispatch`), `Server::stop` and `finish` and `store::open` ([ends]), moves to another store ([swap]), and
//! `clock::Uptime`, for which time stands still while the host is held up. Sockets are a queue of messages, and a store's
//! lane is the store's queue of calls.

use std::collections::VecDeque;

use registry_host::registry::Now;
use registry_plugin_api::Group;
use serde_json::Value;

use crate::adapter::Core;
use crate::follower;
use crate::history::{Event, History, How, What};
use crate::plan::Settings;
use crate::reached::Reached;
use crate::store::{Answer, Store};
use quiet::Quiet;
use swap::{Leaving, Swap};
pub(crate) use swap::{STEPS, Wish};

mod ends;
#[path = "../../host/src/server/quiet.rs"]
mod quiet;
mod swap;

/// As in `server/mod.rs`.
const FLUSH_MAX_MS: u64 = 5000;
const CLOSE_MAX_MS: u64 = 5000;
/// As in `server/clock.rs`.
const HELD_UP_MS: u64 = 1000;
const READ_INTERVAL_MS: u64 = 100;
/// How many turns may follow each other without a pause: one by one, messages may come as fast.
const RESTLESS_TURNS_MAX: u32 = 2000;

/// The bodies of a turn's messages and the like: everything around the hosts that a turn touches.
pub(crate) struct Around<'a> {
    pub(crate) now_ms: u64,
    pub(crate) unix_ms: u64,
    pub(crate) settings: &'a Settings,
    pub(crate) stores: &'a mut [Store; 2],
    pub(crate) history: &'a mut History,
    pub(crate) reached: &'a mut Reached,
    /// What clients have been answered in this turn.
    pub(crate) replies: &'a mut Vec<(usize, Value)>,
}

/// A message that waits to be read.
pub(crate) struct Message {
    pub(crate) call: usize,
    pub(crate) key: Option<u8>,
    pub(crate) body: String,
}

pub(crate) struct Host {
    number: usize,
    life: Option<Life>,
    /// What clients have sent: it waits while the host is away, and is lost with it once it has reached it.
    inbox: VecDeque<Message>,
    start_at_ms: u64,
    starts: u64,
    /// The store that it is started on, as the operator has it, and how often it was not in charge.
    named: usize,
    refused: u32,
}

/// From a start to an end.
struct Life {
    core: Core,
    /// The store that is in charge.
    in_charge: usize,
    answers: VecDeque<Answer>,
    /// Those of the other store.
    others: VecDeque<Answer>,
    swap: Option<Swap>,
    leaving: Option<Leaving>,
    /// The store in charge may say that it is not, and the operator has been told so.
    is_unsure: bool,
    storage_fails: bool,
    uptime: Uptime,
    quiet: Quiet,
    is_turn_of_messages: bool,
    began_ms: u64,
    /// Where the store was then.
    revision: u64,
    /// The revision of the last event.
    told: u64,
    /// When the loop wakes by itself.
    wake_at_ms: u64,
    held_from_ms: u64,
    held_until_ms: u64,
    is_to_stop: bool,
    /// Since when it stops.
    stopping: Option<u64>,
    /// All is done, and since then the other store is to be closed.
    closing: Option<(u64, How)>,
    /// It dies when it has done so many steps; then so much of the group under way lands.
    dies: Option<(u32, u8)>,
    down_ms: u64,
    restless_turns: u32,
    is_in_turn: bool,
}

/// `clock::Uptime`, in milliseconds.
#[derive(Default)]
struct Uptime {
    read_ms: u64,
    held_up_ms: u64,
}

impl Uptime {
    fn at(&mut self, elapsed_ms: u64) -> (u64, u64) {
        let gap_ms = elapsed_ms - self.read_ms;
        self.read_ms = elapsed_ms;
        let left_out_ms = if gap_ms > HELD_UP_MS { gap_ms - READ_INTERVAL_MS } else { 0 };
        self.held_up_ms += left_out_ms;
        (elapsed_ms - self.held_up_ms, left_out_ms)
    }
}

/// The host is no more.
struct Killed;

enum Woken {
    Stop,
    Store(Answer),
    Other(Answer),
    Messages,
    Time,
}

impl Host {
    pub(crate) fn new(number: usize) -> Host {
        Host { number, life: None, inbox: VecDeque::new(), start_at_ms: 0, starts: 0, named: 0, refused: 0 }
    }

    /// When it has something to do next.
    pub(crate) fn next_at_ms(&self, now_ms: u64) -> u64 {
        let Some(life) = &self.life else { return self.start_at_ms };
        let has_answers = !life.answers.is_empty() && life.closing.is_none()
            || !life.others.is_empty() && (life.stopping.is_none() || life.closing.is_some());
        let is_awaited = life.is_to_stop && life.stopping.is_none() || has_answers;
        let is_asked = life.stopping.is_none() && !self.inbox.is_empty();
        let at_ms = if is_awaited || is_asked { now_ms } else { life.wake_at_ms };
        at_ms.max(life.held_until_ms)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.life.is_some()
    }

    pub(crate) fn is_held_up(&self, at_ms: u64) -> bool {
        self.life.as_ref().is_some_and(|life| life.held_until_ms > at_ms)
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.inbox.push_back(message);
    }

    pub(crate) fn answered(&mut self, answer: Answer) {
        if let Some(life) = &mut self.life {
            match answer.store == life.in_charge {
                true => life.answers.push_back(answer),
                false => life.others.push_back(answer),
            }
        }
    }

    /// The store that it has in charge, or is started on next.
    pub(crate) fn store(&self) -> usize {
        self.life.as_ref().map_or(self.named, |life| life.in_charge)
    }

    /// An operator asks for a move to the other store.
    pub(crate) fn swap(&mut self, wish: Wish, now_ms: u64) {
        if let Some(life) = &mut self.life {
            life.begin_swap(wish, now_ms);
        }
    }

    pub(crate) fn hold_up(&mut self, ms: u64, now_ms: u64) {
        if let Some(life) = &mut self.life
            && life.held_until_ms <= now_ms
        {
            (life.held_from_ms, life.held_until_ms) = (now_ms, now_ms + ms);
        }
    }

    pub(crate) fn stop(&mut self, down_ms: u64) {
        if let Some(life) = &mut self.life {
            life.is_to_stop = true;
            life.down_ms = down_ms;
        }
    }

    pub(crate) fn kill(&mut self, steps: u32, part: u8, down_ms: u64, now_ms: u64) {
        if let Some(life) = &mut self.life {
            life.dies.get_or_insert((steps, part));
            life.down_ms = down_ms;
            if steps == 0 {
                // Nothing keeps it from dying, not even that it is held up.
                life.held_until_ms = life.held_until_ms.min(now_ms);
                life.wake_at_ms = now_ms;
            }
        }
    }

    /// One turn of the loop, or the start.
    pub(crate) fn turn(&mut self, around: &mut Around<'_>) {
        let Some(mut life) = self.life.take() else { return self.start(around) };
        match life.turn(self.number, &mut self.inbox, around) {
            Ok(None) => self.life = Some(life),
            Ok(Some(how)) => {
                around.reached.note(match how {
                    How::Stopped => "host: stopped with the store well",
                    _ => "host: stopped with the store in trouble",
                });
                // Calls that are under way are given up.
                self.end(life, how, 128, around);
            }
            Err(Killed) => {
                around.reached.note("host: killed");
                if life.is_in_turn {
                    around.reached.note("host: killed in the middle of a turn");
                }
                let (_, part) = life.dies.unwrap_or_default();
                life.read_clock(self.number, around);
                self.end(life, How::Killed, part, around);
            }
        }
    }
}

impl Life {
    fn turn(
        &mut self,
        number: usize,
        inbox: &mut VecDeque<Message>,
        around: &mut Around<'_>,
    ) -> Result<Option<How>, Killed> {
        self.is_in_turn = false;
        self.step()?;
        self.is_in_turn = true;
        let now = self.read_clock(number, around);
        if let Some(since_ms) = self.stopping {
            return self.finish(number, since_ms, now, around);
        }
        // The select of `Server::next`, which is biased.
        let has_messages = !inbox.is_empty();
        let woken = if self.is_to_stop {
            Woken::Stop
        } else if has_messages && self.is_turn_of_messages {
            Woken::Messages
        } else if let Some(answer) = self.answers.pop_front() {
            Woken::Store(answer)
        } else if has_messages {
            Woken::Messages
        } else if let Some(answer) = self.others.pop_front() {
            Woken::Other(answer)
        } else {
            Woken::Time
        };
        self.is_turn_of_messages = !matches!(woken, Woken::Messages);
        let is_quiet = matches!(woken, Woken::Time);
        match woken {
            Woken::Stop => {
                self.stopping = Some(around.now_ms);
                around.history.push(around.now_ms, What::Stopping { host: number });
                self.wake_at_ms = around.now_ms;
                self.stop_swapping(number, around);
                self.core.end_watches();
                while self.core.is_watched() {
                    self.core.tick(now);
                    self.hand_over_replies(number, around)?;
                }
                return Ok(None);
            }
            Woken::Store(answer) => self.answered(answer, now, number, around),
            Woken::Other(answer) => self.other_answered(&answer, number, around),
            Woken::Messages => {
                for message in inbox.drain(..) {
                    self.step()?;
                    self.core.receive(message.call, message.key, &message.body, now);
                    self.hand_over_replies(number, around)?;
                }
            }
            Woken::Time => {}
        }
        self.step()?;
        self.core.tick(now);
        if self.quiet.allows(self.core.is_cleanup_due(now), is_quiet, now.uptime_ms) {
            self.core.clean_up(now);
        }
        self.dispatch(number, now, around)?;
        self.go_on_swapping(number, around)?;
        self.sleep(number, now, around);
        Ok(None)
    }

    fn answered(&mut self, answer: Answer, now: Now, number: usize, around: &mut Around<'_>) {
        if self.store_is_asked() {
            return self.store_moved(answer, number, around);
        }
        let Answer { host, sent_at_ms, result, end, text, .. } = answer;
        self.storage_fails = result.is_err();
        around.history.push(around.now_ms, What::Committed { host, sent_at_ms, end, text });
        self.core.committed(result, now);
    }

    fn dispatch(&mut self, number: usize, now: Now, around: &mut Around<'_>) -> Result<(), Killed> {
        if self.core.has_lists() {
            around.reached.note("list: in pieces");
            self.core.continue_lists(now);
        }
        if let Some(group) = self.core.next_group(now) {
            self.step()?;
            self.send(number, group, around);
        }
        self.hand_over_replies(number, around)?;
        for notice in self.core.take_notices() {
            self.step()?;
            let notice: Value = serde_json::from_str(&notice).unwrap_or_else(|error| Value::from(error.to_string()));
            around.reached.note_notice(&notice);
            around.history.push(around.now_ms, What::Noticed { host: number, notice });
        }
        for event in self.core.take_events() {
            self.step()?;
            let event = serde_json::from_str(&event).map_err(|error| error.to_string()).and_then(Event::read);
            self.told = event.as_ref().map_or(self.told, |event| event.revision);
            if let Ok(event) = &event {
                around.reached.note_event(event);
            }
            around.history.push(around.now_ms, What::Announced { host: number, event });
        }
        Ok(())
    }

    fn send(&mut self, number: usize, group: Group, around: &mut Around<'_>) {
        around.stores[self.in_charge].commit(number, group, around.now_ms, around.reached);
    }

    fn hand_over_replies(&mut self, number: usize, around: &mut Around<'_>) -> Result<(), Killed> {
        for ms in self.core.take_forgiven() {
            around.reached.note("host: forgave a silence");
            around.history.push(around.now_ms, What::Forgave { host: number, ms });
        }
        for (call, reply) in self.core.take_replies() {
            self.step()?;
            let reply: Value = serde_json::from_str(&reply).unwrap_or_else(|error| Value::from(error.to_string()));
            follower::note(&reply, (self.revision, self.told), self.stopping.is_some(), around.reached);
            around.replies.push((call, reply.clone()));
            around.history.push(around.now_ms, What::Answered { call, host: number, reply });
        }
        Ok(())
    }

    fn read_clock(&mut self, number: usize, around: &mut Around<'_>) -> Now {
        let (uptime_ms, left_out_ms) = self.uptime.at(around.now_ms - self.began_ms);
        if self.held_until_ms != 0 && self.held_until_ms <= around.now_ms {
            let ms = around.now_ms - self.held_from_ms;
            self.held_until_ms = 0;
            around.reached.note(if left_out_ms > 0 { "host: held up" } else { "host: held up unnoticed" });
            around.history.push(around.now_ms, What::HeldUp { host: number, ms, left_out_ms });
        }
        Now { uptime_ms, unix_ms: around.unix_ms }
    }

    /// Until when the loop sleeps if nobody comes: `Server::pause`. A timer takes a millisecond at least.
    fn sleep(&mut self, number: usize, now: Now, around: &mut Around<'_>) {
        let pause_ms = self.core.wake_at_ms().saturating_sub(now.uptime_ms).min(READ_INTERVAL_MS);
        // A clean-up that is due is not made any more when the host stops.
        let is_restless = pause_ms == 0 && self.stopping.is_none();
        self.restless_turns = if is_restless { self.restless_turns + 1 } else { 0 };
        // Without a pause while a list is written.
        self.wake_at_ms =
            around.now_ms + if self.core.has_lists() || self.core.has_news() { 0 } else { pause_ms.max(1) };
        self.wake_at_ms = self.opens_at_ms().map_or(self.wake_at_ms, |at_ms| self.wake_at_ms.min(at_ms));
        if self.restless_turns > RESTLESS_TURNS_MAX {
            around.history.push(around.now_ms, What::Busy { host: number });
        }
    }

    /// One step more; the host may be killed before each.
    fn step(&mut self) -> Result<(), Killed> {
        match &mut self.dies {
            Some((0, _)) => Err(Killed),
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
