//! Keys and Unix sockets, as an operator meets them at the command line. What other programs' clients meet is in
//! clients.rs.

mod harness;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use harness::{Host, keys, registry};
use serde_json::json;

const AS_CAMERA: [&str; 4] = ["--key", "camera.key_secret", "--server-key", "registry.key"];

fn run(directory: &Path, arguments: &[&str]) -> Output {
    registry(directory).args(arguments).output().expect("the program can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command prints that is to succeed.
fn done(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What a command says that is to fail with this exit code.
fn refused(directory: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(directory, arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn host_with_keys() -> (tempfile::TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let config = keys::make(directory.path()) + "[backend]\nplugin = \"memory\"\n";
    let host = Host::start(directory.path(), &config);
    (directory, host)
}

#[test]
fn the_command_line_has_keys_too() {
    let (directory, host) = host_with_keys();
    let directory = directory.path();
    let tcp = format!("tcp://127.0.0.1:{}", host.requests);
    let key = std::fs::read_to_string(directory.join("registry.key")).unwrap();
    let key = key.split('"').rev().nth(1).unwrap();
    for (number, (endpoint, server_key)) in
        [(&*tcp, "registry.key"), ("ipc://ipc/requests", "registry.key"), (&*tcp, key)].into_iter().enumerate()
    {
        let connection = ["--connect", endpoint, "--key", "camera.key_secret", "--server-key", server_key];
        let id = format!("camera-{number}");
        done(directory, &[&["register", "camera", "h", "1", "--id", &id][..], &connection].concat());
        assert!(done(directory, &[&["list"][..], &connection].concat()).contains(&id));
        done(directory, &[&["renew", &id][..], &connection].concat());
    }
}

#[test]
fn what_is_wrong_with_keys_is_told() {
    let (directory, host) = host_with_keys();
    let directory = directory.path();
    let endpoint = format!("127.0.0.1:{}", host.requests);
    let health =
        |more: &[&str], code| refused(directory, &[&["health", "--connect", &endpoint][..], more].concat(), code);
    assert!(health(&[], 3).contains("asks for keys: --key names yours, and --server-key the registry's"));
    let other = health(&["--key", "camera.key_secret", "--server-key", "stage.key"], 3);
    assert!(other.contains("is the server's public key another one?"), "{other}");
    let stranger = health(&["--key", "stranger.key_secret", "--server-key", "registry.key"], 3);
    let key = std::fs::read_to_string(directory.join("stranger.key")).unwrap();
    let key = key.split('"').rev().nth(1).unwrap();
    let told = format!("your public key {key} is not authorized at {endpoint}: copy stranger.key into the directory");
    assert!(stranger.contains(&told), "{stranger}");
    let none = health(&["--key", "camera.key_secret", "--server-key", "nothing"], 1);
    assert!(none.contains("--server-key: nothing: ") && none.contains("expected the registry's public key"), "{none}");
    let public = health(&["--key", "camera.key", "--server-key", "registry.key"], 1);
    assert!(public.contains("--key: camera.key"), "{public}");
    let half = run(directory, &["health", "--connect", &endpoint, "--key", "camera.key_secret"]);
    assert_eq!(half.status.code(), Some(2));
}

#[test]
fn whoever_is_not_allowed_is_told_and_operators_are() {
    let (directory, host) = host_with_keys();
    let directory = directory.path();
    let connection = ["--connect", "ipc://ipc/requests"];
    done(directory, &[&["register", "c", "h", "1", "--id", "x"][..], &connection, &AS_CAMERA].concat());
    let stage = ["--key", "stage.key_secret", "--server-key", "registry.key"];
    let told = refused(directory, &[&["deregister", "x"][..], &connection, &stage].concat(), 1);
    assert_eq!(
        told,
        "registry: Not allowed: this key is not allowed to deregister \"x\", which belongs to another key\n"
    );
    let stage = std::fs::read_to_string(directory.join("stage.key")).unwrap();
    let stage = stage.split('"').rev().nth(1).unwrap();
    let line = host.wait_for_log("is not allowed to deregister");
    let expected = format!("the client \"stage\" (key {}...) is not allowed to deregister \"x\"", &stage[..8]);
    assert!(line.contains("WARN") && line.contains(&expected), "{line}");
}

#[test]
fn one_bad_file_does_not_keep_another_key_from_being_removed() {
    let (directory, host) = host_with_keys();
    let directory = directory.path();
    let clients = directory.join("clients");
    std::fs::write(directory.join("bad"), "bad").unwrap();
    // In one piece: no look at it finds half of it.
    std::fs::rename(directory.join("bad"), clients.join("bad.key")).unwrap();
    let line = host.wait_for_log("bad.key");
    assert!(line.contains("ERROR") && line.contains("line 1: expected"), "{line}");
    let connection = ["--connect", "ipc://ipc/requests"];
    let list = [&["list"][..], &connection, &AS_CAMERA].concat();
    done(directory, &list);
    std::fs::remove_file(clients.join("camera.key")).unwrap();
    let deadline = Instant::now() + harness::PATIENCE;
    while run(directory, &list).status.success() {
        assert!(Instant::now() < deadline, "the camera still lists: {}", host.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let admin = ["--key", "admin.key_secret", "--server-key", "registry.key"];
    let health = done(directory, &[&["health"][..], &connection, &admin].concat());
    assert_eq!(health, "ok; 1 file with clients' keys cannot be used: the log says which\n");
    done(directory, &[&["list"][..], &connection, &admin].concat());
    assert_eq!(host.log().matches("bad.key").count(), 1, "once: {}", host.log());
    // Nor does it keep the registry from starting again.
    host.stop();
    let config = std::fs::read_to_string(directory.join("registry.toml")).unwrap();
    let host = Host::start(directory, &config);
    assert!(host.log().lines().any(|line| line.contains("ERROR") && line.contains("bad.key")), "{}", host.log());
    done(directory, &[&["list"][..], &connection, &admin].concat());
}

#[test]
fn events_are_watched_with_keys_and_over_unix_sockets() {
    let (directory, host) = host_with_keys();
    let tcp = format!("tcp://127.0.0.1:{}", host.requests);
    for endpoint in ["ipc://ipc/requests", &tcp] {
        let connection = [&["--connect", endpoint][..], &AS_CAMERA].concat();
        let mut command = registry(directory.path());
        let mut watch =
            command.arg("watch").args(&connection).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        // A subscription has no answer: a service is registered until an event comes.
        let registering = std::thread::scope(|scope| {
            let first = scope.spawn(|| lines.next().expect("an event comes").unwrap());
            while !first.is_finished() {
                done(directory.path(), &[&["register", "c", "h", "1", "--id", "watched"][..], &connection].concat());
            }
            first.join().unwrap()
        });
        let _ = watch.kill();
        let _ = watch.wait();
        assert!(registering.contains("register") && registering.contains("watched"), "{registering}");
    }
}

#[test]
fn unix_sockets_need_no_keys() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[server]\nipc_dir = \".\"\n[backend]\nplugin = \"memory\"\n";
    let host = Host::start(directory.path(), config);
    let connection = ["--connect", "ipc://requests"];
    done(directory.path(), &[&["register", "c", "h", "1", "--id", "x"][..], &connection].concat());
    assert!(done(directory.path(), &[&["list"][..], &connection].concat()).contains('x'));
    // A second one in the same place is refused, and the first goes on.
    let second = refused_host(directory.path(), config);
    assert!(
        second.contains("requests (server.ipc_dir)") && second.contains("is another registry running?"),
        "{second}"
    );
    done(directory.path(), &[&["renew", "x"][..], &connection].concat());
    host.stop();
    for name in ["requests", "events", "heartbeats"] {
        assert!(!directory.path().join(name).exists(), "{name} is left behind");
    }
}

/// The last line of a host that does not start.
fn refused_host(directory: &Path, config: &str) -> String {
    std::fs::write(directory.join("second.toml"), config).unwrap();
    let ports = ["req_port", "pub_port", "heartbeat_port"].map(|key| format!("server.{key}=0"));
    let mut command = registry(directory);
    command.args(["serve", "--config", "second.toml"]);
    ports.iter().for_each(|port| {
        command.args(["--set", port]);
    });
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    text(&output.stderr).lines().last().unwrap_or_default().to_string()
}

#[test]
fn a_services_past_says_by_which_address_it_was_done() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[server]\nipc_dir = \".\"\n[backend]\nplugin = \"memory\"\n";
    let host = Host::start(directory.path(), config);
    let mut client = host.client();
    done(directory.path(), &["register", "n", "h", "1", "--id", "x", "--connect", "ipc://requests"]);
    assert_eq!(client.call(json!({"action": "deregister", "service_id": "x"}))["success"], true);
    let reply = client.call(json!({"action": "history", "service_id": "x"}));
    assert_eq!(
        (&reply["history"][0]["what"], &reply["history"][0]["by"]),
        (&json!("registered"), &json!({"address": "ipc"}))
    );
    assert_eq!(reply["history"][1]["what"], "deregistered");
    let address = reply["history"][1]["by"]["address"].as_str().expect("it is known").parse::<SocketAddr>();
    assert!(address.is_ok_and(|address| address.ip().is_loopback() && address.port() > 0), "{reply}");
}
