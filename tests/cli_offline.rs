//! The client commands against a registry that answers what each test tells it to: what they ask, what they print, and
//! how they exit. The real program runs with an empty environment.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use zeromq::{PubSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

/// Longer than anything takes here, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the stand-in is told to do.
enum Order {
    Publish(Value),
    Stop,
}

/// A registry that answers as a test says, and remembers what it was asked.
struct StandIn {
    req_port: u16,
    requests: mpsc::Receiver<Value>,
    orders: UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Starts on that port (0 is a free one). `answer` gets a request and the event port.
    fn start(req_port: u16, answer: impl Fn(&Value, u16) -> String + Send + 'static) -> Self {
        let (started, ports) = mpsc::channel();
        let (asked, requests) = mpsc::channel();
        let (orders, mut ordered) = unbounded_channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (mut router, mut publisher) = (RouterSocket::new(), PubSocket::new());
                let bound = router.bind(&format!("tcp://127.0.0.1:{req_port}")).await.unwrap();
                let pub_port = port_of(&publisher.bind("tcp://127.0.0.1:0").await.unwrap().to_string());
                started.send(port_of(&bound.to_string())).unwrap();
                loop {
                    tokio::select! {
                        message = router.recv() => {
                            let mut frames = message.unwrap().into_vec();
                            let request = serde_json::from_slice(frames.last().unwrap()).unwrap();
                            *frames.last_mut().unwrap() = answer(&request, pub_port).into();
                            asked.send(request).unwrap();
                            router.send(ZmqMessage::try_from(frames).unwrap()).await.unwrap();
                        }
                        order = ordered.recv() => match order {
                            Some(Order::Publish(event)) => {
                                let topic = event["type"].as_str().unwrap().to_string();
                                let mut message = ZmqMessage::from(topic);
                                message.push_back(event.to_string().into());
                                publisher.send(message).await.unwrap();
                            }
                            Some(Order::Stop) | None => break,
                        },
                    }
                }
            });
        });
        let req_port = ports.recv_timeout(PATIENCE).unwrap();
        StandIn { req_port, requests, orders, thread: Some(thread) }
    }

    /// Answers each request with the same reply.
    fn saying(reply: Value) -> Self {
        StandIn::start(0, move |_, _| reply.to_string())
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = registry(arguments);
        command.args(["--connect", &format!("127.0.0.1:{}", self.req_port), "--timeout", "20"]);
        command
    }

    fn request(&self) -> Value {
        self.requests.recv_timeout(PATIENCE).unwrap()
    }

    fn publish(&self, event: Value) {
        assert!(self.orders.send(Order::Publish(event)).is_ok());
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn port_of(endpoint: &str) -> u16 {
    endpoint.rsplit(':').next().unwrap().parse().unwrap()
}

fn registry(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// A command that goes on until it is told to stop; killed if the test ends before.
struct Running {
    child: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err): (ChildStdout, ChildStderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Running { child, out: lines(out), err: lines(err) }
    }

    fn line(&self) -> String {
        self.out.recv_timeout(PATIENCE).unwrap()
    }

    fn note(&self) -> String {
        self.err.recv_timeout(PATIENCE).unwrap()
    }

    fn terminate(&mut self) -> Option<i32> {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.child.try_wait().unwrap() {
                Some(status) => return status.code(),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        panic!("still running after SIGTERM");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn camera() -> Value {
    json!({ "id": "camera-1", "name": "Camera", "host": "10.0.0.7", "port": 7000, "type": "Camera", "tags": ["Camera"],
            "metadata": {}, "ttl": 30, "last_heartbeat": 0, "health": "critical", "protocol": "tcp" })
}

/// A port where nobody listens, and nobody can as long as the sockets are held: it is the near end of a connection.
fn refusing_port() -> ((TcpListener, TcpStream), u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let port = stream.local_addr().unwrap().port();
    ((listener, stream), port)
}

#[test]
fn nobody_there_is_exit_code_3_within_the_timeout() {
    let (_held, port) = refusing_port();
    let begin = Instant::now();
    let output =
        registry(&["health", "--timeout", "0.2", "--connect", &format!("tcp://127.0.0.1:{port}")]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(begin.elapsed() < PATIENCE);
    let said = text(&output.stderr);
    assert!(said.starts_with(&format!("registry: no answer from tcp://127.0.0.1:{port} within 0.2 s")), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn somebody_who_says_nothing_is_exit_code_3_and_found_by_the_environment() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let output = registry(&["list", "--timeout", "0.2"]).env("REGISTRY_CONNECT", &endpoint).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stderr).contains(&endpoint));
    // It did come here.
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_ok());
}

#[test]
fn an_answer_that_is_none_of_a_registry_is_exit_code_3() {
    for answer in ["hello", "{}", "[]", ""] {
        let other = StandIn::start(0, |_, _| answer.to_string());
        let output = other.run(&["health"]);
        assert_eq!(output.status.code(), Some(3), "{answer:?}");
        assert!(text(&output.stderr).contains("does not answer as a registry does"), "{}", text(&output.stderr));
    }
}

#[test]
fn refusals_are_exit_code_1_with_the_registrys_words() {
    let missing = StandIn::saying(json!({ "success": false, "error": "Service not found", "code": "not_found" }));
    for arguments in [&["get", "x"][..], &["discover", "X"], &["renew", "x"], &["deregister", "x"], &["stop"]] {
        let output = missing.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(text(&output.stderr), "registry: Service not found\n");
        assert_eq!(text(&output.stdout), "");
    }
    let duplicate = StandIn::saying(json!({
        "success": false, "error": "duplicate_service_type", "message": "Service type 'T' is already\u{1b}[2J taken"
    }));
    let output = duplicate.run(&["register", "n", "h", "1", "--type", "T", "--singleton"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "registry: duplicate_service_type: Service type 'T' is already\\u{1b}[2J taken\n");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["register", "n", "h", "0"][..],
        &["register", "n", "h", "65536"],
        &["register", "n", "h", "1", "--meta", "no equals sign"],
        &["register", "n", "h", "1", "--ttl", "-1"],
        &["list", "--connect", "nowhere"],
        &["list", "--connect", "udp://h:1"],
        &["list", "--connect", "::1:5556"],
        &["list", "--timeout", "0"],
        &["list", "--timeout", "inf"],
        &["watch", "renew"],
        &["nonsense"],
    ] {
        assert_eq!(registry(arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn every_command_explains_itself_and_its_exit_codes() {
    for command in [
        "serve",
        "config check",
        "config show",
        "migrate",
        "list",
        "get",
        "discover",
        "register",
        "renew",
        "deregister",
        "watch",
        "health",
        "info",
        "stop",
    ] {
        let arguments: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let output = registry(&arguments).output().unwrap();
        assert!(output.status.success(), "{command}");
        assert!(text(&output.stdout).contains("Exit codes:"), "{command}");
    }
}

#[test]
fn list_asks_for_the_type_and_prints_a_table() {
    let one = StandIn::saying(json!({ "success": true, "services": [camera()] }));
    let output = one.run(&["list", "Camera"]);
    assert_eq!(one.request(), json!({ "action": "list", "service_type": "Camera" }));
    let printed = text(&output.stdout);
    let words = |line: usize| printed.lines().nth(line).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(0), "ID NAME TYPE HOST PORT HEALTH TTL LAST HEARTBEAT");
    assert!(words(1).starts_with("camera-1 Camera Camera 10.0.0.7 7000 critical 30 s "), "{printed}");
    assert!(words(1).ends_with(" days ago"), "{printed}");
    one.run(&["list"]);
    assert_eq!(one.request()["service_type"], Value::Null);
}

#[test]
fn list_of_nothing_is_no_failure() {
    let empty = StandIn::saying(json!({ "success": true, "services": [] }));
    let output = empty.run(&["list"]);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), String::new()));
    assert_eq!(text(&empty.run(&["list", "--json"]).stdout), "[]\n");
}

#[test]
fn json_is_what_the_registry_said() {
    let all = StandIn::start(0, |request, _| {
        let reply = match request["action"].as_str().unwrap() {
            "list" => json!({ "success": true, "services": [camera()] }),
            _ => json!({ "success": true, "service": camera() }),
        };
        reply.to_string()
    });
    let printed = |arguments: &[&str]| serde_json::from_slice::<Value>(&all.run(arguments).stdout).unwrap();
    assert_eq!(printed(&["list", "--json"]), json!([camera()]));
    assert_eq!(printed(&["get", "camera-1", "--json"]), camera());
    assert_eq!(printed(&["discover", "Camera", "--json"]), camera());
}

#[test]
fn get_shows_every_field_and_nothing_steers_the_terminal() {
    let mut service = camera();
    service["metadata"] = json!({ "room": "\u{1b}[31mred\u{9b}" });
    let one = StandIn::saying(json!({ "success": true, "service": service }));
    let output = one.run(&["get", "camera-1"]);
    assert_eq!(one.request(), json!({ "action": "get", "service_id": "camera-1" }));
    let printed = text(&output.stdout);
    for field in service.as_object().unwrap().keys() {
        assert!(printed.lines().any(|line| line.starts_with(&format!("{field} "))), "{field}: {printed}");
    }
    assert!(!printed.contains(|c: char| c.is_control() && c != '\n'), "{printed:?}");
    let json = text(&one.run(&["get", "camera-1", "--json"]).stdout);
    assert!(!json.contains(|c: char| c.is_control() && c != '\n'), "{json:?}");
}

#[test]
fn register_sends_what_it_is_told_and_prints_the_id() {
    let registry = StandIn::saying(json!({ "success": true, "service_id": "camera-1", "message": "ok" }));
    let output = registry.run(&["register", "Camera", "10.0.0.7", "7000"]);
    assert_eq!(text(&output.stdout), "camera-1\n");
    let plain = json!({ "name": "Camera", "host": "10.0.0.7", "port": 7000 });
    assert_eq!(registry.request(), json!({ "action": "register", "service_info": plain }));

    let arguments = "register Camera 10.0.0.7 7000 --type Camera --id camera-1 --tag a --tag b --meta room=b=1 --ttl 5 \
                     --singleton --json";
    let output = registry.run(&arguments.split_whitespace().collect::<Vec<_>>());
    let info = json!({ "name": "Camera", "host": "10.0.0.7", "port": 7000, "id": "camera-1", "type": "Camera",
                       "tags": ["a", "b"], "metadata": { "room": "b=1" }, "singleton": true });
    assert_eq!(registry.request(), json!({ "action": "register", "service_info": info, "ttl": 5 }));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap()["service_id"], "camera-1");
}

#[test]
fn a_kept_service_is_renewed_registered_again_if_forgotten_and_deregistered_at_the_end() {
    let registry = StandIn::start(0, |request, _| {
        let reply = match request["action"].as_str().unwrap() {
            "renew" => {
                json!({ "success": false, "error": "Service not found or could not be renewed", "code": "not_found" })
            }
            _ => json!({ "success": true, "service_id": "camera-1" }),
        };
        reply.to_string()
    });
    let command = registry.command(&["register", "Camera", "10.0.0.7", "7000", "--ttl", "0.3", "--keep"]);
    let mut kept = Running::start(command);
    assert_eq!(kept.line(), "camera-1");
    let first = registry.request();
    assert_eq!((&first["action"], &first["service_info"]["id"]), (&json!("register"), &Value::Null));
    assert_eq!(registry.request(), json!({ "service_id": "camera-1", "action": "renew" }));
    let again = registry.request();
    assert_eq!((&again["action"], &again["service_info"]["id"]), (&json!("register"), &json!("camera-1")));
    assert_eq!(again["service_info"]["host"], "10.0.0.7");
    assert!(kept.note().contains("renewed every 0.1 s"));
    assert!(kept.note().contains("registered again"));

    assert_eq!(kept.terminate(), Some(0));
    let last = std::iter::from_fn(|| registry.requests.recv_timeout(PATIENCE).ok())
        .find(|request| request["action"] == "deregister");
    assert_eq!(last.unwrap()["service_id"], "camera-1");
}

#[test]
fn a_kept_service_waits_for_a_registry_that_is_away() {
    let known = |_: &Value, _: u16| json!({ "success": true, "service_id": "camera-1" }).to_string();
    let first = StandIn::start(0, known);
    let mut command = registry(&["register", "Camera", "h", "1", "--ttl", "0.3", "--keep", "--timeout", "0.5"]);
    command.args(["--connect", &format!("127.0.0.1:{}", first.req_port)]);
    let mut kept = Running::start(command);
    assert!(kept.note().contains("renewed every"));
    let port = first.req_port;
    drop(first);
    assert!(kept.note().ends_with("trying again"));
    let second = StandIn::start(port, known);
    assert!(kept.note().ends_with("answers again"));
    assert_eq!(second.request()["action"], "renew");
    assert_eq!(kept.terminate(), Some(0));
}

/// A registry with events: `info` tells epoch, revision and event port.
fn with_events(req_port: u16, epoch: &'static str, revision: u64) -> StandIn {
    StandIn::start(req_port, move |_, pub_port| {
        json!({ "success": true, "pub_port": pub_port, "epoch": epoch, "revision": revision }).to_string()
    })
}

fn event(event_type: &str, epoch: &str, revision: u64) -> Value {
    json!({ "type": event_type, "timestamp": 0, "data": { "service_id": "camera-1", "service_info": camera() },
            "epoch": epoch, "revision": revision })
}

/// Publishes until the watcher prints an event of that type: a subscription is in force some time after it was sent.
fn publish_until_seen(registry: &StandIn, watcher: &Running, event: &Value) -> String {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        registry.publish(event.clone());
        let line = watcher.out.recv_timeout(Duration::from_millis(100));
        if let Some(line) = line.ok().filter(|line| line.contains(event["type"].as_str().unwrap())) {
            return line;
        }
    }
    panic!("no event was printed");
}

/// The next line that is not a repetition of an event published by [`publish_until_seen`].
fn next_other_line(watcher: &Running, seen: &str) -> String {
    std::iter::repeat_with(|| watcher.line()).find(|line| line != seen).unwrap()
}

#[test]
fn watch_prints_each_event_in_a_line_of_its_own_and_tells_of_gaps() {
    let registry = with_events(0, "a", 4);
    let watcher = Running::start(registry.command(&["watch"]));
    let first = publish_until_seen(&registry, &watcher, &event("register", "a", 5));
    assert_eq!(first, "1970-01-01T00:00:00Z  register    camera-1  Camera  10.0.0.7:7000");
    registry.publish(event("expire", "a", 9));
    assert!(next_other_line(&watcher, &first).contains("expire"));
    assert!(watcher.note().contains("3 changes missed (revisions 6 to 8)"));
}

#[test]
fn watch_shows_only_the_events_that_are_asked_for_and_takes_no_others_for_missing() {
    let registry = with_events(0, "a", 4);
    let watcher = Running::start(registry.command(&["watch", "deregister", "--json"]));
    let first = publish_until_seen(&registry, &watcher, &event("deregister", "a", 5));
    assert_eq!(serde_json::from_str::<Value>(&first).unwrap(), event("deregister", "a", 5));
    registry.publish(event("register", "a", 6));
    registry.publish(event("deregister", "a", 7));
    let second = next_other_line(&watcher, &first);
    assert_eq!(serde_json::from_str::<Value>(&second).unwrap()["revision"], 7);
    assert!(watcher.err.try_recv().is_err(), "nothing was missed");
}

#[test]
fn watch_survives_a_restart_on_another_event_port_and_tells_what_it_missed() {
    let before = with_events(0, "a", 4);
    let watcher = Running::start(before.command(&["watch"]));
    publish_until_seen(&before, &watcher, &event("register", "a", 5));
    let port = before.req_port;
    drop(before);
    assert!(watcher.note().contains("is lost"));
    let after = with_events(port, "a", 7);
    assert!(watcher.note().contains("answers again"));
    assert!(watcher.note().contains("2 changes missed (revisions 6 to 7)"));
    publish_until_seen(&after, &watcher, &event("expire", "b", 1));
    assert!(watcher.note().contains("another history now (epoch b"));
}

#[test]
fn watch_of_a_registry_that_is_not_there_is_exit_code_3() {
    let (_held, port) = refusing_port();
    let output = registry(&["watch", "--timeout", "0.2", "--connect", &format!("127.0.0.1:{port}")]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let many: Vec<_> = (0..5000).map(|_| camera()).collect();
    let registry = StandIn::saying(json!({ "success": true, "services": many }));
    let mut child = registry.command(&["list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn health_info_and_stop_ask_for_what_they_are_called_after() {
    let registry = StandIn::saying(json!({ "success": true, "status": "ok", "timestamp": 5, "req_port": 1,
                                          "services": [{}, {}] }));
    assert_eq!(text(&registry.run(&["health"]).stdout), "ok\n");
    assert_eq!(registry.request()["action"], "health");
    let info = text(&registry.run(&["info"]).stdout);
    assert!(info.contains("req_port   1\n") && info.contains("services   2\n") && !info.contains("success"), "{info}");
    assert_eq!(registry.request()["action"], "info");
    assert!(registry.run(&["stop"]).status.success());
    assert_eq!(registry.request()["action"], "terminate");
}
