//! A host that is killed while it moves: at least one of both stores serves, with all that was acknowledged; if both do,
//! they are of different epochs, so that no client takes one for the other.

use std::process::{Command, Stdio};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Host, register, registry};
use crate::{FROM, TO, ids};

const ROUNDS: usize = 12;

/// What a store has when a host is started on it, and its epoch; `None` if the host refuses it.
fn serves(directory: &std::path::Path, config: &str) -> Option<(Vec<String>, Value)> {
    std::fs::write(directory.join("try.toml"), config).unwrap();
    let check = registry(directory).args(["config", "check", "--config", "try.toml"]).output().unwrap();
    let told = format!("{}{}", crate::text(&check.stdout), crate::text(&check.stderr));
    assert!(!told.contains("panicked"), "{told}");
    if !check.status.success() {
        assert!(told.contains("this store is closed") || told.contains("this store is not whole"), "{told}");
        return None;
    }
    let host = Host::start(directory, config);
    let mut client = host.client();
    let found = (ids(&mut client), client.call(json!({"action": "info"}))["epoch"].clone());
    host.kill();
    Some(found)
}

#[test]
fn a_host_that_is_killed_while_it_moves_leaves_a_store_in_charge_that_is_whole() {
    let mut rng = StdRng::seed_from_u64(7);
    let (mut old, mut new, mut both) = (0, 0, 0);
    for round in 0..ROUNDS {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        std::fs::write(directory.join("to.toml"), TO).unwrap();
        let host = Host::start(directory, FROM);
        let mut client = host.client();
        let count = rng.random_range(1..400);
        for number in 0..count {
            client.send(&[b"", register(&format!("s{number:03}"), "web", 600.0).to_string().as_bytes()]);
        }
        (0..count).for_each(|_| drop(client.receive()));
        let connect = format!("127.0.0.1:{}", host.requests);
        let mut swap: Command = registry(directory);
        let swap = swap.args(["swap", "--to", "to.toml", "--connect", &connect]);
        let mut swap = swap.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From the moment at which it has begun to fill the new store until it has moved.
        if round > 0 {
            host.wait_for_log("it is being filled");
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..25_000)));
        host.kill();
        swap.kill().ok();
        swap.wait().unwrap();
        let expected: Vec<String> = (0..count).map(|number| format!("s{number:03}")).collect();
        let (from, to) = (serves(directory, FROM), serves(directory, TO));
        let to = to.filter(|(ids, _)| !ids.is_empty() || from.is_none());
        match (&from, &to) {
            (Some((ids, _)), None) => {
                old += 1;
                assert_eq!(*ids, expected);
            }
            (None, Some((ids, _))) => {
                new += 1;
                assert_eq!(*ids, expected);
            }
            (Some((ids, one)), Some((others, other))) => {
                both += 1;
                assert_eq!((ids, others), (&expected, &expected));
                assert_ne!(one, other);
            }
            (None, None) => panic!("no store is in charge"),
        }
    }
    println!("the old one in charge {old} times, the new one {new} times, either {both} times");
}
