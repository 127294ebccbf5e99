//! Drains: what is drained is discovered by nobody, stays so whatever becomes of the host and whoever registers again, and
//! for no longer than somebody wanted.

use std::collections::HashMap;

use serde_json::Value;

use super::Verdicts;
use super::answers::has_trouble;
use super::index::{Answer, Call, Index, Moment};
use super::life::{DOUBT_MS, Life, Told};
use super::restarts::{is_decided, is_said_at_the_end};
use crate::history::{Ask, Drain, Kind, Service};

/// How late a drain may end when all is well: the loop turns every 100 ms, and a group may be under way.
const LATE_MAX_MS: u64 = 500;
/// For how long what is in the way of that may keep it waiting afterwards.
const RETRY_MS: u64 = 500;

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    let mut told_of: HashMap<usize, usize> = HashMap::new();
    for life in &index.lives {
        for (at, told) in life.told.iter().enumerate().filter(|(_, told)| told.event.kind == Kind::Registered) {
            let service = &told.event.service;
            let before = life.service(&service.id, at);
            let was = before.and_then(|before| before.drain);
            match (was, service.drain) {
                (was, is) if was == is => {}
                _ if !told.is_update => {
                    let text = format!("{} registers and is drained: {:?}, it was {was:?}", service.id, service.drain);
                    verdicts.add(told.moment.place, "who registers again stays as drained as it was", text);
                }
                (_, Some(drain)) => {
                    drained(index, told, before, drain, verdicts);
                    if drain.call.is_some_and(|call| told_of.insert(call, at).is_some()) {
                        let text = format!("{} is drained again by the same request", service.id);
                        verdicts.add(told.moment.place, "a change happens once", text);
                    }
                }
                (Some(was), None) => undrained(index, told, before, was, verdicts),
                (None, None) => {}
            }
        }
        for id in life.tracks.keys() {
            in_time(index, life, id, verdicts);
        }
    }
    for call in index.calls.iter().filter(|call| call.has_succeeded()) {
        let (Some(id), Some(answer)) = (call.ask.id(), &call.answer) else { continue };
        acknowledged(index, call, id, answer, verdicts);
    }
}

/// All of a record but for what it says of a drain.
fn all_else(service: Option<&Service>) -> Option<Value> {
    let mut fixed = service?.fixed.clone();
    fixed.as_object_mut().map(|fields| fields.shift_remove("drain"));
    Some(fixed)
}

fn may(index: &Index<'_>, call: &Call<'_>, service: &Service) -> bool {
    let is_own = service.owner.as_deref().is_none_or(|owner| call.key == Some(owner));
    is_own || call.key.is_some_and(|key| index.rules.admins.contains(key))
}

/// Somebody has asked for this drain and may, and it is the one that was asked for.
fn drained(index: &Index<'_>, told: &Told<'_>, before: Option<&Service>, drain: Drain, verdicts: &mut Verdicts) {
    let (moment, service) = (told.moment, &told.event.service);
    let call = drain.call.and_then(|call| index.call(call)).filter(|call| call.asked.place < moment.place);
    let Some((call, Ask::Drain { id, for_ms, .. })) = call.map(|call| (call, call.ask)) else {
        let text = format!("nobody has drained {} like that", service.fixed);
        return verdicts.add(moment.place, "nothing comes from nothing", text);
    };
    let apart_ms = index.rules.apart_ms;
    let seconds =
        index.wall_seconds(call.asked.at_ms.saturating_sub(apart_ms))..=index.wall_seconds(moment.at_ms + apart_ms);
    let is_since = seconds.contains(&drain.since) || index.is_wall_set(call.asked.at_ms, moment.at_ms);
    // It is told in whole seconds, and is never over sooner than was asked for.
    let until = for_ms.map(|for_ms| {
        let first_ms = drain.since * 1000 + for_ms;
        first_ms.div_ceil(1000)..=(first_ms + 999).div_ceil(1000)
    });
    let is_until = match (&until, drain.until) {
        (Some(range), Some(until)) => range.contains(&until),
        (None, None) => true,
        _ => false,
    };
    let is_same = *id == service.id && all_else(before) == all_else(Some(service));
    if !is_same || !is_since || !is_until {
        let text = format!(
            "#{} drained {:?}, and it became {}, between {seconds:?}",
            call.number,
            before.map(|before| &before.fixed),
            service.fixed
        );
        verdicts.add(moment.place, "a drain is what was asked for", text);
    }
    if let Some(answer) = call.answer.as_ref().filter(|answer| !answer.is_success()) {
        let text = format!("#{} was told {:?}, and it was announced", call.number, answer.code());
        verdicts.add(moment.place.max(answer.moment.place), "what is refused does not happen", text);
    }
    if before.is_some_and(|before| !may(index, call, before)) {
        let text = format!("#{} drained {}, which belongs to somebody else", call.number, service.id);
        verdicts.add(moment.place, "a key's service was never another's", text);
    }
}

/// Its time was over, or somebody has ended it who may.
fn undrained(index: &Index<'_>, told: &Told<'_>, before: Option<&Service>, was: Drain, verdicts: &mut Verdicts) {
    let (moment, service) = (told.moment, &told.event.service);
    let is_asked_by = |call: &Call<'_>| {
        let is_about = matches!(call.ask, Ask::Undrain { id, .. } if *id == service.id);
        let seen_ms = |answer: &Answer<'_>| answer.moment.at_ms + index.rules.slack_ms + index.rules.apart_ms;
        let is_open = call.answer.as_ref().is_none_or(|answer| answer.is_success() && seen_ms(answer) >= moment.at_ms);
        is_about && is_open && call.asked.place < moment.place && before.is_none_or(|before| may(index, call, before))
    };
    if !is_over(index, was, moment.at_ms) && !index.calls.iter().any(is_asked_by) {
        let text = format!("{} is drained no longer, nobody may have wanted that, and it was {was:?}", service.id);
        verdicts.add(moment.place, "a drain lasts as long as was asked for", text);
    }
    if all_else(before) != all_else(Some(service)) {
        let text = format!("{:?} became {}", before.map(|before| &before.fixed), service.fixed);
        verdicts.add(moment.place, "a drain is what was asked for", text);
    }
}

/// Whether the time of a drain may be over by then.
fn is_over(index: &Index<'_>, drain: Drain, at_ms: u64) -> bool {
    let Some(until) = drain.until else { return false };
    until <= index.wall_seconds(at_ms + index.rules.apart_ms)
        || index.is_wall_set(at_ms.saturating_sub(DOUBT_MS), at_ms)
}

/// What was acknowledged was announced; and what is said not to be drained was not.
fn acknowledged(index: &Index<'_>, call: &Call<'_>, id: &str, answer: &Answer<'_>, verdicts: &mut Verdicts) {
    let life = &index.lives[answer.life];
    if life.is_last(answer.moment) {
        return;
    }
    let states = life.states(call.asked, answer.moment, index.rules.slack_ms);
    let mut own = life.told[..*states.end()].iter().skip(*states.start()).filter(|told| told.event.service.id == id);
    let is_true = match call.ask {
        Ask::Drain { .. } => {
            own.any(|told| told.event.service.drain.is_some_and(|drain| drain.call == Some(call.number)))
        }
        Ask::Undrain { .. } if answer.reply["message"] == "Service was not drained" => {
            states.clone().any(|state| life.service(id, state).is_some_and(|service| service.drain.is_none()))
        }
        Ask::Undrain { .. } => own.any(|told| told.is_update && told.event.service.drain.is_none()),
        _ => true,
    };
    if !is_true {
        let text = format!("#{} was told {}, and nobody else was", call.number, answer.reply["message"]);
        verdicts.add(answer.moment.place, "what is acknowledged is announced", text);
    }
}

/// A drain for a time ends when that is over, unless the store or a client is in the way.
fn in_time(index: &Index<'_>, life: &Life<'_>, id: &str, verdicts: &mut Verdicts) {
    let versions = &life.tracks[id].versions;
    let closed = life.closed.unwrap_or(life.end(index));
    for (at, (from, version)) in versions.iter().enumerate() {
        let Some((drain, until)) = version.and_then(|service| service.drain).and_then(|it| Some((it, it.until?)))
        else {
            continue;
        };
        let since = if *from == 0 { life.began } else { life.told[from - 1].moment };
        let next = versions[at + 1..].iter().find(|(_, next)| next.and_then(|next| next.drain) != Some(drain));
        let end = next.map_or(closed, |(to, _)| life.told[to - 1].moment).min(closed);
        let over_ms = index.reaches_ms(since.at_ms, until * 1000).max(life.serving_ms);
        let mut limit_ms = over_ms.saturating_add(LATE_MAX_MS + index.rules.apart_ms);
        while let Some(until_ms) = in_the_way(index, life, id, (over_ms, limit_ms)).filter(|_| limit_ms < end.at_ms) {
            limit_ms = until_ms + LATE_MAX_MS + RETRY_MS;
        }
        if end.at_ms > limit_ms && !index.is_wall_set(over_ms, limit_ms) {
            let text = format!("{id} is still drained, {} ms after {until}", end.at_ms - over_ms);
            verdicts.add(end.place, "a drain ends when its time is over", text);
        }
    }
}

/// Until when something was in the way at the end of this time.
fn in_the_way(index: &Index<'_>, life: &Life<'_>, id: &str, (from_ms, to_ms): (u64, u64)) -> Option<u64> {
    let near_ms = to_ms.saturating_sub(LATE_MAX_MS + RETRY_MS).max(from_ms.saturating_sub(RETRY_MS));
    let moment = |at_ms| Moment { place: 0, at_ms };
    let is_near = |since_ms: u64, until_ms: u64| since_ms <= to_ms && until_ms > near_ms;
    let asked = index.calls.iter().filter(|call| call.ask.is_change() && call.ask.id() == Some(id));
    let asked = asked.filter_map(|call| Some((call.asked.at_ms, call.answer.as_ref()?.moment.at_ms)));
    let held = life.held_up.iter().map(|(until_ms, ms, _)| (until_ms.saturating_sub(*ms), *until_ms));
    let groups = life.committed.iter().map(|group| (group.sent_at_ms, group.moment.at_ms));
    let bad = groups.filter(|(since_ms, until_ms)| {
        is_near(*since_ms, *until_ms) && has_trouble(index, life, moment(*since_ms), moment(*until_ms))
    });
    let all = asked.chain(held).chain(bad).chain(life.troubles.iter().copied());
    let until_ms =
        all.filter(|(since_ms, until_ms)| is_near(*since_ms, *until_ms)).map(|(_, until_ms)| until_ms).max()?;
    (until_ms + LATE_MAX_MS + RETRY_MS > to_ms).then_some(until_ms)
}

/// Why what a host finds must not be drained like that, if so.
pub(super) fn found(index: &Index<'_>, before: &Life<'_>, known: Option<&Service>, found: &Service) -> Option<String> {
    let was = known.and_then(|known| known.drain);
    if was == found.drain {
        return None;
    }
    if let Some(call) = found.drain.and_then(|drain| drain.call).and_then(|call| index.call(call)) {
        return match &call.answer {
            Some(answer) if answer.is_success() => {
                (!is_said_at_the_end(before, call)).then(|| "its drain was over".into())
            }
            _ => {
                is_decided(before, call).then(|| "its drain came to nothing, and that could have been put right".into())
            }
        };
    }
    let (ended, _) = before.ended?;
    // Somebody may have ended it, or the service, who got no answer.
    let is_end = |call: &&Call<'_>| {
        let is_about = match call.ask {
            Ask::Undrain { id, .. } => *id == found.id,
            Ask::Deregister { id, .. } => *id == found.id && known.is_some_and(|known| known.call != found.call),
            _ => false,
        };
        is_about
            && match call.has_succeeded() {
                true => is_said_at_the_end(before, call),
                false => !is_decided(before, call),
            }
    };
    let is_other = known.is_some_and(|known| known.call != found.call);
    let may_have_expired =
        is_other && before.uptime_ms(ended.at_ms) > before.passing_until_ms(&found.id, before.told.len(), ended.place);
    let is_ended =
        was.is_some_and(|was| is_over(index, was, ended.at_ms)) || index.calls.iter().any(|call| is_end(&call));
    (!is_ended && !may_have_expired).then(|| "it was drained".into())
}

/// Whether what a call has drained was drained no longer when a life ended, or may not have been: its time is over.
pub(super) fn is_told_over(before: &Life<'_>, index: &Index<'_>, call: usize) -> bool {
    let is_own = |told: &&Told<'_>| told.event.service.drain.is_some_and(|drain| drain.call == Some(call));
    let Some((ended, _)) = before.ended else { return true };
    let Some(drained) = before.told.iter().find(is_own).map(|told| &told.event.service) else { return true };
    let mut later = before.told.iter().rev().filter(|told| told.event.service.id == drained.id);
    let is_over = drained.drain.is_some_and(|drain| is_over(index, drain, ended.at_ms));
    is_over || later.next().is_some_and(|told| told.event.service.drain.is_none())
}
