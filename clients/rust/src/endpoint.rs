//! Where a registry is: `tcp://host:port`, or just `host:port`, or `ipc://path`.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use registry_zmtp::client::Address;

/// The port for requests, where a registry says no other.
const PORT_DEFAULT: u16 = 5556;

/// Where a registry takes requests.
///
/// ```
/// use registry_client::Endpoint;
///
/// let endpoint: Endpoint = "tcp://registry.example:5556".parse()?;
/// assert_eq!(endpoint.to_string(), "registry.example:5556");
/// assert_eq!("[::1]:6556".parse::<Endpoint>()?, Endpoint::Tcp { host: "::1".into(), port: 6556 });
/// assert_eq!("ipc:///run/registry/requests".parse::<Endpoint>()?, Endpoint::Ipc("/run/registry/requests".into()));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Over TCP.
    Tcp {
        /// A name or an address: an IPv6 address without its brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Ipc(PathBuf),
}

impl Endpoint {
    pub(crate) fn address(&self) -> Address {
        match self {
            Endpoint::Tcp { host, port } => Address::Tcp(host.clone(), *port),
            Endpoint::Ipc(path) => Address::Unix(path.clone()),
        }
    }

    /// One of the settings' hosts: the port may be left out there.
    pub(crate) fn of_host(text: &str) -> Result<Self, String> {
        text.parse().or_else(|error| {
            let has_port = text.contains("://") || text.rsplit_once(']').map_or(text, |(_, rest)| rest).contains(':');
            if has_port { Err(error) } else { format!("{text}:{PORT_DEFAULT}").parse() }
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_the_settings_may_leave_out_its_port() {
        let shown = |text: &str| Endpoint::of_host(text).map(|endpoint| endpoint.to_string());
        assert_eq!(shown("registry"), Ok("registry:5556".into()));
        assert_eq!(shown("[::1]"), Ok("[::1]:5556".into()));
        assert_eq!(shown("tcp://a:1"), Ok("a:1".into()));
        assert_eq!(shown("ipc:///a"), Ok("ipc:///a".into()));
        for wrong in ["", "a:", "a:x", "a:0", "tcp://a", "ipc://", "::1", "a b"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }
}
