//! `[security]`: who may come in, and do what.

use std::collections::HashSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::security::access::{Access, Grant, Pattern, Right};
use crate::security::key::PublicKey;

/// `[security]`: who may come in, and do what.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// How clients prove who they are.
    pub mechanism: Mechanism,
    /// The registry's secret certificate.
    pub key_file: Option<PathBuf>,
    /// The one before, by which clients may still know the registry.
    pub previous_key_file: Option<PathBuf>,
    /// The public certificates of those who may connect: a directory or a file.
    pub authorized_clients: Option<PathBuf>,
    /// What they may do.
    pub rules: Vec<Rule>,
}

impl Default for Security {
    fn default() -> Self {
        Security {
            mechanism: Mechanism::Null,
            key_file: None,
            previous_key_file: None,
            authorized_clients: None,
            rules: Vec::new(),
        }
    }
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mechanism {
    /// Not at all.
    Null,
    /// By keys.
    Curve,
}

/// `[[security.rules]]`, as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Public keys, or `*` for everybody who may connect.
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

impl Security {
    /// What the rules say of keys.
    pub fn access(&self) -> Access {
        match self.mechanism {
            Mechanism::Null => Access::open(),
            Mechanism::Curve => Access::by_rules(self.rules.iter().map(Rule::to_used).collect()),
        }
    }
}

impl Rule {
    fn to_used(&self) -> Grant {
        // `load` refuses what is no key; in a hand-made configuration such a client is nobody.
        let clients = (!self.clients.iter().any(|client| client == super::rules::EVERYBODY))
            .then(|| self.clients.iter().filter_map(|client| client.parse().ok()).collect());
        grant(clients, &self.allow, &self.types, &self.names)
    }
}

/// What is allowed, as it is used.
pub(super) fn grant(clients: Option<HashSet<PublicKey>>, allow: &[Right], types: &[String], names: &[String]) -> Grant {
    let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text.as_str())).collect();
    Grant { clients, allow: allow.iter().copied().collect(), types: patterns(types), names: patterns(names) }
}
