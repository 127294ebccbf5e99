//! Checks that take more than one key.

use std::net::IpAddr;

use toml::Value;

use super::layer::{Entry, Layer};
use super::schema;

/// Says what is wrong between keys.
pub(super) fn across_keys(layers: &[Layer]) -> Result<(), Vec<String>> {
    let in_force = |key: &str| layers.iter().flat_map(|layer| &layer.entries).rfind(|entry| entry.key() == key);
    let problems = [
        ports(in_force),
        heartbeats(in_force),
        openness(in_force),
        http_openness(in_force),
        tls(in_force),
        keys(in_force),
        ipc(in_force),
    ]
    .concat();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Says what would be wrong with HTTP if these were the values in force, wherever each comes from.
pub(super) fn http_in_force(layer: &Layer) -> Result<(), Vec<String>> {
    let problems = http_openness(|key| layer.entries.iter().rfind(|entry| entry.key() == key));
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Two ports that are the same.
fn ports<'a>(in_force: impl Fn(&str) -> Option<&'a Entry>) -> Vec<String> {
    let is_off = in_force("http.enabled").is_some_and(|entry| entry.value == Value::Boolean(false));
    let is_meant = |entry: &&Entry| entry.key() != schema::HTTP_PORT || !(is_off || entry.origin.is_default());
    let ports: Vec<&Entry> = schema::PORTS.iter().filter_map(|key| in_force(key)).filter(is_meant).collect();
    let mut problems = Vec::new();
    for (index, first) in ports.iter().enumerate() {
        for second in &ports[index + 1..] {
            if first.value == second.value && first.value.as_integer() != Some(0) {
                problems.push(format!(
                    "{} and {} are both {} ({}; {}): expected different ports, 0 for a free one",
                    first.key(),
                    second.key(),
                    first.value,
                    first.origin,
                    second.origin
                ));
            }
        }
    }
    problems
}

/// A peer that would be given up before it was asked.
fn heartbeats<'a>(in_force: impl Fn(&str) -> Option<&'a Entry>) -> Vec<String> {
    let [interval, timeout] = ["limits.heartbeat_interval", "limits.heartbeat_timeout"].map(in_force);
    let seconds = |entry: &Entry| entry.value.as_float().or(entry.value.as_integer().map(|whole| whole as f64));
    match (interval, timeout) {
        (Some(interval), Some(timeout)) if seconds(timeout) <= seconds(interval) => vec![format!(
            "limits.heartbeat_timeout is {} ({}): expected more than limits.heartbeat_interval, which is {} ({})",
            timeout.value, timeout.origin, interval.value, interval.origin
        )],
        _ => Vec::new(),
    }
}

/// A registry that would be open to a network, though nobody has said that it may be.
fn openness<'a>(in_force: impl Fn(&str) -> Option<&'a Entry>) -> Vec<String> {
    let Some(bind) = in_force("server.bind") else { return Vec::new() };
    let address = bind.value.as_str().and_then(|address| address.parse::<IpAddr>().ok());
    if address.is_some_and(|address| address.is_loopback()) {
        return Vec::new();
    }
    let is = |key: &str, value: Value| in_force(key).is_some_and(|entry| entry.value == value);
    let Entry { value, origin, .. } = bind;
    if is("security.mechanism", "curve".into()) {
        return Vec::new();
    }
    if is("server.transport", "zeromq".into()) {
        return vec![format!(
            "server.bind is {value} ({origin}), but server.transport = \"zeromq\" cannot bear clients that are hostile \
             or slow: expected a loopback address such as \"127.0.0.1\", or server.transport = \"zmtp\""
        )];
    }
    if is("server.trusted_network", true.into()) {
        return Vec::new();
    }
    vec![format!(
        "server.bind is {value} ({origin}), where everybody who reaches it could register, deregister and read: expected \
         a loopback address such as \"127.0.0.1\", or server.trusted_network = true to let them, or \
         security.mechanism = \"curve\" to let in only those whose keys are known"
    )]
}

/// HTTP that a network could read, or that everybody there could use, though nobody has said so.
fn http_openness<'a>(in_force: impl Fn(&str) -> Option<&'a Entry>) -> Vec<String> {
    let is = |key: &str, value: Value| in_force(key).is_some_and(|entry| entry.value == value);
    let Some(Entry { value, origin, .. }) = in_force("http.bind") else { return Vec::new() };
    let address = value.as_str().and_then(|address| address.parse::<IpAddr>().ok());
    if is("http.enabled", false.into()) || address.is_some_and(|address| address.is_loopback()) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if in_force("http.certificate_file").is_none() && !is("http.plain_text", true.into()) {
        problems.push(format!(
            "http.bind is {value} ({origin}), and HTTP sends everything, tokens too, in plain text: expected a loopback \
             address such as \"127.0.0.1\", or http.certificate_file and http.key_file for TLS, or \
             http.plain_text = true to say that the network may be trusted with it"
        ));
    }
    let has_tokens = in_force("http.tokens").is_some_and(|entry| entry.value != Value::Array(Vec::new()));
    let has_authority = in_force("http.client_ca_file").is_some();
    let asks = has_tokens || has_authority || is("security.mechanism", "curve".into());
    if !asks && !is("server.trusted_network", true.into()) {
        problems.push(format!(
            "http.bind is {value} ({origin}), where everybody who reaches it could register, deregister and read: \
             expected a loopback address such as \"127.0.0.1\", or http.tokens or http.client_ca_file, by which clients \
             prove who they are (`registry token --help`), or server.trusted_network = true to let everybody in"
        ));
    }
    problems
}

/// What TLS needs and has not, or what is said of it to no effect.
fn tls<'a>(in_force: impl Fn(&str) -> Option<&'a Entry>) -> Vec<String> {
    let is_set = |key: &str| in_force(key).filter(|entry| entry.value != Value::Array(Vec::new()));
    // Each with what it is nothing without.
    let pairs = [
        ("http.certificate_file", "http.key_file"),
        ("http.key_file", "http.certificate_file"),
        ("http.client_ca_file", "http.certificate_file"),
        ("http.client_crl_file", "http.client_ca_file"),
        ("http.rules", "http.client_ca_file"),
    ];
    let alone = |(key, other): (&str, &str)| {
        let entry = is_set(key).filter(|_| is_set(other).is_none())?;
        Some(format!("{key} is set ({}), but is of no use without {other}: expected both or neither", entry.origin))
    };
    pairs.into_iter().filter_map(alone).collect()
}

/// Keys that are missing, or that seem to protect something and do not.
fn keys<'a>(in_force: impl Fn(&str) -> Option<&'a Entry>) -> Vec<String> {
    let is = |key: &str, value: &str| in_force(key).filter(|entry| entry.value.as_str() == Some(value));
    let is_set = |key: &&str| in_force(key).filter(|entry| entry.value != Value::Array(Vec::new()));
    let files = ["security.key_file", "security.authorized_clients"];
    let Some(curve) = is("security.mechanism", "curve") else {
        let idle = [files[0], "security.previous_key_file", files[1], "security.rules"]
            .into_iter()
            .filter_map(|key| is_set(&key));
        let told = |entry: &Entry| {
            let key = entry.key();
            format!(
                "{key} is set ({}), but protects nothing while security.mechanism is \"null\": expected \
                 security.mechanism = \"curve\", or no {key}",
                entry.origin
            )
        };
        return idle.map(told).collect();
    };
    let missing = files.into_iter().filter(|key| in_force(key).is_none());
    let mut problems: Vec<String> = missing
        .map(|key| {
            format!("{key} is not set, and security.mechanism = \"curve\" ({}) needs it: `registry keygen --help` tells how to make keys", curve.origin)
        })
        .collect();
    if let Some(transport) = is("server.transport", "zeromq") {
        problems.push(format!(
            "security.mechanism = \"curve\" ({}), which server.transport = \"zeromq\" ({}) does not know: expected \
             server.transport = \"zmtp\"",
            curve.origin, transport.origin
        ));
    }
    problems
}

/// Unix sockets that nothing would serve.
fn ipc<'a>(in_force: impl Fn(&str) -> Option<&'a Entry>) -> Vec<String> {
    let zeromq = in_force("server.transport").filter(|entry| entry.value.as_str() == Some("zeromq"));
    let told = |(directory, zeromq): (&Entry, &Entry)| {
        format!(
            "server.ipc_dir is {} ({}), which server.transport = \"zeromq\" ({}) does not serve: expected \
             server.transport = \"zmtp\"",
            directory.value, directory.origin, zeromq.origin
        )
    };
    in_force("server.ipc_dir").zip(zeromq).map(told).into_iter().collect()
}
