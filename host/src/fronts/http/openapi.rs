//! The OpenAPI document, made from the table.

use std::collections::BTreeMap;

use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::protocol::reply::Code;
use crate::protocol::request::Action;

use super::answer::{self, shown};
use super::table::{Field, Kind, Method, Needs, Operation, Parameter, Payload, Place, operations};

/// Shows the document.
pub(super) async fn document() -> Response {
    shown(described().to_string())
}

/// The document.
fn described() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations() {
        paths.entry(operation.path).or_default().insert(word(operation.method).into(), described_operation(operation));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Service registry",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": env!("CARGO_PKG_LICENSE")},
            "description": "The actions of docs/protocol.md over HTTP. Every reply is the JSON object that is described \
                            there, and its status says the same as its code.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
    })
}

fn word(method: Method) -> &'static str {
    match method {
        Method::Get => "get",
        Method::Post => "post",
        Method::Put => "put",
        Method::Patch => "patch",
        Method::Delete => "delete",
    }
}

fn described_operation(operation: &Operation) -> Value {
    let parameters: Vec<Value> = operation.parameters.iter().map(described_parameter).collect();
    let mut described = json!({
        "operationId": operation.name,
        "summary": operation.about,
        "parameters": parameters,
        "responses": responses(operation),
    });
    match operation.body {
        Payload::None => {}
        Payload::Service => described["requestBody"] = body(&json!({"$ref": "#/components/schemas/Service"})),
        Payload::Members(members) => {
            let properties: Map<String, Value> = members
                .iter()
                .map(|member| {
                    let mut schema = schema(member.kind);
                    schema["description"] = member.about.into();
                    (member.name.to_string(), schema)
                })
                .collect();
            let needed = members.iter().filter(|member| member.place == Place::Member);
            let required: Vec<&str> = needed.map(|member| member.name).collect();
            let object = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
            described["requestBody"] = body(&object);
        }
    }
    if operation.needs == Needs::Proof {
        // Without keys, tokens and certificates nobody is asked.
        described["security"] = json!([{}, {"token": []}, {"certificate": []}]);
    }
    described
}

fn body(schema: &Value) -> Value {
    json!({"required": true, "content": {"application/json": {"schema": schema}}})
}

fn described_parameter(parameter: &Parameter) -> Value {
    let place = match parameter.place {
        Place::Path => "path",
        Place::Query | Place::Member | Place::Optional => "query",
    };
    let mut described = json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.place == Place::Path,
        "description": parameter.about,
    });
    match parameter.kind {
        Kind::Object => described["content"] = json!({"application/json": {"schema": schema(Kind::Object)}}),
        kind => described["schema"] = schema(kind),
    }
    if parameter.kind == Kind::Names {
        // With commas between them.
        described["style"] = "form".into();
        described["explode"] = false.into();
    }
    described
}

/// What may come back: what everybody has to reckon with, and what the operation may fail for.
fn responses(operation: &Operation) -> Value {
    let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    let mut add = |status: u16, code: Code| {
        let codes = codes.entry(status).or_default();
        if !codes.contains(&code.as_str()) {
            codes.push(code.as_str());
        }
    };
    operation.fails.iter().for_each(|code| add(answer::status(*code).as_u16(), *code));
    add(400, Code::InvalidRequest);
    if !matches!(operation.body, Payload::None) {
        add(400, Code::InvalidJson);
    }
    for code in [Code::Forbidden, Code::Starting, Code::Overloaded] {
        add(answer::status(code).as_u16(), code);
    }
    [(413, Code::InvalidRequest), (421, Code::Forbidden), (429, Code::Overloaded)]
        .into_iter()
        .for_each(|(status, code)| add(status, code));
    if !matches!(operation.action, Some(Action::Health | Action::Renew)) {
        add(429, Code::TooManyRequests);
    }
    if matches!(operation.method, Method::Post | Method::Put | Method::Patch) {
        add(415, Code::InvalidRequest);
    }
    if !matches!(operation.body, Payload::None) {
        add(408, Code::InvalidRequest);
    }
    if operation.needs == Needs::Proof {
        add(401, Code::Forbidden);
    }
    let failed = |(status, codes): (u16, Vec<&str>)| {
        let described = json!({
            "description": codes.join(", "),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}},
        });
        (status.to_string(), described)
    };
    let mut all: Map<String, Value> = codes.into_iter().map(failed).collect();
    let mut content = match operation.name {
        "metrics" => json!({"text/plain": {"schema": {"type": "string"}}}),
        "targets" => json!({"application/json": {"schema": schema(Kind::List)}}),
        _ => json!({"application/json": {"schema": reply(operation.reply)}}),
    };
    if operation.name == "watch" {
        content["text/event-stream"] = json!({"schema": {"type": "string"}});
    }
    all.insert("200".into(), json!({"description": operation.about, "content": content}));
    if operation.name == "list" {
        all.insert("304".into(), json!({"description": "The client has this list already: see ETag"}));
    }
    all.into()
}

fn reply(fields: &[Field]) -> Value {
    let mut properties: Map<String, Value> =
        fields.iter().map(|(name, kind)| (name.to_string(), schema(*kind))).collect();
    if fields.is_empty() {
        return json!({"type": "object"});
    }
    properties.insert("success".into(), json!({"const": true}));
    json!({"type": "object", "properties": properties, "required": ["success"]})
}

fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Texts | Kind::Names => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Whole => json!({"type": "integer", "minimum": 0}),
        Kind::Between(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Number => json!({"type": "number", "minimum": 0}),
        Kind::UpTo(most) => json!({"type": "number", "minimum": 0, "maximum": most}),
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::Object => json!({"type": "object"}),
        Kind::List => json!({"type": "array"}),
        Kind::Word(words) => json!({"enum": words}),
        Kind::Service => json!({"$ref": "#/components/schemas/Record"}),
        Kind::Services => json!({"type": "array", "items": {"$ref": "#/components/schemas/Record"}}),
        Kind::Changes => json!({"type": "array", "items": {"$ref": "#/components/schemas/Change"}}),
    }
}

fn schemas() -> Value {
    let text = || json!({"type": "string"});
    let port = || json!({"type": "integer", "minimum": 1, "maximum": 65535});
    let shown = |about: &str, kind: Kind| {
        let mut schema = schema(kind);
        schema["description"] = about.into();
        schema
    };
    let codes: Vec<&str> = Code::ALL.map(Code::as_str).to_vec();
    json!({
        "Service": {
            "type": "object",
            "description": "A service, as it is registered. Fields that are not named here are its own, and are kept.",
            "required": ["name", "host", "port"],
            "properties": {
                "id": {"type": "string", "description": "Made from the name if there is none"},
                "name": {"type": "string", "minLength": 1},
                "host": {"type": "string", "minLength": 1},
                "port": port(),
                "type": text(),
                "tags": {"type": "array", "items": text()},
                "metadata": {"type": "object"},
                "ttl": {"type": "number", "exclusiveMinimum": 0, "default": 30,
                        "description": "For how many seconds it is healthy without a heartbeat"},
                "singleton": {"type": "boolean"},
                "allow_duplicate_service_type": {"type": "boolean"},
            },
        },
        "Record": {
            "type": "object",
            "description": "A service, as it is shown: all of it, or the fields that were asked for. Fields that are not \
                            named here are its own.",
            "properties": {
                "id": text(),
                "name": text(),
                "host": text(),
                "port": port(),
                "type": {"type": ["string", "null"]},
                "tags": {"type": "array", "items": text()},
                "metadata": {"type": "object"},
                "ttl": {"type": "number"},
                "generation": shown("Which registration it is", Kind::Whole),
                "last_heartbeat": shown("In seconds since 1970", Kind::Whole),
                "health": shown("Whether it was heard of within its ttl", Kind::Word(&["passing", "critical"])),
                "owner_key": shown("Whose it is", Kind::Text),
                "drain": shown("Since and until when it is drained, and why", Kind::Object),
            },
        },
        "Change": {
            "type": "object",
            "required": ["type", "timestamp", "data", "revision", "previous", "epoch"],
            "properties": {
                "type": {"enum": ["register", "deregister", "expire", "leave"]},
                "timestamp": {"type": "integer"},
                "data": {
                    "type": "object",
                    "required": ["service_id", "service_info"],
                    "properties": {"service_id": text(), "service_info": {"$ref": "#/components/schemas/Record"}},
                },
                "revision": {"type": "integer"},
                "previous": {"type": "integer"},
                "epoch": text(),
            },
        },
        "Failure": {
            "type": "object",
            "required": ["success", "error", "code"],
            "properties": {
                "success": {"const": false},
                "error": text(),
                "code": {"enum": codes},
                "message": text(),
                "field": text(),
            },
        },
    })
}
