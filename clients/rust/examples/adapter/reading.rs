//! What stands in a command.

use std::sync::Arc;
use std::time::Duration;

use registry_client::{Builder, Filter, Registry, ServiceInfo, keys};
use serde_json::{Map, Value};

use super::{Failed, Things, bad};

pub(crate) fn text<'a>(command: &'a Value, field: &str) -> Result<&'a str, Failed> {
    command[field].as_str().ok_or_else(|| bad(format!("{field} is no text")))
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
}

pub(crate) fn time(value: &Value, what: &str) -> Result<Option<Duration>, Failed> {
    let Some(seconds) = value.as_f64() else { return Ok(None) };
    Duration::try_from_secs_f64(seconds).map(Some).map_err(|error| bad(format!("{what}: {error}")))
}

pub(crate) fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// A client by its name, with what the command asks of this call.
pub(crate) fn registry(things: &Things, command: &Value) -> Result<Registry, Failed> {
    let mut registry = (*things.registries.get(text(command, "registry")?)?).clone();
    if let Some(timeout) = time(&command["timeout"], "timeout")? {
        registry = registry.within(timeout);
    }
    if let Some(max_stale) = time(&command["max_stale"], "max_stale")? {
        registry = registry.max_stale(max_stale);
    }
    Ok(registry)
}

/// The settings; the address that is given can be set later by `name`.
pub(crate) fn settings(things: &Things, name: &str, command: &Value) -> Result<Builder, Failed> {
    let mut builder = Registry::builder();
    if !command["hosts"].is_null() {
        builder = builder.hosts(texts(&command["hosts"]));
    }
    if let Some(timeout) = time(&command["timeout"], "timeout")? {
        builder = builder.timeout(timeout);
    }
    if let Some(timeout) = time(&command["connect_timeout"], "connect_timeout")? {
        builder = builder.connect_timeout(timeout);
    }
    if let Some(silence) = time(&command["dead_after"], "dead_after")? {
        builder = builder.dead_after(silence);
    }
    if let [first, longest] = [0, 1].map(|place| time(&command["backoff"][place], "backoff"))
        && let (Some(first), Some(longest)) = (first?, longest?)
    {
        builder = builder.backoff(first, longest);
    }
    if let Some(given) = command["keys"].as_object() {
        let part = |name: &str| given.get(name).and_then(Value::as_str).unwrap_or_default();
        builder = builder.keys(keys::from_text(part("secret"), part("server"))?);
    }
    if let Some(address) = command["address"].as_str() {
        things.addresses.put(name, address.to_string().into());
        let address = things.addresses.get(name)?;
        builder = builder.address(move || Some(address.lock().unwrap().clone()));
    }
    Ok(builder)
}

pub(crate) fn filter(command: &Value) -> Filter {
    let mut filter = command["service_type"].as_str().map_or_else(Filter::all, Filter::of_type);
    filter = texts(&command["tags"]).into_iter().fold(filter, Filter::tag);
    filter = object(&command["metadata"]).into_iter().fold(filter, |filter, (key, value)| filter.metadata(key, value));
    filter = texts(&command["fields"]).into_iter().fold(filter, Filter::field);
    match command["version"].as_str() {
        Some(version) => filter.version(version),
        None => filter,
    }
}

pub(crate) fn service(command: &Value) -> Result<ServiceInfo, Failed> {
    let port = command["port"].as_u64().unwrap_or_default();
    let mut info = ServiceInfo::new(text(command, "name")?, u16::try_from(port).unwrap_or_default());
    if port > u64::from(u16::MAX) {
        // What the type does not allow is for the registry to refuse.
        info = info.field("port", port);
    }
    let optional = |field: &str| command[field].as_str();
    if let Some(host) = optional("host") {
        info = info.host(host);
    }
    if let Some(id) = optional("id") {
        info = info.id(id);
    }
    if let Some(service_type) = optional("type") {
        info = info.service_type(service_type);
    }
    if let Some(ttl) = time(&command["ttl"], "ttl")? {
        info = info.ttl(ttl);
    }
    info = texts(&command["tags"]).into_iter().fold(info, ServiceInfo::tag);
    info = object(&command["metadata"]).into_iter().fold(info, |info, (key, value)| info.metadata(key, value));
    info = object(&command["extra"]).into_iter().fold(info, |info, (name, value)| info.field(name, value));
    let is_set = |field: &str| command[field].as_bool().unwrap_or_default();
    let info = info.singleton(is_set("singleton"));
    Ok(info.allow_duplicate_service_type(is_set("allow_duplicate_service_type")))
}

/// An address that can be set.
pub(crate) fn set_address(things: &Things, command: &Value) -> Result<(), Failed> {
    let address: Arc<_> = things.addresses.get(text(command, "registry")?)?;
    *address.lock().unwrap() = text(command, "address")?.to_string();
    Ok(())
}
