//! Reads that take long, and so have to wait for their turn.
//!
//! A request of a hundred bytes can have the host look at a thousand times as many, and a client can send some hundred of
//! them at once. So in one turn only so much is looked at for requests. What goes beyond is put off to the next turns, in
//! which all connections get as much: one that asks for much waits for itself, and for nobody who asks for little.

use std::collections::{HashMap, VecDeque};

use crate::protocol::clients::Clients;
use crate::protocol::filter::Filter;
use crate::protocol::page::{Discover, Page};
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::Request;
use crate::registry::Registry;
use crate::registry::lists::AT_ONCE_BYTES;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::pages::{PAGE_BYTES, SLOT_WORK, WORK_MAX};
use crate::registry::policy::Policy;
use crate::registry::selection::narrowest;
use crate::registry::shares::Shares;
use crate::registry::turns::Turns;
use crate::security::origin::{Address, Origin};

/// How much is looked at for requests in one turn, in bytes: about two milliseconds.
const TURN_WORK: usize = 1 << 20;
/// What it counts to tell of a service's past, and of a type.
const HISTORY_WORK: usize = 8 * 1024;
const TYPE_WORK: usize = 64;
/// What it counts to tell of a page of clients: some hundred small texts are made for it.
const CLIENTS_WORK: usize = TURN_WORK / 2;
/// How many bytes are copied in the time that one is looked at.
pub(super) const COPIED: usize = 16;

/// A request that is put off.
struct Asked<C> {
    caller: C,
    origin: Origin,
    request: Request,
    max_stale_ms: u64,
    work: usize,
}

/// What is put off.
pub(super) struct PutOff<C> {
    /// How much has been done in this turn.
    done: usize,
    turns: Turns<Address>,
    /// By connection: where a client is, its port included.
    asked: HashMap<Address, VecDeque<Asked<C>>>,
    /// Whose they are, and how many bytes they keep.
    shares: Shares,
}

impl<C> Default for PutOff<C> {
    fn default() -> Self {
        PutOff { done: 0, turns: Turns::default(), asked: HashMap::new(), shares: Shares::default() }
    }
}

impl<C> PutOff<C> {
    fn push(&mut self, asked: Asked<C>) {
        let address = asked.origin.address;
        self.shares.take(asked.origin.holder(), bytes_of(&asked.request));
        self.turns.add(&address, asked.work);
        self.asked.entry(address).or_default().push_back(asked);
    }

    /// The next one, in turns by connection.
    fn pop(&mut self) -> Option<Asked<C>> {
        let address = *self.turns.first()?;
        let queue = self.asked.get_mut(&address)?;
        let asked = queue.pop_front()?;
        let has_more = !queue.is_empty();
        if !has_more {
            self.asked.remove(&address);
        }
        self.turns.worked(asked.work, has_more);
        self.shares.give_back(asked.origin.holder(), bytes_of(&asked.request));
        Some(asked)
    }
}

impl<C> Registry<C> {
    /// Answers a request, or puts it off if this turn has had its work, or if others of its connection are put off.
    pub(super) fn answer_in_turn(
        &mut self,
        caller: C,
        origin: Origin,
        request: Request,
        now: Now,
        out: &mut Output<C>,
    ) {
        let (request, max_stale_ms) = match request {
            Request::Fresh { max_stale_ms, read } => (*read, max_stale_ms),
            request => (request, u64::MAX),
        };
        let work = self.work_of(&request);
        let asked = Asked { caller, origin, request, max_stale_ms, work };
        let is_next = self.put_off.done < TURN_WORK && !self.put_off.asked.contains_key(&origin.address);
        if work == 0 || is_next {
            self.put_off.done += work;
            return self.answer_fresh(asked, now, out);
        }
        if self.has_room_for(&asked) {
            return self.put_off.push(asked);
        }
        let message = "too many reads that take long wait for their turn, try again later";
        let refusal = Reply::failure(Code::Overloaded, "Too many requests").text("message", message);
        out.replies.push((asked.caller, refusal));
    }

    /// Whether there is room for one more, of which those of one address or key may take half.
    fn has_room_for(&self, asked: &Asked<C>) -> bool {
        let PutOff { shares, .. } = &self.put_off;
        let Policy { pending_changes_max: count, pending_bytes_max: bytes, .. } = self.policy;
        let (all, its) = (shares.all(), shares.of(&asked.origin.holder()));
        all.count < count && all.bytes < bytes && its.count < count.div_ceil(2) && its.bytes < bytes.div_ceil(2)
    }

    /// A turn begins: answers requests that were put off, as far as that goes in one turn.
    pub(super) fn go_on_answering(&mut self, now: Now, out: &mut Output<C>) {
        self.put_off.done = 0;
        let mut done = 0;
        while done < TURN_WORK
            && let Some(asked) = self.put_off.pop()
        {
            done += asked.work;
            self.answer_fresh(asked, now, out);
        }
    }

    fn answer_fresh(&mut self, asked: Asked<C>, now: Now, out: &mut Output<C>) {
        let Asked { caller, origin, request, max_stale_ms, .. } = asked;
        match self.too_stale(max_stale_ms) {
            Some(refusal) => out.replies.push((caller, refusal)),
            None => self.answer_to(caller, origin, request, max_stale_ms, now, out),
        }
    }

    /// Whether requests are put off that [`tick`](Self::tick) goes on with.
    pub fn has_put_off(&self) -> bool {
        self.put_off.shares.all().count > 0
    }

    /// About how much is looked at for a request, in bytes; nothing if it is in proportion to what was sent, or if it is
    /// done in pieces.
    fn work_of(&self, request: &Request) -> usize {
        match request {
            Request::List { filter, fields, page: Some(Page { limit, .. }) } => {
                self.work_among(filter, fields.is_none(), Some(*limit))
            }
            Request::List { filter, page: None, .. } => self.work_of_list(filter),
            Request::Info => self.work_of_list(&Filter::default()),
            Request::Discover(asked) => {
                let Discover { filter, fields, limit, .. } = &**asked;
                let is_picked = filter.is_type_only() && fields.is_none() && limit.is_none();
                if is_picked { 0 } else { self.work_among(filter, fields.is_none(), *limit) }
            }
            Request::Types { page } => (page.limit.min(self.services.type_count()) * TYPE_WORK).min(PAGE_BYTES),
            Request::Watch(watch) => self.follow.work_of(watch),
            Request::History { .. } => HISTORY_WORK,
            Request::Clients(_) => CLIENTS_WORK,
            _ => 0,
        }
    }

    /// A list that is written at once.
    fn work_of_list(&self, filter: &Filter) -> usize {
        let (_, bytes) = self.services.extent(narrowest(filter, &self.services));
        if bytes <= AT_ONCE_BYTES { bytes } else { 0 }
    }

    /// A part of what there may be, `whole` records or some fields of them.
    fn work_among(&self, filter: &Filter, whole: bool, limit: Option<usize>) -> usize {
        let (count, bytes) = self.services.extent(narrowest(filter, &self.services));
        let mean = bytes / count.max(1);
        match limit {
            Some(limit) if whole && filter.is_type_only() => {
                let places = count.min(WORK_MAX / SLOT_WORK) * SLOT_WORK;
                bytes.min(limit.saturating_mul(mean)).min(PAGE_BYTES.max(mean)) / COPIED + places
            }
            _ => bytes.min(WORK_MAX.max(mean)),
        }
    }
}

/// How much memory a request keeps, in bytes.
fn bytes_of(request: &Request) -> usize {
    let more = match request {
        Request::List { filter, .. } => filter.bytes(),
        Request::Discover(asked) => asked.filter.bytes(),
        Request::Watch(watch) => watch.filter.bytes(),
        Request::Clients(clients) => size_of::<Clients>() + clients.principal.as_ref().map_or(0, String::len),
        _ => 0,
    };
    size_of::<Request>() + more
}
