//! What a running registry can take over from a configuration that has changed, and what takes a restart.

use std::path::PathBuf;

use serde_json::Value;

use super::layer::Layer;
use super::{Config, ConfigError, Loaded, check, load, schema};

/// What takes a restart, and in `backend.options` everything does: what is bound, opened or chosen once.
const FIXED: [&str; 18] = [
    "log.audit",
    "http.enabled",
    "http.bind",
    "http.port",
    "server.bind",
    "server.trusted_network",
    "server.transport",
    "server.req_port",
    "server.pub_port",
    "server.heartbeat_port",
    "server.ipc_dir",
    "server.receive_high_water_mark",
    "security.mechanism",
    "log.format",
    "backend.plugin",
    "backend.plugin_dir",
    "backend.call_timeout",
    "backend.options",
];

/// Where a configuration was read from, to be read again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file that was named.
    pub file: Option<PathBuf>,
    /// `--set` flags.
    pub sets: Vec<String>,
}

impl Source {
    /// Reads it as it is now: file, environment, flags.
    ///
    /// # Errors
    /// As for [`load`].
    pub fn read(&self) -> Result<Loaded, ConfigError> {
        load(self.file.as_deref(), &self.sets)
    }
}

/// A key whose value has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// The dotted key.
    pub key: String,
    /// The values, as JSON; null where there is none, and for options, of which some are secret.
    pub values: (Value, Value),
    /// Whether a running registry can take it over.
    pub is_live: bool,
}

/// What has changed from one configuration to another, in the order of `registry.toml`.
pub fn changed(from: &Config, to: &Config) -> Vec<Changed> {
    let [before, after] = [from, to].map(|config| serde_json::to_value(config).unwrap_or_default());
    let at = |root: &Value, key: &str| {
        let (table, name) = key.split_once('.').unwrap_or(("", key));
        root[table][name].clone()
    };
    let keys = schema::KEYS.iter().map(|(key, _)| *key);
    let mut all: Vec<Changed> = keys
        .map(|key| Changed {
            key: key.to_string(),
            values: (at(&before, key), at(&after, key)),
            is_live: !FIXED
                .iter()
                .any(|fixed| key.strip_prefix(fixed).is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'.', ..]))),
        })
        .filter(|changed| changed.values.0 != changed.values.1)
        .collect();
    let [before, after] = [from, to].map(|config| &config.backend.options);
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    for name in names.into_iter().filter(|name| before.get(*name) != after.get(*name)) {
        let key = format!("{}.{name}", schema::OPTIONS.join("."));
        all.push(Changed { key, values: Default::default(), is_live: false });
    }
    all
}

impl Config {
    /// Whether HTTP may be served so. [`load`] says so of what is written; what is in force after a reload is that, but on
    /// the address of before: a file that has become right for another address must not open this one.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check_http(&self) -> Result<(), Vec<String>> {
        check::http_in_force(&Layer::of(self, "in force until a restart"))
    }

    /// This configuration with all of `next` that a running registry can take over.
    pub fn taking_over(&self, next: &Config) -> Config {
        let mut taken = next.clone();
        let Config { server, http, security, log, backend, .. } = self.clone();
        taken.server = super::Server {
            bind: server.bind,
            trusted_network: server.trusted_network,
            transport: server.transport,
            req_port: server.req_port,
            pub_port: server.pub_port,
            heartbeat_port: server.heartbeat_port,
            ipc_dir: server.ipc_dir,
            receive_high_water_mark: server.receive_high_water_mark,
            ..taken.server
        };
        taken.http = super::Http { enabled: http.enabled, bind: http.bind, port: http.port, ..taken.http };
        taken.security.mechanism = security.mechanism;
        (taken.log.format, taken.log.audit) = (log.format, log.audit);
        taken.backend = super::Backend {
            reply_timeout: taken.backend.reply_timeout,
            reopen_closed: taken.backend.reopen_closed,
            ..backend
        };
        taken
    }
}

impl Loaded {
    /// Whether the file alone says which storage is meant: who names a file means what stands there.
    ///
    /// # Errors
    /// A variable or a flag says something else.
    pub fn check_backend_of_file(&self) -> Result<(), String> {
        let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let is_of_backend = |key: &str| key == "backend.plugin" || key.starts_with("backend.options.");
        let other = |origin: &str| origin != file && origin != "default";
        match self.origins.iter().find(|(key, origin)| is_of_backend(key) && other(origin)) {
            Some((key, origin)) => Err(format!("{key} comes from {origin}, not from {file}: take it out there")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A configuration in which every key has another value.
    fn other() -> Config {
        let mut root = serde_json::to_value(Config::default()).unwrap();
        for (key, _) in &schema::KEYS {
            let (table, name) = key.split_once('.').unwrap();
            let value = match &root[table][name] {
                Value::Bool(value) => json!(!value),
                Value::Number(number) if number.is_u64() => json!(number.as_u64().unwrap() + 1),
                Value::Number(number) => json!(number.as_f64().unwrap() / 2.0),
                Value::Array(_) if *key == "http.hosts" => json!(["a"]),
                Value::Array(_) if *key == "http.rules" => json!([{"clients": ["a"], "allow": ["read"]}]),
                Value::Array(_) if *key == "http.tokens" => json!([{"name": "n", "hash": "h", "allow": ["read"]}]),
                Value::Array(_) if *key == "limits.quotas" => json!([{"name": "n", "clients": ["*"], "services": 1}]),
                Value::Array(_) => json!([{"clients": ["*"], "allow": ["read"]}]),
                Value::Null => json!("/x"),
                Value::String(text) => match text.as_str() {
                    "zmtp" => json!("zeromq"),
                    "null" => json!("curve"),
                    "text" => json!("json"),
                    other => json!(format!("{other}1")),
                },
                Value::Object(_) => unreachable!("{key} is a table"),
            };
            root[table][name] = value;
        }
        root["backend"]["options"] = json!({"path": "x"});
        serde_json::from_value(root).unwrap()
    }

    #[test]
    fn what_takes_a_restart_stays_and_all_else_is_taken_over() {
        let (old, next) = (Config::default(), other());
        let all = changed(&old, &next);
        assert_eq!(all.len(), schema::KEYS.len() + 1);
        let taken = old.taking_over(&next);
        let (taken_over, stayed): (Vec<_>, Vec<_>) = all.into_iter().partition(|changed| changed.is_live);
        assert_eq!(changed(&old, &taken), taken_over);
        assert_eq!(
            changed(&taken, &next).into_iter().map(|changed| changed.key).collect::<Vec<_>>(),
            stayed.into_iter().map(|changed| changed.key).collect::<Vec<_>>()
        );
        assert!(changed(&old, &old).is_empty());
    }

    #[test]
    fn what_is_safe_at_another_address_is_not_taken_for_safe_here() {
        let mut open = Config::default();
        open.http.bind = "10.0.0.1".into();
        (open.http.certificate_file, open.http.client_ca_file) = (Some("a.pem".into()), Some("ca.pem".into()));
        assert_eq!(open.check_http(), Ok(()));
        // Each of both would be fine on loopback, which it says that it means.
        let mut plain = Config::default();
        plain.http.client_ca_file = open.http.client_ca_file.clone();
        let mut anonymous = Config::default();
        anonymous.http.certificate_file = open.http.certificate_file.clone();
        for (next, part) in [(plain, "in plain text"), (anonymous, "could register, deregister and read")] {
            let problems = open.taking_over(&next).check_http().unwrap_err();
            assert!(problems[0].contains(part) && problems[0].contains("in force until a restart"), "{problems:?}");
            assert_eq!(problems.len(), 1);
        }
        assert_eq!(Config::default().taking_over(&open).check_http(), Ok(()));
    }

    #[test]
    fn values_of_options_are_not_told() {
        let mut next = Config::default();
        next.backend.options.insert("password".into(), "secret".into());
        let key = "backend.options.password".to_string();
        assert_eq!(changed(&Config::default(), &next), [Changed { key, values: Default::default(), is_live: false }]);
    }
}
