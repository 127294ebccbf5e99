//! Reads agree with what was acknowledged: with some state between question and answer.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Verdicts;
use super::index::{Answer, Call, Index, Moment};
use super::life::Life;
use crate::history::{Ask, Service};

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    for call in &index.calls {
        let Some(answer) = call.answer.as_ref().filter(|answer| answer.is_success()) else { continue };
        let life = &index.lives[answer.life];
        if life.is_cut_off_at(answer.moment) {
            continue;
        }
        let problem = match call.ask {
            Ask::Get { id } => one(index, life, call, answer, |service| service.id == *id),
            Ask::Discover { service_type } => one(index, life, call, answer, |service| service.is_of(service_type))
                .or_else(|| match (answer.reply["service"]["health"].as_str(), &answer.reply["service"]["drain"]) {
                    (Some("passing"), Value::Null) => None,
                    _ => Some("what is discovered is drained, or not passing".into()),
                }),
            Ask::List { service_type } => all(index, life, call, answer, service_type.as_deref()),
            _ => None,
        };
        if let Some(problem) = problem {
            let text = format!("#{}: {problem}", call.number);
            verdicts.add(answer.moment.place, "reads agree with what was acknowledged", text);
        }
    }
}

/// A reply with one service.
fn one(
    index: &Index<'_>,
    life: &Life<'_>,
    call: &Call<'_>,
    answer: &Answer<'_>,
    is_wanted: impl Fn(&Service) -> bool,
) -> Option<String> {
    let shown = match Service::read(answer.reply["service"].clone()) {
        Ok(shown) => shown,
        Err(problem) => return Some(problem),
    };
    if !is_wanted(&shown) {
        return Some(format!("{} is not what was asked for", shown.fixed));
    }
    let states = life.states(call.asked, answer.moment, index.rules.slack_ms);
    let is_same = |state: &usize| life.service(&shown.id, *state).is_some_and(|known| known.fixed == shown.fixed);
    match states.clone().find(is_same) {
        Some(state) => moving(index, life, call, answer, &shown, state),
        None => {
            let known = life.service(&shown.id, *states.end()).map_or(&Value::Null, |known| &known.fixed);
            Some(format!("it shows {}, and there is {known}", shown.fixed))
        }
    }
}

/// A reply with all services, or with all of a type.
fn all(
    index: &Index<'_>,
    life: &Life<'_>,
    call: &Call<'_>,
    answer: &Answer<'_>,
    service_type: Option<&str>,
) -> Option<String> {
    if answer.reply["epoch"].as_str() != Some(life.epoch) {
        return Some(format!("another epoch than {:?}", life.epoch));
    }
    let Some(revision) = answer.reply["revision"].as_u64() else { return Some("no revision".into()) };
    let states = life.states(call.asked, answer.moment, index.rules.slack_ms);
    // All changes up to its revision are in it, and later ones only while something before them may come back.
    let certain = life.told.partition_point(|told| told.event.revision <= revision);
    let (first, last) = (*states.start().max(&certain), *states.end());
    if revision < life.revision || first > last {
        let first = states.start();
        return Some(format!("revision {revision} is that after {certain} events, there were {first} to {last}"));
    }
    let mut shown = BTreeMap::new();
    for service in answer.reply["services"].as_array().into_iter().flatten() {
        match Service::read(service.clone()) {
            Ok(service) => {
                if let Some(twice) = shown.insert(service.id.clone(), service) {
                    return Some(format!("{} is there twice", twice.id));
                }
            }
            Err(problem) => return Some(problem),
        }
    }
    let problem = |state: usize| {
        differs(life, &shown, service_type, state)
            .or_else(|| misnamed(life, call, revision, (certain, state)))
            .or_else(|| shown.values().find_map(|service| moving(index, life, call, answer, service, state)))
    };
    let problem_at_first = problem(first)?;
    let fits_later = (first + 1..=last).any(|state| problem(state).is_none());
    (!fits_later).then_some(problem_at_first)
}

/// Why a list does not show what there was after so many events, if so.
fn differs(
    life: &Life<'_>,
    shown: &BTreeMap<String, Service>,
    service_type: Option<&str>,
    state: usize,
) -> Option<String> {
    let is_wanted = |service: &&Service| service_type.is_none_or(|service_type| service.is_of(service_type));
    for known in life.services(state).filter(is_wanted) {
        match shown.get(&known.id) {
            None => return Some(format!("{} is missing", known.id)),
            Some(shown) if shown.fixed != known.fixed => {
                return Some(format!("it shows {}, and there is {}", shown.fixed, known.fixed));
            }
            Some(_) => {}
        }
    }
    let is_there = |service: &&Service| life.service(&service.id, state).filter(|known| is_wanted(known)).is_some();
    shown.values().find(|service| !is_there(service)).map(|service| format!("{} is not there", service.fixed))
}

/// Why a list that shows what there was after so many events must not name that revision, after which there were fewer, if
/// so.
fn misnamed(life: &Life<'_>, call: &Call<'_>, revision: u64, (certain, state): (usize, usize)) -> Option<String> {
    let next = life.told.get(certain);
    if state == certain {
        let newest = certain.checked_sub(1).map_or(life.revision, |last| life.told[last].event.revision);
        if revision != newest {
            return Some(format!("a list at {revision}, and the last change before it has {newest}"));
        }
        // Whoever lists and then subscribes must not believe that something was missed.
        let is_missed = next.is_some_and(|next| next.event.previous.is_some_and(|previous| previous > revision));
        return is_missed
            .then(|| format!("a list at {revision}, and the next event says that something else was before it"));
    }
    let next = next?;
    if next.event.revision == revision + 1 {
        return Some(format!("a list at {revision} shows later changes, and none before them is in doubt"));
    }
    let is_settled = life.is_settled_between(next.moment.at_ms, call.asked.at_ms);
    is_settled.then(|| format!("a list at {revision} shows later changes, and what was in doubt has been put right"))
}

/// Health and the last heartbeat, which move without an event.
fn moving(
    index: &Index<'_>,
    life: &Life<'_>,
    call: &Call<'_>,
    answer: &Answer<'_>,
    shown: &Service,
    state: usize,
) -> Option<String> {
    let now_ms = life.uptime_ms(answer.moment.at_ms);
    let asked_ms = life.uptime_ms(call.asked.at_ms);
    let id = &shown.id;
    match shown.passing {
        // How long the host was held up may not be seen exactly.
        Some(true)
            if asked_ms
                > life.critical_after_ms(id, state, answer.moment.place).saturating_add(index.rules.apart_ms) =>
        {
            return Some(format!("{id} is passing long after its ttl"));
        }
        Some(false) if now_ms <= life.passing_until_ms(id, state, call.asked.place) => {
            return Some(format!("{id} is critical within its ttl"));
        }
        Some(_) => {}
        None => return Some(format!("{id} without health")),
    }
    let Some(seconds) = shown.last_heartbeat else { return Some(format!("{id} without a last heartbeat")) };
    heartbeat_problem(index, life, (id, state), seconds, call.asked, answer.moment)
}

/// The last heartbeat is shown by the wall clock: that of any beat between the last that was certain at first, and the
/// last that may have been known in the end.
pub(super) fn heartbeat_problem(
    index: &Index<'_>,
    life: &Life<'_>,
    (id, state): (&str, usize),
    seconds: u64,
    from: Moment,
    to: Moment,
) -> Option<String> {
    let track = life.tracks.get(id)?;
    let born = life.born(track, state);
    let certain = track.beats.iter().filter(|beat| (born + 1..from.place).contains(&beat.seen.place));
    let certain = certain.map(|beat| beat.asked).max();
    let first = certain.unwrap_or(life.began);
    let apart_ms = index.rules.apart_ms;
    if first <= life.began || index.is_wall_set(first.at_ms.saturating_sub(apart_ms), to.at_ms + apart_ms) {
        return None;
    }
    let last = track.beats.iter().filter(|beat| beat.asked.place < to.place).map(|beat| beat.seen.at_ms).max();
    let is_in_doubt = track.doubts.iter().any(|asked| asked.place < to.place);
    let last_ms = last.filter(|_| !is_in_doubt).map_or(to.at_ms, |last_ms| last_ms.min(to.at_ms));
    let (first, last) =
        (index.wall_seconds(first.at_ms.saturating_sub(apart_ms)), index.wall_seconds(last_ms + apart_ms));
    (!(first..=last).contains(&seconds)).then(|| format!("{id} was last heard of at {seconds}, not {first} to {last}"))
}
