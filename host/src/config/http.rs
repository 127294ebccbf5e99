//! `[http]`: HTTP beside ZeroMQ.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::security::grant;
use crate::security::access::{Grant, Right};
use crate::security::principal::Name;
use crate::security::token::Tokens;

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
    /// By which clients prove who they are.
    pub tokens: Vec<Token>,
}

/// `[[http.tokens]]`, as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What it is known by.
    pub name: String,
    /// What is kept of it.
    pub hash: String,
    /// What its holder may do.
    pub allow: Vec<Right>,
    /// Patterns of types; none for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Patterns of names; none for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
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
            tokens: Vec::new(),
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

    /// The tokens as they are used. `load` refuses what is none; in a hand-made configuration nobody has such a token.
    pub fn tokens(&self) -> Tokens {
        let token = |token: &Token| Some((Name::new(&token.name)?, token.hash.parse().ok()?));
        Tokens::new(self.tokens.iter().filter_map(token).collect())
    }

    /// What those that have one may do.
    pub(super) fn grants(&self) -> impl Iterator<Item = (Name, Grant)> {
        self.tokens.iter().filter_map(|token| {
            let Token { name, allow, types, names, .. } = token;
            Some((Name::new(name)?, grant(None, allow, types, names)))
        })
    }

    /// How long a client may take to send a request.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.request_timeout)
    }
}
