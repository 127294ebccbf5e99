//! A history in order: each call with its answer, each life of a host with its events and states.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::Verdicts;
use crate::history::{Ask, End, Event, History, How, Kind, Rules, Service, What};

/// How often a host reads its clock at least: see `clock.rs`.
const READ_MS: u64 = 100;

/// How long what the store has refused waits before it is tried again, on the host's clock, and the turn that it takes.
const RETRY_MS: u64 = 210;

/// When something was seen: the time, and the place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) place: usize,
    pub(super) at_ms: u64,
}

/// A request, and what came of it.
pub(super) struct Call<'a> {
    pub(super) number: usize,
    pub(super) client: usize,
    pub(super) host: usize,
    pub(super) key: Option<&'a str>,
    pub(super) ask: &'a Ask,
    pub(super) asked: Moment,
    pub(super) answer: Option<Answer<'a>>,
}

pub(super) struct Answer<'a> {
    pub(super) moment: Moment,
    /// The life of the host that gave it.
    pub(super) life: usize,
    pub(super) reply: &'a Value,
}

impl Answer<'_> {
    pub(super) fn is_success(&self) -> bool {
        self.reply["success"] == true
    }

    pub(super) fn code(&self) -> &str {
        self.reply["code"].as_str().unwrap_or("")
    }
}

impl Call<'_> {
    pub(super) fn has_succeeded(&self) -> bool {
        self.answer.as_ref().is_some_and(Answer::is_success)
    }
}

/// An event of a life.
pub(super) struct Told<'a> {
    pub(super) moment: Moment,
    pub(super) event: &'a Event,
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
    pub(super) told: Vec<Told<'a>>,
    pub(super) committed: Vec<Committed>,
    /// When it was found that the host had been held up, for how long, and how much of that does not count.
    held_up: Vec<(u64, u64, u64)>,
    pub(super) tracks: BTreeMap<&'a str, Track<'a>>,
    pub(super) lost: Vec<(Moment, &'a str)>,
    /// What was stored before was replaced while the host was away.
    pub(super) is_replaced: bool,
}

pub(super) struct Index<'a> {
    pub(super) rules: &'a Rules,
    pub(super) unix_ms: u64,
    pub(super) calls: Vec<Call<'a>>,
    pub(super) lives: Vec<Life<'a>>,
    pub(super) wall_jumps: Vec<(u64, i64)>,
    pub(super) last: Moment,
}

impl<'a> Index<'a> {
    pub(super) fn new(history: &'a History, verdicts: &mut Verdicts) -> Self {
        let last = history.entries.last().map_or(0, |entry| entry.at_ms);
        let mut index = Index {
            rules: &history.rules,
            unix_ms: history.unix_ms,
            calls: Vec::new(),
            lives: Vec::new(),
            wall_jumps: Vec::new(),
            last: Moment { place: history.entries.len(), at_ms: last },
        };
        // The life of each host that goes on.
        let mut current: HashMap<usize, usize> = HashMap::new();
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut is_replaced = false;
        for (place, entry) in history.entries.iter().enumerate() {
            let moment = Moment { place, at_ms: entry.at_ms };
            match &entry.what {
                What::Asked { call, client, host, key, ask } => {
                    numbers.insert(*call, index.calls.len());
                    let (number, client, host, key) = (*call, *client, *host, key.as_deref());
                    index.calls.push(Call { number, client, host, key, ask, asked: moment, answer: None });
                }
                What::Answered { call, host, reply } => {
                    let (Some(at), Some(life)) = (numbers.get(call), current.get(host)) else {
                        verdicts.add(place, "an answer without a question", format!("#{call} was never asked"));
                        continue;
                    };
                    let call = &mut index.calls[*at];
                    if call.answer.is_some() {
                        verdicts.add(place, "answered once", format!("#{} is answered again", call.number));
                        continue;
                    }
                    call.answer = Some(Answer { moment, life: *life, reply });
                }
                What::Announced { host, event } => match (event, current.get(host)) {
                    (Ok(event), Some(life)) => index.lives[*life].told.push(Told { moment, event }),
                    (Err(problem), _) => verdicts.add(place, "events can be read", problem.clone()),
                    (_, None) => verdicts.add(place, "only who lives speaks", "the host is away".into()),
                },
                What::Started { host, epoch, revision, contents, history } => {
                    let mut records = Vec::new();
                    for record in contents {
                        match record {
                            Ok(record) => records.push(record),
                            Err(problem) => verdicts.add(place, "what is stored can be read", problem.clone()),
                        }
                    }
                    current.insert(*host, index.lives.len());
                    let before = index.lives.iter().rev().find(|before| before.host == *host);
                    let away_since = before.and_then(|before| before.ended).map(|(ended, _)| ended);
                    let mut life = Life::new(*host, moment, epoch, *revision, records);
                    (life.away_since, life.is_replaced) = (away_since, is_replaced);
                    life.history = history.as_deref();
                    index.lives.push(life);
                    is_replaced = false;
                }
                What::Stopping { host } => {
                    if let Some(life) = current.get(host) {
                        index.lives[*life].closed = Some(moment);
                    }
                }
                What::Ended { host, how } => {
                    if let Some(life) = current.remove(host) {
                        index.lives[life].ended = Some((moment, *how));
                    }
                }
                What::HeldUp { host, ms, left_out_ms } => {
                    if let Some(life) = current.get(host) {
                        index.lives[*life].held_up.push((entry.at_ms, *ms, *left_out_ms));
                    }
                }
                What::Committed { host, sent_at_ms, end, .. } => {
                    if let Some(life) = current.get(host) {
                        let committed = Committed { sent_at_ms: *sent_at_ms, moment, end: *end };
                        index.lives[*life].committed.push(committed);
                    }
                }
                What::Busy { .. } => verdicts.add(place, "no work without a reason", "the loop has no rest".into()),
                What::WallJumped { by_ms } => index.wall_jumps.push((entry.at_ms, *by_ms)),
                What::Lost { id } => {
                    // Also while nobody is there to notice.
                    if let Some(life) = index.lives.last_mut() {
                        life.lost.push((moment, id));
                    }
                }
                What::Replaced => is_replaced = true,
                What::Note(_) => {}
            }
        }
        index.track();
        index
    }

    /// What was known of each id: its versions from the events, and when it was heard of.
    fn track(&mut self) {
        let mut registered: HashMap<usize, (Moment, &Ask)> = HashMap::new();
        for call in &self.calls {
            registered.insert(call.number, (call.asked, call.ask));
        }
        for life in &mut self.lives {
            let began = life.began;
            for service in &life.contents {
                let track = life.tracks.entry(&service.id).or_default();
                track.versions.push((0, Some(service)));
                track.beats.push(Beat { low_ms: 0, high_ms: 0, asked: began, seen: began });
            }
            for at in 0..life.told.len() {
                let Told { moment, event } = life.told[at];
                let beat = event.service.call.and_then(|call| registered.get(&call)).map(|(asked, _)| Beat {
                    low_ms: life.uptime_ms(asked.at_ms),
                    high_ms: life.uptime_ms(moment.at_ms),
                    asked: *asked,
                    seen: moment,
                });
                let track = life.tracks.entry(&event.service.id).or_default();
                if event.kind == Kind::Registered {
                    track.versions.push((at + 1, Some(&event.service)));
                    track.beats.extend(beat);
                } else {
                    track.versions.push((at + 1, None));
                }
            }
        }
        for call in &self.calls {
            let (Ask::Renew { id }, Some(answer)) = (call.ask, &call.answer) else { continue };
            let life = &mut self.lives[answer.life];
            let (low_ms, high_ms) = (life.uptime_ms(call.asked.at_ms), life.uptime_ms(answer.moment.at_ms));
            let beat = Beat { low_ms, high_ms, asked: call.asked, seen: answer.moment };
            if let Some(track) = life.tracks.get_mut(id.as_str()).filter(|_| answer.is_success()) {
                track.beats.push(beat);
            }
        }
        for track in self.lives.iter_mut().flat_map(|life| life.tracks.values_mut()) {
            track.beats.sort_by_key(|beat| beat.seen);
        }
    }

    /// The call with this number.
    pub(super) fn call(&self, number: usize) -> Option<&Call<'a>> {
        // Calls are numbered as they are made; a recorded history may have gaps.
        let guess = self.calls.get(number).filter(|call| call.number == number);
        guess.or_else(|| self.calls.iter().find(|call| call.number == number))
    }

    /// What the wall clock showed, in seconds.
    pub(super) fn wall_seconds(&self, at_ms: u64) -> u64 {
        let jumps = self.wall_jumps.iter().filter(|(jumped_ms, _)| *jumped_ms <= at_ms);
        jumps.fold(self.unix_ms + at_ms, |unix_ms, (_, by_ms)| unix_ms.saturating_add_signed(*by_ms)) / 1000
    }

    /// Whether the wall clock was set between two moments, or at one of them.
    pub(super) fn is_wall_set(&self, from_ms: u64, to_ms: u64) -> bool {
        self.wall_jumps.iter().any(|(at_ms, _)| (from_ms..=to_ms).contains(at_ms))
    }
}

impl<'a> Life<'a> {
    fn new(host: usize, began: Moment, epoch: &'a str, revision: u64, contents: Vec<&'a Service>) -> Self {
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
            told: Vec::new(),
            committed: Vec::new(),
            held_up: Vec::new(),
            tracks: BTreeMap::new(),
            lost: Vec::new(),
            is_replaced: false,
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
        first..=self.told_by(to.at_ms + slack_ms)
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

    /// Whether the host was killed at that moment: it may have said what nobody else was told any more.
    pub(super) fn is_cut_off_at(&self, moment: Moment) -> bool {
        self.ended.is_some_and(|(ended, how)| how == How::Killed && ended.at_ms <= moment.at_ms)
    }

    /// A group that was sent after a moment was done, all of it: what was in doubt then has been put right. That is not
    /// so while what the store has refused waits for another try.
    pub(super) fn is_settled_since(&self, at_ms: u64) -> bool {
        let waits = |until_ms: u64| {
            let is_near = |group: &&Committed| {
                let from_ms = group.moment.at_ms;
                from_ms <= until_ms && self.uptime_ms(until_ms) <= self.uptime_ms(from_ms) + RETRY_MS
            };
            self.committed.iter().filter(is_near).any(|group| group.end == End::Mixed)
        };
        let mut settled = self.committed.iter().filter(|group| group.is_clean() && group.sent_at_ms > at_ms);
        settled.any(|group| !waits(group.sent_at_ms))
    }

    /// The longest ttl end that is certain at a place: until then, on the host's clock, the service is passing.
    pub(super) fn passing_until_ms(&self, id: &str, state: usize, place: usize) -> u64 {
        let (Some(track), Some(service)) = (self.tracks.get(id), self.service(id, state)) else { return 0 };
        let born = self.born(track, state);
        let beats = track.beats.iter().take_while(|beat| beat.seen.place <= place);
        let beats = beats.filter(|beat| beat.seen.place > born);
        beats.map(|beat| beat.low_ms).max().map_or(0, |low_ms| low_ms.saturating_add(service.ttl_ms))
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
        beats.map(|beat| beat.high_ms).max().map_or(0, |high_ms| high_ms.saturating_add(service.ttl_ms))
    }
}

impl<'a> Track<'a> {
    pub(super) fn at(&self, state: usize) -> Option<&'a Service> {
        let after = self.versions.partition_point(|(from, _)| *from <= state);
        after.checked_sub(1).and_then(|last| self.versions[last].1)
    }
}
