//! What the system knows of this process, as it stands in `/proc/self`.

use std::fs;

/// What it takes.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) threads: u64,
    pub(super) open_fds: u64,
    pub(super) fds_max: Option<u64>,
}

impl Process {
    /// Reads it; what cannot be read is 0.
    #[expect(clippy::disallowed_methods, reason = "no disk, and on the thread of HTTP")]
    pub(super) fn read() -> Self {
        let text = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let (stat, status) = (text("stat"), text("status"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
        };
        // One of those that are counted is open for the counting.
        let open_fds = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1) as u64);
        Process {
            cpu_seconds: ticks(&stat) as f64 / rustix::param::clock_ticks_per_second() as f64,
            resident_bytes: field("VmRSS:") * 1024,
            threads: field("Threads:"),
            open_fds,
            fds_max: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        }
    }
}

/// For how long the process was on a processor. The name before these fields may have blanks in it.
fn ticks(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_something_of_everything() {
        assert_eq!(ticks("7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13"), 23);
        let process = Process::read();
        assert!(process.resident_bytes > 1 << 16 && process.threads > 0 && process.open_fds > 2, "{process:?}");
    }
}
