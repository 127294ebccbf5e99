//! A host whose storage takes its time: it answers that it is starting, and ends at once if it is told to.

mod harness;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use harness::{Client, PATIENCE, register, registry};
use serde_json::{Value, json};

/// A host on `moody`, whose store cannot be opened while a file is there.
struct Locked {
    directory: tempfile::TempDir,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    requests: u16,
    heartbeats: u16,
}

/// Ports that nobody has.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

impl Locked {
    fn start(options: &str) -> Locked {
        let directory = tempfile::tempdir().unwrap();
        let [requests, events, heartbeats] = free_ports();
        let lock = directory.path().join("lock");
        std::fs::write(&lock, "").unwrap();
        let config = format!(
            "[server]\nreq_port = {requests}\npub_port = {events}\nheartbeat_port = {heartbeats}\n\
             [backend]\nplugin = \"moody\"\nreply_timeout = 15\n[backend.options]\nlocked = {lock:?}\n{options}"
        );
        std::fs::write(directory.path().join("registry.toml"), config).unwrap();
        let mut child = registry(directory.path()).arg("serve").stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = log.clone();
        std::thread::spawn(move || lines.for_each(|line| written.lock().unwrap().push(line.unwrap())));
        let host = Locked { directory, child, log, requests, heartbeats };
        host.until("it listens", || TcpStream::connect(("127.0.0.1", requests)).is_ok());
        host
    }

    fn unlock(&self) {
        std::fs::remove_file(self.lock()).unwrap();
    }

    fn lock(&self) -> PathBuf {
        self.directory.path().join("lock")
    }

    fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn client(&self) -> Client {
        Client::connect(self.requests)
    }

    fn has_said(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.log.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    fn end(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The reader of the log has it a moment later.
                std::thread::sleep(Duration::from_millis(100));
                return (status, began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE, "it does not end: {:?}", self.log.lock().unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn health() -> Value {
    json!({"action": "health"})
}

#[test]
fn who_asks_while_the_storage_is_opened_is_told_that_the_registry_starts() {
    let host = Locked::start("");
    let mut client = host.client();
    let reply = client.call(health());
    assert_eq!(
        (&reply["success"], &reply["code"], &reply["status"]),
        (&json!(false), &json!("starting"), &json!("starting"))
    );
    assert_eq!((&reply["alive"], &reply["ready"]), (&json!(true), &json!(false)));
    for request in [register("x", "web", 60.0), json!({"action": "list"}), json!({"action": "terminate"})] {
        let began = Instant::now();
        assert_eq!(client.call(request.clone())["code"], "starting", "{request}");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    let mut heartbeats = Client::connect(host.heartbeats);
    heartbeats.send(&[br#"{"service_id":"x"}"#]);
    let reply: Value = serde_json::from_slice(&heartbeats.receive()[0]).unwrap();
    assert_eq!(reply["code"], "starting");
    host.until("operators are told", || host.has_said("the storage is being opened; meanwhile clients are told"));
    assert!(!host.has_said("requests on"), "nobody is served yet");
    let told = registry(host.directory()).arg("health").output().unwrap();
    assert_eq!(told.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&told.stderr).contains("The registry is starting"), "{told:?}");
    host.unlock();
    host.until("it serves", || host.has_said("requests on"));
    let lines = host.log.lock().unwrap().clone();
    let place = |text: &str| lines.iter().position(|line| line.contains(text)).unwrap();
    assert!(place("is being opened") < place("0 services loaded in") && place("loaded in") < place("requests on"));
    assert_eq!(client.call(health())["ready"], true, "on the same connection");
    assert_eq!(client.call(register("x", "web", 60.0))["success"], true);
    let told = registry(host.directory()).arg("health").output().unwrap();
    assert_eq!((told.status.code(), &*told.stdout), (Some(0), &b"ok\n"[..]));
}

#[test]
fn a_host_that_starts_stops_at_once() {
    let mut host = Locked::start("");
    assert_eq!(host.client().call(health())["code"], "starting");
    host.signal("TERM");
    let (status, took) = host.end();
    assert!(status.success() && took < Duration::from_secs(2), "{status} after {took:?}");
    assert!(host.has_said("stopping: SIGTERM received") && host.has_said("stopped, before the storage was open"));
    assert!(host.lock().exists());
}

#[test]
fn a_storage_that_cannot_be_opened_ends_the_host() {
    let mut host = Locked::start("opens = \"error\"\n");
    assert_eq!(host.client().call(health())["code"], "starting");
    host.unlock();
    let (status, _) = host.end();
    assert_eq!(status.code(), Some(1));
    let last = host.log.lock().unwrap().last().cloned().unwrap_or_default();
    assert_eq!(last, "registry: the storage moody cannot be opened: the key does not fit");
}
