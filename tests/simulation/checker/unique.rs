//! Unique types: no two passing services of a type that one of them demanded for itself.

use super::Verdicts;
use super::index::{Index, Moment};
use super::life::Life;
use crate::history::{Ask, Claim, Kind, Service};

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    for life in &index.lives {
        for (at, told) in life.told.iter().enumerate() {
            let service = &told.event.service;
            let Some(service_type) =
                demanded(index, service).filter(|_| told.event.kind == Kind::Registered && !told.is_update)
            else {
                continue;
            };
            let state = at + 1;
            let now_ms = life.uptime_ms(told.moment.at_ms);
            for other in others(life, state, service, service_type) {
                let place = told.moment.place;
                if life.passing_until_ms(&other.id, state, place) >= now_ms {
                    let text = format!("{} and {} are both {service_type}, and pass", service.id, other.id);
                    verdicts.add(place, "unique types are held", text);
                }
            }
        }
    }
    renewed(index, verdicts);
}

/// The type that a registration demanded for itself.
fn demanded<'a>(index: &Index<'a>, service: &Service) -> Option<&'a str> {
    demanded_by(index, index.call(service.call?)?.ask)
}

fn demanded_by<'a>(index: &Index<'a>, ask: &'a Ask) -> Option<&'a str> {
    let Ask::Register(registration) = ask else { return None };
    let is_demanded = match registration.claim {
        Claim::Plain => index.rules.enforce_unique,
        Claim::Singleton => true,
        Claim::AllowDuplicate => false,
    };
    is_demanded.then_some(registration.service_type.as_str())
}

/// Whether a service that has run out may have had to make way at a moment for one that demands its type for itself.
pub(super) fn makes_way(index: &Index<'_>, service: &Service, moment: Moment) -> bool {
    index.calls.iter().any(|call| {
        let is_answered = call.answer.as_ref().is_some_and(|answer| answer.moment.at_ms < moment.at_ms);
        let is_open = call.asked.at_ms <= moment.at_ms && !is_answered;
        is_open && demanded_by(index, call.ask).is_some_and(|service_type| service.is_of(service_type))
    })
}

fn others<'a>(
    life: &Life<'a>,
    state: usize,
    service: &Service,
    service_type: &str,
) -> impl Iterator<Item = &'a Service> {
    life.services(state).filter(move |other| other.id != service.id && other.is_of(service_type))
}

/// Whoever had to make way does not come back by a heartbeat.
fn renewed(index: &Index<'_>, verdicts: &mut Verdicts) {
    for call in &index.calls {
        let (Ask::Renew { id, .. }, Some(answer)) = (call.ask, &call.answer) else { continue };
        let life = &index.lives[answer.life];
        let place = answer.moment.place;
        let state = life.told_by(answer.moment.at_ms);
        let (Some(renewed), true) = (life.service(id, state), answer.is_success()) else { continue };
        let now_ms = life.uptime_ms(answer.moment.at_ms);
        for alone in life.services(state).filter(|alone| alone.id != renewed.id) {
            let Some(service_type) = demanded(index, alone) else { continue };
            // Whoever came later, and did not demand anything, may be there.
            let is_later = since(life, renewed, state) > since(life, alone, state);
            let is_passing = life.passing_until_ms(&alone.id, state, place) >= now_ms;
            if renewed.is_of(service_type) && is_passing && !is_later && since(life, alone, state) > 0 {
                let text = format!("{id} passes again, and {} is to be the only {service_type}", alone.id);
                verdicts.add(place, "unique types are held", text);
            }
        }
    }
}

/// Since which event a service has been as it is; 0 for what was there from the start.
fn since(life: &Life<'_>, service: &Service, state: usize) -> usize {
    let versions = life.tracks.get(service.id.as_str()).map(|track| track.registrations()).unwrap_or_default();
    versions.iter().map(|(from, _)| *from).take_while(|from| *from <= state).last().unwrap_or(0)
}
