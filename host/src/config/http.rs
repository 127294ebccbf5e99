//! `[http]`: HTTP beside ZeroMQ.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[http]`: HTTP beside ZeroMQ.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Whether it is served at all.
    pub enabled: bool,
    /// The address to listen on: an IP address, or `*` for all.
    pub bind: String,
    /// The port; 0 is a free one.
    pub port: u16,
    /// Whether what is said may cross a network in plain text.
    pub plain_text: bool,
    /// The names that the registry is reached by, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// The most connections at the same time.
    pub connections: u32,
    /// The most of them from one address.
    pub connections_per_address: u32,
    /// Seconds that a client may take to send a request.
    pub request_timeout: f64,
    /// The most bytes that wait for or from all clients together.
    pub buffered_bytes: u32,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            enabled: true,
            bind: "127.0.0.1".to_string(),
            port: 5559,
            plain_text: false,
            hosts: Vec::new(),
            connections: 1000,
            connections_per_address: 500,
            request_timeout: 10.0,
            buffered_bytes: 64 << 20,
        }
    }
}

impl Http {
    /// The address to listen on, if HTTP is served. `*` is every IPv4 address of the machine.
    pub fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = match self.bind.as_str() {
            "*" => Ipv4Addr::UNSPECIFIED.into(),
            // `load` refuses everything else: only a hand-made configuration falls back to loopback.
            address => address.parse().unwrap_or(Ipv4Addr::LOCALHOST.into()),
        };
        self.enabled.then(|| SocketAddr::new(ip, self.port))
    }

    /// How long a client may take to send a request.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.request_timeout)
    }
}
