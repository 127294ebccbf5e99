//! Another client, who only wants to know how the registry is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::Client;
use crate::host::Host;

/// How long the witness waits between a reply and its next request.
const PAUSE: Duration = Duration::from_millis(1);
const MEMORY_INTERVAL: Duration = Duration::from_millis(10);
/// How long it goes on after the attack: some of it may be felt later.
const AFTERWARDS: Duration = Duration::from_millis(300);
/// What is told as it happens.
const LONG: Duration = Duration::from_millis(50);
const PAGE_BYTES: f64 = 4096.0;

/// What the witness saw.
pub(crate) struct Seen {
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// The longest time without a reply.
    pub(crate) silence_ms: f64,
    /// The longest time that the witness was kept from running, by the machine and not by the registry.
    pub(crate) machine_ms: f64,
    /// The most resident memory, less what there was before.
    pub(crate) growth_mb: f64,
}

/// A witness at work.
pub(crate) struct Witness {
    is_over: Arc<AtomicBool>,
    health: JoinHandle<Result<(Vec<Duration>, Duration)>>,
    memory: JoinHandle<Result<f64>>,
    memory_before_mb: f64,
}

impl Witness {
    /// Begins.
    pub(crate) fn begin(host: &Host) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut client = Client::connect(host.requests)?;
        client.ask(br#"{"action":"health"}"#)?;
        let pid = host.pid();
        let memory_before_mb = resident_mb(pid)?;
        let until = is_over.clone();
        let health = std::thread::spawn(move || ask_for_health(&mut client, &until));
        let until = is_over.clone();
        let memory = std::thread::spawn(move || {
            let mut most = 0f64;
            while !until.load(Ordering::Relaxed) {
                most = most.max(resident_mb(pid)?);
                sleep(MEMORY_INTERVAL);
            }
            Ok(most)
        });
        Ok(Witness { is_over, health, memory, memory_before_mb })
    }

    /// Ends, a moment later.
    pub(crate) fn end(self) -> Result<Seen> {
        sleep(AFTERWARDS);
        self.is_over.store(true, Ordering::Relaxed);
        let (mut latencies, machine) = self.health.join().map_err(|_| "the witness has panicked")??;
        let most_mb = self.memory.join().map_err(|_| "the reader of memory has panicked")??;
        latencies.sort_unstable();
        let part = |part: f64| milliseconds(latencies[((latencies.len() - 1) as f64 * part) as usize]);
        Ok(Seen {
            p50_ms: part(0.5),
            p99_ms: part(0.99),
            silence_ms: part(1.0),
            machine_ms: milliseconds(machine),
            growth_mb: (most_mb - self.memory_before_mb).max(0.0),
        })
    }
}

/// How long each reply took, and the longest that a pause was too long.
fn ask_for_health(client: &mut Client, until: &AtomicBool) -> Result<(Vec<Duration>, Duration)> {
    let mut latencies = Vec::new();
    let mut machine = Duration::ZERO;
    let began = Instant::now();
    loop {
        let start = Instant::now();
        let reply =
            client.ask(br#"{"action":"health"}"#).map_err(|error| format!("`health` got no answer: {error}"))?;
        let latency = start.elapsed();
        latencies.push(latency);
        if latency > LONG {
            let after = start.duration_since(began).as_secs_f64();
            eprintln!("attacks: `health` took {:.0} ms, {after:.2} s after the attack began", milliseconds(latency));
        }
        if !reply.success {
            return Err(format!("`health` was answered {}", reply.text()).into());
        }
        if until.load(Ordering::Relaxed) {
            return Ok((latencies, machine));
        }
        let start = Instant::now();
        sleep(PAUSE);
        machine = machine.max(start.elapsed() - PAUSE);
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What a process has in memory.
fn resident_mb(pid: u32) -> Result<f64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: f64 = statm.split(' ').nth(1).ok_or("/proc/PID/statm is short")?.parse()?;
    Ok(pages * PAGE_BYTES / 1e6)
}
