//! `registry clients`: who is connected.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use super::arguments::Connection;
use super::client::{Client, Patience};
use super::output::{self, Failure};
use super::table;

const HEAD: [&str; 9] =
    ["ADDRESS", "FRONT", "WHO", "CONNECTED", "HEARD", "REQUESTS", "ASKED", "WAITING", "SERVICES  LAST"];

/// Prints those that are meant, page by page as the registry tells of them, in the order of what waits for them.
pub(super) async fn list(
    address: Option<&str>,
    principal: Option<&str>,
    connection: &Connection,
) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let wanted = [("address", address), ("principal", principal)];
    let wanted = wanted.into_iter().filter_map(|(field, text)| Some((field.to_string(), json!(text?))));
    let mut fields: Map<String, Value> = wanted.collect();
    let mut clients = Vec::new();
    loop {
        let mut reply = client.request("clients", fields.clone().into()).await?;
        clients.extend(reply["clients"].as_array_mut().map(std::mem::take).into_iter().flatten());
        match reply["cursor"].take() {
            Value::Null => break,
            cursor => drop(fields.insert("cursor".into(), cursor)),
        }
    }
    let number = |client: &Value, field: &str| client[field].as_u64().unwrap_or_default();
    clients.sort_by_cached_key(|client| {
        let waiting = Reverse((number(client, "waiting_bytes"), number(client, "unanswered")));
        (waiting, client["address"].as_str().unwrap_or_default().to_string(), number(client, "connection"))
    });
    if connection.json {
        return output::json(&Value::Array(clients));
    }
    if clients.is_empty() {
        output::note("no clients");
        return Ok(());
    }
    let head = HEAD.map(String::from).to_vec();
    output::line(&table::plain(std::iter::once(head).chain(clients.iter().map(row)).collect()))
}

fn row(client: &Value) -> Vec<String> {
    let text = |field: &str| table::cell(client.get(field));
    let ago = |field: &str| client[field].as_f64().map_or("-".to_string(), table::age);
    let who = ["name", "principal"].into_iter().find(|field| client[*field].is_string());
    let waits = client["waits"].as_u64().filter(|waits| *waits > 0);
    let asked = match waits {
        Some(waits) => format!("{}, {waits} wait", text("unanswered")),
        None => text("unanswered"),
    };
    vec![
        text("address"),
        text("front"),
        who.map_or("-".to_string(), text),
        ago("connected_seconds"),
        ago("silent_seconds"),
        text("requests"),
        asked,
        text("waiting_bytes"),
        format!("{:8}  {}", text("services"), last(client)),
    ]
}

/// What it did last, or what it follows.
fn last(client: &Value) -> String {
    let shown = |value: &Value| output::printable(value.as_str().unwrap_or_default());
    if client["ready"] == false {
        return "connecting".to_string();
    }
    if let Some(topics) = client["topics"].as_array() {
        let topics: Vec<String> = topics.iter().map(|topic| format!("{:?}", shown(topic))).collect();
        let missed = client["missed_events"].as_u64().filter(|missed| *missed > 0);
        let missed = missed.map_or(String::new(), |missed| format!(", missed {missed}"));
        return format!("follows {}: {}{missed}", table::cell(client.get("subscriptions")), topics.join(" "));
    }
    let words = ["last_action", "last_service"].map(|field| shown(&client[field]));
    words.join(" ").trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_one_line() {
        let client = json!({"connection": 7, "front": "requests", "address": "10.0.0.7:41", "principal": "Yne@$w",
            "name": "camera\n1", "ready": true, "since": 1, "connected_seconds": 300.5, "silent_seconds": 0.2,
            "requests": 12, "last_action": "renew", "last_service": "camera-1", "unanswered": 2, "waits": 1,
            "waiting_bytes": 17, "services": 3});
        let expected = ["10.0.0.7:41", "requests", "camera\\u{a}1", "5 min ago", "0 s ago", "12", "2, 1 wait", "17"];
        let row = row(&client);
        assert_eq!(row[..8], expected);
        assert_eq!(row[8], "3         renew camera-1");
        let subscriber = json!({"ready": true, "subscriptions": 9, "topics": ["register", ""], "missed_events": 4});
        assert_eq!(last(&subscriber), "follows 9: \"register\" \"\", missed 4");
        assert_eq!(last(&json!({"ready": false})), "connecting");
    }
}
