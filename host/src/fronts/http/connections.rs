//! Who is connected, and how many may be.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config;
use crate::fronts::roll::{Client, Deeds, Roll};
use crate::fronts::zmtp::hub::origin;
use crate::protocol::request::Request;
use crate::security::origin::{Address, Origin};
use crate::security::principal::Principal;

use super::certified::Certified;

/// As operators know this front.
const FRONT: &str = "http";
/// So long a client is left in peace with its answer.
const PEACE: Duration = Duration::from_secs(1);

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
    all: Group,
    per_origin: HashMap<Option<IpAddr>, Group>,
}

/// Connections that share a limit.
#[derive(Debug, Default)]
struct Group {
    count: usize,
    /// How many wait for something to happen.
    waiting: usize,
    /// Those that have not begun to speak, by when they came.
    strangers: BTreeMap<u64, u64>,
    /// Those of which no request is under way, by when they had the last one.
    idle: BTreeMap<u64, u64>,
    /// Those whose request is under way, by when that began.
    busy: BTreeMap<u64, (u64, Instant)>,
}

#[derive(Debug)]
struct Entry {
    origin: Option<IpAddr>,
    cut: Arc<Notify>,
    is_plain: bool,
    place: Place,
    /// Who asked last, and from where.
    asked_by: Origin,
    /// When it was let in, and when its last request came.
    since: Instant,
    heard: Instant,
    deeds: Deeds,
}

/// What a connection does.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// It has not begun to speak. With its turn, here and below.
    Stranger(u64),
    /// Nothing, or it still sends its request.
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
            let plain = people.connections.iter().filter(|(_, entry)| entry.is_plain).map(|(id, _)| *id);
            let plain: Vec<u64> = plain.collect();
            plain.into_iter().for_each(|id| people.cut(id));
        }
        for _ in people.limits.max..people.all.count {
            let Some(first) = people.all.first_idle() else { break };
            people.cut(first);
        }
    }

    /// Takes in a connection if there is room for it. At a limit one goes of all, or of those from the same address: the
    /// one that has not begun to speak, or has asked for nothing for longest, or else that takes its answer for longest.
    /// So who opens connections and says or reads nothing does not lock out the others of its machine, and those who come
    /// by the same proxy. With TLS there may be half as many that have not begun: each holds what a handshake takes.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr, now: Instant) -> Result<Arc<Connection>, &'static str> {
        let mut people = self.lock();
        let Limits { max, strangers_max, per_address_max, requests_per_second } = people.limits;
        let origin = origin(Some(peer.ip()));
        let from = people.per_origin.get(&origin);
        if let Some(from) = from.filter(|from| from.count >= per_address_max) {
            let first = from.first_to_go(now).ok_or("too many from there")?;
            people.cut(first);
        } else if people.all.count >= max {
            let first = people.all.first_to_go(now).ok_or("too many connections")?;
            people.cut(first);
        }
        if people.all.strangers.len() >= strangers_max {
            // One of them is the first.
            people.all.first_idle().into_iter().for_each(|first| people.cut(first));
        }
        people.next_id += 1;
        let (id, cut) = (people.next_id, Arc::new(Notify::new()));
        let now = Instant::now();
        let entry = Entry {
            origin,
            cut: cut.clone(),
            is_plain: false,
            place: Place::Leaving,
            asked_by: Origin { principal: Principal::Nobody, address: Address::of_peer(Some(peer)) },
            since: now,
            heard: now,
            deeds: Deeds::default(),
        };
        people.connections.insert(id, entry);
        people.all.count += 1;
        people.per_origin.entry(origin).or_default().count += 1;
        let turn = people.turn();
        people.put(id, Place::Stranger(turn));
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
            roll.look(*id, entry.asked_by, || entry.client(*id, now));
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

impl Group {
    fn first_to_go(&self, now: Instant) -> Option<u64> {
        let longest_busy = || self.busy.first_key_value().map(|(_, busy)| *busy);
        let is_slow = |busy: &(u64, Instant)| now.saturating_duration_since(busy.1) >= PEACE;
        self.first_idle().or_else(|| longest_busy().filter(is_slow).map(|(id, _)| id))
    }

    /// The first of those for whom nothing is done.
    fn first_idle(&self) -> Option<u64> {
        self.strangers.first_key_value().or_else(|| self.idle.first_key_value()).map(|(_, id)| *id)
    }

    fn enter(&mut self, id: u64, place: Place) {
        match place {
            Place::Stranger(turn) => drop(self.strangers.insert(turn, id)),
            Place::Idle(turn) => drop(self.idle.insert(turn, id)),
            Place::Busy(turn, since) => drop(self.busy.insert(turn, (id, since))),
            Place::Waiting => self.waiting += 1,
            Place::Leaving => {}
        }
    }

    fn leave(&mut self, place: Place) {
        match place {
            Place::Stranger(turn) => drop(self.strangers.remove(&turn)),
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

impl Entry {
    fn client(&self, id: u64, now: Instant) -> Client {
        Client {
            connection: id,
            front: FRONT,
            origin: self.asked_by,
            is_ready: true,
            age: now.saturating_duration_since(self.since),
            silent: now.saturating_duration_since(self.heard),
            deeds: self.deeds.clone(),
            unanswered: usize::from(matches!(self.place, Place::Busy(..) | Place::Waiting)),
            waits: usize::from(matches!(self.place, Place::Waiting)),
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
        self.put(People::rest);
    }

    /// It speaks plain text: it goes when there is TLS.
    pub(super) fn is_plain(&self) {
        let mut people = self.connections.lock();
        people.connections.get_mut(&self.id).into_iter().for_each(|entry| entry.is_plain = true);
    }

    /// Somebody has asked for something by it.
    pub(super) fn note_asked(&self, principal: Principal, request: &Request, is_first: bool) {
        let mut people = self.connections.lock();
        let Some(entry) = people.connections.get_mut(&self.id) else { return };
        entry.asked_by.principal = principal;
        if is_first {
            entry.heard = Instant::now();
            entry.deeds.note(Some(request));
        }
    }

    /// How many connections there are, this one among them.
    pub(super) fn all(&self) -> usize {
        self.connections.lock().all.count
    }

    /// A request is under way, until what is given back is dropped; `None` if there were too many.
    pub(super) fn begin(self: &Arc<Self>, now: Instant) -> Option<Busy> {
        let rate = self.connections.lock().limits.requests_per_second;
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
        let (max, per_address_max) = (people.limits.max / 2, people.limits.per_address_max / 2);
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

#[cfg(test)]
mod tests;
