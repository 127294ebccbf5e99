//! What the load and the server cost.

use std::time::Instant;

use serde_json::{Value, json};

use crate::Result;

/// Clock ticks per second in `/proc/PID/stat`: the same on every Linux that Rust knows.
const TICKS_PER_SECOND: f64 = 100.0;

/// A moment to measure from.
pub(crate) struct Meter {
    start: Instant,
    pid: Option<u32>,
    server: Option<f64>,
    own: f64,
    machine: f64,
}

impl Meter {
    /// Starts measuring, and the server's process too if there is one to look at.
    pub(crate) fn start(pid: Option<u32>) -> Result<Self> {
        let server = pid.map(cpu_seconds).transpose()?;
        let own = cpu_seconds(std::process::id())?;
        Ok(Meter { pid, server, own, machine: machine_seconds()?, start: Instant::now() })
    }

    /// The report on this many things, called `name`, with the time that each took in `latencies_ns`.
    pub(crate) fn report(self, name: &str, count: u64, latencies_ns: &mut [u32]) -> Result<Value> {
        let seconds = self.start.elapsed().as_secs_f64();
        let server_after = self.pid.map(cpu_seconds).transpose()?;
        let own = cpu_seconds(std::process::id())? - self.own;
        let machine = machine_seconds()? - self.machine;
        if count == 0 {
            return Err(format!("no {name} within the {seconds:.1} s that were measured").into());
        }
        let server = server_after.zip(self.server).map(|(after, before)| after - before);
        latencies_ns.sort_unstable();
        Ok(json!({
            name: count,
            "seconds": seconds,
            "per_second": count as f64 / seconds,
            "p50_us": percentile_us(latencies_ns, 0.5),
            "p99_us": percentile_us(latencies_ns, 0.99),
            "max_us": percentile_us(latencies_ns, 1.0),
            "server_cpu_seconds": server,
            "server_cpu_seconds_per_100k": server.map(|server| server * 100_000.0 / count as f64),
            "load_cores": own / seconds,
            // Nothing is known of the server's share if it is not named.
            "other_cores": server.map(|server| ((machine - own - server) / seconds).max(0.0)),
        }))
    }
}

fn percentile_us(sorted_ns: &[u32], part: f64) -> Option<f64> {
    let index = (sorted_ns.len().saturating_sub(1)) as f64 * part;
    sorted_ns.get(index as usize).map(|ns| f64::from(*ns) / 1000.0)
}

/// Time that the machine's processors were not idle, all together.
fn machine_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let total = stat.lines().next().ok_or("nothing in /proc/stat")?;
    // user, nice, system, idle, iowait, irq, softirq, steal
    let ticks: Vec<f64> =
        total.split_whitespace().skip(1).take(8).map(str::parse).collect::<std::result::Result<_, _>>()?;
    let [user, nice, system, _, _, irq, softirq, steal] = ticks[..] else { return Err("/proc/stat is short".into()) };
    Ok((user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND)
}

/// User and system time that a process has used so far.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, which may hold spaces: count from behind it.
    let fields = stat.rsplit_once(") ").ok_or("no program name in /proc/PID/stat")?.1;
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).map(str::parse).collect::<std::result::Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}
