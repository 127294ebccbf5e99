//! TLS: who is served by it, by which certificates clients are known, and what comes of those that do not speak it.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::SanType;
use serde_json::json;

use crate::authority::{Authority, Held, dns, write};
use crate::client::Http;
use crate::harness::{Host, PATIENCE, registry, workspace};
use crate::tokens::{call, token};
use crate::{MEMORY, record};

/// What stands in `[http]` for TLS, and for certificates of clients.
pub(crate) const TLS: &str = "[http]\nport = 0\ncertificate_file = \"server.pem\"\nkey_file = \"server.key\"\n";
pub(crate) const CLIENTS: &str = "client_ca_file = \"clients.pem\"\n";

/// An authority, and a directory with a certificate that it has made for a registry, and with its own for clients.
pub(crate) fn prepared() -> (Authority, tempfile::TempDir) {
    let (authority, directory) = (Authority::new("lab"), tempfile::tempdir().expect("there is room"));
    authority.server().write(directory.path(), "server");
    write(directory.path(), "clients.pem", &authority.pem());
    (authority, directory)
}

pub(crate) fn rule(clients: &str, allow: &str) -> String {
    format!("[[http.rules]]\nclients = [\"{clients}\"]\nallow = [\"{allow}\"]\n")
}

/// Whether a client is refused while it connects.
pub(crate) fn is_refused(authority: &Authority, host: &Host, held: &Held) -> bool {
    let mut http = authority.connect(host, Some(held));
    http.try_send(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").is_err() || http.head().is_none()
}

#[test]
fn everything_is_served_over_tls_with_tokens_too() {
    let (authority, directory) = prepared();
    let (token, lines) = token(&["ci", "--allow", "read,register"]);
    let host = Host::start(directory.path(), &format!("{MEMORY}{TLS}{lines}"));
    assert!(host.wait_for_log("HTTP on ").contains("HTTP on https://127.0.0.1:"));
    let mut http = authority.connect(&host, None);
    assert_eq!(http.get("/live").status, 200);
    assert_eq!(http.get("/v1/services").status, 401);
    assert_eq!(call(&mut http, &token, "PUT", "/v1/services/a", Some(&record("a", ""))).status, 200);
    let header = ("Authorization", &*format!("Bearer {token}"));
    let mut events = authority.events(&host, None, &[header]);
    events.next().expect("the stream begins");
    assert_eq!(call(&mut http, &token, "DELETE", "/v1/services/a", None).status, 200);
    assert_eq!(events.change().kind, "deregister");
    // An answer of many records.
    let filler = "x".repeat(500_000);
    for number in 0..4 {
        let body = record(&format!("s{number}"), &format!(",\"x\":\"{filler}\""));
        assert_eq!(call(&mut http, &token, "POST", "/v1/services", Some(&body)).status, 200);
    }
    assert!(call(&mut http, &token, "GET", "/v1/services", None).body.len() > 2_000_000);
    let metrics = String::from_utf8(call(&mut http, &token, "GET", "/metrics", None).body).unwrap();
    assert!(metrics.contains("registry_http_certificate_expiry_timestamp_seconds 4102444800\n"), "{metrics}");
    host.stop();
}

#[test]
fn a_certificate_is_who_it_names_and_may_do_what_rules_say() {
    let (authority, directory) = prepared();
    let (token, lines) = token(&["reader"]);
    let rules = rule("cam-*.lab", "register") + &rule("spiffe://lab/*", "read") + &rule("common", "admin");
    let config = format!("[log]\naudit = \"log\"\n{MEMORY}{TLS}{CLIENTS}{rules}{lines}");
    let host = Host::start(directory.path(), &config);
    assert!(host.wait_for_log("HTTP on ").ends_with(", for 1 token and certificates"));
    let camera = authority.client(&[SanType::URI("spiffe://lab/x".try_into().unwrap()), dns("CAM-1.lab")]);
    let other = authority.named("cam-2.lab");
    let reader = authority.client(&[SanType::URI("spiffe://lab/reader".try_into().unwrap())]);
    let admin = authority.client(&[SanType::IpAddress([127, 0, 0, 1].into())]);
    let stranger = authority.named("elsewhere.example");
    let body = record("a", "");
    let renew = Some("");
    for (held, method, target, body, status) in [
        (Some(&reader), "PUT", "/v1/services/a", Some(&*body), 403),
        (Some(&camera), "PUT", "/v1/services/a", Some(&body), 200),
        (Some(&camera), "GET", "/v1/services", None, 403),
        (Some(&reader), "GET", "/v1/services", None, 200),
        (Some(&other), "POST", "/v1/services/a/renew", renew, 403),
        (Some(&camera), "POST", "/v1/services/a/renew", renew, 200),
        (Some(&stranger), "GET", "/v1/services", None, 403),
        (Some(&stranger), "GET", "/metrics", None, 403),
        (Some(&reader), "GET", "/metrics", None, 200),
        (Some(&stranger), "GET", "/live", None, 200),
        (None, "GET", "/v1/services", None, 401),
        (None, "GET", "/live", None, 200),
    ] {
        let response = authority.connect(&host, held).call(method, target, &[], body);
        assert_eq!(response.status, status, "{method} {target}: {response:?}");
        let is_told = status != 403 || response.json()["message"].as_str().unwrap().starts_with("this certificate is");
        assert!(is_told, "{response:?}");
    }
    // A token says more: this one may read, and no more.
    let mut http = authority.connect(&host, Some(&camera));
    assert_eq!(call(&mut http, &token, "GET", "/v1/services", None).status, 200);
    assert_eq!(call(&mut http, &token, "DELETE", "/v1/services/a", None).status, 403);
    assert_eq!(call(&mut http, "registry-x", "POST", "/v1/services/a/renew", renew).status, 401);
    let mut http = authority.connect(&host, Some(&reader));
    assert_eq!(http.get("/v1/services/a").json()["service"]["owner_key"], "certificate cam-1.lab");
    let history = http.get("/v1/services/a/history").json()["history"].clone();
    let is_there = |what: &str, name: &str| {
        let mut entries = history.as_array().unwrap().iter();
        entries.any(|entry| entry["what"] == what && entry["by"]["certificate"] == name)
    };
    assert!(is_there("registered", "cam-1.lab") && is_there("refused", "cam-2.lab"), "{history}");
    host.wait_for_log("who has the certificate \"elsewhere.example\" is not allowed to");
    host.wait_for_log("what=registered service_id=\"a\" address=127.0.0.1:");
    assert!(host.log().contains(" certificate=\"cam-1.lab\""), "{}", host.log());
    assert_eq!(authority.connect(&host, Some(&admin)).call("DELETE", "/v1/services/a", &[], None).status, 200);
}

#[test]
fn what_a_certificate_owns_is_its_own_after_a_restart_and_its_history_too() {
    let (authority, directory) = prepared();
    let [one, two] = ["one.lab", "two.lab"].map(|name| authority.named(name));
    let config = format!("{TLS}{CLIENTS}");
    let host = Host::start(directory.path(), &config);
    let put = |host: &Host, held: &Held| {
        authority.connect(host, Some(held)).call("PUT", "/v1/services/a", &[], Some(&record("a", ""))).status
    };
    assert_eq!(put(&host, &one), 200, "without rules all may register");
    host.kill();
    let host = Host::start(directory.path(), &config);
    assert_eq!((put(&host, &two), put(&host, &one)), (403, 200));
    let history = authority.connect(&host, Some(&one)).get("/v1/services/a/history").json();
    assert_eq!(history["history"][0]["by"]["certificate"], "one.lab", "{history}");
}

#[test]
fn certificates_that_are_not_to_be_trusted_let_nobody_in() {
    let (authority, directory) = prepared();
    let revoked = authority.named("revoked.lab");
    write(directory.path(), "revoked.pem", &authority.revoking(&[&revoked]));
    let config = format!("{MEMORY}{TLS}{CLIENTS}client_crl_file = \"revoked.pem\"\n");
    let host = Host::start(directory.path(), &config);
    let good = authority.named("good.lab");
    let elsewhere = Authority::new("elsewhere").named("good.lab");
    for (held, why) in [
        (&authority.expired("good.lab"), "its certificate has run out"),
        (&revoked, "its certificate is revoked"),
        (&elsewhere, "its certificate is of an authority that is not trusted"),
        (&authority.server(), "its certificate is not trusted"),
    ] {
        assert!(is_refused(&authority, &host, held), "{why}");
        assert_eq!(authority.connect(&host, Some(&good)).get("/v1/services").status, 200);
        let counted = format!("reason=\"{why}\"}} 1");
        let mut http = authority.connect(&host, Some(&good));
        let text = String::from_utf8(http.get("/metrics").body).unwrap();
        assert!(text.contains(&counted), "{why}: {text}");
    }
    let nameless = authority.client(&[dns(&"x".repeat(200))]);
    let refused = authority.connect(&host, Some(&nameless)).get("/v1/services");
    assert_eq!(refused.status, 401);
    assert!(refused.json()["message"].as_str().unwrap().starts_with("this certificate has no name"), "{refused:?}");
    assert!(host.wait_for_log("handshake failed").contains("HTTP: 127.0.0.1: 1 handshake failed (its certificate "));
}

#[test]
fn curl_is_served_by_its_certificate() {
    if Command::new("curl").arg("--version").output().is_err() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "there is no curl");
        eprintln!("NOT RUN: there is no curl");
        return;
    }
    let (authority, directory) = prepared();
    let host = Host::start(directory.path(), &format!("{MEMORY}{TLS}{CLIENTS}"));
    authority.named("camera.lab").write(directory.path(), "camera");
    let url = format!("https://localhost:{}/v1/services/a", host.http());
    let curl = |arguments: &[&str]| {
        let mut curl = Command::new("curl");
        curl.current_dir(directory.path()).args(["--silent", "--show-error", "--cacert", "clients.pem", &url]);
        let output = curl.args(arguments).output().expect("there is curl");
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let mine = ["--cert", "camera.pem", "--key", "camera.key"];
    let json = ["-X", "PUT", "-H", "Content-Type: application/json", "-d"];
    let body = record("a", "");
    let put = curl(&[&mine[..], &json, &[&body]].concat());
    assert!(put.contains("\"success\":true"), "{put}");
    assert!(curl(&mine).contains("\"owner_key\":\"certificate camera.lab\""), "{}", curl(&mine));
    assert!(curl(&[]).contains("have to prove who they are"), "{}", curl(&[]));
    assert!(curl(&["--tls-max", "1.2", mine[0], mine[1], mine[2], mine[3]]).contains("\"success\":true"));
    Authority::new("elsewhere").named("camera.lab").write(directory.path(), "other");
    let other = curl(&["--cert", "other.pem", "--key", "other.key"]);
    assert!(other.contains("alert"), "it is told why: {other}");
    // And who does not trust the registry is told of by name.
    write(directory.path(), "clients.pem", &Authority::new("elsewhere").pem());
    assert!(curl(&mine).contains("certificate"), "{}", curl(&mine));
    // One line in ten seconds tells of all that has happened since.
    host.wait_for_log("(does not trust the registry's certificate)");
}

#[test]
fn what_the_document_makes_by_openssl_is_what_the_registry_and_curl_take() {
    let has = |program: &str, argument: &str| Command::new(program).arg(argument).output().is_ok();
    if !has("openssl", "version") || !has("curl", "--version") {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "there is no openssl, or no curl: scripts/test-tools installs them"
        );
        eprintln!("NOT RUN: there is no openssl, or no curl: scripts/test-tools installs them");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let document = std::fs::read_to_string(workspace().join("docs/http.md")).expect("there is a document");
    let blocks: Vec<&str> = document.split("```").collect();
    let holding = |language: &str, text: &str| {
        let mut found = blocks.iter().filter_map(|block| block.strip_prefix(language));
        found.find(|block| block.contains(text)).unwrap_or_else(|| panic!("no {text}")).to_string()
    };
    let sh = |script: &str| {
        let shell = Command::new("sh").current_dir(directory.path()).args(["-euc", script]).output();
        let output = shell.expect("there is a shell");
        let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}{errors}");
        out.into_owned()
    };
    sh(&holding("sh\n", "openssl req -x509"));
    let tls = holding("toml\n", "certificate_file").replace("bind = \"*\"", "port = 0");
    let rules = holding("toml\n", "[[http.rules]]").replace("\"register\"", "\"read\", \"register\"");
    let host = Host::start(directory.path(), &format!("{MEMORY}{tls}{rules}"));
    let asks = holding("sh\n", "--cert camera-1.pem").replace(":5559", &format!(":{}", host.http()));
    let told = sh(&asks);
    assert!(told.contains("\"services\":[]"), "{told}");
    let told = sh(&asks.replace("--cert camera-1.pem --key camera-1.key", ""));
    assert!(told.contains("have to prove who they are"), "{told}");
}

#[test]
fn plain_text_and_tls_do_not_meet_in_silence() {
    let (authority, directory) = prepared();
    let host = Host::start(directory.path(), &format!("{MEMORY}{TLS}"));
    let mut plain = Http::connect(host.http());
    for target in ["/live", "/v1/services"] {
        let refused = plain.get(target);
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("No TLS")), "{target}");
        assert!(refused.json()["message"].as_str().unwrap().contains("https://"), "{refused:?}");
        assert!(plain.closes_within(PATIENCE));
        plain = Http::connect(host.http());
    }
    host.wait_for_log("(speaks no TLS, which is expected here)");
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), MEMORY);
    let mut tls = Http::connect_tls(host.http(), authority.trusted_by(None));
    assert!(tls.try_send(b"GET /live HTTP/1.1\r\n\r\n").is_err() || tls.head().is_none());
    host.wait_for_log("(speaks TLS, and http.certificate_file is not set)");
    assert_eq!(Http::connect(host.http()).get("/live").status, 200);
}

#[test]
fn handshakes_that_come_to_nothing_hurt_nobody() {
    let (authority, directory) = prepared();
    let limits = "connections = 20\nconnections_per_address = 20\nrequest_timeout = 60.0\n";
    let config = format!("{MEMORY}[limits]\nhandshake_timeout = 1.0\n{TLS}{limits}");
    let host = Host::start(directory.path(), &config);
    let mut witness = authority.connect(&host, None);
    assert_eq!(witness.get("/live").status, 200);
    let begins = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", host.http())).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    };
    // Some say nothing, some begin and stop, some say nonsense: more than there may be.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let crowd: Vec<TcpStream> = (0..18).map(|number| begins(&hello[..[0, 1, 11][number % 3]])).collect();
    for _ in 0..3 {
        assert_eq!(authority.connect(&host, None).get("/live").status, 200, "who comes later is served");
        assert_eq!(witness.get("/live").status, 200, "who is there stays");
    }
    let log = host.wait_for_log("(no TLS handshake in time)");
    assert!(log.contains("HTTP: 127.0.0.1: "), "{log}");
    drop(crowd);
    begins(&[&hello[..], &[0xff; 600]].concat());
    begins(&[0x16; 20_000]);
    assert_eq!(witness.get("/live").status, 200);
    let deadline = Instant::now() + PATIENCE;
    while !String::from_utf8(witness.get("/metrics").body).unwrap().contains("reason=\"not TLS\"") {
        assert!(Instant::now() < deadline, "{}", host.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn who_reads_nothing_of_what_is_encrypted_is_given_up() {
    let (authority, directory) = prepared();
    let host = Host::start(directory.path(), &format!("{MEMORY}[limits]\nunread_timeout = 1.0\n{TLS}"));
    let mut http = authority.connect(&host, None);
    let filler = "x".repeat(500_000);
    for number in 0..30 {
        let body = record(&format!("s{number}"), &format!(",\"x\":\"{filler}\""));
        assert_eq!(http.call("POST", "/v1/services", &[], Some(&body)).status, 200);
    }
    let mut unread = authority.connect(&host, None);
    unread.request("GET", "/v1/services", &[], None);
    host.wait_for_log("takes nothing of its answer");
    assert_eq!(http.get("/v1/services/s1").status, 200);
}

#[test]
fn a_browser_on_another_page_is_told_as_little_over_tls() {
    let (authority, directory) = prepared();
    let host = Host::start(directory.path(), &format!("{MEMORY}{TLS}"));
    let mut http = authority.connect(&host, None);
    let own = format!("localhost:{}", host.http());
    for (headers, status) in [
        ([("Host", &*own), ("Origin", &*format!("https://{own}"))], 200),
        ([("Host", &own), ("Origin", "https://evil.example")], 403),
        ([("Host", "evil.example"), ("Origin", "https://evil.example")], 421),
    ] {
        assert_eq!(http.call("GET", "/v1/services", &headers, None).status, status, "{headers:?}");
    }
}

fn problem(directory: &Path, config: &str) -> String {
    write(directory, "registry.toml", config);
    let set = ["server.req_port=0", "server.pub_port=0", "server.heartbeat_port=0"];
    let mut command = registry(directory);
    command.env_remove("REGISTRY_HTTP__PORT").args(["config", "check"]);
    let output = command.args(set.iter().flat_map(|set| ["--set", set])).output().expect("it can be started");
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn what_cannot_be_used_is_said_before_anybody_is_served() {
    let (authority, directory) = prepared();
    let directory = directory.path();
    authority.server().write(directory, "other");
    write(directory, "empty.pem", "nothing here\n");
    write(
        directory,
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    write(directory, "open.key", &std::fs::read_to_string(directory.join("server.key")).unwrap());
    let change = |path: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(directory.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    change("encrypted.key", 0o600);
    change("open.key", 0o640);
    let with = |certificate: &str, key: &str, more: &str| {
        let tls = format!("[http]\nport = 0\ncertificate_file = \"{certificate}\"\nkey_file = \"{key}\"\n{more}");
        problem(directory, &format!("{MEMORY}{tls}"))
    };
    assert!(with("server.pem", "server.key", CLIENTS).contains("is fine"));
    for (told, part) in [
        (with("gone.pem", "server.key", ""), "http.certificate_file: cannot read gone.pem: "),
        (with("empty.pem", "server.key", ""), "http.certificate_file: empty.pem: there is none in it: expected PEM"),
        (with("server.pem", "other.key", ""), "http.key_file: other.key: it is not the key of the first certificate"),
        (with("server.pem", "open.key", ""), "http.key_file: open.key can be read or changed by others (mode 0640)"),
        (with("server.pem", "encrypted.key", ""), "not encrypted"),
        (with("server.pem", ".", ""), "http.key_file: .: expected a private key in PEM"),
        (with("server.pem", "server.key", "client_ca_file = \"empty.pem\""), "http.client_ca_file: empty.pem: "),
        (
            with("server.pem", "server.key", &format!("{CLIENTS}client_crl_file = \"clients.pem\"")),
            "http.client_crl_file: clients.pem: there is none in it: expected PEM, with -----BEGIN X509 CRL-----",
        ),
        (with("server.pem", "server.key", &rule("a", "read")), "http.rules is set (registry.toml, line"),
        (
            with("server.pem", "server.key", &format!("{CLIENTS}[[http.rules]]\nclients = [\"\"]\nallow = [\"read\"]")),
            "rule 1: clients has \"\": expected a list of names of certificates",
        ),
        (problem(directory, "[http]\nkey_file = \"server.key\"\n"), "is of no use without http.certificate_file"),
        (problem(directory, "[http]\nbind = \"*\"\nport = 0\n"), "or http.certificate_file and http.key_file for TLS"),
        (
            problem(directory, &format!("{TLS}bind = \"*\"\n")),
            "expected a loopback address such as \"127.0.0.1\", or http.tokens or http.client_ca_file",
        ),
    ] {
        assert!(told.contains(part), "{part}: {told}");
        assert!(!told.contains("is fine"), "{told}");
    }
    let open = problem(directory, &format!("{MEMORY}{TLS}bind = \"*\"\n{CLIENTS}"));
    assert!(open.contains("is fine"), "off loopback by TLS: {open}");
}

#[test]
fn a_certificate_that_has_run_out_is_warned_of() {
    let (authority, directory) = prepared();
    authority.expired("localhost").write(directory.path(), "server");
    let host = Host::start(directory.path(), &format!("{MEMORY}{TLS}"));
    host.wait_for_log("the certificate ran out at 2020-01-01T00:00:00Z: clients will refuse it");
    let mut http = Http::connect_tls(host.http(), Arc::clone(&authority.trusted_by(None)));
    assert!(http.try_send(b"GET /live HTTP/1.1\r\n\r\n").is_err(), "and so they do");
}
