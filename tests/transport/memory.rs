//! How much memory clients can make the host keep, all of them together.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::PATIENCE;
use crate::raw::{self, Raw};
use crate::stage::{Stage, register, registration};

/// What the limit is here, in bytes.
const LIMIT: usize = 16 << 20;
const LIMITS: &str = "buffered_bytes = 16777216\n";

/// Makes the reply to `list` 4 MB long, and sees to it that what one list and one event need by themselves was needed
/// before anything is measured.
fn make_list_long(stage: &Stage) {
    for number in 0..5 {
        register(&mut stage.host.client(), &format!("long-{number}"), 850_000);
    }
    for _ in 0..3 {
        assert_eq!(list(stage, Duration::ZERO)["success"], true);
        register(&mut stage.host.client(), "loud", 900_000);
    }
}

/// Takes that back.
fn make_list_short(stage: &Stage) {
    for id in ["long-0", "long-1", "long-2", "long-3", "long-4", "loud", "honest"] {
        stage.host.client().call(json!({"action": "deregister", "service_id": id}));
    }
}

/// Asks for the list, and reads it after a while.
fn list(stage: &Stage, pause: Duration) -> Value {
    let mut raw = Raw::dealer(stage.host.requests);
    raw.send(&raw::request(&json!({"action": "list"})));
    std::thread::sleep(pause);
    // Each of those before it that never read may have a second.
    assert!(raw.has_something_within(PATIENCE * 2), "whoever reads gets its list");
    raw.reply()
}

/// A client that others must not hurt: it asks for the health, and sends a registration of 100 kB in pieces.
fn be_honest(client: &mut Raw) {
    let request = raw::request(&registration("honest", 100_000));
    for piece in request.chunks(10_000) {
        assert!(client.send(piece), "it is cut off because of others");
        std::thread::sleep(Duration::from_millis(20));
    }
    let reply = client.reply();
    assert_eq!(reply["success"], true, "{reply}");
    assert_eq!(client.call(&json!({"action": "health"}))["success"], true);
}

/// Checks that no more was needed than half more than the limit, since the peak was reset.
fn expect_little(stage: &Stage) {
    let peak = stage.peak_kb();
    println!("peak +{peak} KiB, of {} KiB", LIMIT / 1024);
    assert!(peak <= LIMIT as u64 / 1024 * 3 / 2, "{peak} KiB at a limit of {} KiB", LIMIT / 1024);
}

/// Sixty clients that leave a list of 4 MB unread, and forty subscribers that leave events of 0.9 MB unread.
pub fn what_nobody_reads(transport: &str) {
    let mut stage = Stage::new(transport, LIMITS);
    make_list_long(&stage);
    stage.begin_measuring();
    let mut honest = Raw::dealer(stage.host.requests);
    let mut stuck = Vec::new();
    let start = Instant::now();
    stage.during(|| {
        if stuck.is_empty() {
            stuck.extend((0..60).map(|_| {
                let mut raw = Raw::narrow(stage.host.requests, "DEALER");
                raw.send(&raw::request(&json!({"action": "list"})));
                raw
            }));
            stuck.extend((0..40).map(|_| {
                let mut raw = Raw::narrow(stage.host.events, "SUB");
                raw.send(&raw::command("SUBSCRIBE", b""));
                raw
            }));
        }
        while start.elapsed() < Duration::from_secs(5) {
            be_honest(&mut honest);
            register(&mut stage.host.client(), "loud", 900_000);
        }
        be_honest(&mut honest);
    });
    expect_little(&stage);
    let reply = list(&stage, Duration::from_millis(500));
    assert_eq!(reply["success"], true);
    drop((stuck, honest));
    make_list_short(&stage);
    stage.expect_as_before();
}

/// Clients that send most of a large message and wait, and others that send a little of it again and again.
pub fn what_is_never_finished(transport: &str) {
    let mut stage = Stage::new(transport, LIMITS);
    register(&mut stage.host.client(), "honest", 100_000);
    stage.begin_measuring();
    let mut honest = Raw::dealer(stage.host.requests);
    let start = Instant::now();
    stage.during(|| {
        while start.elapsed() < Duration::from_secs(2) {
            let header = [&[crate::harness::zmtp::LONG][..], &1_000_000_u64.to_be_bytes()].concat();
            let mut crowd: Vec<Raw> = (0..100).map(|_| Raw::dealer(stage.host.requests)).collect();
            for raw in &mut crowd {
                raw.send(&[&header[..], &vec![b'x'; 700_000]].concat());
            }
            be_honest(&mut honest);
            for raw in &mut crowd {
                let _ = raw.send_some(b"x");
            }
            be_honest(&mut honest);
        }
        be_honest(&mut honest);
    });
    expect_little(&stage);
    assert!(stage.host.wait_for_log("(held too much memory)").contains("WARN"));
    drop(honest);
    stage.expect_as_before();
}

/// Clients that hold much of what there is and add a little to it now and then: long replies are made all the same.
pub fn what_grows_slowly(transport: &str) {
    let mut stage = Stage::new(transport, LIMITS);
    make_list_long(&stage);
    stage.begin_measuring();
    let header = [&[crate::harness::zmtp::LONG][..], &1_000_000_u64.to_be_bytes()].concat();
    let mut crowd: Vec<Raw> = (0..100).map(|_| Raw::dealer(stage.host.requests)).collect();
    for raw in &mut crowd {
        raw.send(&[&header[..], &vec![b'x'; 105_000]].concat());
    }
    let mut asking = Raw::dealer(stage.host.requests);
    asking.send(&raw::request(&json!({"action": "list"})));
    let start = Instant::now();
    while !asking.has_something_within(Duration::from_millis(700)) {
        assert!(start.elapsed() < PATIENCE, "who sends a little now and then keeps others from their lists");
        for raw in &mut crowd {
            let _ = raw.send_some(&[b'x'; 4200]);
        }
    }
    println!("the list came after {:?}", start.elapsed());
    assert_eq!(asking.reply()["success"], true);
    drop((crowd, asking));
    make_list_short(&stage);
    stage.expect_as_before();
}

/// Clients that ask for much in small replies, and read none of it: nobody is cut off for that while there is room, and
/// the rest of what they ask for waits.
pub fn small_replies_to_many(transport: &str) {
    let mut stage = Stage::new(transport, "buffered_bytes = 16777216\nunread_timeout = 60.0\n");
    register(&mut stage.host.client(), "honest", 100_000);
    register(&mut stage.host.client(), "steady", 3000);
    stage.begin_measuring();
    let mut honest = Raw::dealer(stage.host.requests);
    let mut crowd: Vec<Raw> = (0..100).map(|_| Raw::narrow(stage.host.requests, "DEALER")).collect();
    let get = raw::request(&json!({"action": "get", "service_id": "steady"}));
    stage.during(|| {
        for raw in &mut crowd {
            let _ = raw.send_some(&get.repeat(1000));
        }
        be_honest(&mut honest);
    });
    expect_little(&stage);
    drop((crowd, honest));
    stage.expect_as_before();
}
