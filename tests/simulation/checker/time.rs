//! Nothing that beat in time expires, and nobody lives for long without a beat.

use super::Verdicts;
use super::index::Index;
use super::life::{Beat, DOUBT_MS, Life};
use crate::history::{Ask, Kind};

/// As in `server/quiet.rs`: how long a clean-up that is due may wait for a quiet moment.
const CLEANUP_DELAY_MAX_MS: u64 = 1000;
/// What a group may take before it counts as trouble with the store.
const GROUP_MS: u64 = 100;

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    for life in &index.lives {
        for (at, told) in life.told.iter().enumerate() {
            if told.event.kind == Kind::Expired {
                let id = &told.event.service.id;
                let until_ms = life.passing_until_ms(id, at, told.moment.place);
                let now_ms = life.uptime_ms(told.moment.at_ms);
                if now_ms <= until_ms {
                    let text = format!("{id} expired at {now_ms}, and was heard of so that it passes until {until_ms}");
                    verdicts.add(told.moment.place, "nothing that beat in time expires", text);
                }
            }
        }
        for id in life.tracks.keys() {
            lived_too_long(index, life, id, verdicts);
        }
    }
}

/// For each service, from one beat to the next, or to its end: there must be no sweep that has passed by it.
fn lived_too_long(index: &Index<'_>, life: &Life<'_>, id: &str, verdicts: &mut Verdicts) {
    let track = &life.tracks[id];
    let troubles = troubles(index, life, id);
    let allowance_ms = index.rules.sweep_ms + CLEANUP_DELAY_MAX_MS + 2 * GROUP_MS + index.rules.slack_ms;
    let end = life.closed.unwrap_or(life.end(index));
    let versions = track.registrations();
    for (at, (from, version)) in versions.iter().enumerate() {
        let Some(service) = version else { continue };
        let since = if *from == 0 { life.began } else { life.told[from - 1].moment };
        let until = versions.get(at + 1).map_or(end, |(to, _)| life.told[to - 1].moment);
        let is_within = |beat: &&Beat| beat.seen >= since && beat.asked < until;
        let mut beats: Vec<Beat> = track.beats.iter().filter(is_within).copied().collect();
        beats.sort_by_key(|beat| beat.high_ms);
        for (at, beat) in beats.iter().enumerate() {
            let (until_ms, place) = match beats.get(at + 1) {
                Some(next) => (next.low_ms, next.seen.place),
                None => (life.uptime_ms(until.at_ms), until.place),
            };
            let mut critical_ms = life.upper_ms(beat.high_ms, service.ttl_ms);
            let mut is_held = false;
            for (trouble, from_ms, to_ms) in &troubles {
                if critical_ms.saturating_add(allowance_ms) < *from_ms || critical_ms >= *to_ms {
                    continue;
                }
                // When it has been held once, it goes, unless the store or a client is in the way.
                match trouble {
                    Trouble::Mass if std::mem::replace(&mut is_held, true) => continue,
                    Trouble::Mass => {}
                    Trouble::Other => is_held = false,
                }
                critical_ms = *to_ms;
            }
            if until_ms > critical_ms.saturating_add(allowance_ms) {
                let text = format!(
                    "{id} was last heard of at {}, its ttl is {}, and it was there until {until_ms}",
                    beat.high_ms, service.ttl_ms
                );
                verdicts.add(place, "nobody lives for long without a beat", text);
            }
        }
    }
}

/// Why nothing can be expected to expire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// A mass expiry.
    Mass,
    /// The store, somebody who changes that very service, or nobody who is heard of.
    Other,
}

/// When nothing can be expected to expire, and why, on the host's clock.
fn troubles(index: &Index<'_>, life: &Life<'_>, id: &str) -> Vec<(Trouble, u64, u64)> {
    let mut troubles: Vec<(Trouble, u64, u64)> =
        life.masses.iter().map(|mass| (Trouble::Mass, mass.began_ms, mass.ended_ms)).collect();
    troubles.extend(life.silences.iter().map(|(from_ms, to_ms)| (Trouble::Other, *from_ms, *to_ms)));
    for group in &life.committed {
        if !group.is_clean() || group.moment.at_ms - group.sent_at_ms >= GROUP_MS {
            troubles.push((Trouble::Other, life.uptime_ms(group.sent_at_ms), life.uptime_ms(group.moment.at_ms)));
        }
    }
    for (since_ms, until_ms) in &life.troubles {
        let until_ms = life.uptime_ms(until_ms + index.rules.apart_ms);
        troubles.push((Trouble::Other, life.uptime_ms(*since_ms), until_ms));
    }
    if let Some(track) = life.tracks.get(id) {
        let ttl_ms = track.versions.iter().filter_map(|(_, version)| Some(version.as_ref()?.ttl_ms)).max().unwrap_or(0);
        let asked_ms = track.doubts.iter().map(|asked| life.uptime_ms(asked.at_ms));
        troubles.extend(asked_ms.map(|asked_ms| (Trouble::Other, asked_ms, asked_ms + DOUBT_MS + ttl_ms)));
    }
    for call in index.calls.iter().filter(|call| call.ask.is_change() && call.ask.id() == Some(id)) {
        if let (Some(answer), Ask::Register(_) | Ask::Deregister { .. }) = (&call.answer, call.ask) {
            troubles.push((Trouble::Other, life.uptime_ms(call.asked.at_ms), life.uptime_ms(answer.moment.at_ms)));
        }
    }
    troubles.sort_unstable_by_key(|(trouble, from_ms, to_ms)| (*from_ms, *to_ms, *trouble));
    troubles
}
