//! `list`, `get`, `discover`: what is registered.

use std::io::IsTerminal;

use serde_json::{Map, Value, json};

use super::arguments::Connection;
use super::client::Client;
use super::output::{self, Failure};
use super::table;

/// Prints all services, or those of one type. None is an answer, too.
pub(super) async fn list(service_type: Option<String>, connection: &Connection) -> Result<(), Failure> {
    let mut client = Client::new(connection)?;
    let mut reply = client.request("list", json!({ "service_type": service_type })).await?;
    let services = reply["services"].take();
    if connection.json {
        return output::json(&services);
    }
    match services.as_array().map(Vec::as_slice) {
        Some([]) | None => output::note("no services"),
        Some(services) => output::line(&table::services(services, table::now_seconds(), terminal_width()))?,
    }
    Ok(())
}

/// Prints the service with that id.
pub(super) async fn get(id: &str, connection: &Connection) -> Result<(), Failure> {
    let mut client = Client::new(connection)?;
    let reply = client.request("get", json!({ "service_id": id })).await?;
    show(&reply, &client, connection)
}

/// Prints one healthy service of that type.
pub(super) async fn discover(service_type: &str, connection: &Connection) -> Result<(), Failure> {
    let mut client = Client::new(connection)?;
    let reply = client.request("discover", json!({ "service_type": service_type })).await?;
    show(&reply, &client, connection)
}

fn show(reply: &Value, client: &Client, connection: &Connection) -> Result<(), Failure> {
    let service = &reply["service"];
    match service.as_object() {
        Some(_) if connection.json => output::json(service),
        Some(fields) => output::line(&fields_as_lines(fields)),
        None => Err(Failure::NoAnswer(format!("{} sent a reply without a service", client.endpoint()))),
    }
}

/// One line for each field, in the order in which they came.
pub(super) fn fields_as_lines(fields: &Map<String, Value>) -> String {
    let name_width = fields.keys().map(|name| name.len()).max().unwrap_or(0);
    let text = |name: &str, value: &Value| match (name, value.as_f64()) {
        ("last_heartbeat", Some(beat)) => table::age(table::now_seconds() - beat),
        _ => table::cell(Some(value)),
    };
    let lines =
        fields.iter().map(|(name, value)| format!("{:name_width$}  {}", output::printable(name), text(name, value)));
    lines.collect::<Vec<_>>().join("\n")
}

fn terminal_width() -> Option<usize> {
    let is_terminal = std::io::stdout().is_terminal();
    let (width, _) = terminal_size::terminal_size().filter(|_| is_terminal)?;
    Some(usize::from(width.0))
}
