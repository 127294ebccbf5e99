//! Commits that the host gives up: what it does to make them good must be enough.

use std::thread;
use std::time::Duration;

use registry_plugin_api::{Change, Group, Outcome};

use super::Settings;
use super::basics::{begin, compare};
use super::history::{Writer, group_of};
use super::lane::{Mismatch, Store};
use super::model::{Model, revision_of};
use super::random::Random;
use super::rules::Rule;
use super::site::Site;
use super::tally::Finding;
use crate::log::counted;

/// How often a commit is dropped.
const CANCELLED: u64 = 40;
/// How long something that was dropped is given to land after all.
const LATE: Duration = Duration::from_millis(500);

/// Rule [`Cancellation`](Rule::Cancellation).
pub(super) fn cancellation(site: &Site, settings: &Settings) -> Result<String, Finding> {
    let rule = Rule::Cancellation;
    let (_place, store, mut model) = begin(site, rule)?;
    let mut writer = Writer::new(settings.seed, u64::MAX);
    let mut random = Random::new(settings.seed, u64::MAX - 1);
    let mut history = Vec::new();
    let mut dropped = 0;
    let broken = |history: &[String], mismatch: Mismatch| Finding {
        history: history.to_vec(),
        ..Mismatch { rule, ..mismatch }.into()
    };
    for _ in 0..CANCELLED {
        let group = model.group(&writer.group(1, 6));
        let polls = 1 + random.below(4) as usize;
        let checked = match store.commit_and_drop(group.clone(), polls) {
            Some(Ok(outcomes)) => {
                history.push(format!("commit {}", group_of(&group.changes)));
                model.apply(&group, &outcomes)
            }
            Some(Err(error)) => Err(Mismatch::new(rule, "`commit` to succeed", error.to_string())),
            None => {
                history.push(format!("commit {}, dropped after {polls} polls", group_of(&group.changes)));
                dropped += 1;
                restore(&store, &mut model, group, &mut history)
            }
        };
        checked.map_err(|mismatch| broken(&history, mismatch))?;
    }
    if dropped > 0 {
        thread::sleep(LATE);
        history.push(format!("wait for {} s", LATE.as_secs_f64()));
        compare(&store, &model, rule).map_err(|mismatch| broken(&history, mismatch))?;
    }
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    Ok(match dropped {
        0 => format!("{CANCELLED} commits, which never wait: none could be dropped"),
        dropped => format!("{} dropped, waiting, and made good", counted(dropped, "commit", "commits")),
    })
}

/// Does what the host does after it has dropped a commit: it writes the records again as they were, and takes back the
/// events.
fn restore(store: &Store, model: &mut Model, given_up: Group, history: &mut Vec<String>) -> Result<(), Mismatch> {
    let mut ids: Vec<String> = given_up.changes.iter().map(|change| change.id().to_string()).collect();
    ids.sort();
    ids.dedup();
    let undone: Vec<u64> = given_up.changes.iter().filter_map(revision_of).collect();
    let group = model.restoration(&ids, given_up.position, undone);
    history.push(format!("commit {}, to make it good", group_of(&group.changes)));
    let mut outcomes = store.commit(group.clone()).map_err(|trouble| trouble.breaks(Rule::Cancellation))?;
    // Whether a record that must not be there was there is what nobody could know.
    for (change, outcome) in group.changes.iter().zip(&mut outcomes) {
        if matches!(change, Change::Remove(_)) && matches!(outcome, Outcome::Done | Outcome::Missing) {
            *outcome = Outcome::Missing;
        }
    }
    model.apply(&group, &outcomes)?;
    compare(store, model, Rule::Cancellation)
}
