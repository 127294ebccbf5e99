//! Swaps under load: clients change, read and follow services all the time, and afterwards everything has to add up.

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Client, Host, plugin_dir, register};
use crate::{run, text};

/// How many swaps a plain `cargo test` makes, and one more; `SWAPS` says otherwise.
const SWAPS: usize = 8;
const WRITERS: usize = 3;
/// Changes of one writer a second: what SQLite takes here is many times that.
const PAUSE: Duration = Duration::from_millis(1);
/// How many services are there from the beginning: so many that a copy takes a while.
const SERVICES: usize = 5000;

/// What a writer knows of its own services: the ids that are there, and what is not known.
#[derive(Default)]
struct Known {
    there: BTreeMap<String, bool>,
    changes: usize,
    refused: usize,
}

fn write(mut client: Client, writer: usize, done: &AtomicBool) -> Known {
    let mut rng = StdRng::seed_from_u64(writer as u64);
    let mut known = Known::default();
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
        std::thread::sleep(PAUSE);
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
    let (mut services, mut count) = (BTreeMap::new(), 0);
    let list = client.call(json!({"action": "list"}));
    let (epoch, mut after) = (list["epoch"].clone(), list["revision"].clone());
    for service in list["services"].as_array().unwrap() {
        services.insert(service["id"].as_str().unwrap().to_string(), service["generation"].clone());
    }
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

/// All services, each with its generation.
fn listed(host: &Host) -> BTreeMap<String, Value> {
    let list = host.client().call(json!({"action": "list"}));
    let services = list["services"].as_array().expect("a list").iter();
    services.map(|service| (service["id"].as_str().unwrap().to_string(), service["generation"].clone())).collect()
}

#[test]
fn swaps_under_load_lose_nothing_and_nobody_notices() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let swaps = std::env::var("SWAPS").map_or(SWAPS, |swaps| swaps.parse().expect("SWAPS is a number"));
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
    let (done, stopped) = (AtomicBool::new(false), AtomicBool::new(false));
    let held = Mutex::new(Vec::new());
    let mut subscriber = host.subscriber();
    let (follower, reader) = (host.client(), host.client());
    std::thread::scope(|scope| {
        let following = scope.spawn(|| follow(follower, &stopped));
        let reading = scope.spawn(|| read(reader, &done));
        let (done, host) = (&done, &host);
        let writing: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(host.client(), writer, done))).collect();
        // The last one is read again afterwards, by another host.
        for name in ["sqlite", "redb", "memory"].into_iter().cycle().take(swaps).chain(["sqlite"]) {
            let swap = || run(directory, host, &["swap", "--json", "--to", &format!("{name}.toml")]);
            // A disk that takes long for a while is waited for.
            let tries = (0..5).map(|_| swap());
            let is_too_slow = |moved: &Output| text(&moved.stderr).contains("takes too long");
            let moved = tries.into_iter().find(|moved| !is_too_slow(moved)).unwrap_or_else(swap);
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
        let (mut events, mut last) = (0, None);
        while let Some((_, event)) = subscriber.next_within(Duration::from_millis(500)) {
            if let Some(last) = &last {
                assert_eq!(event["previous"], *last, "a gap before {event}");
            }
            last = Some(event["revision"].clone());
            events += 1;
        }
        assert_eq!(events, changes);
        let p99 = took[took.len() * 99 / 100];
        let held = held.lock().unwrap();
        let refused: usize = known.iter().map(|known| known.refused).sum();
        println!(
            "{swaps} swaps, {changes} changes, {refused} refused, {} reads, p99 {:.1} ms, slowest {:.1} ms, changes held for \
             {} ms at most",
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
