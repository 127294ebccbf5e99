//! Messages that are too large, or only say that they will be.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::PATIENCE;
use crate::harness::zmtp::{COMMAND, LONG, MORE, frame};
use crate::raw::{self, Raw};
use crate::stage::Stage;

/// Frames that cannot come to an end in this world are refused by their header, before and after the handshake.
pub fn huge_announced_frames(transport: &str) {
    let stage = Stage::new(transport, "");
    let ports = [(stage.host.requests, "DEALER"), (stage.host.heartbeats, "DEALER"), (stage.host.events, "SUB")];
    stage.during(|| {
        for (port, socket_type) in ports {
            for length in [1_u64 << 36, 1 << 40, 1 << 62, u64::MAX] {
                for flags in [LONG, LONG | MORE, LONG | COMMAND] {
                    let header = [&[flags][..], &length.to_be_bytes(), b"and a few bytes of it"].concat();
                    let mut early = Raw::open(port);
                    early.send(&[raw::greeting(1, "NULL"), header.clone()].concat());
                    let mut late = Raw::said(port, &raw::hello(socket_type, b""));
                    late.send(&header);
                    for raw in [&mut early, &mut late] {
                        assert!(raw.closes_within(PATIENCE), "{length} bytes announced with {flags:#x}");
                    }
                }
            }
        }
    });
    assert!(stage.peak_kb() < 8 * 1024, "{} KiB for what was announced", stage.peak_kb());
    stage.expect_as_before();
}

/// A message whose last part never comes is cut off: by its bytes, or by its frames if they are empty.
pub fn endless_multipart(transport: &str) {
    let stage = Stage::new(transport, "");
    stage.during(|| {
        for port in [stage.host.requests, stage.host.heartbeats] {
            for part in [0, 1000, 100_000] {
                let mut raw = Raw::dealer(port);
                let parts = frame(MORE, &vec![b'x'; part]).repeat(if part == 0 { 1000 } else { 1 });
                let mut sent = 0;
                while raw.send(&parts) {
                    sent += parts.len();
                    assert!(sent < 64 << 20, "{sent} bytes in parts of {part} were taken");
                }
            }
        }
    });
    assert!(stage.peak_kb() < 16 * 1024, "{} KiB for messages without an end", stage.peak_kb());
    stage.expect_as_before();
}

/// A message may have so many frames and no more.
pub fn limit_of_frames(transport: &str) {
    let stage = Stage::new(transport, "message_frames = 5\n");
    stage.during(|| {
        let mut raw = Raw::dealer(stage.host.requests);
        raw.send(&raw::message(&[&b"a"[..]; 5]));
        assert_eq!(raw.reply()["code"], "invalid_request");
        raw.send(&raw::message(&[&b"a"[..]; 6]));
        assert!(raw.closes_within(PATIENCE));
    });
    stage.expect_as_before();
}

/// A message may have so many bytes and no more, in one frame or in several.
pub fn limit_of_bytes(transport: &str) {
    let stage = Stage::new(transport, "message_bytes = 10000\n");
    let health = br#"{"action":"health"}"#;
    let of = |bytes: usize| [&health[..], &vec![b' '; bytes - health.len()]].concat();
    stage.during(|| {
        for frames in [vec![of(10_000)], vec![b"REQ".to_vec(), of(9997)]] {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let mut raw = Raw::dealer(stage.host.requests);
            raw.send(&raw::message(&frames));
            let (_, reply) = raw.frame().expect("it is answered");
            assert!(reply == b"RESPONSE" || reply.starts_with(b"{\"success\":true"), "{reply:?}");
            let more = [frames[frames.len() - 1], b" "].concat();
            let mut raw = Raw::dealer(stage.host.requests);
            raw.send(&raw::message(&[&frames[..frames.len() - 1], &[&more]].concat()));
            assert!(raw.closes_within(PATIENCE), "{} frames", frames.len());
        }
    });
    stage.expect_as_before();
}

/// Many clients that each stay within their limits are too many together: whoever adds to it is dropped, and the log says
/// so. Those that send no more than usual notice nothing.
pub fn limit_of_all_together(transport: &str) {
    let stage = Stage::new(transport, "buffered_bytes = 1048576\n");
    let beginning = [&[LONG][..], &500_000_u64.to_be_bytes(), &vec![b'x'; 100_000]].concat();
    stage.during(|| {
        let mut clients: Vec<Raw> = (0..60).map(|_| Raw::dealer(stage.host.requests)).collect();
        for client in &mut clients {
            client.send(&beginning);
        }
        let end = Instant::now() + PATIENCE;
        // A million bytes are ten beginnings, and a few more that are dropped only when they go on.
        while clients.iter_mut().filter_map(|client| client.skip().then_some(())).count() > 12 {
            assert!(Instant::now() < end, "all of them are still connected");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(stage.host.wait_for_log("(held too much memory)").contains("WARN"));
    assert!(stage.peak_kb() < 6 * 1024, "{} KiB for messages that are not complete", stage.peak_kb());
    stage.expect_as_before();
}

/// Objects nested too deeply are refused, and the connection stays; others that are asked for them are not hurt.
pub fn limit_of_nesting(transport: &str) {
    let stage = Stage::new(transport, "json_depth = 10\n");
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        let info = format!(r#"{{"id":"n","name":"N","host":"h","port":1,"metadata":{{"a":{open}{close}}}}}"#);
        format!(r#"{{"action":"register","service_info":{info}}}"#).into_bytes()
    };
    stage.during(|| {
        let mut raw = Raw::dealer(stage.host.requests);
        for (levels, is_taken) in [(7, true), (8, false), (100_000, false), (7, true)] {
            raw.send(&raw::message(&[&nested(levels)]));
            let reply = raw.reply();
            assert_eq!(reply["success"], is_taken, "{levels} levels: {reply}");
        }
        let deregister = json!({"action": "deregister", "service_id": "n"});
        assert_eq!(raw.call(&deregister)["success"], true);
    });
    stage.expect_as_before();
}
