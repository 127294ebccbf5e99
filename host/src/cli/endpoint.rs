//! Where a registry is: `tcp://host:port`, or just `host:port`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A TCP endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// A name or an address; an IPv6 address without its brackets.
    host: String,
    port: u16,
}

impl Endpoint {
    /// Another port of the same host.
    pub(super) fn with_port(&self, port: u16) -> Self {
        Endpoint { host: self.host.clone(), port }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected tcp://HOST:PORT or HOST:PORT, such as 127.0.0.1:5556 or [::1]:5556";
        let address = text.strip_prefix("tcp://").unwrap_or(text);
        let (host, port) = address.rsplit_once(':').ok_or(EXPECTED)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(EXPECTED)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host != "*" && host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c)),
        };
        match is_host {
            true => Ok(Endpoint { host: bracketed.unwrap_or(host).to_string(), port }),
            false => Err(EXPECTED.to_string()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "tcp://[{}]:{}", self.host, self.port),
            false => write!(f, "tcp://{}:{}", self.host, self.port),
        }
    }
}
