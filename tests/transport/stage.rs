//! A host that is attacked, another client that must not notice, and what the attack leaves behind.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Client, Host, PATIENCE};

/// The longest that the slowest of a hundred discoveries may take while others attack, in a release build, on a machine
/// that has nothing else to do.
const P99_MAX: Duration = Duration::from_millis(50);
/// How often the bystander asks during an attack, at least: the slowest of a hundred has to be among them.
const QUESTIONS: usize = 200;
/// How much memory the attack may leave behind, in KiB: the allocator keeps some of what was needed once.
const LEFT_BEHIND_KB: u64 = 16 * 1024;

/// The first where there is time: in a release build, or where `REGISTRY_TRANSPORT_FULL` is set. Otherwise the second.
pub fn amount(full: usize, quick: usize) -> usize {
    if is_full() { full } else { quick }
}

/// Whether there is time for everything.
pub fn is_full() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("REGISTRY_TRANSPORT_FULL").is_some()
}

/// One at a time: each measures times.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits until no other test measures.
pub fn alone() -> MutexGuard<'static, ()> {
    // A test that failed says so itself.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A host with a service of the type `web`.
pub struct Stage {
    /// The host.
    pub host: Host,
    before: Usage,
    /// What peaks are measured from.
    base_kb: u64,
    _directory: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    /// A host with this transport and these `[limits]`.
    pub fn new(transport: &str, limits: &str) -> Stage {
        Stage::with(transport, limits, Host::start_frugal)
    }

    /// A host under a limit, in the words of the shell's `ulimit`.
    pub fn under(ulimit: &str, transport: &str, limits: &str) -> Stage {
        Stage::with(transport, limits, |directory, config| Host::start_under(ulimit, directory, config))
    }

    fn with(transport: &str, limits: &str, start: impl FnOnce(&std::path::Path, &str) -> Host) -> Stage {
        let alone = alone();
        raise_own_limit();
        let directory = tempfile::tempdir().expect("there is room for a directory");
        // What is kept for followers has a bound of its own, and is not what these tests measure.
        let events = "[events]\nhistory_bytes = 1048576\nservice_history_bytes = 65536\n";
        let backend = "[backend]\nplugin = \"memory\"\n";
        let config = format!("[server]\ntransport = \"{transport}\"\n{backend}{events}[limits]\n{limits}");
        let host = start(directory.path(), &config);
        register(&mut host.client(), "steady", 0);
        // What is set up once, at the first use, belongs to the state before.
        for _ in 0..20 {
            discover(&mut host.client());
        }
        let before = settled(host.pid(), |_| true);
        Stage { host, base_kb: before.memory_kb, before, _directory: directory, _alone: alone }
    }

    /// Makes an attack, again and again until another client has asked often enough meanwhile, and holds that client's
    /// times against the limit.
    ///
    /// A busy machine is slow with everything. So a plain echo within this process is timed side by side with the
    /// host, and the host gets what the echo needed beyond nothing. A debug build gets five times the limit: it is
    /// slower by that much or more.
    pub fn during(&self, mut attack: impl FnMut()) {
        let bystander = Bystander::start(&self.host);
        attack();
        while bystander.questions() < QUESTIONS {
            attack();
        }
        bystander.finish();
    }

    /// Forgets what memory was needed so far: from now on it is the state before.
    pub fn begin_measuring(&mut self) {
        self.base_kb = reset_peak(self.host.pid());
        self.before.memory_kb = self.base_kb;
    }

    /// The most memory that the host has needed so far beyond what it needed before, in KiB.
    pub fn peak_kb(&self) -> u64 {
        status(self.host.pid(), "VmHWM:").saturating_sub(self.base_kb)
    }

    /// How much CPU time the host needs meanwhile, of all the time that passes: 1.0 is one core.
    pub fn cpu_share(&self, time: Duration) -> f64 {
        let (start, before) = (Instant::now(), cpu_time(self.host.pid()));
        std::thread::sleep(time);
        (cpu_time(self.host.pid()) - before).as_secs_f64() / start.elapsed().as_secs_f64()
    }

    /// Checks that the host is as it was before, and stops in good order.
    pub fn expect_as_before(self) {
        discover(&mut self.host.client());
        let is_as_before =
            |now: &Usage| now.files == self.before.files && now.memory_kb <= self.before.memory_kb + LEFT_BEHIND_KB;
        let now = settled(self.host.pid(), is_as_before);
        println!("before {:?}, peak +{} KiB, now {now:?}", self.before, self.peak_kb());
        assert!(is_as_before(&now), "it was {:?} and is {now:?}", self.before);
        let share = self.cpu_share(Duration::from_millis(100));
        assert!(share < 0.5, "with nobody there it needs {share} of a core");
        let (status, log) = self.host.terminate("TERM");
        assert!(status.success() && !log.contains("panicked"), "{status}: {log}");
    }
}

/// What the host holds.
#[derive(Clone, Copy, Debug)]
struct Usage {
    files: usize,
    memory_kb: u64,
}

/// What the process holds as soon as that is to be expected, or when patience is at its end.
fn settled(pid: u32, is_expected: impl Fn(&Usage) -> bool) -> Usage {
    let end = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the host runs").count();
        let usage = Usage { files, memory_kb: status(pid, "VmRSS:") };
        // Connections that have just been closed take a moment.
        if (last == Some(files) && is_expected(&usage)) || Instant::now() > end {
            return usage;
        }
        last = Some(files);
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Has the kernel forget the most memory that a process has needed: what it needs now, in KiB.
pub fn reset_peak(pid: u32) -> u64 {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("it is our child");
    status(pid, "VmRSS:")
}

/// A number of KiB that the kernel tells of a process.
pub fn status(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the host runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel says it");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the host runs");
    // Behind the name, which may have blanks: user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number of ticks")).sum();
    Duration::from_millis(ticks * 10)
}

/// Registers a service of the type `web` that has some bytes of metadata.
pub fn register(client: &mut Client, id: &str, metadata_bytes: usize) {
    let reply = client.call(registration(id, metadata_bytes));
    assert_eq!(reply["success"], true, "{reply}");
}

/// A request to register a service of the type `web` that has some bytes of metadata.
pub fn registration(id: &str, metadata_bytes: usize) -> Value {
    let info = json!({"id": id, "name": "N", "host": "127.0.0.1", "port": 4000, "type": "web",
        "metadata": {"text": "x".repeat(metadata_bytes)}});
    json!({"action": "register", "service_info": info, "ttl": 3600})
}

/// A request to discover one.
pub fn discovery() -> Value {
    json!({"action": "discover", "service_type": "web"})
}

/// Discovers one.
pub fn discover(client: &mut Client) {
    let reply = client.call(discovery());
    assert_eq!(reply["success"], true, "{reply}");
}

/// Another client, which asks all the time.
struct Bystander {
    asked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(Vec<Duration>, Vec<Duration>)>,
}

impl Bystander {
    fn start(host: &Host) -> Bystander {
        let (asked, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (mut client, mut echo) = (host.client(), Echo::start());
        let (counter, over) = (asked.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            let (mut host, mut machine) = (Vec::new(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                host.push(timed(|| discover(&mut client)));
                machine.push(timed(|| echo.call()));
                counter.store(host.len(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
            (host, machine)
        });
        Bystander { asked, is_over, thread }
    }

    fn questions(&self) -> usize {
        assert!(!self.thread.is_finished(), "the bystander is not served");
        self.asked.load(Ordering::Relaxed)
    }

    fn finish(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let (mut host, mut machine) = self.thread.join().expect("the bystander is served");
        let ([p50, p99, longest], [_, machine, _]) = (quantiles(&mut host), quantiles(&mut machine));
        let max = P99_MAX * if cfg!(debug_assertions) { 5 } else { 1 } + machine * 2;
        let test = std::thread::current().name().unwrap_or_default().to_string();
        let count = host.len();
        println!(
            "{test}: {count} discoveries, p50 {p50:.1?}, p99 {p99:.1?}, max {longest:.1?}; echo p99 {machine:.1?}"
        );
        assert!(p99 <= max, "others wait {p99:?} (p99), expected at most {max:?}: p50 {p50:?}, longest {longest:?}");
    }
}

fn timed(call: impl FnOnce()) -> Duration {
    let start = Instant::now();
    call();
    start.elapsed()
}

/// The median, what all but one of a hundred are below, and the longest.
fn quantiles(times: &mut [Duration]) -> [Duration; 3] {
    times.sort_unstable();
    [times.len() / 2, times.len() * 99 / 100, times.len() - 1].map(|position| times[position])
}

/// What this machine needs for question and answer over TCP, if nothing is done for the answer.
struct Echo(TcpStream);

impl Echo {
    fn start() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody connects");
            stream.set_nodelay(true).expect("the stream can be set");
            let mut bytes = [0; 64];
            while stream.read_exact(&mut bytes).and_then(|()| stream.write_all(&bytes)).is_ok() {}
        });
        let stream = TcpStream::connect(address).expect("the echo listens");
        stream.set_nodelay(true).expect("the stream can be set");
        Echo(stream)
    }

    fn call(&mut self) {
        let mut bytes = [7; 64];
        self.0.write_all(&bytes).and_then(|()| self.0.read_exact(&mut bytes)).expect("the echo answers");
    }
}

/// The attackers are in this process, and need a file for each of their connections.
fn raise_own_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("a process may do that");
}
