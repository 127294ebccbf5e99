//! `[http]`: HTTP beside ZeroMQ.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::security::grant;
use crate::security::access::{Grant, Pattern, Right};
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
    /// The registry's certificate for TLS, and those that lead to its authority: PEM.
    pub certificate_file: Option<PathBuf>,
    /// The private key of the certificate: PEM.
    pub key_file: Option<PathBuf>,
    /// The authorities whose certificates clients may show: PEM.
    pub client_ca_file: Option<PathBuf>,
    /// Lists of certificates that these authorities have revoked: PEM.
    pub client_crl_file: Option<PathBuf>,
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
    /// What clients may do that have a certificate.
    pub rules: Vec<ClientRule>,
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

/// `[[http.rules]]`, as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientRule {
    /// Patterns of the names of certificates.
    pub clients: Vec<String>,
    /// What they may do.
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
            certificate_file: None,
            key_file: None,
            client_ca_file: None,
            client_crl_file: None,
            hosts: Vec::new(),
            connections: 1000,
            connections_per_address: 500,
            request_timeout: 10.0,
            buffered_bytes: 64 << 20,
            tokens: Vec::new(),
            rules: Vec::new(),
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

    /// What those that have a token may do.
    pub(super) fn grants(&self) -> impl Iterator<Item = (Name, Grant)> {
        self.tokens.iter().filter_map(|token| {
            let Token { name, allow, types, names, .. } = token;
            Some((Name::new(name)?, grant(None, allow, types, names)))
        })
    }

    /// What those that have a certificate may do; `None` if certificates are not looked at.
    pub(super) fn certificate_grants(&self) -> Option<impl Iterator<Item = (Vec<Pattern>, Grant)>> {
        self.client_ca_file.is_some().then(|| {
            self.rules.iter().map(|ClientRule { clients, allow, types, names }| {
                let clients = clients.iter().map(|name| Pattern::new(name.as_str())).collect();
                (clients, grant(None, allow, types, names))
            })
        })
    }

    /// Whether clients prove who they are, by tokens or certificates.
    pub fn asks_for_proof(&self) -> bool {
        !self.tokens.is_empty() || self.client_ca_file.is_some()
    }

    /// How long a client may take to send a request.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.request_timeout)
    }
}
