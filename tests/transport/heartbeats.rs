//! Whether both sides are there.

use std::time::{Duration, Instant};

use crate::harness::zmtp::COMMAND;
use crate::harness::{PATIENCE, python, workspace};
use crate::raw::{self, Raw};
use crate::stage::{Stage, discovery};

/// A PING is answered by a PONG with the same context, of 16 bytes at most, on every port and before every request.
pub fn pings_are_answered(transport: &str) {
    let stage = Stage::new(transport, "");
    stage.during(|| {
        for port in stage.host.ports() {
            let hello = raw::hello(if port == stage.host.events { "SUB" } else { "DEALER" }, b"");
            let mut raw = Raw::said(port, &hello);
            for context in [&b""[..], b"x", b"0123456789abcdef"] {
                raw.send(&raw::command("PING", &[b"\0\x64", context].concat()));
                let (flags, pong) = raw.frame().expect("the connection stays");
                assert_eq!((flags & COMMAND, &pong[..]), (COMMAND, &[b"\x04PONG", context].concat()[..]));
            }
            raw.send(&raw::command("PING", b"\0\x640123456789abcdefg"));
            assert!(raw.closes_within(PATIENCE), "no context has 17 bytes");
        }
        let mut raw = Raw::dealer(stage.host.requests);
        raw.send(&[raw::command("PING", b"\0\0a"), raw::request(&discovery())].concat());
        assert_eq!(raw.frame().expect("the connection stays").1, b"\x04PONGa");
        assert_eq!(raw.reply()["success"], true);
    });
    stage.expect_as_before();
}

/// Who is silent is asked, and dropped if it does not answer. Who answers stays.
pub fn the_silent_are_dropped(transport: &str) {
    let stage = Stage::new(transport, "heartbeat_interval = 0.2\nheartbeat_timeout = 1.0\n");
    stage.during(|| {
        std::thread::scope(|scope| {
            for port in stage.host.ports() {
                let hello = raw::hello(if port == stage.host.events { "SUB" } else { "DEALER" }, b"");
                scope.spawn(move || {
                    let (mut silent, mut answering) = (Raw::said(port, &hello), Raw::said(port, &hello));
                    let start = Instant::now();
                    while start.elapsed() < Duration::from_millis(1500) {
                        let (flags, ping) = answering.frame().expect("who answers stays");
                        assert!(
                            flags & COMMAND != 0 && ping.starts_with(b"\x04PING\0\x0a"),
                            "a PING with a ttl of 1 s"
                        );
                        answering.send(&raw::command("PONG", &ping[7..]));
                    }
                    assert!(silent.closes_within(PATIENCE), "it is held though nothing is heard of it");
                });
            }
        });
    });
    assert!(stage.host.wait_for_log("(silent)").contains("WARN"));
    stage.expect_as_before();
}

/// Who has to wait because it asked too often is not taken for silent: what it sends meanwhile is not read.
pub fn who_has_to_wait_is_not_silent(transport: &str) {
    let limits = "heartbeat_interval = 0.2\nheartbeat_timeout = 1.0\nrequests_per_second = 4\n";
    let stage = Stage::new(transport, limits);
    let mut raw = Raw::dealer(stage.host.requests);
    raw.send(&raw::request(&discovery()).repeat(8));
    (0..8).for_each(|_| assert_eq!(raw.reply()["success"], true));
    // The eight were paid for together, with two seconds.
    assert_eq!(raw.call(&discovery())["success"], true);
}

/// Peers that do not know PING are not asked, and stay.
pub fn who_cannot_answer_is_not_asked(transport: &str) {
    let stage = Stage::new(transport, "heartbeat_interval = 0.1\nheartbeat_timeout = 0.3\n");
    let hello = [raw::greeting(0, "NULL"), raw::ready("DEALER", b"")].concat();
    let mut raw = Raw::said(stage.host.requests, &hello);
    assert!(!raw.has_something_within(Duration::from_secs(1)), "a ZMTP 3.0 peer gets no PING");
    assert_eq!(raw.call(&discovery())["success"], true);
    drop(raw);
    stage.expect_as_before();
}

/// A peer that has said for how long it lives without being heard of is dropped after that.
pub fn the_ttl_of_a_ping_is_kept(transport: &str) {
    let stage = Stage::new(transport, "");
    let mut raw = Raw::dealer(stage.host.requests);
    raw.send(&raw::command("PING", b"\0\x05"));
    let start = Instant::now();
    assert!(raw.closes_within(PATIENCE), "it said half a second");
    assert!(start.elapsed() > Duration::from_millis(300), "{:?}", start.elapsed());
    stage.expect_as_before();
}

/// libzmq's own heartbeats, over seconds, on all three kinds of socket, and its clients of other mechanisms.
pub fn libzmq(transport: &str) {
    let Some(python) = python() else { return };
    let stage = Stage::new(transport, "heartbeat_interval = 0.5\nheartbeat_timeout = 2.0\n");
    stage.during(|| {
        let output = std::process::Command::new(&python)
            .args(["-u", "-W", "ignore"])
            .arg(workspace().join("tests/clients/libzmq_client.py"))
            .args(
                [stage.host.requests, stage.host.events, stage.host.heartbeats].map(|p| format!("tcp://127.0.0.1:{p}")),
            )
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .expect("Python can be started");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        println!("{said}");
        assert!(output.status.success(), "{}: {said}", output.status);
    });
    stage.expect_as_before();
}
