//! A host that is killed while it restores a backup: it has all of before, or all of the backup, in another epoch.

use std::process::Stdio;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::harness::{Host, register, registry};
use crate::running::faulty;
use crate::{SQLITE, run, services};

const ROUNDS: u64 = 12;

#[test]
fn a_host_that_is_killed_while_it_restores_has_all_of_before_or_all_of_the_backup() {
    let mut rng = StdRng::seed_from_u64(11);
    let (mut old, mut new, mut completed) = (0, 0, 0);
    for round in 0..ROUNDS {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        // Each group takes a while, so that any of them is met.
        std::fs::write(directory.join("control"), "none").unwrap();
        let host = Host::start(directory, &faulty());
        let mut client = host.client();
        let mut add = |ids: std::ops::Range<u64>, service_type: &str| {
            for number in ids.clone() {
                client.send(&[b"", register(&format!("s{number}"), service_type, 600.0).to_string().as_bytes()]);
            }
            ids.for_each(|_| drop(client.receive()));
        };
        add(0..1100, "web");
        assert!(run(directory, &host, &["backup", "all.jsonl"]).status.success());
        let backup = services(&host);
        add(50..2200, "cam");
        let before = services(&host);
        let epoch = client.call(json!({"action": "info"}))["epoch"].clone();
        std::fs::write(directory.join("control"), "slow 40").unwrap();
        let connect = format!("127.0.0.1:{}", host.requests);
        let mut restore = registry(directory);
        let restore = restore.args(["restore", "all.jsonl", "--replace", "--connect", &connect]);
        let mut restore = restore.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        host.wait_for_log("is being restored");
        // From the first group to the last, evenly, and within each by chance.
        std::thread::sleep(Duration::from_millis(45 * round + rng.random_range(0..45)));
        host.kill();
        restore.kill().ok();
        restore.wait().unwrap();
        let host = Host::start(directory, SQLITE);
        completed += usize::from(host.log().contains("that is completed now"));
        let found = services(&host);
        let has_gone_on = host.client().call(json!({"action": "info"}))["epoch"] == epoch;
        match has_gone_on {
            true => assert!(found == before, "round {round}: {} services", found.len()),
            false => assert!(found == backup, "round {round}: {} services", found.len()),
        }
        *(if has_gone_on { &mut old } else { &mut new }) += 1;
        // And so it stays, with nothing left behind.
        let position = host.client().call(json!({"action": "info"}))["epoch"].clone();
        host.kill();
        let host = Host::start(directory, SQLITE);
        assert!(services(&host) == found && host.client().call(json!({"action": "info"}))["epoch"] == position);
        host.stop();
        let database = rusqlite::Connection::open(directory.join("service_registry.db")).unwrap();
        let left = "SELECT count(*) FROM services WHERE id LIKE 'registry:%'";
        assert_eq!(database.query_row(left, [], |row| row.get::<_, i64>(0)), Ok(0));
    }
    println!(
        "all of before {old} times, all of the backup {new} times, {completed} of them completed by the next host"
    );
    assert!(old > 0 && new > 0 && completed > 0, "each is met: {old}, {new}, {completed}");
}
