//! One life of a host: what it told, what was known of each service, what the store answered.

use std::collections::BTreeMap;

use serde_json::Value;

use super::index::{Index, Moment};
use super::mass::{Forgiven, Mass};
use crate::history::{End, Event, Found, How, Service};

/// How often a host reads its clock at least: see `clock.rs`.
const READ_MS: u64 = 100;

/// How long what the store has refused waits before it is tried again, on the host's clock, and the turn that it takes.
const RETRY_MS: u64 = 210;

/// How much later a host may hear what nobody waits for any more.
pub(super) const DOUBT_MS: u64 = 20_000;

/// An event of a life.
pub(super) struct Told<'a> {
    pub(super) moment: Moment,
    pub(super) event: &'a Event,
    /// It is the same registration as before, with something changed.
    pub(super) is_update: bool,
}

/// What the store has answered.
pub(super) struct Committed {
    pub(super) sent_at_ms: u64,
    pub(super) moment: Moment,
    pub(super) end: End,
}

impl Committed {
    /// All of it is done.
    pub(super) fn is_clean(&self) -> bool {
        self.end == End::Clean
    }
}

/// A host's clock at two moments between which a service was heard of. `seen`: when that was certain.
#[derive(Clone, Copy)]
pub(super) struct Beat {
    pub(super) low_ms: u64,
    pub(super) high_ms: u64,
    pub(super) asked: Moment,
    pub(super) seen: Moment,
}

/// What was known of one id in one life.
#[derive(Default)]
pub(super) struct Track<'a> {
    /// The number of events after which it was so, and how it was.
    pub(super) versions: Vec<(usize, Option<&'a Service>)>,
    /// In the order in which they were seen.
    pub(super) beats: Vec<Beat>,
    /// When it was renewed by somebody who got no answer, so that it may have been heard of.
    pub(super) doubts: Vec<Moment>,
}

/// A host from a start to an end.
pub(super) struct Life<'a> {
    pub(super) host: usize,
    pub(super) began: Moment,
    /// When the life before ended: what was sent since then has waited for this one.
    pub(super) away_since: Option<Moment>,
    /// When it took no more requests.
    pub(super) closed: Option<Moment>,
    pub(super) ended: Option<(Moment, How)>,
    pub(super) epoch: &'a str,
    pub(super) revision: u64,
    pub(super) contents: Vec<&'a Service>,
    /// What the store kept of changes when it began.
    pub(super) history: Option<&'a [(u64, Value)]>,
    /// Every change with a greater revision can be followed.
    pub(super) complete_after: u64,
    pub(super) told: Vec<Told<'a>>,
    pub(super) committed: Vec<Committed>,
    /// When the store was made to fail.
    pub(super) troubles: Vec<(u64, u64)>,
    /// When the changes were asked for that it has acknowledged, and when it has.
    pub(super) acknowledged: Vec<(u64, u64)>,
    pub(super) serving_ms: u64,
    pub(super) sees_store: bool,
    pub(super) apart_ms: u64,
    /// When it was found that the host had been held up, for how long, and how much of that does not count.
    pub(super) held_up: Vec<(u64, u64, u64)>,
    pub(super) tracks: BTreeMap<&'a str, Track<'a>>,
    pub(super) lost: Vec<(Moment, &'a str)>,
    /// What was stored before was replaced while the host was away.
    pub(super) is_replaced: bool,
    /// When it moved to another store, and what it has left if it ended while it did.
    pub(super) moved: Vec<Moment>,
    pub(super) left: Option<(Moment, &'a [Found])>,
    /// When the next one was not started on its store.
    pub(super) refused: Option<Moment>,
    /// Mass expiries, and what was forgiven.
    pub(super) masses: Vec<Mass>,
    pub(super) forgiven: Vec<Forgiven>,
    /// On its clock: when nothing may have reached it for long, and clean-ups may have waited for that.
    pub(super) silences: Vec<(u64, u64)>,
    /// For how long services are held at most, and moments at which all were kept.
    pub(super) hold_ms: u64,
    pub(super) kept: Vec<u64>,
    pub(super) notices: Vec<(Moment, &'a Value)>,
}

impl<'a> Life<'a> {
    pub(super) fn new(host: usize, began: Moment, epoch: &'a str, revision: u64, contents: Vec<&'a Service>) -> Self {
        Life {
            host,
            began,
            away_since: None,
            closed: None,
            ended: None,
            epoch,
            revision,
            contents,
            history: None,
            complete_after: 0,
            told: Vec::new(),
            committed: Vec::new(),
            troubles: Vec::new(),
            acknowledged: Vec::new(),
            serving_ms: began.at_ms,
            sees_store: true,
            apart_ms: 0,
            held_up: Vec::new(),
            tracks: BTreeMap::new(),
            lost: Vec::new(),
            is_replaced: false,
            moved: Vec::new(),
            left: None,
            refused: None,
            masses: Vec::new(),
            forgiven: Vec::new(),
            silences: Vec::new(),
            hold_ms: 0,
            kept: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// The host's own clock, which stands still while the host is held up.
    pub(super) fn uptime_ms(&self, at_ms: u64) -> u64 {
        let mut left_out_ms = 0;
        for (until_ms, _, own_ms) in &self.held_up {
            if *until_ms > at_ms {
                // Within it, the clock shows what it shows at its end.
                let end_ms = until_ms.saturating_sub(self.began.at_ms + left_out_ms + own_ms);
                return at_ms.saturating_sub(self.began.at_ms + left_out_ms).min(end_ms);
            }
            left_out_ms += own_ms;
        }
        at_ms.saturating_sub(self.began.at_ms + left_out_ms)
    }

    /// How much of its hold-ups between two moments counts on its own clock: what it did not notice.
    pub(super) fn held_up_ms(&self, from_ms: u64, to_ms: u64) -> u64 {
        let overlaps =
            |(until_ms, ms, _): &&(u64, u64, u64)| *until_ms >= from_ms && until_ms.saturating_sub(*ms) <= to_ms;
        let counted = self.held_up.iter().filter(overlaps).map(|(_, ms, left_out_ms)| ms.saturating_sub(*left_out_ms));
        counted.map(|ms| ms + READ_MS).sum()
    }

    /// How many events had been told before a place.
    pub(super) fn told_before(&self, place: usize) -> usize {
        self.told.partition_point(|told| told.moment.place < place)
    }

    /// How many events had been told by then.
    pub(super) fn told_by(&self, at_ms: u64) -> usize {
        self.told.partition_point(|told| told.moment.at_ms <= at_ms)
    }

    /// The states that something may have seen between two moments: from this number of events to that.
    pub(super) fn states(&self, from: Moment, to: Moment, slack_ms: u64) -> std::ops::RangeInclusive<usize> {
        let first = if from.place < self.began.place { 0 } else { self.told_before(from.place) };
        first..=self.told_by(self.seen_ms(to.at_ms) + slack_ms)
    }

    /// A service after so many events.
    pub(super) fn service(&self, id: &str, state: usize) -> Option<&'a Service> {
        self.tracks.get(id).and_then(|track| track.at(state))
    }

    /// All services after so many events.
    pub(super) fn services(&self, state: usize) -> impl Iterator<Item = &'a Service> {
        self.tracks.values().filter_map(move |track| track.at(state))
    }

    /// Whether what was sent then, before it began, has reached it: the host was away.
    pub(super) fn reads_from_before(&self, asked: Moment) -> bool {
        self.away_since.is_none_or(|away| away < asked)
    }

    /// Its last moment, as far as the history goes.
    pub(super) fn end(&self, index: &Index<'_>) -> Moment {
        self.ended.map_or(index.last, |(moment, _)| moment)
    }

    /// When everything has been seen that the host had said by then.
    pub(super) fn seen_ms(&self, at_ms: u64) -> u64 {
        if self.apart_ms == 0 {
            return at_ms;
        }
        let mut seen_ms = at_ms + self.apart_ms;
        for (until_ms, ms, _) in &self.held_up {
            if (until_ms.saturating_sub(*ms)..=*until_ms + self.apart_ms).contains(&seen_ms) {
                seen_ms = until_ms + self.apart_ms;
            }
        }
        seen_ms
    }

    /// Whether the host ended at that moment: it may have said what nobody else was told any more.
    pub(super) fn is_last(&self, moment: Moment) -> bool {
        self.ended.is_some_and(|(ended, _)| ended.at_ms <= self.seen_ms(moment.at_ms))
    }

    /// Whether it was killed then.
    pub(super) fn is_cut_off_at(&self, moment: Moment) -> bool {
        self.ended.is_some_and(|(_, how)| how == How::Killed) && self.is_last(moment)
    }

    /// A group that was sent after a moment was done, all of it: what was in doubt then has been put right. That is not
    /// so while what the store has refused waits for another try.
    pub(super) fn is_settled_since(&self, at_ms: u64) -> bool {
        self.is_settled_between(at_ms, u64::MAX)
    }

    /// The same, before another moment.
    pub(super) fn is_settled_between(&self, at_ms: u64, until_ms: u64) -> bool {
        if !self.sees_store {
            // What is in doubt is put right before anything that is asked for later.
            let is_between = |(asked_ms, answered_ms): &(u64, u64)| *asked_ms > at_ms && *answered_ms < until_ms;
            return self.acknowledged.iter().any(is_between);
        }
        let waits = |until_ms: u64| {
            let is_near = |group: &&Committed| {
                let from_ms = group.moment.at_ms;
                from_ms <= until_ms && self.uptime_ms(until_ms) <= self.uptime_ms(from_ms) + RETRY_MS
            };
            self.committed.iter().filter(is_near).any(|group| matches!(group.end, End::Mixed | End::Refused))
        };
        let is_between = |group: &&Committed| group.sent_at_ms > at_ms && group.moment.at_ms < until_ms;
        let mut settled = self.committed.iter().filter(|group| group.is_clean()).filter(is_between);
        settled.any(|group| !waits(group.sent_at_ms))
    }

    /// The store has refused something in the end, which may have been to undo a change: nobody waits for that for ever, and
    /// it may have forgotten that there was such a change.
    pub(super) fn is_refused_in_the_end(&self) -> bool {
        let mut refused = self.committed.iter().filter(|group| group.end == End::Refused);
        refused.any(|group| !self.is_settled_since(group.moment.at_ms))
    }

    /// The longest ttl end that is certain at a place: until then, on the host's clock, the service is passing.
    pub(super) fn passing_until_ms(&self, id: &str, state: usize, place: usize) -> u64 {
        let (Some(track), Some(service)) = (self.tracks.get(id), self.service(id, state)) else { return 0 };
        let born = self.born(track, state);
        let beats = track.beats.iter().take_while(|beat| beat.seen.place <= place);
        let beats = beats.filter(|beat| beat.seen.place > born);
        beats.map(|beat| self.lower_ms(beat, service.ttl_ms, place)).max().unwrap_or(0)
    }

    /// The place from which on what was heard of an id is about the service that is there: not its predecessor.
    pub(super) fn born(&self, track: &Track<'_>, state: usize) -> usize {
        let mut gone = track.versions.iter().rev().filter(|(from, version)| *from <= state && version.is_none());
        gone.next().map_or(0, |(from, _)| self.told[from - 1].moment.place)
    }

    /// From then on, on the host's clock, it cannot be passing, by what was asked for up to a place.
    pub(super) fn critical_after_ms(&self, id: &str, state: usize, place: usize) -> u64 {
        let (Some(track), Some(service)) = (self.tracks.get(id), self.service(id, state)) else { return 0 };
        let beats = track.beats.iter().filter(|beat| beat.asked.place <= place);
        let doubts = track.doubts.iter().filter(|asked| asked.place <= place);
        let doubts = doubts.map(|asked| self.uptime_ms(asked.at_ms) + DOUBT_MS);
        beats
            .map(|beat| beat.high_ms)
            .chain(doubts)
            .map(|high_ms| self.upper_ms(high_ms, service.ttl_ms))
            .max()
            .unwrap_or(0)
    }
}

impl<'a> Track<'a> {
    /// The versions of its registrations, without those that updates have made.
    pub(super) fn registrations(&self) -> Vec<(usize, Option<&'a Service>)> {
        let mut versions = self.versions.clone();
        versions.dedup_by(|next, before| match (next.1, before.1) {
            (Some(next), Some(before)) => next.call.is_some() && next.call == before.call,
            _ => false,
        });
        versions
    }

    pub(super) fn at(&self, state: usize) -> Option<&'a Service> {
        let after = self.versions.partition_point(|(from, _)| *from <= state);
        after.checked_sub(1).and_then(|last| self.versions[last].1)
    }
}
