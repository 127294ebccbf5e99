//! What only some backends claim: a second opener, `unique`, `watch`, `discover`.

use std::time::{Duration, Instant};

use registry_plugin_api::{Capabilities, Change, ErrorKind, Observed, Outcome, Query};

use super::Settings;
use super::basics::{begin, commit, compare, put_of, remove_of};
use super::kill::Child;
use super::lane::{Mismatch, Store, Trouble};
use super::model::{Model, at_revision, describe};
use super::rules::Rule;
use super::site::Site;
use super::tally::Finding;

/// How long a `watch` that has nothing to tell is waited for.
const SILENCE: Duration = Duration::from_millis(100);

/// Rule [`Exclusive`](Rule::Exclusive): against a second opener in this process, and against one in another.
pub(super) fn exclusive(site: &Site, settings: &Settings) -> Result<String, Finding> {
    let rule = Rule::Exclusive;
    let (place, first, mut model) = begin(site, rule)?;
    commit(&first, &mut model, vec![put_of("a")], rule)?;
    let refusal = match site.open(&place) {
        Ok(second) => {
            drop(second);
            Err("it was opened a second time".to_string())
        }
        Err(trouble) => is_clear(&trouble),
    };
    let expected = "a second opener to be refused, by one line that is no panic";
    refusal.map_err(|got| Mismatch::new(rule, expected, got))?;
    let other_process = Child::start(site, settings, &place, 0, 0, 1)?;
    if other_process.opened()?.is_ok() {
        let expected = "a second process to be refused";
        return Err(Mismatch::new(rule, expected, "it was opened a second time").into());
    }
    drop(other_process);
    commit(&first, &mut model, vec![put_of("b"), remove_of("a")], rule)?;
    compare(&first, &model, rule)?;
    first.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    let second = site.open(&place).map_err(|trouble| trouble.breaks_reopening(Rule::Close))?;
    compare(&second, &model, rule).map_err(|mismatch| match mismatch.rule {
        Rule::Epoch => mismatch,
        _ => Mismatch { rule: Rule::Reopen, ..mismatch },
    })?;
    second.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    Ok("a second opener in the same process and one in another".to_string())
}

fn is_clear(trouble: &Trouble) -> Result<(), String> {
    match &trouble.error {
        None => Err("no answer".to_string()),
        Some(error) if error.kind() == ErrorKind::Panicked => Err(format!("a panic: {error}")),
        Some(error) if error.message().trim().is_empty() => Err("an error without a message".to_string()),
        Some(error) if error.message().lines().count() > 1 => Err(format!("several lines: {error}")),
        Some(_) => Ok(()),
    }
}

/// Rule [`Shared`](Rule::Shared).
pub(super) fn shared(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Shared;
    let (place, first, mut model) = begin(site, rule)?;
    commit(&first, &mut model, vec![put_of("a"), put_of("b")], rule)?;
    let second = site.open(&place).map_err(|trouble| trouble.breaks(rule))?;
    let as_shared = |mismatch: Mismatch| Mismatch { rule, ..mismatch };
    compare(&second, &model, rule).map_err(as_shared)?;
    let rounds = 20;
    for round in 0..rounds {
        let (writer, reader) = if round % 2 == 0 { (&second, &first) } else { (&first, &second) };
        let id = format!("service-{round}");
        commit(writer, &mut model, vec![put_of(&id), put_of("a")], rule).map_err(as_shared)?;
        compare(reader, &model, rule).map_err(as_shared)?;
        commit(reader, &mut model, vec![remove_of(&id)], rule).map_err(as_shared)?;
        compare(writer, &model, rule).map_err(as_shared)?;
    }
    for store in [first, second] {
        store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    }
    Ok(format!("2 openers, {} groups by turns", 2 * rounds + 1))
}

/// Rule [`Unique`](Rule::Unique).
pub(super) fn unique(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Unique;
    let (place, first, mut model) = begin(site, rule)?;
    let second = site.open(&place).map_err(|trouble| trouble.breaks(Rule::Shared))?;
    let as_unique = |mismatch: Mismatch| Mismatch { rule, ..mismatch };
    let put = |id: &str| match put_of(id) {
        Change::Put { record, .. } => Change::Put { record, unique: Some("web".to_string()) },
        other => other,
    };
    commit(&first, &mut model, vec![put("a")], rule).map_err(as_unique)?;
    for (store, what) in [(&first, "the same host"), (&second, "another host")] {
        let outcomes = store.commit(vec![put("b")]).map_err(|trouble| trouble.breaks(rule))?;
        if outcomes != [(Outcome::Conflict { id: "a".to_string() })] {
            let expected = format!("a conflict with a for b from {what}");
            return Err(Mismatch::new(rule, expected, format!("{outcomes:?}")).into());
        }
        compare(store, &model, rule).map_err(as_unique)?;
    }
    // A record does not stand in its own way, and one that is gone stands in nobody's.
    commit(&second, &mut model, vec![put("a"), remove_of("a"), put("b")], rule).map_err(as_unique)?;
    compare(&first, &model, rule).map_err(as_unique)?;
    for store in [first, second] {
        store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    }
    Ok("2 conflicts, from the same host and from another".to_string())
}

/// Rule [`Watch`](Rule::Watch).
pub(super) fn watch(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Watch;
    let (place, watcher, mut model) = begin(site, rule)?;
    let is_shared = site.claimed().has(Capabilities::NONE.shared());
    let other = match is_shared {
        true => Some(site.open(&place).map_err(|trouble| trouble.breaks(Rule::Shared))?),
        false => None,
    };
    let writer = other.as_ref().unwrap_or(&watcher);
    let mut history = Written { start: model.revision, changes: Vec::new() };
    history.commit(writer, &mut model, vec![put_of("a")])?;
    let first = model.revision;
    // While it waits, others are called.
    let mut waiting = watcher.watch(first);
    expect_silence(waiting.wait(SILENCE), first)?;
    history.commit(writer, &mut model, vec![put_of("b"), put_of("c"), remove_of("a")])?;
    let renewal = Change::Renew { id: "b".to_string(), last_heartbeat_ms: 1_800_000_000_000 };
    history.commit(writer, &mut model, vec![renewal, put_of("b")])?;
    if !is_shared && waiting.wait(site.call_limit()).is_none() {
        // Nobody else writes to this store, and its own changes need not be told.
        drop(waiting);
        watcher.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
        return Ok("tells nothing of the host's own changes, which it need not".to_string());
    }
    drop(waiting);
    let (mut told, mut lost) = (0, 0);
    let starts: Vec<u64> = history.changes.iter().map(|(revision, _)| *revision).collect();
    for start in [history.start].into_iter().chain(starts) {
        match history.observe(&watcher, start, start >= first, site.call_limit())? {
            Some(observed) => told += observed,
            None => lost += 1,
        }
    }
    for store in [Some(watcher), other].into_iter().flatten() {
        store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    }
    Ok(format!("{told} changes told, from {} revisions on; {lost} lost", history.changes.len() + 1))
}

fn expect_silence(told: Option<registry_plugin_api::Result<Vec<Observed>>>, revision: u64) -> Result<(), Mismatch> {
    let got = match told {
        None => return Ok(()),
        Some(Ok(observed)) if observed.is_empty() => return Ok(()),
        Some(Ok(observed)) => format!("{observed:?}"),
        Some(Err(error)) => error.to_string(),
    };
    let expected = format!("`watch` to wait while nothing has changed since revision {revision}");
    Err(Mismatch::new(Rule::Watch, expected, got))
}

/// What has been done to a store that is watched.
struct Written {
    start: u64,
    changes: Vec<(u64, Change)>,
}

impl Written {
    fn commit(&mut self, store: &Store, model: &mut Model, changes: Vec<Change>) -> Result<(), Mismatch> {
        let rule = Rule::Watch;
        let outcomes = store.commit(changes.clone()).map_err(|trouble| trouble.breaks(rule))?;
        model.apply(&changes, &outcomes)?;
        for (change, outcome) in changes.into_iter().zip(outcomes) {
            match (change, outcome) {
                (Change::Put { record, .. }, Outcome::Done { revision }) => {
                    let record = at_revision(&record, revision);
                    self.changes.push((revision, Change::Put { record, unique: None }));
                }
                (change @ Change::Remove { .. }, Outcome::Done { revision }) => self.changes.push((revision, change)),
                // Nobody is told of a renewal.
                _ => {}
            }
        }
        Ok(())
    }

    /// Watches from a revision on until all has been told: how much that was, or `None` if that history is lost.
    fn observe(&self, store: &Store, start: u64, is_recent: bool, limit: Duration) -> Result<Option<usize>, Mismatch> {
        let expected: Vec<_> = self.changes.iter().filter(|(revision, _)| *revision > start).collect();
        let deadline = Instant::now() + limit;
        let (mut told, mut after) = (0, start);
        while told < expected.len() {
            let observed = match store.watch(after).wait(deadline.saturating_duration_since(Instant::now())) {
                Some(Ok(observed)) => observed,
                Some(Err(error)) if error.kind() == ErrorKind::HistoryLost && !is_recent => return Ok(None),
                Some(Err(error)) => return Err(unlike(after, expected[told], error.to_string())),
                None => return Err(unlike(after, expected[told], format!("nothing within {} s", limit.as_secs_f64()))),
            };
            for Observed { revision, change, .. } in observed {
                match expected.get(told) {
                    Some(next) if next.0 == revision && next.1 == change => {}
                    Some(next) => {
                        return Err(unlike(after, next, format!("{} at revision {revision}", describe(&change))));
                    }
                    None => return Err(Mismatch::new(Rule::Watch, "nothing more", describe(&change))),
                }
                (told, after) = (told + 1, revision);
            }
        }
        Ok(Some(told))
    }
}

fn unlike(after: u64, (revision, change): &(u64, Change), got: String) -> Mismatch {
    let expected = format!("`watch` after revision {after} to tell {} at revision {revision}", describe(change));
    Mismatch::new(Rule::Watch, expected, got)
}

/// Rule [`Discover`](Rule::Discover).
pub(super) fn discover(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::Discover;
    let (_place, store, mut model) = begin(site, rule)?;
    let ids: Vec<String> = (0..10).map(|number| format!("service-{number}")).collect();
    commit(&store, &mut model, ids.iter().map(|id| put_of(id)).collect(), rule)?;
    let (mut chosen, mut left) = (0, 0);
    for round in 0..100 {
        let candidates = ids[round % 8..].to_vec();
        let choice = store.discover(Query::new("web", candidates)).map_err(|trouble| trouble.breaks(rule))?;
        *if choice.is_some() { &mut chosen } else { &mut left } += 1;
    }
    // Whatever is chosen, nothing is changed by it.
    compare(&store, &model, rule)?;
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    Ok(format!("100 queries: {chosen} chosen, {left} left to the host"))
}
