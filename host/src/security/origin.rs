//! Where a request comes from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::key::PublicKey;
use super::principal::{Name, Principal};

/// The first 64 bits, which say which network it is.
const IPV6_NETWORK: u128 = !0 << 64;

/// The other end of a connection, as far as it is known. Only to be shown: rights do not go by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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

/// What counts as one address: a whole network of IPv6, of which anybody has all addresses.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK)),
        address => address,
    }
}

/// By whom it is counted what clients take of something that all share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Whoever has this key, from wherever.
    Key(PublicKey),
    /// Whoever has the token of this name, from wherever.
    Token(Name),
    /// Whoever has a certificate with this name, from wherever.
    Certificate(Name),
    /// Everybody in this network, as [`Holder::network`] has it.
    Network(IpAddr),
    /// Everybody over this machine's Unix sockets.
    Ipc,
    /// Everybody of whom nothing is known.
    Unknown,
}

impl Holder {
    /// What counts as one client of those that have proved nothing: besides what counts as one address, this machine's
    /// loopback network, of which whoever is on it has all addresses.
    pub fn network(address: IpAddr) -> IpAddr {
        match network(address) {
            IpAddr::V4(address) if address.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            network => network,
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

impl Origin {
    /// By whom is counted what this one takes.
    pub fn holder(&self) -> Holder {
        match (self.principal, self.address) {
            (Principal::Key(key), _) => Holder::Key(key),
            (Principal::Token(name), _) => Holder::Token(name),
            (Principal::Certificate(name), _) => Holder::Certificate(name),
            (Principal::Nobody | Principal::Stranger, Address::Tcp(address)) => {
                Holder::Network(Holder::network(address.ip()))
            }
            (Principal::Nobody | Principal::Stranger, Address::Ipc) => Holder::Ipc,
            (Principal::Nobody | Principal::Stranger, Address::Unknown) => Holder::Unknown,
        }
    }
}

impl From<Principal> for Origin {
    fn from(principal: Principal) -> Self {
        Origin { principal, address: Address::Unknown }
    }
}
