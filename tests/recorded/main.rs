//! Proof by recorded histories: clients at random against the real program, and the simulation's checker.
//!
//! Each seed is a [run](run): a host with SQLite, which is killed, suspended and stopped, whose storage fails and whose
//! wall clock is set, while [clients](clients) and [subscribers](subscribers) go on as they can. All of it is [written
//! down](recorder) by one clock, what is stored is [read](database) before each start, and the checker of the
//! simulation judges the history. [Damaged](damage) databases are tried in between.
//!
//! A run cannot be repeated exactly, so its history is kept if something must not have happened: as a file, named with
//! the story. `scripts/torture` runs for as long as one likes.

#[path = "../simulation/checker/mod.rs"]
mod checker;
mod clients;
mod damage;
mod database;
mod followers;
#[path = "../harness/mod.rs"]
mod harness;
// Some of it only a simulation sees.
#[allow(dead_code)]
#[path = "../simulation/history.rs"]
mod history;
mod host;
mod library;
mod python;
mod reached;
mod recorder;
#[path = "../simulation/request.rs"]
mod request;
mod run;
mod small_disk;
mod stage;
#[path = "../simulation/story.rs"]
mod story;
mod subscribers;
mod wire;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use checker::Verdict;
use history::History;
use reached::Reached;
use registry_host::plugin::{Plugin, find};
use registry_host::store;
use registry_plugin_api::{Group, Position, Put, Record};
use run::{Broken, Outcome, run};
use serde_json::{Map, Value, json};
use small_disk::SmallDisk;

/// How many seeds a plain `cargo test` runs, how many at a time, and for how long each.
const SEEDS: u64 = 8;
const AT_ONCE: u64 = 4;
const TIME: Duration = Duration::from_secs(12);
/// How many lines of a story are printed.
const LINES_MAX: usize = 80;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")))
}

/// What is wrong with a run, in the words of a rule and a story.
fn verdict(outcome: &Outcome) -> Option<(String, String)> {
    let history = &outcome.history;
    match (&outcome.problem, checker::judge(history)) {
        (None, None) => None,
        (_, Some(verdict)) => Some((verdict.rule.into(), story::tell(history, &verdict))),
        (Some(text), None) => {
            let rule = "what the history does not show";
            let verdict = Verdict { rule, text: text.clone(), place: history.entries.len() };
            Some((rule.into(), story::tell(history, &verdict)))
        }
    }
}

/// The part of a story that is about what went wrong: the lines that name the same services and calls, and what
/// happened to the host.
fn short(story: &str) -> String {
    let broken = story.lines().skip_while(|line| !line.starts_with("  BROKEN")).collect::<Vec<_>>().join("\n");
    let is_word = |c: char| c.is_alphanumeric() || c == '#' || c == '-';
    let is_name = |word: &&str| word.starts_with(['#', 's', 'k', 'n']) && word.contains(|c: char| c.is_ascii_digit());
    let words: BTreeSet<&str> = broken.split(|c| !is_word(c)).filter(is_name).collect();
    let is_near = |line: &&str| {
        let is_host = ["host 0 is", "host 0 has", "wall clock", "was held up", "in trouble", "goes on", "(log"];
        line.starts_with(['>', ' ']) && line.len() < 400 && is_host.iter().any(|text| line.contains(text))
            || line.split(|c| !is_word(c)).any(|word| words.contains(word))
            || line.starts_with("> ")
    };
    let cut = |line: &str| line.chars().take(300).collect::<String>();
    let lines: Vec<String> = story.lines().filter(is_near).map(cut).collect();
    lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
}

/// Keeps the history of a run: as it is told, and all of it.
fn keep(seed: u64, story: &str, history: &History) -> PathBuf {
    let directory = harness::workspace().join("target/recorded");
    std::fs::create_dir_all(&directory).expect("target can be written");
    let file = directory.join(format!("seed-{seed}.txt"));
    let entries = history.entries.iter().map(|entry| format!("{:>8} {:?}\n", entry.at_ms, entry.what));
    std::fs::write(&file, format!("{story}\n\n{}", entries.collect::<String>())).expect("target can be written");
    file
}

/// What seeds have come to: kept in a file, so that whoever is interrupted goes on with the next.
#[derive(Default)]
struct State {
    file: Option<PathBuf>,
    /// The first seed that is not done, and those behind it that are.
    next: u64,
    done: BTreeSet<u64>,
    seeds: u64,
    reached: Reached,
    broken: Vec<String>,
}

impl State {
    fn load(file: Option<PathBuf>, first: u64) -> State {
        let mut state = State { next: first, file, ..State::default() };
        let text = state.file.as_deref().and_then(|file| std::fs::read_to_string(file).ok());
        let Some(kept) = text.map(|text| serde_json::from_str::<Value>(&text).expect("the state can be read")) else {
            return state;
        };
        state.next = kept["next"].as_u64().unwrap_or(first);
        state.seeds = kept["seeds"].as_u64().unwrap_or(0);
        state.done = kept["done"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        state.reached = kept["reached"].as_object().map(Reached::from_json).unwrap_or_default();
        let broken = kept["broken"].as_array().into_iter().flatten();
        state.broken = broken.filter_map(|text| text.as_str().map(String::from)).collect();
        state
    }

    /// A seed is done.
    fn finish(&mut self, seed: u64, reached: &Reached, broken: Option<String>) {
        self.seeds += 1;
        self.reached.add(reached);
        self.broken.extend(broken);
        self.done.insert(seed);
        while self.done.remove(&self.next) {
            self.next += 1;
        }
        let Some(file) = &self.file else { return };
        let kept = json!({
            "next": self.next, "done": self.done, "seeds": self.seeds,
            "reached": self.reached.to_json(), "broken": self.broken,
        });
        let next = file.with_extension("next");
        std::fs::write(&next, format!("{kept:#}\n")).expect("the state can be written");
        std::fs::rename(&next, file).expect("the state can be written");
    }
}

/// Runs a seed and says what came of it.
fn one(seed: u64, time: Duration, state: &Mutex<State>) {
    let outcome = run(seed, time, Broken::No);
    let broken = verdict(&outcome).map(|(rule, story)| {
        let file = keep(seed, &story, &outcome.history);
        println!("seed {seed}, all of it in {}:\n{}", file.display(), short(&story));
        format!("seed {seed}: {rule}: {}", file.display())
    });
    state.lock().expect("no thread panics with it").finish(seed, &outcome.reached, broken);
}

#[test]
fn whatever_happens_to_the_real_program_clients_store_and_events_agree() {
    let (seconds, first) = (number("RECORDED_SECONDS"), number("RECORDED_SEED").unwrap_or(1));
    let file = std::env::var_os("RECORDED_STATE").filter(|file| !file.is_empty()).map(PathBuf::from);
    let state = Mutex::new(State::load(file, first));
    let begun = state.lock().expect("nobody else is there").next;
    let began = Instant::now();
    let next = Mutex::new(begun);
    let is_enough = |seed: u64| match seconds {
        Some(seconds) => seed > begun && began.elapsed() >= Duration::from_secs(seconds),
        None => seed >= begun + SEEDS,
    };
    let take = || {
        let mut next = next.lock().expect("no thread panics with it");
        let state = state.lock().expect("no thread panics with it");
        while state.done.contains(&next) {
            *next += 1;
        }
        (!is_enough(*next)).then(|| {
            *next += 1;
            *next - 1
        })
    };
    let at_once = number("RECORDED_AT_ONCE").unwrap_or(if seconds == Some(0) { 1 } else { AT_ONCE });
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(seed) = take() {
                    one(seed, TIME, &state);
                }
            });
        }
    });
    let state = state.into_inner().expect("no thread panics with it");
    println!("{} seeds, the next is {}, {:.0} s", state.seeds, state.next, began.elapsed().as_secs_f64());
    for (kind, count) in &state.reached.counts {
        println!("{count:>9}  {kind}");
    }
    for text in &state.broken {
        println!("  BROKEN: {text}");
    }
    assert!(state.broken.is_empty(), "{} seeds are broken", state.broken.len());
    if state.seeds >= SEEDS {
        assert_eq!(state.reached.missing(), Vec::<&str>::new(), "what was never reached");
        assert!(state.reached.of("host: killed") >= 10, "too few kills");
    }
}

#[test]
fn a_damaged_database_is_refused_or_whole() {
    let tries = if number("RECORDED_SECONDS").is_some() { 400 } else { 30 };
    let mut reached = Reached::default();
    damage::try_many(number("RECORDED_SEED").unwrap_or(1), tries, &mut reached);
    for (kind, count) in &reached.counts {
        println!("{count:>9}  {kind}");
    }
}

/// What the checker says of a store that does not do what it promises.
fn caught(word: &'static str) -> Vec<String> {
    let run = |seed| verdict(&run(seed, Duration::from_secs(4), Broken::Store(word)));
    (100..103).filter_map(run).map(|(rule, _)| rule).collect()
}

#[test]
fn a_store_that_says_yes_too_soon_is_caught() {
    let rules = caught("lie");
    let expected = ["what is stored is what was acknowledged", "what is acknowledged is stored", "revisions grow"];
    assert!(rules.iter().any(|rule| expected.contains(&rule.as_str())), "{rules:?}");
}

#[test]
fn a_store_that_forgets_what_was_told_is_caught() {
    let rules = caught("forget");
    let expected =
        ["the store keeps what was told", "each change is told once and in order", "what the history does not show"];
    assert!(rules.iter().any(|rule| expected.contains(&rule.as_str())), "{rules:?}");
}

#[test]
fn a_disk_that_is_full_of_the_log_is_not_full() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(&directory.path().join("data"), 600) else {
        return println!("NOT RUN: no disk can be mounted");
    };
    let plugin = Plugin::load(find("sqlite", Some(&harness::plugin_dir())).unwrap()).unwrap();
    let options = Map::from_iter([("path".to_string(), json!(directory.path().join("data/store.db")))]);
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        for count in [10, 400] {
            let (backend, contents) = store::open(&plugin, options.clone()).await.unwrap();
            for number in 1..=count {
                let mut record = Record::new(format!("s{}", number % 10), "{}");
                record.revision = contents.position.revision + number;
                let position = Position::new(contents.position.epoch.as_str(), record.revision);
                let committed = backend.commit(Group::new(position, vec![Put::new(record).into()])).await;
                assert!(committed.is_ok(), "{number}: {committed:?}");
            }
            backend.close().await.unwrap();
        }
    });
}
