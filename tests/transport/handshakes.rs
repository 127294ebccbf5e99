//! What comes before a client is ready.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::PATIENCE;
use crate::harness::zmtp::COMMAND;
use crate::raw::{self, Raw};
use crate::stage::{Stage, amount, discover, discovery};

/// Thousands that connect and never get ready are held for the time that a handshake may take, and no longer.
/// Meanwhile others are served, those too that come anew.
pub fn half_open_connections(transport: &str) {
    let stage = Stage::new(transport, "handshake_timeout = 3.0\n");
    let ports = stage.host.ports();
    let begun = [vec![], raw::greeting(1, "NULL")[..11].to_vec(), raw::greeting(1, "NULL")];
    let mut crowd = Vec::new();
    stage.during(|| {
        if crowd.is_empty() {
            // Three fewer: a bystander and two guests come from the same address.
            for number in 0..amount(5000, 1000) - 3 {
                let mut raw = Raw::open(ports[number % 3]);
                raw.send(&begun[number % begun.len()]);
                crowd.push(raw);
            }
        }
        discover(&mut stage.host.client());
    });
    for raw in &mut crowd {
        assert!(raw.closes_within(PATIENCE), "it is held for ever");
    }
    drop(crowd);
    assert!(stage.host.wait_for_log("handshakes failed (too slow)").contains("WARN"));
    stage.expect_as_before();
}

/// The log says where those come from that are refused, and why.
pub fn refusals_are_told(transport: &str) {
    let stage = Stage::new(transport, "");
    let mut raw = Raw::open_from([127, 0, 0, 7], stage.host.requests).expect("there is room");
    raw.send(b"GET / HTTP/1.1\r\n\r\n");
    assert!(raw.closes_within(PATIENCE));
    drop(raw);
    let line = stage.host.wait_for_log("127.0.0.7: 1 handshake failed (not ZeroMQ)");
    assert!(line.contains("WARN"), "{line}");
    stage.expect_as_before();
}

/// Those that are not ready make room for others.
pub fn half_open_connections_keep_nobody_out(transport: &str) {
    let stage = Stage::new(transport, "connections = 50\nhandshake_timeout = 60.0\n");
    let mut crowd = Vec::new();
    stage.during(|| {
        for _ in 0..60 {
            crowd.push(Raw::open(stage.host.requests));
        }
        // There is no order among connections that come at the same time, so it may be pushed out itself at first.
        let end = Instant::now() + PATIENCE;
        while !Raw::unread(stage.host.requests, "DEALER", b"").is_let_in() {
            assert!(Instant::now() < end, "nobody is let in");
        }
        crowd.clear();
    });
    stage.expect_as_before();
}

/// Whoever wants another mechanism than the server's gets an end, and soon.
pub fn mechanisms(transport: &str) {
    let stage = Stage::new(transport, "handshake_timeout = 60.0\n");
    stage.during(|| {
        for mechanism in ["PLAIN", "CURVE", "GSSAPI", "NULL2", "null", "", "\u{1b}[2J", "NULLNULLNULLNULLNULL"] {
            for port in stage.host.ports() {
                let mut raw = Raw::open(port);
                let curve = raw::command("HELLO", &[7; 194]);
                raw.send(&[raw::greeting(1, mechanism), curve].concat());
                assert!(!raw.is_let_in(), "{mechanism:?}");
                assert!(raw.closes_within(PATIENCE), "{mechanism:?}");
            }
        }
        for (port, socket_type) in [(stage.host.requests, "SUB"), (stage.host.events, "DEALER")] {
            let mut raw = Raw::unread(port, socket_type, b"");
            assert!(raw.closes_within(PATIENCE), "{socket_type}");
        }
    });
    stage.expect_as_before();
}

/// Peers from before ZMTP 3 are turned away, not kept waiting.
pub fn old_versions(transport: &str) {
    let stage = Stage::new(transport, "handshake_timeout = 60.0\n");
    let signature = [0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f];
    let hellos = [
        // ZMTP 1.0: an identity as its first frame.
        vec![1, 0],
        vec![6, 0, b'n', b'a', b'm', b'e', b'd'],
        // ZMTP 2.0: revision 1, socket type, identity. libzmq 3 sends the revision only when it has seen ours.
        [&signature[..], &[1, 5, 0, 0]].concat(),
        [&signature[..], &[0, 5, 0, 0]].concat(),
        b"GET / HTTP/1.1\r\nHost: registry\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
    ];
    stage.during(|| {
        for port in stage.host.ports() {
            for hello in &hellos {
                let mut raw = Raw::open(port);
                raw.send(hello);
                assert!(raw.closes_within(PATIENCE), "{hello:?}");
            }
        }
    });
    stage.expect_as_before();
}

/// Whatever byte of a handshake is wrong, and whatever follows it: the next client is served.
pub fn garbage_at_every_position(transport: &str) {
    let stage = Stage::new(transport, "");
    stage.during(|| {
        for (port, socket_type) in [(stage.host.requests, "DEALER"), (stage.host.events, "SUB")] {
            let hello = raw::hello(socket_type, b"me");
            for position in 0..hello.len() {
                let wrong = [0xff, 0x80, 1 + position as u8].map(|bits| {
                    let mut bytes = hello.clone();
                    bytes[position] ^= bits;
                    bytes
                });
                let noise: Vec<u8> = (0..300_u32).map(|number| (number * number * 31 + 7) as u8).collect();
                let torn = [&hello[..position], &noise].concat();
                for bytes in wrong.into_iter().chain([torn]) {
                    let mut raw = Raw::open(port);
                    raw.send(&[&bytes[..], &raw::request(&discovery())].concat());
                    raw.finish();
                    // It may be let in (much of a greeting is padding), but it comes to an end.
                    raw.rest();
                }
                discover(&mut stage.host.client());
            }
        }
    });
    stage.expect_as_before();
}

/// Byte by byte is a valid way to send.
pub fn slow_bytes(transport: &str) {
    let stage = Stage::new(transport, "");
    let bytes = [raw::hello("DEALER", b"slow"), raw::request(&discovery())].concat();
    stage.during(|| {
        let mut raw = Raw::open(stage.host.requests);
        for byte in &bytes {
            raw.send(std::slice::from_ref(byte));
            std::thread::sleep(Duration::from_millis(1));
        }
        raw.expect_ready();
        assert_eq!(raw.reply()["service"]["id"], "steady");
    });
    stage.expect_as_before();
}

/// But a handshake has to be done in its time, however busy it looks.
pub fn bytes_that_are_too_slow(transport: &str) {
    let stage = Stage::new(transport, "handshake_timeout = 0.5\n");
    let hello = raw::hello("DEALER", b"slow");
    stage.during(|| {
        let mut raw = Raw::open(stage.host.requests);
        let start = Instant::now();
        for byte in &hello {
            raw.send(std::slice::from_ref(byte));
            if raw.closes_within(Duration::from_millis(20)) {
                assert!(start.elapsed() >= Duration::from_millis(500), "it has half a second: {:?}", start.elapsed());
                return;
            }
        }
        panic!("it took {:?} and was let in", start.elapsed());
    });
    stage.expect_as_before();
}

/// An identity has up to 255 bytes, of any kind.
pub fn lengths_of_identities(transport: &str) {
    let stage = Stage::new(transport, "");
    stage.during(|| {
        for identity in [&b""[..], b"\0", b"me", &[0xff; 255]] {
            let mut raw = Raw::said(stage.host.requests, &raw::hello("DEALER", identity));
            assert_eq!(raw.call(&discovery())["success"], true, "{} bytes", identity.len());
        }
        for port in stage.host.ports() {
            let mut raw = Raw::unread(port, if port == stage.host.events { "SUB" } else { "DEALER" }, &[7; 256]);
            assert!(raw.closes_within(PATIENCE), "256 bytes");
        }
    });
    stage.expect_as_before();
}

/// Replies go to the connection that asked, whoever else has the same identity. Nobody is put out by another's coming,
/// and whoever connects anew is served at once.
pub fn equal_identities(transport: &str) {
    let stage = Stage::new(transport, "");
    let hello = raw::hello("DEALER", b"the same");
    stage.during(|| {
        let mut all = [(); 3].map(|()| Raw::said(stage.host.requests, &hello));
        for round in 0..20 {
            for (number, raw) in all.iter_mut().enumerate() {
                let ask = |part| json!({"action": "health", "request_id": format!("{number}-{round}-{part}")});
                raw.send(&[raw::request(&ask(1)), raw::request(&ask(2))].concat());
            }
            for (number, raw) in all.iter_mut().enumerate().rev() {
                for part in [1, 2] {
                    assert_eq!(raw.reply()["request_id"], format!("{number}-{round}-{part}"));
                }
            }
        }
        // The first of them is given up with a reply under way; its successor does not get it.
        let [mut first, ..] = all;
        first.send(&raw::request(&json!({"action": "health", "request_id": "old"})));
        let mut successor = Raw::said(stage.host.requests, &hello);
        assert_eq!(successor.call(&json!({"action": "health", "request_id": "new"}))["request_id"], "new");
    });
    stage.expect_as_before();
}

/// Those that are turned away are told why, where ZMTP has a way to.
pub fn reasons(transport: &str) {
    let stage = Stage::new(transport, "");
    for (hello, why) in [
        (raw::hello("SUB", b""), "a \"SUB\" cannot talk to a ROUTER"),
        (raw::hello("DEALER", &[7; 256]), "a malformed READY command"),
    ] {
        let mut raw = Raw::open(stage.host.requests);
        raw.send(&hello);
        raw.expect_ready();
        let (flags, body) = raw.frame().expect("it is told why");
        let said = String::from_utf8_lossy(&body).into_owned();
        assert!(flags & COMMAND != 0 && said.starts_with("\u{5}ERROR") && said.contains(why), "{said:?}");
    }
    stage.expect_as_before();
}
