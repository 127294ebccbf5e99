//! Swaps under load: clients change, read and follow services all the time, and afterwards everything has to add up.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Client, Host, Subscriber, plugin_dir, register};
use crate::{run, text};

/// How many swaps a plain `cargo test` makes, and one more if that does not end with SQLite; `SWAPS` says otherwise. Then
/// there are many writers, and they change as much as half of what SQLite takes here: see `bench/swaps`.
const SWAPS: usize = 8;
const WRITERS: usize = 3;
const MANY_WRITERS: usize = 32;
/// How often a writer changes something: what SQLite takes here is many times that.
const PAUSE: Duration = Duration::from_millis(1);
/// How long it is measured what SQLite takes.
const MEASURED: Duration = Duration::from_secs(5);
/// How many services are there from the beginning: so many that a copy takes a while.
const SERVICES: usize = 5000;

/// What a writer knows of its own services: the ids that are there, and what is not known.
#[derive(Default)]
struct Known {
    there: BTreeMap<String, bool>,
    changes: usize,
    refused: usize,
}

fn write(mut client: Client, writer: usize, pause: Duration, done: &AtomicBool) -> Known {
    let mut rng = StdRng::seed_from_u64(writer as u64);
    let mut known = Known::default();
    let mut next = Instant::now();
    while !done.load(Ordering::Relaxed) {
        let id = format!("w{writer}-{}", rng.random_range(0..200));
        let (request, there) = match rng.random_bool(0.7) {
            true => (register(&id, ["web", "mail"][writer % 2], 600.0), true),
            false => (json!({"action": "deregister", "service_id": id}), false),
        };
        let reply = client.call(request);
        match (&reply["success"], reply["code"].as_str()) {
            (Value::Bool(true), _) => {
                known.changes += 1;
                known.there.insert(id, there);
            }
            (_, Some("not_found" | "deregistered")) => drop(known.there.insert(id, false)),
            // Nothing has been changed.
            (_, Some("backend_unavailable")) => known.refused += 1,
            _ => panic!("{reply}"),
        }
        next = (next + pause).max(Instant::now() - pause);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    known
}

/// How long each of its reads took.
fn read(mut client: Client, done: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        let reply = client.call(json!({"action": "discover", "service_type": "web"}));
        took.push(began.elapsed());
        assert!(reply["success"] == true || reply["code"] == "none_healthy", "{reply}");
        std::thread::sleep(Duration::from_millis(1));
    }
    took.sort_unstable();
    took
}

/// Follows all changes by watches, until one after `done` brings none: the services as they are told, and how many
/// changes there were.
fn follow(mut client: Client, done: &AtomicBool) -> (BTreeMap<String, Value>, usize) {
    let list = client.call(json!({"action": "list"}));
    let (mut services, mut count) = (generations(&list), 0);
    let (epoch, mut after) = (list["epoch"].clone(), list["revision"].clone());
    loop {
        let is_last = done.load(Ordering::Relaxed);
        let reply = client.call(json!({"action": "watch", "epoch": epoch, "after": after, "wait": 0.2}));
        assert_eq!(reply["success"], true, "{reply}");
        assert_eq!(reply["epoch"], epoch);
        let changes = reply["changes"].as_array().unwrap();
        for change in changes {
            assert!(change["revision"].as_u64() > after.as_u64(), "told twice: {change}");
            after = change["revision"].clone();
            count += 1;
            let id = change["data"]["service_id"].as_str().unwrap().to_string();
            match change["type"].as_str() {
                Some("register") => drop(services.insert(id, change["data"]["service_info"]["generation"].clone())),
                _ => assert!(services.remove(&id).is_some(), "{change}"),
            }
        }
        after = reply["revision"].clone();
        if is_last && changes.is_empty() {
            return (services, count);
        }
    }
}

/// Follows all changes by events, until none comes after `done`: the services as they are told, and how many events there
/// were. There is no gap.
fn listen(mut subscriber: Subscriber, list: Value, done: &AtomicBool) -> (BTreeMap<String, Value>, usize) {
    let (mut services, mut count, mut last) = (generations(&list), 0, list["revision"].clone());
    loop {
        let is_last = done.load(Ordering::Relaxed);
        let Some((_, event)) = subscriber.next_within(Duration::from_millis(500)) else {
            if is_last {
                return (services, count);
            }
            continue;
        };
        assert!(event["previous"].as_u64() <= last.as_u64(), "a gap after {last}, before {event}");
        assert_eq!(event["epoch"], list["epoch"]);
        last = event["revision"].clone();
        count += 1;
        let id = event["data"]["service_id"].as_str().unwrap().to_string();
        match event["type"].as_str() {
            Some("register") => drop(services.insert(id, event["data"]["service_info"]["generation"].clone())),
            _ => assert!(services.remove(&id).is_some(), "{event}"),
        }
    }
}

/// How many changes a second the store in charge takes at most.
fn saturated(host: &Host) -> f64 {
    let done = AtomicBool::new(false);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let done = &done;
        let writing: Vec<_> = (0..MANY_WRITERS)
            .map(|writer| scope.spawn(move || write(host.client(), writer, Duration::ZERO, done)))
            .collect();
        std::thread::sleep(MEASURED);
        done.store(true, Ordering::Relaxed);
        let changes: usize = writing.into_iter().map(|writer| writer.join().unwrap().changes).sum();
        changes as f64 / began.elapsed().as_secs_f64()
    })
}

/// All services, each with its generation.
fn listed(host: &Host) -> BTreeMap<String, Value> {
    generations(&host.client().call(json!({"action": "list"})))
}

fn generations(list: &Value) -> BTreeMap<String, Value> {
    let services = list["services"].as_array().expect("a list").iter();
    services.map(|service| (service["id"].as_str().unwrap().to_string(), service["generation"].clone())).collect()
}

#[test]
fn swaps_under_load_lose_nothing_and_nobody_notices() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let wanted = std::env::var("SWAPS").ok();
    let swaps = wanted.as_ref().map_or(SWAPS, |swaps| swaps.parse().expect("SWAPS is a number"));
    let host =
        Host::start(directory, "[server]\nallow_swap = true\n[backend]\nplugin = \"memory\"\nreply_timeout = 0.4\n");
    let redb = plugin_dir().join("libregistry_redb.so");
    for (name, backend) in [
        ("sqlite", "plugin = \"sqlite\"".to_string()),
        ("redb", format!("plugin = {redb:?}")),
        ("memory", "plugin = \"memory\"".to_string()),
    ] {
        std::fs::write(directory.join(format!("{name}.toml")), format!("[backend]\n{backend}\n")).unwrap();
    }
    let mut client = host.client();
    for number in 0..SERVICES {
        client.send(&[b"", register(&format!("s{number}"), "cam", 600.0).to_string().as_bytes()]);
    }
    (0..SERVICES).for_each(|_| drop(client.receive()));
    let swap = |name: &str| {
        let swap = || run(directory, &host, &["swap", "--json", "--to", &format!("{name}.toml")]);
        // A disk that takes long for a while is waited for.
        let is_too_slow = |moved: &Output| text(&moved.stderr).contains("takes too long");
        (0..5).map(|_| swap()).find(|moved| !is_too_slow(moved)).unwrap_or_else(swap)
    };
    let (mut writers, mut pause) = (WRITERS, PAUSE);
    if wanted.is_some() {
        assert!(swap("sqlite").status.success());
        let most = saturated(&host);
        assert!(swap("memory").status.success());
        writers = MANY_WRITERS;
        pause = Duration::from_secs_f64(2.0 * MANY_WRITERS as f64 / most);
        println!("SQLite takes {most:.0} changes a second here; half of that are made from now on");
    }
    let began = Instant::now();
    let (done, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    let held = Mutex::new(Vec::new());
    let subscriber = host.subscriber();
    let list = client.call(json!({"action": "list"}));
    let (follower, reader) = (host.client(), host.client());
    std::thread::scope(|scope| {
        let following = scope.spawn(|| follow(follower, &stopped));
        let listening = scope.spawn(|| listen(subscriber, list, &stopped));
        let reading = scope.spawn(|| read(reader, &done));
        let (done, host) = (&done, &host);
        let writing: Vec<_> =
            (0..writers).map(|writer| scope.spawn(move || write(host.client(), writer, pause, done))).collect();
        // The last one is read again afterwards, by another host.
        let mut names: Vec<_> = ["sqlite", "redb", "memory"].into_iter().cycle().take(swaps).collect();
        names.extend((names.last() != Some(&"sqlite")).then_some("sqlite"));
        for &name in &names {
            let moved = swap(name);
            if !moved.status.success() {
                done.store(true, Ordering::Relaxed);
                stopped.store(true, Ordering::Relaxed);
                panic!("{name}: {moved:?}\n{}", host.log());
            }
            let moved: Value = serde_json::from_slice(&moved.stdout).unwrap();
            assert_eq!(moved["plugin"], name);
            held.lock().unwrap().push(moved["held_ms"].as_u64().unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
        done.store(true, Ordering::Relaxed);
        let seconds = began.elapsed().as_secs_f64();
        let known: Vec<Known> = writing.into_iter().map(|writer| writer.join().unwrap()).collect();
        stopped.store(true, Ordering::Relaxed);
        let (told, count) = following.join().unwrap();
        let took = reading.join().unwrap();

        let listed = listed(host);
        assert_eq!(told, listed, "what a watcher was told is what there is");
        for (id, there) in known.iter().flat_map(|known| &known.there) {
            assert_eq!(listed.contains_key(id), *there, "{id}");
        }
        let changes: usize = known.iter().map(|known| known.changes).sum();
        assert_eq!(count, changes, "each change was told once");
        let (heard, events) = listening.join().unwrap();
        assert_eq!(heard, listed, "what a subscriber was told is what there is");
        assert_eq!(events, changes);
        let p99 = took[took.len() * 99 / 100];
        let held = held.lock().unwrap();
        let refused: usize = known.iter().map(|known| known.refused).sum();
        println!(
            "{} swaps in {seconds:.0} s, {changes} changes ({:.0} a second), {refused} refused, no gap, {} reads, p99 {:.1} ms, \
             slowest {:.1} ms, changes held for {} ms at most",
            names.len(),
            changes as f64 / seconds,
            took.len(),
            p99.as_secs_f64() * 1000.0,
            took[took.len() - 1].as_secs_f64() * 1000.0,
            held.iter().max().unwrap()
        );
        // Whether changes waited longer than reply_timeout is the disk's doing, too.
        assert!(refused <= changes, "{refused} of {changes}");
    });
    let before = listed(&host);
    host.kill();
    let host = Host::start(directory, "[backend]\nplugin = \"sqlite\"\n");
    assert_eq!(listed(&host), before, "what is stored");
}
