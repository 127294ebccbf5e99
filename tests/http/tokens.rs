//! Who asks, over HTTP: tokens, what they may do, and what is theirs.

use std::path::Path;

use serde_json::json;

use crate::client::{Http, Response};
use crate::harness::{Host, keys, registry};
use crate::{MEMORY, Stage, record};

/// A new token, and the lines for `registry.toml`, as the command prints them: the token alone on standard output.
pub(crate) fn token(arguments: &[&str]) -> (String, String) {
    let output = registry(Path::new("/")).arg("token").args(arguments).output().expect("the program can be started");
    let printed = String::from_utf8(output.stdout).expect("it prints text");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = printed.strip_suffix('\n').expect("it prints a line").to_string();
    assert!(token.starts_with("registry-") && !token.contains(char::is_whitespace), "{token:?}");
    let advice = String::from_utf8(output.stderr).expect("it prints text");
    let lines = advice.split_once("[[http.tokens]]").expect("it prints the lines").1;
    (token, format!("[[http.tokens]]{lines}"))
}

pub(crate) fn call(http: &mut Http, token: &str, method: &str, target: &str, body: Option<&str>) -> Response {
    http.call(method, target, &[("Authorization", &format!("Bearer {token}"))], body)
}

#[test]
fn a_token_may_do_what_it_is_granted_and_what_it_registers_is_its_own() {
    let (reader, mut tokens) = token(&["reader"]);
    let (cam, lines) = token(&["cam", "--allow", "read,register", "--type", "cam*"]);
    tokens += &lines;
    let (other, lines) = token(&["other", "--allow", "read,register"]);
    tokens += &lines;
    let (root, lines) = token(&["root", "--allow", "admin"]);
    tokens += &lines;
    let stage = Stage::with(&format!("[server]\nallow_terminate = true\n{MEMORY}[http]\nport = 0\n{tokens}"));
    stage.host.wait_for_log(", for 4 tokens");
    let mut http = stage.http();
    let web = record("a", ",\"type\":\"web\"");
    let camera = record("a", ",\"type\":\"cam1\"");
    for (token, method, target, body, status) in [
        (&reader, "GET", "/v1/services", None, 200),
        (&reader, "PUT", "/v1/services/a", Some(&camera), 403),
        (&cam, "PUT", "/v1/services/a", Some(&web), 403),
        (&cam, "PUT", "/v1/services/a", Some(&camera), 200),
        (&other, "PUT", "/v1/services/a", Some(&web), 403),
        (&other, "DELETE", "/v1/services/a", None, 403),
        (&other, "POST", "/v1/services/a/renew", Some(&String::new()), 403),
        (&cam, "POST", "/v1/services/a/renew", Some(&String::new()), 200),
        (&cam, "POST", "/v1/expiry", Some(&"{\"mass_expiry\":\"keep\"}".to_string()), 403),
        (&root, "POST", "/v1/expiry", Some(&"{\"mass_expiry\":\"keep\"}".to_string()), 404),
        (&cam, "POST", "/v1/terminate", Some(&String::new()), 403),
    ] {
        let response = call(&mut http, token, method, target, body.map(String::as_str));
        let what = format!("{method} {target}: {response:?}");
        assert_eq!(response.status, status, "{what}");
        assert!(
            status != 403 || response.json()["message"].as_str().unwrap().starts_with("this token is not"),
            "{what}"
        );
    }
    let service = call(&mut http, &reader, "GET", "/v1/services/a", None).json()["service"].clone();
    assert_eq!(service["owner_key"], "token cam");
    let history = call(&mut http, &reader, "GET", "/v1/services/a/history", None).json();
    let of = |what: &str, token: &str| {
        let entries = history["history"].as_array().unwrap();
        entries.iter().any(|entry| entry["what"] == what && entry["by"]["token"] == token)
    };
    assert!(of("registered", "cam") && of("refused", "reader") && !of("registered", "reader"), "{history}");
    stage.host.wait_for_log("who has the token \"reader\" is not allowed to register");
    assert_eq!(call(&mut http, &root, "DELETE", "/v1/services/a", None).status, 200);
    assert!(!stage.host.log().contains(&cam), "no token is logged");
}

#[test]
fn who_has_no_token_or_an_unknown_one_gets_the_probes_only() {
    let (good, lines) = token(&["good", "--allow", "admin"]);
    let stage = Stage::with(&format!("{MEMORY}[http]\nport = 0\n{lines}"));
    let mut http = stage.http();
    let bad = format!("registry-{}", "0".repeat(64));
    let wrong = [
        vec![],
        vec![("Authorization", format!("Bearer {bad}"))],
        vec![("Authorization", format!("Bearer {}", &good[..good.len() - 1]))],
        vec![("Authorization", format!("Basic {good}"))],
        vec![("Authorization", good.clone())],
        vec![("Authorization", "Bearer".into())],
    ];
    for headers in &wrong {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        for (method, target) in [("GET", "/v1/services"), ("DELETE", "/v1/services/a"), ("GET", "/openapi.json")] {
            let refused = http.call(method, target, &headers, None);
            assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("forbidden")), "{target} {headers:?}");
            assert!(refused.header("www-authenticate").is_some_and(|asks| asks.starts_with("Bearer")), "{refused:?}");
        }
        for probe in ["/live", "/ready", "/health"] {
            assert_eq!(http.call("GET", probe, &headers, None).status, 200, "{probe} {headers:?}");
        }
    }
    stage.host.wait_for_log("requests refused (unknown token)");
    let header = ("Authorization", format!("bearer  {good}"));
    assert_eq!(http.call("GET", "/v1/services", &[(header.0, &header.1)], None).status, 200);
    let twice = [(header.0, &*header.1), (header.0, &*header.1)];
    assert_eq!(http.call("GET", "/v1/services", &twice, None).status, 400);
    // Without keys those of ZeroMQ are asked for nothing.
    assert_eq!(stage.host.client().call(json!({"action": "list"}))["success"], true);
}

#[test]
fn once_clients_need_keys_there_are_only_probes_without_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let keys = keys::make(directory.path());
    let host = Host::start(directory.path(), &format!("{keys}{MEMORY}"));
    host.wait_for_log("for probes only");
    let mut http = Http::connect(host.http());
    assert_eq!((http.get("/live").status, http.get("/v1/services").status), (200, 401));
    host.stop();
    let (token, lines) = token(&["reader"]);
    let host = Host::start(directory.path(), &format!("{keys}{MEMORY}[http]\nport = 0\n{lines}"));
    let mut http = Http::connect(host.http());
    assert_eq!(call(&mut http, &token, "GET", "/v1/services", None).status, 200);
    assert_eq!(http.get("/v1/services").status, 401);
}

#[test]
fn what_a_token_owns_is_its_own_after_a_restart() {
    let (one, lines) = token(&["one", "--allow", "read,register"]);
    let (two, more) = token(&["two", "--allow", "read,register"]);
    let config = format!("[http]\nport = 0\n{lines}{more}");
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), &config);
    let put = |host: &Host, token: &str| {
        call(&mut Http::connect(host.http()), token, "PUT", "/v1/services/a", Some(&record("a", ""))).status
    };
    assert_eq!(put(&host, &one), 200);
    host.kill();
    let host = Host::start(directory.path(), &config);
    assert_eq!((put(&host, &two), put(&host, &one)), (403, 200));
}

#[test]
fn a_token_that_could_not_be_used_is_not_made() {
    for (arguments, part) in [
        (&["a b ", "--allow", "read"][..], "name is"),
        (&["a", "--allow", "write"], "invalid value 'write'"),
        (&["a", "--type", "x"], "types says which services may be registered"),
        (&["a", "--allow", "register", "--type", ""], "types has \"\""),
    ] {
        let output = registry(Path::new("/")).arg("token").args(arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains(part) && output.stdout.is_empty(), "{arguments:?}: {told}");
    }
}
