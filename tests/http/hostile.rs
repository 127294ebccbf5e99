//! What a browser on this machine may be made to send, and clients that mean no good.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::Stage;

#[test]
fn pages_from_elsewhere_are_told_nothing() {
    let stage = Stage::new();
    let mut http = stage.http();
    let own = format!("127.0.0.1:{}", stage.host.http());
    for (headers, status) in [
        (&[("Host", "evil.example")][..], 421),
        (&[("Host", "evil.example"), ("Origin", "http://evil.example")], 421),
        (&[("Host", &own), ("Origin", "http://evil.example")], 403),
        (&[("Host", &own), ("Origin", "null")], 403),
        (&[("Host", &own), ("Sec-Fetch-Site", "cross-site")], 403),
        (&[("Host", &own), ("Origin", &format!("http://{own}"))], 200),
        (&[("Host", "localhost")], 200),
    ] {
        let response = http.call("GET", "/v1/services", headers, None);
        assert_eq!(response.status, status, "{headers:?}");
        assert!(status == 200 || response.json()["code"] == "forbidden", "{response:?}");
        assert_eq!(response.header("access-control-allow-origin"), None);
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("content-security-policy"), Some("default-src 'none'; frame-ancestors 'none'"));
    }
    // A form sends none of these types, and may not ask for more.
    let form = [("Content-Type", "text/plain")];
    let body = r#"{"name":"n","host":"h","port":1}"#;
    assert_eq!(http.call("POST", "/v1/services", &form, Some(body)).status, 415);
    assert_eq!(http.call("POST", "/v1/services/a/renew", &[], None).status, 415);
    // What is not there, or is not done there, is told before.
    assert_eq!(http.call("PUT", "/v1/info", &form, None).status, 405);
    assert_eq!(http.call("POST", "/v1/nothing", &form, None).status, 404);
    let asks = [("Origin", "http://evil.example"), ("Access-Control-Request-Method", "DELETE")];
    let preflight = http.call("OPTIONS", "/v1/services/a", &asks, None);
    assert!(preflight.status == 403 && preflight.header("access-control-allow-methods").is_none(), "{preflight:?}");
    assert_eq!(http.get("/v1/services").json()["services"], json!([]));
}

#[test]
fn other_names_are_known_if_the_operator_says_them() {
    let stage = Stage::with("[http]\nport = 0\nhosts = [\"registry.example\"]\n[backend]\nplugin = \"memory\"\n");
    let mut http = stage.http();
    assert_eq!(http.call("GET", "/live", &[("Host", "Registry.example:80")], None).status, 200);
    assert_eq!(http.call("GET", "/live", &[("Host", "registry.example.evil.example")], None).status, 421);
}

#[test]
fn what_is_no_http_hurts_nobody() {
    let stage = Stage::new();
    let mut witness = stage.http();
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(100_000));
    let odd: [&[u8]; 7] = [
        b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x01NULL\0\0",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"POST /v1/services HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/services HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: -1\r\n\r\n",
        many.as_bytes(),
        long.as_bytes(),
    ];
    for bytes in odd {
        let mut http = stage.http();
        http.send(bytes);
        let refused = http.response(true);
        assert!((400..500).contains(&refused.status), "{refused:?}: {:?}", bytes.get(..40));
        assert_eq!(refused.json()["code"], "invalid_request", "{refused:?}");
        assert_eq!(refused.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(witness.get("/live").status, 200);
    }
    for (bytes, status, error) in [(&many, 431, "Too long a head"), (&long, 431, "Too long a head")] {
        let mut http = stage.http();
        http.send(bytes.as_bytes());
        let refused = http.response(true);
        assert_eq!((refused.status, &refused.json()["error"]), (status, &json!(error)));
        assert_eq!(refused.header("connection"), Some("close"));
    }
    let statuses = String::from_utf8(witness.get("/metrics").body).unwrap();
    assert!(statuses.contains("registry_http_responses_total{status=\"431\"} 4"), "{statuses}");
    // So are those that come later over a connection, one after the other or at once.
    let mut http = stage.http();
    for target in ["/live", "/nowhere", "/nowhere"] {
        assert_eq!(http.get(target).status, if target == "/live" { 200 } else { 404 });
    }
    let valid = "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    http.send(format!("{valid}{long}").as_bytes());
    assert_eq!(http.response(true).status, 200);
    let refused = http.response(true);
    assert_eq!((refused.status, &refused.json()["error"]), (431, &json!("Too long a head")));
    assert_eq!(http.head(), None);
}

#[test]
fn who_sends_slowly_is_cut_off_and_who_waits_its_turn_is_not() {
    let stage = Stage::with("[http]\nport = 0\nrequest_timeout = 0.5\n[backend]\nplugin = \"memory\"\n");
    let mut witness = stage.http();
    witness.request("GET", "/v1/watch?wait=600", &[], None);
    let (mut head, mut body, mut silent) = (stage.http(), stage.http(), stage.http());
    let begin = Instant::now();
    head.send(b"GET /live HTTP/1.1\r\nHost: local");
    body.send(b"POST /v1/services HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{");
    for byte in b"\"name\":" {
        std::thread::sleep(Duration::from_millis(50));
        body.send(&[*byte]);
    }
    assert!(head.closes_within(Duration::from_secs(10)) && silent.closes_within(Duration::from_secs(10)));
    let late = body.response(true);
    assert_eq!((late.status, &late.json()["error"]), (408, &json!("Too slow")));
    assert!(begin.elapsed() < Duration::from_secs(10));
    stage.host.client().call(crate::harness::register("a", "web", 60.0));
    assert_eq!(witness.response(true).status, 200, "who waits for an answer takes its time");
}
