//! Where HTTP is served, and what it says of the host that it belongs to.

use std::net::TcpListener;

use serde_json::json;

use crate::harness::{Host, register, registry};
use crate::{MEMORY, Stage};

#[test]
fn probes_tell_the_truth() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[server]\ncleanup_interval = 0.1\n[backend]\nplugin = \"moody\"\nreply_timeout = 5.0\n\
                  [backend.options]\noutage = \"outage\"\n";
    let host = Host::start(directory.path(), config);
    let mut http = crate::Http::connect(host.http());
    for probe in ["/live", "/ready", "/health"] {
        let response = http.get(probe);
        let reply = response.json();
        assert_eq!((response.status, &reply["alive"], &reply["ready"]), (200, &json!(true), &json!(true)), "{probe}");
    }
    assert_eq!(http.call("HEAD", "/ready", &[], None).status, 200);
    std::fs::write(directory.path().join("outage"), "").unwrap();
    let refused = http.call("PUT", "/v1/services/a", &[], Some(&crate::record("a", "")));
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("backend_unavailable")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let ready = http.get("/ready");
    assert_eq!((ready.status, &ready.json()["not_ready"]), (503, &json!(["storage failing"])));
    assert_eq!((http.get("/live").status, http.get("/health").status), (200, 200));
    // It is not sure of what it knows, and says so: nothing is what the client has already.
    let list = http.call("GET", "/v1/services?fields=", &[("If-None-Match", "*")], None);
    assert_eq!((list.status, list.header("etag")), (200, None));
    assert!(list.json()["stale_seconds"].is_number());
    assert_eq!(http.get("/v1/services?max_stale=0&fields=").json()["code"], "stale");
    assert!(ready.json()["backend"]["error"].is_string(), "where nobody is asked everybody is told");
}

#[test]
fn what_the_storage_says_of_its_failure_is_for_admins() {
    let directory = tempfile::tempdir().unwrap();
    let (admin, admins) = crate::tokens::token(&["root", "--allow", "admin"]);
    let (reader, readers) = crate::tokens::token(&["reader"]);
    let config = format!(
        "[backend]\nplugin = \"moody\"\n[backend.options]\noutage = \"outage\"\n[http]\nport = 0\n{admins}{readers}"
    );
    let host = Host::start(directory.path(), &config);
    let mut http = crate::Http::connect(host.http());
    std::fs::write(directory.path().join("outage"), "").unwrap();
    assert_eq!(host.client().call(register("a", "web", 60.0))["success"], false);
    for (token, is_told) in [(None, false), (Some("unknown"), false), (Some(&*reader), false), (Some(&*admin), true)] {
        let header = token.map(|token| ("Authorization", format!("Bearer {token}")));
        let headers: Vec<(&str, &str)> = header.iter().map(|(name, value)| (*name, &**value)).collect();
        let health = http.call("GET", "/health", &headers, None).json();
        assert_eq!((&health["backend"]["state"], health["backend"]["error"].is_string()), (&json!("failing"), is_told));
    }
}

#[test]
fn a_port_that_is_taken_is_told_of() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let mut command = registry(directory.path());
    let sets = ["server.req_port=0", "server.pub_port=0", "server.heartbeat_port=0", "backend.plugin=memory"];
    for set in sets.into_iter().chain([&*format!("http.port={port}")]) {
        command.args(["--set", set]);
    }
    let output = command.output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let expected = format!("cannot listen on http://127.0.0.1:{port} (http.port): ");
    assert!(!output.status.success() && log.contains(&expected) && log.contains("another registry"), "{log}");
}

#[test]
fn without_http_nothing_is_served_and_info_names_no_port() {
    let stage = Stage::with(&format!("[http]\nenabled = false\n{MEMORY}"));
    let info = stage.host.client().call(json!({"action": "info"}));
    assert!(info.get("http_port").is_none() && !stage.host.log().contains("HTTP"), "{info}");
    let with = Stage::new();
    assert_eq!(with.host.client().call(json!({"action": "info"}))["http_port"], with.host.http());
    assert_eq!(with.http().get("/v1/info").json()["http_port"], with.host.http());
}

#[test]
fn a_crowd_over_zeromq_and_one_over_http_are_served_side_by_side() {
    let stage = Stage::new();
    let mut client = stage.host.client();
    let mut http = stage.http();
    for number in 0..200 {
        client.send(&[b"REQ", register(&format!("z{number}"), "z", 60.0).to_string().as_bytes()]);
        assert_eq!(http.call("PUT", &format!("/v1/services/h{number}"), &[], Some(&crate::record("", ""))).status, 200);
    }
    (0..200).for_each(|_| drop(client.receive()));
    assert_eq!(http.get("/v1/services?fields=").json()["services"].as_array().unwrap().len(), 400);
}
