//! A registry that is attacked.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Result;
use crate::client::Client;

const START_MAX: Duration = Duration::from_secs(20);
/// Where ports are looked for: below those that systems give away by themselves.
const PORTS_FROM: u16 = 10_000;
const PORTS: u16 = 20_000;

/// A registry's process, until this is dropped.
pub(crate) struct Host {
    process: Child,
    directory: TempDir,
    pub(crate) requests: u16,
    pub(crate) events: u16,
    pub(crate) http: u16,
    /// When it was ready.
    pub(crate) started: Instant,
}

impl Host {
    /// Starts a registry in an empty directory, and waits until it listens.
    pub(crate) fn start(registry: &Path, plugin: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("registry-attacks-").tempdir()?;
        let [requests, events, heartbeats, http] = free_ports()?;
        let mut config =
            format!("[server]\nreq_port = {requests}\npub_port = {events}\nheartbeat_port = {heartbeats}\n");
        writeln!(config, "[http]\nport = {http}\n[backend]\nplugin = \"{plugin}\"")?;
        let config_path = directory.path().join("registry.toml");
        std::fs::write(&config_path, config)?;
        let log = File::create(directory.path().join("log"))?;
        let mut command = Command::new(registry);
        command.arg("serve").arg("--config").arg(&config_path).current_dir(directory.path());
        for (key, value) in settings {
            command.arg("--set").arg(format!("{key}={value}"));
        }
        // Nothing from outside may change the configuration.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("REGISTRY_")) {
            command.env_remove(name);
        }
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut host = Host { process, directory, requests, events, http, started: Instant::now() };
        while TcpStream::connect(("127.0.0.1", events)).is_err() {
            if host.has_ended()? || host.started.elapsed() > START_MAX {
                return Err(format!("{} does not start:\n{}", registry.display(), host.log()?).into());
            }
            sleep(Duration::from_millis(10));
        }
        // It listens before it has loaded what there is.
        while !Client::connect(host.requests)?.ask(br#"{"action":"health"}"#)?.success {
            sleep(Duration::from_millis(10));
        }
        host.started = Instant::now();
        Ok(host)
    }

    /// Whether the process is gone.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.try_wait()?.is_some())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The size of the log in MB.
    pub(crate) fn log_mb(&self) -> Result<f64> {
        Ok(std::fs::metadata(self.directory.path().join("log"))?.len() as f64 / 1e6)
    }

    fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.directory.path().join("log"))?)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may be gone already, and then there is nothing to do.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The registry that cargo has built beside this program.
pub(crate) fn built_along() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let registry = program.ancestors().nth(2).map(|directory| directory.join("registry"));
    registry.filter(|path| path.is_file()).ok_or_else(|| {
        "no registry beside this program: build it (`cargo build --release`), or name one with --registry".into()
    })
}

/// Four ports that are free now; held together, so that they differ.
fn free_ports() -> Result<[u16; 4]> {
    let first = PORTS_FROM + (std::process::id() % u32::from(PORTS)) as u16;
    let mut found: Vec<TcpListener> = Vec::new();
    for port in (first..PORTS_FROM + PORTS).chain(PORTS_FROM..first) {
        found.extend(TcpListener::bind(("127.0.0.1", port)));
        if let [a, b, c, d] = &found[..] {
            let [a, b, c, d] = [a, b, c, d].map(TcpListener::local_addr);
            return Ok([a?.port(), b?.port(), c?.port(), d?.port()]);
        }
    }
    Err("no four ports are free".into())
}
