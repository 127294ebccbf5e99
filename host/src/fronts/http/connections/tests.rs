//! Who is let in, who makes room, and who waits.

use std::time::Duration;

use futures_util::FutureExt;

use super::*;

fn peer(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

fn configured(connections: u32, connections_per_address: u32) -> config::Http {
    config::Http { connections, connections_per_address, ..config::Http::default() }
}

fn is_cut(connection: &Connection) -> bool {
    connection.cut.notified().now_or_never().is_some()
}

#[test]
fn at_the_limit_the_one_goes_that_has_asked_for_nothing_for_longest() {
    let connections = Connections::new(&configured(3, 10), 0);
    let now = Instant::now();
    let come = |from: &str| connections.admit(peer(from), now);
    let [a, b, c] = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(|from| come(from).unwrap());
    [&a, &b, &c].into_iter().for_each(|connection| connection.has_begun());
    let busy = a.begin(now).unwrap();
    drop(b.begin(now));
    let d = come("10.0.0.4:1").unwrap();
    assert!(is_cut(&c) && !is_cut(&a) && !is_cut(&b));
    drop((c.begin(now), c));
    let [_b, _d] = [b.begin(now), d.begin(now)];
    assert_eq!(come("10.0.0.5:1").unwrap_err(), "too many connections");
    drop(busy);
    assert!(come("10.0.0.5:1").is_ok() && is_cut(&a));
}

#[test]
fn those_go_first_that_have_not_begun_and_there_are_half_as_many() {
    let now = Instant::now();
    let connections = Connections::new(&configured(4, 10), 0);
    let admit = |from: &str| connections.admit(peer(from), now).unwrap();
    let begun = admit("10.0.0.1:1");
    begun.has_begun();
    let strangers = ["10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"].map(admit);
    let _late = admit("10.0.0.5:1");
    assert_eq!(strangers.each_ref().map(|stranger| is_cut(stranger)), [true, false, false]);
    let tls = config::Http { certificate_file: Some("a.pem".into()), ..configured(100, 100) };
    let connections = Connections::new(&tls, 0);
    let strangers: Vec<_> = (1..=51).map(|port| connections.admit(peer(&format!("10.0.0.1:{port}")), now)).collect();
    let cut = strangers.iter().filter(|stranger| is_cut(stranger.as_ref().unwrap())).count();
    assert_eq!(cut, 1, "though there is room for more connections");
}

#[test]
fn a_lower_limit_counts_for_those_that_are_there() {
    let connections = Connections::new(&configured(4, 10), 1);
    let now = Instant::now();
    let come = |port: u16| connections.admit(peer(&format!("10.0.0.1:{port}")), now);
    let all = [1, 2, 3, 4].map(|port| come(port).unwrap());
    all.iter().for_each(|connection| connection.has_begun());
    let busy = all[0].begin(now).unwrap();
    assert!(all[0].begin(now).is_none(), "one in a second");
    let _waits = all[3].wait().unwrap();
    connections.set_limits(&configured(3, 2), 0);
    assert_eq!(all.each_ref().map(|connection| is_cut(connection)), [false, true, false, false]);
    assert!(all[2].wait().is_none(), "one in two");
    let _busy = [&all[0], &all[2]].map(|connection| connection.begin(now).expect("any number"));
    assert_eq!(come(5).unwrap_err(), "too many from there");
    drop(busy);
}

#[test]
fn those_in_plain_text_go_when_there_is_tls_whatever_they_do() {
    let connections = Connections::new(&configured(10, 10), 0);
    let now = Instant::now();
    let all = [1, 2, 3].map(|port| connections.admit(peer(&format!("10.0.0.1:{port}")), now).unwrap());
    all.iter().for_each(|connection| connection.has_begun());
    all[..2].iter().for_each(|connection| connection.is_plain());
    let _busy = all[0].begin(now).unwrap();
    connections.set_limits(&configured(10, 10), 0);
    assert_eq!(all.each_ref().map(|connection| is_cut(connection)), [false; 3]);
    connections.set_limits(&config::Http { certificate_file: Some("a.pem".into()), ..configured(10, 10) }, 0);
    assert_eq!(all.each_ref().map(|connection| is_cut(connection)), [true, true, false]);
}

#[test]
fn one_address_has_a_part_of_them_and_makes_room_for_itself_alone() {
    let connections = Connections::new(&configured(10, 2), 0);
    let now = Instant::now();
    let come = |from: &str| connections.admit(peer(from), now);
    let other = come("10.0.0.2:1").unwrap();
    let [first, second] = ["10.0.0.1:1", "10.0.0.1:2"].map(|from| come(from).unwrap());
    let busy = first.begin(now).unwrap();
    let third = come("10.0.0.1:3").unwrap();
    assert!(is_cut(&second) && !is_cut(&other) && !is_cut(&first));
    drop(second);
    let _busy = third.begin(now).unwrap();
    assert_eq!(come("10.0.0.1:4").unwrap_err(), "too many from there");
    assert!(come("10.0.0.2:2").is_ok() && !is_cut(&other));
    drop(busy);
    assert!(come("10.0.0.1:4").is_ok() && is_cut(&first));
}

#[test]
fn who_sends_or_reads_slowly_makes_room_and_who_waits_does_not() {
    let connections = Connections::new(&configured(10, 3), 0);
    let now = Instant::now();
    let come = |at: Instant| connections.admit(peer("10.0.0.1:1"), at);
    let [sends, reads, waits] = [0, 1, 2].map(|_| come(now).unwrap());
    let [sent, read, waited] = [&sends, &reads, &waits].map(|one| one.begin(now).unwrap());
    let place = waits.wait().unwrap();
    assert!(reads.wait().is_none(), "one in two");
    assert!(come(now).is_err());
    let body = sends.listen();
    let fourth = come(now).unwrap();
    assert!(is_cut(&sends));
    drop((body, sent, sends));
    let _fourth = fourth.begin(now).unwrap();
    assert!(come(now).is_err());
    let fifth = come(now + PEACE).unwrap();
    assert!(is_cut(&reads) && !is_cut(&waits) && !is_cut(&fourth));
    drop((read, reads, fifth, place, waited, waits));
    assert!(come(now).unwrap().wait().is_some(), "the place is free again");
}

#[test]
fn nothing_is_left_of_who_is_gone() {
    let connections = Connections::new(&configured(10, 5), 0);
    let now = Instant::now();
    let mut all: Vec<_> = (0..5).map(|_| connections.admit(peer("10.0.0.1:1"), now).unwrap()).collect();
    let late = connections.admit(peer("10.0.0.1:1"), now).unwrap();
    let guards: Vec<_> = all.iter().map(|one| (one.begin(now), one.wait(), one.listen())).collect();
    drop(all.split_off(2));
    drop((guards, late, all));
    let people = connections.lock();
    let Group { count, waiting, strangers, idle, busy } = &people.all;
    assert_eq!((*count, *waiting, strangers.len(), idle.len(), busy.len()), (0, 0, 0, 0, 0));
    assert!(people.per_origin.is_empty() && people.connections.is_empty());
}

#[test]
fn requests_come_at_a_rate() {
    let start = Instant::now();
    let mut bucket = Bucket::full(2, start);
    assert!(bucket.take(2, start) && bucket.take(2, start) && !bucket.take(2, start));
    assert!(!bucket.take(2, start + Duration::from_millis(400)));
    assert!(bucket.take(2, start + Duration::from_millis(600)));
    let later = start + Duration::from_secs(100);
    assert!(bucket.take(2, later) && bucket.take(2, later) && !bucket.take(2, later), "no more are saved up");
}
