//! Each request is answered once, in time, and with something that can be true.

use super::Verdicts;
use super::index::{Answer, Call, Index, Moment};
use super::life::{Committed, Life};
use super::lives::may_be_gone;
use crate::history::{Ask, Claim, How, Kind};

/// What a group may take before it counts as trouble with the store.
const GROUP_MS: u64 = 80;
/// How long a list may be written.
const LIST_MS: u64 = 100;

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    for call in &index.calls {
        match &call.answer {
            Some(answer) => {
                in_time(index, call, answer, verdicts);
                let life = &index.lives[answer.life];
                match answer.reply["success"].as_bool() {
                    Some(true) => succeeded(index, life, call, answer, verdicts),
                    Some(false) => failed(index, life, call, answer, verdicts),
                    None => verdicts.add(answer.moment.place, "answers can be read", answer.reply.to_string()),
                }
            }
            None => unanswered(index, call, verdicts),
        }
    }
    removals(index, verdicts);
    stops(index, verdicts);
    no_rest(index, verdicts);
}

/// How long an answer may take on the host's clock. A hold-up that the host does not notice counts there.
fn limit_ms(index: &Index<'_>, life: &Life<'_>, call: &Call<'_>, until_ms: u64) -> u64 {
    let wait_ms = match call.ask {
        ask if ask.is_change() => index.rules.reply_timeout_ms,
        Ask::List { .. } => LIST_MS,
        Ask::Watch { wait_ms, .. } => *wait_ms,
        _ => 0,
    };
    wait_ms + index.rules.slack_ms + life.held_up_ms(call.asked.at_ms, until_ms)
}

fn in_time(index: &Index<'_>, call: &Call<'_>, answer: &Answer<'_>, verdicts: &mut Verdicts) {
    let life = &index.lives[answer.life];
    let waited_ms = life.uptime_ms(answer.moment.at_ms) - life.uptime_ms(call.asked.at_ms);
    let limit_ms = limit_ms(index, life, call, answer.moment.at_ms);
    if waited_ms > limit_ms {
        let text = format!("#{} waited for {waited_ms} ms, it should be {limit_ms} at most", call.number);
        verdicts.add(answer.moment.place, "answered in time", text);
    }
}

fn unanswered(index: &Index<'_>, call: &Call<'_>, verdicts: &mut Verdicts) {
    // Whatever had reached a host is gone with it. What was sent while it was away waits for the next.
    let mut lives = index.lives.iter().filter(|life| life.host == call.host);
    let Some(life) = lives.find(|life| life.end(index) > call.asked) else { return };
    let until = life.closed.unwrap_or(life.end(index));
    let until = call.gave_up.map_or(until, |gave_up| gave_up.min(until));
    let waited_ms = life.uptime_ms(until.at_ms).saturating_sub(life.uptime_ms(call.asked.at_ms));
    if waited_ms > limit_ms(index, life, call, until.at_ms) {
        let text = format!("#{} has no answer, {waited_ms} ms later", call.number);
        verdicts.add(until.place, "answered in time", text);
    }
}

fn succeeded(index: &Index<'_>, life: &Life<'_>, call: &Call<'_>, answer: &Answer<'_>, verdicts: &mut Verdicts) {
    let Ask::Register(registration) = call.ask else { return };
    let place = answer.moment.place;
    let id = answer.reply["service_id"].as_str().unwrap_or("");
    if registration.id.as_deref().is_some_and(|wanted| wanted != id) {
        verdicts.add(place, "a given id is kept", format!("#{} became {id}", call.number));
    }
    let is_own = |service_call: Option<usize>| service_call == Some(call.number);
    let states = life.states(call.asked, answer.moment, index.rules.slack_ms);
    let told = life.told[..*states.end()].iter().enumerate().skip(*states.start());
    let mut own = told.filter(|(_, told)| told.event.kind == Kind::Registered && is_own(told.event.service.call));
    // Killed between the reply and the event: the event of the last moment may be missing.
    let is_last = life.is_last(answer.moment);
    match own.next() {
        Some((_, told)) if told.event.service.id != id => {
            verdicts.add(place, "a reply and its event agree", format!("{id} and {}", told.event.service.id));
        }
        None if !is_last => {
            let text = format!("#{} was told that {id} is registered, but nobody else was", call.number);
            verdicts.add(place, "what is acknowledged is announced", text);
        }
        _ => {}
    }
}

fn failed(index: &Index<'_>, life: &Life<'_>, call: &Call<'_>, answer: &Answer<'_>, verdicts: &mut Verdicts) {
    let place = answer.moment.place;
    let states = || life.states(call.asked, answer.moment, index.rules.slack_ms);
    let id = call.ask.id().unwrap_or("");
    let is_true = match (answer.code(), call.ask) {
        ("not_found", ask) if names_what_is_there(ask) || matches!(ask, Ask::Get { .. }) => {
            // One that is there may be of before the one that is named: the store was set back.
            let named = call.ask.generation();
            states().any(|state| life.service(id, state).is_none_or(|service| named > service.generation))
        }
        ("not_found", Ask::EndMassExpiry { .. }) => {
            let asked_ms = life.uptime_ms(call.asked.at_ms);
            !life
                .masses
                .iter()
                .any(|mass| mass.began_ms < asked_ms && mass.ended_ms > life.uptime_ms(answer.moment.at_ms))
        }
        ("forbidden", Ask::EndMassExpiry { .. }) => {
            index.rules.has_keys && !call.key.is_some_and(|key| index.rules.admins.contains(key))
        }
        ("none_healthy", Ask::Discover { service_type }) => states().any(|state| {
            let now_ms = life.uptime_ms(answer.moment.at_ms);
            life.services(state)
                .filter(|service| service.is_of(service_type) && service.drain.is_none())
                .all(|service| life.passing_until_ms(&service.id, state, call.asked.place) < now_ms)
        }),
        ("duplicate_service_type", Ask::Register(registration)) => {
            let other = answer.reply["existing_service_id"].as_str().unwrap_or("");
            let is_wanted = registration.claim == Claim::Singleton
                || index.rules.enforce_unique && registration.claim == Claim::Plain;
            is_wanted
                && other != id
                && states().any(|state| {
                    life.service(other, state).is_some_and(|other| other.is_of(&registration.service_type))
                        && life.critical_after_ms(other, state, place).saturating_add(index.rules.apart_ms)
                            >= life.uptime_ms(call.asked.at_ms)
                })
        }
        ("deregistered", ask) if names_what_is_there(ask) => may_be_gone(index, life, id, call, answer),
        ("replaced", ask) if ask.generation().is_some() => {
            states().any(|state| life.service(id, state).is_some_and(|service| service.generation != ask.generation()))
        }
        ("forbidden", ask) if ask.is_change() || matches!(ask, Ask::Renew { .. }) => {
            let is_foreign = |owner: &str| Some(owner) != call.key;
            index.rules.has_keys
                && !call.key.is_some_and(|key| index.rules.admins.contains(key))
                && states().any(|state| {
                    life.service(id, state).and_then(|service| service.owner.as_deref()).is_some_and(is_foreign)
                })
        }
        ("overloaded", ask) if ask.is_change() || matches!(ask, Ask::Watch { .. }) => true,
        ("overloaded", Ask::List { .. }) => {
            // One key may have half of the places, and so may all without one.
            let (all, its) = lists_under_way(index, call);
            all >= index.rules.waiting_max || its >= index.rules.waiting_max.div_ceil(2)
        }
        // Whether it is true is seen by what is told.
        ("compacted", Ask::Watch { .. }) => true,
        ("backend_refused", ask) => ask.is_change() && has_trouble(index, life, call.asked, answer.moment),
        ("backend_unavailable", ask) => {
            ask.is_change()
                && (has_trouble(index, life, call.asked, answer.moment) || is_behind_others(index, life, call, answer))
        }
        _ => false,
    };
    if !is_true && !life.is_cut_off_at(answer.moment) {
        let text = format!("#{} was told {:?}, which was never so", call.number, answer.code());
        verdicts.add(place, "a refusal is true", text);
    }
}

/// Whether it is about a service that is there, and not only looks at it.
fn names_what_is_there(ask: &Ask) -> bool {
    ask.is_amendment() || matches!(ask, Ask::Deregister { .. } | Ask::Renew { .. })
}

/// How many lists a host had not answered yet when it was asked for another, and how many of them for the same key, or
/// like it for nobody's.
fn lists_under_way(index: &Index<'_>, call: &Call<'_>) -> (usize, usize) {
    let is_open = |other: &&Call<'_>| {
        let is_earlier = other.host == call.host && other.asked < call.asked;
        is_earlier && other.answer.as_ref().is_none_or(|answer| answer.moment > call.asked)
    };
    let open = index.calls.iter().filter(|other| matches!(other.ask, Ask::List { .. })).filter(is_open);
    open.fold((0, 0), |(all, its), other| (all + 1, its + usize::from(other.key == call.key)))
}

/// Whether the store failed, or was slow, or the host was held up, between two moments.
pub(super) fn has_trouble(index: &Index<'_>, life: &Life<'_>, from: Moment, to: Moment) -> bool {
    let is_near =
        |(since_ms, until_ms): &(u64, u64)| *since_ms <= to.at_ms && until_ms + index.rules.apart_ms >= from.at_ms;
    if life.troubles.iter().any(is_near) || life.held_up_ms(from.at_ms, to.at_ms) > 0 {
        return true;
    }
    if !index.rules.sees_store {
        // Whoever had to wait for so long has seen that it was slow.
        return to.at_ms - from.at_ms >= index.rules.reply_timeout_ms;
    }
    let is_bad = |group: &Committed| {
        let is_near = group.moment.at_ms >= from.at_ms && group.sent_at_ms <= to.at_ms;
        is_near && (!group.is_clean() || group.moment.at_ms - group.sent_at_ms >= GROUP_MS)
    };
    life.committed.iter().any(is_bad)
}

/// Whether so many changes of the same service waited before a change that they alone may have taken all the time: each
/// may depend on the one before, and so take a group of its own.
fn is_behind_others(index: &Index<'_>, life: &Life<'_>, call: &Call<'_>, answer: &Answer<'_>) -> bool {
    if !index.rules.sees_store {
        // Somebody else has seen that it was slow.
        return index.calls.iter().any(|other| {
            let is_other = other.number != call.number && other.ask.is_change() && other.ask.id() == call.ask.id();
            let is_under_way = |answered: &Answer<'_>| {
                other.asked < answer.moment && answered.moment > call.asked && answered.code() == "backend_unavailable"
            };
            is_other && other.answer.as_ref().is_some_and(is_under_way)
        });
    }
    let is_before = |other: &&Call<'_>| {
        let is_same = other.ask.is_change() && other.host == call.host && other.ask.id() == call.ask.id();
        is_same && other.asked < call.asked && other.answer.as_ref().is_none_or(|answer| answer.moment > call.asked)
    };
    let before = index.calls.iter().filter(is_before).count() as u64;
    let is_near = |group: &&Committed| group.moment > call.asked && group.sent_at_ms <= answer.moment.at_ms;
    let groups = life.committed.iter().filter(is_near).map(|group| group.moment.at_ms - group.sent_at_ms);
    (before + 1) * groups.max().unwrap_or(0) >= index.rules.reply_timeout_ms
}

/// A deregistration that is acknowledged has an event of its own, and the other way round.
fn removals(index: &Index<'_>, verdicts: &mut Verdicts) {
    for (number, life) in index.lives.iter().enumerate() {
        for id in life.tracks.keys() {
            let mut events: Vec<Moment> = Vec::new();
            for told in &life.told {
                if told.event.kind == Kind::Deregistered && told.event.service.id == *id {
                    events.push(told.moment);
                }
            }
            let is_about = |call: &&Call<'_>| matches!(call.ask, Ask::Deregister { id: gone, .. } if gone == id);
            let calls: Vec<&Call<'_>> = index.calls.iter().filter(is_about).collect();
            let mut acknowledged: Vec<(&Call<'_>, &Answer<'_>)> = calls
                .iter()
                .filter_map(|call| Some((*call, call.answer.as_ref()?)))
                .filter(|(_, answer)| answer.life == number && answer.is_success())
                .collect();
            acknowledged.sort_by_key(|(_, answer)| answer.moment);
            for (call, answer) in acknowledged {
                let fits = |event: &Moment| {
                    let seen_ms = life.seen_ms(answer.moment.at_ms) + index.rules.slack_ms;
                    event.place > call.asked.place && event.at_ms <= seen_ms
                };
                match events.iter().position(fits) {
                    Some(at) => drop(events.remove(at)),
                    None if life.is_last(answer.moment) => {}
                    None => {
                        let text = format!("#{} was told that {id} is gone, but nobody else was", call.number);
                        verdicts.add(answer.moment.place, "what is acknowledged is announced", text);
                    }
                }
            }
            // What is left was asked for by somebody who was not told before the host died.
            for event in events {
                let is_open = |call: &&Call<'_>| call.answer.is_none() && call.asked.place < event.place;
                if !calls.iter().any(is_open) {
                    let text = format!("{id} is said to be deregistered, and nobody was told that it worked");
                    verdicts.add(event.place, "what is announced is acknowledged", text);
                }
            }
        }
    }
}

/// Who stops in good order gets everything stored, if the store is well.
fn stops(index: &Index<'_>, verdicts: &mut Verdicts) {
    for life in &index.lives {
        let (Some(closed), Some((ended, How::StoppedInTrouble))) = (life.closed, life.ended) else { continue };
        if !has_trouble(index, life, closed, ended) {
            verdicts.add(ended.place, "a stop comes to its end", "the store was well, and it was given up".into());
        }
    }
}

/// A store that fails is given rest, but for what clients ask for.
fn no_rest(index: &Index<'_>, verdicts: &mut Verdicts) {
    const WINDOW_MS: u64 = 1000;
    const RETRIES_MAX: usize = 12;
    for life in &index.lives {
        let failed: Vec<Moment> =
            life.committed.iter().filter(|group| !group.is_clean()).map(|group| group.moment).collect();
        for window in failed.windows(RETRIES_MAX) {
            let (first, last) = (window[0], window[RETRIES_MAX - 1]);
            if last.at_ms - first.at_ms >= WINDOW_MS {
                continue;
            }
            let near = first.at_ms.saturating_sub(WINDOW_MS)..=last.at_ms;
            // What a host was asked for while it was held up comes all at once.
            let is_near = |call: &&Call<'_>| {
                let answered = call.answer.as_ref().filter(|_| call.ask.is_change()).map(|answer| answer.moment.at_ms);
                near.contains(&call.asked.at_ms) || answered.is_some_and(|at_ms| near.contains(&at_ms))
            };
            let asked = index
                .calls
                .iter()
                .filter(is_near)
                .filter(|call| !matches!(call.ask, Ask::Get { .. } | Ask::Watch { .. }))
                .count();
            if asked < RETRIES_MAX / 2 {
                let text = format!("{RETRIES_MAX} groups failed within {WINDOW_MS} ms, and hardly anybody asked");
                verdicts.add(last.place, "no work without a reason", text);
                break;
            }
        }
    }
}
