//! What Prometheus asks for: the registry in numbers, and services to be scraped.

use std::net::Ipv6Addr;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::metrics::text::CONTENT_TYPE;
use crate::protocol::reply::Code;
use crate::protocol::request::Action;
use crate::security::principal::Principal;

use super::answer::{self, JSON, Refused, no_room};
use super::connections::Connection;
use super::fields::Fields;
use super::probes::ANSWER_MAX;
use super::routes::Call;

/// How many services are asked for at a time.
const PAGE: &str = "500";
/// What the names of labels begin with.
const PREFIX: &str = "__meta_registry_";

/// The registry in numbers.
pub(super) async fn metrics(mut call: Call, body: Body) -> Response {
    if let Err(refused) = call.fields(body).await {
        return refused.into_response();
    }
    // Who has proved who they are may still have no right to read, which only the serving thread knows. Where nobody
    // is asked for a proof it is not needed, so that a registry that hangs is still looked into.
    if call.principal != Principal::Nobody {
        match tokio::time::timeout(ANSWER_MAX, call.answer_to(Action::Watch, &Fields::default())).await {
            Ok(Ok((answer, _))) if answer.code == Some(Code::Forbidden) => {
                return answer.into_response(&call.shared.budget);
            }
            Ok(Ok(_)) => {}
            Ok(Err(refused)) => return refused.into_response(),
            Err(_) => {
                let (status, error) = (StatusCode::SERVICE_UNAVAILABLE, "The registry hangs");
                let message = "whether you may read is not known";
                return Refused::new(status, Code::Overloaded, error, message).into_response();
            }
        }
    }
    let of_http = &call.shared.metrics.http;
    if let Some(connection) = call.parts.extensions.get::<std::sync::Arc<Connection>>() {
        of_http.connections[0].set(connection.all() as u64);
    }
    let (waiting, most) = call.shared.budget.extent();
    of_http.waiting[0].set(waiting as u64);
    of_http.waiting[1].set(most as u64);
    let text = call.shared.metrics.shown();
    match call.shared.budget.hold(None, text.len()) {
        Some(held) => answer::text(HeaderValue::from_static(CONTENT_TYPE), text, held),
        None => no_room().into_response(),
    }
}

/// A page of the list, as far as it says what is to be scraped.
#[derive(Deserialize)]
struct Page {
    services: Vec<Service>,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Service {
    id: String,
    name: String,
    host: String,
    port: u16,
    health: String,
    drain: Option<Value>,
    #[serde(rename = "type")]
    service_type: Option<Value>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// The services that can be discovered, as targets. However many there are, the serving thread is asked for a page at a
/// time.
pub(super) async fn targets(mut call: Call, body: Body) -> Response {
    let (mut fields, mut held) = match call.fields(body).await {
        Ok(fields) => fields,
        Err(refused) => return refused.into_response(),
    };
    if let Some(service_type) = fields.get("type").map(str::to_string) {
        fields.remove("type");
        fields.set("service_type", service_type);
    }
    fields.set("limit", PAGE.into());
    let mut json = String::from("[");
    loop {
        let page = match call.answer_to(Action::List, &fields).await {
            Ok((answer, _)) => match serde_json::from_slice::<Page>(&answer.bytes()) {
                Ok(page) => page,
                // It is a failure.
                Err(_) => return answer.into_response(&call.shared.budget),
            },
            Err(refused) => return refused.into_response(),
        };
        let before = json.len();
        for service in page.services.iter().filter(|service| service.is_discovered()) {
            json.push_str(if json.len() > 1 { "," } else { "" });
            json.push_str(&service.group().to_string());
        }
        if !held.grow(json.len() - before) {
            return no_room().into_response();
        }
        match page.cursor {
            Some(cursor) => fields.set("cursor", Value::from(cursor).to_string()),
            None => break,
        }
    }
    json.push(']');
    answer::text(JSON, json, held)
}

impl Service {
    fn is_discovered(&self) -> bool {
        self.health == "passing" && self.drain.is_none()
    }

    /// A group of targets, with one in it.
    fn group(&self) -> Value {
        let target = match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", self.port),
            Err(_) => format!("{}:{}", self.host, self.port),
        };
        let mut labels = Map::new();
        let mut label = |name: &str, value: String| {
            // Of two names that become the same the first counts.
            labels.entry(format!("{PREFIX}{name}")).or_insert(value.into());
        };
        label("id", self.id.clone());
        label("name", self.name.clone());
        if let Some(Value::String(name)) = &self.service_type {
            label("type", name.clone());
        }
        // With commas around each, so that a pattern need not know which is the first.
        label("tags", format!(",{},", self.tags.join(",")));
        for (key, value) in &self.metadata {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => continue,
            };
            label(&format!("metadata_{}", sanitised(key)), value);
        }
        serde_json::json!({"targets": [target], "labels": labels})
    }
}

/// What is no part of a label's name becomes a low line.
fn sanitised(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(more: Value) -> Service {
        let mut record = json!({"id": "a", "name": "A", "host": "10.0.0.1", "port": 80, "health": "passing"});
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn labels_have_names_that_prometheus_knows_and_come_from_all_that_is_text_or_a_number() {
        let metadata = json!({"room-no": 4, "room no": 5, "a": "b\"", "on": true, "not": null, "list": [1], "é": "x"});
        let service = service(json!({"type": "web", "tags": ["x", "y"], "metadata": metadata}));
        let expected = json!({"targets": ["10.0.0.1:80"], "labels": {
            "__meta_registry_id": "a",
            "__meta_registry_name": "A",
            "__meta_registry_type": "web",
            "__meta_registry_tags": ",x,y,",
            "__meta_registry_metadata_room_no": "4",
            "__meta_registry_metadata_a": "b\"",
            "__meta_registry_metadata_on": "true",
            "__meta_registry_metadata__": "x",
        }});
        assert_eq!(service.group(), expected);
    }

    #[test]
    fn addresses_have_brackets_and_only_who_is_discovered_is_scraped() {
        assert_eq!(service(json!({"host": "::1"})).group()["targets"], json!(["[::1]:80"]));
        assert!(service(json!({})).is_discovered());
        assert!(!service(json!({"health": "critical"})).is_discovered());
        assert!(!service(json!({"drain": {"since": 1}})).is_discovered());
    }
}
