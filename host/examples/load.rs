//! Puts load on a registry and measures it: `bench/compare` runs it against this host and against others.
//!
//! Each client has a connection of its own and one request outstanding, as real clients do, and every reply is
//! checked. It speaks just enough ZMTP 3.0 (the NULL mechanism) over plain TCP to be much cheaper than any server, so
//! that the server is what is measured. One JSON object on standard output says what was seen.

use std::cell::Cell;
use std::error::Error;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// No reply may take longer; then the run fails.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may take to accept its first connection.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How many ids each client registers over and over.
const IDS_PER_CLIENT: usize = 100;
/// Clock ticks per second in `/proc/PID/stat`: the same on every Linux that Rust knows.
const TICKS_PER_SECOND: f64 = 100.0;

/// Load for a service registry.
#[derive(Clone, Parser)]
struct Arguments {
    /// Address of the request port, as 127.0.0.1:5556.
    #[arg(long)]
    requests: String,
    /// Address of the heartbeat port.
    #[arg(long)]
    heartbeats: String,
    /// What the clients ask.
    #[arg(long)]
    action: Action,
    /// How they ask: `dealer` sends ["REQ", json], `req` sends ["", json]. Renewals go to the heartbeat port as [json].
    #[arg(long, default_value = "dealer")]
    framing: Framing,
    /// Number of clients.
    #[arg(long, default_value = "32")]
    clients: NonZeroUsize,
    /// Services that are registered beforehand, each of a type of its own.
    #[arg(long, default_value = "100")]
    services: NonZeroUsize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of the same load before that.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Process whose CPU time is read.
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Action {
    Discover,
    Renew,
    Register,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Framing {
    Dealer,
    Req,
}

/// What every reply has.
#[derive(Deserialize)]
struct Reply {
    success: bool,
}

/// What the clients do at the moment; shared by all, which run on one thread.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Warmup,
    Measure,
    Stop,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = LocalSet::new().block_on(&runtime, run(arguments))?;
    println!("{report}");
    Ok(())
}

async fn run(arguments: Arguments) -> Result<Value> {
    let mut setup = Connection::open(&arguments.requests, arguments.framing, START_TIMEOUT).await?;
    for number in 0..arguments.services.get() {
        setup.ask(&register(&format!("load-{number}"), &service_type(number))).await?;
    }
    let phase = Rc::new(Cell::new(Phase::Warmup));
    let mut clients = Vec::new();
    for number in 0..arguments.clients.get() {
        let client = Client::open(number, &arguments, phase.clone()).await?;
        clients.push(tokio::task::spawn_local(client.run()));
    }
    tokio::time::sleep(Duration::from_secs_f64(arguments.warmup)).await;
    let server_before = arguments.pid.map(cpu_seconds).transpose()?;
    let own_before = cpu_seconds(std::process::id())?;
    let start = Instant::now();
    phase.set(Phase::Measure);
    tokio::time::sleep(Duration::from_secs_f64(arguments.seconds)).await;
    phase.set(Phase::Stop);
    let seconds = start.elapsed().as_secs_f64();
    let server_after = arguments.pid.map(cpu_seconds).transpose()?;
    let own_after = cpu_seconds(std::process::id())?;

    let mut latencies_ns = Vec::new();
    for client in clients {
        latencies_ns.extend(client.await??);
    }
    latencies_ns.sort_unstable();
    let requests = latencies_ns.len();
    if requests == 0 {
        return Err(format!("not one request was answered within the {seconds:.1} s that were measured").into());
    }
    let cpu = server_after.zip(server_before).map(|(after, before)| after - before);
    Ok(json!({
        "requests": requests,
        "seconds": seconds,
        "requests_per_second": requests as f64 / seconds,
        "p50_us": percentile_us(&latencies_ns, 0.5),
        "p99_us": percentile_us(&latencies_ns, 0.99),
        "max_us": percentile_us(&latencies_ns, 1.0),
        "server_cpu_seconds": cpu,
        "server_cpu_seconds_per_10k": cpu.map(|cpu| cpu * 10_000.0 / requests as f64),
        "load_cores": (own_after - own_before) / seconds,
    }))
}

fn percentile_us(sorted_ns: &[u64], part: f64) -> f64 {
    let index = (sorted_ns.len().saturating_sub(1)) as f64 * part;
    sorted_ns.get(index as usize).map_or(0.0, |ns| *ns as f64 / 1000.0)
}

/// User and system time that a process has used so far.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, which may hold spaces: count from behind it.
    let fields = stat.rsplit_once(") ").ok_or("no program name in /proc/PID/stat")?.1;
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).map(str::parse).collect::<std::result::Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// One client: a connection and the requests that it sends over it, in turn.
struct Client {
    connection: Connection,
    requests: Vec<Vec<u8>>,
    phase: Rc<Cell<Phase>>,
}

impl Client {
    async fn open(number: usize, arguments: &Arguments, phase: Rc<Cell<Phase>>) -> Result<Client> {
        // Clients start at different services, so that they do not walk in step.
        let count = arguments.services.get();
        let services = (0..count).map(|index| (index + number * 7) % count);
        let requests = match arguments.action {
            Action::Discover => services.map(|service| discover(&service_type(service))).collect(),
            Action::Renew => services.map(|service| renew(&format!("load-{service}"))).collect(),
            Action::Register => (0..IDS_PER_CLIENT)
                .map(|index| format!("load-{number}-{index}"))
                .map(|id| register(&id, &format!("type-{id}")))
                .collect(),
        };
        let connection = match arguments.action {
            Action::Renew => Connection::open_bare(&arguments.heartbeats, START_TIMEOUT).await?,
            _ => Connection::open(&arguments.requests, arguments.framing, START_TIMEOUT).await?,
        };
        Ok(Client { connection, requests, phase })
    }

    /// Asks until the phase says stop. The latencies of what was asked and answered while it said measure.
    async fn run(mut self) -> Result<Vec<u64>> {
        let mut latencies_ns = Vec::with_capacity(1 << 16);
        for request in self.requests.iter().cycle() {
            let phase = self.phase.get();
            if phase == Phase::Stop {
                break;
            }
            let start = Instant::now();
            self.connection.ask(request).await?;
            if phase == Phase::Measure && self.phase.get() == Phase::Measure {
                latencies_ns.push(start.elapsed().as_nanos() as u64);
            }
        }
        Ok(latencies_ns)
    }
}

fn service_type(number: usize) -> String {
    format!("load-type-{number}")
}

fn register(id: &str, service_type: &str) -> Vec<u8> {
    let service_info = json!({
        "id": id, "name": "Load Service", "host": "127.0.0.1", "port": 7000, "type": service_type,
        "tags": [service_type, "load"], "metadata": {"site": "bench", "version": "1.2.3"},
    });
    json!({"action": "register", "service_info": service_info, "ttl": 3600}).to_string().into_bytes()
}

fn discover(service_type: &str) -> Vec<u8> {
    json!({"action": "discover", "service_type": service_type}).to_string().into_bytes()
}

fn renew(id: &str) -> Vec<u8> {
    json!({"action": "renew", "service_id": id}).to_string().into_bytes()
}

/// A ZMTP connection with one request outstanding.
struct Connection {
    stream: BufReader<TcpStream>,
    /// What goes before each request: a frame, encoded, or nothing.
    head: Vec<u8>,
    out: Vec<u8>,
    frame: Vec<u8>,
}

impl Connection {
    async fn open(address: &str, framing: Framing, patience: Duration) -> Result<Connection> {
        let (kind, head) = match framing {
            Framing::Dealer => ("DEALER", &b"REQ"[..]),
            Framing::Req => ("REQ", &b""[..]),
        };
        let mut connection = Connection::greet(address, kind, patience).await?;
        push_frame(&mut connection.head, head, true);
        Ok(connection)
    }

    /// A DEALER that sends nothing but the request.
    async fn open_bare(address: &str, patience: Duration) -> Result<Connection> {
        Connection::greet(address, "DEALER", patience).await
    }

    async fn greet(address: &str, kind: &str, patience: Duration) -> Result<Connection> {
        let mut stream = connect(address, patience).await?;
        stream.set_nodelay(true)?;
        // Signature, version 3.0, mechanism NULL, filled up to 64 bytes.
        let mut greeting = [0; 64];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        stream.write_all(&greeting).await?;
        stream.read_exact(&mut greeting).await?;
        // The command READY with the one property that is required.
        let mut ready = b"\x05READY\x0bSocket-Type".to_vec();
        ready.extend((kind.len() as u32).to_be_bytes());
        ready.extend(kind.as_bytes());
        stream.write_all(&[4, ready.len() as u8]).await?;
        stream.write_all(&ready).await?;
        // The server's READY is a command, which reading replies passes over.
        let stream = BufReader::new(stream);
        Ok(Connection { stream, head: Vec::new(), out: Vec::new(), frame: Vec::new() })
    }

    /// Sends a request and waits for its reply, which must be a success.
    async fn ask(&mut self, request: &[u8]) -> Result<()> {
        self.out.clear();
        self.out.extend_from_slice(&self.head);
        push_frame(&mut self.out, request, false);
        self.stream.get_mut().write_all(&self.out).await?;
        let shown = || String::from_utf8_lossy(request).into_owned();
        match tokio::time::timeout(REPLY_TIMEOUT, self.read_reply()).await {
            Ok(read) => read?,
            Err(_) => return Err(format!("no reply within {REPLY_TIMEOUT:?} to {}", shown()).into()),
        }
        match serde_json::from_slice::<Reply>(&self.frame) {
            Ok(Reply { success: true }) => Ok(()),
            _ => Err(format!("{} was answered {}", shown(), String::from_utf8_lossy(&self.frame)).into()),
        }
    }

    /// Reads one message and leaves its last frame, the JSON, in `frame`.
    async fn read_reply(&mut self) -> Result<()> {
        const MORE: u8 = 1;
        const LONG: u8 = 2;
        const COMMAND: u8 = 4;
        loop {
            let flags = self.stream.read_u8().await?;
            let length = match flags & LONG {
                0 => u64::from(self.stream.read_u8().await?),
                _ => self.stream.read_u64().await?,
            };
            self.frame.resize(usize::try_from(length)?, 0);
            self.stream.read_exact(&mut self.frame).await?;
            if flags & (MORE | COMMAND) == 0 {
                return Ok(());
            }
        }
    }
}

/// Connects, again and again while nobody listens yet.
async fn connect(address: &str, patience: Duration) -> Result<TcpStream> {
    let start = Instant::now();
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if start.elapsed() > patience => {
                return Err(format!("cannot connect to {address}: {error}").into());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn push_frame(out: &mut Vec<u8>, body: &[u8], more: bool) {
    match u8::try_from(body.len()) {
        Ok(length) => out.extend([u8::from(more), length]),
        Err(_) => {
            out.push(u8::from(more) | 2);
            out.extend((body.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}
