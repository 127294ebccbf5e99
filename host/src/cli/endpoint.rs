//! Where a registry is: `tcp://host:port`, or just `host:port`, or `ipc://path`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::arguments::Connection;
use super::output::Failure;
use crate::config;
use registry_zmtp::client::Address;

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A name or an address (an IPv6 address without its brackets), and a port.
    Tcp { host: String, port: u16 },
    /// A Unix socket.
    Ipc(PathBuf),
}

impl Endpoint {
    /// Where the same registry's events are: on this port of the same host, or in the same directory.
    pub(super) fn of_events(&self, port: u16) -> Self {
        match self {
            Endpoint::Tcp { host, .. } => Endpoint::Tcp { host: host.clone(), port },
            Endpoint::Ipc(path) => Endpoint::Ipc(path.with_file_name("events")),
        }
    }

    pub(super) fn address(&self) -> Address {
        match self {
            Endpoint::Tcp { host, port } => Address::Tcp(host.clone(), *port),
            Endpoint::Ipc(path) => Address::Unix(path.clone()),
        }
    }
}

/// Where a client command looks for a registry: where it is told to, else where a registry that starts here would
/// serve.
///
/// # Errors
/// The configuration cannot be read, or says no port.
pub(super) fn of(connection: &Connection) -> Result<Endpoint, Failure> {
    if let Some(endpoint) = &connection.connect {
        return Ok(endpoint.clone());
    }
    let from = &connection.from;
    let loaded = config::load(from.config.as_deref(), &from.set)
        .map_err(|error| Failure::Failed(format!("{error}; --connect says where the registry is without that")))?;
    let server = &loaded.config.server;
    if server.req_port == 0 {
        let origin = &loaded.origins["server.req_port"];
        return Err(Failure::Failed(format!(
            "server.req_port is 0 ({origin}), a free port that only the registry's log tells: say it by --connect"
        )));
    }
    let host = match server.listen_ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        ip => ip.to_string(),
    };
    Ok(Endpoint::Tcp { host, port: server.req_port })
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected tcp://HOST:PORT or HOST:PORT, such as 127.0.0.1:5556 or [::1]:5556, or \
                                ipc://PATH, such as ipc:///run/registry/requests";
        if let Some(path) = text.strip_prefix("ipc://") {
            return if path.is_empty() { Err(EXPECTED.to_string()) } else { Ok(Endpoint::Ipc(path.into())) };
        }
        let address = text.strip_prefix("tcp://").unwrap_or(text);
        let (host, port) = address.rsplit_once(':').ok_or(EXPECTED)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(EXPECTED)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host != "*" && host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c)),
        };
        match is_host {
            true => Ok(Endpoint::Tcp { host: bracketed.unwrap_or(host).to_string(), port }),
            false => Err(EXPECTED.to_string()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
            Endpoint::Ipc(path) => write!(f, "ipc://{}", path.display()),
        }
    }
}
