//! What the changes and the time bring to those who wait, a part in each turn.

use super::answer::{Gathered, nothing_new};
use super::rooms::Concerned;
use super::{Answer, Follow, Place, REQUEST_STEPS, Telling, Terms, Watcher};
use crate::protocol::filter::Filter;
use crate::protocol::reply::Reply;
use crate::registry::Registry;
use crate::registry::moment::Now;
use crate::registry::output::Output;

/// How many steps are taken in one turn to see whom the changes concern, and how many to tell them: about a millisecond.
const TURN_STEPS: usize = 8 * 1024;
/// How many watchers are answered in one turn.
const ANSWERS_MAX: usize = 256;
/// How many watchers are asked at a time whether they are still there, and how often.
const GONE_MAX: usize = 1024;
const GONE_INTERVAL_MS: u64 = 100;

impl<C> Registry<C> {
    /// Lets watchers see the changes that nothing before them stands in the way of.
    pub(super) fn show_news(&mut self) {
        let end = self.follow.end();
        let Follow { ring, shown, rooms, .. } = &mut self.follow;
        let first = ring.numbers().start;
        if *shown < first {
            // What nobody has seen is gone, which concerns everybody.
            rooms.stir_all(*shown);
            *shown = first;
        }
        while *shown < end {
            if let Some(entry) = ring.get(*shown) {
                rooms.stir(*shown, entry);
            }
            *shown += 1;
        }
    }

    /// Tells watchers what has happened, as far as that goes in one turn.
    pub(in crate::registry) fn tell_watchers(&mut self, now: Now, out: &mut Output<C>) {
        self.show_news();
        let (mut steps, mut answers) = (TURN_STEPS, ANSWERS_MAX);
        self.release_ahead(&mut steps, &mut answers, now, out);
        while let Some(concerned) = self.follow.rooms.next_concerned(&self.follow.ring, &mut steps) {
            let Concerned { name, filter, watchers, news } = concerned;
            let end = (self.follow.shown, self.bookmark(self.follow.shown));
            let first = news.first().and_then(|number| self.follow.ring.get(*number));
            let each = first.map_or(1, |entry| entry.steps(&filter));
            self.follow.turns.add(&name, (each * news.len()).min(each.max(REQUEST_STEPS)));
            self.follow.telling.insert(name, Telling { filter, watchers, news, end, made: None });
        }
        // What was spent on those who may be concerned is not taken from those who are.
        steps = TURN_STEPS;
        while answers > 0 && steps > 0 && self.answer_one(&mut steps, out) {
            answers -= 1;
        }
        while answers > 0 && steps > 0 && self.give_up_one(&mut steps, now, out) {
            answers -= 1;
        }
    }

    /// Those who waited for a revision that has come are looked after like all others.
    fn release_ahead(&mut self, steps: &mut usize, answers: &mut usize, now: Now, out: &mut Output<C>) {
        while *answers > 0
            && *steps > 0
            && let Some(&(revision, key)) = self.follow.ahead.first()
            && revision <= self.bookmark(self.follow.shown)
            && let Some((watcher, _)) = self.follow.remove(key)
        {
            *answers -= 1;
            let Place::Ahead(after, filter) = watcher.place else { continue };
            let taken = self.look(watcher.caller, (Some(after), filter), watcher.terms, now, out);
            *steps = steps.saturating_sub(taken);
        }
    }

    /// Answers the next watcher that something concerns: one of each audience, and sooner where there is little to tell.
    /// Whether there was one.
    fn answer_one(&mut self, steps: &mut usize, out: &mut Output<C>) -> bool {
        let Some(name) = self.follow.turns.first().copied() else { return false };
        let Some(mut telling) = self.follow.telling.remove(&name) else { return false };
        let mut taken = 1;
        if let Some((watcher, _)) = telling.watchers.pop().and_then(|key| self.follow.remove(key)) {
            let Terms { limit, max_stale_ms, .. } = watcher.terms;
            let answer = match telling.made.take() {
                Some((made_for, answer)) if made_for == limit => answer,
                _ => self.answer_for(&telling.filter, &telling.news, telling.end, limit, &mut taken),
            };
            telling.made = Some((limit, answer.clone()));
            out.replies.push((watcher.caller, self.reply_of(answer, max_stale_ms)));
        }
        let has_more = !telling.watchers.is_empty();
        self.follow.turns.worked(taken, has_more);
        if has_more {
            self.follow.telling.insert(name, telling);
        }
        *steps = steps.saturating_sub(taken);
        true
    }

    /// What a watcher is told of these changes, if everything was looked at up to `end`. How many steps that takes comes on
    /// top of those taken.
    fn answer_for(
        &self,
        filter: &Filter,
        news: &[u64],
        (end, revision): (u64, u64),
        limit: usize,
        taken: &mut usize,
    ) -> Answer {
        let ring = &self.follow.ring;
        if news.first().is_some_and(|first| *first < ring.numbers().start) {
            return Answer::Compacted;
        }
        // Its own, so that the last of a turn gets as much as the first.
        let gathered = Gathered::among(ring, filter, (news.iter().copied(), end), limit, REQUEST_STEPS);
        *taken += gathered.taken;
        let revision = if gathered.next < end { self.bookmark(gathered.next) } else { revision };
        Answer::Changes(gathered.into_pieces(&self.epoch, revision))
    }

    fn reply_of(&self, answer: Answer, max_stale_ms: u64) -> Reply {
        match answer {
            Answer::Changes(pieces) => self.as_fresh(Reply::with_shared(pieces), max_stale_ms),
            Answer::Compacted => self.forgotten(),
        }
    }

    /// Answers the next watcher whose time is up. Whether there was one.
    fn give_up_one(&mut self, steps: &mut usize, now: Now, out: &mut Output<C>) -> bool {
        let Some(&(deadline_ms, key)) = self.follow.deadlines.first() else { return false };
        if deadline_ms > now.uptime_ms && !self.follow.is_ending {
            return false;
        }
        if self.follow.watchers.get(key).is_some_and(|watcher| self.follow.is_told(watcher)) {
            // It is answered as one of those that something concerns.
            self.follow.deadlines.remove(&(deadline_ms, key));
            return true;
        }
        let Some((watcher, unseen)) = self.follow.remove(key) else { return false };
        let Terms { limit, max_stale_ms, .. } = watcher.terms;
        let reply = match (&watcher.place, unseen) {
            (Place::Ahead(after, _), _) => self.as_fresh(nothing_new(&self.epoch, *after), max_stale_ms),
            (_, Some((filter, news))) => {
                let end = (self.follow.shown, self.bookmark(self.follow.shown));
                let mut taken = 1;
                let answer = self.answer_for(&filter, &news, end, limit, &mut taken);
                *steps = steps.saturating_sub(taken);
                self.reply_of(answer, max_stale_ms)
            }
            (_, None) => self.as_fresh(nothing_new(&self.epoch, self.bookmark(self.follow.shown)), max_stale_ms),
        };
        out.replies.push((watcher.caller, reply));
        true
    }

    /// Answers all who wait for changes, and whoever asks, since the host is about to stop or other rules hold:
    /// [`tick`](Self::tick) does it, until nobody [`watches`](Self::is_watched) any more.
    pub fn end_watches(&mut self) {
        self.follow.is_ending = true;
    }

    /// Has watchers wait again.
    pub fn begin_watches(&mut self) {
        self.follow.is_ending = false;
    }

    /// Whether anybody waits for changes.
    pub fn is_watched(&self) -> bool {
        !self.follow.watchers.is_empty()
    }

    /// Whether [`tick`](Self::tick) has something to tell watchers at once.
    pub fn has_news(&self) -> bool {
        let Follow { rooms, telling, ahead, shown, is_ending, .. } = &self.follow;
        rooms.is_stirred()
            || !telling.is_empty()
            || *is_ending && self.is_watched()
            || *shown < self.follow.end()
            || ahead.first().is_some_and(|(revision, _)| *revision <= self.bookmark(*shown))
    }

    /// When watchers are to be told something, if they are.
    pub(in crate::registry) fn watchers_wake_at_ms(&self) -> Option<u64> {
        if self.has_news() {
            return Some(0);
        }
        self.follow.deadlines.first().map(|(at_ms, _)| *at_ms)
    }

    /// Forgets watchers that have gone away: some are asked each time.
    pub fn drop_gone(&mut self, is_gone: impl Fn(&C) -> bool, now: Now) {
        if now.uptime_ms < self.follow.gone_at_ms {
            return;
        }
        self.follow.gone_at_ms = now.uptime_ms + GONE_INTERVAL_MS;
        self.waiting.drop_gone(&is_gone, GONE_MAX);
        let follow = &mut self.follow;
        if follow.watchers.is_empty() {
            return;
        }
        let slots = follow.watchers.capacity();
        for _ in 0..GONE_MAX.min(slots) {
            let key = follow.gone_next % slots;
            follow.gone_next = key + 1;
            let is_idle = |watcher: &&Watcher<C>| !follow.is_told(watcher);
            if follow.watchers.get(key).filter(is_idle).is_some_and(|watcher| is_gone(&watcher.caller)) {
                follow.remove(key);
            }
        }
    }
}
