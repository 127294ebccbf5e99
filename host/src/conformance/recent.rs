//! Recent changes: kept, forgotten, undone, and those of one epoch.

use registry_plugin_api::{Capabilities, Change, Group, Position};

use super::Settings;
use super::basics::{begin, compare, put_of, remove_of};
use super::history::reopen;
use super::lane::{Mismatch, Store};
use super::model::{Model, revision_of};
use super::rules::Rule;
use super::site::Site;
use super::tally::Finding;

/// How many groups of how many changes a history has that is forgotten.
const GROUPS: usize = 8;
const CHANGES: usize = 250;

/// Rule [`History`](Rule::History): what the random histories do not try.
pub(super) fn history(site: &Site, _: &Settings) -> Result<String, Finding> {
    let rule = Rule::History;
    let (place, mut store, mut model) = begin(site, rule)?;
    let mut done = Vec::new();
    let mut step = |store: &Store, model: &mut Model, what: &str, group: Group| -> Result<(), Finding> {
        done.push(what.to_string());
        let outcomes = store.commit(group.clone()).map_err(|trouble| trouble.breaks(rule))?;
        let checked = model.apply(&group, &outcomes).and_then(|()| compare(store, model, rule));
        checked.map_err(|mismatch| Finding { history: done.clone(), ..mismatch.into() })
    };
    for number in 0..GROUPS {
        let changes: Vec<Change> = (0..CHANGES).map(|place| put_of(&format!("service-{number}-{place}"))).collect();
        let group = model.group(&changes);
        step(&store, &mut model, &format!("commit {CHANGES} puts"), group)?;
    }
    let missing = model.group(&[remove_of("nobody"), put_of("a"), remove_of("a"), remove_of("a")]);
    step(&store, &mut model, "commit removals of what is not there, and of what was just put", missing)?;

    let given_up = model.group(&[put_of("b"), put_of("c")]);
    step(&store, &mut model, "commit [Put b, Put c]", given_up.clone())?;
    let undone: Vec<u64> = given_up.changes.iter().filter_map(revision_of).collect();
    for change in &given_up.changes {
        model.records.remove(change.id());
    }
    let group = model.restoration(&["b".to_string(), "c".to_string()], model.position.clone(), undone);
    // The records are there, which the model has just forgotten.
    let before = model.clone();
    model.records.extend(given_up.changes.iter().filter_map(|change| match change {
        Change::Put(put) => Some((put.record.id.clone(), put.record.clone())),
        _ => None,
    }));
    step(&store, &mut model, "commit [Remove b, Remove c] with the revisions of their puts in `undone`", group)?;
    model.records = before.records;

    if site.claimed().has(Capabilities::NONE.durable()) {
        store = reopen(site, &place, store, &mut model).map_err(|mismatch| Mismatch { rule, ..mismatch })?;
    }
    for number in 1..=GROUPS {
        let mut group = model.group(&[put_of(&format!("later-{number}"))]);
        group.forget_before = model.position.revision;
        step(&store, &mut model, "commit a put with `forget_before` at the last revision", group)?;
    }
    let mut group = model.group(&[]);
    group.position = Position::new("another-epoch", group.position.revision + 7);
    step(&store, &mut model, "commit [] with another epoch", group)?;
    let group = model.group(&[put_of("anew")]);
    step(&store, &mut model, "commit [Put anew]", group)?;
    if site.claimed().has(Capabilities::NONE.durable()) {
        store = reopen(site, &place, store, &mut model).map_err(|mismatch| Mismatch { rule, ..mismatch })?;
    }
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    Ok(format!("{} events kept, undone, forgotten, and ended by another epoch", GROUPS * CHANGES))
}
