//! Searches: who a filter wants in a large type, if they are so few that they are not found by chance.
//!
//! A search goes through all services of a type in an order of its own, a piece in each turn, and ends when it has found
//! as many as are wanted. There is one at a time. Those who come meanwhile get the next ones, in turns by connection;
//! who asks with the same filter shares one, and each is given others of those that it finds.

use std::sync::Arc;

use indexmap::IndexSet;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use crate::protocol::filter::Filter;
use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::discovery::Wanted;
use crate::registry::moment::Now;
use crate::registry::orders::Orders;
use crate::registry::output::Output;
use crate::registry::pages::{PAGE_BYTES, SLOT_WORK, WORK_MAX};
use crate::registry::selection::Selection;
use crate::registry::service::Service;
use crate::registry::services::Services;
use crate::registry::slots::Slot;

/// How many services a search finds at most.
const FOUND_MAX: usize = 1000;
/// Of a type with so many members their slots are listed; of a larger one all slots are gone through.
const LISTED_MAX: usize = 4096;
/// About how much a reply takes besides the services in it, in bytes.
const REPLY_BYTES: usize = 256;

/// A search under way.
struct Search<C> {
    filter: Arc<Filter>,
    takers: Vec<(C, Wanted)>,
    order: Order,
    /// The ids of those that are found.
    found: IndexSet<Arc<str>>,
    /// How many are to be found.
    enough: usize,
    /// All have been looked at, or enough found.
    is_done: bool,
}

/// The searches that clients wait for.
pub(super) struct Searches<C> {
    making: Option<Search<C>>,
    /// Those to be made afterwards, and who waits for them.
    orders: Orders<Filter, (C, Wanted)>,
    waiting: usize,
}

impl<C> Default for Searches<C> {
    fn default() -> Self {
        Searches { making: None, orders: Orders::default(), waiting: 0 }
    }
}

impl<C> Searches<C> {
    pub(super) fn is_idle(&self) -> bool {
        self.making.is_none() && self.orders.is_empty()
    }

    fn ask(&mut self, caller: C, wanted: Wanted) {
        self.waiting += 1;
        self.orders.ask(wanted.origin.address, wanted.selection.filter.clone(), (caller, wanted));
    }

    /// A service has come, or is passing again: the search may have gone by its place.
    pub(super) fn note(&mut self, service: &Service) {
        if let Some(search) = &mut self.making
            && search.found.len() < search.enough.max(FOUND_MAX)
            && search.filter.matches(service.types(), service.document())
        {
            search.found.insert(service.id().clone());
        }
    }
}

impl<C> Registry<C> {
    /// Lets a client wait for a search.
    pub(super) fn search(&mut self, caller: C, wanted: Wanted, out: &mut Output<C>) {
        if self.searches.waiting >= self.policy.pending_changes_max {
            let message = "too many clients wait for a search, try again later";
            let refusal = Reply::failure(Code::Overloaded, "Too many requests").text("message", message);
            out.replies.push((caller, refusal));
            return;
        }
        self.searches.ask(caller, wanted);
    }

    /// All services may be others: the search that is under way begins again.
    pub(super) fn begin_search_again(&mut self) {
        let making = self.searches.making.take();
        let again = |Search { filter, takers, .. }| Search::begin(filter, takers, &self.services, &mut self.rng);
        self.searches.making = making.map(again);
    }

    /// Goes on with the search that is under way, or begins the next.
    pub(super) fn go_on_searching(&mut self, now: Now, out: &mut Output<C>) {
        let search = match self.searches.making.take() {
            Some(search) => Some(search),
            None => {
                let next = self.searches.orders.take_first();
                next.map(|(filter, takers)| Search::begin(filter, takers, &self.services, &mut self.rng))
            }
        };
        let Some(mut search) = search else { return };
        if !search.is_done {
            search.go_on(&self.services, now);
        }
        let mut bytes = 0;
        while search.is_done && bytes < PAGE_BYTES {
            let Some((caller, wanted)) = search.takers.pop() else { return };
            self.searches.waiting -= 1;
            match self.reply_among(&search.found, &wanted, now) {
                Some(reply) => {
                    bytes += reply.len() + REPLY_BYTES;
                    out.replies.push((caller, self.as_fresh(reply, wanted.max_stale_ms)));
                }
                // Nobody; or those that were found have gone since, and others may be there.
                None if search.found.is_empty() => self.wait(caller, wanted, now, out),
                None => self.searches.ask(caller, wanted),
            }
        }
        self.searches.making = Some(search);
    }
}

impl<C> Search<C> {
    fn begin(filter: Arc<Filter>, takers: Vec<(C, Wanted)>, services: &Services, rng: &mut StdRng) -> Self {
        let order = Order::begin(&filter, services, rng);
        let enough = takers.iter().map(|(_, wanted)| wanted.count()).sum::<usize>().min(FOUND_MAX);
        Search { filter, takers, order, found: IndexSet::new(), enough, is_done: false }
    }

    /// Looks at some more.
    fn go_on(&mut self, services: &Services, now: Now) {
        let mut work = 0;
        while work < WORK_MAX {
            let next = if self.found.len() < self.enough { self.order.next() } else { None };
            let Some(slot) = next else {
                self.is_done = true;
                return;
            };
            work += SLOT_WORK;
            let Some(service) = services.at(slot) else { continue };
            if !service.is_passing(now.uptime_ms) {
                continue;
            }
            work += service.shown_bytes();
            if self.filter.matches(service.types(), service.document()) {
                self.found.insert(service.id().clone());
            }
        }
    }
}

/// Slots in an order by chance, each once.
enum Order {
    /// These, from the last on.
    Listed(Vec<Slot>),
    /// All below an end: numbers of so many bits are counted up and mixed, and those that are too great left out.
    Mixed { next: usize, bits: u32, end: Slot, begin: usize, factors: [usize; 2] },
}

impl Order {
    fn begin(filter: &Filter, services: &Services, rng: &mut impl Rng) -> Self {
        let selection = Selection { filter: filter.clone(), fields: None };
        let among = selection.narrowest(services);
        if services.extent(among).0 <= LISTED_MAX {
            let mut slots = services.slots_from(among, 0);
            slots.shuffle(rng);
            return Order::Listed(slots);
        }
        Order::mixed(services.slots_end(), rng)
    }

    fn mixed(end: Slot, rng: &mut impl Rng) -> Self {
        let bits = end.next_power_of_two().trailing_zeros().max(1);
        let [begin, one, other] = [(); 3].map(|()| rng.random::<u64>() as usize);
        // Odd numbers: by these it can be told apart what was multiplied.
        Order::Mixed { next: 0, bits, end, begin, factors: [one | 1, other | 1] }
    }
}

impl Iterator for Order {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        match self {
            Order::Listed(slots) => slots.pop(),
            Order::Mixed { next, bits, end, begin, factors } => {
                let mask = (1_usize << *bits) - 1;
                while *next <= mask {
                    // Each step can be undone, so no two numbers become the same.
                    let mut slot = next.wrapping_add(*begin) & mask;
                    for factor in &*factors {
                        slot ^= slot >> bits.div_ceil(2);
                        slot = slot.wrapping_mul(*factor) & mask;
                    }
                    slot ^= slot >> bits.div_ceil(2);
                    *next += 1;
                    if slot < *end {
                        return Some(slot);
                    }
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn each_slot_comes_once_and_in_another_order_each_time() {
        let mut rng = StdRng::seed_from_u64(1);
        for end in [1, 2, 3, 5, 64, 65, 1000, 4096] {
            let mut slots: Vec<Slot> = Order::mixed(end, &mut rng).collect();
            let other: Vec<Slot> = Order::mixed(end, &mut rng).collect();
            assert!(end < 64 || slots != other);
            slots.sort_unstable();
            assert_eq!(slots, (0..end).collect::<Vec<_>>());
        }
    }

    /// Those that were registered together stand in slots beside each other.
    #[test]
    fn neighbours_come_first_equally_often() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut first = [0_u32; 8];
        for _ in 0..4000 {
            let mut order = Order::mixed(5000, &mut rng);
            let slot = order.find(|slot| (700..708).contains(slot)).expect("each comes once");
            first[slot - 700] += 1;
        }
        assert!(first.iter().all(|count| (300..=700).contains(count)), "500 each, but it is {first:?}");
    }
}
