//! What clients wait to be made for them: each thing once, however many want it, and theirs in turns by connection.
//!
//! Who asks for many different things gets one of them while another gets its own. Who asks for what somebody else waits
//! for has it as soon as it is either's turn.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use indexmap::IndexSet;

use crate::registry::turns::Turns;
use crate::security::origin::Address;

/// What is to be made, and for whom.
pub(super) type Order<T, W> = (Arc<T>, Vec<W>);

/// What clients wait for, and who does.
pub(super) struct Orders<T, W> {
    turns: Turns<Address>,
    /// By connection. What has been made for others since is passed over.
    wanted: HashMap<Address, IndexSet<Arc<T>>>,
    takers: HashMap<Arc<T>, Vec<W>>,
}

impl<T, W> Default for Orders<T, W> {
    fn default() -> Self {
        Orders { turns: Turns::default(), wanted: HashMap::new(), takers: HashMap::new() }
    }
}

impl<T: Eq + Hash, W> Orders<T, W> {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.takers.is_empty()
    }

    /// Somebody wants this.
    pub(super) fn ask(&mut self, address: Address, what: T, taker: W) {
        let what = match self.takers.get_key_value(&what) {
            Some((what, _)) => what.clone(),
            None => Arc::new(what),
        };
        self.takers.entry(what.clone()).or_default().push(taker);
        if self.wanted.entry(address).or_default().insert(what) {
            self.turns.add(&address, 1);
        }
    }

    /// What is to be made next.
    pub(super) fn first(&self) -> Option<&Arc<T>> {
        let wanted = self.turns.in_order().filter_map(|address| self.wanted.get(address));
        wanted.flatten().find(|what| self.takers.contains_key(*what))
    }

    /// Takes that, and who wants it.
    pub(super) fn take_first(&mut self) -> Option<Order<T, W>> {
        while let Some(address) = self.turns.first().copied() {
            let wanted = self.wanted.entry(address).or_default();
            let what = wanted.shift_remove_index(0);
            let has_more = !wanted.is_empty();
            if !has_more {
                self.wanted.remove(&address);
            }
            let taken = what.and_then(|what| self.takers.remove_entry(&what));
            self.turns.worked(usize::from(taken.is_some()), has_more);
            if taken.is_some() {
                return taken;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address::Tcp(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn whoever_asks_for_much_waits_for_itself() {
        let mut orders = Orders::default();
        (0..100).for_each(|number| orders.ask(at(1), number, "greedy"));
        orders.ask(at(2), 1000, "modest");
        orders.ask(at(2), 1001, "modest");
        // What another waits for already comes when it is one's own turn.
        orders.ask(at(3), 90, "same");
        orders.ask(at(3), 90, "same");
        let mut order = Vec::new();
        while let Some(first) = orders.first().cloned() {
            let (what, takers) = orders.take_first().expect("there is one");
            assert_eq!(what, first);
            order.push((*what, takers));
        }
        assert!(orders.is_empty() && orders.take_first().is_none() && orders.wanted.is_empty());
        let place = |wanted| order.iter().position(|(what, _)| *what == wanted).expect("it was made");
        assert_eq!(order.len(), 102, "each once");
        assert!(place(1000) <= 2 && place(90) <= 2 && place(1001) <= 5, "{order:?}");
        assert_eq!(order[place(90)].1, ["greedy", "same", "same"]);
        assert!(place(0) < place(50) && place(50) < place(99), "in their order");
    }
}
