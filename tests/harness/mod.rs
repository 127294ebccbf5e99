//! What tests of the whole program share: a host in a fresh directory, and clients that speak ZMTP byte by byte.
//!
//! Each test binary uses its own part of it.
#![allow(dead_code, unreachable_pub)]

pub mod keys;
pub mod zmtp;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
pub use zmtp::{Client, Subscriber};

/// How long anything that a test waits for may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The directory where cargo puts the plugins that it has just built for the tests. Those beside the program under
/// test may be old or absent.
pub fn plugin_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test has an executable");
    test.parent().expect("an executable is in a directory").to_path_buf()
}

/// The root of the project.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the host is a directory of the workspace")
}

/// The Python of the environment with the clients. Without it the test cannot run, which is a failure in CI only.
pub fn python() -> Option<PathBuf> {
    let environment = match std::env::var_os("REGISTRY_PYTHON_ENV") {
        Some(directory) => PathBuf::from(directory),
        None => workspace().join("target/python"),
    };
    let python = environment.join("bin/python");
    if environment.join(".clients").is_file() && python.is_file() {
        return Some(python);
    }
    let missing = format!("no Python clients in {}: make them with scripts/python-clients", environment.display());
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{missing}");
    let test = std::thread::current().name().unwrap_or("clients").to_string();
    // Not by eprintln: that is shown for failing tests only. In one piece, because the tests run side by side.
    let line = format!("NOT RUN: {test}: {missing}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr takes a line");
    None
}

/// An example of the client library in Rust. It is built with the tests of the whole workspace; else it is now.
pub fn client_example(name: &str) -> PathBuf {
    let profile = plugin_dir().parent().expect("tests are built in target/*/deps").to_path_buf();
    let target = profile.parent().expect("tests are built in target/*/deps");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--quiet", "-p", "registry-client", "--example", name, "--target-dir"]);
    let built = cargo.arg(target).current_dir(workspace()).status().expect("cargo can be started");
    assert!(built.success(), "the example {name} cannot be built");
    profile.join("examples").join(name)
}

/// The program under test, with no setting of this machine's, run in `directory`.
pub fn registry(directory: &Path) -> Command {
    prepared(Command::new(PROGRAM), directory)
}

/// The variable for the port that every host would have by default.
const HTTP_PORT: &str = "REGISTRY_HTTP__PORT";

const PROGRAM: &str = env!("CARGO_BIN_EXE_registry");

fn prepared(mut command: Command, directory: &Path) -> Command {
    command.current_dir(directory).env_clear().stdin(Stdio::null());
    command.env("REGISTRY_BACKEND__PLUGIN_DIR", plugin_dir());
    // So that hosts that run side by side do not ask for the same port.
    command.env(HTTP_PORT, "0");
    command
}

/// A running host. It is killed when it goes out of scope.
pub struct Host {
    child: Child,
    log: Log,
    /// The port for requests.
    pub requests: u16,
    /// The port for events.
    pub events: u16,
    /// The port for heartbeats.
    pub heartbeats: u16,
}

impl Host {
    /// Starts a host on free ports in `directory`, with `config` (TOML) added, and waits until it serves.
    pub fn start(directory: &Path, config: &str) -> Host {
        Host::start_on(directory, config, [0; 3])
    }

    /// Starts a host on these ports for requests, events and heartbeats.
    pub fn start_on(directory: &Path, config: &str, ports: [u16; 3]) -> Host {
        Host::launch(registry(directory), directory, config, ports)
    }

    /// Starts a host on free ports whose allocator gives back what is freed, so that its memory is what it holds, and not
    /// what the allocator (glibc's) keeps for later.
    pub fn start_frugal(directory: &Path, config: &str) -> Host {
        let mut command = registry(directory);
        command.env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_TRIM_THRESHOLD_", "131072");
        Host::launch(command, directory, config, [0; 3])
    }

    /// Starts a host on free ports under a limit, in the words of the shell's `ulimit`.
    pub fn start_under(ulimit: &str, directory: &Path, config: &str) -> Host {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit {ulimit} && exec \"$0\" \"$@\"")).arg(PROGRAM);
        Host::launch(prepared(shell, directory), directory, config, [0; 3])
    }

    fn launch(mut command: Command, directory: &Path, config: &str, ports: [u16; 3]) -> Host {
        let mut settings: Vec<String> = Vec::new();
        for (key, port) in ["req_port", "pub_port", "heartbeat_port"].iter().zip(ports) {
            settings.extend(["--set".into(), format!("server.{key}={port}")]);
        }
        std::fs::write(directory.join("registry.toml"), config).expect("the directory can be written");
        if !config.contains("reply_timeout") {
            // A busy machine may take its time with the disk: only tests of the timeout are about it.
            command.env("REGISTRY_BACKEND__REPLY_TIMEOUT", "15");
        }
        if config.contains("[http]") {
            command.env_remove(HTTP_PORT);
        }
        command.arg("serve").args(&settings).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let log = Log::follow(child.stderr.take().expect("stderr is piped"));
        let Some(line) = log.wait_for("requests on tcp://") else {
            let _ = child.kill();
            panic!("the host did not start:\n{}", log.text());
        };
        let port = |name: &str| {
            let rest = line.split(&format!("{name} on tcp://")).nth(1).expect("the line names all ports");
            let endpoint = rest.split(|c: char| c == ',' || c.is_whitespace()).next().unwrap_or_default();
            let port = endpoint.rsplit(':').next().and_then(|port| port.parse().ok());
            port.unwrap_or_else(|| panic!("no port for {name} in {line:?}"))
        };
        Host { requests: port("requests"), events: port("events"), heartbeats: port("heartbeats"), child, log }
    }

    /// The ports, for a host that is to take this one's place.
    pub fn ports(&self) -> [u16; 3] {
        [self.requests, self.events, self.heartbeats]
    }

    /// The port for HTTP.
    pub fn http(&self) -> u16 {
        let line = self.wait_for_log("HTTP on http");
        let rest = line.rsplit(':').find(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let digits = rest.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
        let port = digits.and_then(|port| port.parse().ok());
        port.unwrap_or_else(|| panic!("no port in {line:?}"))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of the request port.
    pub fn client(&self) -> Client {
        Client::connect(self.requests)
    }

    /// A client of the heartbeat port.
    pub fn heartbeat_client(&self) -> Client {
        Client::connect(self.heartbeats)
    }

    /// A subscriber to all events, which gets everything that happens from now on.
    pub fn subscriber(&self) -> Subscriber {
        let mut subscriber = Subscriber::connect(self.events);
        // A subscription has no answer: events are made until one comes through.
        let mut client = self.client();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let probe = client.call(json!({"action": "register", "service_info":
                {"id": "probe-of-the-subscriber", "name": "probe", "host": "h", "port": 1}}));
            assert_eq!(probe["success"], true, "{probe}");
            let probe = client.call(json!({"action": "deregister", "service_id": "probe-of-the-subscriber"}));
            assert_eq!(probe["success"], true, "{probe}");
            if subscriber.next_within(Duration::from_millis(200)).is_some() {
                break;
            }
            assert!(Instant::now() < deadline, "the subscription has no effect");
        }
        while subscriber.next_within(Duration::from_millis(200)).is_some() {}
        subscriber
    }

    /// Sends a signal by name: `TERM`, `INT`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: small systems have no other.
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(status.expect("there is a shell").success());
    }

    /// Kills the host, as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("the host runs");
        self.child.wait().expect("it can be waited for");
    }

    /// Stops the host in good order.
    pub fn stop(self) {
        let (status, log) = self.terminate("TERM");
        assert!(status.success(), "{status}:\n{log}");
    }

    /// Sends a signal and waits for the end: the exit status, and the whole log.
    pub fn terminate(self, signal: &str) -> (ExitStatus, String) {
        self.signal(signal);
        self.wait()
    }

    /// Waits for the end: the exit status, and the whole log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                self.log.wait_for_end();
                return (status, self.log.text());
            }
            assert!(Instant::now() < deadline, "the host does not end:\n{}", self.log.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for a line of the log that has `text` in it.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.log.wait_for(text).unwrap_or_else(|| panic!("no {text:?} in the log:\n{}", self.log.text()))
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.text()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program's stderr, line by line.
struct Log {
    lines: Arc<(Mutex<Lines>, Condvar)>,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn follow(stream: impl std::io::Read + Send + 'static) -> Log {
        let lines = Arc::new((Mutex::new(Lines::default()), Condvar::new()));
        let log = Log { lines: lines.clone() };
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream).lines();
            loop {
                let line = reader.next().and_then(Result::ok);
                let mut lines = lines_of(&log);
                lines.ended = line.is_none();
                lines.lines.extend(line);
                log.lines.1.notify_all();
                if lines.ended {
                    return;
                }
            }
        });
        Log { lines }
    }

    fn wait_for(&self, text: &str) -> Option<String> {
        let found = |lines: &Lines| lines.lines.iter().find(|line| line.contains(text)).cloned();
        let lines = lines_of(self);
        let wait = self.lines.1.wait_timeout_while(lines, PATIENCE, |lines| found(lines).is_none() && !lines.ended);
        found(&wait.expect("no thread panics with the log").0)
    }

    fn wait_for_end(&self) {
        let lines = lines_of(self);
        let _ = self.lines.1.wait_timeout_while(lines, PATIENCE, |lines| !lines.ended);
    }

    fn text(&self) -> String {
        lines_of(self).lines.join("\n")
    }
}

fn lines_of(log: &Log) -> std::sync::MutexGuard<'_, Lines> {
    log.lines.0.lock().expect("no thread panics with the log")
}

/// Asks again and again until `check` is content with the reply.
pub fn eventually(client: &mut Client, request: Value, check: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = client.call(request.clone());
        if check(&reply) {
            return reply;
        }
        assert!(Instant::now() < deadline, "{request} is still answered by {reply}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A request to register a service.
pub fn register(id: &str, service_type: &str, ttl: f64) -> Value {
    let info = json!({"id": id, "name": "N", "host": "127.0.0.1", "port": 4000, "type": service_type});
    json!({"action": "register", "service_info": info, "ttl": ttl})
}
