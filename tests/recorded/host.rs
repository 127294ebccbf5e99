//! The host: the real program, as it is started, held up and killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::registry;
use crate::history::What;
use crate::recorder::{HOST, Recorder};

/// How long a host may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a host of one seed is like.
pub(crate) struct Launch {
    pub(crate) directory: PathBuf,
    pub(crate) config: String,
    /// libfaketime's library and the file that tells it the time, if the wall clock is to be set.
    pub(crate) wall: Option<(PathBuf, PathBuf)>,
}

impl Launch {
    fn command(&self) -> Command {
        std::fs::write(self.directory.join("registry.toml"), &self.config).expect("the directory can be written");
        let mut command = registry(&self.directory);
        command.arg("serve").stderr(Stdio::piped());
        for key in ["req_port", "pub_port", "heartbeat_port"] {
            command.args(["--set".into(), format!("server.{key}=0")]);
        }
        if let Some((library, time)) = &self.wall {
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", time);
            command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command.env("FAKETIME_NO_CACHE", "1");
        }
        command
    }
}

/// A host that runs. It is killed when it goes out of scope.
pub(crate) struct Host {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Ports for requests, events and heartbeats.
    pub(crate) ports: [u16; 3],
    /// Ends with the log.
    lines: Receiver<String>,
}

/// Why a host did not start: how it ended, and its log.
pub(crate) struct NotStarted {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

impl Host {
    /// Starts a host and waits until it serves. What its log says that matters to the history is written down.
    pub(crate) fn start(launch: &Launch, life: Option<(&Arc<Recorder>, usize)>) -> Result<Host, NotStarted> {
        let mut child = launch.command().spawn().expect("the program can be started");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (sender, lines) = channel();
        let (kept, life) = (log.clone(), life.map(|(recorder, life)| (recorder.clone(), life)));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((recorder, life)) = &life {
                    notice(recorder, *life, &line);
                }
                kept.lock().expect("no thread panics with it").push(line.clone());
                let _ = sender.send(line);
            }
        });
        let mut host = Host { child, log, ports: [0; 3], lines };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match host.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(ports) = ports(&line) {
                        host.ports = ports;
                        return Ok(host);
                    }
                }
                Err(_) => {
                    let hung = Instant::now() >= deadline;
                    if hung {
                        let _ = host.child.kill();
                    }
                    let status = host.child.wait().expect("it can be waited for");
                    let log = host.log();
                    assert!(!hung, "the host neither starts nor ends:\n{log}");
                    return Err(NotStarted { status, log });
                }
            }
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no thread panics with it").join("\n")
    }

    /// Holds the host up, or lets it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the host is there");
    }

    /// Kills it and waits until it is gone: the log.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().expect("the host is there");
        self.child.wait().expect("it can be waited for");
        while self.lines.recv_timeout(Duration::from_secs(2)).is_ok() {}
        self.log()
    }

    /// Stops it in good order: how it ended, and the log.
    pub(crate) fn stop(mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                while self.lines.recv_timeout(Duration::from_secs(2)).is_ok() {}
                return (status, self.log());
            }
            assert!(Instant::now() < deadline, "the host does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The ports that a line of the log names.
fn ports(line: &str) -> Option<[u16; 3]> {
    let port = |name: &str| {
        let rest = line.split(&format!("{name} on tcp://")).nth(1)?;
        let endpoint = rest.split(|c: char| c == ',' || c.is_whitespace()).next()?;
        endpoint.rsplit(':').next()?.parse().ok()
    };
    Some([port("requests")?, port("events")?, port("heartbeats")?])
}

/// What the log says of the host's clock, and whatever else it complains of.
fn notice(recorder: &Recorder, life: usize, line: &str) {
    if ports(line).is_some() {
        return recorder.noticed(life, What::Serving { host: HOST });
    }
    let seconds_after = |words: &str| line.split(words).nth(1)?.split(' ').next()?.parse::<f64>().ok();
    if let Some(seconds) = seconds_after("no service was heard of for ") {
        let ms = (seconds * 1000.0) as u64;
        return recorder.noticed(life, What::Forgave { host: HOST, ms: ms.saturating_sub(60) });
    }
    let held_up = seconds_after("held up for ");
    if let Some(seconds) = held_up {
        // The log rounds, and a clock that is not read for a while goes on for the time between two readings.
        let ms = (seconds * 1000.0) as u64;
        let left_out_ms = ms.saturating_sub(60);
        recorder.noticed(life, What::HeldUp { host: HOST, ms: ms + 160, left_out_ms });
    } else if line.contains(" WARN ") || line.contains("ERROR ") || line.contains("panicked") {
        recorder.noticed(life, What::Note(format!("log: {line}")));
    }
}

/// Whether a log tells of a panic.
pub(crate) fn has_panicked(log: &str) -> bool {
    log.contains("panicked")
}

/// Where Debian keeps libfaketime, if it is there.
pub(crate) fn faketime() -> Option<PathBuf> {
    let architectures = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut libraries = architectures.map(|directory| directory.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.is_file())
}

/// Sets the wall clock of hosts: so many seconds away from the true one.
pub(crate) fn set_wall(time: &Path, seconds: i64) {
    let next = time.with_extension("next");
    std::fs::write(&next, format!("{seconds:+}\n")).expect("the directory can be written");
    std::fs::rename(&next, time).expect("the directory can be written");
}
