//! A registry that answers as a test says, and commands that run beside it.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use zeromq::{PubSocket, RouterSocket, Socket, SocketRecv, SocketSend, ZmqMessage};

/// Longer than anything takes here, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A registry that answers as a test says, and remembers what it was asked.
pub(crate) struct StandIn {
    pub(crate) req_port: u16,
    pub(crate) pub_port: u16,
    pub(crate) requests: mpsc::Receiver<Value>,
    stop: Option<oneshot::Sender<()>>,
    changes: Arc<Mutex<Vec<Value>>>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Starts on that port (0 is a free one). `answer` gets a request and the event port.
    pub(crate) fn start(req_port: u16, answer: impl Fn(&Value, u16) -> String + Send + 'static) -> Self {
        let (started, ports) = mpsc::channel();
        let (asked, requests) = mpsc::channel();
        let (stop, mut stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (mut router, mut publisher) = (RouterSocket::new(), PubSocket::new());
                let bound = router.bind(&format!("tcp://127.0.0.1:{req_port}")).await.unwrap();
                let pub_port = port_of(&publisher.bind("tcp://127.0.0.1:0").await.unwrap().to_string());
                started.send((port_of(&bound.to_string()), pub_port)).unwrap();
                loop {
                    tokio::select! {
                        message = router.recv() => {
                            let mut frames = message.unwrap().into_vec();
                            let mut request: Value = serde_json::from_slice(frames.last().unwrap()).unwrap();
                            // Another one each time.
                            request.as_object_mut().unwrap().remove("request_id");
                            *frames.last_mut().unwrap() = answer(&request, pub_port).into();
                            asked.send(request).unwrap();
                            router.send(ZmqMessage::try_from(frames).unwrap()).await.unwrap();
                        }
                        _ = &mut stopped => break,
                    }
                }
            });
        });
        let (req_port, pub_port) = ports.recv_timeout(PATIENCE).unwrap();
        let (stop, thread, changes) = (Some(stop), Some(thread), Arc::default());
        StandIn { req_port, pub_port, requests, stop, changes, thread }
    }

    /// Answers each request with the same reply.
    pub(crate) fn saying(reply: Value) -> Self {
        StandIn::start(0, move |_, _| reply.to_string())
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = registry(arguments);
        command.args(["--connect", &format!("127.0.0.1:{}", self.req_port), "--timeout", "20"]);
        command
    }

    pub(crate) fn request(&self) -> Value {
        self.requests.recv_timeout(PATIENCE).unwrap()
    }

    /// Adds a change, if it is one that has changes.
    pub(crate) fn publish(&self, event: Value) {
        self.changes.lock().unwrap().push(event);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn port_of(endpoint: &str) -> u16 {
    endpoint.rsplit(':').next().unwrap().parse().unwrap()
}

pub(crate) fn registry(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_registry"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// A command that goes on until it is told to stop; killed if the test ends before.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) out: mpsc::Receiver<String>,
    pub(crate) err: mpsc::Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err): (ChildStdout, ChildStderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Running { child, out: lines(out), err: lines(err) }
    }

    pub(crate) fn line(&self) -> String {
        self.out.recv_timeout(PATIENCE).unwrap()
    }

    pub(crate) fn note(&self) -> String {
        self.err.recv_timeout(PATIENCE).unwrap()
    }

    pub(crate) fn terminate(&mut self) -> Option<i32> {
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

pub(crate) fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    receiver
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn camera() -> Value {
    json!({ "id": "camera-1", "name": "Camera", "host": "10.0.0.7", "port": 7000, "type": "Camera", "tags": ["Camera"],
            "metadata": {}, "ttl": 30, "last_heartbeat": 0, "health": "critical", "protocol": "tcp" })
}

/// A port where nobody listens, and nobody can as long as the sockets are held: it is the near end of a connection.
pub(crate) fn refusing_port() -> ((TcpListener, TcpStream), u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let port = stream.local_addr().unwrap().port();
    ((listener, stream), port)
}

/// A registry with changes: it has no services, and knows what is published, after this revision.
pub(crate) fn with_events(req_port: u16, epoch: &'static str, revision: u64) -> StandIn {
    let changes: Arc<Mutex<Vec<Value>>> = Arc::default();
    let told = changes.clone();
    let answer = move |request: &Value, _: u16| {
        let changes = told.lock().unwrap().clone();
        let now = changes.last().map_or(revision, |change| change["revision"].as_u64().unwrap());
        let after = request["after"].as_u64().unwrap_or(0);
        let reply = match request["action"].as_str() {
            Some("list") => json!({ "success": true, "services": [], "epoch": epoch, "revision": now }),
            Some("watch") if request["epoch"] != epoch || after < revision => {
                json!({ "success": false, "error": "...", "code": "compacted", "epoch": epoch, "revision": now })
            }
            Some("watch") => {
                let is_new = |change: &Value| change["revision"].as_u64().unwrap() > after;
                let changes: Vec<Value> = changes.into_iter().filter(is_new).collect();
                json!({ "success": true, "epoch": epoch, "revision": now, "changes": changes })
            }
            _ => json!({ "success": true, "epoch": epoch, "revision": now }),
        };
        reply.to_string()
    };
    let mut registry = StandIn::start(req_port, answer);
    registry.changes = changes;
    registry
}
