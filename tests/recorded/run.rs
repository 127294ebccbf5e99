//! One run: a host that everything happens to, clients that do not care, and the history of both.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use registry_host::plugin::{Plugin, find};
use registry_host::store;
use serde_json::{Map, json};

use crate::clients::{self, Around, Habits, Kind, one_of};
use crate::database::NAME;
use crate::followers;
use crate::harness::plugin_dir;
use crate::history::{History, Rules, What};
use crate::host::{Launch, faketime, set_wall};
use crate::library::{self, Gate, Told};
use crate::python;
use crate::reached::Reached;
use crate::recorder::Recorder;
use crate::small_disk::SmallDisk;
use crate::stage::Stage;
use crate::subscribers::{self, Heard};

/// How long what a host has sent may be on its way to somebody who writes it down, on a machine that is busy.
pub(crate) const APART_MS: u64 = 1500;
const SLACK_MS: u64 = 3500;
/// The disk that gets full, in kilobytes.
const DISK_KB: u64 = 8192;

/// What a run has come to.
pub(crate) struct Outcome {
    pub(crate) history: History,
    pub(crate) reached: Reached,
    /// What went wrong beside the history.
    pub(crate) problem: Option<String>,
}

/// Something that is wrong from the start, for tests of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Nothing is.
    No,
    /// The store does this to every group.
    Store(&'static str),
}

/// Where the database lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the disk, by the plugin that is shipped.
    Disk,
    /// Behind a plugin that fails.
    Faulty,
    /// On a small disk of its own, by the plugin that is shipped.
    SmallDisk,
}

/// Ends all clients, whatever happens.
struct EndOnDrop<'a>(&'a Around);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
        self.0.set_door(None);
    }
}

/// Runs one seed for about so long.
pub(crate) fn run(seed: u64, time: Duration, broken: Broken) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().expect("there is room for a database");
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("the directory can be written");
    let mut place = one_of(&mut rng, &[Place::Disk, Place::Faulty, Place::Faulty, Place::SmallDisk]);
    if let Broken::Store(_) = broken {
        place = Place::Faulty;
    }
    let small_disk = (place == Place::SmallDisk).then(|| SmallDisk::mount(&data, DISK_KB)).flatten();
    let mut reached = Reached::default();
    if place == Place::SmallDisk && small_disk.is_none() {
        place = Place::Disk;
        reached.note("disk: none can be mounted");
    }
    let wall = faketime().filter(|_| rng.random_bool(0.35)).map(|library| (library, directory.path().join("wall")));
    if let Some((_, time)) = &wall {
        set_wall(time, 0);
    }
    let habits = Habits {
        ids: rng.random_range(2..12),
        ttls: one_of(&mut rng, &[&[1000, 2000, 30_000][..], &[1000, 3000], &[30_000], &[600, 10_000]]),
        pause_ms: one_of(&mut rng, &[2, 10, 40]),
        singletons: one_of(&mut rng, &[5, 30]),
        bulk: one_of(&mut rng, &[0, 0, 3000]),
    };
    let (sweep_ms, enforce_unique) = (one_of(&mut rng, &[300, 1000, 3000]), rng.random_bool(0.25));
    let rules = Rules {
        reply_timeout_ms: 400,
        sweep_ms,
        waiting_max: 10_000,
        enforce_unique,
        has_keys: false,
        admins: Default::default(),
        slack_ms: SLACK_MS,
        sees_store: false,
        apart_ms: APART_MS,
        history_changes: 100_000,
        mass_expiry_share: 0.2,
        mass_expiry_hold_ms: 30_000,
    };
    let control = directory.path().join("control");
    let path = data.join(NAME);
    let backend = match place {
        Place::Disk | Place::SmallDisk => {
            format!("plugin = \"sqlite\"\nreply_timeout = 0.4\n[backend.options]\npath = {path:?}\n")
        }
        Place::Faulty => format!(
            "plugin = \"faulty\"\nreply_timeout = 0.4\n[backend.options]\npath = {path:?}\nlibrary = {:?}\ncontrol = {control:?}\n",
            find("sqlite", Some(&plugin_dir())).expect("cargo has built it"),
        ),
    };
    let event_queue_bytes = one_of(&mut rng, &[262_144, 4_194_304]);
    let config = format!(
        "[server]\ncleanup_interval = {}\nenforce_unique_service_types = {enforce_unique}\n\
         [limits]\nevent_queue_bytes = {event_queue_bytes}\n[backend]\n{backend}",
        sweep_ms as f64 / 1000.0
    );
    begin(&path);
    let recorder = Arc::new(Recorder::new(rules));
    recorder.note(What::Note(format!("seed {seed}: {place:?}, {habits:?}, wall clock {}", wall.is_some())));
    let around = Around::new(recorder.clone(), habits);
    let launch = Launch { directory: directory.path().to_path_buf(), config, wall };
    let python = one_of(&mut rng, &["plain", "cgse", "none"]);
    let seeds: Vec<u64> = (0..12).map(|_| rng.random()).collect();
    let mut stage = Stage {
        launch,
        data,
        control,
        place,
        around: &around,
        rng,
        reached,
        host: None,
        life: 0,
        wall_seconds: 0,
        deck: Vec::new(),
    };
    let heard: [Mutex<Heard>; 2] = Default::default();
    let told = Mutex::<Told>::default();
    let gate = Gate::open().expect("there are ports");
    let closed = AtomicBool::new(false);
    let problem = std::thread::scope(|scope| {
        let end = EndOnDrop(&around);
        let kinds = [Kind::Plain, Kind::Plain, Kind::Eager, Kind::Eager, Kind::Keeper];
        for (number, (kind, seed)) in kinds.into_iter().zip(&seeds).enumerate() {
            let around = &around;
            scope.spawn(move || clients::run(around, kind, number, *seed));
        }
        for (number, seed) in seeds[5..9].iter().enumerate() {
            let around = &around;
            scope.spawn(move || followers::run(around, number < 2, *seed));
        }
        let (around_all, told, gate, is_closed) = (&around, &told, &gate, || closed.load(Ordering::Relaxed));
        scope.spawn(move || gate.run(around_all, is_closed));
        scope.spawn(move || library::run(around_all, gate.port, told, is_closed));
        if python != "none" {
            let (around, seed) = (&around, seeds[11]);
            scope.spawn(move || python::run(around, python, seed));
        }
        for (heard, seed) in heard.iter().zip(&seeds[9..11]) {
            let around = &around;
            scope.spawn(move || subscribers::listen(around, *seed, heard));
        }
        let problem = stage.play(time, broken);
        closed.store(true, Ordering::Relaxed);
        drop(end);
        problem.err()
    });
    let mut reached = stage.reached;
    reached.add(&around.reached.lock().expect("no thread panics with it"));
    let found = around.problems.lock().expect("no thread panics with it").first().cloned();
    let problem = problem.or(found);
    drop(around);
    let history = Arc::into_inner(recorder).map(Recorder::into_history);
    let history = history.expect("everybody has ended");
    drop(small_disk);
    let problem = problem.or(library::judge(&history, &told.into_inner().expect("no thread panics with it")).err());
    finish(history, reached, problem, &heard)
}

/// Judges what the history does not show, and counts what was reached.
fn finish(history: History, mut reached: Reached, mut problem: Option<String>, heard: &[Mutex<Heard>]) -> Outcome {
    for heard in heard {
        match subscribers::judge(&history, &heard.lock().expect("no thread panics with it")) {
            Ok(listened) => {
                reached.count("subscriber: named a gap", listened.gaps);
                reached.count("subscriber: events", listened.events);
            }
            Err(text) => problem = problem.or(Some(format!("a subscriber could not know: {text}"))),
        }
    }
    for entry in &history.entries {
        match &entry.what {
            What::Asked { .. } => reached.note("calls"),
            What::Answered { reply, .. } => {
                reached.note("answers");
                if let Some(code) = reply["code"].as_str() {
                    reached.note(&format!("answer: {code}"));
                }
            }
            What::Announced { event: Ok(event), .. } => {
                reached.note("events");
                reached.note(match event.kind {
                    crate::history::Kind::Registered => "event: register",
                    crate::history::Kind::Deregistered => "event: deregister",
                    crate::history::Kind::Expired => "event: expire",
                });
            }
            What::HeldUp { .. } => reached.note("host: noticed that it was held up"),
            _ => {}
        }
    }
    Outcome { history, reached, problem }
}

/// Makes a database with an epoch and nothing in it.
fn begin(path: &Path) {
    let plugin = find("sqlite", Some(&plugin_dir())).expect("cargo has built it");
    let plugin = Plugin::load(plugin).expect("it is a plugin");
    let options = Map::from_iter([("path".to_string(), json!(path))]);
    tokio::runtime::Builder::new_current_thread().build().expect("there is a runtime").block_on(async {
        let (backend, _) = store::open(&plugin, options).await.expect("a new database can be opened");
        backend.close().await.expect("it can be closed");
    });
}
