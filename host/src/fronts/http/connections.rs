//! Who is connected, and how many may be.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

use crate::config;
use crate::fronts::roll::{Client, Deeds, Roll};
use crate::fronts::zmtp::hub::origin;
use crate::protocol::request::Request;
use crate::security::origin::{Address, Origin};
use crate::security::principal::Principal;

/// As operators know this front.
const FRONT: &str = "http";

use super::certified::Certified;

/// All connections.
#[derive(Debug)]
pub(super) struct Connections {
    people: Mutex<People>,
}

/// How many there may be, and how much they may ask for.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    max: usize,
    /// How many of them may be about to begin.
    strangers_max: usize,
    per_address_max: usize,
    /// The most requests per second from one connection, on average; 0 for any number.
    requests_per_second: u32,
}

#[derive(Debug, Default)]
struct People {
    limits: Limits,
    next_id: u64,
    next_turn: u64,
    connections: BTreeMap<u64, Entry>,
    /// Those without a request under way: first those that have not begun to speak yet, and then by when they had the last
    /// one.
    idle: BTreeMap<Turn, u64>,
    /// How many have not begun yet.
    strangers: usize,
    per_origin: HashMap<Option<IpAddr>, usize>,
}

/// Whether it has begun to speak, and since when it is idle.
type Turn = (bool, u64);

#[derive(Debug)]
struct Entry {
    cut: Arc<Notify>,
    has_begun: bool,
    is_plain: bool,
    /// Where it stands among the idle ones.
    idle: Option<Turn>,
    /// Who asked last, and from where.
    origin: Origin,
    /// When it was let in, and when its last request came.
    since: Instant,
    heard: Instant,
    deeds: Deeds,
    /// How many of its requests wait for something to happen.
    waits: usize,
}

/// A connection, until this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    peer: SocketAddr,
    connections: Arc<Connections>,
    /// Told when it has to make room.
    pub(super) cut: Arc<Notify>,
    requests: Mutex<Bucket>,
    /// Whose it is, if a certificate says so.
    pub(super) certified: OnceLock<Arc<Certified>>,
}

impl Connections {
    /// As many as are configured.
    pub(super) fn new(http: &config::Http, requests_per_second: u32) -> Arc<Self> {
        let limits = Limits::of(http, requests_per_second);
        Arc::new(Connections { people: Mutex::new(People { limits, ..People::default() }) })
    }

    /// Sets how many there may be from now on. Idle ones beyond that go, and those in plain text if there is TLS now.
    pub(super) fn set_limits(&self, http: &config::Http, requests_per_second: u32) {
        let mut people = self.lock();
        people.limits = Limits::of(http, requests_per_second);
        if http.certificate_file.is_some() {
            people.connections.values().filter(|entry| entry.is_plain).for_each(|entry| entry.cut.notify_one());
        }
        for _ in people.limits.max..people.connections.len() {
            people.cut_one();
        }
    }

    /// Takes in a connection if there is room for it. At the limit the one goes that has asked for nothing for longest,
    /// or that has not begun to speak. With TLS there may be half as many of those: each holds what a handshake takes.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Result<Arc<Connection>, &'static str> {
        let mut people = self.lock();
        let from = origin(Some(peer.ip()));
        let Limits { max, strangers_max, per_address_max, requests_per_second } = people.limits;
        if people.per_origin.get(&from).is_some_and(|count| *count >= per_address_max) {
            return Err("too many from there");
        }
        if (people.connections.len() >= max || people.strangers >= strangers_max) && !people.cut_one() {
            return Err("too many connections");
        }
        people.next_id += 1;
        let (id, cut) = (people.next_id, Arc::new(Notify::new()));
        let now = Instant::now();
        let entry = Entry {
            cut: cut.clone(),
            has_begun: false,
            is_plain: false,
            idle: None,
            origin: Origin { principal: Principal::Nobody, address: Address::of_peer(Some(peer)) },
            since: now,
            heard: now,
            deeds: Deeds::default(),
            waits: 0,
        };
        people.connections.insert(id, entry);
        people.strangers += 1;
        *people.per_origin.entry(from).or_default() += 1;
        people.rest(id);
        let requests = Mutex::new(Bucket::full(requests_per_second, now));
        Ok(Arc::new(Connection { id, peer, connections: self.clone(), cut, requests, certified: OnceLock::new() }))
    }

    /// Tells who is connected, in the order in which they came, as far as the roll has room.
    pub(super) fn call_roll(&self, roll: &mut Roll<'_>) {
        let now = Instant::now();
        let people = self.lock();
        roll.count(FRONT, people.connections.len());
        for (id, entry) in people.connections.range((Bound::Excluded(roll.after()), Bound::Unbounded)) {
            if !roll.has_room() {
                break;
            }
            roll.look(*id, entry.origin, || entry.client(*id, now));
        }
    }

    fn lock(&self) -> MutexGuard<'_, People> {
        self.people.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Limits {
    fn of(http: &config::Http, requests_per_second: u32) -> Self {
        let (max, per_address_max) = (http.connections as usize, http.connections_per_address as usize);
        let strangers_max = if http.certificate_file.is_some() { max.div_ceil(2) } else { max };
        Limits { max, strangers_max, per_address_max, requests_per_second }
    }
}

impl People {
    /// Has the first of the idle ones make room. Whether there is one.
    fn cut_one(&mut self) -> bool {
        let idle = self.idle.pop_first().map(|(_, id)| id);
        let Some(entry) = idle.and_then(|id| self.connections.get_mut(&id)) else { return false };
        entry.idle = None;
        // It counts until it is gone: so there may be a few more than the limit, for a moment.
        entry.cut.notify_one();
        true
    }

    /// A connection has nothing under way.
    fn rest(&mut self, id: u64) {
        self.next_turn += 1;
        if let Some(entry) = self.connections.get_mut(&id) {
            let turn = (entry.has_begun, self.next_turn);
            entry.idle = Some(turn);
            self.idle.insert(turn, id);
        }
    }

    /// A connection speaks as it should.
    fn begin(&mut self, id: u64) {
        self.wake(id);
        let Some(entry) = self.connections.get_mut(&id).filter(|entry| !entry.has_begun) else { return };
        entry.has_begun = true;
        self.strangers -= 1;
    }

    fn wake(&mut self, id: u64) {
        let turn = self.connections.get_mut(&id).and_then(|entry| entry.idle.take());
        if let Some(turn) = turn {
            self.idle.remove(&turn);
        }
    }
}

impl Entry {
    fn client(&self, id: u64, now: Instant) -> Client {
        Client {
            connection: id,
            front: FRONT,
            origin: self.origin,
            is_ready: true,
            age: now.saturating_duration_since(self.since),
            silent: now.saturating_duration_since(self.heard),
            deeds: self.deeds.clone(),
            unanswered: usize::from(self.idle.is_none()),
            waits: self.waits,
            // What waits over HTTP is counted for all together.
            waiting_bytes: None,
            following: None,
        }
    }
}

impl Connection {
    /// Where it comes from.
    pub(super) fn address(&self) -> Address {
        Address::of_peer(Some(self.peer))
    }

    /// It has begun to speak as it should: others make room for new ones first.
    pub(super) fn has_begun(&self) {
        let mut people = self.connections.lock();
        people.begin(self.id);
        people.rest(self.id);
    }

    /// It speaks plain text: it goes when there is TLS.
    pub(super) fn is_plain(&self) {
        let mut people = self.connections.lock();
        people.connections.get_mut(&self.id).into_iter().for_each(|entry| entry.is_plain = true);
    }

    /// Somebody has asked for something by it, which waits if it may until what is given back is dropped.
    pub(super) fn note_asked(
        self: &Arc<Self>,
        principal: Principal,
        request: &Request,
        is_first: bool,
    ) -> Option<Waits> {
        let mut people = self.connections.lock();
        let entry = people.connections.get_mut(&self.id)?;
        entry.origin.principal = principal;
        if is_first {
            entry.heard = Instant::now();
            entry.deeds.note(Some(request));
        }
        request.may_wait().then(|| {
            entry.waits += 1;
            Waits(self.clone())
        })
    }

    /// How many connections there are, this one among them.
    pub(super) fn all(&self) -> usize {
        self.connections.lock().connections.len()
    }

    /// A request is under way, until what is given back is dropped; `None` if there were too many.
    pub(super) fn begin(self: &Arc<Self>) -> Option<Busy> {
        let mut people = self.connections.lock();
        let rate = people.limits.requests_per_second;
        let mut bucket = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if rate > 0 && !bucket.take(rate, Instant::now()) {
            return None;
        }
        people.wake(self.id);
        Some(Busy(self.clone()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut people = self.connections.lock();
        people.begin(self.id);
        people.connections.remove(&self.id);
        let from = origin(Some(self.peer.ip()));
        if let Some(count) = people.per_origin.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                people.per_origin.remove(&from);
            }
        }
    }
}

/// A request that waits for something to happen.
#[derive(Debug)]
pub(super) struct Waits(Arc<Connection>);

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(entry) = self.0.connections.lock().connections.get_mut(&self.0.id) {
            entry.waits -= 1;
        }
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.connections.lock().rest(self.0.id);
    }
}

/// How many requests may come now.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: u32, now: Instant) -> Self {
        Bucket { tokens: f64::from(rate), at: now }
    }

    /// Takes one of so many in a second. Whether there was one.
    fn take(&mut self, rate: u32, now: Instant) -> bool {
        let rate = f64::from(rate);
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(rate);
        self.at = now;
        let has_one = self.tokens >= 1.0;
        self.tokens -= if has_one { 1.0 } else { 0.0 };
        has_one
    }
}

/// A body, and what is held until it has left.
pub(super) struct Holding<H> {
    pub(super) body: Body,
    pub(super) _held: H,
}

impl<H: Unpin> HttpBody for Holding<H> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
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
        let [a, b, c] = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(|from| connections.admit(peer(from)).unwrap());
        [&a, &b, &c].into_iter().for_each(|connection| connection.has_begun());
        let busy = a.begin().unwrap();
        drop(b.begin());
        let d = connections.admit(peer("10.0.0.4:1")).unwrap();
        assert!(is_cut(&c) && !is_cut(&a) && !is_cut(&b));
        drop(c);
        let [_b, _d] = [b.begin(), d.begin()];
        assert_eq!(connections.admit(peer("10.0.0.5:1")).unwrap_err(), "too many connections");
        drop(busy);
        assert!(connections.admit(peer("10.0.0.5:1")).is_ok() && is_cut(&a));
    }

    #[test]
    fn those_go_first_that_have_not_begun_and_there_are_half_as_many() {
        let connections = Connections::new(&configured(4, 10), 0);
        let admit = |from: &str| connections.admit(peer(from)).unwrap();
        let begun = admit("10.0.0.1:1");
        begun.has_begun();
        let strangers = ["10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"].map(admit);
        let _late = admit("10.0.0.5:1");
        assert_eq!(strangers.each_ref().map(|stranger| is_cut(stranger)), [true, false, false]);
        let tls = config::Http { certificate_file: Some("a.pem".into()), ..configured(100, 100) };
        let connections = Connections::new(&tls, 0);
        let strangers: Vec<_> = (1..=51).map(|port| connections.admit(peer(&format!("10.0.0.1:{port}")))).collect();
        let cut = strangers.iter().filter(|stranger| is_cut(stranger.as_ref().unwrap())).count();
        assert_eq!(cut, 1, "though there is room for more connections");
    }

    #[test]
    fn a_lower_limit_counts_for_those_that_are_there() {
        let connections = Connections::new(&configured(4, 10), 1);
        let all = [1, 2, 3, 4].map(|port| connections.admit(peer(&format!("10.0.0.1:{port}"))).unwrap());
        all.iter().for_each(|connection| connection.has_begun());
        let busy = all[0].begin().unwrap();
        assert!(all[0].begin().is_none(), "one in a second");
        connections.set_limits(&configured(3, 2), 0);
        assert_eq!(all.each_ref().map(|connection| is_cut(connection)), [false, true, false, false]);
        assert!(all[0].begin().is_some(), "any number");
        assert_eq!(connections.admit(peer("10.0.0.1:5")).unwrap_err(), "too many from there");
        drop(busy);
    }

    #[test]
    fn those_in_plain_text_go_when_there_is_tls_whatever_they_do() {
        let connections = Connections::new(&configured(10, 10), 0);
        let all = [1, 2, 3].map(|port| connections.admit(peer(&format!("10.0.0.1:{port}"))).unwrap());
        all.iter().for_each(|connection| connection.has_begun());
        all[..2].iter().for_each(|connection| connection.is_plain());
        let _busy = all[0].begin().unwrap();
        connections.set_limits(&configured(10, 10), 0);
        assert_eq!(all.each_ref().map(|connection| is_cut(connection)), [false; 3]);
        connections.set_limits(&config::Http { certificate_file: Some("a.pem".into()), ..configured(10, 10) }, 0);
        assert_eq!(all.each_ref().map(|connection| is_cut(connection)), [true, true, false]);
    }

    #[test]
    fn one_address_has_a_part_of_them() {
        let connections = Connections::new(&configured(10, 2), 0);
        let first = connections.admit(peer("10.0.0.1:1")).unwrap();
        let _second = connections.admit(peer("10.0.0.1:2")).unwrap();
        assert_eq!(connections.admit(peer("10.0.0.1:3")).unwrap_err(), "too many from there");
        assert!(connections.admit(peer("10.0.0.2:1")).is_ok());
        drop(first);
        assert!(connections.admit(peer("10.0.0.1:3")).is_ok());
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
}
