//! Who runs out with many others is held, for so long and no longer; who was silent because all were gets that on top.

use super::Verdicts;
use super::index::{Call, Index, Moment};
use super::life::{Beat, Life};
use super::unique::makes_way;
use crate::history::{Ask, Kind};

/// Fewer are no mass: as in `registry/changes/mass.rs`.
const MASS_MIN: usize = 10;
/// Nobody heard of for so long may be a silence: as in `registry/changes/silence.rs`, less what a host may be held up unnoticed.
const SILENT_MS: u64 = 3000 - 1200;
/// How long a clean-up may wait for a quiet moment, and the store take for what is to be removed.
const DELAY_MAX_MS: u64 = 1500;
/// How long what is removed may take after a mass expiry is over, with a store in trouble.
const TAIL_MS: u64 = 20_000;

/// A mass expiry, on the clock of its host.
pub(super) struct Mass {
    pub(super) began_ms: u64,
    /// `u64::MAX` if it did not end before its host.
    pub(super) ended_ms: u64,
    began: Moment,
    reason: Option<String>,
}

/// Time that everybody was given on top.
pub(super) struct Forgiven {
    pub(super) moment: Moment,
    /// Since when, on the clock of the host; and how much.
    pub(super) since_ms: u64,
    pub(super) more_ms: u64,
}

impl Life<'_> {
    /// Until when a service that was heard of like that is passing for certain, by what has happened up to a place.
    pub(super) fn lower_ms(&self, beat: &Beat, ttl_ms: u64, place: usize) -> u64 {
        let mut until_ms = beat.low_ms.saturating_add(ttl_ms);
        let mut left_ms = self.hold_ms;
        for forgiven in self.forgiven.iter().filter(|forgiven| forgiven.moment.place < place) {
            // Who was kept meanwhile has a full ttl from then on, and no more.
            let is_kept = self.kept.iter().any(|kept_ms| *kept_ms >= forgiven.since_ms);
            let is_silent = self.uptime_ms(beat.seen.at_ms) <= forgiven.since_ms && until_ms >= forgiven.since_ms;
            if is_silent && !is_kept {
                let more_ms = forgiven.more_ms.min(left_ms);
                (until_ms, left_ms) = (until_ms.saturating_add(more_ms), left_ms - more_ms);
            }
        }
        until_ms
    }

    /// Until when it may be passing.
    pub(super) fn upper_ms(&self, high_ms: u64, ttl_ms: u64) -> u64 {
        let later = self.silences.iter().filter(|(_, to_ms)| *to_ms >= high_ms);
        let more_ms = later.map(|(from_ms, to_ms)| to_ms - from_ms + SILENT_MS).sum::<u64>().min(self.hold_ms);
        let kept_ms = self.kept.iter().filter(|kept_ms| **kept_ms >= high_ms).max().copied().unwrap_or(0);
        high_ms.max(kept_ms).saturating_add(more_ms).saturating_add(ttl_ms)
    }
}

/// Notes what there is about this in each life.
pub(super) fn note(index: &mut Index<'_>, verdicts: &mut Verdicts) {
    let hold_ms = index.rules.mass_expiry_hold_ms;
    for number in 0..index.lives.len() {
        let life = &index.lives[number];
        let is_fleet = life.tracks.len() >= MASS_MIN;
        let mut masses: Vec<Mass> = Vec::new();
        for (moment, notice) in &life.notices {
            let at_ms = life.uptime_ms(moment.at_ms);
            let open = masses.last_mut().filter(|mass| mass.ended_ms == u64::MAX);
            match (notice["state"].as_str(), open) {
                (Some("begun"), None) => {
                    masses.push(Mass { began_ms: at_ms, ended_ms: u64::MAX, began: *moment, reason: None });
                }
                (Some("ended"), Some(mass)) => {
                    mass.ended_ms = at_ms;
                    mass.reason = notice["reason"].as_str().map(String::from);
                }
                _ => verdicts.add(moment.place, "a mass expiry begins and ends", notice.to_string()),
            }
        }
        let mut silences = Vec::new();
        if is_fleet {
            let end = life.end(index);
            let within = |moment: &Moment| *moment >= life.began && *moment <= end;
            // A heartbeat counts if it succeeds.
            let is_beat = |call: &Call<'_>| {
                let is_success = call.answer.as_ref().is_some_and(|answer| answer.is_success());
                matches!(call.ask, Ask::Renew { .. }) && is_success
            };
            let is_heard =
                |call: &&Call<'_>| call.host == life.host && (is_beat(call) || matches!(call.ask, Ask::Register(_)));
            let asked = index.calls.iter().filter(is_heard).map(|call| call.asked).filter(within);
            let mut heard_ms: Vec<u64> = asked.map(|asked| life.uptime_ms(asked.at_ms)).collect();
            heard_ms.insert(0, 0);
            heard_ms.push(life.uptime_ms(end.at_ms));
            let gaps = heard_ms.windows(2).filter(|pair| pair[1].saturating_sub(pair[0]) >= SILENT_MS);
            silences.extend(gaps.map(|pair| (pair[0], pair[1].min(pair[0] + hold_ms + 200))));
        }
        let mut kept = Vec::new();
        for call in index.calls.iter().filter(|call| matches!(call.ask, Ask::EndMassExpiry { keep: true })) {
            kept.extend(
                call.answer
                    .as_ref()
                    .filter(|answer| answer.life == number && answer.is_success())
                    .map(|answer| life.uptime_ms(answer.moment.at_ms)),
            );
        }
        let forgiven_ms: Vec<u64> =
            life.forgiven.iter().map(|forgiven| life.uptime_ms(forgiven.moment.at_ms)).collect();
        let life = &mut index.lives[number];
        for (forgiven, at_ms) in life.forgiven.iter_mut().zip(forgiven_ms) {
            forgiven.since_ms = at_ms.saturating_sub(forgiven.more_ms);
        }
        (life.masses, life.silences, life.kept) = (masses, silences, kept);
        life.hold_ms = if is_fleet { hold_ms } else { 0 };
    }
}

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    for life in &index.lives {
        for mass in &life.masses {
            in_time(index, life, mass, verdicts);
            at_a_rate(index, life, mass, verdicts);
        }
        held(index, life, verdicts);
    }
}

/// It is over after the hold, and not before, unless there is another reason.
fn in_time(index: &Index<'_>, life: &Life<'_>, mass: &Mass, verdicts: &mut Verdicts) {
    let hold_ms = index.rules.mass_expiry_hold_ms;
    let end_ms = life.uptime_ms(life.closed.unwrap_or(life.end(index)).at_ms).min(mass.ended_ms);
    // A clean-up waits while nobody is heard of.
    let within = |(from_ms, to_ms): &&(u64, u64)| *to_ms >= mass.began_ms && *from_ms <= end_ms;
    let waited_ms: u64 = life.silences.iter().filter(within).map(|(from_ms, to_ms)| to_ms - from_ms).sum();
    let took_ms = end_ms.saturating_sub(mass.began_ms);
    if took_ms > hold_ms + waited_ms + DELAY_MAX_MS {
        let text = format!("it lasted for {took_ms} ms, it should be {hold_ms}");
        verdicts.add(mass.began.place, "a mass expiry has an end", text);
    }
    if mass.reason.as_deref() == Some("hold_over") && took_ms < hold_ms {
        let text = format!("its time was over after {took_ms} ms, it should be {hold_ms}");
        verdicts.add(mass.began.place, "a mass expiry holds", text);
    }
}

/// While it lasts, no more are removed than the share in the time of the hold.
fn at_a_rate(index: &Index<'_>, life: &Life<'_>, mass: &Mass, verdicts: &mut Verdicts) {
    let (share, hold_ms) = (index.rules.mass_expiry_share, index.rules.mass_expiry_hold_ms);
    let first = life.told_before(mass.began.place);
    let mut most = life.services(first).count();
    let mut removed = 0;
    for (at, told) in life.told.iter().enumerate().skip(first) {
        let at_ms = life.uptime_ms(told.moment.at_ms);
        if at_ms >= mass.ended_ms {
            return;
        }
        most = most.max(life.services(at + 1).count());
        // What was on its way to the store before goes.
        let mut groups = life.committed.iter().filter(|group| group.moment.at_ms == told.moment.at_ms);
        let was_sent = match index.rules.sees_store {
            true => groups.any(|group| group.sent_at_ms <= mass.began.at_ms),
            false => at_ms <= mass.began_ms + index.rules.slack_ms,
        };
        if told.event.kind != Kind::Expired || was_sent || makes_way(index, &told.event.service, told.moment) {
            continue;
        }
        removed += 1;
        let passed_ms = (at_ms - mass.began_ms) as f64;
        let allowed = share * (most + removed) as f64 * passed_ms / hold_ms as f64 + 1.0;
        if removed as f64 > allowed {
            let text = format!("{removed} of {most} were removed within {passed_ms} ms");
            return verdicts.add(told.moment.place, "a mass expiry removes few", text);
        }
    }
}

/// If there is none, no more are removed within one sweep than may be; within less than two there may be two.
fn held(index: &Index<'_>, life: &Life<'_>, verdicts: &mut Verdicts) {
    let window_ms = index.rules.sweep_ms * 4 / 5;
    // Also in a silence an operator can have removed who is critical.
    let answers = index.calls.iter().filter(|call| matches!(call.ask, Ask::EndMassExpiry { keep: false }));
    let answers = answers.filter_map(|call| call.answer.as_ref()).filter(|answer| answer.is_success());
    let answers = answers.filter(|answer| std::ptr::eq(&index.lives[answer.life], life));
    let asked_ms: Vec<u64> = answers.map(|answer| life.uptime_ms(answer.moment.at_ms)).collect();
    let is_held = |at_ms: u64| {
        let covers = |mass: &Mass| (mass.began_ms..mass.ended_ms.saturating_add(TAIL_MS)).contains(&at_ms);
        let is_asked = |asked_ms: &u64| (*asked_ms..asked_ms.saturating_add(TAIL_MS)).contains(&at_ms);
        life.masses.iter().any(covers) || asked_ms.iter().any(is_asked)
    };
    let mut gone: Vec<u64> = Vec::new();
    for (at, told) in life.told.iter().enumerate() {
        let at_ms = life.uptime_ms(told.moment.at_ms);
        if told.event.kind != Kind::Expired || is_held(at_ms) {
            continue;
        }
        gone.push(at_ms);
        let recent = gone.iter().filter(|gone_ms| **gone_ms + window_ms > at_ms).count();
        let all = life.services(at).count() + recent;
        let most = (index.rules.mass_expiry_share * all as f64).max((MASS_MIN - 1) as f64);
        if recent as f64 > 2.0 * most {
            let text = format!("{recent} of {all} were removed within {window_ms} ms");
            return verdicts.add(told.moment.place, "who runs out with many others is held", text);
        }
    }
}
