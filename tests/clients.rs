//! Clients against the real binary: those that others wrote (pyzmq sockets, the unchanged clients of cgse-core), and our
//! own for Python.
//!
//! The checks themselves are in tests/clients, one printed line each. Here the host is started for them, stopped and
//! started again when a script asks for it, and the scripts' output is judged. They need a Python environment that
//! `scripts/python-clients` makes; without it these tests say so and pass, unless CI is set to true: then they fail.

mod harness;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use harness::{Host, PATIENCE, python, workspace};
use tempfile::TempDir;

/// How long a script may be silent. Its own watchdog ends it sooner.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(150);

#[test]
fn plain_clients_are_served_from_sqlite() {
    let Some(python) = python() else { return };
    let mut stage = Stage::start("sqlite", "");
    run_script(&python, "plain_client.py", &[], &mut stage);
    stage.stop();
}

#[test]
fn plain_clients_are_served_from_memory() {
    let Some(python) = python() else { return };
    let mut stage = Stage::start("memory", "");
    run_script(&python, "plain_client.py", &[], &mut stage);
    stage.stop();
}

#[test]
fn plain_clients_meet_unique_types_and_terminate_the_host() {
    let Some(python) = python() else { return };
    let options = "enforce_unique_service_types = true\nallow_terminate = true\n";
    let mut stage = Stage::start("memory", options);
    run_script(&python, "plain_client.py", &["--unique", "--terminate"], &mut stage);
    stage.ends_by_itself();
}

#[test]
fn cgse_clients_are_served_from_sqlite_and_outlast_restarts() {
    let Some(python) = python() else { return };
    let mut stage = Stage::start("sqlite", "");
    run_script(&python, "cgse_client.py", &["--durable", "--control"], &mut stage);
    stage.stop();
}

#[test]
fn cgse_clients_are_served_from_memory_outlast_restarts_and_terminate_the_host() {
    let Some(python) = python() else { return };
    let mut stage = Stage::start("memory", "allow_terminate = true\n");
    run_script(&python, "cgse_client.py", &["--control", "--terminate"], &mut stage);
    stage.ends_by_itself();
}

#[test]
fn clients_with_keys_are_served_and_kept_apart() {
    let Some(python) = python() else { return };
    let mut stage = Stage::with_keys("sqlite");
    run_script(&python, "curve_client.py", &["--durable", "--control", "--terminate"], &mut stage);
    stage.ends_by_itself();
}

/// Our own client for Python is put through what `clients/behaviours.md` promises. The scenarios start their hosts
/// themselves, and kill them.
#[test]
fn the_python_client_keeps_its_promises() {
    let Some(python) = python() else { return };
    run_scenarios(&python, &[&python.display().to_string(), &adapter_for_python()], &[]);
}

/// The same without asyncio, but for the crowd: it is one implementation.
#[test]
fn the_python_client_keeps_its_promises_without_asyncio() {
    let Some(python) = python() else { return };
    let adapter = [&python.display().to_string(), &adapter_for_python(), "--sync"].map(String::from);
    run_scenarios(&python, &adapter.each_ref().map(String::as_str), &["--without", "thousand_clients"]);
}

/// And our own client for Rust.
#[test]
fn the_rust_client_keeps_its_promises() {
    let Some(python) = python() else { return };
    let adapter = harness::client_example("adapter").display().to_string();
    run_scenarios(&python, &[&adapter], &[]);
}

/// What the client for Python says of itself: types, style, its README, and what becomes of forks and signals.
#[test]
fn the_python_client_passes_its_own_tests() {
    let Some(python) = python() else { return };
    let package = workspace().join("clients/python");
    let run = |arguments: &[&str], directory: &Path, variables: &[(&str, &str)]| {
        let mut command = Command::new(&python);
        command.args(arguments).current_dir(directory).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("PYTHONPATH", package.join("src")).envs(variables.iter().copied());
        let output = command.output().expect("Python can be started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    };
    run(&["-m", "mypy", "--cache-dir=/dev/null"], &package, &[]);
    for directory in [&package, &workspace().join("tests/clients/scenarios")] {
        run(&["-m", "ruff", "check", "--no-cache", "."], directory, &[]);
        run(&["-m", "ruff", "format", "--no-cache", "--check", "."], directory, &[]);
    }

    let mut stage = Stage::start("memory", "");
    let mut keys = Stage::with_keys("memory");
    let directory = keys.directory.path();
    let variables =
        [("REGISTRY_ENDPOINT", stage.endpoints()[0].clone()), ("REGISTRY_KEYS", directory.display().to_string())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    run(&["-m", "unittest"], &package.join("tests"), &variables);
    stage.stop();
    keys.stop();
}

/// The program that drives our client for Python: see tests/clients/scenarios/ADAPTER.md.
fn adapter_for_python() -> String {
    workspace().join("clients/python/tests/adapter.py").display().to_string()
}

/// Scenarios are about time, and share it with few.
static SCENARIOS: Mutex<()> = Mutex::new(());

/// Puts the client library behind an adapter through all scenarios.
fn run_scenarios(python: &Path, adapter: &[&str], flags: &[&str]) {
    let _alone = SCENARIOS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut process = Command::new(python)
        .args(["-u", "-W", "ignore"])
        .arg(workspace().join("tests/clients/scenarios/run.py"))
        .args(["--program", env!("CARGO_BIN_EXE_registry"), "--plugins"])
        .arg(harness::plugin_dir())
        .args(flags)
        .arg("--")
        .args(adapter)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", workspace().join("clients/python/src"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    let errors = Arc::new(Mutex::new(String::new()));
    let _unread = read_lines(process.stderr.take().expect("stderr is piped"), Some(errors.clone()));
    // Its own watchdog ends it, if it hangs.
    for line in read_lines(process.stdout.take().expect("stdout is piped"), None) {
        println!("{line}");
    }
    let status = wait(&mut process, PATIENCE).expect("a script that has closed its output ends");
    let errors = errors.lock().expect("no reader panics");
    assert!(status.success(), "the scenarios ended with {status}; they say:\n{errors}");
}

/// The host under test, which a script may stop and start again: same directory, same ports.
struct Stage {
    directory: TempDir,
    config: String,
    ports: [u16; 3],
    host: Option<Host>,
}

impl Stage {
    fn start(plugin: &str, server_options: &str) -> Stage {
        let directory = tempfile::tempdir().expect("the temporary directory takes a directory");
        // Often enough for the expiry checks, seldom enough that a critical service can be seen.
        let config = format!("[server]\ncleanup_interval = 1.0\n{server_options}\n[backend]\nplugin = {plugin:?}\n");
        Stage::start_in(directory, config)
    }

    /// A host that asks clients for keys: see curve_client.py.
    fn with_keys(plugin: &str) -> Stage {
        let directory = tempfile::tempdir().expect("the temporary directory takes a directory");
        let config = format!("{}[backend]\nplugin = {plugin:?}\n", harness::keys::make(directory.path()));
        Stage::start_in(directory, config)
    }

    fn start_in(directory: TempDir, config: String) -> Stage {
        let mut stage = Stage { directory, config, ports: [0; 3], host: None };
        stage.start_again();
        stage
    }

    fn start_again(&mut self) {
        let host = Host::start_on(self.directory.path(), &self.config, self.ports);
        self.ports = host.ports();
        self.host = Some(host);
    }

    fn stop(&mut self) {
        self.host.take().expect("a host that is stopped has been started").stop();
    }

    fn ends_by_itself(mut self) {
        let (status, log) = self.host.take().expect("a host that ends has been started").wait();
        assert!(status.success(), "the host ended with {status}; its log:\n{log}");
    }

    fn endpoints(&self) -> [String; 3] {
        self.ports.map(|port| format!("tcp://127.0.0.1:{port}"))
    }

    /// The end of the host's log.
    fn log(&self) -> String {
        let log = self.host.as_ref().map(Host::log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

/// Runs a script against the host, does what it asks for on the way, and fails with its output if it fails.
fn run_script(python: &Path, script: &str, flags: &[&str], stage: &mut Stage) {
    let mut process = Command::new(python)
        .args(["-u", "-W", "ignore"])
        .arg(workspace().join("tests/clients").join(script))
        .args(stage.endpoints())
        .args(flags)
        .current_dir(stage.directory.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python can be started");
    let mut answers = process.stdin.take().expect("stdin is piped");
    let errors = Arc::new(Mutex::new(String::new()));
    let _unread = read_lines(process.stderr.take().expect("stderr is piped"), Some(errors.clone()));
    let lines = read_lines(process.stdout.take().expect("stdout is piped"), None);
    loop {
        match lines.recv_timeout(SCRIPT_TIMEOUT) {
            Ok(line) => {
                println!("{line}");
                if let Some(command) = line.strip_prefix("control: ") {
                    control(stage, command, &mut answers);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = process.kill();
                panic!("{script} was silent for {SCRIPT_TIMEOUT:?}; the host's log:\n{}", stage.log());
            }
        }
    }
    let status = wait(&mut process, PATIENCE).expect("a script that has closed its output ends");
    let errors = errors.lock().expect("no reader panics");
    assert!(status.success(), "{script} ended with {status}; it says:\n{errors}\nthe host's log:\n{}", stage.log());
}

/// Does what a script asks of its parent.
fn control(stage: &mut Stage, command: &str, answers: &mut ChildStdin) {
    match command {
        "stop" => stage.stop(),
        "start" => stage.start_again(),
        other => panic!("a script asks to {other:?}, expected \"stop\" or \"start\""),
    }
    writeln!(answers, "done").expect("the script waits for its answer");
}

/// The lines of a pipe, read by a thread so that the writer never has to wait; also collected in `copy`.
fn read_lines(pipe: impl Read + Send + 'static, copy: Option<Arc<Mutex<String>>>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while pipe.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_string();
            bytes.clear();
            if let Some(copy) = &copy {
                let mut copy = copy.lock().expect("nobody panics with the copy in hand");
                copy.push_str(&line);
                copy.push('\n');
            }
            // Nobody may be listening any more; the pipe is to be emptied all the same.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// The exit status, or `None` if the process still runs when the time is up.
fn wait(process: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + timeout;
    loop {
        match process.try_wait().expect("a child can be waited for") {
            Some(status) => return Some(status),
            None if Instant::now() > end => return None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
