//! Makes a plan that fails as short as it gets.

use std::time::{Duration, Instant};

use crate::checker::{Verdict, judge};
use crate::plan::{Action, Does, Plan};
use crate::world::play;

/// How many plans are tried at most, and for how long: some have megabytes of records.
const TRIES: usize = 3000;
const TRIED_FOR: Duration = Duration::from_secs(60);

/// The verdict on a plan.
pub(crate) fn verdict(plan: &Plan) -> Option<Verdict> {
    judge(&play(plan).0)
}

/// A shorter plan that breaks the same rule.
pub(crate) fn shrink(plan: &Plan, rule: &str) -> Plan {
    let mut best = plan.clone();
    let (mut tries, began) = (0, Instant::now());
    let mut fails = |plan: &Plan| {
        tries += 1;
        tries <= TRIES && began.elapsed() < TRIED_FOR && verdict(plan).is_some_and(|verdict| verdict.rule == rule)
    };
    loop {
        let before = size(&best);
        // Whatever comes behind, then parts of any length, then what is left made simpler.
        let mut length = best.actions.len().div_ceil(2);
        while length > 0 {
            let mut end = best.actions.len();
            while end > 0 {
                let start = end.saturating_sub(length);
                let mut candidates = cuts(&best, start, end).into_iter();
                if let Some(shorter) = candidates.find(|shorter| fails(shorter)) {
                    best = shorter;
                }
                end = start.min(best.actions.len());
            }
            length /= 2;
        }
        for at in 0..best.actions.len() {
            while let Some(simpler) = simpler(&best, at).into_iter().find(|simpler| fails(simpler)) {
                best = simpler;
            }
        }
        if size(&best) == before {
            return best;
        }
    }
}

/// What gets smaller from one round to the next.
fn size(plan: &Plan) -> (usize, u64) {
    (plan.actions.len(), plan.actions.iter().map(|action| action.after_ms).sum())
}

/// Without some actions: with their time gone, or left to what follows.
fn cuts(plan: &Plan, start: usize, end: usize) -> Vec<Plan> {
    let mut short = plan.clone();
    let cut_ms: u64 = short.actions.drain(start..end).map(|action| action.after_ms).sum();
    let mut long = short.clone();
    match long.actions.get_mut(start) {
        Some(next) if cut_ms > 0 => {
            next.after_ms += cut_ms;
            vec![short, long]
        }
        _ => vec![short],
    }
}

/// With one action made simpler in one way.
fn simpler(plan: &Plan, at: usize) -> Vec<Plan> {
    let Action { after_ms, does } = plan.actions[at].clone();
    let mut actions = Vec::new();
    if after_ms > 0 {
        actions.push(Action { after_ms: 0, does: does.clone() });
        actions.push(Action { after_ms: after_ms / 2, does: does.clone() });
    }
    match does.clone() {
        Does::Ask { client, host, ask, times } if times > 1 => {
            actions.push(Action { after_ms, does: Does::Ask { client, host, ask, times: times / 2 } });
        }
        Does::Keep { client, host, registration, every_ms, beats } => {
            let ask = crate::history::Ask::Register(registration.clone());
            actions.push(Action { after_ms, does: Does::Ask { client, host, ask, times: 1 } });
            if beats > 1 {
                let does = Does::Keep { client, host, registration, every_ms, beats: beats / 2 };
                actions.push(Action { after_ms, does });
            }
        }
        _ => {}
    }
    let put = |action| {
        let mut plan = plan.clone();
        plan.actions[at] = action;
        plan
    };
    actions.into_iter().map(put).collect()
}
