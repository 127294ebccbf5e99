//! Who watches is told each change once and in order, over all restarts, or is told that it cannot be.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Verdicts;
use super::index::{Answer, Call, Index};
use super::life::Life;
use crate::history::{Ask, Event, HISTORY_BYTES, How, Kind, Service};

/// After how long a host that is not held up has certainly read what it was sent.
const READ_MS: u64 = 200;
/// Which part of the history the long records of one service may take: as in `registry/follow/long.rs`.
const LONG_SHARE: usize = 8;

/// A change as it is known of a life.
struct Change<'a> {
    /// As it was announced, if that was seen.
    event: Option<&'a Event>,
    kind: Kind,
    service: Service,
}

/// The changes of a life: what the store had kept when it began, and what was announced since, by revision.
type Changes<'a> = BTreeMap<u64, Change<'a>>;

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    let known: Vec<Changes<'_>> = (0..index.lives.len()).map(|at| changes(index, at)).collect();
    for call in &index.calls {
        let Ask::Watch { after, service_type, limit, .. } = call.ask else { continue };
        let Some(answer) = &call.answer else {
            unanswered(index, call, verdicts);
            continue;
        };
        let life = &index.lives[answer.life];
        let changes = &known[answer.life];
        let after = after.as_ref().map(|(epoch, revision)| (epoch.as_str(), *revision));
        let problem = match (answer.is_success(), answer.code()) {
            (true, _) => told(index, life, changes, answer, after, service_type.as_deref(), *limit),
            (false, "compacted") if !life.is_cut_off_at(answer.moment) => compacted(index, life, changes, after),
            _ => None,
        };
        if let Some(problem) = problem {
            let text = format!("#{}: {problem}", call.number);
            verdicts.add(answer.moment.place, "each change is told once and in order", text);
        }
    }
    late(index, &known, verdicts);
    resumed(index, &known, verdicts);
}

fn changes<'a>(index: &'a Index<'_>, at: usize) -> Changes<'a> {
    let life = &index.lives[at];
    let mut changes = Changes::new();
    for (revision, text) in life.history.into_iter().flatten().filter(|(revision, _)| *revision > life.complete_after) {
        let kind = match text["type"].as_str() {
            Some("register") => Kind::Registered,
            Some("deregister") => Kind::Deregistered,
            _ => Kind::Expired,
        };
        if let Ok(service) = Service::read(text["service"].clone()) {
            changes.insert(*revision, Change { event: None, kind, service });
        }
    }
    let earlier = index.lives[..at].iter().filter(|earlier| earlier.epoch == life.epoch && earlier.host == life.host);
    for told in earlier.flat_map(|earlier| &earlier.told) {
        if let Some(change) = changes.get_mut(&told.event.revision) {
            change.event = Some(told.event);
        }
    }
    for told in &life.told {
        let Event { kind, service, revision, .. } = told.event;
        let change = Change { event: Some(told.event), kind: *kind, service: service.clone() };
        changes.insert(*revision, change);
    }
    changes
}

/// Why an answer with changes is none that may be given, if so.
fn told(
    index: &Index<'_>,
    life: &Life<'_>,
    changes: &Changes<'_>,
    answer: &Answer<'_>,
    after: Option<(&str, u64)>,
    service_type: Option<&str>,
    limit: usize,
) -> Option<String> {
    let Some(bookmark) = answer.reply["revision"].as_u64() else { return Some("no revision".into()) };
    if answer.reply["epoch"].as_str() != Some(life.epoch) {
        return Some(format!("another epoch than {:?}", life.epoch));
    }
    if let Some((epoch, after)) = after
        && (epoch != life.epoch || after < life.complete_after)
    {
        return Some(format!("it knew {after} of {epoch:?}, and there is nothing before {}", life.complete_after));
    }
    let shown: Vec<&Value> = answer.reply["changes"].as_array().into_iter().flatten().collect();
    if shown.len() > limit {
        return Some(format!("{} changes, and it takes {limit}", shown.len()));
    }
    let mut told: BTreeMap<u64, (bool, Event)> = BTreeMap::new();
    for value in shown {
        let is_leave = value["type"] == "leave";
        let mut value = value.clone();
        if is_leave {
            value["type"] = "register".into();
        }
        let event = match Event::read(value) {
            Ok(event) => event,
            Err(problem) => return Some(problem),
        };
        if told.last_key_value().is_some_and(|(last, _)| event.revision <= *last) {
            return Some(format!("{} out of order", event.revision));
        }
        told.insert(event.revision, (is_leave, event));
    }
    let first = after.map_or_else(|| told.keys().next().map_or(bookmark, |first| first - 1), |(_, after)| after);
    if bookmark < first || told.keys().any(|revision| *revision <= first || *revision > bookmark) {
        return Some(format!("from {first} to {bookmark}: {:?}", told.keys()));
    }
    // What is said in the last moment before a host is killed may have been announced to nobody else.
    let is_cut_off = life.is_cut_off_at(answer.moment);
    for (revision, (is_leave, event)) in &told {
        match changes.get(revision) {
            None if is_cut_off => {}
            None => return Some(format!("{revision} is told, and it never was")),
            Some(change) => {
                if let Some(problem) = differs(index, (changes, change), event, *is_leave, service_type) {
                    return Some(format!("{revision}: {problem}"));
                }
            }
        }
    }
    let missing = changes.range(first + 1..bookmark + 1).find(|(revision, change)| {
        service_type.is_none_or(|service_type| change.service.is_of(service_type))
            && !told.contains_key(revision)
            && !is_void(index, change)
            && !is_left_out(index, changes, **revision)
    });
    if let Some((revision, change)) = missing {
        return Some(format!("{revision} ({}) is not told, from {first} to {bookmark}", change.service.id));
    }
    service_type.and_then(|service_type| stays(index, changes, &told, (first, bookmark), service_type))
}

/// Why a change is not told as it was, if so.
fn differs(
    index: &Index<'_>,
    (changes, change): (&Changes<'_>, &Change<'_>),
    event: &Event,
    is_leave: bool,
    service_type: Option<&str>,
) -> Option<String> {
    if event.kind != change.kind || event.service.id != change.service.id {
        return Some(format!("told is {:?} of {}", event.kind, event.service.id));
    }
    let is_wanted = service_type.is_none_or(|service_type| event.service.is_of(service_type));
    // A removal may be told once too often: what was there before it is not always known.
    if is_leave && is_wanted || !is_leave && !is_wanted && event.kind == Kind::Registered {
        return Some(format!("it is said to leave: {is_leave}, and it is wanted: {is_wanted}"));
    }
    let announced = change.event.filter(|_| !is_void(index, change))?;
    // What a host that died could not take back is found by the next, and comes before it.
    let is_found = |previous: u64| changes.get(&previous).is_some_and(|before| before.event.is_none());
    let moving = |service: &Service| (service.last_heartbeat, service.passing);
    let is_same = announced.service.fixed == event.service.fixed
        && moving(&announced.service) == moving(&event.service)
        && announced.epoch == event.epoch
        && announced.timestamp == event.timestamp
        && (announced.previous == event.previous || event.previous.is_some_and(is_found));
    (!is_same).then(|| format!("announced was {announced:?}, told is {event:?}"))
}

/// A removal is kept together with the registration before it, or what was made of that, which may come to nothing.
fn is_void(index: &Index<'_>, change: &Change<'_>) -> bool {
    let Service { id, call, updated, drain, .. } = &change.service;
    let is_nothing = |call: usize| !index.call(call).is_some_and(Call::has_succeeded);
    let is_undrained_in_vain =
        |call: &Call<'_>| matches!(call.ask, Ask::Undrain { id: of, .. } if of == id) && !call.has_succeeded();
    let announced = change.event.and_then(|event| event.service.drain);
    let ran_out_in_vain = announced.is_some_and(|drain| drain.until.is_some());
    change.kind != Kind::Registered
        && (call.is_none_or(is_nothing)
            || updated.is_some_and(is_nothing)
            || drain.and_then(|drain| drain.call).is_some_and(is_nothing)
            || drain.is_none() && (index.calls.iter().any(is_undrained_in_vain) || ran_out_in_vain))
}

/// A long record that changes over and over is told of in its later states only: see `registry/follow/long.rs`.
fn is_left_out(index: &Index<'_>, changes: &Changes<'_>, revision: u64) -> bool {
    let Some(id) = changes.get(&revision).map(|change| &change.service.id) else { return false };
    let bulk = |change: &Change<'_>| match change.service.call.and_then(|call| index.call(call)).map(|call| call.ask) {
        Some(Ask::Register(registration)) => registration.bulk,
        _ => 0,
    };
    let its = changes.values().filter(|change| change.service.id == *id);
    let is_long = changes.get(&revision).is_some_and(|change| change.kind == Kind::Registered && bulk(change) > 0);
    let next = changes.range(revision + 1..).map(|(_, change)| change).find(|change| change.service.id == *id);
    let is_followed = next.is_some_and(|change| change.kind == Kind::Registered);
    is_long && is_followed && its.map(bulk).sum::<usize>() > HISTORY_BYTES / LONG_SHARE
}

/// A service that is no longer of the type has to leave, if it was.
fn stays(
    index: &Index<'_>,
    changes: &Changes<'_>,
    told: &BTreeMap<u64, (bool, Event)>,
    (first, bookmark): (u64, u64),
    service_type: &str,
) -> Option<String> {
    // What a store would not take back in the end, the next host does not know.
    if index.lives.iter().any(Life::is_refused_in_the_end) {
        return None;
    }
    let mut there: BTreeMap<&str, bool> = BTreeMap::new();
    for (revision, change) in changes.range(..=bookmark) {
        let is_of = change.kind == Kind::Registered && change.service.is_of(service_type);
        let was_of = there.insert(&change.service.id, is_of) == Some(true);
        let is_replaced = change.kind == Kind::Registered && was_of && !is_of;
        // What the store has lost by itself is not there to be replaced.
        let is_lost = || index.lives.iter().flat_map(|life| &life.lost).any(|(_, lost)| *lost == change.service.id);
        if is_replaced && *revision > first && !told.contains_key(revision) && !is_lost() {
            return Some(format!("{revision}: {} is of another type now, and that is not told", change.service.id));
        }
    }
    None
}

/// Why somebody must not be told to list again, if so.
fn compacted(index: &Index<'_>, life: &Life<'_>, changes: &Changes<'_>, after: Option<(&str, u64)>) -> Option<String> {
    let Some((epoch, after)) = after else {
        // Whoever waits for the next changes may be passed by many.
        return (changes.len() <= index.rules.history_changes).then(|| "it had only begun".into());
    };
    let since = changes.range(after.saturating_add(1)..).count();
    let is_right = epoch != life.epoch || after < life.complete_after || since > index.rules.history_changes;
    (!is_right).then(|| format!("it knew {after} of {epoch:?}, and there are {since} changes since"))
}

/// A change that nobody was told of and that a host finds when it starts has to come behind all that watchers know, and
/// behind all lists.
fn late(index: &Index<'_>, known: &[Changes<'_>], verdicts: &mut Verdicts) {
    for (at, life) in index.lives.iter().enumerate() {
        let Some(kept) = life.history else { continue };
        let is_same = |other: usize| index.lives[other].epoch == life.epoch && index.lives[other].host == life.host;
        for (revision, text) in kept.iter().filter(|(revision, _)| *revision > life.complete_after) {
            if (0..at).any(|earlier| is_same(earlier) && known[earlier].contains_key(revision)) {
                continue;
            }
            let is_given_up = (0..at).any(|earlier| is_same(earlier) && index.lives[earlier].is_refused_in_the_end());
            let has_passed = |call: &&Call<'_>| {
                let first = match call.ask {
                    Ask::Watch { after, service_type: None, .. } => after.as_ref().map(|(_, after)| *after),
                    Ask::List { .. } => Some(0),
                    _ => return false,
                };
                let Some(answer) = call.answer.as_ref().filter(|_| !is_given_up) else { return false };
                let last = answer.reply["revision"].as_u64();
                let is_told = answer.reply["changes"].as_array().into_iter().flatten();
                let mut is_told = is_told.filter(|change| change["revision"].as_u64() == Some(*revision));
                answer.is_success()
                    && answer.life < at
                    && is_same(answer.life)
                    && first.zip(last).is_some_and(|(first, last)| first < *revision && *revision <= last)
                    && is_told.next().is_none()
            };
            if let Some(call) = index.calls.iter().find(has_passed) {
                let text = format!("#{} has passed {revision}, which is there now: {text}", call.number);
                verdicts.add(life.began.place, "nothing comes up behind a watcher", text);
            }
        }
    }
}

/// Whoever has listed, or was told of everything, and goes on from there by what the next host knows, has what is stored.
fn resumed(index: &Index<'_>, known: &[Changes<'_>], verdicts: &mut Verdicts) {
    for (at, life) in index.lives.iter().enumerate() {
        let Some(before) = (0..at).rev().find(|before| index.lives[*before].host == life.host) else { continue };
        let earlier = &index.lives[before];
        if life.is_replaced || earlier.epoch != life.epoch {
            continue;
        }
        let service = |service: &Service| (service.id.clone(), service.fixed.clone());
        let stored: BTreeMap<String, Value> = life.contents.iter().map(|stored| service(stored)).collect();
        for call in &index.calls {
            let answer = call.answer.as_ref().filter(|answer| answer.is_success() && answer.life == before);
            let Some((answer, revision)) = answer.and_then(|answer| Some((answer, answer.reply["revision"].as_u64()?)))
            else {
                continue;
            };
            // What stores do by themselves is not told: not to who is still on the way through an earlier life, either.
            let passed = &index.lives[if revision < earlier.revision { 0 } else { before }..at];
            let is_lost = |id: &str| passed.iter().flat_map(|life| &life.lost).any(|(_, lost)| *lost == id);
            if passed.iter().any(Life::is_refused_in_the_end) {
                continue;
            }
            let mut has: BTreeMap<String, Value> = match call.ask {
                // It has to list again.
                _ if revision < life.complete_after => continue,
                Ask::List { service_type: None } => {
                    let listed = answer.reply["services"].as_array().into_iter().flatten();
                    let listed = listed.filter_map(|listed| Service::read(listed.clone()).ok());
                    listed.map(|listed| service(&listed)).collect()
                }
                Ask::Watch { service_type: None, .. } if !earlier.is_cut_off_at(answer.moment) => {
                    let state = earlier.told.partition_point(|told| told.event.revision <= revision);
                    earlier.services(state).map(service).collect()
                }
                _ => continue,
            };
            for change in known[at].range(revision + 1..life.revision.max(revision) + 1).map(|(_, change)| change) {
                match change.kind {
                    Kind::Registered => has.insert(change.service.id.clone(), change.service.fixed.clone()),
                    Kind::Deregistered | Kind::Expired => has.remove(&change.service.id),
                };
            }
            let mut ids = has.keys().chain(stored.keys()).filter(|id| !is_lost(id));
            if let Some(id) = ids.find(|id| has.get(*id) != stored.get(*id)) {
                let (has, stored) = (has.get(id), stored.get(id));
                let text =
                    format!("#{} at {revision}, and the changes since: {has:?}, and stored is {stored:?}", call.number);
                verdicts.add(life.began.place, "who goes on where it was misses nothing", text);
                break;
            }
        }
    }
}

/// A host that stops answers all who wait.
fn unanswered(index: &Index<'_>, call: &Call<'_>, verdicts: &mut Verdicts) {
    let mut lives = index.lives.iter().filter(|life| life.host == call.host);
    let Some(life) = lives.find(|life| life.end(index) > call.asked) else { return };
    let (Some(closed), Some((ended, How::Stopped | How::StoppedInTrouble))) = (life.closed, life.ended) else { return };
    // What it had not read is gone with it.
    let waited_ms = life.uptime_ms(closed.at_ms).saturating_sub(life.uptime_ms(call.asked.at_ms));
    let read_ms = READ_MS + index.rules.apart_ms;
    let is_read = waited_ms > read_ms + life.held_up_ms(call.asked.at_ms, closed.at_ms) && call.gave_up.is_none();
    if call.asked < closed && call.asked > life.began && is_read {
        verdicts.add(ended.place, "who waits is answered at the end", format!("#{} is not", call.number));
    }
}
