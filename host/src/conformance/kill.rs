//! What survives a kill: this program runs once more as a child that commits and tells what was acknowledged, and is
//! killed while it does.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{self, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use registry_plugin_api::{Capabilities, Change, Group, Outcome};
use serde_json::{Map, Value, json};

use super::Settings;
use super::history::{Writer, begin_new, group_of};
use super::lane::{Caller, Loaded, Mismatch, Secrets, Store, UnderWay};
use super::model::{Model, describe, revision_of};
use super::random::Random;
use super::rules::Rule;
use super::site::{Place, Site};
use super::tally::Finding;
use crate::log::counted;
use crate::plugin::Plugin;

/// How many groups a child may get acknowledged before it is killed.
const GROUPS: u64 = 24;
/// A group has less changes than this.
const GROUP_END: u64 = 7;
/// The streams of random numbers below these are the histories'.
const STREAM: u64 = 1 << 40;
/// Longer than a child lives: its parent waits for its answers, and kills it.
const CHILD_LIMIT: Duration = Duration::from_secs(86_400);
/// How long a short history that needs no luck is looked for.
const SHRINK_LIMIT: Duration = Duration::from_secs(5);

/// The changes that a child with that number commits, one group after the other, for ever.
fn groups(seed: u64, number: u64, group_end: u64) -> impl Iterator<Item = Vec<Change>> {
    let mut writer = Writer::new(seed, STREAM + number);
    std::iter::repeat_with(move || writer.group(1, group_end.max(2)))
}

/// What a child is to do.
#[derive(Clone, Debug)]
pub struct ChildTask {
    /// The store's options.
    pub options: Map<String, Value>,
    /// The seed of its changes.
    pub seed: u64,
    /// The number of the child, which makes its changes others than those of another child.
    pub number: u64,
    /// How many groups it commits before it only waits to be killed.
    pub groups: usize,
    /// A group has less changes than this.
    pub group_end: u64,
}

/// Does what a child does: opens the store, commits groups, and prints a line of JSON for each that is acknowledged.
/// Returns when its standard input ends: its parent is gone, or has no more use for it.
pub fn work_as_child(plugin: &Plugin, task: &ChildTask) {
    let caller = Caller {
        limit: CHILD_LIMIT,
        under_way: UnderWay::default(),
        secrets: Secrets::default(),
        keeps_history: false,
    };
    let begun = caller.open(plugin, &task.options).map_err(|trouble| trouble.breaks(Rule::Kill));
    let begun = begun.and_then(|store| {
        let loaded = store.load().map_err(|trouble| trouble.breaks(Rule::Kill))?;
        Ok((Model::of(&loaded)?, store))
    });
    let (mut model, store) = match begun {
        Ok(begun) => begun,
        Err(mismatch) => {
            tell(&json!({ "refused": mismatch.got }));
            return;
        }
    };
    tell(&json!("opened"));
    for changes in groups(task.seed, task.number, task.group_end).take(task.groups) {
        let group = model.group(&changes);
        model.position = group.position.clone();
        let told = match store.commit(group) {
            Ok(outcomes) => tell(&outcomes.iter().map(to_json).collect()),
            Err(trouble) => tell(&json!({ "error": trouble.breaks(Rule::Kill).got })),
        };
        if !told {
            return;
        }
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Whether there is still somebody to be told.
fn tell(line: &Value) -> bool {
    // One write for the line: it is there as a whole or not at all.
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).is_ok() && std::io::stdout().flush().is_ok()
}

fn to_json(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Done => json!("done"),
        Outcome::Missing => json!("missing"),
        other => json!({ "other": format!("{other:?}") }),
    }
}

fn from_json(outcome: &Value) -> Option<Outcome> {
    match outcome.as_str() {
        Some("done") => Some(Outcome::Done),
        Some("missing") => Some(Outcome::Missing),
        _ => None,
    }
}

/// A child that has a store open. It is killed when it goes out of scope.
pub(super) struct Child {
    process: process::Child,
    lines: Receiver<String>,
    limit: Duration,
}

impl Child {
    pub(super) fn start(
        site: &Site,
        settings: &Settings,
        place: &Place,
        number: u64,
        groups: usize,
        group_end: u64,
    ) -> Result<Child, Mismatch> {
        let mut command = Command::new(&settings.program);
        command.args(["plugin", "check-child"]).arg(site.plugin().path());
        command.arg("--seed").arg(settings.seed.to_string()).arg("--number").arg(number.to_string());
        command.arg("--groups").arg(groups.to_string()).arg("--group-end").arg(group_end.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let failed = |what: String| Mismatch::new(Rule::Kill, "a child process of this program", what);
        let mut process = command.spawn().map_err(|error| failed(error.to_string()))?;
        // Not as an argument, because everybody can read those.
        let options = format!("{}\n", Value::from(place.options.clone()));
        let stdin = process.stdin.as_mut().ok_or_else(|| failed("it has no standard input".to_string()))?;
        stdin.write_all(options.as_bytes()).map_err(|error| failed(error.to_string()))?;
        let stdout = process.stdout.take().ok_or_else(|| failed("it has no standard output".to_string()))?;
        let (sender, lines) = channel();
        // The reader ends with the child's output. Nobody waits for it: what it reads comes through the channel.
        thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
        Ok(Child { process, lines, limit: settings.timeout })
    }

    fn line(&self) -> Result<Value, Mismatch> {
        let failed = |what: &str| Mismatch::new(Rule::Kill, "the child process to answer", what);
        let line = self.lines.recv_timeout(self.limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => failed("it does not answer"),
            RecvTimeoutError::Disconnected => failed("it has ended"),
        })?;
        serde_json::from_str(&line).map_err(|_| failed(&line))
    }

    /// Waits until the store is open. The inner error is why it is not.
    pub(super) fn opened(&self) -> Result<Result<(), String>, Mismatch> {
        let line = self.line()?;
        Ok(match line["refused"].as_str() {
            Some(refusal) => Err(refusal.to_string()),
            None => Ok(()),
        })
    }

    /// Kills it, as a power cut would, and gives the lines that it had still said.
    fn kill(&mut self) -> Vec<Value> {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let mut lines = Vec::new();
        while let Ok(line) = self.line() {
            lines.push(line);
        }
        lines
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a child commits, and when it is killed.
#[derive(Clone, Copy)]
struct Plan {
    /// How many groups are acknowledged first.
    groups: u64,
    /// A group has less changes than this.
    group_end: u64,
    /// It is killed in the next group, after that share of the time that a group takes. `None` if there is no next
    /// group, and it is killed while nothing is under way.
    amid: Option<f64>,
}

/// Rule [`Kill`](Rule::Kill).
pub(super) fn kill(site: &Site, settings: &Settings) -> Result<String, Finding> {
    let place = site.place();
    let mut random = Random::new(settings.seed, STREAM - 1);
    let mut model = None;
    let (mut acknowledged, mut cut) = (0, 0);
    for number in 0..settings.kills {
        // A store that writes a little later would nearly always be caught up with if it were kept busy.
        let amid = (number % 3 > 0).then(|| random.below(1000) as f64 / 700.0);
        let plan = Plan { groups: 1 + random.below(GROUPS), group_end: GROUP_END, amid };
        let (round, survived) = play(site, settings, &place, &mut model, number as u64, plan);
        if let Err(mismatch) = survived {
            let finding = Finding { history: round.history(), ..mismatch.into() };
            return Err(shrink(site, settings, finding.rule).unwrap_or(finding));
        }
        acknowledged += round.acknowledged.len();
        cut += usize::from(round.cut);
    }
    let kills = counted(settings.kills, "kill", "kills");
    let groups = counted(acknowledged, "acknowledged group", "acknowledged groups");
    Ok(format!("{kills} after {groups}; {cut} left something of the group under way"))
}

/// Looks for a short history: first for one that needs no luck, a few single changes and a kill when all are
/// acknowledged; then for a kill in the middle of the second group.
fn shrink(site: &Site, settings: &Settings, rule: Rule) -> Option<Finding> {
    let deadline = Instant::now() + SHRINK_LIMIT;
    let single = |groups| Plan { groups, group_end: 2, amid: None };
    let quiet = (1..=3).flat_map(|groups| (0..4).map(move |number| (single(groups), number)));
    let amid = (0..40).map(|number| (Plan { groups: 1, group_end: GROUP_END, amid: Some(0.4) }, number));
    quiet.chain(amid).take_while(|_| Instant::now() < deadline).find_map(|(plan, number)| {
        let (round, survived) = play(site, settings, &site.place(), &mut None, number, plan);
        let mismatch = survived.err().filter(|mismatch| mismatch.rule == rule)?;
        Some(Finding { history: round.history(), ..mismatch.into() })
    })
}

/// What one child has done.
#[derive(Default)]
struct Round {
    acknowledged: Vec<Group>,
    /// What it was about to commit when it was killed, if anything.
    under_way: Option<Group>,
    /// Whether something of that was stored.
    cut: bool,
}

impl Round {
    fn history(&self) -> Vec<String> {
        let mut history: Vec<String> =
            self.acknowledged.iter().map(|group| format!("commit {}", group_of(&group.changes))).collect();
        if let Some(group) = &self.under_way {
            history.push(format!("commit {}, not acknowledged", group_of(&group.changes)));
        }
        history.extend(["kill -9".to_string(), "open again".to_string()]);
        history
    }
}

/// Has a child work on the store, kills it, and looks at what there is. `model` is what was in the store, `None` for a
/// new one, and then what is in it now.
fn play(
    site: &Site,
    settings: &Settings,
    place: &Place,
    model: &mut Option<Model>,
    number: u64,
    plan: Plan,
) -> (Round, Result<(), Mismatch>) {
    let mut round = Round::default();
    let survived = play_round(site, settings, place, model, number, plan, &mut round);
    (round, survived)
}

fn play_round(
    site: &Site,
    settings: &Settings,
    place: &Place,
    model: &mut Option<Model>,
    number: u64,
    plan: Plan,
    round: &mut Round,
) -> Result<(), Mismatch> {
    let rule = Rule::Kill;
    if model.is_none() {
        let store = site.open(place).map_err(|trouble| trouble.breaks(rule))?;
        *model = Some(begin_new(&store, rule)?);
        store.close().map_err(|trouble| trouble.breaks(Rule::Close))?;
    }
    let Some(model) = model else { return Ok(()) };
    let wanted = plan.groups as usize;
    let limit = if plan.amid.is_some() { usize::MAX } else { wanted };
    let mut child = Child::start(site, settings, place, number, limit, plan.group_end)?;
    child.opened()?.map_err(|refusal| Mismatch::new(rule, "a child process to open the store", refusal))?;
    let began = Instant::now();
    let mut answers = (0..wanted).map(|_| child.line()).collect::<Result<Vec<_>, _>>()?;
    if let Some(share) = plan.amid {
        thread::sleep(began.elapsed().div_f64(plan.groups as f64).mul_f64(share));
    }
    answers.extend(child.kill());
    let mut written = groups(settings.seed, number, plan.group_end);
    for answer in answers {
        let group = model.group(&written.next().unwrap_or_default());
        let outcomes: Option<Vec<_>> = answer.as_array().and_then(|list| list.iter().map(from_json).collect());
        let outcomes =
            outcomes.ok_or_else(|| Mismatch::new(Rule::Outcomes, "`Done` or `Missing`", answer.to_string()))?;
        model.apply(&group, &outcomes)?;
        round.acknowledged.push(group);
    }
    if plan.amid.is_some() {
        round.under_way = written.next().map(|changes| model.group(&changes));
    }
    let (store, loaded) = open(site, place)?;
    let keeps_history = site.claimed().has(Capabilities::NONE.history());
    round.cut = first_part(model, round.under_way.as_ref(), &loaded, keeps_history)?;
    *model = Model::of(&loaded)?;
    store.close().map_err(|trouble| trouble.breaks(Rule::Close))
}

fn open(site: &Site, place: &Place) -> Result<(Store, Loaded), Mismatch> {
    let store = site.open(place).map_err(|trouble| trouble.breaks(Rule::Kill))?;
    let loaded = store.load().map_err(|trouble| trouble.breaks(Rule::Kill))?;
    Ok((store, loaded))
}

/// Whether something of the group that was under way is in what was loaded, beside all that was acknowledged.
fn first_part(model: &Model, group: Option<&Group>, loaded: &Loaded, is_whole: bool) -> Result<bool, Mismatch> {
    let found = Model::of(loaded)?;
    let as_kill = |mismatch: Mismatch| Mismatch { rule: Rule::Kill, ..mismatch };
    let Some(group) = group else {
        return model.compare(loaded).map(|()| false).map_err(as_kill);
    };
    let count = group.changes.len();
    let parts = (0..=count).filter(|stored| !is_whole || *stored == 0 || *stored == count);
    let (mut stored, mut last) = (None, None);
    for part in parts {
        let expected = after(model, group, part);
        if expected.records == found.records && expected.position == found.position {
            match expected.compare_history(loaded) {
                Ok(()) => stored = Some(part),
                Err(mismatch) => last = Some(mismatch),
            }
        }
    }
    match (stored, last) {
        (Some(stored), _) => return Ok(stored > 0),
        (None, Some(mismatch)) => return Err(as_kill(mismatch)),
        (None, None) => {}
    }
    // The group that was under way says nothing about the other records.
    let mut others = model.clone();
    for change in &group.changes {
        match found.records.get(change.id()) {
            Some(record) => others.records.insert(record.id.clone(), record.clone()),
            None => others.records.remove(change.id()),
        };
    }
    others.compare_records(loaded).map_err(as_kill)?;
    let part = if is_whole { "all of" } else { "a first part of" };
    let expected = format!("{part} {}, or nothing, and the position that fits it", group_of(&group.changes));
    let (there, absent): (Vec<_>, Vec<_>) = group.changes.iter().partition(|change| is_stored(change, &found));
    let list = |changes: Vec<&Change>| match changes.len() {
        0 => "nothing".to_string(),
        _ => changes.into_iter().map(shown).collect::<Vec<_>>().join(", "),
    };
    let (revision, before) = (found.position.revision, model.position.revision);
    let got = format!(
        "stored: {}; not stored: {}; the position is {revision}, and {before} was acknowledged",
        list(there),
        list(absent)
    );
    Err(Mismatch::new(Rule::Kill, expected, got))
}

/// What a store must be after the first `part` changes of a group that it has not acknowledged.
fn after(before: &Model, group: &Group, part: usize) -> Model {
    let mut after = before.clone();
    for change in &group.changes[..part] {
        after.make(change);
        after.position.revision = revision_of(change).unwrap_or(after.position.revision);
    }
    if part == group.changes.len() {
        after.position = group.position.clone();
    }
    after
}

fn shown(change: &Change) -> String {
    match revision_of(change) {
        Some(revision) => format!("{} at {revision}", describe(change)),
        None => describe(change),
    }
}

fn is_stored(change: &Change, found: &Model) -> bool {
    let record = found.records.get(change.id());
    match change {
        Change::Put(put) => record == Some(&put.record),
        Change::Remove(_) => record.is_none(),
        Change::Renew(renew) => record.is_some_and(|record| record.last_heartbeat_ms == renew.last_heartbeat_ms),
        _ => false,
    }
}
