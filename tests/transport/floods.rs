//! Clients that send as much as goes through, or take nothing of what comes.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::zmtp::COMMAND;
use crate::harness::{PATIENCE, eventually};
use crate::raw::{self, Raw};
use crate::stage::{Stage, amount, discovery, is_full, register, registration};

/// Clients that send without a pause, and read: everybody else gets a turn all the same.
pub fn floods(transport: &str) {
    // The allocator keeps most of what was needed once, and that is to be little.
    let stage = Stage::new(transport, "pending_bytes = 4194304\n");
    let [requests, events, heartbeats] = stage.host.ports();
    let ping = raw::command("PING", b"\0\0");
    let subscriptions = [&b"\x01a"[..], b"\0a", b"?"].map(|body| raw::message(&[body])).concat();
    let mut floods = vec![
        (requests, "DEALER", raw::message(&[b""])),
        (requests, "DEALER", raw::request(&discovery())),
        (requests, "DEALER", ping.clone()),
        (heartbeats, "DEALER", raw::message(&[b"{}"])),
        (events, "SUB", ping),
        (events, "SUB", subscriptions),
    ];
    if is_full() {
        // Without optimisation a thousand registrations, which are stored together, take longer than anybody may wait.
        let info =
            json!({"id": "large", "name": "N", "host": "h", "port": 1, "metadata": {"text": "x".repeat(20_000)}});
        floods.push((requests, "DEALER", raw::request(&json!({"action": "register", "service_info": info}))));
    }
    stage.during(|| {
        std::thread::scope(|scope| {
            for (port, socket_type, message) in &floods {
                scope.spawn(move || flood(*port, socket_type, message, Duration::from_secs(1)));
            }
        });
    });
    stage.expect_as_before();
}

fn flood(port: u16, socket_type: &str, message: &[u8], time: Duration) {
    let flood = message.repeat((256 << 10) / message.len());
    let mut raw = Raw::said(port, &raw::hello(socket_type, b""));
    let (mut rest, end) = (&flood[..], Instant::now() + time);
    while Instant::now() < end {
        let sent = raw.send_some(rest).expect("whoever reads is not dropped");
        rest = if sent < rest.len() { &rest[sent..] } else { &flood };
        if sent == 0 {
            // The processor is for the host, not for asking the kernel again and again.
            std::thread::sleep(Duration::from_micros(200));
        }
        assert!(raw.skip(), "whoever reads is not dropped");
    }
}

/// A client that sends a hundred thousand requests and reads no reply is dropped, and the log says so.
pub fn a_client_that_never_reads(transport: &str) {
    let stage = Stage::new(transport, "unread_timeout = 1.0\n");
    register(&mut stage.host.client(), "steady", 2000);
    let requests = amount(100_000, 20_000);
    let batch = raw::request(&discovery()).repeat(100);
    stage.during(|| {
        let mut raw = Raw::dealer(stage.host.requests);
        let sent = (0..requests / 100).take_while(|_| raw.send(&batch)).count() * 100;
        assert!(raw.is_dropped(), "{sent} requests were sent, no reply was read, and it goes on");
    });
    assert!(stage.host.wait_for_log("(does not read its replies)").contains("WARN"));
    assert!(stage.peak_kb() < 24 * 1024, "{} KiB for replies that nobody reads", stage.peak_kb());
    stage.expect_as_before();
}

/// Makes the reply to `list` 170 kB long.
fn make_list_long(stage: &Stage) {
    for number in 0..100 {
        register(&mut stage.host.client(), &format!("service-{number}"), 1500);
    }
}

/// Takes that back.
fn make_list_short(stage: &Stage) {
    for number in 0..100 {
        stage.host.client().call(json!({"action": "deregister", "service_id": format!("service-{number}")}));
    }
}

/// Replies wait for a client up to a limit. One that reads may have any number of them, and a single one may be longer.
pub fn limit_of_replies(transport: &str) {
    let stage = Stage::new(transport, "reply_queue_bytes = 65536\nunread_timeout = 1.0\n");
    make_list_long(&stage);
    let list = json!({"action": "list"});
    stage.during(|| {
        let mut raw = Raw::dealer(stage.host.requests);
        for _ in 0..3 {
            let reply = raw.call(&list);
            assert!(reply.to_string().len() > 2 * 65536, "longer than the limit");
        }
        // The network between takes some megabytes, the host no more than the limit.
        let batch = raw::request(&list).repeat(20);
        let sent = (0..1000).take_while(|_| raw.send(&batch)).count() * 20;
        assert!(raw.is_dropped(), "after {sent} requests");
        assert!(stage.peak_kb() < 8 * 1024, "{} KiB for replies that nobody reads", stage.peak_kb());
    });
    make_list_short(&stage);
    stage.expect_as_before();
}

/// A client that asks for more than may wait for it gets all of it, in order, however slowly it reads.
pub fn a_client_that_reads_slowly(transport: &str) {
    let stage = Stage::new(transport, "reply_queue_bytes = 65536\nunread_timeout = 5.0\n");
    make_list_long(&stage);
    stage.during(|| {
        let mut raw = Raw::dealer(stage.host.requests);
        // Whoever has asked for little so far is looked at for longer.
        raw.send(&raw::request(&json!({"action": "health"})).repeat(1000));
        (0..1000).for_each(|_| assert_eq!(raw.reply()["success"], true));
        let lists = (0..100).map(|number| raw::request(&json!({"action": "list", "request_id": number})));
        raw.send(&lists.collect::<Vec<_>>().concat());
        for number in 0..100 {
            if number % 10 == 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            let reply = raw.reply();
            assert_eq!((&reply["success"], &reply["request_id"]), (&json!(true), &json!(number)));
        }
    });
    assert!(stage.peak_kb() < 8 * 1024, "{} KiB for what is read slowly", stage.peak_kb());
    make_list_short(&stage);
    stage.expect_as_before();
}

/// What a client has asked for is done, also if it leaves at once and reads nothing.
pub fn a_client_that_leaves_at_once(transport: &str) {
    let stage = Stage::new(transport, "reply_queue_bytes = 65536\n");
    make_list_long(&stage);
    // More than the network takes: some of it is held back when the client leaves.
    let lists = raw::request(&json!({"action": "list"})).repeat(100);
    let mut visits = 0;
    stage.during(|| {
        visits += 1;
        let id = format!("visit-{visits}");
        register(&mut stage.host.client(), &id, 0);
        let deregister = json!({"action": "deregister", "service_id": id}).to_string();
        let goodbye = raw::message(&[b"REQ_NO_REPLY", deregister.as_bytes()]);
        let mut raw = Raw::dealer(stage.host.requests);
        raw.send(&[&lists[..], &goodbye].concat());
        std::thread::sleep(Duration::from_millis(100));
        drop(raw);
        let get = json!({"action": "get", "service_id": id});
        eventually(&mut stage.host.client(), get, |reply| reply["code"] == "not_found");
    });
    make_list_short(&stage);
    stage.expect_as_before();
}

/// A subscriber that stops reading costs no more than its queue, misses the oldest events and can see that; the others
/// get all of them.
pub fn a_stuck_subscriber(transport: &str) {
    let stage = Stage::new(transport, "event_queue_bytes = 1048576\n");
    let events = amount(400_000, 10_000);
    let first = json!({"action": "list"});
    let before = stage.host.client().call(first)["revision"].as_u64().expect("a list has a revision");
    let [mut stuck, readers @ ..] = [(); 4].map(|()| Raw::subscriber(stage.host.events));
    let mut readers = readers;
    // All of them are subscribed as soon as they get something.
    let subscribed = probes(&stage, [&mut stuck].into_iter().chain(&mut readers));
    let progress: [AtomicUsize; 3] = Default::default();
    let slowest = || progress.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap_or(0);
    let produced = AtomicUsize::new(0);
    let is_done = || slowest() >= events;
    let start = Instant::now();
    let run = || {
        std::thread::scope(|scope| {
            for (reader, count) in readers.iter_mut().zip(&progress) {
                scope.spawn(move || {
                    for number in 1..=events {
                        let mut revision = next_revision(reader);
                        while revision <= before + subscribed {
                            revision = next_revision(reader);
                        }
                        assert_eq!(revision, before + subscribed + number as u64, "an event was missed");
                        count.store(number, Ordering::Relaxed);
                    }
                });
            }
            for producer in 0..4 {
                let (port, produced, slowest) = (stage.host.requests, &produced, &slowest);
                scope.spawn(move || produce(port, producer, events, produced, slowest));
            }
        });
    };
    // The times of a bystander are taken while that lasts.
    let mut run = Some(run);
    stage.during(|| match run.take() {
        Some(mut run) => run(),
        None => std::thread::sleep(Duration::from_millis(10)),
    });
    println!("{events} events to 3 subscribers in {:?}, beside a stuck one", start.elapsed());
    assert!(is_done());
    assert!(stage.peak_kb() < 16 * 1024, "{} KiB for events that nobody reads", stage.peak_kb());
    let (mut last, mut gaps) = (before + subscribed, 0);
    while last < before + subscribed + events as u64 {
        let revision = next_revision(&mut stuck);
        gaps += usize::from(revision > last + 1);
        last = revision;
    }
    assert!(gaps > 0, "it has missed none of {events} events of 1 kB");
    assert!(stage.host.wait_for_log("events missed (reads too slowly)").contains("WARN"));
    drop((stuck, readers));
    stage.expect_as_before();
}

/// Makes events until each of these has seen one: how many that were. They are left to be read.
fn probes<'a>(stage: &Stage, subscribers: impl Iterator<Item = &'a mut Raw>) -> u64 {
    let mut made = 0;
    for subscriber in subscribers {
        loop {
            register(&mut stage.host.client(), "steady", 0);
            made += 1;
            if subscriber.has_something_within(Duration::from_millis(50)) {
                break;
            }
        }
    }
    made
}

/// Registers services with 1 kB of metadata, with 50 requests under way, but not far ahead of the slowest reader: that
/// readers lag behind on a busy machine is not what this is about.
fn produce(port: u16, producer: usize, events: usize, produced: &AtomicUsize, slowest: impl Fn() -> usize) {
    let mut raw = Raw::dealer(port);
    for batch in 0..events / 4 / 50 {
        let requests: Vec<u8> = (0..50)
            .flat_map(|number| raw::request(&registration(&format!("{producer}-{}", (batch + number) % 60), 800)))
            .collect();
        raw.send(&requests);
        for _ in 0..50 {
            assert_eq!(raw.reply()["success"], true);
        }
        let ahead = produced.fetch_add(50, Ordering::Relaxed) + 50;
        let end = Instant::now() + PATIENCE;
        while ahead > slowest() + 2000 {
            assert!(Instant::now() < end, "a subscriber does not get its events");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The revision of the next event. PINGs are answered on the way.
fn next_revision(subscriber: &mut Raw) -> u64 {
    loop {
        let (flags, body) = subscriber.frame().expect("the connection stays");
        if flags & COMMAND != 0 {
            assert!(body.starts_with(b"\x04PING"));
            subscriber.send(&raw::command("PONG", &body[7..]));
            continue;
        }
        let text = String::from_utf8_lossy(&body);
        if let Some((_, rest)) = text.rsplit_once("\"revision\":") {
            let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
            return digits.parse().expect("a revision is a number");
        }
    }
}

/// A host that is stopped sends what it has to send.
pub fn replies_at_the_end(transport: &str) {
    let stage = Stage::new(transport, "reply_queue_bytes = 67108864\n");
    let mut raw = Raw::dealer(stage.host.requests);
    let mut other = stage.host.client();
    let replies = 20_000;
    for number in 0..replies {
        raw.send(&raw::request(&json!({"action": "discover", "service_type": "web", "request_id": number})));
    }
    raw.send(&raw::request(&registration("last", 0)));
    crate::harness::eventually(&mut other, json!({"action": "get", "service_id": "last"}), |reply| {
        reply["success"] == true
    });
    let gate = Barrier::new(2);
    std::thread::scope(|scope| {
        let host = stage.host;
        let end = scope.spawn(|| {
            host.signal("TERM");
            gate.wait();
            host.wait()
        });
        gate.wait();
        for number in 0..replies {
            assert_eq!(raw.reply()["request_id"], number, "all replies come, in order");
        }
        assert_eq!(raw.reply()["service_id"], "last");
        assert!(raw.closes_within(PATIENCE));
        drop(raw);
        let (status, log) = end.join().expect("the host ends");
        assert!(status.success(), "{status}: {log}");
    });
}
