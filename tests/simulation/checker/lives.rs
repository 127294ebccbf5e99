//! Generations: each registration has one of its own, and who names another one changes nothing. Updates build on what
//! was there. What was deregistered is told to be so.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::Verdicts;
use super::index::{Answer, Call, Index, Moment};
use super::life::{Life, Told};
use crate::history::{Ask, Kind, Service};

/// As in `registry/past.rs`.
const REMEMBERED_MS: u64 = 600_000;

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    over_restarts(index, verdicts);
    for life in &index.lives {
        generations(life, verdicts);
        for (at, told) in life.told.iter().enumerate().filter(|(_, told)| told.is_update) {
            let before = life.service(&told.event.service.id, at);
            if before.is_some_and(|before| before.drain != told.event.service.drain) {
                continue;
            }
            updated(index, life, at, told, verdicts);
        }
    }
    for call in &index.calls {
        let Some(answer) = &call.answer else { continue };
        let life = &index.lives[answer.life];
        if answer.is_success() {
            acknowledged(index, life, call, answer, verdicts);
        } else if answer.code() == "not_found" {
            not_found(index, life, call, answer, verdicts);
        }
    }
}

/// They grow from one registration to the next, beginning with those that were stored.
fn generations(life: &Life<'_>, verdicts: &mut Verdicts) {
    let mut last = life.contents.iter().filter_map(|service| service.generation).max().unwrap_or(0);
    for told in life.told.iter().filter(|told| told.event.kind == Kind::Registered && !told.is_update) {
        let Service { id, generation, .. } = &told.event.service;
        if generation.is_none_or(|generation| generation <= last) {
            let text = format!("{id} has {generation:?}, and there was {last} before");
            verdicts.add(told.moment.place, "generations grow", text);
        }
        last = last.max(generation.unwrap_or(0));
    }
}

/// With a store that keeps all changes they grow over restarts, too, wherever the wall clock goes meanwhile.
fn over_restarts(index: &Index<'_>, verdicts: &mut Verdicts) {
    let mut last: HashMap<(usize, &str, &str), u64> = HashMap::new();
    for life in index.lives.iter().filter(|life| life.history.is_some() && life.complete_after == 0) {
        for told in life.told.iter().filter(|told| told.event.kind == Kind::Registered && !told.is_update) {
            let Service { id, generation, .. } = &told.event.service;
            let generation = generation.unwrap_or(0);
            let before = last.insert((life.host, life.epoch, id), generation).unwrap_or(0);
            if generation <= before {
                let text = format!("{id} has {generation}, and it had {before} once");
                verdicts.add(told.moment.place, "generations grow", text);
            }
        }
    }
}

/// What a request that names a generation is about was of that one at some moment.
fn acknowledged(index: &Index<'_>, life: &Life<'_>, call: &Call<'_>, answer: &Answer<'_>, verdicts: &mut Verdicts) {
    let place = answer.moment.place;
    if life.is_cut_off_at(answer.moment) {
        return;
    }
    let states = life.states(call.asked, answer.moment, index.rules.slack_ms);
    if let Ask::Register(_) = call.ask {
        let named = answer.reply["generation"].as_u64();
        let own = life.told[..*states.end()].iter().find(|told| told.event.service.call == Some(call.number));
        if let Some(own) = own.filter(|own| own.event.service.generation != named) {
            let text =
                format!("#{} was told {named:?}, and announced is {:?}", call.number, own.event.service.generation);
            verdicts.add(place, "the generation that is told is the one that is there", text);
        }
    }
    if let (Some(id), Some(generation)) = (call.ask.id(), call.ask.generation()) {
        let mut there = states.clone().filter_map(|state| life.service(id, state));
        if !there.any(|service| service.generation == Some(generation)) {
            let text = format!("#{} named {generation}, and there was none of it", call.number);
            verdicts.add(place, "who was replaced changes nothing", text);
        }
    }
    if let Ask::Update { id, .. } = call.ask {
        let mut told = life.told[..*states.end()].iter();
        if !told.any(|told| told.is_update && told.event.service.updated == Some(call.number)) {
            let text = format!("#{} was told that {id} is updated, but nobody else was", call.number);
            verdicts.add(place, "what is acknowledged is announced", text);
        }
    }
}

/// Somebody has asked for this update and may have it, and it has changed what it was to change.
fn updated(index: &Index<'_>, life: &Life<'_>, at: usize, told: &Told<'_>, verdicts: &mut Verdicts) {
    let (place, service) = (told.moment.place, &told.event.service);
    let Some(before) = life.service(&service.id, at) else { return };
    let mut expected = before.fixed.clone();
    let call = service.updated.and_then(|call| index.call(call)).filter(|call| call.asked.place < place);
    let Some((call, Ask::Update { id, .. })) = call.map(|call| (call, call.ask)) else {
        return verdicts.add(place, "nothing comes from nothing", format!("nobody has updated {}", service.fixed));
    };
    for (key, value) in patch(call.number).as_object().into_iter().flatten() {
        expected["metadata"][key] = value.clone();
    }
    if *id != service.id || expected != service.fixed {
        let text = format!("#{} updated {}, and it became {}", call.number, before.fixed, service.fixed);
        verdicts.add(place, "updates build on each other", text);
    }
    if let Some(answer) = call.answer.as_ref().filter(|answer| !answer.is_success()) {
        let text = format!("#{} was told {:?}, and it was announced", call.number, answer.code());
        verdicts.add(place.max(answer.moment.place), "what is refused does not happen", text);
    }
    let owner = before.owner.as_deref();
    let is_admin = call.key.is_some_and(|key| index.rules.admins.contains(key));
    if owner.is_some_and(|owner| call.key != Some(owner)) && !is_admin {
        let text = format!("#{} updated {}, which belongs to {owner:?}", call.number, service.id);
        verdicts.add(place, "a key's service was never another's", text);
    }
}

/// What an update changes: one of a few fields, and which update was the last.
pub(crate) fn patch(call: usize) -> Value {
    let mut patch = serde_json::json!({"updated": call});
    patch[format!("u{}", call % 3)] = call.into();
    patch
}

/// Nobody is told that a service is not found who could have been told that it was deregistered.
fn not_found(index: &Index<'_>, life: &Life<'_>, call: &Call<'_>, answer: &Answer<'_>, verdicts: &mut Verdicts) {
    let Some(id) = call.ask.id().filter(|_| !matches!(call.ask, Ask::Get { .. })) else { return };
    let states = life.states(call.asked, answer.moment, index.rules.slack_ms);
    let known: HashSet<bool> =
        states.map(|state| is_gone(life, id, state, answer.moment, index.rules.slack_ms)).collect();
    if !known.contains(&false) && !life.is_cut_off_at(answer.moment) {
        let text = format!("#{} was told that there is no {id}, which was deregistered", call.number);
        verdicts.add(answer.moment.place, "who was deregistered is told so", text);
    }
}

/// Whether it was certain, after so many events, that the service was deregistered not long ago.
pub(super) fn is_gone(life: &Life<'_>, id: &str, state: usize, now: Moment, slack_ms: u64) -> bool {
    let last =
        life.told[..state].iter().rev().find(|told| told.event.service.id == id && told.event.kind != Kind::Expired);
    last.is_some_and(|last| {
        let age_ms = life.uptime_ms(now.at_ms).saturating_sub(life.uptime_ms(last.moment.at_ms));
        last.event.kind == Kind::Deregistered && age_ms + slack_ms < REMEMBERED_MS
    })
}

/// Whether it may have been, at some moment.
pub(super) fn may_be_gone(index: &Index<'_>, life: &Life<'_>, id: &str, call: &Call<'_>, answer: &Answer<'_>) -> bool {
    let slack_ms = index.rules.slack_ms;
    life.states(call.asked, answer.moment, slack_ms).any(|state| {
        let told = life.told[..state].iter().rev().find(|told| told.event.service.id == id);
        let is_last = match told {
            Some(told) => told.event.kind == Kind::Deregistered,
            // A store that keeps changes tells of those before the start.
            None => {
                let mut kept = life.history.into_iter().flatten().rev().map(|(_, text)| text);
                kept.find(|text| text["service"]["id"] == id).is_some_and(|text| text["type"] == "deregister")
            }
        };
        is_last && life.service(id, state).is_none()
    })
}
