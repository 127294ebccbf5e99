//! The conformance kit: tells the author of a storage plugin whether it does what the contract says, and no more than
//! the contract says.
//!
//! The plugin is loaded as the host loads it, and its calls are made from one thread, as the host makes them. Random
//! histories of commits, loads and restarts are compared with a [model](self) of the contract after each step; what
//! random histories seldom meet (odd text, many records, a dropped call, a kill in mid-commit, a second opener) is
//! tried on purpose. Each [`Rule`] is one line of the [`Report`]. A history that breaks a rule is made as short as it
//! gets, and its seed repeats it.

mod basics;
mod dropped;
mod exclusive;
mod history;
mod kill;
mod lane;
mod model;
mod random;
mod recent;
mod report;
mod rules;
mod site;
mod tally;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::log::counted;
use crate::plugin::Plugin;

pub use history::{Step, generate};
pub use kill::{ChildTask, work_as_child};
pub use report::{Failure, Line, Report, Verdict};
pub use rules::Rule;

use lane::Mismatch;
use site::Site;
use tally::{Finding, Seen, Tally};

/// How many random histories are enough as a rule.
pub const DEFAULT_HISTORIES: usize = 20;
/// How many steps a random history has as a rule.
pub const DEFAULT_STEPS: usize = 30;
/// How many records the largest store has as a rule.
pub const DEFAULT_RECORDS: usize = 100_000;
/// How often a process is killed as a rule.
pub const DEFAULT_KILLS: usize = 20;

/// How long a call that is over its time is watched before its thread is given up as blocked.
const GRACE: Duration = Duration::from_secs(1);

/// What to check, and how much of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store's options. `{dir}` in a text is a fresh directory for each store.
    pub options: Map<String, Value>,
    /// What the random histories are made from.
    pub seed: u64,
    /// How many random histories are played.
    pub histories: usize,
    /// How many steps each has.
    pub steps: usize,
    /// How many records the largest store has.
    pub records: usize,
    /// How long the largest store is filled at most, with however many records; `None` for no limit.
    pub filling_limit: Option<Duration>,
    /// How often a process that commits is killed.
    pub kills: usize,
    /// How long a call may take.
    pub timeout: Duration,
    /// The program `registry`, which is run as the process that is killed.
    pub program: PathBuf,
    /// An empty directory for the stores. The caller removes it.
    pub directory: PathBuf,
}

/// How a check gets on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// It begins: what is checked, in some lines of text.
    Begun(&'a str),
    /// The check of that rule begins.
    Trying(Rule),
    /// What is known about a rule now. In the order of the table, but a rule that a later check sees broken comes
    /// again.
    Known(&'a Line),
}

/// Why a plugin could not be checked: in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoCheck {
    /// The options are not ones that the plugin takes, or do not say where a new store is to be.
    Options(String),
    /// A new store cannot be opened.
    Open(String),
}

/// One check: the rule that it is about, what it does, and how it is made.
type Check = (Rule, &'static str, fn(&Site, &Settings) -> Seen);

/// Makes a check of one rule from what it returns.
macro_rules! check {
    ($rule:expr, $during:literal, $check:path) => {
        ($rule, $during, |site, settings| match $check(site, settings) {
            Ok(tried) => Seen { tried: vec![($rule, tried)], broken: Vec::new() },
            Err(finding) => Seen { tried: Vec::new(), broken: vec![finding] },
        })
    };
}

/// In the order in which they are made. The first is whether a store can be opened at all.
const CHECKS: [Check; 13] = [
    check!(Rule::Options, "opening a new store with right and with wrong options", basics::options),
    check!(Rule::Runtime, "one call of each kind", basics::runtime),
    (Rule::Contents, "a random history on a new store", histories),
    check!(Rule::Pages, "filling a new store and loading it", basics::pages),
    check!(Rule::Text, "storing, renewing and removing odd and long records", basics::text),
    check!(Rule::History, "keeping and forgetting recent changes", recent::history),
    check!(Rule::Close, "closing a store and opening it again, several times", basics::close),
    check!(Rule::Exclusive, "opening a store that is open", exclusive::exclusive),
    check!(Rule::Cancellation, "dropping commits that wait", dropped::cancellation),
    check!(Rule::Kill, "killing a process that commits", kill::kill),
    check!(Rule::Unknown, "committing a change of an unknown kind", basics::unknown),
    check!(Rule::Discover, "discovering services of a type", basics::discover),
    check!(Rule::Secrets, "everything that fails", basics::secrets),
];

/// The rules that are known when the check of `rule` has been made: they follow each other in the table.
fn decided_by(rule: &Rule) -> &[Rule] {
    match rule {
        Rule::Contents => &[Rule::Outcomes, Rule::Contents, Rule::Position, Rule::Reopen],
        _ => std::slice::from_ref(rule),
    }
}

/// The random histories: several rules at once.
fn histories(site: &Site, settings: &Settings) -> Seen {
    let (totals, broken) = history::check(site, settings.seed, settings.histories, settings.steps);
    let history::Totals { histories, commits, changes, reopened } = totals;
    let changes = format!("{} in {}", counted(changes, "change", "changes"), counted(commits, "group", "groups"));
    let steps = counted(settings.steps, "step", "steps");
    let tried = vec![
        (Rule::Outcomes, changes.clone()),
        (Rule::Contents, format!("{} of {steps}, compared after each", counted(histories, "history", "histories"))),
        (Rule::Position, changes),
        (Rule::Reopen, counted(reopened, "time", "times")),
    ];
    let finding = |(steps, mismatch): (Vec<Step>, Mismatch)| Finding {
        history: steps.iter().map(ToString::to_string).collect(),
        ..mismatch.into()
    };
    Seen { tried, broken: broken.into_iter().map(finding).collect() }
}

/// Checks a plugin, and tells `progress` of each rule as soon as its check is over.
///
/// # Errors
/// Why nothing could be checked.
pub fn run(plugin: Plugin, settings: &Settings, mut progress: impl FnMut(Progress)) -> Result<Report, NoCheck> {
    let began = Instant::now();
    let info = plugin.info().clone();
    let path = plugin.path().to_path_buf();
    let site = Arc::new(Site::new(plugin, settings).map_err(NoCheck::Options)?);
    if let Some(refusal) = refuses_to_open(&site, settings) {
        return Err(NoCheck::Open(refusal));
    }
    progress(Progress::Begun(&report::head(&info, site.claimed(), &path, settings.seed)));
    let mut tally = Tally::new(site.claimed(), settings);
    let mut held_up_by = Vec::new();
    for (number, (rule, during, check)) in CHECKS.iter().enumerate() {
        let decides = decided_by(rule);
        // After two checks that were held up by a call that does not return, the others would be as well.
        if let [_, .., last] = held_up_by[..] {
            tally.spoil(decides, last);
        } else if tally.is_worthwhile(*rule, decides) {
            progress(Progress::Trying(*rule));
            let check_began = Instant::now();
            let seen = watch_over(&site, settings, *rule, *check);
            if check_began.elapsed() >= settings.timeout {
                held_up_by.extend(seen.broken.first().map(|finding| finding.rule));
            }
            let is_told = |rule: &Rule| CHECKS[..number].iter().any(|(before, ..)| decided_by(before).contains(rule));
            let news = tally.take(seen, during, decides);
            news.iter().filter(|rule| is_told(rule)).for_each(|rule| progress(Progress::Known(&tally.line(*rule))));
        }
        decides.iter().for_each(|rule| progress(Progress::Known(&tally.line(*rule))));
    }
    let lines = Rule::ALL.map(|rule| tally.line(rule));
    let (claimed, settings) = (site.claimed(), settings.clone());
    let left = site.outside();
    Ok(Report { info, claimed, path, settings, lines: lines.into(), left, took: began.elapsed() })
}

/// Why a new store cannot be opened, if it cannot. One whose `open` never returns is left to the first check.
fn refuses_to_open(site: &Arc<Site>, settings: &Settings) -> Option<String> {
    let (sender, opened) = channel();
    let opener = Arc::clone(site);
    let open = move || {
        let refusal = match opener.open(&opener.place()) {
            Ok(store) => {
                let _ = store.close();
                None
            }
            Err(trouble) => trouble.error.map(|error| error.message().to_string()),
        };
        // Nobody waits any more if it took too long.
        let _ = sender.send(refusal);
    };
    thread::Builder::new().name("store".to_string()).spawn(open).ok()?;
    opened.recv_timeout(settings.timeout + GRACE).ok().flatten()
}

/// Makes a check on a thread of its own, which is given up if a call blocks it.
fn watch_over(site: &Arc<Site>, settings: &Settings, rule: Rule, check: fn(&Site, &Settings) -> Seen) -> Seen {
    let (sender, seen) = channel();
    let under_way = site.under_way();
    let (site, its_settings) = (Arc::clone(site), settings.clone());
    let work = move || drop(sender.send(check(&site, &its_settings)));
    let started = thread::Builder::new().name("store".to_string()).spawn(work);
    let failed = |rule: Rule, expected: &str, got: String| Seen {
        tried: Vec::new(),
        broken: vec![Mismatch::new(rule, expected, got).into()],
    };
    match started {
        Ok(_) => wait(&seen, settings.timeout + GRACE, || under_way.get()).unwrap_or_else(|call| {
            let rule = if matches!(call, "close" | "drop") { Rule::Close } else { rule };
            let limit = settings.timeout.as_secs_f64();
            failed(rule, &format!("`{call}` to return"), format!("it has blocked its thread for more than {limit} s"))
        }),
        Err(error) => failed(rule, "a thread to make calls from", error.to_string()),
    }
}

/// Waits for the check's end. The error is the call that blocks it.
fn wait(
    seen: &Receiver<Seen>,
    limit: Duration,
    under_way: impl Fn() -> Option<(&'static str, Duration)>,
) -> Result<Seen, &'static str> {
    loop {
        match seen.recv_timeout(Duration::from_millis(100)) {
            Ok(seen) => return Ok(seen),
            Err(RecvTimeoutError::Disconnected) => return Err("check"),
            Err(RecvTimeoutError::Timeout) => match under_way() {
                Some((call, since)) if since > limit => return Err(call),
                _ => {}
            },
        }
    }
}
