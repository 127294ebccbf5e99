//! `health`, `info`, `stop`: the registry itself.

use serde_json::{Value, json};

use super::arguments::Connection;
use super::client::Client;
use super::lookup::fields_as_lines;
use super::output::{self, Failure};

/// Says whether the registry is well.
pub(super) async fn health(connection: &Connection) -> Result<(), Failure> {
    let mut client = Client::new(connection)?;
    let reply = client.request("health", json!({})).await?;
    match reply["status"].as_str() {
        _ if connection.json => output::json(&reply),
        Some(status) => output::line(&output::printable(status)),
        None => output::line("ok"),
    }
}

/// Prints what the registry says about itself.
pub(super) async fn info(connection: &Connection) -> Result<(), Failure> {
    let mut client = Client::new(connection)?;
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
    let mut client = Client::new(connection)?;
    let reply: Value = client.request("terminate", json!({})).await?;
    match connection.json {
        true => output::json(&reply),
        false => output::line(&format!("the registry at {} stops", connection.connect)),
    }
}
