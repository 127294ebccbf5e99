//! `health`, `info`, `stop`: the registry itself.

use serde_json::{Value, json};

use super::arguments::Connection;
use super::client::{Client, Patience};
use super::expiry::{self, recently};
use super::lookup::fields_as_lines;
use super::output::{self, Failure};
use super::table::now_seconds;

/// Says whether the registry is well, which takes more than that it answers: without its storage it refuses what is
/// new.
pub(super) async fn health(connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let health = client.understood(client.registry().health().await, &json!({}))?;
    let reply = Value::Object(health.fields);
    if connection.json {
        output::json(&reply)?;
    }
    if let Some(trouble) = trouble(&reply["backend"], now_seconds()) {
        return Err(Failure::Failed(trouble));
    }
    if !health.ready {
        let why = match &health.not_ready[..] {
            [] => reply["error"].as_str().unwrap_or("it does not say why").to_string(),
            reasons => reasons.join(", "),
        };
        return Err(Failure::Failed(format!("not ready: {why}")));
    }
    if connection.json {
        return Ok(());
    }
    // Whose file it is cannot connect; nobody else notices. So it is no failure.
    let keys = match reply["keys"]["bad_files"].as_u64() {
        None | Some(0) => String::new(),
        Some(1) => "; 1 file with clients' keys cannot be used: the log says which".to_string(),
        Some(bad) => format!("; {bad} files with clients' keys cannot be used: the log says which"),
    };
    let status = reply["status"].as_str().unwrap_or("ok");
    let held = expiry::told(&reply).into_iter().chain(expiry::silence(&reply));
    let held: String = held.map(|told| format!("; {told}")).collect();
    output::line(&format!("{}{keys}{held}", output::printable(status)))
}

/// What is wrong with the storage, if anything is. An older registry says nothing about it.
fn trouble(backend: &Value, now_seconds: f64) -> Option<String> {
    let state = backend["state"].as_str().filter(|state| *state != "ok")?;
    let since = backend["since"].as_f64().map(|since| format!(" since {}", recently(since, now_seconds)));
    let why = backend["error"].as_str().map(|error| format!(" ({error})"));
    let (since, why) = (since.unwrap_or_default(), why.unwrap_or_default());
    Some(format!("degraded: storage {state}{since}{why}; registrations are refused"))
}

/// Prints what the registry says about itself.
pub(super) async fn info(connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let mut reply = client.request("info", json!({})).await?;
    if connection.json {
        return output::json(&reply);
    }
    match reply.as_object_mut() {
        Some(fields) => {
            // It goes without saying.
            fields.shift_remove("success");
            // All of them, which is what `list` is for.
            if let Some(services) = fields.get_mut("services") {
                *services = services.as_array().map_or_else(|| services.clone(), |all| json!(all.len()));
            }
            output::line(&fields_as_lines(fields))
        }
        None => Ok(()),
    }
}

/// Stops the registry.
pub(super) async fn stop(connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let reply: Value = client.request("terminate", json!({})).await?;
    match connection.json {
        true => output::json(&reply),
        false => output::line(&format!("the registry at {} stops", client.endpoint())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_that_fails_is_told_with_time_and_reason() {
        let backend = json!({"plugin": "x", "state": "failing", "since": 1_795_474_463, "error": "the power is out"});
        let told = |now| trouble(&backend, now).unwrap();
        let today = "degraded: storage failing since 22:54:23 UTC (the power is out); registrations are refused";
        assert_eq!(told(1_795_474_500.0), today);
        assert!(told(1_795_574_500.0).contains("since 2026-11-23T22:54:23Z ("));
        assert_eq!(
            trouble(&json!({"state": "stalled"}), 0.0).unwrap(),
            "degraded: storage stalled; registrations are refused"
        );
    }

    #[test]
    fn a_storage_that_works_or_is_not_told_of_is_no_trouble() {
        for backend in [json!({"plugin": "x", "state": "ok"}), json!({}), Value::Null] {
            assert_eq!(trouble(&backend, 0.0), None);
        }
    }
}
