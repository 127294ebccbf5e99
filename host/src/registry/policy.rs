//! What the core is told when it starts: the operator's rules, what the store promises, what `info` says.

use crate::security::access::Access;

/// The rules that an operator sets.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whether a service type is unique unless a service says otherwise.
    pub enforce_unique_service_types: bool,
    /// Whether a client may stop the server.
    pub allow_terminate: bool,
    /// Whether clients who need not prove who they are may have the registry moved to another store.
    pub allow_swap: bool,
    /// How long a client waits for the store, in milliseconds.
    pub reply_timeout_ms: u64,
    /// How often critical services are removed, in milliseconds.
    pub cleanup_interval_ms: u64,
    /// How long a call of the store may take before the store counts as stalled, in milliseconds.
    pub call_timeout_ms: u64,
    /// How many changes may wait for the store.
    pub pending_changes_max: usize,
    /// How long they may be together, in bytes.
    pub pending_bytes_max: usize,
    /// How much memory all services may take together, in bytes, before no more are registered.
    pub services_bytes_max: usize,
    /// Who may do what.
    pub access: Access,
    /// How much clients may follow.
    pub following: Following,
    /// The share of all services above which those that run out together are a mass expiry; 0 for never.
    pub mass_expiry_share: f64,
    /// How long they are held then, in milliseconds.
    pub mass_expiry_hold_ms: u64,
}

/// How many recent changes are kept for those who follow them, and how many may wait for the next.
#[derive(Clone, Copy, Debug)]
pub struct Following {
    /// The most changes.
    pub changes: usize,
    /// The most memory that they take together, in bytes.
    pub bytes: usize,
    /// The most watchers that wait.
    pub watchers: usize,
    /// The most of them of one address, or of one key.
    pub watchers_per_address: usize,
}

impl Default for Following {
    fn default() -> Self {
        Following { changes: 100_000, bytes: 64 << 20, watchers: 20_000, watchers_per_address: 10_000 }
    }
}

/// What the store promises, as far as the core acts on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Promises {
    /// It has a say in `discover`.
    pub balances: bool,
    /// It keeps what clients are told of each change.
    pub history: bool,
}

/// What `info` tells of the server, besides the services.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The port for requests.
    pub req_port: u16,
    /// The port for events.
    pub pub_port: u16,
    /// The port for heartbeats.
    pub heartbeat_port: u16,
    /// The port for HTTP, if it is served.
    pub http_port: Option<u16>,
    /// The host's version.
    pub version: String,
    /// The storage plugin's name.
    pub plugin: String,
}
