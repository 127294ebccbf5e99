//! Where a request comes from.

use std::net::{IpAddr, SocketAddr};

use super::principal::Principal;

/// The other end of a connection, as far as it is known. Only to be shown: rights do not go by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// The front does not know.
    #[default]
    Unknown,
    /// A Unix socket on this machine.
    Ipc,
    /// An address and a port.
    Tcp(SocketAddr),
}

impl Address {
    /// The address of a peer over TCP, or of one over a Unix socket.
    pub fn of_peer(address: Option<SocketAddr>) -> Self {
        address
            .map_or(Address::Ipc, |address| Address::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port())))
    }

    /// As it is shown, if it is known.
    pub fn shown(&self) -> Option<String> {
        match self {
            Address::Unknown => None,
            Address::Ipc => Some("ipc".into()),
            Address::Tcp(address) => Some(address.to_string()),
        }
    }

    /// What was shown so.
    pub fn read(shown: &str) -> Self {
        match shown {
            "ipc" => Address::Ipc,
            shown => shown.parse().map_or(Address::Unknown, Address::Tcp),
        }
    }

    /// Whether both are the same machine, as far as is known: a client that connects anew has another port.
    pub fn is_near(&self, other: &Address) -> bool {
        self.ip() == other.ip() && std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    fn ip(&self) -> Option<IpAddr> {
        match self {
            Address::Tcp(address) => Some(address.ip()),
            Address::Unknown | Address::Ipc => None,
        }
    }
}

/// Who asks, and from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Who asks, as far as it is proved.
    pub principal: Principal,
    /// From where.
    pub address: Address,
}

impl From<Principal> for Origin {
    fn from(principal: Principal) -> Self {
        Origin { principal, address: Address::Unknown }
    }
}
