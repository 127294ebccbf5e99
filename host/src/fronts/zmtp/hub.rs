//! What all connections share: the limits, who is connected, and what is to be sent.
//!
//! Everything runs on one thread, so nothing here needs a lock; no method calls one that borrows the same.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::fronts::messages::Inbox;
use crate::fronts::roll::Roll;
use crate::metrics::Metrics;
use crate::metrics::cells::Number;
use crate::protocol::request::Port;
use crate::security::guard::Guard;
use crate::security::origin::network;

use super::cause::Cause;
use super::connection::{Connection, Entrance, Event, Peer, SHARE_BYTES};
use super::limits::Limits;
use super::memory::Memory;
use super::report::{Incident, Report};
use super::stream::{Reader, Writer};

/// How long a peer may leave alone what it holds while others wait for room.
const STUCK_MIN: Duration = Duration::from_secs(1);

/// How long others wait for room at most before those who hold most have to go, even if they do something about it.
const WAITED_MAX: Duration = Duration::from_secs(2);

/// What all connections share.
pub struct Hub {
    /// What clients may cost.
    pub limits: Cell<Limits>,
    /// Who may come in.
    pub guard: Guard,
    metrics: Arc<Metrics>,
    /// What operators are told of clients that went too far.
    pub report: RefCell<Report>,
    /// What all connections read into: an idle one needs no buffer of its own.
    pub buffer: RefCell<BytesMut>,
    /// When the system last had no room for a connection.
    pub full_at: Cell<Option<Instant>>,
    /// What has come from all connections.
    pub inbox: Inbox<Peer>,
    /// What waits for and from all connections.
    pub memory: Rc<Memory>,
    /// How much has to wait, in bytes, before it is looked again for somebody to cut off: the last time there was nobody.
    in_vain: Cell<usize>,
    /// Where events are gathered that are written together.
    pub scratch: RefCell<Vec<u8>>,
    people: RefCell<People>,
    /// Those with something to send.
    unsent: RefCell<Vec<Rc<Connection>>>,
    /// Who wants which topic: worked out when a topic is published, and forgotten when anything changes.
    audiences: RefCell<HashMap<Bytes, Vec<Rc<Connection>>>>,
}

/// Who is connected.
#[derive(Default)]
struct People {
    next_id: u64,
    connections: BTreeMap<u64, Rc<Connection>>,
    /// Those that are not ready, the oldest first.
    unready: BTreeSet<u64>,
    /// How many come from where.
    per_origin: HashMap<Option<IpAddr>, usize>,
}

/// What counts as one address: a whole network of IPv6, of which anybody has all addresses, and this machine's Unix
/// sockets together.
pub(in crate::fronts) fn origin(address: Option<IpAddr>) -> Option<IpAddr> {
    address.map(network)
}

impl Hub {
    /// A hub without connections.
    pub fn new(limits: Limits, guard: Guard, metrics: Arc<Metrics>) -> Rc<Self> {
        Rc::new(Hub {
            memory: Memory::new(limits.buffered_bytes),
            limits: Cell::new(limits),
            guard,
            report: RefCell::new(Report::counted_by(metrics.zeromq.incidents.clone())),
            metrics,
            buffer: RefCell::default(),
            full_at: Cell::default(),
            inbox: Inbox::new(limits.batch),
            in_vain: Cell::new(0),
            scratch: RefCell::default(),
            people: RefCell::default(),
            unsent: RefCell::default(),
            audiences: RefCell::default(),
        })
    }

    /// Takes in a connection if there is room for it. At the limit, the oldest one that is not ready has to go: so
    /// peers that connect and say nothing cannot keep others out.
    pub fn admit(self: &Rc<Self>, peer: Option<SocketAddr>, entrance: Entrance, reader: Reader, writer: Writer) {
        let limits = self.limits.get();
        let address = peer.map(|peer| peer.ip());
        let from_there = self.people.borrow().per_origin.get(&origin(address)).copied().unwrap_or(0);
        let is_full = || self.people.borrow().connections.len() >= limits.connections;
        if self.inbox.is_closed() {
            return;
        }
        if from_there >= limits.connections_per_address {
            return self.refuse(address, "too many from there");
        }
        if is_full() {
            let oldest = {
                let people = self.people.borrow();
                people.unready.first().and_then(|id| people.connections.get(id).cloned())
            };
            oldest.inspect(|oldest| oldest.close(Cause::Evicted));
            if is_full() {
                return self.refuse(address, "too many connections");
            }
        }
        let id = {
            let mut people = self.people.borrow_mut();
            people.next_id += 1;
            people.next_id
        };
        let connection = Connection::new(id, peer, entrance, writer, self.clone());
        self.connected(entrance).add(1);
        {
            let mut people = self.people.borrow_mut();
            people.connections.insert(id, connection.clone());
            people.unready.insert(id);
            *people.per_origin.entry(origin(address)).or_default() += 1;
        }
        tokio::task::spawn_local(connection.drive(reader));
    }

    fn refuse(&self, address: Option<IpAddr>, reason: &'static str) {
        self.report.borrow_mut().note(address, Incident::Refused, reason, 1);
    }

    /// A connection's handshake is done.
    pub fn note_ready(&self, connection: &Connection) {
        self.people.borrow_mut().unready.remove(&connection.id);
    }

    /// A connection is over.
    pub fn remove(&self, connection: &Connection) {
        let people = &mut *self.people.borrow_mut();
        people.unready.remove(&connection.id);
        if people.connections.remove(&connection.id).is_none() {
            return;
        }
        self.connected(connection.entrance()).subtract(1);
        let origin = origin(connection.address);
        if let Some(count) = people.per_origin.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                people.per_origin.remove(&origin);
            }
        }
    }

    /// Everybody who is connected.
    pub fn connections(&self) -> Vec<Rc<Connection>> {
        self.people.borrow().connections.values().cloned().collect()
    }

    /// Tells who is connected, in the order in which they came, as far as the roll has room.
    pub fn call_roll(&self, roll: &mut Roll<'_>) {
        for entrance in Entrance::ALL {
            roll.count(entrance.as_str(), self.connected(entrance).get() as usize);
        }
        let now = Instant::now();
        let people = self.people.borrow();
        for connection in people.connections.range((Bound::Excluded(roll.after()), Bound::Unbounded)) {
            if !roll.has_room() {
                break;
            }
            let (id, connection) = connection;
            roll.look(*id, connection.origin(), || connection.client(now));
        }
    }

    /// How many are connected.
    pub fn connection_count(&self) -> usize {
        self.people.borrow().connections.len()
    }

    /// Queues a reply. If those before it went to another peer, they are sent now: requests that came together are
    /// answered together, and that peer can go on meanwhile.
    pub fn reply(&self, peer: &Peer, first: &[&[u8]], shared: Option<&Arc<[Bytes]>>, rest: &[u8]) {
        if !peer.is_listed.get() {
            self.flush();
        }
        peer.reply(first, shared, rest);
        self.list(peer.connection().clone());
    }

    /// Queues an event for all who want it.
    pub fn publish(&self, topic: &Bytes, body: &[u8]) {
        let mut audiences = self.audiences.borrow_mut();
        let audience = audiences.entry(topic.clone()).or_insert_with(|| {
            let mut all = self.connections();
            all.retain(|connection| connection.wants(topic));
            all
        });
        if audience.is_empty() {
            return;
        }
        let event = Event::new(topic.clone(), body, &self.memory);
        for connection in audience.iter() {
            connection.publish(event.clone());
            self.list(connection.clone());
        }
    }

    fn list(&self, connection: Rc<Connection>) {
        if !connection.is_listed.replace(true) {
            self.unsent.borrow_mut().push(connection);
        }
    }

    /// Sends what is queued, as far as the network takes it.
    pub fn flush(&self) {
        let mut unsent = std::mem::take(&mut *self.unsent.borrow_mut());
        for connection in unsent.drain(..) {
            connection.is_listed.set(false);
            connection.flush();
        }
        // Its memory is used again.
        *self.unsent.borrow_mut() = unsent;
        self.make_room_if_over();
    }

    /// Makes room if more waits than may.
    pub fn make_room_if_over(&self) {
        if !self.memory.is_over() {
            return self.in_vain.set(0);
        }
        // All connections are looked at: not again before much more waits.
        if self.memory.used() >= self.in_vain.get() {
            self.cut_off(Duration::ZERO, || !self.memory.is_over());
            let step = self.limits.get().buffered_bytes / 64;
            self.in_vain.set(if self.memory.is_over() { self.memory.used() + step } else { 0 });
        }
    }

    /// Makes room for the long reply that somebody waits for: peers that hold memory and have done nothing about it for a
    /// while have to go. When that has not helped for a while, all that hold much may have to: else a few bytes now and
    /// then would keep long replies from everybody.
    pub fn make_room_for_wanted(&self) {
        if self.memory.wanted() == 0 {
            return;
        }
        let is_late = self.memory.waited(Instant::now()) >= WAITED_MAX;
        self.cut_off(if is_late { Duration::ZERO } else { STUCK_MIN }, || self.memory.wanted() == 0);
        // The one that waited may have left.
        self.memory.begin_round();
    }

    /// Cuts off the peers that hold most for longest, until there is enough room. Nobody is cut off for less than
    /// everybody may have.
    fn cut_off(&self, idle_min: Duration, is_enough: impl Fn() -> bool) {
        let now = Instant::now();
        let weigh = |connection: Rc<Connection>| {
            let holding = connection.holding(now);
            let is_candidate = holding.bytes > SHARE_BYTES && holding.idle >= idle_min;
            is_candidate.then(|| (holding.weight(), connection))
        };
        let mut candidates: Vec<_> = self.connections().into_iter().filter_map(weigh).collect();
        candidates.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        for (_, connection) in candidates {
            if is_enough() {
                break;
            }
            connection.close(Cause::Crowded);
        }
    }

    /// Somebody wants other topics than before.
    pub fn forget_audiences(&self) {
        self.audiences.borrow_mut().clear();
    }

    /// How many connections there are of those that came in there.
    fn connected(&self, entrance: Entrance) -> &Number {
        let [requests, heartbeats, events] = &self.metrics.zeromq.connections;
        match entrance {
            Entrance::Requests(Port::Requests) => requests,
            Entrance::Requests(Port::Heartbeats) => heartbeats,
            Entrance::Events => events,
        }
    }

    /// Does what time brings to all connections.
    pub fn check(&self) {
        let [waiting, most] = &self.metrics.zeromq.waiting;
        waiting.set(self.memory.used() as u64);
        most.set(self.limits.get().buffered_bytes as u64);
        let now = Instant::now();
        self.connections().iter().for_each(|connection| connection.check(now));
    }

    /// Takes note of keys that were added or removed. Whose key was removed is cut off.
    pub fn reload_keys(&self) {
        if self.guard.reload() {
            self.connections().iter().for_each(|connection| connection.check_key());
        }
    }

    /// Sets what clients may cost from now on, and looks again at who may be here.
    pub fn set_limits(&self, limits: Limits) {
        self.memory.set_max(limits.buffered_bytes);
        self.limits.set(limits);
        self.connections().iter().for_each(|connection| connection.check_key());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_many_addresses_counts_once() {
        let of = |text: &str| origin(Some(text.parse().expect("an address")));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(origin(None), None, "all of this machine's Unix sockets");
    }
}
