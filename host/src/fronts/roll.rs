//! Who is connected: each front tells what it knows of its clients, some of them at a time.
//!
//! Connections are gone through in the order in which they came, by their numbers, and no more of them than a part of a
//! turn goes for: so who asks keeps nobody waiting, however many there are. One that stays is told of exactly once.

use std::time::Duration;

use crate::protocol::clients::{Clients, Near};
use crate::protocol::request::{Action, Request};
use crate::security::origin::{Address, Origin};
use crate::security::principal::Principal;

/// How many connections are looked at for a page.
const LOOKED_MAX: usize = 2048;
/// How much may be told on a page before it ends, in bytes.
const PAGE_BYTES: usize = 128 * 1024;
/// About what is told of a client besides its texts, in bytes.
const CLIENT_BYTES: usize = 384;
/// How many topics of a subscriber are told, and how much of each, in characters.
pub(super) const TOPICS_SHOWN_MAX: usize = 8;
pub(super) const TOPIC_SHOWN_MAX: usize = 64;

/// A client, as far as its front knows it.
#[derive(Clone, Debug)]
pub struct Client {
    /// The number of its connection, at its front.
    pub connection: u64,
    /// Where it came in: `requests`, `heartbeats`, `events` or `http`.
    pub front: &'static str,
    /// Who it is and where.
    pub origin: Origin,
    /// Whether its handshake is done.
    pub is_ready: bool,
    /// How long it has been connected.
    pub age: Duration,
    /// How long nothing has come from it.
    pub silent: Duration,
    /// What it has asked for.
    pub deeds: Deeds,
    /// How many of its requests are not answered yet.
    pub unanswered: usize,
    /// How many of those wait for something to happen.
    pub waits: usize,
    /// How many bytes wait for it and from it; `None` if the front does not know.
    pub waiting_bytes: Option<usize>,
    /// What it follows, if it is a subscriber.
    pub following: Option<Following>,
}

/// What a subscriber follows.
#[derive(Clone, Debug, Default)]
pub struct Following {
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// Some of the topics, as far as they can be shown.
    pub topics: Vec<String>,
    /// How many events it has missed because it reads too slowly.
    pub missed: u64,
}

/// What a client has asked for.
#[derive(Clone, Debug, Default)]
pub struct Deeds {
    /// How many requests there were.
    pub requests: u64,
    /// What the last one that could be read was.
    pub last_action: Option<Action>,
    /// The service that was last named by one that changes or keeps one.
    pub last_service: String,
}

impl Deeds {
    /// A request has come; `None` if it cannot be read.
    pub fn note(&mut self, request: Option<&Request>) {
        self.requests += 1;
        let Some(request) = request else { return };
        self.last_action = Some(request.action());
        let service = match request {
            Request::Register(registration) => registration.id.as_deref(),
            Request::Renew { service_id, .. } | Request::Deregister { service_id, .. } => Some(service_id.as_str()),
            Request::RenewMany(renewals) => renewals.last().map(|renewal| renewal.service_id.as_str()),
            Request::Update(update) => Some(update.service_id.as_str()),
            Request::Drain(drain) => Some(drain.service_id.as_str()),
            _ => None,
        };
        // Most clients name the same one all the time.
        if let Some(service) = service.filter(|service| *service != self.last_service) {
            self.last_service.clear();
            self.last_service.push_str(service);
        }
    }
}

/// A page of those that are connected, in the making.
pub struct Roll<'a> {
    asked: &'a Clients,
    is_wanted: &'a dyn Fn(&Principal) -> bool,
    /// The number of the last that was looked at.
    after: u64,
    /// What the numbers of the front that is asked now begin behind.
    base: u64,
    looked: usize,
    bytes: usize,
    has_more: bool,
    clients: Vec<Client>,
    connected: Vec<(&'static str, usize)>,
}

impl<'a> Roll<'a> {
    /// The page that is asked for. Only those are told of whose principal `is_wanted`.
    pub fn begin(asked: &'a Clients, is_wanted: &'a dyn Fn(&Principal) -> bool) -> Self {
        let after = asked.page.cursor.map_or(0, |cursor| cursor.after);
        let (clients, connected) = (Vec::new(), Vec::new());
        Roll { asked, is_wanted, after, base: 0, looked: 0, bytes: 0, has_more: false, clients, connected }
    }

    /// Asks a front whose numbers come behind `base`, which is greater than all of the fronts before it.
    pub(super) fn behind(&mut self, base: u64, ask: impl FnOnce(&mut Self)) {
        self.base += base;
        ask(self);
        self.base -= base;
    }

    /// The number of the front's last connection that needs no look.
    pub fn after(&self) -> u64 {
        self.after.saturating_sub(self.base)
    }

    /// So many are connected there.
    pub fn count(&mut self, front: &'static str, connected: usize) {
        self.connected.push((front, connected));
    }

    /// Whether a connection may be looked at: the next one in the order of their numbers. If not, the page is over.
    pub fn has_room(&mut self) -> bool {
        let is_over =
            self.looked >= LOOKED_MAX || self.bytes >= PAGE_BYTES || self.clients.len() >= self.asked.page.limit;
        self.has_more |= is_over;
        !is_over
    }

    /// Looks at a connection, and takes what there is to tell of it if it is wanted.
    pub fn look(&mut self, connection: u64, origin: Origin, client: impl FnOnce() -> Client) {
        self.looked += 1;
        self.after = self.base + connection;
        let is_near = match (self.asked.address, origin.address) {
            (None, _) | (Some(Near::Ipc), Address::Ipc) => true,
            (Some(Near::Machine(machine)), Address::Tcp(address)) => address.ip().to_canonical() == machine,
            (Some(_), _) => false,
        };
        if is_near && (self.is_wanted)(&origin.principal) {
            let client = client();
            let topics = client.following.iter().flat_map(|following| &following.topics).map(String::len);
            self.bytes += CLIENT_BYTES + client.deeds.last_service.len() + topics.sum::<usize>();
            self.clients.push(client);
        }
    }

    /// Those that were found, how many are connected at each front, and the number of the last that was looked at if
    /// there may be more.
    pub fn end(self) -> (Vec<Client>, Vec<(&'static str, usize)>, Option<u64>) {
        let Roll { clients, connected, after, has_more, .. } = self;
        (clients, connected, has_more.then_some(after))
    }
}

/// A client of which nothing else is known.
#[cfg(test)]
pub(super) fn client(connection: u64, origin: Origin) -> Client {
    let (age, silent, deeds) = (Duration::ZERO, Duration::ZERO, Deeds::default());
    Client {
        connection,
        front: "requests",
        origin,
        is_ready: true,
        age,
        silent,
        deeds,
        unanswered: 0,
        waits: 0,
        waiting_bytes: None,
        following: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::page::Page;

    /// The connections of a page, and where the next one begins.
    fn page(asked: &Clients, connections: u64) -> (Vec<u64>, Option<u64>) {
        let mut roll = Roll::begin(asked, &|_| true);
        for number in roll.after() + 1..=connections {
            if !roll.has_room() {
                break;
            }
            let origin =
                Origin { address: Address::Tcp(([10, 0, 0, (number % 2) as u8], 1).into()), ..Origin::default() };
            roll.look(number, origin, || client(number, origin));
        }
        let (clients, _, next) = roll.end();
        (clients.iter().map(|client| client.connection).collect(), next)
    }

    #[test]
    fn pages_follow_each_other_and_end_after_so_many_looks() {
        let cursor = |after| crate::protocol::clients::ClientsCursor { run: 0, after };
        let mut asked = Clients { address: None, principal: None, page: Page { limit: 2, cursor: None } };
        assert_eq!(page(&asked, 3), (vec![1, 2], Some(2)));
        asked.page.cursor = Some(cursor(2));
        assert_eq!(page(&asked, 3), (vec![3], None));
        asked.address = Some(Near::Machine([10, 0, 0, 7].into()));
        asked.page = Page { limit: 10_000, cursor: None };
        assert_eq!(page(&asked, 100_000), (vec![], Some(LOOKED_MAX as u64)), "nobody is found, and all may go on");
        asked.address = None;
        let (told, next) = page(&asked, 100_000);
        assert!(told.len() * CLIENT_BYTES < PAGE_BYTES + CLIENT_BYTES && next == told.last().copied());
    }

    #[test]
    fn only_those_from_one_machine_are_told_of() {
        let machine = Some(Near::Machine([10, 0, 0, 1].into()));
        let asked = Clients { address: machine, principal: None, page: Page { limit: 10, cursor: None } };
        assert_eq!(page(&asked, 6), (vec![1, 3, 5], None));
    }

    #[test]
    fn what_was_asked_last_is_known() {
        let renew = |id: &str| Request::Renew { service_id: id.into(), generation: None };
        let mut deeds = Deeds::default();
        for request in [Some(renew("a")), Some(renew("b")), Some(Request::Health), None] {
            deeds.note(request.as_ref());
        }
        assert_eq!((deeds.requests, deeds.last_action, &*deeds.last_service), (4, Some(Action::Health), "b"));
    }
}
