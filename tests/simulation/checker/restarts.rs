//! What a host finds when it starts is what was acknowledged before: only what had no answer yet, or what could not be
//! taken back in time, may be there or not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::index::{Call, Index, Moment};
use super::life::{Beat, Life, Told};
use super::reads::heartbeat_problem;
use super::{Verdicts, drains, moves};
use crate::history::{Ask, End, How, Kind, Service};

/// How long heartbeats gather before they are written, and the turn of a host that it takes.
const HEARTBEATS_MS: u64 = 1010;

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    for (at, life) in index.lives.iter().enumerate() {
        let Some(before) = index.lives[..at].iter().rev().find(|before| before.host == life.host) else { continue };
        if life.is_replaced {
            continue;
        }
        history(index, at, life, verdicts);
        found(index, before, life, verdicts);
    }
}

/// What is found after a life, or would be, by one that begins on it.
pub(super) fn found(index: &Index<'_>, before: &Life<'_>, life: &Life<'_>, verdicts: &mut Verdicts) {
    position(index, before, life, verdicts);
    contents(index, before, life, verdicts);
    undone(index, before, life, verdicts);
}

fn position(index: &Index<'_>, before: &Life<'_>, life: &Life<'_>, verdicts: &mut Verdicts) {
    let place = life.began.place;
    let is_untouched = before.told.is_empty() && before.contents.is_empty();
    if before.epoch != life.epoch && !is_untouched && !moves::may_begin_anew(before) {
        let text = format!("{:?} after {:?}, though it is the same store", life.epoch, before.epoch);
        verdicts.add(place, "one epoch", text);
        return;
    }
    let told = before.told.last().map_or(before.revision, |told| told.event.revision);
    let lists = index.calls.iter().filter(|call| matches!(call.ask, Ask::List { .. }));
    let shown = lists.filter_map(|call| call.answer.as_ref());
    let shown = shown.filter(|answer| std::ptr::eq(&index.lives[answer.life], before));
    let shown = shown.filter_map(|answer| answer.reply["revision"].as_u64()).max().unwrap_or(0);
    if before.epoch == life.epoch && life.revision < told.max(shown) {
        let text = format!("the store is at {}, and {} was told", life.revision, told.max(shown));
        verdicts.add(place, "revisions grow", text);
    }
}

/// Recent changes that the store keeps are those that were told, all of them: but for what was under way when a host
/// died, of which nobody was told.
fn history(index: &Index<'_>, at: usize, life: &Life<'_>, verdicts: &mut Verdicts) {
    let Some(kept) = life.history else { return };
    let kept: BTreeMap<u64, &Value> = kept.iter().map(|(revision, text)| (*revision, text)).collect();
    let earlier = index.lives[..at].iter().filter(|earlier| earlier.epoch == life.epoch);
    let mut told = BTreeMap::new();
    // What nobody was told, and was found at an earlier start.
    let mut found = BTreeSet::new();
    for earlier in earlier.clone() {
        found.extend(earlier.history.into_iter().flatten().map(|(revision, _)| *revision));
        told.extend(earlier.told.iter().map(|told| (told.event.revision, told)));
    }
    let last = told.keys().next_back().copied().unwrap_or(0);
    let place = life.began.place;
    for (revision, told) in told.range(life.complete_after + 1..) {
        let text = kept.get(revision);
        let service = text.map(|text| Service::read(text["service"].clone()));
        // A removal is written together with the change before it, which may come to nothing.
        let is_void = |service: &Service| {
            let drained = service.drain.and_then(|drain| drain.call);
            let calls = [service.call, service.updated, drained].into_iter().flatten();
            let calls = calls.filter_map(|call| index.call(call));
            let undrained = index.calls.iter().filter(|call| {
                matches!(call.ask, Ask::Undrain { id, .. } if *id == service.id) && service.drain.is_none()
            });
            let mut answers = calls.chain(undrained).filter_map(|call| call.answer.as_ref());
            let ran_out =
                service.drain.is_none() && told.event.service.drain.is_some_and(|drain| drain.until.is_some());
            told.event.kind != Kind::Registered && (ran_out || answers.any(|answer| !answer.is_success()))
        };
        let is_same = |service: &Service| service.fixed == told.event.service.fixed || is_void(service);
        let is_right = service.is_some_and(|service| service.is_ok_and(|service| is_same(&service)));
        if !is_right {
            let text = format!("{revision} was told of {}, and kept is {text:?}", told.event.service.id);
            verdicts.add(place, "the store keeps what was told", text);
        }
    }
    for (revision, text) in kept.range(..=last) {
        // It was to be taken out, and the host died before.
        let next = told.range(revision..).next().map(|(_, next)| next.moment.at_ms);
        let is_open = next.is_some_and(|at_ms| {
            earlier.clone().next_back().is_some_and(|before| {
                before.ended.is_some_and(|(_, how)| how != How::Stopped) && !before.is_settled_since(at_ms)
            })
        });
        if !told.contains_key(revision) && !found.contains(revision) && !is_open {
            let text = format!("{revision} was not told, and kept is {text}");
            verdicts.add(place, "the store keeps what was told", text);
        }
    }
}

fn contents(index: &Index<'_>, before: &Life<'_>, life: &Life<'_>, verdicts: &mut Verdicts) {
    let state = before.told.len();
    let known: BTreeMap<&str, &Service> =
        before.services(state).map(|service| (service.id.as_str(), service)).collect();
    let found: BTreeMap<&str, &Service> = life.contents.iter().map(|service| (service.id.as_str(), *service)).collect();
    let ids: BTreeSet<&str> = known.keys().chain(found.keys()).copied().collect();
    // Whoever has followed the events has to see that something was missed: what was under way when the host died. What
    // was still to be taken back has a revision of before, and does not show.
    let is_open = |service: &&&Service| {
        let call = service.call.and_then(|call| index.call(call));
        call.is_some_and(|call| call.answer.is_none() && call.asked > before.began)
    };
    let is_gap = |id: &&str| {
        let found = found.get(id).filter(is_open);
        found.is_some_and(|found| known.get(id).is_none_or(|known| known.fixed != found.fixed))
    };
    let told = before.told.last().map_or(before.revision, |told| told.event.revision);
    if before.epoch == life.epoch && life.revision <= told && ids.iter().any(is_gap) {
        let text = format!("the store is at {}, as before, and has something else", life.revision);
        verdicts.add(life.began.place, "previous is true", text);
    }
    for id in ids {
        let (known, found) = (known.get(id).copied(), found.get(id).copied());
        let problem = match (known, found) {
            (Some(known), Some(found)) if known.fixed == found.fixed => stopped_heartbeat(index, before, found),
            (Some(known), Some(found)) if known.call.is_some() && known.call == found.call => {
                other_document(index, before, known, found)
            }
            (known, Some(found)) => ghost(index, before, found).or_else(|| drains::found(index, before, known, found)),
            (Some(_), None) => missing(index, before, id),
            (None, None) => None,
        };
        if let Some(problem) = problem {
            let call = |service: Option<&Service>| match service {
                Some(service) => service.call.map_or("a service".into(), |call| format!("#{call}")),
                None => "nothing".to_string(),
            };
            let text = format!("{id}: {} was acknowledged, {} is stored; {problem}", call(known), call(found));
            verdicts.add(life.began.place, "what is stored is what was acknowledged", text);
        }
    }
}

/// Nothing that was acknowledged is undone by what had come to its end before it was asked for: whether anybody was told
/// of it or not.
fn undone(index: &Index<'_>, before: &Life<'_>, life: &Life<'_>, verdicts: &mut Verdicts) {
    let Some((ended, _)) = before.ended.filter(|_| before.lost.is_empty()) else { return };
    let found: BTreeMap<&str, &Service> = life.contents.iter().map(|service| (service.id.as_str(), *service)).collect();
    for call in index.calls.iter().filter(|call| call.has_succeeded() && call.ask.is_change()) {
        let Some(answer) = call.answer.as_ref().filter(|answer| std::ptr::eq(&index.lives[answer.life], before)) else {
            continue;
        };
        let id = call.ask.id().or(answer.reply["service_id"].as_str()).unwrap_or("");
        let is_over = |other: &Call<'_>| match &other.answer {
            Some(other) => other.moment.place < call.asked.place,
            None => other.asked.place < before.began.place && !before.reads_from_before(other.asked),
        };
        let stored = found.get(id).and_then(|service| index.call(service.call?));
        let updated = found.get(id).and_then(|service| index.call(service.updated?));
        let problem = match (call.ask, stored) {
            (Ask::Update { .. }, Some(stored)) => {
                let is_undone = updated.is_none_or(|updated| updated.number != call.number && is_over(updated));
                (is_undone && is_over(stored)).then(|| "the update is not stored".into())
            }
            (Ask::Drain { .. }, Some(stored)) => {
                let is_ended = |other: &Call<'_>| {
                    let is_about =
                        matches!(other.ask, Ask::Drain { id: of, .. } | Ask::Undrain { id: of, .. } if of == id);
                    is_about && other.number != call.number && other.asked < ended && !is_over(other)
                };
                let drain = found.get(id).and_then(|service| service.drain);
                let is_undone = match drain {
                    Some(drain) => {
                        drain.call != Some(call.number) && drain.call.and_then(|it| index.call(it)).is_none_or(is_over)
                    }
                    None => !index.calls.iter().any(is_ended) && !drains::is_told_over(before, index, call.number),
                };
                (is_undone && is_over(stored)).then(|| "the drain is not stored".into())
            }
            (Ask::Undrain { .. }, Some(stored)) => {
                let drain = found.get(id).and_then(|service| service.drain?.call).and_then(|it| index.call(it));
                (drain.is_some_and(is_over) && is_over(stored)).then(|| "its end of a drain is not stored".into())
            }
            (_, Some(stored)) if stored.number == call.number && matches!(call.ask, Ask::Register(_)) => None,
            (_, Some(stored)) => is_over(stored).then(|| format!("#{} is stored, which was before it", stored.number)),
            (Ask::Register(registration), None) if !found.contains_key(id) => {
                let may_expire = |asked: Moment, ttl_ms: u64| {
                    before.uptime_ms(ended.at_ms) > before.uptime_ms(asked.at_ms).saturating_add(ttl_ms)
                };
                // It was removed, or replaced by something that went.
                let may_remove = |other: &&Call<'_>| match other.ask {
                    Ask::Deregister { id: gone, .. } => gone == id,
                    Ask::Register(other_registration) => {
                        other_registration.id.as_deref() == Some(id)
                            && may_expire(other.asked, other_registration.ttl_ms)
                    }
                    _ => false,
                };
                let mut others = index.calls.iter().filter(|other| other.asked < ended && !is_over(other));
                let is_gone = others.any(|other| may_remove(&other)) || may_expire(call.asked, registration.ttl_ms);
                (!is_gone).then(|| "nothing is stored".into())
            }
            _ => None,
        };
        if let Some(problem) = problem {
            let text = format!("{id}: #{} was acknowledged, and {problem}", call.number);
            verdicts.add(life.began.place, "what is acknowledged is stored", text);
        }
    }
}

/// After a stop in good order the last heartbeats are stored, too.
fn stopped_heartbeat(index: &Index<'_>, before: &Life<'_>, found: &Service) -> Option<String> {
    let (ended, how) = before.ended?;
    let is_lost = before.lost.iter().any(|(_, id)| *id == found.id);
    let seconds = found.last_heartbeat?;
    // A heartbeat that the store refuses is not tried again.
    let last = before.tracks.get(found.id.as_str())?.beats.last()?;
    let is_refused = before
        .committed
        .iter()
        .any(|group| matches!(group.end, End::Mixed | End::Refused) && group.moment >= last.asked);
    if how != How::Stopped || is_lost || is_refused {
        return None;
    }
    heartbeat_problem(index, before, (&found.id, before.told.len()), seconds, ended, ended)
}

/// Why a registration that was not acknowledged must not be there, if so.
fn ghost(index: &Index<'_>, before: &Life<'_>, found: &Service) -> Option<String> {
    let Some(call) = found.call.and_then(|call| index.call(call)) else {
        return Some("nobody has registered it".into());
    };
    match &call.answer {
        Some(answer) if answer.is_success() => {
            (!is_said_at_the_end(before, call)).then(|| "it was replaced or removed".into())
        }
        _ => is_decided(before, call).then(|| match &call.answer {
            Some(answer) => format!("it was told {:?}, and that could have been put right", answer.code()),
            None => "it was asked for in another life".into(),
        }),
    }
}

/// Why it must not be there with another document than the last that was told, if so.
fn other_document(index: &Index<'_>, before: &Life<'_>, known: &Service, found: &Service) -> Option<String> {
    if known.updated == found.updated && known.drain != found.drain {
        return drains::found(index, before, Some(known), found);
    }
    let Some(call) = found.updated.filter(|call| Some(*call) != known.updated).and_then(|call| index.call(call)) else {
        return Some("an update is not there".into());
    };
    let problem = match &call.answer {
        Some(answer) if answer.is_success() => {
            (!is_said_at_the_end(before, call)).then(|| "another update came after it".into())
        }
        _ => is_decided(before, call).then(|| "the update came to nothing, and that could have been put right".into()),
    };
    problem.or_else(|| drains::found(index, before, Some(known), found))
}

/// Why a service that was acknowledged must not be missing, if so.
fn missing(index: &Index<'_>, before: &Life<'_>, id: &str) -> Option<String> {
    let is_removal = |call: &&Call<'_>| matches!(call.ask, Ask::Deregister { id: gone, .. } if gone == id);
    let state = before.told.len();
    let registered = before.service(id, state).and_then(|service| index.call(service.call?));
    // Not what had come to its end before the service was registered.
    let is_over = |call: &&Call<'_>| {
        let answered = call.answer.as_ref().map(|answer| answer.moment);
        answered.zip(registered).is_some_and(|(answered, registered)| answered.place < registered.asked.place)
    };
    let mut removals = index.calls.iter().filter(is_removal).filter(|call| !is_over(call));
    if removals.any(|call| match &call.answer {
        Some(answer) if answer.is_success() => is_said_at_the_end(before, call),
        _ => !is_decided(before, call),
    }) {
        return None;
    }
    let is_lost = before.lost.iter().any(|(moment, lost)| {
        let is_before = registered.is_none_or(|call| call.asked.place < moment.place || !is_settled(before, call));
        *lost == id && is_before && !is_put_again(before, id, moment.place)
    });
    if is_lost {
        return None;
    }
    let (ended, how) = before.ended?;
    if how == How::Stopped {
        return Some("the host stopped in good order".into());
    }
    // It may have been about to expire.
    if before.uptime_ms(ended.at_ms) > before.passing_until_ms(id, state, ended.place) {
        return None;
    }
    // It was about to when everybody was given more time.
    let mut forgiven = before.forgiven.iter().map(|forgiven| forgiven.moment);
    if forgiven.any(|moment| {
        let until_ms = before.passing_until_ms(id, state, moment.place);
        !before.is_settled_since(moment.at_ms) && before.uptime_ms(moment.at_ms) > until_ms
    }) {
        return None;
    }
    let is_open = |beat: &&Beat| !before.is_settled_since(beat.seen.at_ms);
    let mut open = before.tracks.get(id)?.beats.iter().filter(is_open);
    let was_critical =
        |beat: &Beat| beat.high_ms > before.passing_until_ms(id, state, beat.seen.place.saturating_sub(1));
    (!open.any(was_critical)).then(|| "it was alive".into())
}

/// Whether a record that the store has lost must have been put again: its heartbeat was written, and missed it.
fn is_put_again(before: &Life<'_>, id: &str, lost_at: usize) -> bool {
    let Some(track) = before.tracks.get(id) else { return false };
    let mut beats = track.beats.iter().filter(|beat| beat.asked.place > lost_at).map(|beat| beat.seen.at_ms);
    beats.any(|beat_ms| {
        // Nothing may have come between: heartbeats gather for a second, and wait longer if the store fails.
        let since = || before.committed.iter().filter(move |group| group.moment.at_ms > beat_ms);
        let written = since().find(|group| group.sent_at_ms > beat_ms + HEARTBEATS_MS);
        let is_undisturbed = since().all(|group| group.end != End::Failed)
            && before.held_up_ms(beat_ms, before.ended.map_or(beat_ms, |(ended, _)| ended.at_ms)) == 0;
        is_undisturbed && written.is_some_and(|group| before.is_settled_since(group.moment.at_ms))
    })
}

fn is_settled(before: &Life<'_>, call: &Call<'_>) -> bool {
    call.answer.as_ref().is_some_and(|answer| before.is_settled_since(answer.moment.at_ms))
}

/// A reply that was the last thing that the host did: its event got lost.
pub(super) fn is_said_at_the_end(before: &Life<'_>, call: &Call<'_>) -> bool {
    let is_own = |told: &Told<'_>| told.event.kind == Kind::Registered && told.event.service.call == Some(call.number);
    call.answer.as_ref().is_some_and(|answer| before.is_cut_off_at(answer.moment)) && !before.told.iter().any(is_own)
}

/// Whether it was certain that nothing would come of a call that has not succeeded.
pub(super) fn is_decided(before: &Life<'_>, call: &Call<'_>) -> bool {
    let Some((ended, how)) = before.ended else { return true };
    let was_away = call.asked.place < before.began.place && call.answer.is_none();
    if how == How::Stopped || call.asked > ended {
        return true;
    }
    match &call.answer {
        // What was sent to a host that was away is read by the next.
        None => was_away && !before.reads_from_before(call.asked),
        Some(answer) => {
            let is_open = matches!(
                answer.code(),
                "backend_unavailable" | "backend_refused" | "duplicate_service_type" | "forbidden"
            );
            !is_open || answer.moment.place < before.began.place || before.is_settled_since(answer.moment.at_ms)
        }
    }
}
