//! `[[limits.quotas]]`: how much each client may have.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::layer::one_line;
use super::rules::{EVERYBODY, each, known, missing, texts};
use crate::security::access::Pattern;
use crate::security::key::PublicKey;
use crate::security::origin::{Holder, Origin};
use crate::security::principal::{Name, Principal};
use crate::security::quota::{self, Quotas, Rate, Whose};

/// What was expected, if it is no list of quotas at all.
pub(super) const EXPECTED: &str =
    "tables [[limits.quotas]], each with name, clients, and services or requests_per_second";

/// The most quotas: each is looked at for each registration, and counted by its name.
const QUOTAS_MAX: usize = 100;
/// The most services that can be meant.
const SERVICES_MAX: i64 = 10_000_000;
/// The most and the fewest requests a second that can be meant, and the most at once.
const RATE: (f64, f64) = (0.01, 1e6);
const BURST_MAX: i64 = 10_000_000;
/// Stands for all Unix sockets of this machine.
const IPC: &str = "ipc";

/// `[[limits.quotas]]`, as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// What it is called where it refuses something.
    pub name: String,
    /// Whose it is: keys, tokens and certificates by name, addresses, networks, `ipc`, or `*` for everybody.
    pub clients: Vec<String>,
    /// The most services that each of them may have registered at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<u32>,
    /// Patterns of types: only such services count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// The most requests per second that each of them may make, on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<f64>,
    /// The most at once; those of one second, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// Says what is wrong with the quotas, if anything is.
pub(super) fn read(value: &Value) -> Result<(), String> {
    each(value, "quota", EXPECTED, read_quota)?;
    let tables: Vec<&Table> = value.as_array().into_iter().flatten().filter_map(Value::as_table).collect();
    if tables.len() > QUOTAS_MAX {
        return Err(format!("{} quotas: expected at most {QUOTAS_MAX}", tables.len()));
    }
    let mut seen = HashSet::new();
    match tables.iter().position(|quota| !seen.insert(quota["name"].as_str())) {
        Some(index) => Err(format!("quota {}: name is that of another quota: expected one of its own", index + 1)),
        None => Ok(()),
    }
}

fn read_quota(quota: &Table) -> Result<(), String> {
    known(quota, &["name", "clients", "services", "types", "requests_per_second", "burst"])?;
    let name = format!("a text of at most {} bytes", Name::BYTES_MAX);
    let value = quota.get("name").ok_or_else(|| missing("name", &name))?;
    if value.as_str().and_then(Name::new).is_none() {
        return Err(format!("name is {}: expected {name}", one_line(value)));
    }
    let clients = "a list of public keys, \"token NAME\", \"certificate NAME\", addresses, networks such as \"10.1.0.0/16\", \"ipc\", or [\"*\"] \
                   for everybody";
    let list = texts(quota, "clients", clients, |text| whose(text).is_some())?;
    list.filter(|list| !list.is_empty()).ok_or_else(|| missing("clients", clients))?;
    let services = whole(quota, "services", SERVICES_MAX)?;
    let rate = quota.get("requests_per_second");
    let is_rate = |number: f64| (RATE.0..=RATE.1).contains(&number);
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
    if let Some(value) = rate.filter(|value| !number(value).is_some_and(is_rate)) {
        let (least, most) = RATE;
        return Err(format!("requests_per_second is {}: expected a number from {least} to {most}", one_line(value)));
    }
    if services.is_none() && rate.is_none() {
        return Err("it bounds nothing: expected services, or requests_per_second, or both".into());
    }
    if whole(quota, "burst", BURST_MAX)?.is_some() && rate.is_none() {
        return Err("burst says how many requests may come at once: expected it with requests_per_second".into());
    }
    let patterns = "a list of texts that are not empty, in which * stands for any text";
    match texts(quota, "types", patterns, |text| !text.is_empty())? {
        Some(list) if list.is_empty() => {
            Err(format!("types = []: expected {patterns}; without types all services count"))
        }
        Some(_) if services.is_none() => Err("types says which services count: expected it with services".into()),
        _ => Ok(()),
    }
}

/// A whole number from 1 on, if it is there.
fn whole(quota: &Table, field: &str, most: i64) -> Result<Option<i64>, String> {
    let Some(value) = quota.get(field) else { return Ok(None) };
    let number = value.as_integer().filter(|number| (1..=most).contains(number));
    number.map(Some).ok_or_else(|| format!("{field} is {}: expected a whole number from 1 to {most}", one_line(value)))
}

/// Whom a text means, if it means anybody.
fn whose(text: &str) -> Option<Whose> {
    match text {
        EVERYBODY => return Some(Whose::Everybody),
        IPC => return Some(Whose::One(Holder::Ipc)),
        _ => {}
    }
    if let Some(principal) = Principal::read(text) {
        return Some(Whose::One(Origin::from(principal).holder()));
    }
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    // All of a network of IPv6 are one client: of a longer beginning there would be none.
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 64 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then(|| Whose::Network(Holder::network(address), bits))
}

impl Quota {
    fn to_used(&self) -> quota::Quota {
        let per_second = self.requests_per_second;
        quota::Quota {
            name: self.name.as_str().into(),
            // `load` refuses what means nobody; in a hand-made configuration such a client is nobody.
            clients: self.clients.iter().filter_map(|text| whose(text)).collect(),
            services: self.services.map(|most| most as usize),
            types: self.types.iter().map(|text| Pattern::new(text.as_str())).collect(),
            requests: per_second.map(|per_second| {
                let burst = self.burst.map_or_else(|| per_second.ceil(), f64::from);
                Rate { per_second, burst: burst.max(1.0) }
            }),
        }
    }
}

impl super::Config {
    /// What quotas are for that there is not, one line each: keys that are not known, and tokens.
    pub fn quotas_for_nobody(&self, is_known: impl Fn(&PublicKey) -> bool) -> Vec<String> {
        let missing = |client: &String| match whose(client)? {
            Whose::One(Holder::Key(key)) if !is_known(&key) => Some("the authorized keys"),
            Whose::One(Holder::Token(name)) if self.http.tokens.iter().all(|token| token.name != name.as_str()) => {
                Some("http.tokens")
            }
            _ => None,
        };
        let of = |quota: &Quota| -> Vec<String> {
            let clients = quota.clients.iter().filter_map(|client| Some((client, missing(client)?)));
            let line = |(client, whence)| {
                format!("limits.quotas: {:?} is for {client:?}, which is not among {whence}", quota.name)
            };
            clients.map(line).collect()
        };
        self.limits.quotas.iter().flat_map(of).collect()
    }
}

impl super::Limits {
    /// How much each client may have.
    pub fn quotas(&self) -> Quotas {
        Quotas::new(self.quotas.iter().map(Quota::to_used).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(toml: &str) -> Option<String> {
        let table: Table = toml::from_str(toml).unwrap();
        read(&table["quotas"]).err()
    }

    #[test]
    fn clients_are_meant_by_what_they_prove_or_where_they_are() {
        let key = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
        assert!(matches!(whose(key), Some(Whose::One(Holder::Key(_)))));
        assert_eq!(whose("token ci"), Name::new("ci").map(|name| Whose::One(Holder::Token(name))));
        assert_eq!((whose("*"), whose("ipc")), (Some(Whose::Everybody), Some(Whose::One(Holder::Ipc))));
        let net = |text: &str, bits| Some(Whose::Network(text.parse().unwrap(), bits));
        assert_eq!((whose("10.0.0.7"), whose("10.1.0.0/16")), (net("10.0.0.7", 32), net("10.1.0.0", 16)));
        assert_eq!((whose("2001:db8::1"), whose("2001:db8::/32")), (net("2001:db8::", 64), net("2001:db8::", 32)));
        assert_eq!((whose("127.0.0.9"), whose("127.0.0.0/8")), (net("127.0.0.1", 32), net("127.0.0.1", 8)));
        for nobody in ["", "ci", "10.0.0.0/33", "10.0.0.0/", "2001:db8::/65", "10.0.0.7:80"] {
            assert_eq!(whose(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn a_quota_that_cannot_be_used_is_named_with_what_is_wrong() {
        let one = |fields: &str| problem(&format!("[[quotas]]\n{fields}"));
        assert_eq!(one("name = \"a\"\nclients = [\"*\"]\nservices = 10\ntypes = [\"a-*\"]"), None);
        assert_eq!(one("name = \"a\"\nclients = [\"*\"]\nrequests_per_second = 0.5\nburst = 9"), None);
        for (fields, expected) in [
            ("clients = [\"*\"]\nservices = 1", "name is missing"),
            ("name = \" a\"\nclients = [\"*\"]\nservices = 1", "name is \" a\": expected a text"),
            ("name = \"a\"\nservices = 1", "clients is missing"),
            ("name = \"a\"\nclients = []\nservices = 1", "clients is missing or empty"),
            ("name = \"a\"\nclients = [\"me\"]\nservices = 1", "clients has \"me\": expected a list of public keys"),
            ("name = \"a\"\nclients = [\"*\"]", "it bounds nothing"),
            ("name = \"a\"\nclients = [\"*\"]\nservices = 0", "services is 0: expected a whole number from 1"),
            ("name = \"a\"\nclients = [\"*\"]\nservices = 1.5", "services is 1.5"),
            ("name = \"a\"\nclients = [\"*\"]\nrequests_per_second = 0", "requests_per_second is 0: expected a number"),
            ("name = \"a\"\nclients = [\"*\"]\nservices = 1\nburst = 2", "burst says"),
            ("name = \"a\"\nclients = [\"*\"]\nrequests_per_second = 1\ntypes = [\"a\"]", "types says which services"),
            ("name = \"a\"\nclients = [\"*\"]\nservices = 1\ntypes = []", "types = []"),
            ("name = \"a\"\nclients = [\"*\"]\nservice = 1", "unknown key service: did you mean services?"),
        ] {
            let problem = one(fields).unwrap_or_default();
            assert!(problem.starts_with(&format!("quota 1: {expected}")), "{fields}: {problem}");
        }
        let quota = "[[quotas]]\nname = \"a\"\nclients = [\"*\"]\nservices = 1\n";
        let twice = problem(&[quota, quota].concat()).unwrap();
        assert!(twice.starts_with("quota 2: name is that of another quota"), "{twice}");
        let many: String = (0..101).map(|number| quota.replace("\"a\"", &format!("\"{number}\""))).collect();
        assert_eq!(problem(&many).as_deref(), Some("101 quotas: expected at most 100"));
    }

    #[test]
    fn quotas_for_keys_and_tokens_that_there_are_not_are_named() {
        let known = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
        let other = PublicKey::from_bytes([7; 32]).to_string();
        let clients = [known, &other, "token ci", "token web", "*", "10.0.0.7"].map(String::from).to_vec();
        let (types, services) = (Vec::new(), Some(1));
        let quota = Quota { name: "few".into(), clients, services, types, requests_per_second: None, burst: None };
        let mut config = crate::config::Config::default();
        config.limits.quotas.push(quota);
        config.http.tokens = ["ci", "cd"]
            .map(|name| toml::from_str(&format!("name = {name:?}\nhash = \"\"\nallow = []")).unwrap())
            .to_vec();
        let told = config.quotas_for_nobody(|key| key.to_string() == known);
        assert_eq!(
            told,
            [
                format!("limits.quotas: \"few\" is for {other:?}, which is not among the authorized keys"),
                "limits.quotas: \"few\" is for \"token web\", which is not among http.tokens".to_string(),
            ]
        );
    }

    #[test]
    fn a_burst_is_what_is_said_or_what_a_second_brings() {
        let burst = |per_second, burst| {
            let name = String::from("q");
            let (clients, services, types) = (vec!["*".to_string()], None, Vec::new());
            let quota = Quota { name, clients, services, types, requests_per_second: Some(per_second), burst };
            quota.to_used().requests.unwrap().burst
        };
        assert_eq!([burst(50.0, None), burst(0.5, None), burst(2.5, None), burst(5.0, Some(7))], [50.0, 1.0, 3.0, 7.0]);
    }
}
