//! The host as a process: the signals that it gets, and what it writes to its log.

mod harness;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use harness::{Client, Host, PATIENCE, eventually, register, registry};
use serde_json::json;

const MEMORY: &str = "[backend]\nplugin = \"memory\"\n";

/// A host whose log a test reads by itself, or does not. It ends with the test.
struct Spawned(Child);

impl Spawned {
    fn serve(directory: &Path) -> (Spawned, impl Iterator<Item = String>) {
        let mut child = registry(directory).arg("serve").stderr(Stdio::piped()).spawn().unwrap();
        let log = child.stderr.take().unwrap();
        (Spawned(child), BufReader::new(log).lines().map(Result::unwrap))
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn host(config: &str) -> (tempfile::TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), config);
    (directory, host)
}

#[test]
fn signals_that_ask_for_nothing_end_nothing() {
    let (_directory, host) = host(MEMORY);
    assert_eq!(host.client().call(register("x", "web", 60.0))["success"], true);
    for (signal, said) in
        [("HUP", "SIGHUP: the configuration is read again"), ("USR1", "SIGUSR1: ignored"), ("USR2", "SIGUSR2: ignored")]
    {
        host.signal(signal);
        host.wait_for_log(said);
        assert_eq!(host.client().call(json!({"action": "get", "service_id": "x"}))["success"], true, "{signal}");
    }
    let (status, log) = host.terminate("TERM");
    assert!(status.success() && log.contains("stopping: SIGTERM received"), "{status}: {log}");
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let config = format!("[server]\nipc_dir = \".\"\nreq_port = 0\npub_port = 0\nheartbeat_port = 0\n{MEMORY}");
    std::fs::write(directory.path().join("registry.toml"), config).unwrap();
    let (mut host, mut log) = Spawned::serve(directory.path());
    assert!(log.any(|line| line.contains("requests on")), "the host starts");
    drop(log);
    // Each of these is a line of the log.
    for id in ["a", "b", "c"] {
        let register = ["register", "n", "h", "1", "--id", id, "--connect", "ipc://requests"];
        let registered = registry(directory.path()).args(register).status().unwrap();
        assert!(registered.success(), "{id}: {:?}", host.0.try_wait());
        std::thread::sleep(Duration::from_millis(1100));
    }
}

/// A collector that hangs is worse than one that is gone: what is written to it waits.
#[test]
fn a_log_whose_reader_hangs_keeps_nobody_waiting() {
    const SERVICES: usize = 2000;
    let directory = tempfile::tempdir().unwrap();
    let server = "[server]\nreq_port = 0\npub_port = 0\nheartbeat_port = 0\n[log]\nlevel = \"debug\"\n";
    std::fs::write(directory.path().join("registry.toml"), format!("{server}{MEMORY}")).unwrap();
    let (_host, mut log) = Spawned::serve(directory.path());
    let line = log.find(|line| line.contains("requests on")).expect("the host starts");
    let endpoint = line.split("requests on tcp://127.0.0.1:").nth(1).unwrap();
    let mut client = Client::connect(endpoint.split(',').next().unwrap().parse().unwrap());
    // Each of these is a line at debug, and a pipe holds some hundred.
    for number in 0..SERVICES {
        let reply = client.call(register(&format!("service-number-{number}"), "web", 60.0));
        assert_eq!(reply["success"], true, "{number}: {reply}");
    }
    // Nothing is lost, and all is in order.
    let registered = log.filter(|line| line.contains("DEBUG") && line.contains("register \"service-number-"));
    for (number, line) in registered.take(SERVICES).enumerate() {
        assert!(line.ends_with(&format!("service-number-{number}\"")), "{number}: {line}");
    }
}

/// A file is written by a thread, which must have written everything when the host ends.
#[test]
fn a_log_in_a_file_is_complete_and_in_order() {
    const SERVICES: usize = 500;
    let directory = tempfile::tempdir().unwrap();
    let server = "[server]\nreq_port = 0\npub_port = 0\nheartbeat_port = 0\n[log]\nlevel = \"debug\"\n";
    std::fs::write(directory.path().join("registry.toml"), format!("{server}{MEMORY}")).unwrap();
    let path = directory.path().join("log");
    let file = std::fs::File::options().create(true).append(true).open(&path).unwrap();
    let mut host = Spawned(registry(directory.path()).arg("serve").stderr(file).spawn().unwrap());
    let log = || std::fs::read_to_string(&path).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !log().contains("heartbeats on") {
        assert!(Instant::now() < deadline, "the host does not start: {}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let log_now = log();
    let endpoint = log_now.split("requests on tcp://127.0.0.1:").nth(1).unwrap();
    let mut client = Client::connect(endpoint.split(',').next().unwrap().parse().unwrap());
    for number in 0..SERVICES {
        let reply = client.call(register(&format!("service-number-{number}"), "web", 60.0));
        assert_eq!(reply["success"], true, "{number}: {reply}");
    }
    let stopped = std::process::Command::new("sh").args(["-c", &format!("kill -TERM {}", host.0.id())]).status();
    assert!(stopped.unwrap().success() && host.0.wait().unwrap().success());
    let log = log();
    assert!(log.lines().last().is_some_and(|line| line.contains("stopped, with 500 services registered")), "{log}");
    let registered = log.lines().filter(|line| line.contains("DEBUG") && line.contains("register \"service-number-"));
    let expected = (0..SERVICES).map(|number| format!("service-number-{number}\""));
    assert!(registered.clone().zip(expected).all(|(line, end)| line.ends_with(&end)), "{log}");
    assert_eq!(registered.count(), SERVICES);
}

/// A client may put anything into an id, and must not write a line of its own by it, nor a long one.
#[test]
fn ids_in_the_log_are_quoted_and_short() {
    let config = format!("[server]\ncleanup_interval = 0.1\n[log]\nlevel = \"debug\"\n{MEMORY}");
    let (_directory, host) = host(&config);
    let mut client = host.client();
    let forged = format!("x\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J{}", "y".repeat(200));
    assert_eq!(client.call(register(&forged, "web", 0.2))["success"], true);
    eventually(&mut client, json!({"action": "list"}), |reply| reply["services"] == json!([]));
    host.wait_for_log("1 service expired: no heartbeat within its ttl (\"x\\n2026");
    let log = host.log();
    assert!(!log.contains('\u{1b}') && log.lines().all(|line| !line.starts_with("2026-01-01")), "{log}");
    let longest = log.lines().map(str::len).max().unwrap();
    assert!(longest < 250, "{longest}: {log}");
}

#[test]
fn many_changes_make_few_lines() {
    const SERVICES: usize = 500;
    let (_directory, host) = host(&format!("[server]\ncleanup_interval = 1.0\nmass_expiry_share = 0\n{MEMORY}"));
    let mut client = host.client();
    for number in 0..SERVICES {
        client.send(&[b"REQ", register(&format!("s{number}"), "web", 0.5).to_string().as_bytes()]);
    }
    (0..SERVICES).for_each(|_| drop(client.receive()));
    eventually(&mut client, json!({"action": "list"}), |reply| reply["services"] == json!([]));
    let line = host.wait_for_log("expired: no heartbeat within");
    assert!(line.contains("INFO") && line.contains("more)"), "{line}");
    let deadline = Instant::now() + PATIENCE;
    let counted = |what: &str| -> usize {
        let log = host.log();
        let numbers = log
            .lines()
            .filter(|line| line.contains(what))
            .filter_map(|line| line.split(what).next()?.split_whitespace().rev().nth(1)?.parse::<usize>().ok());
        numbers.sum()
    };
    for what in [" registered ", " expired: "] {
        while counted(what) < SERVICES {
            assert!(Instant::now() < deadline, "{what}: {}", host.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(counted(what), SERVICES, "{what}: {}", host.log());
    }
    assert!(host.log().lines().count() < 30, "{}", host.log());
}

/// A host that was away for less than what counts as held up finds heartbeats waiting that came in time or a little
/// late: they are read before anybody is removed.
#[test]
fn heartbeats_that_wait_are_read_before_a_clean_up() {
    let (_directory, host) = host(&format!("[server]\ncleanup_interval = 0.05\n{MEMORY}"));
    let mut client = host.client();
    for round in 0..10 {
        assert_eq!(client.call(register("x", "web", 0.4))["success"], true);
        host.signal("STOP");
        client.send(&[b"REQ", json!({"action": "renew", "service_id": "x"}).to_string().as_bytes()]);
        std::thread::sleep(Duration::from_millis(600));
        host.signal("CONT");
        let reply: serde_json::Value = serde_json::from_slice(&client.receive()[1]).unwrap();
        assert_eq!(reply["success"], true, "round {round}: {reply}\n{}", host.log());
    }
}

#[test]
fn the_end_of_the_host_answers_who_waits_for_a_service() {
    let (_directory, host) = host(MEMORY);
    let mut client = host.client();
    let wait = json!({"action": "discover", "service_type": "web", "wait": 600, "request_id": "waits"});
    client.send(&[b"REQ", wait.to_string().as_bytes()]);
    assert_eq!(client.call(json!({"action": "health", "request_id": "meanwhile"}))["request_id"], "meanwhile");
    host.signal("TERM");
    let reply: serde_json::Value = serde_json::from_slice(&client.receive()[1]).unwrap();
    assert_eq!((&reply["request_id"], &reply["code"]), (&json!("waits"), &json!("none_healthy")));
    assert!(host.wait().0.success());
}
