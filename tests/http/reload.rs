//! What a reload changes of HTTP while it is served: tokens, certificates, hosts, limits.

use std::process::Output;

use serde_json::json;

use crate::authority::{Authority, write};
use crate::client::{Events, Http};
use crate::harness::{Host, PATIENCE, register, registry};
use crate::tls::{CLIENTS, TLS, prepared};
use crate::tokens::{call, token};
use crate::{MEMORY, record};

/// Asks a host to reload by the command line.
fn run(directory: &std::path::Path, host: &Host, arguments: &[&str]) -> Output {
    let mut command = registry(directory);
    command.env_remove("REGISTRY_HTTP__PORT").args(arguments);
    command.args(["--connect", &format!("127.0.0.1:{}", host.requests)]).output().expect("it can be started")
}

fn reload(directory: &std::path::Path, host: &Host, config: &str) -> String {
    write(directory, "registry.toml", config);
    let output = run(directory, host, &["reload"]);
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

fn bearer(token: &str) -> (&'static str, String) {
    ("Authorization", format!("Bearer {token}"))
}

fn is_over(mut events: Events) -> bool {
    std::iter::from_fn(|| events.next()).all(|event| event.kind.is_empty())
}

#[test]
fn a_token_that_is_revoked_or_exchanged_ends_at_once_where_it_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let (one, of_one) = token(&["one", "--allow", "read,register"]);
    let (two, of_two) = token(&["two", "--allow", "read,register"]);
    let (other_two, of_other_two) = token(&["two", "--allow", "read,register"]);
    let config = |tokens: &str| format!("{MEMORY}[http]\nport = 0\n{tokens}");
    let host = Host::start(directory.path(), &config(&format!("{of_one}{of_two}")));
    let streams = [&one, &two].map(|token| {
        let (name, value) = bearer(token);
        let mut events = Events::open(host.http(), "/v1/watch", &[(name, &value)]);
        events.next().expect("the stream begins");
        events
    });
    let mut http = Http::connect(host.http());
    assert_eq!(call(&mut http, &one, "PUT", "/v1/services/a", Some(&record("a", ""))).status, 200);
    let mut poll = Http::connect(host.http());
    let (name, value) = bearer(&two);
    poll.request("GET", "/v1/watch?wait=600", &[(name, &value)], None);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let [mut first, mut second] = streams;
    assert_eq!([&mut first, &mut second].map(|stream| stream.change().kind), ["register"; 2]);
    // `one` stays, and `two` is another one now, under the same name.
    let told = reload(directory.path(), &host, &config(&format!("{of_one}{of_other_two}")));
    assert!(told.contains("http.tokens"), "{told}");
    assert!(is_over(second), "its token is not known any more");
    assert_eq!(poll.response(true).status, 401, "who waited with it is told nothing");
    assert_eq!(call(&mut http, &two, "GET", "/v1/services", None).status, 401);
    assert_eq!(call(&mut http, &other_two, "GET", "/v1/services", None).status, 200);
    host.client().call(register("b", "web", 60.0));
    assert_eq!(first.change().kind, "register", "the others go on");
    // Rights change under the same token.
    let only_register = of_one.replace("\"read\", ", "");
    assert_ne!(only_register, of_one);
    reload(directory.path(), &host, &config(&format!("{only_register}{of_other_two}")));
    assert!(is_over(first));
    assert_eq!(call(&mut http, &one, "GET", "/v1/services", None).status, 403);
    assert_eq!(call(&mut http, &one, "POST", "/v1/services/a/renew", Some("")).status, 200);
    // Without any token nobody is asked for one.
    assert_eq!(http.get("/v1/services").status, 401);
    reload(directory.path(), &host, &config(""));
    assert_eq!(http.get("/v1/services").status, 200);
    let mut anonymous = Events::open(host.http(), "/v1/watch", &[]);
    anonymous.next().expect("the stream begins");
    reload(directory.path(), &host, &config(&of_one));
    assert!(is_over(anonymous), "from now on all have to prove who they are");
    assert_eq!(http.get("/v1/services").status, 401);
}

#[test]
fn a_certificate_that_is_not_trusted_any_more_ends_at_once_where_it_is_in_use() {
    let (authority, directory) = prepared();
    let path = directory.path();
    let config = format!("{MEMORY}{TLS}{CLIENTS}");
    let [good, bad] = ["good.lab", "bad.lab"].map(|name| authority.named(name));
    let host = Host::start(path, &config);
    let mut streams = [&good, &bad].map(|held| authority.events(&host, Some(held), &[]));
    streams.iter_mut().for_each(|stream| drop(stream.next().expect("the stream begins")));
    let [mut good_http, mut bad_http] = [&good, &bad].map(|held| authority.connect(&host, Some(held)));
    assert_eq!([&mut good_http, &mut bad_http].map(|http| http.get("/v1/services").status), [200, 200]);
    let [mut good_stream, bad_stream] = streams;
    write(path, "revoked.pem", &authority.revoking(&[&bad]));
    reload(path, &host, &format!("{config}client_crl_file = \"revoked.pem\"\n"));
    assert!(is_over(bad_stream), "its certificate is revoked");
    let refused = bad_http.get("/v1/services");
    assert_eq!(refused.status, 401);
    assert!(refused.json()["message"].as_str().unwrap().contains("not trusted any more"), "{refused:?}");
    assert_eq!(good_http.get("/v1/services").status, 200);
    assert_eq!(good_http.call("PUT", "/v1/services/a", &[], Some(&record("a", ""))).status, 200);
    assert_eq!(good_stream.change().kind, "register", "the others go on");
    // A list that is another one under the same name is read again.
    write(path, "revoked.pem", &authority.revoking(&[&bad, &good]));
    let told = reload(path, &host, &format!("{config}client_crl_file = \"revoked.pem\"\n"));
    assert!(told.contains("http.client_crl_file: \"sha256:"), "{told}");
    assert!(is_over(good_stream) && good_http.get("/v1/services").status == 401);
    // So is another authority.
    reload(path, &host, &config);
    assert_eq!(good_http.get("/v1/services").status, 200, "on no list");
    let other = Authority::new("other");
    write(path, "clients.pem", &other.pem());
    reload(path, &host, &config);
    assert_eq!(good_http.get("/v1/services").status, 401);
    assert_eq!(authority.connect(&host, Some(&other.named("new.lab"))).get("/v1/services").status, 200);
}

#[test]
fn a_renewed_certificate_is_read_again_and_open_connections_go_on() {
    let (authority, directory) = prepared();
    let path = directory.path();
    let config = format!("{MEMORY}{TLS}");
    let host = Host::start(path, &config);
    let (mut before, mut events) = (authority.connect(&host, None), authority.events(&host, None, &[]));
    events.next().expect("the stream begins");
    assert_eq!(before.get("/live").status, 200);
    let nothing = reload(path, &host, &config);
    assert!(nothing.contains("nothing has changed"), "{nothing}");
    let other = Authority::new("other");
    other.server().write(path, "server");
    let trial = run(path, &host, &["config", "diff"]);
    let trial = String::from_utf8(trial.stdout).unwrap();
    assert!(trial.contains("http.certificate_file: \"until 2100-01-01T00:00:00Z, sha256:"), "{trial}");
    assert_eq!(authority.connect(&host, None).get("/live").status, 200, "a trial changes nothing");
    reload(path, &host, &config);
    assert_eq!(other.connect(&host, None).get("/live").status, 200);
    assert!(authority.connect(&host, None).try_send(b"GET").is_err(), "new connections see the new one");
    assert_eq!(before.call("PUT", "/v1/services/a", &[], Some(&record("a", ""))).status, 200);
    assert_eq!(events.change().kind, "register");
    // By the signal as well.
    authority.server().write(path, "server");
    host.signal("HUP");
    host.wait_for_log("SIGHUP");
    let deadline = std::time::Instant::now() + PATIENCE;
    while authority.connect(&host, None).try_send(b"GET").is_err() {
        assert!(std::time::Instant::now() < deadline, "{}", host.log());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn what_cannot_be_used_changes_nothing_and_is_said() {
    let (authority, directory) = prepared();
    let path = directory.path();
    let (good, lines) = token(&["good"]);
    let config = format!("{MEMORY}{TLS}{CLIENTS}hosts = [\"a.example\"]\n");
    let host = Host::start(path, &format!("{config}{lines}"));
    let mut http = authority.connect(&host, None);
    let new_hosts = config.replace("a.example", "b.example");
    authority.expired_server().write(path, "expired");
    write(path, "forged.pem", &Authority::new("lab").revoking(&[]));
    write(path, "broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (next, part) in [
        (format!("{new_hosts}[[http.tokens]]\nname = \"x\"\nhash = \"y\"\nallow = [\"read\"]\n"), "token 1: hash is"),
        (new_hosts.replace("server.pem", "gone.pem"), "http.certificate_file: cannot read gone.pem"),
        (new_hosts.replace("server.pem", "broken.pem"), "http.certificate_file: broken.pem"),
        (new_hosts.replace("clients.pem", "broken.pem"), "http.client_ca_file: broken.pem: certificate 1: "),
        (new_hosts.replace("server.key", "expired.key"), "http.key_file: expired.key: it is not the key of"),
        (
            new_hosts.replace("server.", "expired."),
            "ran out at 2020-01-01T00:00:00Z: expected one that holds, as that in",
        ),
        (
            format!("{new_hosts}client_crl_file = \"forged.pem\"\n"),
            "http.client_crl_file: forged.pem: list 1: the authority of http.client_ca_file that it names has not signed",
        ),
    ] {
        let told = reload(path, &host, &next);
        assert!(told.contains(part) && told.contains("nothing has been changed"), "{part}: {told}");
        assert_eq!(call(&mut http, &good, "GET", "/v1/services", None).status, 200, "{part}");
        assert_eq!(http.call("GET", "/live", &[("Host", "a.example")], None).status, 200, "{part}");
        assert_eq!(http.call("GET", "/live", &[("Host", "b.example")], None).status, 421, "{part}");
        assert_eq!(authority.connect(&host, None).get("/live").status, 200, "{part}");
    }
}

#[test]
fn lists_that_do_less_than_they_should_are_told_of() {
    let (authority, directory) = prepared();
    let path = directory.path();
    let lists = authority.revoking_until(2024, &[]) + &Authority::new("elsewhere").revoking(&[]);
    write(path, "revoked.pem", &lists);
    let host = Host::start(path, &format!("{MEMORY}{TLS}{CLIENTS}client_crl_file = \"revoked.pem\"\n"));
    host.wait_for_log("list 1 should have been followed by the next at 2024-01-01T00:00:00Z");
    host.wait_for_log("list 2 is of none of the authorities of http.client_ca_file");
    assert_eq!(authority.connect(&host, Some(&authority.named("a.lab"))).get("/v1/services").status, 200);
}

#[test]
fn plain_text_ends_where_tls_begins() {
    let (authority, directory) = prepared();
    let path = directory.path();
    let host = Host::start(path, &format!("{MEMORY}[http]\nport = 0\n"));
    let (mut idle, mut events) = (Http::connect(host.http()), Events::open(host.http(), "/v1/watch", &[]));
    assert_eq!(idle.get("/live").status, 200);
    events.next().expect("the stream begins");
    reload(path, &host, &format!("{MEMORY}{TLS}"));
    assert!(is_over(events) && idle.closes_within(PATIENCE));
    assert_eq!(Http::connect(host.http()).get("/live").status, 400);
    assert_eq!(authority.connect(&host, None).get("/live").status, 200);
    host.wait_for_log("in plain text, and TLS is expected now");
}

#[test]
fn hosts_and_limits_change_and_the_address_takes_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let host = Host::start(path, &format!("{MEMORY}[http]\nport = 0\nhosts = [\"a.example\"]\n"));
    let mut http = Http::connect(host.http());
    let by = |http: &mut Http, name: &str| http.call("GET", "/live", &[("Host", name)], None).status;
    assert_eq!((by(&mut http, "a.example"), by(&mut http, "b.example")), (200, 421));
    let limits = "buffered_bytes = 2000\nconnections = 4\nconnections_per_address = 4\n";
    let config = format!("{MEMORY}[http]\nport = 1\nbind = \"::1\"\nhosts = [\"b.example\"]\n{limits}");
    let told = reload(path, &host, &format!("{config}[limits]\nmessage_bytes = 1500\nrequests_per_second = 1000\n"));
    for part in ["http.hosts: [\"a.example\"] -> [\"b.example\"]", "http.connections: 1000 -> 4"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    for key in ["http.port", "http.bind"] {
        let line = told.lines().find(|line| line.contains(key)).unwrap_or_else(|| panic!("{key}: {told}"));
        assert!(line.contains("restart"), "{line}");
    }
    assert_eq!((by(&mut http, "a.example"), by(&mut http, "b.example")), (421, 200));
    let filled = |length: usize| record("a", &format!(",\"x\":\"{}\"", "x".repeat(length)));
    assert_eq!(http.call("PUT", "/v1/services/a", &[], Some(&filled(1000))).status, 200);
    let long = http.call("PUT", "/v1/services/a", &[], Some(&filled(1500)));
    assert_eq!((long.status, &long.json()["message"]), (413, &json!("expected at most 1500 bytes")));
    let mut http = Http::connect(host.http());
    let fields = format!("/v1/services?fields=x,{}", "y".repeat(10));
    assert_eq!(http.get(&fields).status, 200);
    assert_eq!(http.call("PUT", "/v1/services/b", &[], Some(&filled(1000).replace("\"a\"", "\"b\""))).status, 200);
    // Half of the connections may wait.
    let mut waiting: Vec<Events> = (0..2).map(|_| Events::open(host.http(), "/v1/watch", &[])).collect();
    waiting.iter_mut().for_each(|stream| drop(stream.next()));
    let refused = http.get("/v1/watch?wait=1");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(Http::connect(host.http()).closes_within(PATIENCE), "more from one address");
}

#[test]
fn a_file_for_another_address_does_not_open_the_one_that_is_served() {
    let (authority, directory) = prepared();
    let path = directory.path();
    let config = format!("{MEMORY}{TLS}bind = \"0.0.0.0\"\n{CLIENTS}");
    let host = Host::start(path, &config);
    // It would be fine on loopback, and the address takes a restart.
    let told = reload(path, &host, MEMORY);
    assert!(told.contains("http.bind is \"0.0.0.0\" (in force until a restart)"), "{told}");
    assert_eq!(authority.connect(&host, None).get("/v1/services").status, 401, "as before");
}
