//! How much each client may have: the operator's quotas, ready for use.
//!
//! A quota is for clients, and each of them may have as much as it says: whoever has the same key or the same token is
//! one client, and of those that have proved nothing all that come from one network (see [`Holder`]). Of several quotas
//! that bound the same, the first one counts that names a client; so an exception stands before the rule.
//!
//! Pure: who somebody is goes in, and what it may have comes out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::access::Pattern;
use super::origin::Holder;

/// Something that is bounded for each client by itself: all its services, or those of some types.
pub type Class = usize;

/// All services of a client, whatever their types.
pub const ALL_SERVICES: Class = 0;

/// How much each of some clients may have.
#[derive(Clone, Debug)]
pub struct Quota {
    /// What operators call it.
    pub name: Arc<str>,
    /// Whose it is.
    pub clients: Vec<Whose>,
    /// The most services that each may have registered at once.
    pub services: Option<usize>,
    /// Only services count one of whose types matches one of these; empty for all.
    pub types: Vec<Pattern>,
    /// The requests that each may make.
    pub requests: Option<Rate>,
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// How often in a second, on average.
    pub per_second: f64,
    /// How often at once, after a rest.
    pub burst: f64,
}

/// Some clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Everybody.
    Everybody,
    /// This one.
    One(Holder),
    /// All that have proved nothing and come from addresses that begin with so many bits of this one.
    Network(IpAddr, u8),
}

/// All quotas.
#[derive(Clone, Debug)]
pub struct Quotas {
    classes: Vec<Counted>,
    requests: Choice,
}

/// Services that are counted together.
#[derive(Clone, Debug, Default)]
struct Counted {
    types: Vec<Pattern>,
    quotas: Choice,
}

/// Quotas that bound the same, in their order.
#[derive(Clone, Debug, Default)]
struct Choice {
    quotas: Vec<Arc<Quota>>,
    /// The first that names one client, and the first that is for everybody.
    ones: HashMap<Holder, usize>,
    everybody: Option<usize>,
    networks: Vec<(IpAddr, u8, usize)>,
}

impl Default for Quotas {
    fn default() -> Self {
        Quotas::new(Vec::new())
    }
}

impl Quotas {
    /// These, in their order.
    pub fn new(all: Vec<Quota>) -> Self {
        let mut classes = vec![Counted::default()];
        let mut requests = Choice::default();
        for quota in all.into_iter().map(Arc::new) {
            if quota.requests.is_some() {
                requests.add(quota.clone());
            }
            if quota.services.is_some() {
                let class = classes.iter().position(|class| class.types == quota.types).unwrap_or_else(|| {
                    classes.push(Counted { types: quota.types.clone(), ..Counted::default() });
                    classes.len() - 1
                });
                classes[class].quotas.add(quota);
            }
        }
        Quotas { classes, requests }
    }

    /// What a service with these types counts among.
    pub fn classes<'a>(&self, types: impl Iterator<Item = &'a str> + Clone) -> impl Iterator<Item = Class> {
        let counts = move |class: &Counted| {
            class.types.is_empty() || types.clone().any(|name| class.types.iter().any(|pattern| pattern.matches(name)))
        };
        (ALL_SERVICES..).zip(&self.classes).filter(move |(_, class)| counts(class)).map(|(class, _)| class)
    }

    /// The quota that bounds how many services of this class a client may have, if one does.
    pub fn of_services(&self, class: Class, holder: &Holder) -> Option<&Arc<Quota>> {
        self.classes.get(class)?.quotas.of(holder)
    }

    /// The quota that bounds how often a client may ask, if one does.
    pub fn of_requests(&self, holder: &Holder) -> Option<&Arc<Quota>> {
        self.requests.of(holder)
    }

    /// Whether the same services are counted together by both.
    pub fn counts_like(&self, other: &Quotas) -> bool {
        self.classes.iter().map(|class| &class.types).eq(other.classes.iter().map(|class| &class.types))
    }

    /// The names of all, each once.
    pub fn names(&self) -> Vec<Arc<str>> {
        let all = self.classes.iter().flat_map(|class| &class.quotas.quotas).chain(&self.requests.quotas);
        let mut names: Vec<Arc<str>> = all.map(|quota| quota.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Choice {
    fn add(&mut self, quota: Arc<Quota>) {
        let place = self.quotas.len();
        for whose in &quota.clients {
            match whose {
                Whose::Everybody => drop(self.everybody.get_or_insert(place)),
                Whose::One(holder) => drop(self.ones.entry(*holder).or_insert(place)),
                Whose::Network(network, bits) => self.networks.push((*network, *bits, place)),
            }
        }
        self.quotas.push(quota);
    }

    fn of(&self, holder: &Holder) -> Option<&Arc<Quota>> {
        let network = match holder {
            // All of whom nothing is known are not one client.
            Holder::Unknown => return None,
            Holder::Network(address) => {
                let mut places = self.networks.iter().filter(|(network, bits, _)| is_in(*address, *network, *bits));
                places.next().map(|(.., place)| *place)
            }
            _ => None,
        };
        let places = [self.ones.get(holder).copied(), network, self.everybody];
        places.into_iter().flatten().min().map(|place| &self.quotas[place])
    }
}

/// Whether an address begins with so many bits of another one.
fn is_in(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let differ = match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => (address.to_bits() ^ network.to_bits()).leading_zeros(),
        (IpAddr::V6(address), IpAddr::V6(network)) => (address.to_bits() ^ network.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::key::PublicKey;

    const KEY: Holder = Holder::Key(PublicKey::from_bytes([1; 32]));
    const OTHER: Holder = Holder::Key(PublicKey::from_bytes([2; 32]));

    fn at(address: &str) -> Holder {
        Holder::Network(address.parse().unwrap())
    }

    fn quota(name: &str, clients: &[Whose], services: usize, types: &[&str]) -> Quota {
        let types = types.iter().map(|text| Pattern::new(*text)).collect();
        Quota { name: name.into(), clients: clients.to_vec(), services: Some(services), types, requests: None }
    }

    #[test]
    fn the_first_that_names_a_client_counts() {
        let net = |text: &str, bits| Whose::Network(text.parse().unwrap(), bits);
        let quotas = Quotas::new(vec![
            quota("gateway", &[Whose::One(KEY), net("10.1.0.0", 16)], 1000, &[]),
            quota("all", &[Whose::Everybody], 10, &[]),
            quota("late", &[Whose::One(OTHER)], 99, &[]),
            quota("cameras", &[Whose::Everybody], 2, &["cam-*"]),
        ]);
        let name = |class, holder| quotas.of_services(class, &holder).map(|quota| &*quota.name);
        assert_eq!((name(0, KEY), name(0, OTHER)), (Some("gateway"), Some("all")), "one that comes later is none");
        assert_eq!((name(0, at("10.1.2.3")), name(0, at("10.2.0.1"))), (Some("gateway"), Some("all")));
        assert_eq!((name(1, KEY), name(0, Holder::Unknown), name(2, KEY)), (Some("cameras"), None, None));
        assert!(quotas.of_requests(&KEY).is_none());
        assert_eq!(quotas.names(), ["all", "cameras", "gateway", "late"].map(Arc::from));
    }

    #[test]
    fn services_count_by_their_types() {
        let all = |services| [Whose::Everybody].map(|whose| quota("q", &[whose], services, &["cam-*"])).to_vec();
        let quotas = Quotas::new(all(1));
        let classes = |types: &[&'static str]| quotas.classes(types.iter().copied()).collect::<Vec<_>>();
        assert_eq!((classes(&["stage", "cam-1"]), classes(&["stage"]), classes(&[])), (vec![0, 1], vec![0], vec![0]));
        assert!(quotas.counts_like(&Quotas::new(all(7))) && !quotas.counts_like(&Quotas::default()));
    }

    #[test]
    fn a_network_is_what_its_addresses_begin_with() {
        let is_in =
            |address: &str, network: &str, bits| super::is_in(address.parse().unwrap(), network.parse().unwrap(), bits);
        assert!(is_in("10.1.255.255", "10.1.0.0", 16) && !is_in("10.2.0.0", "10.1.0.0", 16));
        assert!(is_in("10.1.0.7", "10.1.0.7", 32) && !is_in("10.1.0.6", "10.1.0.7", 32));
        assert!(is_in("192.0.2.1", "0.0.0.0", 0) && !is_in("2001:db8::", "0.0.0.0", 0));
        assert!(is_in("2001:db8:0:1::", "2001:db8::", 32) && !is_in("2001:db9::", "2001:db8::", 32));
    }
}
