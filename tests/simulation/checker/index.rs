//! A history in order: each call with its answer, each life of a host with its events and states.

use std::collections::HashMap;

use serde_json::Value;

use super::Verdicts;
use super::life::{Beat, Committed, Life, Told};
use super::mass::Forgiven;
use crate::history::{Ask, History, Kind, Rules, What};

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
    /// When its client stopped waiting.
    pub(super) gave_up: Option<Moment>,
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
                    index.calls.push(Call {
                        number,
                        client,
                        host,
                        key,
                        ask,
                        asked: moment,
                        answer: None,
                        gave_up: None,
                    });
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
                What::GaveUp { call } => {
                    if let Some(at) = numbers.get(call) {
                        index.calls[*at].gave_up = Some(moment);
                    }
                }
                What::Announced { host, event } => match (event, current.get(host)) {
                    (Ok(event), Some(life)) => index.lives[*life].told.push(Told { moment, event, is_update: false }),
                    (Err(problem), _) => verdicts.add(place, "events can be read", problem.clone()),
                    (_, None) => verdicts.add(place, "only who lives speaks", "the host is away".into()),
                },
                What::Started { host, epoch, revision, contents, history, complete_after } => {
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
                    (life.sees_store, life.apart_ms) = (index.rules.sees_store, index.rules.apart_ms);
                    life.complete_after = *complete_after;
                    index.lives.push(life);
                    is_replaced = false;
                }
                What::Refused { host, .. } => {
                    if let Some(before) = index.lives.iter_mut().rev().find(|life| life.host == *host) {
                        before.refused.get_or_insert(moment);
                    }
                }
                What::Moved { host, .. } => {
                    if let Some(life) = current.get(host) {
                        index.lives[*life].moved.push(moment);
                    }
                }
                What::Left { host, stores } => {
                    if let Some(before) = index.lives.iter_mut().rev().find(|life| life.host == *host) {
                        before.left = Some((moment, stores));
                    }
                }
                What::Serving { host } => {
                    if let Some(life) = current.get(host) {
                        index.lives[*life].serving_ms = entry.at_ms;
                    }
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
                What::Trouble { host, since_ms, .. } => {
                    if let Some(life) = current.get(host) {
                        index.lives[*life].troubles.push((*since_ms, entry.at_ms));
                    }
                }
                What::Noticed { host, notice } => {
                    if let Some(life) = current.get(host) {
                        index.lives[*life].notices.push((moment, notice));
                    }
                }
                What::Forgave { host, ms } => {
                    if let Some(life) = current.get(host) {
                        index.lives[*life].forgiven.push(Forgiven { moment, since_ms: *ms, more_ms: *ms });
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
        super::mass::note(&mut index, verdicts);
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
            let high_ms = life.uptime_ms(life.serving_ms);
            for service in &life.contents {
                let track = life.tracks.entry(&service.id).or_default();
                track.versions.push((0, Some(service)));
                track.beats.push(Beat { low_ms: 0, high_ms, asked: began, seen: began });
            }
            for at in 0..life.told.len() {
                let Told { moment, event, .. } = life.told[at];
                let beat = event.service.call.and_then(|call| registered.get(&call)).map(|(asked, _)| Beat {
                    low_ms: life.uptime_ms(asked.at_ms),
                    high_ms: life.uptime_ms(moment.at_ms),
                    asked: *asked,
                    seen: moment,
                });
                let track = life.tracks.entry(&event.service.id).or_default();
                if event.kind == Kind::Registered {
                    let before = track.versions.last().and_then(|(_, before)| *before);
                    let is_update =
                        before.is_some_and(|before| before.call.is_some() && before.call == event.service.call);
                    life.told[at].is_update = is_update;
                    track.versions.push((at + 1, Some(&event.service)));
                    track.beats.extend(beat.filter(|_| !is_update));
                } else {
                    track.versions.push((at + 1, None));
                }
            }
        }
        for call in &self.calls {
            if let (true, Some(answer)) = (call.ask.is_change() && call.has_succeeded(), &call.answer) {
                self.lives[answer.life].acknowledged.push((call.asked.at_ms, answer.moment.at_ms));
            }
            let Ask::Renew { id, .. } = call.ask else { continue };
            let Some(answer) = &call.answer else {
                let is_in = |life: &&mut Life<'_>| life.ended.is_none_or(|(ended, _)| ended > call.asked);
                let mut lives = self.lives.iter_mut().filter(|life| life.host == call.host);
                if let Some(track) = lives.find(is_in).and_then(|life| life.tracks.get_mut(id.as_str())) {
                    track.doubts.push(call.asked);
                }
                continue;
            };
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
        self.wall_ms(at_ms) / 1000
    }

    fn wall_ms(&self, at_ms: u64) -> u64 {
        let jumps = self.wall_jumps.iter().filter(|(jumped_ms, _)| *jumped_ms <= at_ms);
        jumps.fold(self.unix_ms + at_ms, |unix_ms, (_, by_ms)| unix_ms.saturating_add_signed(*by_ms))
    }

    /// When the wall clock shows this for the first time, from a moment on.
    pub(super) fn reaches_ms(&self, from_ms: u64, unix_ms: u64) -> u64 {
        let jumps = self.wall_jumps.iter().map(|(at_ms, _)| *at_ms).filter(|at_ms| *at_ms > from_ms);
        let mut begins: Vec<u64> = std::iter::once(from_ms).chain(jumps).collect();
        begins.push(u64::MAX);
        let reached = begins.windows(2).map(|pair| (pair[0] + unix_ms.saturating_sub(self.wall_ms(pair[0])), pair[1]));
        reached.filter(|(at_ms, end_ms)| at_ms < end_ms).map(|(at_ms, _)| at_ms).next().unwrap_or(u64::MAX)
    }

    /// Whether the wall clock was set between two moments, or at one of them.
    pub(super) fn is_wall_set(&self, from_ms: u64, to_ms: u64) -> bool {
        self.wall_jumps.iter().any(|(at_ms, _)| (from_ms..=to_ms).contains(at_ms))
    }
}
