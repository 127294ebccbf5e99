//! What Prometheus asks for: the registry in numbers, and services to be scraped.

use std::fmt;
use std::net::Ipv6Addr;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::metrics::text::CONTENT_TYPE;
use crate::protocol::json::push_text;
use crate::protocol::reply::Code;
use crate::protocol::request::Action;
use crate::security::principal::Principal;

use super::answer::{self, JSON, Refused, no_room};
use super::fields::Fields;
use super::probes::ANSWER_MAX;
use super::routes::{Call, stopping};

/// How many services are asked for at a time.
const PAGE: &str = "500";
/// The most labels that the metadata of a service becomes.
const LABELS_MAX: usize = 64;
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
            // Who asks too often is told so before it is looked whether they may.
            Ok(Ok((answer, _))) if matches!(answer.code, Some(Code::Forbidden | Code::TooManyRequests)) => {
                return answer.into_response(&call.account);
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
    of_http.connections[0].set(call.connection.all() as u64);
    let (waiting, most) = call.shared.budget.extent();
    of_http.waiting[0].set(waiting as u64);
    of_http.waiting[1].set(most as u64);
    let text = call.shared.metrics.shown();
    match call.account.hold(None, text.len()) {
        Some(held) => answer::text(HeaderValue::from_static(CONTENT_TYPE), vec![text.into()], held),
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
    drain: Option<IgnoredAny>,
    #[serde(rename = "type")]
    service_type: Option<Value>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    metadata: Labels,
}

/// Labels from metadata: the names, and the values as text.
#[derive(Default)]
struct Labels(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Labels::default())
    }
}

/// Reads metadata without keeping what becomes no label: there may be a megabyte of it.
impl<'de> Visitor<'de> for Labels {
    type Value = Labels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Labels, A::Error> {
        while self.0.len() < LABELS_MAX {
            let Some((key, value)) = map.next_entry::<String, &RawValue>()? else { return Ok(self) };
            let value = match value.get().as_bytes() {
                [b'{' | b'[' | b'n', ..] => continue,
                [b'"', ..] => serde_json::from_str(value.get()).map_err(A::Error::custom)?,
                _ => value.get().to_string(),
            };
            let name = sanitised(&key);
            // Of two names that become the same the first counts.
            if self.0.iter().all(|(known, _)| *known != name) {
                self.0.push((name, value));
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self)
    }
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
    // One after the other: this takes the thread that others over HTTP wait for, too. It fails if nobody is served any
    // more.
    let Ok(_turn) = call.shared.targets.acquire().await else { return stopping().into_response() };
    let mut pieces = Vec::new();
    let mut json = String::from("[");
    let mut is_first = true;
    loop {
        let page = match call.answer_to(Action::List, &fields).await {
            Ok((answer, _)) => match serde_json::from_slice::<Page>(&answer.bytes()) {
                Ok(page) => page,
                // It is a failure.
                Err(_) => return answer.into_response(&call.account),
            },
            Err(refused) => return refused.into_response(),
        };
        for service in page.services.iter().filter(|service| service.is_discovered()) {
            json.push_str(if std::mem::take(&mut is_first) { "" } else { "," });
            service.push(&mut json);
        }
        if page.cursor.is_none() {
            json.push(']');
        }
        if !held.grow(json.len()) {
            return no_room().into_response();
        }
        pieces.push(std::mem::take(&mut json).into());
        match page.cursor {
            Some(cursor) => fields.set("cursor", Value::from(cursor).to_string()),
            None => break,
        }
    }
    answer::text(JSON, pieces, held)
}

impl Service {
    fn is_discovered(&self) -> bool {
        self.health == "passing" && self.drain.is_none()
    }

    /// Writes a group of targets, with one in it.
    fn push(&self, json: &mut String) {
        let target = match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{}", self.port),
            Err(_) => format!("{}:{}", self.host, self.port),
        };
        json.push_str("{\"targets\":[");
        push_text(json, &target);
        json.push_str("],\"labels\":{");
        let mut separator = "";
        let mut label = |name: [&str; 2], value: &str| {
            json.push_str(std::mem::replace(&mut separator, ","));
            push_text(json, &[PREFIX, name[0], name[1]].concat());
            json.push(':');
            push_text(json, value);
        };
        label(["id", ""], &self.id);
        label(["name", ""], &self.name);
        if let Some(Value::String(name)) = &self.service_type {
            label(["type", ""], name);
        }
        // With commas around each, so that a pattern need not know which is the first.
        label(["tags", ""], &format!(",{},", self.tags.join(",")));
        self.metadata.0.iter().for_each(|(name, value)| label(["metadata_", name], value));
        json.push_str("}}");
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

    fn group(service: &Service) -> Value {
        let mut json = String::new();
        service.push(&mut json);
        serde_json::from_str(&json).unwrap()
    }

    fn service(more: Value) -> Service {
        let mut record = json!({"id": "a", "name": "A", "host": "10.0.0.1", "port": 80, "health": "passing"});
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_str(&record.to_string()).unwrap()
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
        assert_eq!(group(&service), expected);
    }

    #[test]
    fn addresses_have_brackets_and_only_who_is_discovered_is_scraped() {
        assert_eq!(group(&service(json!({"host": "::1"})))["targets"], json!(["[::1]:80"]));
        assert!(service(json!({})).is_discovered());
        assert!(!service(json!({"health": "critical"})).is_discovered());
        assert!(!service(json!({"drain": {"since": 1}})).is_discovered());
    }

    #[test]
    fn so_many_labels_come_of_metadata_and_the_first_of_two_alike_counts() {
        let many: String = (0..1000).map(|number| format!("\"k{number}\": {number}, \"l{number}\": [], ")).collect();
        let json = format!(r#"{{"a b": 1.50, "a_b": 2, {many} "last": null}}"#);
        let Labels(labels) = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (labels.len(), &labels[0], &labels[1].0),
            (LABELS_MAX, &("a_b".into(), "1.50".into()), &"k0".into())
        );
        assert!(serde_json::from_str::<Labels>("[]").is_err());
    }
}
