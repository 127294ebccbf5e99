//! `list`, `types`, `get`, `discover`, `wait`, `history`: what is registered, and what was.

use std::io::IsTerminal;
use std::time::Duration;

use registry_client::{Code, Connectivity, Error, Record, Registry};
use serde_json::{Map, Value, json};

use super::arguments::Connection;
use super::client::{Client, Patience};
use super::output::{self, Failure};
use super::selection::Selection;
use super::table;

/// How long the last answer is waited for when the time to wait is over.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Prints the services that are meant. None is an answer, too.
pub(super) async fn list(
    service_type: Option<&str>,
    selection: &Selection,
    fields: &[String],
    connection: &Connection,
) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let filter = fields.iter().fold(selection.filter(service_type), |filter, field| filter.field(field));
    let listing = client.understood(client.registry().list(filter).await, &json!({}))?;
    let services: Vec<Value> = listing.services.into_iter().map(Value::from).collect();
    doubt(listing.stale_seconds);
    if connection.json {
        return output::json(&Value::Array(services));
    }
    match &services[..] {
        [] => {
            output::note("no services");
            Ok(())
        }
        services if fields.is_empty() => {
            output::line(&table::services(services, table::now_seconds(), terminal_width()))
        }
        services => output::line(&table::fields(services, fields)),
    }
}

/// Prints all types with the numbers of their services.
pub(super) async fn types(connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let types = client.understood(client.registry().types().await, &json!({}))?;
    if connection.json {
        let types = types
            .into_iter()
            .map(|(name, of)| (name, json!({ "passing": of.passing, "drained": of.drained, "critical": of.critical })));
        return output::json(&Value::Object(types.collect()));
    }
    if types.is_empty() {
        output::note("no services");
        return Ok(());
    }
    let head = ["TYPE", "PASSING", "DRAINED", "CRITICAL"].map(String::from).to_vec();
    let rows = types.iter().map(|(name, of)| {
        let counts = [of.passing, of.drained, of.critical].map(|count| count.to_string());
        std::iter::once(output::printable(name)).chain(counts).collect()
    });
    output::line(&table::plain(std::iter::once(head).chain(rows).collect()))
}

/// Prints the service with that id.
pub(super) async fn get(id: &str, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let reply = client.request("get", json!({ "service_id": id })).await?;
    show(&reply, &client, connection)
}

/// Prints one healthy service of that type.
pub(super) async fn discover(
    service_type: &str,
    selection: &Selection,
    connection: &Connection,
) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let found = client.registry().discover(selection.filter(Some(service_type))).await;
    let service = client.understood(found, &json!({ "service_type": service_type }))?;
    show_record(&service, connection)
}

/// Waits until there is a healthy service of that type, and prints it.
pub(super) async fn wait(service_type: &str, selection: &Selection, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::Some)?;
    let filter = selection.filter(Some(service_type));
    // The time is that of the wait: an answer comes soon after it, or not at all.
    let registry = client.registry().within(ANSWER_WITHIN);
    let found = tokio::select! {
        found = registry.discover_within(filter, connection.timeout) => found,
        away = still_away(&registry, connection.timeout) => Err(away),
    };
    let service = found.map_err(|error| match error.code() {
        Some(Code::NoneHealthy) => Failure::Failed(format!(
            "no healthy service of type {service_type:?} at {} within {} s",
            client.endpoint(),
            connection.timeout.as_secs_f64()
        )),
        _ => client.failure(error, &json!({})),
    })?;
    show_record(&service, connection)
}

/// Ready when that time is over and there is no registry, nor anything to wait for.
async fn still_away(registry: &Registry, time: Duration) -> Error {
    tokio::time::sleep(time).await;
    let cause = match &*registry.connectivity().borrow() {
        Connectivity::Away { cause } => Some(cause.clone()),
        _ => None,
    };
    match cause {
        Some(cause) => Error::Unreachable { cause },
        None => std::future::pending().await,
    }
}

/// Prints what has happened to a service.
pub(super) async fn history(id: &str, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let entries = client.about(id, client.registry().history(id).await)?;
    if connection.json {
        return output::json(&entries.into_iter().map(|entry| Value::Object(entry.fields)).collect());
    }
    if entries.is_empty() {
        output::note(&format!("nothing is known of {id:?} at {}", client.endpoint()));
        return Ok(());
    }
    let rows = entries.iter().map(|entry| {
        // A key, a token or a certificate, in the registry's own words.
        let proof = entry.fields.get("by").and_then(Value::as_object).into_iter().flatten();
        let proof = proof.filter(|(kind, _)| *kind != "address");
        let proof = proof.filter_map(|(kind, name)| Some(format!("{kind} {}", name.as_str()?)));
        let by = entry.address.clone().into_iter().chain(proof).collect::<Vec<_>>().join(", ");
        let by = if by.is_empty() { String::new() } else { format!("by {}", output::printable(&by)) };
        let more = entry.fields.iter().filter(|(name, _)| !["timestamp", "what", "by"].contains(&name.as_str()));
        let more = more.map(|(name, value)| format!("{}: {}", output::printable(name), table::cell(Some(value))));
        let more = more.collect::<Vec<_>>().join(", ");
        vec![crate::text::utc(entry.timestamp), output::printable(&entry.what), by, more]
    });
    output::line(&table::plain(rows.collect()))
}

/// Says so if the registry cannot be sure of what it says.
fn doubt(stale_seconds: Option<f64>) {
    if let Some(seconds) = stale_seconds {
        output::note(&format!("the registry cannot be sure of this: its storage has failed for {seconds:.0} s"));
    }
}

fn show_record(record: &Record, connection: &Connection) -> Result<(), Failure> {
    match connection.json {
        true => output::json(&Value::Object(record.fields().clone())),
        false => output::line(&fields_as_lines(record.fields())),
    }
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
