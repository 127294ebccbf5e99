//! The events are the history: in order, each the change of what there was before, each asked for by somebody who may.

use std::collections::HashMap;

use super::Verdicts;
use super::index::Index;
use super::life::Told;
use crate::history::{Ask, Kind};

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    in_order(index, verdicts);
    let mut registered: HashMap<usize, usize> = HashMap::new();
    for life in &index.lives {
        for (at, told) in life.told.iter().enumerate() {
            let place = told.moment.place;
            let service = &told.event.service;
            let before = life.service(&service.id, at);
            match told.event.kind {
                Kind::Registered => {
                    caused(index, told, before.and_then(|before| before.owner.as_deref()), verdicts);
                    if let Some(call) = service.call.filter(|_| !told.is_update)
                        && registered.insert(call, place).is_some()
                    {
                        verdicts.add(place, "a change happens once", format!("#{call} is announced again"));
                    }
                }
                Kind::Deregistered | Kind::Expired => match before {
                    None => {
                        verdicts.add(place, "only what is there goes", format!("there was no {}", service.id));
                    }
                    Some(before) if before.fixed != service.fixed => {
                        let text = format!("{} went, but there was {}", service.fixed, before.fixed);
                        verdicts.add(place, "only what is there goes", text);
                    }
                    Some(_) => {}
                },
            }
        }
    }
    as_asked(index, verdicts);
    removed_by_its_owner(index, verdicts);
    renewed_by_its_owner(index, verdicts);
}

/// Revisions grow, and `previous` leaves no gap unseen.
fn in_order(index: &Index<'_>, verdicts: &mut Verdicts) {
    // The last revision that was told in each epoch.
    let mut newest: HashMap<&str, u64> = HashMap::new();
    for life in &index.lives {
        let mut previous: Option<u64> = None;
        for told in &life.told {
            let (place, event) = (told.moment.place, told.event);
            if event.epoch != life.epoch {
                let text = format!("an event of {:?}, and the host began with {:?}", event.epoch, life.epoch);
                verdicts.add(place, "one epoch", text);
            }
            let before = newest.insert(&event.epoch, event.revision).unwrap_or(0);
            if event.revision <= before.max(life.revision) {
                let text =
                    format!("{} comes after {before}, and the host began with {}", event.revision, life.revision);
                verdicts.add(place, "revisions grow", text);
            }
            if let Some(told_previous) = event.previous {
                let is_right = match previous {
                    Some(previous) => told_previous == previous,
                    // Nobody has been told of what changed between two lives, and may have missed it.
                    None => (before..event.revision).contains(&told_previous) && told_previous <= life.revision,
                };
                if !is_right {
                    let text = format!(
                        "{} says that {told_previous} was before it, it was {}",
                        event.revision,
                        previous.unwrap_or(before)
                    );
                    verdicts.add(place, "previous is true", text);
                }
            }
            previous = Some(event.revision);
        }
    }
}

/// Somebody has asked for this registration, as it is, and may have it.
fn caused(index: &Index<'_>, told: &Told<'_>, owner: Option<&str>, verdicts: &mut Verdicts) {
    let (place, service) = (told.moment.place, &told.event.service);
    let call = service.call.and_then(|call| index.call(call)).filter(|call| call.asked.place < place);
    let Some((call, Ask::Register(registration))) = call.map(|call| (call, call.ask)) else {
        let text = format!("nobody has registered {} like that", service.fixed);
        return verdicts.add(place, "nothing comes from nothing", text);
    };
    let is_same = service.ttl_ms == registration.ttl_ms
        && service.is_of(&registration.service_type)
        && registration.tag.as_ref().is_none_or(|tag| service.is_of(tag))
        && registration.id.as_ref().is_none_or(|id| *id == service.id)
        && service.owner.as_deref() == call.key;
    if !is_same {
        let text = format!("#{} wanted {registration:?}, and got {}", call.number, service.fixed);
        verdicts.add(place, "nothing comes from nothing", text);
    }
    // An update is of what was there: a host that died may have left behind what it could not take back.
    if let Some(answer) = call.answer.as_ref().filter(|answer| !answer.is_success() && !told.is_update) {
        let text = format!("#{} was told {:?}, and it was announced", call.number, answer.code());
        verdicts.add(place.max(answer.moment.place), "what is refused does not happen", text);
    }
    if let Some(owner) = owner.filter(|owner| !may_change(index, call.key, owner)) {
        let text = format!("#{} took {}, which belongs to {owner}", call.number, service.id);
        verdicts.add(place, "a key's service was never another's", text);
    }
}

/// What one client asks for, one after the other, happens in that order.
fn as_asked(index: &Index<'_>, verdicts: &mut Verdicts) {
    for life in &index.lives {
        let mut last: HashMap<(usize, &str), usize> = HashMap::new();
        for told in life.told.iter().filter(|told| told.event.kind == Kind::Registered) {
            let Some(call) = told.event.service.call.and_then(|call| index.call(call)) else { continue };
            let before = last.insert((call.client, &told.event.service.id), call.number);
            if let Some(before) = before.filter(|before| *before > call.number) {
                let text = format!("#{} came after #{before} of the same client", call.number);
                verdicts.add(told.moment.place, "a client's changes happen in its order", text);
            }
        }
    }
}

fn may_change(index: &Index<'_>, key: Option<&str>, owner: &str) -> bool {
    key == Some(owner) || key.is_some_and(|key| index.rules.admins.contains(key))
}

fn removed_by_its_owner(index: &Index<'_>, verdicts: &mut Verdicts) {
    for call in index.calls.iter().filter(|call| call.has_succeeded()) {
        let (Ask::Deregister { id, .. }, Some(answer)) = (call.ask, &call.answer) else { continue };
        let life = &index.lives[answer.life];
        if life.is_cut_off_at(answer.moment) {
            continue;
        }
        let states = life.states(call.asked, answer.moment, index.rules.slack_ms);
        let mut may = states.filter_map(|state| life.service(id, state));
        if !may.any(|service| service.owner.as_deref().is_none_or(|owner| may_change(index, call.key, owner))) {
            let text = format!("#{} removed {id}, which belongs to somebody else or to nobody", call.number);
            verdicts.add(answer.moment.place, "a key's service was never another's", text);
        }
    }
}

fn renewed_by_its_owner(index: &Index<'_>, verdicts: &mut Verdicts) {
    for call in index.calls.iter().filter(|call| call.has_succeeded()) {
        let (Ask::Renew { id, .. }, Some(answer)) = (call.ask, &call.answer) else { continue };
        let life = &index.lives[answer.life];
        if life.is_cut_off_at(answer.moment) {
            continue;
        }
        let states = life.states(call.asked, answer.moment, index.rules.slack_ms);
        let there: Vec<_> = states.filter_map(|state| life.service(id, state)).collect();
        if there.is_empty() {
            let text = format!("#{} renewed {id}, which is not there", call.number);
            verdicts.add(answer.moment.place, "only what is there is renewed", text);
        } else if !there
            .iter()
            .any(|service| service.owner.as_deref().is_none_or(|owner| may_change(index, call.key, owner)))
        {
            let text = format!("#{} renewed {id}, which belongs to somebody else", call.number);
            verdicts.add(answer.moment.place, "a key's service was never another's", text);
        }
    }
}
