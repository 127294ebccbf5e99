//! The layer of the environment: `REGISTRY_SERVER__REQ_PORT` is `server.req_port`.
//!
//! Two underscores stand for the dot, because names have single ones already. A variable with two underscores is meant
//! for the registry and must be a known key. One that would be a key with two instead of one is a slip, and is refused
//! rather than ignored. All others belong to somebody else: if there is a service called `registry`, Kubernetes gives
//! every container `REGISTRY_PORT`, `REGISTRY_SERVICE_HOST`, `REGISTRY_PORT_5556_TCP_ADDR` and more.

use std::ffi::OsString;

use super::layer::{Entry, Layer, Origin, value_of};
use super::schema;

const PREFIX: &str = "REGISTRY_";
/// What Kubernetes gives a service called `registry`; a port's name may bring two underscores.
const KUBERNETES: [&str; 2] = ["REGISTRY_PORT", "REGISTRY_SERVICE_"];

/// Reads the variables that are ours. What is wrong with them goes to `problems`. `file` is the layer below.
pub(super) fn read(
    variables: impl Iterator<Item = (OsString, OsString)>,
    file: &Layer,
    problems: &mut Vec<String>,
) -> Layer {
    let mut ours: Vec<(String, OsString)> = variables
        .filter_map(|(name, value)| name.into_string().ok().map(|name| (name, value)))
        .filter(|(name, _)| name.starts_with(PREFIX) && !KUBERNETES.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    // The environment has no order, messages should have one.
    ours.sort();
    let mut layer = Layer::default();
    for (name, value) in ours {
        if let Err(problem) = take(&mut layer, &name, value, file) {
            problems.push(problem);
        }
    }
    layer
}

fn take(layer: &mut Layer, name: &str, value: OsString, file: &Layer) -> Result<(), String> {
    let rest = &name[PREFIX.len()..];
    if !rest.contains("__") {
        return match meant(rest) {
            Some(key) => {
                Err(format!("the environment variable {name} has no effect: did you mean {}?", variable(&key)))
            }
            None => Ok(()),
        };
    }
    let text = value.into_string().map_err(|_| format!("the environment variable {name} is not valid UTF-8"))?;
    let key = rest.replace("__", ".").to_lowercase();
    if variable(&key) != name {
        return Err(format!("unknown environment variable {name}: did you mean {}?", variable(&key)));
    }
    let path: Vec<String> = key.split('.').map(str::to_string).collect();
    let value = value_of(&path, &text, &[file]);
    layer.add(Entry { path, value, origin: Origin::new(name) }, variable)
}

/// The key that a name with single underscores stands for.
fn meant(rest: &str) -> Option<String> {
    let known = schema::KEYS.iter().find(|(key, _)| variable(key).replace("__", "_")[PREFIX.len()..] == *rest);
    let option =
        || rest.strip_prefix("BACKEND_OPTIONS_").map(|name| format!("backend.options.{}", name.to_lowercase()));
    known.map(|(key, _)| key.to_string()).or_else(option)
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}
