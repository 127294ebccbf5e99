//! Who is connected, and how many may be.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

use crate::fronts::zmtp::hub::origin;
use crate::security::origin::Address;

/// So long a client is left in peace with its answer.
const PEACE: Duration = Duration::from_secs(1);

/// All connections.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    per_address_max: usize,
    /// The most requests per second from one connection, on average; 0 for any number.
    requests_per_second: u32,
    people: Mutex<People>,
}

#[derive(Debug, Default)]
struct People {
    next_id: u64,
    next_turn: u64,
    connections: HashMap<u64, Entry>,
    all: Group,
    per_origin: HashMap<Option<IpAddr>, Group>,
}

/// Connections that share a limit.
#[derive(Debug, Default)]
struct Group {
    count: usize,
    /// How many wait for something to happen.
    waiting: usize,
    /// Those of which no request is under way, by when they had the last one.
    idle: BTreeMap<u64, u64>,
    /// Those whose request is under way, by when that began.
    busy: BTreeMap<u64, (u64, Instant)>,
}

#[derive(Debug)]
struct Entry {
    origin: Option<IpAddr>,
    cut: Arc<Notify>,
    place: Place,
}

/// What a connection does.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Nothing, or it still sends its request. With its turn, here and below.
    Idle(u64),
    /// It is answered, since then.
    Busy(u64, Instant),
    /// It waits for something to happen.
    Waiting,
    /// It has been told to go.
    Leaving,
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
}

impl Connections {
    pub(super) fn new(max: usize, per_address_max: usize, requests_per_second: u32) -> Arc<Self> {
        Arc::new(Connections { max, per_address_max, requests_per_second, people: Mutex::default() })
    }

    /// Takes in a connection if there is room for it. At a limit one goes of all, or of those from the same address: the
    /// one that has asked for nothing for longest, or else that takes its answer for longest. So who opens connections
    /// and says or reads nothing does not lock out the others of its machine, and those who come by the same proxy.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr, now: Instant) -> Result<Arc<Connection>, &'static str> {
        let mut people = self.lock();
        let origin = origin(Some(peer.ip()));
        let from = people.per_origin.get(&origin);
        if let Some(from) = from.filter(|from| from.count >= self.per_address_max) {
            let first = from.first_to_go(now).ok_or("too many from there")?;
            people.cut(first);
        } else if people.all.count >= self.max {
            let first = people.all.first_to_go(now).ok_or("too many connections")?;
            people.cut(first);
        }
        people.next_id += 1;
        let (id, cut) = (people.next_id, Arc::new(Notify::new()));
        people.connections.insert(id, Entry { origin, cut: cut.clone(), place: Place::Leaving });
        people.all.count += 1;
        people.per_origin.entry(origin).or_default().count += 1;
        people.rest(id);
        let requests = Mutex::new(Bucket::full(self.requests_per_second, now));
        Ok(Arc::new(Connection { id, peer, connections: self.clone(), cut, requests }))
    }

    fn lock(&self) -> MutexGuard<'_, People> {
        self.people.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Group {
    fn first_to_go(&self, now: Instant) -> Option<u64> {
        let longest_busy = || self.busy.first_key_value().map(|(_, busy)| *busy);
        let is_slow = |busy: &(u64, Instant)| now.saturating_duration_since(busy.1) >= PEACE;
        let idle = self.idle.first_key_value().map(|(_, id)| *id);
        idle.or_else(|| longest_busy().filter(is_slow).map(|(id, _)| id))
    }

    fn enter(&mut self, id: u64, place: Place) {
        match place {
            Place::Idle(turn) => drop(self.idle.insert(turn, id)),
            Place::Busy(turn, since) => drop(self.busy.insert(turn, (id, since))),
            Place::Waiting => self.waiting += 1,
            Place::Leaving => {}
        }
    }

    fn leave(&mut self, place: Place) {
        match place {
            Place::Idle(turn) => drop(self.idle.remove(&turn)),
            Place::Busy(turn, _) => drop(self.busy.remove(&turn)),
            Place::Waiting => self.waiting -= 1,
            Place::Leaving => {}
        }
    }
}

impl People {
    /// A connection has nothing under way.
    fn rest(&mut self, id: u64) {
        let turn = self.turn();
        self.put(id, Place::Idle(turn));
    }

    /// A connection's request is under way.
    fn work(&mut self, id: u64, now: Instant) {
        let turn = self.turn();
        self.put(id, Place::Busy(turn, now));
    }

    fn turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    fn put(&mut self, id: u64, place: Place) {
        let Some(entry) = self.connections.get_mut(&id) else { return };
        let before = std::mem::replace(&mut entry.place, place);
        for group in [Some(&mut self.all), self.per_origin.get_mut(&entry.origin)].into_iter().flatten() {
            group.leave(before);
            group.enter(id, place);
        }
    }

    fn is_leaving(&self, id: u64) -> bool {
        self.connections.get(&id).is_none_or(|entry| matches!(entry.place, Place::Leaving))
    }

    /// Has a connection make room. It counts until it is gone: so there may be a few more than a limit, for a moment.
    fn cut(&mut self, id: u64) {
        self.put(id, Place::Leaving);
        if let Some(entry) = self.connections.get(&id) {
            entry.cut.notify_one();
        }
    }

    /// A connection is gone.
    fn leave(&mut self, id: u64) {
        self.put(id, Place::Leaving);
        let Some(Entry { origin, .. }) = self.connections.remove(&id) else { return };
        self.all.count -= 1;
        let Some(from) = self.per_origin.get_mut(&origin) else { return };
        from.count -= 1;
        if from.count == 0 {
            self.per_origin.remove(&origin);
        }
    }
}

impl Connection {
    /// Where it comes from.
    pub(super) fn address(&self) -> Address {
        Address::of_peer(Some(self.peer))
    }

    /// How many connections there are, this one among them.
    pub(super) fn all(&self) -> usize {
        self.connections.lock().all.count
    }

    /// A request is under way, until what is given back is dropped; `None` if there were too many.
    pub(super) fn begin(self: &Arc<Self>, now: Instant) -> Option<Busy> {
        let rate = self.connections.requests_per_second;
        let mut bucket = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if rate > 0 && !bucket.take(rate, now) {
            return None;
        }
        self.put(|people, id| people.work(id, now));
        Some(Busy(self.clone()))
    }

    /// Its request is not whole yet, until what is given back is dropped: meanwhile it makes room like one that has asked
    /// for nothing.
    pub(super) fn listen(self: &Arc<Self>) -> Aside {
        self.put(People::rest);
        Aside(self.clone())
    }

    /// It waits for something to happen, until what is given back is dropped. It makes no room for others, and so there
    /// are half as many places as for connections: `None` if all are taken, or those of its address.
    pub(super) fn wait(self: &Arc<Self>) -> Option<Aside> {
        let mut people = self.connections.lock();
        let origin = origin(Some(self.peer.ip()));
        let from_there = people.per_origin.get(&origin).map_or(0, |from| from.waiting);
        let (max, per_address_max) = (self.connections.max / 2, self.connections.per_address_max / 2);
        if people.all.waiting >= max || from_there >= per_address_max.max(1) {
            return None;
        }
        if !people.is_leaving(self.id) {
            people.put(self.id, Place::Waiting);
        }
        Some(Aside(self.clone()))
    }

    fn put(&self, put: impl FnOnce(&mut People, u64)) {
        let mut people = self.connections.lock();
        if !people.is_leaving(self.id) {
            put(&mut people, self.id);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.lock().leave(self.id);
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.put(People::rest);
    }
}

/// A part of a request in which nothing is done for it.
#[derive(Debug)]
pub(super) struct Aside(Arc<Connection>);

impl Drop for Aside {
    fn drop(&mut self) {
        let now = Instant::now();
        self.0.put(|people, id| people.work(id, now));
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

/// A body for which its connection is busy until it has left.
pub(super) struct Busily {
    pub(super) body: Body,
    pub(super) _busy: Busy,
}

impl HttpBody for Busily {
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

    fn is_cut(connection: &Connection) -> bool {
        connection.cut.notified().now_or_never().is_some()
    }

    #[test]
    fn at_the_limit_the_one_goes_that_has_asked_for_nothing_for_longest() {
        let connections = Connections::new(3, 10, 0);
        let now = Instant::now();
        let come = |from: &str| connections.admit(peer(from), now);
        let [a, b, c] = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(|from| come(from).unwrap());
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
    fn one_address_has_a_part_of_them_and_makes_room_for_itself_alone() {
        let connections = Connections::new(10, 2, 0);
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
        let connections = Connections::new(10, 3, 0);
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
        let connections = Connections::new(10, 5, 0);
        let now = Instant::now();
        let mut all: Vec<_> = (0..5).map(|_| connections.admit(peer("10.0.0.1:1"), now).unwrap()).collect();
        let late = connections.admit(peer("10.0.0.1:1"), now).unwrap();
        let guards: Vec<_> = all.iter().map(|one| (one.begin(now), one.wait(), one.listen())).collect();
        drop(all.split_off(2));
        drop((guards, late, all));
        let people = connections.lock();
        let Group { count, waiting, idle, busy } = &people.all;
        assert_eq!((*count, *waiting, idle.len(), busy.len()), (0, 0, 0, 0));
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
}
