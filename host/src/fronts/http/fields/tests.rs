use super::super::table::operations;
use super::*;

/// The fields that a request to an operation has, each with its JSON; or what refuses it.
fn fields(name: &str, path: &[(&str, &str)], query: &str, body: &str) -> Result<Vec<(&'static str, String)>, String> {
    let operation = operations().find(|operation| operation.name == name).expect("there is such an operation");
    let fields = Fields::read(operation, path, query, body.as_bytes());
    fields.map(|fields| fields.0).map_err(|refusal| refusal.finish(None).into_text())
}

#[test]
fn what_stands_in_a_query_becomes_the_json_that_its_parameter_is() {
    for (query, expected) in [
        ("", &[][..]),
        ("&&", &[]),
        ("service_type=a+b%2B%22", &[("service_type", r#""a b+\"""#)]),
        ("tags=x&tags=y%2Cz", &[("tags", r#"["x","y,z"]"#)]),
        ("tags=", &[("tags", "[]")]),
        ("tags=&tags=x&tags=", &[("tags", r#"["x"]"#)]),
        ("fields=a,b&fields=c", &[("fields", r#"["a","b","c"]"#)]),
        ("fields=", &[("fields", "[]")]),
        ("limit=7&max_stale=0.5", &[("limit", "7"), ("max_stale", "0.5")]),
        // What is none of these is handed on as a text, and refused by its name.
        ("limit=07", &[("limit", "\"07\"")]),
        ("limit=7,%22a%22:1", &[("limit", r#""7,\"a\":1""#)]),
        ("limit=true&cursor=7", &[("limit", "\"true\""), ("cursor", "\"7\"")]),
        ("metadata=%7B%22a%22:1%7D", &[("metadata", "{\"a\":1}")]),
        ("metadata=%7B%7D,%22action%22:1", &[("metadata", r#""{},\"action\":1""#)]),
        ("metadata=[1]", &[("metadata", "\"[1]\"")]),
    ] {
        let expected: Vec<(&str, String)> = expected.iter().map(|(name, json)| (*name, json.to_string())).collect();
        assert_eq!(fields("list", &[], query, ""), Ok(expected), "{query}");
    }
}

#[test]
fn what_nobody_knows_is_named() {
    for (query, part) in [
        ("type=x", "Unknown parameter: type"),
        ("service_id=x", "expected service_type, tags,"),
        ("limit=1&limit=1", "Invalid value for limit: expected once"),
        ("tags=%FF", "Invalid query"),
    ] {
        let refusal = fields("list", &[], query, "").unwrap_err();
        assert!(refusal.contains(part) && refusal.contains("invalid_request"), "{query}: {refusal}");
    }
    assert!(fields("get", &[("service_id", "a")], "x=1", "").unwrap_err().contains("expected max_stale"));
    assert!(fields("types", &[], "", "{}").unwrap_err().contains("Unexpected body"));
    assert_eq!(fields("types", &[], "", " \r\n"), Ok(vec![]));
}

#[test]
fn a_record_has_the_id_of_its_path_and_its_ttl_beside_it() {
    let path = [("service_id", "a\"b")];
    for (body, service_info) in [
        ("{}", r#"{"id":"a\"b"}"#),
        (" {\"x\":1 }\n", r#"{"x":1 ,"id":"a\"b"}"#),
        (r#"{"id":"a\u0022b","x":1}"#, r#"{"id":"a\u0022b","x":1}"#),
        (r#"{"id":null}"#, r#"{"id":null,"id":"a\"b"}"#),
        (r#"{"id":"","x":"}"}"#, r#"{"id":"","x":"}","id":"a\"b"}"#),
    ] {
        assert_eq!(fields("register_as", &path, "", body), Ok(vec![("service_info", service_info.into())]), "{body}");
    }
    let with_ttl = fields("register", &[], "", r#"{"ttl":5,"ttl":7.50}"#).unwrap();
    assert_eq!(with_ttl, [("ttl", "7.50".to_string()), ("service_info", r#"{"ttl":5,"ttl":7.50}"#.to_string())]);
    for (body, part) in [
        (r#"{"id":"other"}"#, "expected \\\"a\\\\\\\"b\\\", as in the path, or none"),
        (r#"{"id":7}"#, "got 7"),
        (r#"{"x":1}}"#, "trailing characters"),
        ("{\"x\":1", "EOF"),
        ("7", "expected one JSON object"),
        ("", "got nothing"),
    ] {
        let refusal = fields("register_as", &path, "", body).unwrap_err();
        assert!(refusal.contains(part), "{body}: {refusal}");
    }
}

#[test]
fn members_are_those_that_are_known() {
    let path = [("service_id", "a")];
    let patch = fields("update", &path, "generation=7", r#"{"metadata":{"a": null}}"#).unwrap();
    let expected = [("service_id", "\"a\""), ("generation", "7"), ("metadata", "{\"a\": null}")];
    assert_eq!(patch, expected.map(|(name, json)| (name, json.to_string())));
    let refusal = fields("update", &path, "", r#"{"metadata":{},"name":"x","other":1}"#).unwrap_err();
    assert!(refusal.contains("Unknown field: name") && refusal.contains("expected metadata"), "{refusal}");
}

#[test]
fn nothing_that_is_said_gets_out_of_its_field() {
    let limits = Limits::default();
    let mut fields = Fields::default();
    fields.set("service_id", quoted("x\",\"action\":\"terminate"));
    let request = fields.request(Action::Get, &limits).unwrap();
    assert!(matches!(request, Request::Get { service_id } if service_id == "x\",\"action\":\"terminate"));
    fields.set("service_id", quoted("y"));
    assert!(matches!(fields.request(Action::Get, &limits), Ok(Request::Get { service_id }) if service_id == "y"));
}

/// Each operation has a name of its own, and asks for what the protocol knows.
#[test]
fn the_table_is_sound() {
    let mut names: Vec<&str> = operations().map(|operation| operation.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), operations().count());
    for action in Action::ALL {
        assert!(operations().any(|operation| operation.action == Some(action)), "{action:?} is missing");
    }
    for operation in operations() {
        let in_path = operation.path.matches('{').count();
        let paths = operation.parameters.iter().filter(|parameter| parameter.place == Place::Path);
        assert!(paths.clone().all(|parameter| operation.path.contains(&format!("{{{}}}", parameter.name))));
        assert_eq!(paths.count(), in_path, "{}", operation.path);
    }
}
