//! `expiry`: how a mass expiry ends; and what `health` says of one.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::arguments::Connection;
use super::client::{Client, Patience};
use super::output::{self, Failure};
use super::table::now_seconds;
use crate::text::utc;

/// How a mass expiry is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Ending {
    /// The services are gone: remove them now
    Remove,
    /// The services live: give each a full ttl to send a heartbeat
    Keep,
}

/// Ends the mass expiry that is under way.
pub(super) async fn end(way: Ending, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let word = match way {
        Ending::Remove => "remove",
        Ending::Keep => "keep",
    };
    let reply = client.request("expiry", json!({ "mass_expiry": word })).await?;
    if connection.json {
        return output::json(&reply);
    }
    let critical = reply["critical"].as_u64().unwrap_or_default();
    output::line(&match way {
        Ending::Remove => format!("the mass expiry is over: {critical} critical services are removed"),
        Ending::Keep => format!("the mass expiry is over: {critical} critical services have another ttl"),
    })
}

/// A mass expiry, as `health` tells of it. It is no failure of the registry: nothing is to be restarted for it.
pub(super) fn told(health: &Value) -> Option<String> {
    let held = health["mass_expiry"].as_object()?;
    let [critical, removed] = ["critical", "removed"].map(|field| held.get(field).and_then(Value::as_u64));
    let (critical, removed) = (critical.unwrap_or_default(), removed.unwrap_or_default());
    let since = held.get("since").and_then(Value::as_f64).map(|since| recently(since, now_seconds()));
    Some(format!(
        "mass expiry since {}: {critical} critical services are held, removed so far: {removed}",
        since.unwrap_or_else(|| "-".to_string())
    ))
}

/// A silence of all services, as `health` tells of it.
pub(super) fn silence(health: &Value) -> Option<String> {
    let since = health["silence"].as_object()?.get("since").and_then(Value::as_f64);
    let since = since.map_or_else(|| "-".to_string(), |since| recently(since, now_seconds()));
    Some(format!("no service was heard of since {since}: none is removed for that, for a while"))
}

/// A time of day, with the date if that is not today's.
pub(super) fn recently(seconds: f64, now_seconds: f64) -> String {
    let (then, now) = (utc(seconds), utc(now_seconds));
    match (then.split_once('T'), now.split_once('T')) {
        (Some((day, time)), Some((today, _))) if day == today => format!("{} UTC", time.trim_end_matches('Z')),
        _ => then,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mass_expiry_is_told_with_its_numbers() {
        let health = json!({"mass_expiry": {"since": 1_764_115_200, "critical": 40, "removed": 2}});
        let line = "mass expiry since 2025-11-26T00:00:00Z: 40 critical services are held, removed so far: 2";
        assert_eq!(told(&health).unwrap(), line);
        assert_eq!(told(&json!({"status": "ok"})), None);
        let health = json!({"silence": {"since": 1_764_115_200}});
        let line = "no service was heard of since 2025-11-26T00:00:00Z: none is removed for that, for a while";
        assert_eq!(silence(&health).unwrap(), line);
    }
}
