//! The OpenAPI document, taken at its word: each operation that it describes is called.

use serde_json::{Value, json};

use crate::client::Http;
use crate::{MEMORY, Stage, record};

/// A value for a parameter, as text in a URL.
fn value(name: &str, schema: &Value) -> String {
    match name {
        "service_id" => "a".into(),
        "epoch" => "e".into(),
        "metadata" => "%7B%7D".into(),
        "cursor" => "1.1.1.1".into(),
        _ => match schema["type"].as_str() {
            Some("integer" | "number") => "1".into(),
            _ => "web".into(),
        },
    }
}

/// The parts of a service that a schema asks for.
fn body(schema: &Value) -> String {
    if schema["$ref"] == "#/components/schemas/Service" {
        return record("a", ",\"type\":\"web\"");
    }
    let properties = schema["properties"].as_object().expect("a body has properties");
    let members = properties.iter().map(|(name, schema)| match (schema["type"].as_str(), &schema["enum"]) {
        (Some("array"), _) => (name.clone(), json!(["a"])),
        (_, Value::Array(words)) => (name.clone(), words[0].clone()),
        (Some("boolean"), _) => (name.clone(), json!(true)),
        (Some("number" | "integer"), _) => (name.clone(), json!(1)),
        (Some("string"), _) => (name.clone(), json!("a")),
        _ => (name.clone(), json!({"x": 1})),
    });
    Value::Object(members.collect()).to_string()
}

/// Asserts that a reply is what the document says of it.
fn check(operation: &Value, status: u16, reply: &Value) {
    let name = &operation["operationId"];
    let described = &operation["responses"][status.to_string()];
    assert!(described.is_object(), "{name}: {status} is not described: {reply}");
    if reply["success"] == false {
        let codes = described["description"].as_str().expect("a failure names its codes");
        let code = reply["code"].as_str().expect("a failure has a code");
        assert!(codes.split(", ").any(|known| known == code), "{name}: {status} with {code}, not one of {codes}");
        return;
    }
    let Some(properties) = described["content"]["application/json"]["schema"]["properties"].as_object() else {
        return;
    };
    for (field, value) in reply.as_object().expect("a reply is an object") {
        let schema = properties.get(field).unwrap_or_else(|| panic!("{name} does not describe {field}: {reply}"));
        let is_right = match schema["type"].as_str() {
            Some("string") => value.is_string(),
            Some("integer") => value.is_u64(),
            Some("number") => value.is_number(),
            Some("boolean") => value.is_boolean(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            _ => schema["const"] == *value || schema["$ref"].is_string(),
        };
        assert!(is_right, "{name}: {field} is {value}, expected {schema}");
    }
}

fn document(http: &mut Http) -> Value {
    let response = http.get("/openapi.json");
    assert_eq!(response.status, 200);
    response.json()
}

#[test]
fn every_operation_of_the_document_is_there_and_answers_as_it_says() {
    let stage = Stage::with(MEMORY);
    let mut http = stage.http();
    let document = document(&mut http);
    assert_eq!(document["openapi"], "3.1.0");
    let mut names: Vec<&str> = Vec::new();
    for with_query in [false, true] {
        for (path, operations) in document["paths"].as_object().expect("there are paths") {
            for (method, operation) in operations.as_object().expect("a path has operations") {
                names.extend(operation["operationId"].as_str());
                let (mut target, mut query) = (path.clone(), Vec::new());
                for parameter in operation["parameters"].as_array().expect("there is a list") {
                    let name = parameter["name"].as_str().expect("a parameter has a name");
                    let value = value(name, &parameter["schema"]);
                    match parameter["in"].as_str() {
                        Some("path") => target = target.replace(&format!("{{{name}}}"), &value),
                        _ => query.push(format!("{name}={value}")),
                    }
                }
                if with_query {
                    target = format!("{target}?{}", query.join("&"));
                }
                let content = &operation["requestBody"]["content"]["application/json"];
                let needs_type = ["post", "put", "patch"].contains(&method.as_str());
                let body = content.get("schema").map(body).or(needs_type.then(String::new));
                let response = http.call(&method.to_uppercase(), &target, &[], body.as_deref());
                let is_json = response.header("content-type") == Some("application/json");
                let reply = if is_json { response.json() } else { json!({}) };
                check(operation, response.status, &reply);
                assert!(!matches!(response.status, 405 | 415 | 500..=502), "{method} {target}: {reply}");
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    // A route beside the table would not be in the document, and nobody would look for it there.
    let actions = registry_host::protocol::request::Action::ALL.len();
    assert!(names.len() > actions, "{names:?}");
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap_or_default();
        assert!(document["components"]["schemas"][name].is_object(), "{name} is described nowhere");
    }
}

#[test]
fn bounds_and_what_may_be_left_out_are_what_the_document_says() {
    let stage = Stage::with(MEMORY);
    let mut http = stage.http();
    let document = document(&mut http);
    let (mut bounds, mut members) = (0, 0);
    for (path, operations) in document["paths"].as_object().expect("there are paths") {
        for (method, operation) in operations.as_object().expect("a path has operations") {
            let method = method.to_uppercase();
            let target = path.replace("{service_id}", "a").replace("{service_type}", "web");
            let content = &operation["requestBody"]["content"]["application/json"];
            let whole = content.get("schema").map(body).unwrap_or_default();
            let parameters = operation["parameters"].as_array().expect("there is a list");
            let bounded = parameters.iter().filter(|parameter| parameter["schema"]["maximum"].is_u64());
            for (name, schema) in bounded.map(|parameter| (&parameter["name"], &parameter["schema"])) {
                let [least, most] = ["minimum", "maximum"].map(|bound| schema[bound].as_u64().expect("a number"));
                let name = name.as_str().expect("a name");
                // Nobody waits for ten minutes here.
                let within = if name == "wait" { vec![least] } else { vec![least, most] };
                for (number, is_within) in within
                    .into_iter()
                    .map(|number| (number as i128, true))
                    .chain([(least as i128 - 1, false), (most as i128 + 1, false)])
                {
                    let target = format!("{target}?{name}={number}");
                    let is_taken = http.call(&method, &target, &[], Some(&whole)).status != 400;
                    assert_eq!(is_taken, is_within, "{method} {target}");
                    bounds += 1;
                }
            }
            let Some(properties) = content["schema"]["properties"].as_object() else { continue };
            // It takes a part or an end, and nothing that has what belongs to both.
            if target == "/v1/restore" {
                continue;
            }
            let required = content["schema"]["required"].as_array().expect("a list");
            for left_out in properties.keys() {
                let mut body: Value = serde_json::from_str(&whole).expect("a body is JSON");
                body.as_object_mut().expect("an object").remove(left_out);
                let status = http.call(&method, &target, &[], Some(&body.to_string())).status;
                assert_eq!(status == 400, required.contains(&json!(left_out)), "{method} {target}: {body}, {status}");
                members += 1;
            }
        }
    }
    assert!(bounds > 30 && members > 5, "{bounds} bounds, {members} members");
}

#[test]
fn what_is_shown_is_no_more_than_was_asked_for() {
    let stage = Stage::with(MEMORY);
    let mut http = stage.http();
    let record = &document(&mut http)["components"]["schemas"]["Record"];
    assert_eq!(http.call("PUT", "/v1/services/a", &[], Some(r#"{"name":"n","host":"h","port":1}"#)).status, 200);
    assert_eq!(http.call("PUT", "/v1/services/a/drain", &[], Some("{}")).status, 200);
    let shown = http.get("/v1/services/a").json();
    for (name, value) in shown["service"].as_object().expect("a record") {
        let schema = &record["properties"][name];
        if let Some(words) = schema["enum"].as_array() {
            assert!(words.contains(value), "{name} is {value}, expected one of {words:?}");
            continue;
        }
        let described = &schema["type"];
        let own = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) if described == "number" => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let allows = described == own || described.as_array().is_some_and(|types| types.contains(&json!(own)));
        assert!(allows, "{name} is {value}, expected {described}");
    }
    assert!(record.get("required").is_none(), "with fields= there is nothing but the id");
}
