//! A registry that answers as a test says, and commands that run beside it.

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
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the stand-in is told to do.
pub(crate) enum Order {
    Publish(Value),
    Stop,
}

/// A registry that answers as a test says, and remembers what it was asked.
pub(crate) struct StandIn {
    pub(crate) req_port: u16,
    pub(crate) pub_port: u16,
    pub(crate) requests: mpsc::Receiver<Value>,
    pub(crate) orders: UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Starts on that port (0 is a free one). `answer` gets a request and the event port.
    pub(crate) fn start(req_port: u16, answer: impl Fn(&Value, u16) -> String + Send + 'static) -> Self {
        let (started, ports) = mpsc::channel();
        let (asked, requests) = mpsc::channel();
        let (orders, mut ordered) = unbounded_channel();
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
        let (req_port, pub_port) = ports.recv_timeout(PATIENCE).unwrap();
        StandIn { req_port, pub_port, requests, orders, thread: Some(thread) }
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

    pub(crate) fn publish(&self, event: Value) {
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

/// A registry with events: `info` tells epoch, revision and event port.
pub(crate) fn with_events(req_port: u16, epoch: &'static str, revision: u64) -> StandIn {
    StandIn::start(req_port, move |_, pub_port| {
        json!({ "success": true, "pub_port": pub_port, "epoch": epoch, "revision": revision }).to_string()
    })
}
