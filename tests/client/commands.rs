//! The command line and the example, as their users run them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use serde_json::{Value, json};

use super::*;
use crate::harness::{register, registry};

/// A program that runs beside the test; killed with it.
struct Running {
    child: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Running { child, out, err }
    }

    fn line(&self) -> String {
        self.out.recv_timeout(PATIENCE).expect("a line comes")
    }

    fn note(&self) -> String {
        self.err.recv_timeout(PATIENCE).expect("a note comes")
    }

    fn note_with(&self, text: &str) -> String {
        std::iter::repeat_with(|| self.note()).find(|note| note.contains(text)).unwrap()
    }

    fn terminate(&self) {
        let status = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(status.unwrap().success());
    }

    fn code(&mut self) -> Option<i32> {
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            match self.child.try_wait().unwrap() {
                Some(status) => return status.code(),
                None => std::thread::sleep(5 * MILLISECOND),
            }
        }
        panic!("it does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

/// A command for the registry on that port.
fn command(directory: &Path, port: u16, arguments: &[&str]) -> Command {
    let mut command = registry(directory);
    command.env("REGISTRY_CONNECT", format!("127.0.0.1:{port}")).env("PATH", "/usr/bin:/bin").args(arguments);
    command
}

fn run(directory: &Path, port: u16, arguments: &[&str]) -> Output {
    command(directory, port, arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn watch_goes_on_over_kills_of_the_host_without_a_gap_and_without_repetition() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let mut host = Host::start(directory, SQLITE);
    let ports = host.ports();
    let watcher = Running::start(command(directory, ports[0], &["watch", "--json", "--type", "web"]));
    let told = || {
        let line: Value = serde_json::from_str(&watcher.line()).unwrap();
        (line["type"].clone(), line["data"]["service_id"].clone())
    };
    // Until it watches.
    std::thread::sleep(SECOND);
    for round in 0..5 {
        let mut client = host.client();
        for id in ["a", "b"] {
            assert_eq!(client.call(register(&format!("{id}{round}"), "web", 600.0))["success"], true);
            assert_eq!(client.call(register("other", "stage", 600.0))["success"], true);
        }
        host.kill();
        host = Host::start_on(directory, SQLITE, ports);
    }
    for round in 0..5 {
        for id in ["a", "b"] {
            assert_eq!(told(), (json!("register"), json!(format!("{id}{round}"))));
        }
    }
    assert_eq!(host.client().call(json!({"action": "deregister", "service_id": "a0"}))["success"], true);
    assert_eq!(told(), (json!("deregister"), json!("a0")));
    assert!(watcher.out.recv_timeout(300 * MILLISECOND).is_err(), "nothing is told twice");
}

#[test]
fn a_program_is_registered_for_as_long_as_it_runs_and_its_exit_code_is_handed_on() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    let script = "echo $REGISTRY_SERVICE_ID; read line; exit 7";
    let arguments = ["register", "Camera", "h", "1", "--id", "a", "--type", "web", "--exec", "sh", "-c", script];
    let mut program = command(directory, host.requests, &arguments);
    program.stdin(Stdio::piped());
    let mut running = Running::start(program);
    assert_eq!(running.line(), "a", "the program's own output, and nothing else");
    let get = json!({"action": "get", "service_id": "a"});
    assert_eq!(host.client().call(get.clone())["service"]["type"], "web");
    drop(running.child.stdin.take());
    assert_eq!(running.code(), Some(7));
    assert_eq!(host.client().call(get)["code"], "not_found");
    for (program, code) in [("/no/such/program", 127), ("/", 126)] {
        let output = run(directory, host.requests, &["register", "x", "h", "1", "--exec", "--", program]);
        assert_eq!(output.status.code(), Some(code), "{}", err(&output));
    }
    let killed = run(directory, host.requests, &["register", "x", "h", "1", "--exec", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(killed.status.code(), Some(137));
    assert_eq!(host.client().call(json!({"action": "list"}))["services"], json!([]));
}

#[test]
fn a_program_is_registered_once_its_port_is_open_if_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let port_text = port.to_string();
    let begin = ["register", "Camera", "127.0.0.1", &port_text, "--id", "a", "--when-open", "--exec", "sh", "-c"];
    let start = |script: &str| {
        let mut program = command(directory, host.requests, &[&begin[..], &[script]].concat());
        program.stdin(Stdio::piped());
        Running::start(program)
    };
    let get = json!({"action": "get", "service_id": "a"});
    let mut running = start("echo $REGISTRY_SERVICE_ID; read line; exit 4");
    assert_eq!(running.line(), "a");
    assert!(running.err.recv_timeout(500 * MILLISECOND).is_err(), "it is not registered before");
    assert_eq!(host.client().call(get.clone())["code"], "not_found");
    let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    running.note_with("a is registered");
    assert_eq!(host.client().call(get.clone())["service"]["port"], port);
    drop(running.child.stdin.take());
    assert_eq!(running.code(), Some(4));
    assert_eq!(host.client().call(get.clone())["code"], "not_found");
    drop(_listener);
    let mut running = start("exit 5");
    assert_eq!(running.code(), Some(5), "it ends before it listens");
    let mut running = start("trap 'exit 6' TERM; echo runs; while :; do sleep 0.05; done");
    assert_eq!(running.line(), "runs");
    running.terminate();
    assert_eq!(running.code(), Some(6));
    assert_eq!(host.client().call(get)["code"], "not_found");
}

#[test]
fn watch_tells_of_a_drain() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    let mut client = host.client();
    assert_eq!(client.call(register("a", "web", 600.0))["success"], true);
    let watcher = Running::start(command(directory, host.requests, &["watch", "--existing"]));
    assert!(watcher.line().ends_with(":4000"));
    let drain = json!({"action": "drain", "service_id": "a", "seconds": 600, "reason": "a\nlens"});
    assert_eq!(client.call(drain)["success"], true);
    assert!(watcher.line().ends_with(":4000  drained: a\\u{a}lens"));
    assert_eq!(client.call(json!({"action": "undrain", "service_id": "a"}))["success"], true);
    assert!(watcher.line().ends_with(":4000"));
}

#[test]
fn a_signal_is_handed_on_and_the_program_ends_as_it_likes() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    let script = "trap 'echo ends; exit 3' TERM; echo runs; while :; do sleep 0.05; done";
    let arguments = ["register", "Camera", "h", "1", "--id", "a", "--exec", "sh", "-c", script];
    let mut running = Running::start(command(directory, host.requests, &arguments));
    assert_eq!(running.line(), "runs");
    running.terminate();
    assert_eq!(running.line(), "ends");
    assert_eq!(running.code(), Some(3));
    assert_eq!(host.client().call(json!({"action": "get", "service_id": "a"}))["code"], "not_found");
}

#[test]
fn a_program_whose_registration_is_lost_runs_on_unless_it_is_to_end() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    let started = |more: &[&str]| {
        let begin = ["register", "Camera", "h", "1", "--id", "a", "--ttl", "0.5"];
        let end = ["--exec", "sh", "-c", "echo runs; read line"];
        let mut program = command(directory, host.requests, &[&begin[..], more, &end].concat());
        program.stdin(Stdio::piped());
        let running = Running::start(program);
        assert_eq!(running.line(), "runs");
        assert_eq!(host.client().call(json!({"action": "deregister", "service_id": "a"}))["success"], true);
        running
    };
    let mut running = started(&[]);
    running.note_with("a was deregistered by somebody else; the program runs on");
    std::thread::sleep(SECOND);
    assert_eq!(host.client().call(json!({"action": "get", "service_id": "a"}))["code"], "not_found");
    drop(running.child.stdin.take());
    assert_eq!(running.code(), Some(1), "what `read` says at the end of its input");
    let mut ended = started(&["--stop-when-lost"]);
    ended.note_with("a was deregistered by somebody else; the program is ended");
    assert_eq!(ended.code(), Some(128 + 15));
    assert!(ended.err.try_recv().is_err(), "enough has been said");
}

#[test]
fn a_kept_service_that_somebody_else_deregisters_ends_with_exit_code_1() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    let arguments = ["register", "Camera", "h", "1", "--id", "a", "--ttl", "0.5", "--keep"];
    let mut kept = Running::start(command(directory, host.requests, &arguments));
    assert_eq!(kept.line(), "a");
    assert_eq!(host.client().call(json!({"action": "deregister", "service_id": "a"}))["success"], true);
    kept.note_with("registry: a was deregistered by somebody else");
    assert_eq!(kept.code(), Some(1));
}

#[test]
fn what_is_waited_for_is_shown_as_soon_as_it_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    let ports = host.ports();
    let output = run(directory, ports[0], &["wait", "web", "--timeout", "0.3"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("registry: no healthy service of type \"web\" at 127.0.0.1:{} within 0.3 s\n", ports[0]);
    assert_eq!(err(&output), expected);
    host.kill();
    let output = run(directory, ports[0], &["wait", "web", "--timeout", "0.3"]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    // Neither the registry nor the service is there yet.
    let mut waiting = Running::start(command(directory, ports[0], &["wait", "web", "--json"]));
    std::thread::sleep(300 * MILLISECOND);
    let host = Host::start_on(directory, MEMORY, ports);
    std::thread::sleep(300 * MILLISECOND);
    assert_eq!(host.client().call(register("a", "web", 60.0))["success"], true);
    assert_eq!(waiting.code(), Some(0));
    assert!(waiting.out.iter().any(|line| line.contains("\"id\": \"a\"")));
}

#[test]
fn what_there_is_is_listed_as_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let host = Host::start(directory, MEMORY);
    let ask = |arguments: &[&str]| {
        let output = run(directory, host.requests, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", err(&output));
        out(&output)
    };
    for (id, room) in [("a", "4"), ("b", "5")] {
        ask(&[
            "register",
            "Camera",
            "h",
            "1",
            "--id",
            id,
            "--type",
            "camera",
            "--tag",
            "north",
            "--meta",
            &format!("room={room}"),
        ]);
    }
    ask(&["register", "Stage", "h", "2", "--id", "c", "--type", "stage"]);
    assert_eq!(ask(&["list", "--metadata", "room=4", "--fields", "port,name"]), "ID  PORT  NAME\na   1     Camera\n");
    let tagged: Value = serde_json::from_str(&ask(&["list", "--tag", "north", "--fields", "id", "--json"])).unwrap();
    assert_eq!(tagged, json!([{"id": "a"}, {"id": "b"}]));
    assert_eq!(
        ask(&["types"]),
        "TYPE    PASSING  DRAINED  CRITICAL\ncamera  2        0        0\nnorth   2        0        0\nstage   1        0        0\n"
    );
    assert_eq!(ask(&["update", "a", "--metadata", "room:=6", "--metadata", "floor=1"]), "a updated\n");
    let metadata = &serde_json::from_str::<Value>(&ask(&["get", "a", "--json"])).unwrap()["metadata"];
    assert_eq!(metadata, &json!({"room": 6, "type": "camera", "floor": "1"}));
    ask(&["deregister", "a"]);
    let history = ask(&["history", "a"]);
    let words: Vec<&str> = history.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(words, ["registered", "updated", "deregistered"], "{history}");
    assert!(history.contains("  by 127.0.0.1:"), "{history}");
}

#[test]
fn the_example_finds_others_and_leaves_when_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let fleet = harness::client_example("fleet");
    let start = |name: &str, port: &str| {
        let mut command = Command::new(&fleet);
        command.args([&format!("127.0.0.1:{}", host.requests), name, port]);
        Running::start(command)
    };
    let first = start("one", "7001");
    assert!(first.line().starts_with("one-"));
    let mut second = start("two", "7002");
    assert!(second.line().starts_with("two-"));
    let sees = |running: &Running, name: &str, what: &str| {
        let is_it = |line: &String| line.starts_with(name) && line.ends_with(what);
        std::iter::repeat_with(|| running.line()).find(is_it).expect("it is told");
    };
    sees(&second, "one-", "at 127.0.0.1:7001 is there");
    sees(&first, "two-", "at 127.0.0.1:7002 is there");
    second.terminate();
    assert_eq!(second.code(), Some(0));
    sees(&first, "two-", "is gone");
}
