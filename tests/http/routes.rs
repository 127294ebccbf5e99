//! What each route does, and the statuses.

use serde_json::{Value, json};

use crate::client::Http;
use crate::{MEMORY, Stage, record};

/// Registers a service with these fields besides. The id is as it stands in a URL.
fn put(http: &mut Http, id: &str, more: &str) -> Value {
    let body = format!("{{\"name\":\"N\",\"host\":\"127.0.0.1\",\"port\":4000{more}}}");
    let response = http.call("PUT", &format!("/v1/services/{id}"), &[], Some(&body));
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

#[test]
fn a_service_lives_its_life_over_http_and_is_the_same_over_zeromq() {
    let stage = Stage::new();
    let mut http = stage.http();
    let body = r#"{"name":"My Cam","host":"h","port":7000,"type":"cam","ttl":7.5,"mine":[1, 1.50]}"#;
    let made = http.call("POST", "/v1/services", &[], Some(body));
    let id = made.json()["service_id"].as_str().unwrap().to_string();
    assert!(made.status == 200 && id.starts_with("my-cam-"), "{made:?}");
    let shown = http.get(&format!("/v1/services/{id}"));
    assert_eq!(shown.header("content-type"), Some("application/json"));
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    let service = shown.json()["service"].clone();
    assert_eq!((&service["ttl"], &*service["mine"].to_string()), (&json!(7.5), "[1,1.50]"), "as it was written");
    let by_zeromq = stage.host.client().call(json!({"action": "get", "service_id": id}));
    assert_eq!(by_zeromq["service"], service);

    // A record that is read can be written back.
    let again = http.call("PUT", &format!("/v1/services/{id}"), &[], Some(&service.to_string()));
    assert!(again.status == 200 && again.json()["generation"].as_u64() > service["generation"].as_u64());
    let generation = again.json()["generation"].as_u64().unwrap();
    let at = |what: &str, generation: u64| format!("/v1/services/{id}{what}?generation={generation}");
    assert_eq!(http.call("POST", &at("/renew", generation), &[], Some("")).status, 200);
    let late = http.call("POST", &at("/renew", generation - 1), &[], Some(""));
    assert_eq!((late.status, &late.json()["code"]), (409, &json!("replaced")));
    let patch = r#"{"metadata":{"a":{"b":1},"type":"other"}}"#;
    assert_eq!(http.call("PATCH", &at("", generation), &[], Some(patch)).json()["field"], "metadata.type");
    let patch = r#"{"metadata":{"a":{"b":1}}}"#;
    let merge = [("Content-Type", "application/merge-patch+json")];
    assert_eq!(http.call("PATCH", &at("", generation), &merge, Some(patch)).status, 200);
    let service = http.get(&format!("/v1/services/{id}")).json()["service"].clone();
    assert_eq!(service["metadata"]["a"], json!({"b": 1}));

    let found = http.get("/v1/discover/cam?fields=port&metadata=%7B%22a%22%3A%7B%22b%22%3A1%7D%7D");
    assert_eq!(found.json()["service"], json!({"id": id, "port": 7000}));
    assert_eq!(http.get("/v1/types").json()["types"], json!({"cam": {"passing": 1, "drained": 0, "critical": 0}}));
    assert_eq!(http.call("DELETE", &at("", generation), &[], None).status, 200);
    let gone = http.call("POST", &format!("/v1/services/{id}/renew"), &[], Some(""));
    assert_eq!((gone.status, &gone.json()["code"]), (410, &json!("deregistered")));
    assert_eq!(http.get(&format!("/v1/services/{id}")).status, 404);
    let history = http.get(&format!("/v1/services/{id}/history?limit=1")).json();
    assert_eq!(history["history"][0]["what"], "deregistered");
    let all = http.get(&format!("/v1/services/{id}/history")).json();
    assert_eq!(all["history"][0]["what"], "registered");
    assert!(all["history"][0]["by"]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{all}");
}

#[test]
fn lists_are_filtered_and_cut_into_pages() {
    let stage = Stage::new();
    let mut http = stage.http();
    put(&mut http, "a%2Fb%20c", ",\"type\":\"web\",\"tags\":[\"x\",\"y,z\"],\"version\":\"1.4.0\"");
    put(&mut http, "other", ",\"type\":\"mail\",\"tags\":[\"x\"]");
    let mut ids = |query: &str| {
        let response = http.get(&format!("/v1/services?{query}"));
        assert_eq!(response.status, 200, "{response:?}");
        let services = response.json()["services"].clone();
        services
            .as_array()
            .unwrap()
            .iter()
            .map(|service| service["id"].as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("service_type=web"), ["a/b c"]);
    assert_eq!(ids("tags=x&tags=y%2Cz"), ["a/b c"]);
    assert_eq!(ids("tags=x&service_type=mail"), ["other"]);
    assert_eq!(ids("version=%5E1.2"), ["a/b c"]);
    assert_eq!(ids("service_type=nothing"), [""; 0]);
    assert_eq!(ids("").len(), 2);
    let page = http.get("/v1/services?limit=1&fields=").json();
    let cursor = page["cursor"].as_str().unwrap();
    let rest = http.get(&format!("/v1/services?limit=10&fields=&cursor={cursor}")).json();
    assert_eq!(rest["services"].as_array().unwrap().len(), 1);
    assert_eq!(http.get(&format!("/v1/services?limit=10&tags=x&cursor={cursor}")).status, 410);
    assert_eq!(http.get("/v1/services/a%2Fb+c").status, 404, "a plus is a plus in a path");
    assert_eq!(http.get("/v1/services/a%2Fb%20c").json()["service"]["id"], "a/b c");
}

#[test]
fn failures_have_the_status_of_their_code_and_name_what_is_wrong() {
    let stage = Stage::with(&format!("[server]\nenforce_unique_service_types = true\n{MEMORY}"));
    let mut http = stage.http();
    put(&mut http, "first", ",\"type\":\"one\"");
    let second = record("second", ",\"type\":\"one\"");
    for (method, target, body, status, code, part) in [
        ("GET", "/v1/services/x", None, 404, "not_found", "Service not found"),
        ("GET", "/v1/discover/x", None, 404, "none_healthy", "No healthy service of type x"),
        ("POST", "/v1/services", Some(&*second), 409, "duplicate_service_type", "first"),
        (
            "PUT",
            "/v1/services/third",
            Some(&second),
            400,
            "invalid_request",
            "\"third\", as in the path, or none, got \"second\"",
        ),
        ("POST", "/v1/services", Some("{"), 400, "invalid_json", "EOF"),
        ("POST", "/v1/services", Some("[]"), 400, "invalid_json", "expected one JSON object"),
        ("POST", "/v1/services", Some(""), 400, "invalid_json", "got nothing"),
        ("POST", "/v1/services", Some("{}"), 400, "invalid_request", "Missing required field in service_info: name"),
        ("PUT", "/v1/services/x", Some("{}"), 400, "invalid_request", "Missing required field in service_info: name"),
        (
            "POST",
            "/v1/services",
            Some(r#"{"ttl":0,"name":"n","host":"h","port":1}"#),
            400,
            "invalid_request",
            "Invalid value for ttl",
        ),
        ("PATCH", "/v1/services/first", Some(r#"{"name":"x"}"#), 400, "invalid_request", "Unknown field: name"),
        ("PATCH", "/v1/services/first", Some("{}"), 400, "invalid_request", "Missing required field: metadata"),
        ("PATCH", "/v1/services/x", Some(r#"{"metadata":{"a":1}}"#), 404, "not_found", "could not be updated"),
        ("DELETE", "/v1/services/x", None, 404, "not_found", "could not be deregistered"),
        ("DELETE", "/v1/services/first?generation=x", None, 400, "invalid_request", "got \"x\""),
        ("DELETE", "/v1/services/first", Some("{}"), 400, "invalid_request", "Unexpected body"),
        ("POST", "/v1/renew", Some(r#"{"services":"x"}"#), 400, "invalid_request", "expected a list of ids"),
        ("POST", "/v1/expiry", Some(r#"{"mass_expiry":"keep"}"#), 404, "not_found", "No mass expiry"),
        ("POST", "/v1/terminate", Some(""), 403, "forbidden", "allow_terminate is off"),
        ("GET", "/v1/services?type=x", None, 400, "invalid_request", "Unknown parameter: type"),
        ("GET", "/v1/services?limit=x", None, 400, "invalid_request", "got \"x\""),
        ("GET", "/v1/services?limit=1&limit=2", None, 400, "invalid_request", "expected once, got several"),
        ("GET", "/v1/services?metadata=7", None, 400, "invalid_request", "expected an object, got \"7\""),
        ("GET", "/v1/services?tags=%FF", None, 400, "invalid_request", "Invalid query"),
        ("GET", "/v1/services/%FF", None, 400, "invalid_request", "Invalid path"),
        ("GET", "/v1/watch?after=7", None, 400, "invalid_request", "Missing required field: epoch"),
        ("GET", "/v1/watch?epoch=e&after=7", None, 410, "compacted", "list again"),
        ("GET", "/v1/nothing", None, 404, "unknown_action", "Unknown path"),
        ("GET", "/v1/services/", None, 404, "unknown_action", "Unknown path"),
        ("POST", "/v1/types", Some(""), 405, "unknown_action", "Unknown method here: POST"),
    ] {
        let response = http.call(method, target, &[], body);
        let reply = response.json();
        assert_eq!((response.status, &reply["code"]), (status, &json!(code)), "{method} {target} {body:?}: {reply}");
        assert!(reply.to_string().contains(&part.replace('"', "\\\"")), "{method} {target}: {reply}");
        assert_eq!(reply["success"], false);
    }
    assert_eq!(http.call("POST", "/v1/types", &[], Some("")).header("allow"), Some("GET,HEAD"));
    let many = http.call("POST", "/v1/renew", &[], Some(r#"{"services":["first","x"]}"#)).json();
    assert_eq!((&many["renewed"], &many["failed"][0]["service_id"]), (&json!(1), &json!("x")));
}

#[test]
fn a_list_without_what_moves_is_sent_once_for_each_revision() {
    let stage = Stage::new();
    let mut http = stage.http();
    put(&mut http, "a", "");
    let target = "/v1/services?fields=port,name";
    let first = http.get(target);
    let tag = first.header("etag").expect("it has a tag").to_string();
    assert_eq!(first.header("cache-control"), Some("no-cache"));
    let known = [("If-None-Match", &*tag)];
    let same = http.call("GET", target, &known, None);
    assert_eq!((same.status, same.header("etag"), same.body.len()), (304, Some(&*tag), 0));
    // Another question has another answer, and so has the same one when something has changed.
    assert_eq!(http.call("GET", "/v1/services?fields=port", &known, None).status, 200);
    assert_eq!(http.call("POST", "/v1/services/a/renew", &[], Some("")).status, 200);
    assert_eq!(http.call("GET", target, &known, None).status, 304, "a heartbeat shows nowhere in it");
    put(&mut http, "b", "");
    let next = http.call("GET", target, &known, None);
    assert!(next.status == 200 && next.header("etag") != Some(&*tag), "{next:?}");
    // What moves without a revision is never taken for the same.
    for target in ["/v1/services", "/v1/services?fields=health", "/v1/services?fields=id,last_heartbeat"] {
        let list = http.call("GET", target, &[("If-None-Match", "*")], None);
        assert_eq!((list.status, list.header("etag")), (200, None), "{target}");
    }
}

#[test]
fn a_poll_waits_for_the_next_change() {
    let stage = Stage::new();
    let mut http = stage.http();
    let now = http.get("/v1/watch").json();
    let (epoch, revision) = (now["epoch"].as_str().unwrap(), now["revision"].as_u64().unwrap());
    let mut other = stage.http();
    http.request("GET", &format!("/v1/watch?epoch={epoch}&after={revision}&wait=60&service_type=web"), &[], None);
    put(&mut other, "a", ",\"type\":\"mail\"");
    put(&mut other, "b", ",\"type\":\"web\"");
    let changes = http.response(true).json()["changes"].clone();
    assert_eq!((changes.as_array().unwrap().len(), &changes[0]["data"]["service_id"]), (1, &json!("b")));
    http.request("GET", "/v1/discover/late?wait=60", &[], None);
    put(&mut other, "c", ",\"type\":\"late\"");
    assert_eq!(http.response(true).json()["service"]["id"], "c");
}

#[test]
fn whoever_runs_the_registry_can_stop_it_if_that_is_allowed() {
    let stage = Stage::with(&format!("[server]\nallow_terminate = true\n{MEMORY}"));
    let mut http = stage.http();
    let reply = http.call("POST", "/v1/terminate", &[], Some("")).json();
    assert_eq!(reply["status"], "terminating");
    let (status, log) = stage.host.wait();
    assert!(status.success(), "{log}");
}
