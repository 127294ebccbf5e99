//! Nothing that beat in time expires, and nobody lives for long without a beat.

use super::Verdicts;
use super::index::{Beat, Index, Life};
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
    for (at, (from, version)) in track.versions.iter().enumerate() {
        let Some(service) = version else { continue };
        let since = if *from == 0 { life.began } else { life.told[from - 1].moment };
        let until = track.versions.get(at + 1).map_or(end, |(to, _)| life.told[to - 1].moment);
        let is_within = |beat: &&Beat| beat.seen >= since && beat.asked < until;
        let mut beats: Vec<Beat> = track.beats.iter().filter(is_within).copied().collect();
        beats.sort_by_key(|beat| beat.high_ms);
        for (at, beat) in beats.iter().enumerate() {
            let (until_ms, place) = match beats.get(at + 1) {
                Some(next) => (next.low_ms, next.seen.place),
                None => (life.uptime_ms(until.at_ms), until.place),
            };
            let mut critical_ms = beat.high_ms.saturating_add(service.ttl_ms);
            for (trouble_from_ms, trouble_to_ms) in &troubles {
                if critical_ms + allowance_ms >= *trouble_from_ms {
                    critical_ms = critical_ms.max(*trouble_to_ms);
                }
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

/// When nothing can be expected to expire: while the store is in trouble, or somebody changes that very service; on
/// the host's clock.
fn troubles(index: &Index<'_>, life: &Life<'_>, id: &str) -> Vec<(u64, u64)> {
    let mut troubles: Vec<(u64, u64)> = Vec::new();
    for group in &life.committed {
        if !group.is_clean() || group.moment.at_ms - group.sent_at_ms >= GROUP_MS {
            troubles.push((life.uptime_ms(group.sent_at_ms), life.uptime_ms(group.moment.at_ms)));
        }
    }
    for call in index.calls.iter().filter(|call| call.ask.is_change() && call.ask.id() == Some(id)) {
        if let (Some(answer), Ask::Register(_) | Ask::Deregister { .. }) = (&call.answer, call.ask) {
            troubles.push((life.uptime_ms(call.asked.at_ms), life.uptime_ms(answer.moment.at_ms)));
        }
    }
    troubles.sort_unstable();
    troubles
}
