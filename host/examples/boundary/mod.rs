//! What it costs to call a storage backend through its library, against the same backend called directly.
//!
//! Both sides get the same changes in the same run, in alternating order, so that whatever else the machine does falls
//! on both. A time is what one change of a group, or one record that is loaded, takes. The library is the one that
//! cargo has built beside this program.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use registry_host::plugin::{OpenBackend, Plugin, find};
use registry_plugin_api::{
    Backend, Change, Cursor, Group, Host, Options, Outcome, Page, Position, Put, Record, Result,
};
use serde_json::{Map, Value, json};

/// How many records are in the store, and loaded.
const RECORDS: usize = 100_000;
const GROUPS: [usize; 3] = [1, 16, 256];

/// How often, and how much.
pub(crate) struct Plan {
    /// What each side does so often.
    pub(crate) rounds: usize,
    /// How many changes of a round are made in groups of each size.
    pub(crate) changes: [usize; 3],
}

/// Measures the backend `B` against the library of that name, and prints a table. `options` makes the options for a
/// store in a directory.
pub(crate) fn run<B: Backend>(name: &str, plan: &Plan, options: fn(&Path) -> Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made");
    let measured = runtime.block_on(measure::<B>(name, plan, options));
    match measured {
        Ok(table) => print!("{table}"),
        Err(error) => {
            eprintln!("boundary: {error}");
            std::process::exit(1);
        }
    }
}

async fn measure<B: Backend>(name: &str, plan: &Plan, options: fn(&Path) -> Value) -> Result<String> {
    let stores = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory can be made"));
    let [direct, through] = stores.each_ref().map(|store| match options(store.path()) {
        Value::Object(options) => options,
        other => panic!("options are an object, not {other}"),
    });
    let direct = Direct(B::open(Options::check(B::OPTIONS, direct)?, Host::for_tests()).await?);
    let library = open_library(name, through).await?;
    let all: Vec<Change> = (0..RECORDS).map(put).collect();
    for group in all.chunks(1000) {
        direct.commit(self::group(group.to_vec())).await?;
        library.commit(self::group(group.to_vec())).await?;
    }

    // For groups of each size and for loading: the times of the direct side and those of the library.
    let mut times: [[Vec<Duration>; 2]; 4] = Default::default();
    for round in 0..plan.rounds {
        for side in [round % 2, 1 - round % 2] {
            for (case, (size, changes)) in GROUPS.into_iter().zip(plan.changes).enumerate() {
                let taken = match side {
                    0 => commits(&direct, size, changes).await?,
                    _ => commits(&library, size, changes).await?,
                };
                times[case][side].push(taken);
            }
            let taken = match side {
                0 => load_all(&direct).await?,
                _ => load_all(&library).await?,
            };
            times[3][side].push(taken);
        }
    }
    direct.0.close().await?;
    library.close().await?;
    Ok(table(name, plan, times))
}

async fn open_library(name: &str, options: Map<String, Value>) -> Result<OpenBackend> {
    let program = std::env::current_exe().expect("a program has a file");
    // Examples are in target/release/examples, and the libraries that they depend on in target/release/deps.
    let directory = program.parent().and_then(Path::parent).expect("it is in a directory of target").join("deps");
    let found = find(name, Some(&directory)).map_err(registry_plugin_api::Error::unavailable)?;
    let plugin = Plugin::load(found).map_err(registry_plugin_api::Error::unavailable)?;
    plugin.open(options).await
}

/// The calls that are measured.
trait Store {
    async fn commit(&self, group: Group) -> Result<Vec<Outcome>>;
    async fn load(&self, after: Cursor) -> Result<Page>;
}

/// Called as any code of the same program.
struct Direct<B>(B);

impl<B: Backend> Store for Direct<B> {
    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        self.0.commit(group).await
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        self.0.load(after).await
    }
}

impl Store for OpenBackend {
    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        OpenBackend::commit(self, group).await
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        OpenBackend::load(self, after).await
    }
}

/// A service as the host stores it.
fn put(number: usize) -> Change {
    let id = format!("service-{number:06}");
    let document = json!({
        "id": id, "name": "temperature sensor", "host": "10.0.0.7", "port": 7000, "type": "Sensor", "protocol": "tcp",
        "tags": ["indoor", "calibrated"], "metadata": {"room": "4.17", "serial": number}, "ttl": 30, "health": "passing",
    });
    let mut record = Record::new(id, document.to_string());
    record.types = vec!["Sensor".to_string(), "indoor".to_string(), "calibrated".to_string()];
    record.ttl_ms = 30_000;
    record.last_heartbeat_ms = 1_700_000_000_000;
    Put::new(record).into()
}

/// A group as the host makes it. Where the store is in its history makes no difference to what is measured.
fn group(changes: Vec<Change>) -> Group {
    Group::new(Position::new("measured", 1), changes)
}

/// Puts that take the place of earlier ones, spread over the store. What is measured is the calls alone.
async fn commits(store: &impl Store, size: usize, changes: usize) -> Result<Duration> {
    let changes: Vec<Change> = (0..changes).map(|number| put(number * 7919 % RECORDS)).collect();
    let groups: Vec<Group> = changes.chunks(size).map(|changes| group(changes.to_vec())).collect();
    let began = Instant::now();
    for group in groups {
        store.commit(group).await?;
    }
    Ok(began.elapsed())
}

async fn load_all(store: &impl Store) -> Result<Duration> {
    let began = Instant::now();
    let mut records = Vec::new();
    let mut next = Some(Cursor::start());
    while let Some(after) = next {
        let page = store.load(after).await?;
        records.extend(page.records);
        next = page.next;
    }
    let taken = began.elapsed();
    assert_eq!(records.len(), RECORDS, "everything is loaded");
    Ok(taken)
}

fn table(name: &str, plan: &Plan, times: [[Vec<Duration>; 2]; 4]) -> String {
    let cases = GROUPS.map(|size| format!("commit, groups of {size}")).into_iter().chain([format!("load {RECORDS}")]);
    let counts = plan.changes.into_iter().chain([RECORDS]);
    let mut text = format!("{name}, {} rounds, µs for a change or record\n", plan.rounds);
    let head = ["", "direct min", "median", "library min", "median", "ratio min", "median"];
    let _ = writeln!(
        text,
        "{:<22}{:>12}{:>9}{:>13}{:>9}{:>11}{:>9}",
        head[0], head[1], head[2], head[3], head[4], head[5], head[6]
    );
    for ((case, count), sides) in cases.zip(counts).zip(times) {
        let [direct, library] = sides.map(|times| summary(times, count));
        let ratios = [library[0] / direct[0], library[1] / direct[1]];
        let _ = writeln!(
            text,
            "{case:<22}{:>12.3}{:>9.3}{:>13.3}{:>9.3}{:>11.2}{:>9.2}",
            direct[0], direct[1], library[0], library[1], ratios[0], ratios[1]
        );
    }
    text
}

/// The least time and the median, in microseconds for each of `count`.
fn summary(mut times: Vec<Duration>, count: usize) -> [f64; 2] {
    times.sort();
    [times[0], times[times.len() / 2]].map(|time| time.as_secs_f64() * 1e6 / count as f64)
}
