//! What clients may cost.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::client::Http;
use crate::harness::PATIENCE;
use crate::tokens::{call, token};
use crate::{MEMORY, Stage, record};

#[test]
fn a_body_is_as_long_as_a_message_may_be() {
    let stage = Stage::with(&format!("[limits]\nmessage_bytes = 2000\n{MEMORY}"));
    let filled = |length: usize| {
        let empty = record("a", ",\"x\":\"\"");
        record("a", &format!(",\"x\":\"{}\"", "x".repeat(length - empty.len())))
    };
    let mut http = stage.http();
    assert_eq!(http.call("PUT", "/v1/services/a", &[], Some(&filled(2000))).status, 200);
    let mut other = stage.http();
    let long = other.call("PUT", "/v1/services/a", &[], Some(&filled(2001)));
    assert_eq!((long.status, &long.json()["message"]), (413, &json!("expected at most 2000 bytes")));
    // Without a length it is known when it has come.
    let mut chunked = stage.http();
    chunked.send(b"PUT /v1/services/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n");
    chunked.send(b"Transfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        chunked.send(format!("3e8\r\n{}\r\n", " ".repeat(1000)).as_bytes());
    }
    assert_eq!(chunked.response(true).status, 413);
}

#[test]
fn requests_come_at_the_rate_that_is_allowed() {
    let stage = Stage::with(&format!("[limits]\nrequests_per_second = 5\n{MEMORY}"));
    let mut http = stage.http();
    let statuses: Vec<u16> = (0..10).map(|_| http.get("/live").status).collect();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(statuses[..5] == [200; 5] && refused > 0, "{statuses:?}");
    let refused = (0..10).map(|_| http.get("/live")).find(|response| response.status == 429).expect("too many");
    assert_eq!((refused.header("retry-after"), &refused.json()["code"]), (Some("1"), &json!("overloaded")));
    assert_eq!(stage.http().get("/live").status, 200, "another connection has its own");
}

#[test]
fn a_quota_counts_what_is_asked_once_and_says_when_to_ask_again() {
    let [(slow, slows), (other, others)] = ["slow", "other"].map(|name| token(&[name, "--allow", "read,register"]));
    let quota =
        "[[limits.quotas]]\nname = \"few\"\nclients = [\"token slow\"]\nrequests_per_second = 0.02\nburst = 3\n";
    let stage = Stage::with(&format!("{MEMORY}[http]\nport = 0\n{slows}{others}{quota}"));
    let mut http = stage.http();
    let mut ask = |method: &str, target: &str, body: Option<&str>| call(&mut http, &slow, method, target, body);
    assert_eq!(ask("PUT", "/v1/services/a", Some(&record("a", ""))).status, 200);
    // Two questions to the core for one request, and one after the other for as long as the stream lasts.
    assert_eq!(ask("GET", "/v1/services?fields=", None).status, 200);
    let mut stream = stage.events("/v1/watch", &[("Authorization", &format!("Bearer {slow}"))]);
    let refused = ask("GET", "/v1/types", None);
    let reply = refused.json();
    assert_eq!((refused.status, &reply["code"], &reply["quota"]), (429, &json!("too_many_requests"), &json!("few")));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((20..=50).contains(&seconds), "{seconds}");
    // Another client changes something, which the stream tells.
    let mut another = stage.http();
    for _ in 0..5 {
        assert_eq!(call(&mut another, &other, "PUT", "/v1/services/b", Some(&record("b", ""))).status, 200);
        assert_eq!(stream.change().kind, "register");
    }
    assert_eq!(ask("POST", "/v1/services/a/renew", Some("")).status, 200);
    assert_eq!(ask("GET", "/health", None).status, 200);
    stage.host.wait_for_log("\"slow\" is over the quota \"few\", which allows 0.02 requests a second");
}

#[test]
fn who_asks_too_often_gets_neither_lists_nor_numbers() {
    let [(reader, readers), (writer, writers)] =
        [("reader", "read"), ("writer", "register")].map(|(name, right)| token(&[name, "--allow", right]));
    let quota = "[[limits.quotas]]\nname = \"few\"\nclients = [\"*\"]\nrequests_per_second = 0.02\nburst = 1\n";
    let stage = Stage::with(&format!("{MEMORY}[http]\nport = 0\n{readers}{writers}{quota}"));
    let mut http = stage.http();
    let mut statuses = |token: &str, target: &str| [(); 3].map(|()| call(&mut http, token, "GET", target, None).status);
    assert_eq!(statuses(&reader, "/v1/services?fields="), [200, 429, 429]);
    assert_eq!(statuses(&writer, "/metrics"), [403, 429, 429], "who may not read does not come to it by asking often");
}

#[test]
fn who_is_connected_is_told_over_http_too() {
    let stage = Stage::with(MEMORY);
    let mut http = stage.http();
    assert_eq!(http.call("PUT", "/v1/services/a", &[], Some(&record("a", ""))).status, 200);
    let mut waiting = stage.http();
    waiting.request("GET", "/v1/watch?wait=600", &[], None);
    let told = |http: &mut Http, query: &str| http.get(&format!("/v1/clients{query}")).json();
    let is_waiting =
        |reply: &serde_json::Value| reply["clients"].as_array().unwrap().iter().any(|one| one["waits"] == 1);
    let began = std::time::Instant::now();
    let mut all = told(&mut http, "");
    while !is_waiting(&all) {
        assert!(began.elapsed() < PATIENCE, "{all}");
        all = told(&mut http, "");
    }
    assert_eq!(all["connected"]["http"], 2);
    let (mut pages, mut query) = (Vec::new(), "?limit=1".to_string());
    loop {
        let page = told(&mut http, &query);
        pages.extend(page["clients"].as_array().unwrap().iter().map(|client| client["front"] == "http"));
        let Some(cursor) = page["cursor"].as_str() else { break };
        query = format!("?limit=1&cursor={cursor}");
    }
    assert_eq!(pages.iter().filter(|is_http| **is_http).count(), 2, "{pages:?}");
    let mine = told(&mut http, "?address=127.0.0.1");
    let asks = mine["clients"].as_array().unwrap().iter().find(|client| client["last_action"] == "clients").unwrap();
    assert_eq!((&asks["last_service"], &asks["services"], &asks["unanswered"]), (&json!("a"), &json!(1), &json!(1)));
    assert_eq!(told(&mut http, "?address=192.0.2.1")["clients"], json!([]));
}

#[test]
fn there_are_so_many_connections_and_idle_ones_make_room() {
    let config = "[http]\nport = 0\nconnections = 6\nconnections_per_address = 6\nrequest_timeout = 60.0\n";
    let stage = Stage::with(&format!("{config}{MEMORY}"));
    let mut waiting = stage.http();
    waiting.request("GET", "/v1/watch?wait=600", &[], None);
    let mut crowd: Vec<Http> = (0..5).map(|_| stage.http()).collect();
    crowd.iter_mut().for_each(|http| assert_eq!(http.get("/live").status, 200));
    // The one goes that has asked for nothing for longest, whether there are too many from there or at all.
    let mut seventh = stage.http();
    assert_eq!(seventh.get("/live").status, 200);
    assert!(crowd.remove(0).closes_within(PATIENCE));
    let line = stage.host.wait_for_log("others want to come in");
    assert!(line.contains("HTTP: 127.0.0.1: 1 connection cut off"), "{line}");
    assert_eq!(Http::connect_from([127, 0, 0, 2], stage.host.http()).get("/live").status, 200);
    assert!(crowd.remove(0).closes_within(PATIENCE));
    crowd.iter_mut().for_each(|http| assert_eq!(http.get("/live").status, 200));
    drop((crowd, seventh));
    stage.host.client().call(crate::harness::register("a", "web", 60.0));
    assert_eq!(waiting.response(true).status, 200, "who waits for an answer is not idle");
}

#[test]
fn so_many_may_wait() {
    let config = format!("[http]\nport = 0\nconnections = 6\n{MEMORY}");
    let stage = Stage::with(&config);
    let mut streams: Vec<_> = (0..3).map(|_| stage.events("/v1/watch", &[])).collect();
    streams.iter_mut().for_each(|stream| drop(stream.next()));
    let mut http = stage.http();
    for (target, accept) in
        [("/v1/watch", "text/event-stream"), ("/v1/watch?wait=1", "*/*"), ("/v1/discover/x?wait=1", "*/*")]
    {
        let full = http.call("GET", target, &[("Accept", accept)], None);
        assert_eq!((full.status, full.header("retry-after")), (503, Some("1")), "{target}");
    }
    assert_eq!(http.get("/v1/watch").status, 200, "who does not wait");
    drop(streams);
    let deadline = std::time::Instant::now() + PATIENCE;
    while http.get("/v1/discover/x?wait=0.001").status == 503 {
        assert!(std::time::Instant::now() < deadline, "those that have left still wait");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn answers_that_nobody_reads_are_bounded_and_hurt_nobody() {
    let config =
        "[http]\nport = 0\nbuffered_bytes = 20000000\nrequest_timeout = 60.0\n[limits]\nunread_timeout = 5.0\n";
    let stage = Stage::with(&format!("{config}{MEMORY}"));
    let mut http = stage.http();
    let filler = "x".repeat(500_000);
    for number in 0..30 {
        let body = record(&format!("s{number}"), &format!(",\"type\":\"t{number}\",\"x\":\"{filler}\""));
        assert_eq!(http.call("POST", "/v1/services", &[], Some(&body)).status, 200);
    }
    // Each wants a list of its own, and reads nothing of it.
    let port = stage.host.http();
    let mut unread: Vec<TcpStream> = Vec::new();
    for number in 0..30 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let fields = format!("x,f{number}");
        write!(stream, "GET /v1/services?fields={fields} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        unread.push(stream);
    }
    std::thread::sleep(Duration::from_millis(500));
    let list = stage.host.client().call(json!({"action": "list"}));
    assert_eq!(list["services"].as_array().unwrap().len(), 30, "others are served meanwhile");
    assert_eq!(http.get("/v1/services/s1").status, 200, "a short answer has room");
    // A long one has room as soon as those have had their time who read nothing.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let full = http.get("/v1/services?fields=x,port");
        if full.status == 200 {
            break;
        }
        assert_eq!((full.status, &full.json()["code"]), (503, &json!("overloaded")));
        assert!(std::time::Instant::now() < deadline, "there is room again");
        std::thread::sleep(Duration::from_millis(50));
    }
    stage.host.wait_for_log(" cut off (");
}
