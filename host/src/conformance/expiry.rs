//! Rule [`Expires`](Rule::Expires): the store's own ttl, with the store open, and with nobody having it open.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use registry_plugin_api::{Capabilities, Change, Record};

use super::Settings;
use super::basics::{begin, commit};
use super::lane::{Mismatch, Store};
use super::rules::Rule;
use super::site::Site;
use super::tally::Finding;

/// Two seconds: stores that count in whole ones are to have a chance.
const TTL: Duration = Duration::from_secs(2);
/// From one look at the store to the next.
const LOOK: Duration = Duration::from_millis(50);

/// One record is left alone and one is renewed once, each with a short ttl; one has a long ttl, and stays.
pub(super) fn expires(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Expires;
    let as_expires = |mismatch: Mismatch| Mismatch { rule, ..mismatch };
    let (place, store, mut model) = begin(site, rule)?;
    let put = Instant::now();
    let changes = vec![record("left-alone", TTL), record("renewed", TTL), record("long", 1000 * TTL)];
    commit(&store, &mut model, changes, rule).map_err(as_expires)?;
    thread::sleep(TTL / 2);
    let renewed = Instant::now();
    let renew = Change::Renew { id: "renewed".to_string(), last_heartbeat_ms: now_ms() };
    commit(&store, &mut model, vec![renew], rule).map_err(as_expires)?;
    let late = wait_for_end(&store, "left-alone", put, &[("renewed", renewed + TTL)], site.call_limit())?;
    if !site.claimed().has(Capabilities::NONE.durable()) {
        wait_for_end(&store, "renewed", renewed, &[], site.call_limit())?;
        store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
        return Ok(format!("a ttl of {} s, over after {:.1} s, and one that was renewed", TTL.as_secs(), late));
    }
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    thread::sleep((renewed + TTL).saturating_duration_since(Instant::now()));
    let store = site.open(&place).map_err(|trouble| trouble.breaks_reopening(Rule::Close))?;
    wait_for_end(&store, "renewed", renewed, &[], site.call_limit())?;
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    Ok(format!("a ttl of {} s, over after {late:.1} s, and one that ended while the store was closed", TTL.as_secs()))
}

/// Waits until a record is gone, and says after how many seconds it was. `others` are to be there until those times, and
/// the one with the long ttl always.
fn wait_for_end(
    store: &Store,
    id: &str,
    since: Instant,
    others: &[(&str, Instant)],
    limit: Duration,
) -> Result<f64, Mismatch> {
    let rule = Rule::Expires;
    loop {
        let loaded = store.load().map_err(|trouble| trouble.breaks(rule))?;
        let now = Instant::now();
        let is_there = |id: &str| loaded.records().any(|record| record.id == id);
        let early = [(id, since + TTL), ("long", now + TTL)].into_iter().chain(others.iter().copied());
        for (other, until) in early {
            if now < until && !is_there(other) {
                let expected = format!("the record {other} to be there until its ttl has passed");
                let after = (now - since).as_secs_f64();
                return Err(Mismatch::new(rule, expected, format!("it is gone {after:.1} s after the last change")));
            }
        }
        if !is_there(id) {
            return Ok((now - since).as_secs_f64());
        }
        if now > since + TTL + limit {
            let expected = format!("the record {id}, whose ttl is {} s, to be gone", TTL.as_secs());
            return Err(Mismatch::new(
                rule,
                expected,
                format!("it is there after {:.1} s", (now - since).as_secs_f64()),
            ));
        }
        thread::sleep(LOOK);
    }
}

fn record(id: &str, ttl: Duration) -> Change {
    let mut record = Record::new(id, "{}");
    record.ttl_ms = ttl.as_millis() as u64;
    record.last_heartbeat_ms = now_ms();
    Change::Put { record, unique: None }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
