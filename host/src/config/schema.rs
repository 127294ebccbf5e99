//! The keys that are known, what may stand at each, and how text becomes such a value.

use std::net::IpAddr;

use toml::Value;
use tracing_subscriber::EnvFilter;

use super::{quotas, rules};

/// The table that belongs to the plugin: every key below it is accepted here, and checked by the plugin.
pub(super) const OPTIONS: [&str; 2] = ["backend", "options"];

/// The longest interval that can be meant: a day.
const INTERVAL_SECONDS_MAX: f64 = 86_400.0;
/// The longest that ZMTP can tell a peer, in tenths of a second as a 16-bit number.
const HEARTBEAT_SECONDS_MAX: f64 = 6553.0;
/// The largest size that can be meant: 1 GiB.
const BYTES_MAX: u32 = 1 << 30;
/// The longest that a client can be kept waiting.
const REPLY_SECONDS_MAX: f64 = 60.0;
/// Shorter than this nothing useful happens.
const SECONDS_MIN: f64 = 0.001;

/// What may stand at a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// An IP address, or `*`.
    Address,
    Port,
    /// A whole number.
    Count {
        min: u32,
        max: u32,
    },
    Seconds {
        max: f64,
    },
    Boolean,
    /// Text that is not empty.
    Text,
    /// A filter for the log.
    Filter,
    /// One of these words.
    Word(&'static [&'static str]),
    /// What is said of clients: see [`rules`].
    Rules,
    /// A list of hosts' names.
    Hosts,
    /// What is kept of tokens: see [`rules`].
    Tokens,
    /// What is said of clients that have certificates: see [`rules`].
    ClientRules,
    /// How much each client may have: see [`quotas`].
    Quotas,
    /// A part of all, from none to all.
    Share,
}

/// The keys and what may stand there, in the order of `registry.toml`.
pub(super) const KEYS: [(&str, Kind); 70] = [
    ("server.bind", Kind::Address),
    ("server.trusted_network", Kind::Boolean),
    ("server.transport", Kind::Word(&["zmtp", "zeromq"])),
    ("server.req_port", Kind::Port),
    ("server.pub_port", Kind::Port),
    ("server.heartbeat_port", Kind::Port),
    ("server.ipc_dir", Kind::Text),
    ("server.cleanup_interval", Kind::Seconds { max: INTERVAL_SECONDS_MAX }),
    ("server.mass_expiry_share", Kind::Share),
    ("server.mass_expiry_hold", Kind::Seconds { max: INTERVAL_SECONDS_MAX }),
    ("server.enforce_unique_service_types", Kind::Boolean),
    ("server.allow_terminate", Kind::Boolean),
    ("server.allow_swap", Kind::Boolean),
    ("server.receive_high_water_mark", Kind::Count { min: 1, max: 1_000_000 }),
    ("server.pending_changes_max", Kind::Count { min: 1, max: 10_000_000 }),
    ("http.enabled", Kind::Boolean),
    ("http.bind", Kind::Address),
    ("http.port", Kind::Port),
    ("http.plain_text", Kind::Boolean),
    ("http.certificate_file", Kind::Text),
    ("http.key_file", Kind::Text),
    ("http.client_ca_file", Kind::Text),
    ("http.client_crl_file", Kind::Text),
    ("http.hosts", Kind::Hosts),
    ("http.connections", Kind::Count { min: 3, max: 100_000 }),
    ("http.connections_per_address", Kind::Count { min: 3, max: 100_000 }),
    ("http.request_timeout", Kind::Seconds { max: INTERVAL_SECONDS_MAX }),
    ("http.buffered_bytes", Kind::Count { min: 1024, max: BYTES_MAX }),
    ("http.tokens", Kind::Tokens),
    ("http.rules", Kind::ClientRules),
    ("limits.message_bytes", Kind::Count { min: 1024, max: BYTES_MAX }),
    ("limits.message_frames", Kind::Count { min: 3, max: 1000 }),
    // serde_json itself goes no deeper than 128.
    ("limits.json_depth", Kind::Count { min: 4, max: 120 }),
    ("limits.id_bytes", Kind::Count { min: 64, max: 1 << 16 }),
    ("limits.name_bytes", Kind::Count { min: 16, max: 1 << 16 }),
    ("limits.type_bytes", Kind::Count { min: 16, max: 1 << 16 }),
    ("limits.types", Kind::Count { min: 1, max: 1 << 16 }),
    ("limits.connections", Kind::Count { min: 3, max: 1_000_000 }),
    ("limits.connections_per_address", Kind::Count { min: 3, max: 1_000_000 }),
    ("limits.handshake_timeout", Kind::Seconds { max: INTERVAL_SECONDS_MAX }),
    ("limits.heartbeat_interval", Kind::Seconds { max: HEARTBEAT_SECONDS_MAX }),
    ("limits.heartbeat_timeout", Kind::Seconds { max: HEARTBEAT_SECONDS_MAX }),
    ("limits.reply_queue_bytes", Kind::Count { min: 1024, max: BYTES_MAX }),
    ("limits.unread_timeout", Kind::Seconds { max: INTERVAL_SECONDS_MAX }),
    ("limits.event_queue_bytes", Kind::Count { min: 1024, max: BYTES_MAX }),
    ("limits.buffered_bytes", Kind::Count { min: 1024, max: BYTES_MAX }),
    ("limits.pending_bytes", Kind::Count { min: 1024, max: BYTES_MAX }),
    ("limits.services_bytes", Kind::Count { min: 1024, max: BYTES_MAX }),
    ("limits.subscriptions", Kind::Count { min: 1, max: 1_000_000 }),
    ("limits.requests_waiting", Kind::Count { min: 1, max: 1_000_000 }),
    ("limits.requests_per_second", Kind::Count { min: 0, max: 1_000_000 }),
    ("limits.waiting_watchers", Kind::Count { min: 1, max: 1_000_000 }),
    ("limits.waiting_watchers_per_address", Kind::Count { min: 1, max: 1_000_000 }),
    ("limits.quotas", Kind::Quotas),
    ("events.history_changes", Kind::Count { min: 2000, max: 10_000_000 }),
    ("events.history_bytes", Kind::Count { min: 1 << 20, max: BYTES_MAX }),
    ("events.service_history_bytes", Kind::Count { min: 1024, max: BYTES_MAX }),
    ("security.mechanism", Kind::Word(&["null", "curve"])),
    ("security.key_file", Kind::Text),
    ("security.previous_key_file", Kind::Text),
    ("security.authorized_clients", Kind::Text),
    ("security.rules", Kind::Rules),
    ("log.level", Kind::Filter),
    ("log.format", Kind::Word(&["text", "json"])),
    ("log.audit", Kind::Text),
    ("backend.plugin", Kind::Text),
    ("backend.plugin_dir", Kind::Text),
    ("backend.reply_timeout", Kind::Seconds { max: REPLY_SECONDS_MAX }),
    ("backend.call_timeout", Kind::Seconds { max: INTERVAL_SECONDS_MAX }),
    ("backend.reopen_closed", Kind::Boolean),
];

/// The keys that must not share a port.
pub(super) const PORTS: [&str; 4] = ["server.req_port", "server.pub_port", "server.heartbeat_port", HTTP_PORT];
/// Of these the one that nobody needs to have set: as a default it steps aside for the others.
pub(super) const HTTP_PORT: &str = "http.port";

/// What may stand at a key; `None` if it is not known, or belongs to the plugin.
pub(super) fn kind_of(key: &str) -> Option<Kind> {
    KEYS.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)
}

/// Whether a key belongs to the plugin.
pub(super) fn is_option(path: &[String]) -> bool {
    path.len() > OPTIONS.len() && path.iter().zip(OPTIONS).all(|(part, name)| part == name)
}

/// Whether there are keys below this one.
pub(super) fn is_table(path: &[String]) -> bool {
    let key = path.join(".");
    key == OPTIONS.join(".")
        || KEYS.iter().any(|(name, _)| name.strip_prefix(&key).is_some_and(|rest| rest.starts_with('.')))
}

/// The tables that are known, in brackets.
pub(super) fn tables() -> Vec<String> {
    let mut tables: Vec<String> =
        KEYS.iter().filter_map(|(key, _)| key.split_once('.')).map(|(table, _)| table.to_string()).collect();
    tables.dedup();
    tables.into_iter().chain([OPTIONS.join(".")]).map(|table| format!("[{table}]")).collect()
}

/// The known table that somebody may have meant, if one is near.
pub(super) fn nearest_table(table: &str) -> Option<String> {
    let tables = tables().into_iter().map(|table| table.trim_matches(['[', ']']).to_string());
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(table, name);
    tables.filter(|name| likeness(name) >= 0.6).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// The known key that somebody may have meant, if one is near.
pub(super) fn nearest(key: &str) -> Option<String> {
    if let Some(name) = key.replace(['-', '_'], ".").strip_prefix("backend.options.") {
        // A plugin's key with the wrong separator: `backend.options_path`.
        return Some(format!("backend.options.{}", &key[key.len() - name.len()..]));
    }
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_string();
    let likeness = |name: &str| {
        let whole = strsim::normalized_damerau_levenshtein(key, name);
        whole.max(strsim::normalized_damerau_levenshtein(&last(key), &last(name)))
    };
    // A key in the wrong place is likely only if its whole name is right or nearly so; hence the high bar.
    let (name, best) = KEYS.map(|(name, _)| (name, likeness(name))).into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (best >= 0.7).then(|| name.to_string())
}

impl Kind {
    /// What was expected, for messages.
    pub(super) fn expected(self) -> String {
        match self {
            Kind::Address => "an IP address such as \"127.0.0.1\" or \"::1\", or \"*\" for all".to_string(),
            Kind::Port => "a port: a whole number from 0 to 65535, 0 for a free one".to_string(),
            Kind::Count { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Seconds { max } => format!("a number of seconds from {SECONDS_MIN} to {max}"),
            Kind::Share => "a number from 0 to 1".to_string(),
            Kind::Boolean => "true or false".to_string(),
            Kind::Text => "text that is not empty".to_string(),
            Kind::Filter => "a level (error, warn, info, debug, trace or off), which target=level pairs may follow: \
                             \"info,registry_sqlite=debug\""
                .to_string(),
            Kind::Rules => rules::EXPECTED.to_string(),
            Kind::Tokens => rules::EXPECTED_TOKENS.to_string(),
            Kind::ClientRules => rules::EXPECTED_CLIENT_RULES.to_string(),
            Kind::Quotas => quotas::EXPECTED.to_string(),
            Kind::Hosts => "a list of names without ports, such as [\"registry.example\"]".to_string(),
            Kind::Word(words) => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or "),
        }
    }

    /// Whether the value may stand there.
    pub(super) fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (Kind::Address, Value::String(text)) => text == "*" || text.parse::<IpAddr>().is_ok(),
            (Kind::Port, Value::Integer(number)) => u16::try_from(*number).is_ok(),
            (Kind::Count { min, max }, Value::Integer(number)) => (i64::from(min)..=i64::from(max)).contains(number),
            (Kind::Seconds { max }, Value::Float(number)) => (SECONDS_MIN..=max).contains(number),
            (Kind::Seconds { max }, Value::Integer(number)) => (SECONDS_MIN..=max).contains(&(*number as f64)),
            (Kind::Share, Value::Float(number)) => (0.0..=1.0).contains(number),
            (Kind::Share, Value::Integer(number)) => (0..=1).contains(number),
            (Kind::Boolean, Value::Boolean(_)) => true,
            (Kind::Text, Value::String(text)) => !text.is_empty(),
            (Kind::Filter, Value::String(text)) => is_filter(text),
            (Kind::Word(words), Value::String(text)) => words.contains(&text.as_str()),
            (Kind::Rules | Kind::Tokens | Kind::ClientRules | Kind::Quotas, value) => self.problem(value).is_none(),
            (Kind::Hosts, Value::Array(names)) => names.iter().all(|name| name.as_str().is_some_and(is_host)),
            _ => false,
        }
    }

    /// What is wrong with a list of many values: the whole of it would not show which one it is.
    pub(super) fn problem(self, value: &Value) -> Option<String> {
        match self {
            Kind::Rules => rules::read(value).err(),
            Kind::Tokens => rules::read_tokens(value).err(),
            Kind::ClientRules => rules::read_client_rules(value).err(),
            Kind::Quotas => quotas::read(value).err(),
            _ => None,
        }
    }

    /// The value that a text from the environment or the command line stands for. Text that stands for none stays
    /// text, so that the error can show it.
    pub(super) fn parse(self, text: &str) -> Value {
        let parsed = match self {
            Kind::Port | Kind::Count { .. } => text.trim().parse().ok().map(Value::Integer),
            Kind::Seconds { .. } | Kind::Share => text.trim().parse().ok().map(Value::Float),
            Kind::Boolean => text.trim().parse().ok().map(Value::Boolean),
            Kind::Rules | Kind::Tokens | Kind::ClientRules | Kind::Quotas | Kind::Hosts => text.parse().ok(),
            Kind::Address | Kind::Text | Kind::Filter | Kind::Word(_) => unquoted(text),
        };
        parsed.unwrap_or_else(|| Value::String(text.to_string()))
    }
}

/// The value that a text stands for at an option, whose type only the plugin knows: a number, a truth value or quoted
/// text if TOML takes it for one of these, else the text itself.
pub(super) fn parse_option(text: &str) -> Value {
    match text.parse::<Value>() {
        Ok(value @ (Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::String(_))) => value,
        _ => Value::String(text.to_string()),
    }
}

/// Text in quotes, as TOML has it, without them: shells and container files leave quotes standing.
pub(super) fn unquoted(text: &str) -> Option<Value> {
    text.parse::<Value>().ok().filter(Value::is_str)
}

/// A name as it can stand in a URL. A name that ends in a dot is another one to browsers.
fn is_host(name: &str) -> bool {
    let is_label =
        |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    name.split('.').all(is_label)
}

/// To `tracing` a bare word is a target, and a target alone silences all others: `inof` would switch the log off. So a
/// bare word must be a level here.
fn is_filter(text: &str) -> bool {
    let is_level =
        |word: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&word.to_lowercase().as_str());
    let directives: Vec<_> = text.split(',').map(str::trim).collect();
    // A directive with fields may hold commas of its own; `tracing` alone judges those.
    let plain = !text.contains(['[', '{']);
    (!plain || directives.iter().all(|directive| directive.contains('=') || is_level(directive)))
        && EnvFilter::try_new(text).is_ok()
}
