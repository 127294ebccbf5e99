//! Clients that come and go, and more of them than there may be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::PATIENCE;
use crate::raw::{self, Raw};
use crate::stage::{Stage, amount, discover, discovery, register, registration};

/// Tens of thousands connect and leave in every way there is: before they are ready and after, with their replies and
/// without, in good order and by a reset.
pub fn comings_and_goings(transport: &str) {
    let stage = Stage::new(transport, "");
    let (connections, next) = (amount(40_000, 4000), AtomicUsize::new(0));
    let [requests, events, _] = stage.host.ports();
    let mut run = || {
        next.store(0, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= connections {
                            return;
                        }
                        // So many connections from one address would run out of ports.
                        let from = [127, 0, 0, 1 + (number % 20) as u8];
                        let port = if number % 5 == 4 { events } else { requests };
                        come_and_go(Raw::open_from(from, port).expect("there is room"), number, port == events);
                    }
                });
            }
        });
    };
    let start = Instant::now();
    stage.during(&mut run);
    println!("{connections} connections, more than once perhaps, in {:?}", start.elapsed());
    stage.expect_as_before();
}

fn come_and_go(mut raw: Raw, number: usize, is_subscriber: bool) {
    let hello = raw::hello(if is_subscriber { "SUB" } else { "DEALER" }, &number.to_be_bytes());
    match (number / 5) % 4 {
        0 => drop(raw.send(&hello[..number % hello.len()])),
        1 if is_subscriber => drop(raw.send(&[hello, raw::message(&[b"\x01reg"])].concat())),
        1 => drop(raw.send(&[hello, raw::request(&discovery())].concat())),
        _ => {
            raw.send(&hello);
            raw.expect_ready();
            if !is_subscriber {
                assert_eq!(raw.call(&discovery())["service"]["id"], "steady");
            }
        }
    }
    if number.is_multiple_of(2) {
        raw.leave_at_once();
    }
}

/// At the limit nobody is let in, and nobody is put out; when somebody leaves, there is room again.
pub fn limit_of_connections(transport: &str) {
    let stage = Stage::new(transport, "connections = 20\n");
    stage.during(|| {
        // The bystander is one of them.
        let mut crowd: Vec<Raw> = (0..19).map(|_| let_in([127, 0, 0, 1], stage.host.requests)).collect();
        for port in stage.host.ports() {
            assert!(!is_let_in([127, 0, 0, 1], port), "one more than there may be");
        }
        for raw in &mut crowd {
            assert_eq!(raw.call(&discovery())["success"], true);
        }
        crowd.pop();
        crowd.push(let_in([127, 0, 0, 1], stage.host.requests));
    });
    stage.expect_as_before();
}

/// The same for those from one address, while others are let in.
pub fn limit_of_connections_from_an_address(transport: &str) {
    let stage = Stage::new(transport, "connections_per_address = 10\n");
    let (here, there) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    stage.during(|| {
        let crowd: Vec<Raw> = (0..10).map(|_| let_in(there, stage.host.requests)).collect();
        assert!(!is_let_in(there, stage.host.events), "one more than there may be");
        let_in(here, stage.host.requests);
        drop(crowd);
        let_in(there, stage.host.requests);
    });
    stage.expect_as_before();
}

fn is_let_in(address: [u8; 4], port: u16) -> bool {
    let mut raw = Raw::open_from(address, port).expect("the port is open");
    raw.send(&raw::hello("DEALER", b""));
    raw.is_let_in()
}

/// Lets one in, as soon as the host knows that another has left.
fn let_in(address: [u8; 4], port: u16) -> Raw {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut raw = Raw::open_from(address, port).expect("the port is open");
        raw.send(&raw::hello("DEALER", b""));
        if raw.is_let_in() {
            return raw;
        }
        assert!(Instant::now() < end, "there is room, and nobody is let in");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A subscriber may have so many subscriptions and no more. The same twice is one, and cancelled ones do not count.
pub fn limit_of_subscriptions(transport: &str) {
    let stage = Stage::new(transport, "subscriptions = 10\n");
    let as_command = |number: u8| raw::command("SUBSCRIBE", &[number]);
    let as_message = |number: u8| raw::message(&[&[1, number]]);
    stage.during(|| {
        for subscribe in [&as_command as &dyn Fn(u8) -> Vec<u8>, &as_message] {
            let mut raw = Raw::said(stage.host.events, &raw::hello("SUB", b""));
            let some: Vec<u8> = (0..10).chain(0..10).flat_map(subscribe).collect();
            let other = [raw::command("CANCEL", &[3]), subscribe(10)].concat();
            raw.send(&[some, other, raw::command("PING", b"\0\0still here")].concat());
            let (_, pong) = raw.frame().expect("it is still there");
            assert_eq!(pong, b"\x04PONGstill here");
            raw.send(&subscribe(11));
            assert!(raw.closes_within(PATIENCE));
        }
    });
    stage.expect_as_before();
}

/// Subscriptions may be as long as messages: those that are longer than any topic cost nothing, and count.
pub fn long_subscriptions(transport: &str) {
    let stage = Stage::new(transport, "subscriptions = 250\n");
    let long = vec![b'x'; 1_000_000];
    let numbered = |number: u8| [&long[..], &[number]].concat();
    let subscriptions = amount(200, 60) as u8;
    stage.during(|| {
        let mut raw = Raw::said(stage.host.events, &raw::hello("SUB", b""));
        for number in 0..subscriptions {
            assert!(raw.send(&raw::command("SUBSCRIBE", &numbered(number))));
        }
        for number in 0..subscriptions / 2 {
            assert!(raw.send(&raw::command("CANCEL", &numbered(number))));
        }
        // Those that were cancelled make room for others, and no more than that.
        let free = 250 - usize::from(subscriptions - subscriptions / 2);
        raw.send(&raw::command("SUBSCRIBE", &[b'y'; 300]).repeat(free));
        raw.send(&raw::command("PING", b"\0\0still here"));
        assert_eq!(raw.frame().expect("it is still there").1, b"\x04PONGstill here");
        raw.send(&raw::command("SUBSCRIBE", b"reg"));
        assert!(raw.closes_within(PATIENCE), "one more than there may be");
    });
    assert!(stage.peak_kb() < 8 * 1024, "{} KiB for what can match nothing", stage.peak_kb());
    stage.expect_as_before();
}

/// Whoever asks more often than is allowed is answered no more often than that. Others are not held up.
pub fn limit_of_requests_per_second(transport: &str) {
    let stage = Stage::new(transport, "requests_per_second = 1000\n");
    stage.during(|| {
        let mut raw = Raw::dealer(stage.host.requests);
        let start = Instant::now();
        raw.send(&raw::request(&json!({"action": "health"})).repeat(2000));
        for _ in 0..2000 {
            raw.reply();
        }
        // The last ones that came together are not paid for yet.
        assert!(start.elapsed() > Duration::from_millis(1200), "2000 requests in {:?}", start.elapsed());
    });
    stage.expect_as_before();
}

/// A client may send as much as it likes ahead: the host takes so many requests and no more before it has answered, so
/// that there is room for those of others.
pub fn limit_of_unanswered_requests(transport: &str) {
    let stage = Stage::new(transport, "requests_waiting = 50\npending_bytes = 200000\n");
    let registrations = amount(20_000, 3000);
    let mut other = stage.host.client();
    let mut run = Some(|| {
        let mut raw = Raw::dealer(stage.host.requests);
        let batch = raw::request(&registration("the same", 1000)).repeat(1000);
        std::thread::scope(|scope| {
            let mut writer = raw.second();
            scope.spawn(move || (0..registrations / 1000).for_each(|_| assert!(writer.send(&batch))));
            for number in 0..registrations {
                let reply = raw.reply();
                assert_eq!(reply["success"], true, "{reply}");
                if number % 100 == 0 {
                    register(&mut other, "another", 100);
                }
            }
        });
    });
    stage.during(|| match run.take() {
        Some(mut run) => run(),
        None => std::thread::sleep(Duration::from_millis(10)),
    });
    drop(other);
    stage.expect_as_before();
}

/// The host gives itself as many open files as it may have.
pub fn open_files_are_raised(transport: &str) {
    let stage = Stage::under("-S -n 64", transport, "");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", stage.host.pid())).expect("the host runs");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("the kernel says it");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(words[3] == words[4] && words[3] != "64", "soft and hard limit: {line}");
    stage.expect_as_before();
}

/// With fewer open files than connections, the limit of connections is what there is room for: it is told at the start,
/// and nobody runs out of files.
pub fn few_open_files(transport: &str) {
    let stage = Stage::under("-n 80", transport, "[http]\nenabled = false\n");
    let line = stage.host.wait_for_log("limits.connections is 10000");
    assert!(line.contains("WARN") && line.contains("80 open files, so there is room for 48"), "{line}");
    stage.during(|| {
        let mut crowd: Vec<Raw> = (0..47).map(|_| let_in([127, 0, 0, 1], stage.host.requests)).collect();
        let mut more: Vec<Raw> = (0..100).map(|_| Raw::open(stage.host.requests)).collect();
        for raw in &mut more {
            assert!(raw.closes_within(PATIENCE), "one more than there is room for");
        }
        for raw in &mut crowd {
            assert_eq!(raw.call(&discovery())["success"], true);
        }
    });
    assert!(!stage.host.log().contains("no more connections can be taken"), "{}", stage.host.log());
    stage.expect_as_before();
}

/// If there are no open files to be had at all, whoever is connected is served, it is said once, nothing spins, and
/// when there are some again, others are let in.
pub fn no_open_files(transport: &str) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let stage = Stage::new(transport, "");
    let process = Pid::from_raw(stage.host.pid() as i32);
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit =
        |current| prlimit(process, Resource::Nofile, Rlimit { current, maximum }).expect("it is our child").current;
    let mut client = stage.host.client();
    let mut crowd: Vec<Raw> = Vec::new();
    let mut before = None;
    stage.during(|| {
        if crowd.is_empty() {
            before = limit(Some(40));
            let ports = stage.host.ports();
            crowd.extend((0..100).map(|number| Raw::unread(ports[number % 3], "DEALER", b"")));
            stage.host.wait_for_log("no more connections can be taken for now");
        }
        discover(&mut client);
    });
    let share = stage.cpu_share(Duration::from_millis(500));
    assert!(share < 0.2, "it needs {share} of a core for waiting");
    // Some leave and others take their place, again and again.
    for _ in 0..10 {
        crowd.drain(..5);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(stage.host.log().matches("no more connections can be taken").count(), 1, "{}", stage.host.log());
    drop(crowd);
    discover(&mut stage.host.client());
    assert!(before > Some(40), "there was more before");
    limit(before);
    drop(client);
    stage.expect_as_before();
}
