//! Random histories: what is done to a store, step by step, compared with the model after each step; and the search for
//! a shorter one that shows the same.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use registry_plugin_api::{Capabilities, Change, Group, Position, Put, Record, Remove, Renew};

use super::lane::{Mismatch, Store};
use super::model::{Model, describe, name};
use super::random::Random;
use super::rules::Rule;
use super::site::Site;

/// Few, so that a change often meets a record.
const IDS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
/// A group has less changes than this.
const GROUP_END: u64 = 6;
/// How long a shorter history is looked for.
const SHRINK_LIMIT: Duration = Duration::from_secs(10);

/// One thing that is done to a store. After each, everything is loaded and compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A group of changes, which get their revisions and events when it is committed.
    Commit(Vec<Change>),
    /// An empty group that lets the store forget all events but the newest.
    Forget,
    /// The records with these ids are written again as they are, as the host does when it does not know whether a
    /// change was stored: a `Put` of each that is there, a `Remove` of each that is not.
    Restore(Vec<String>),
    /// The store is closed and opened again.
    Reopen,
    /// Everything is loaded once more.
    Load,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Step::Commit(changes) => write!(f, "commit {}", group_of(changes)),
            Step::Forget => f.write_str("commit [], with `forget_before` at the last revision"),
            Step::Restore(ids) => {
                write!(f, "restore [{}]", ids.iter().map(|id| name(id)).collect::<Vec<_>>().join(", "))
            }
            Step::Reopen => f.write_str("reopen"),
            Step::Load => f.write_str("load"),
        }
    }
}

/// A group of changes as it is shown to people.
pub(super) fn group_of(changes: &[Change]) -> String {
    format!("[{}]", changes.iter().map(describe).collect::<Vec<_>>().join(", "))
}

/// The history of that seed with that number.
pub fn generate(seed: u64, number: u64, steps: usize) -> Vec<Step> {
    let mut writer = Writer::new(seed, number);
    (0..steps).map(|_| writer.step()).collect()
}

/// Thinks of things to do to a store.
pub(super) struct Writer {
    random: Random,
    /// Makes each record another one.
    version: u64,
}

impl Writer {
    pub(super) fn new(seed: u64, number: u64) -> Self {
        Writer { random: Random::new(seed, number), version: 0 }
    }

    fn step(&mut self) -> Step {
        match self.random.below(20) {
            0..13 => Step::Commit(self.group(0, GROUP_END)),
            13 => Step::Forget,
            14..17 => Step::Restore(self.ids()),
            17..19 => Step::Reopen,
            _ => Step::Load,
        }
    }

    /// A group of at least `least` changes, and less than `end`. An id may come more than once.
    pub(super) fn group(&mut self, least: u64, end: u64) -> Vec<Change> {
        let count = least + self.random.below(end - least);
        (0..count).map(|_| self.change()).collect()
    }

    /// Some ids, each once.
    fn ids(&mut self) -> Vec<String> {
        let mut rest = IDS.to_vec();
        let count = 1 + self.random.below(GROUP_END - 1);
        (0..count).map(|_| rest.swap_remove(self.random.below(rest.len() as u64) as usize).to_string()).collect()
    }

    fn change(&mut self) -> Change {
        let id = *self.random.pick(&IDS);
        match self.random.below(4) {
            0 => Remove::new(id, 0).into(),
            1 => Renew::new(id, 1_700_000_000_000 + self.random.below(1_000_000_000)).into(),
            _ => self.put(id),
        }
    }

    fn put(&mut self, id: &str) -> Change {
        self.version += 1;
        let mut record = Record::new(id, format!("{{\"id\":\"{id}\",\"version\":{}}}", self.version));
        record.types =
            ["other", "web", "mail"].iter().skip(self.random.below(4) as usize).map(ToString::to_string).collect();
        // A ttl that is long over means nothing to a store.
        record.ttl_ms = *self.random.pick(&[0, 1, 30_000, 86_400_000]);
        record.last_heartbeat_ms = 1_700_000_000_000 + self.random.below(1_000_000_000);
        Put::new(record).into()
    }
}

/// What a history came to.
pub(super) struct Played {
    pub commits: usize,
    pub changes: usize,
    pub reopened: usize,
    /// What was wrong, and after how many steps; 0 is the new store itself.
    pub failed: Option<(usize, Mismatch)>,
}

/// Plays a history on a new store.
pub(super) fn play(site: &Site, steps: &[Step]) -> Played {
    let mut played = Played { commits: 0, changes: 0, reopened: 0, failed: None };
    let place = site.place();
    let begun = site.open(&place).map_err(|trouble| trouble.breaks(Rule::Reopen)).and_then(|store| {
        let model = begin_new(&store, Rule::Contents)?;
        Ok((store, model))
    });
    let (mut store, mut model) = match begun {
        Ok(begun) => begun,
        Err(mismatch) => return Played { failed: Some((0, mismatch)), ..played },
    };
    for (number, step) in steps.iter().enumerate() {
        let done = match step {
            Step::Commit(changes) => {
                let group = model.group(changes);
                commit(&mut played, &store, &mut model, group).map(|()| store)
            }
            Step::Forget => {
                let mut group = model.group(&[]);
                group.forget_before = model.position.revision;
                commit(&mut played, &store, &mut model, group).map(|()| store)
            }
            Step::Restore(ids) => {
                let group = model.restoration(ids, model.position.clone(), Vec::new());
                commit(&mut played, &store, &mut model, group).map(|()| store)
            }
            Step::Reopen => reopen(site, &place, store, &mut model).inspect(|_| played.reopened += 1),
            Step::Load => load(&store, &model).map(|()| store),
        };
        match done {
            Ok(open) => store = open,
            Err(mismatch) => return Played { failed: Some((number + 1, mismatch)), ..played },
        }
    }
    played.failed = store.close().err().map(|trouble| (steps.len(), trouble.breaks(Rule::Close)));
    played
}

fn commit(played: &mut Played, store: &Store, model: &mut Model, group: Group) -> Result<(), Mismatch> {
    played.commits += 1;
    played.changes += group.changes.len();
    let outcomes = store.commit(group.clone()).map_err(|trouble| trouble.breaks(Rule::Outcomes))?;
    model.apply(&group, &outcomes)?;
    load(store, model)
}

fn load(store: &Store, model: &Model) -> Result<(), Mismatch> {
    let loaded = store.load().map_err(|trouble| trouble.breaks(Rule::Contents))?;
    model.compare(&loaded)
}

/// The epoch of all stores of the kit's.
const EPOCH: &str = "0123456789abcdef0123456789abcdef";

/// Does what a host does with a new store, which is to be empty. Trouble breaks that rule.
pub(super) fn begin_new(store: &Store, rule: Rule) -> Result<Model, Mismatch> {
    let loaded = store.load().map_err(|trouble| trouble.breaks(rule))?;
    let records = loaded.records().count();
    if records > 0 {
        return Err(Mismatch::new(Rule::Contents, "a new store to be empty", format!("{records} records")));
    }
    if let Some(position) = loaded.position() {
        let got = format!("revision {} in epoch {:?}", position.revision, position.epoch);
        return Err(Mismatch::new(Rule::Position, "a new store to have no position", got));
    }
    let first = Group::new(Position::new(EPOCH, 0), Vec::new());
    let outcomes = store.commit(first).map_err(|trouble| Mismatch {
        expected: "`commit` of an empty group to succeed".to_string(),
        ..trouble.breaks(rule)
    })?;
    if !outcomes.is_empty() {
        return Err(Mismatch::new(Rule::Outcomes, "no outcome of an empty group", format!("{outcomes:?}")));
    }
    let loaded = store.load().map_err(|trouble| trouble.breaks(rule))?;
    let model = Model::of(&loaded)?;
    let expected = Model { position: Position::new(EPOCH, 0), forgotten: 0, ..model.clone() };
    expected.compare(&loaded).map(|()| expected)
}

/// Closes the store and opens it again, and checks that it has kept what it promises to keep.
pub(super) fn reopen(
    site: &Site,
    place: &super::site::Place,
    store: Store,
    model: &mut Model,
) -> Result<Store, Mismatch> {
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    let store = site.open(place).map_err(|trouble| trouble.breaks_reopening(Rule::Reopen))?;
    let loaded = store.load().map_err(|trouble| trouble.breaks(Rule::Reopen))?;
    let durable = site.claimed().has(Capabilities::NONE.durable());
    if !durable && loaded.position().is_none() {
        *model = begin_new(&store, Rule::Reopen)?;
        return Ok(store);
    }
    match model.compare(&loaded) {
        Err(mismatch) if matches!(mismatch.rule, Rule::Contents | Rule::Position) => {
            Err(Mismatch { rule: Rule::Reopen, ..mismatch })
        }
        compared => compared.map(|()| store),
    }
}

/// Looks for a shorter history that breaks the same rule, and says what is wrong in the shortest that it has found.
pub(super) fn shrink(site: &Site, steps: &[Step], failed_after: usize, mismatch: Mismatch) -> (Vec<Step>, Mismatch) {
    let deadline = Instant::now() + SHRINK_LIMIT;
    let mut best = (steps[..failed_after].to_vec(), mismatch);
    loop {
        let shorter = candidates(&best.0).into_iter().take_while(|_| Instant::now() < deadline).find_map(|steps| {
            let (after, mismatch) = play(site, &steps).failed?;
            (mismatch.rule == best.1.rule).then(|| (steps[..after].to_vec(), mismatch))
        });
        match shorter {
            Some(shorter) => best = shorter,
            None => return best,
        }
    }
}

/// Shorter histories, the shortest first: large parts left out, then single steps, then single changes.
fn candidates(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut candidates: Vec<Vec<Step>> = Vec::new();
    let mut part = steps.len();
    while part > 0 {
        for start in (0..steps.len()).step_by(part) {
            let end = (start + part).min(steps.len());
            candidates.push([&steps[..start], &steps[end..]].concat());
        }
        part /= 2;
    }
    for (number, step) in steps.iter().enumerate() {
        let with = |step: Step| [&steps[..number], &[step], &steps[number + 1..]].concat();
        match step {
            Step::Commit(changes) => {
                candidates.extend(without_one(changes).map(|changes| with(Step::Commit(changes))));
            }
            Step::Restore(ids) => candidates.extend(without_one(ids).map(|ids| with(Step::Restore(ids)))),
            Step::Forget | Step::Reopen | Step::Load => {}
        }
    }
    candidates
}

/// The list without each of its elements in turn.
fn without_one<T: Clone>(list: &[T]) -> impl Iterator<Item = Vec<T>> {
    (0..list.len()).map(move |left_out| {
        let mut rest = list.to_vec();
        rest.remove(left_out);
        rest
    })
}

/// What the histories together have tried, for the table.
#[derive(Default)]
pub(super) struct Totals {
    pub histories: usize,
    pub commits: usize,
    pub changes: usize,
    pub reopened: usize,
}

/// Plays the histories of a seed. Gives for each rule that was broken the shortest history that shows it.
pub(super) fn check(site: &Site, seed: u64, histories: usize, steps: usize) -> (Totals, Vec<(Vec<Step>, Mismatch)>) {
    let mut totals = Totals::default();
    let mut broken: Vec<(Vec<Step>, Mismatch)> = Vec::new();
    let mut rules: BTreeSet<Rule> = BTreeSet::new();
    for number in 0..histories {
        let history = generate(seed, number as u64, steps);
        let began = Instant::now();
        let played = play(site, &history);
        totals.histories += 1;
        totals.commits += played.commits;
        totals.changes += played.changes;
        totals.reopened += played.reopened;
        if let Some((after, mismatch)) = played.failed
            && rules.insert(mismatch.rule)
        {
            broken.push(shrink(site, &history, after, mismatch));
            // A store that does not answer takes its time again and again.
            if began.elapsed() >= site.call_limit() {
                break;
            }
        }
    }
    (totals, broken)
}
