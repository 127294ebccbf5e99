//! Where a client command looks for a registry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use registry_client::Endpoint;

use super::arguments::Connection;
use super::output::Failure;
use crate::config;

/// Where it is told to, else where a registry that starts here would serve.
///
/// # Errors
/// The configuration cannot be read, or says no port.
pub(super) fn of(connection: &Connection) -> Result<Vec<Endpoint>, Failure> {
    if !connection.connect.is_empty() {
        return Ok(connection.connect.clone());
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
    Ok(vec![Endpoint::Tcp { host, port: server.req_port }])
}
