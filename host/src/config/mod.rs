//! The configuration: what the operator says in `registry.toml`, in the environment and on the command line.
//!
//! Four layers, each over the one before: the defaults, `registry.toml`, `REGISTRY_*` variables, `--set` flags. Each is
//! checked as it is read (`layer`, `file`, `environment`) against the list of known keys (`schema`): only then is it
//! known where a value stands, and an error that cannot say where is half an error. The `config` crate lays the layers
//! over each other. The file in the root of the repository explains every key.

mod check;
mod environment;
mod error;
mod events;
mod file;
mod http;
mod layer;
mod limits;
mod options;
mod plugin;
mod quotas;
mod reload;
mod rules;
mod schema;
mod security;
mod show;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use error::ConfigError;
pub use events::Events;
pub use http::Http;
use layer::{Entry, Layer};
pub use limits::Limits;
pub use quotas::Quota;
pub use reload::{Changed, Source, changed};
pub(crate) use rules::{RIGHTS, token_problem};
pub use security::{Mechanism, Rule, Security};

use crate::registry::Following;
use crate::security::access::Access;

/// The file that is read if it is there and no other is named.
pub const DEFAULT_FILE: &str = "registry.toml";

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[server]`: the sockets and the rules.
    pub server: Server,
    /// `[http]`: HTTP beside ZeroMQ.
    pub http: Http,
    /// `[limits]`: what clients may cost.
    pub limits: Limits,
    /// `[events]`: what is kept of what has happened, and what clients can follow.
    pub events: Events,
    /// `[security]`: who may come in, and do what.
    pub security: Security,
    /// `[log]`: what is logged, and how.
    pub log: Log,
    /// `[backend]`: where services are stored.
    pub backend: Backend,
}

/// `[server]`: the sockets and the rules.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The address to listen on: an IP address, or `*` for all.
    pub bind: String,
    /// Whether all who can reach `bind` may do everything.
    pub trusted_network: bool,
    /// What speaks ZeroMQ.
    pub transport: Transport,
    /// The port for requests; 0 is a free one.
    pub req_port: u16,
    /// The port for events; 0 is a free one.
    pub pub_port: u16,
    /// The port for heartbeats; 0 is a free one.
    pub heartbeat_port: u16,
    /// Where Unix sockets are made for clients on this machine.
    pub ipc_dir: Option<PathBuf>,
    /// Seconds from one search for expired services to the next.
    pub cleanup_interval: f64,
    /// The share of all services above which those that expire together are held; 0 to hold none.
    pub mass_expiry_share: f64,
    /// Seconds for which they are held at most.
    pub mass_expiry_hold: f64,
    /// Whether a service type may be registered only once, unless the request says otherwise.
    pub enforce_unique_service_types: bool,
    /// Whether a client may stop the registry.
    pub allow_terminate: bool,
    /// Whether a client that need not prove who it is may have the registry moved to another storage.
    pub allow_swap: bool,
    /// The most requests that the server takes off a socket before it has answered the earlier ones.
    pub receive_high_water_mark: u32,
    /// The most changes that may wait for the storage; beyond that clients are told `overloaded`.
    pub pending_changes_max: u32,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            bind: "127.0.0.1".to_string(),
            trusted_network: false,
            transport: Transport::Zmtp,
            req_port: 5556,
            pub_port: 5557,
            heartbeat_port: 5558,
            ipc_dir: None,
            cleanup_interval: 10.0,
            mass_expiry_share: 0.2,
            mass_expiry_hold: 30.0,
            enforce_unique_service_types: false,
            allow_terminate: false,
            allow_swap: false,
            receive_high_water_mark: 512,
            pending_changes_max: 10_000,
        }
    }
}

impl Server {
    /// The address to listen on. `*` is every IPv4 address of the machine; `::` says the same for IPv6 as well.
    pub fn listen_ip(&self) -> IpAddr {
        // `load` refuses everything else: only a hand-made configuration falls back to loopback.
        match self.bind.as_str() {
            "*" => Ipv4Addr::UNSPECIFIED.into(),
            address => address.parse().unwrap_or(Ipv4Addr::LOCALHOST.into()),
        }
    }

    /// From one search for expired services to the next.
    pub fn cleanup_interval(&self) -> Duration {
        Duration::from_secs_f64(self.cleanup_interval)
    }

    /// For how long services that expire together are held at most.
    pub fn mass_expiry_hold(&self) -> Duration {
        Duration::from_secs_f64(self.mass_expiry_hold)
    }
}

/// What speaks ZeroMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// The one made for facing clients.
    Zmtp,
    /// The `zeromq` crate.
    ZeroMq,
}

impl Config {
    /// Who may do what.
    pub fn access(&self) -> Access {
        let access = self.security.access().with_tokens(self.http.grants());
        match self.http.certificate_grants() {
            Some(grants) => access.with_certificates(grants),
            None => access,
        }
    }

    /// How much clients may follow.
    pub fn following(&self) -> Following {
        Following {
            changes: self.events.history_changes as usize,
            bytes: self.events.history_bytes as usize,
            watchers: self.limits.waiting_watchers as usize,
            watchers_per_address: self.limits.waiting_watchers_per_address as usize,
        }
    }
}

/// `[log]`: what is logged, and how.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A filter in the words of `tracing`: `info`, or `info,registry_sqlite=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
    /// Where it is written who did what: `log`, or a file.
    pub audit: Option<String>,
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".to_string(), format: LogFormat::Text, audit: None }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines to be read.
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

/// `[backend]`: where services are stored.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The plugin: a short name such as `sqlite`, or a path to a library.
    pub plugin: String,
    /// Where to look for plugins first.
    pub plugin_dir: Option<PathBuf>,
    /// The most seconds that a client waits for the storage.
    pub reply_timeout: f64,
    /// The most seconds that a call of the plugin may take.
    pub call_timeout: f64,
    /// Whether a store is opened whose place another one has taken.
    pub reopen_closed: bool,
    /// The plugin's options. The plugin says which there are.
    #[serde(default)]
    pub options: Map<String, Value>,
}

impl Default for Backend {
    fn default() -> Self {
        Backend {
            plugin: "sqlite".to_string(),
            plugin_dir: None,
            reply_timeout: 0.4,
            call_timeout: 5.0,
            reopen_closed: false,
            options: Map::new(),
        }
    }
}

impl Backend {
    /// The longest that a client waits for the storage.
    pub fn reply_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.reply_timeout)
    }

    /// The longest that a call of the plugin may take.
    pub fn call_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.call_timeout)
    }
}

/// A configuration, and where it comes from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// The origin of each value by its dotted key: `default`, the file as it was named, the environment variable, or
    /// `--set`.
    pub origins: BTreeMap<String, String>,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// How to read it again.
    pub source: Source,
    /// Options for other plugins than the configured one (`backend.options.memory.…`), which are not in force.
    pub unused: Vec<String>,
    /// Where each value stands, in force or not: as `origins`, with the line of the file.
    places: BTreeMap<String, String>,
}

impl Loaded {
    /// Whether somebody has said what stands at a key.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.get(key).is_some_and(|origin| origin != layer::DEFAULT)
    }
}

/// Reads the configuration: defaults, file, environment, then `sets` (`key=value`, the later one wins).
///
/// Without `file`, `registry.toml` in the working directory is read if it is there.
///
/// # Errors
/// Everything that is wrong, each in one line that names key, value, origin and what was expected. A file that is
/// named but cannot be read is an error.
pub fn load(file: Option<&Path>, sets: &[String]) -> Result<Loaded, ConfigError> {
    let mut problems = Vec::new();
    let (path, from_file) = read_file(file, &mut problems);
    let from_environment = environment::read(std::env::vars_os(), &from_file, &mut problems);
    let from_flags = layer::from_sets(sets, &[&from_file, &from_environment], &mut problems);
    let layers = [Layer::defaults(), from_file, from_environment, from_flags];

    if !problems.is_empty() {
        return Err(ConfigError::new(problems));
    }
    let (layers, unused) = options::for_plugin(layers);
    check::across_keys(&layers).map_err(ConfigError::new)?;
    let mut config = layer::merge(&layers).map_err(|error| ConfigError::new(vec![error.to_string()]))?;
    // The merged table has no order, and what is said about options must be the same each time.
    config.backend.options.sort_keys();
    let origins = layers.iter().flat_map(Layer::origins).collect();
    let entries = unused.iter().chain(layers.iter().flat_map(|layer| &layer.entries));
    let places = entries.map(|entry| (entry.key(), entry.origin.to_string())).collect();
    let unused = unused.iter().map(Entry::key).collect();
    let source = Source { file: file.map(Path::to_path_buf), sets: sets.to_vec() };
    Ok(Loaded { config, origins, file: path, source, unused, places })
}

fn read_file(file: Option<&Path>, problems: &mut Vec<String>) -> (Option<PathBuf>, Layer) {
    let default = Path::new(DEFAULT_FILE);
    let read = match file {
        Some(path) => file::read(path, problems).map(|layer| (path, layer)),
        None if default.exists() => file::read(default, problems).map(|layer| (default, layer)),
        None => None,
    };
    read.map_or_else(|| (None, Layer::default()), |(path, layer)| (Some(path.to_path_buf()), layer))
}
