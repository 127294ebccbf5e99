//! Wishes of clients, in the order in which they came.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::protocol::event::EventKind;
use crate::protocol::registration::Registration;
use crate::registry::changes::Write;
use crate::registry::moment::Now;
use crate::registry::service::Service;
use crate::security::principal::Principal;

/// A change that a client has asked for, not yet looked at in the light of the services there are.
pub(super) enum Wish {
    /// Register, with the id that it will have.
    Register {
        /// The id, new or given.
        id: Arc<str>,
        /// What to register.
        registration: Box<Registration>,
        /// The type that must be taken by no other service.
        unique: Option<Arc<str>>,
    },
    /// Deregister.
    Deregister {
        /// The service's id.
        id: Arc<str>,
    },
}

impl Wish {
    pub(super) fn id(&self) -> &Arc<str> {
        match self {
            Wish::Register { id, .. } | Wish::Deregister { id } => id,
        }
    }
}

/// A wish, whose it is, and when it came.
pub(super) struct Wished {
    pub(super) ticket: u64,
    pub(super) principal: Principal,
    pub(super) wish: Wish,
    pub(super) arrived: Now,
}

impl Wished {
    /// The change that makes the wish come true, and who waits for it.
    pub(super) fn into_write(self) -> (u64, Write) {
        let Wished { ticket, principal, wish, arrived } = self;
        let write = match wish {
            Wish::Deregister { id } => Write::Remove { id, kind: EventKind::Deregister },
            Wish::Register { id, registration, unique } => {
                Write::Put { service: Box::new(Service::new(id, *registration, principal, arrived)), unique }
            }
        };
        (ticket, write)
    }
}

/// All wishes that wait to be looked at.
#[derive(Default)]
pub(super) struct Queue {
    /// In the order in which they came.
    wishes: VecDeque<Wished>,
    /// Those that were looked at and have to be looked at again, before all others: registrations that wait until what
    /// has run out has made way for them.
    again: VecDeque<Wished>,
    /// What came for an id after such a registration, and waits behind it.
    held: HashMap<Arc<str>, VecDeque<Wished>>,
    held_count: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.wishes.len() + self.again.len() + self.held_count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, wished: Wished) {
        self.wishes.push_back(wished);
    }

    /// The next wish to look at, and whether it was looked at before: of those, `again` are left, which counts down.
    /// Only a client that still waits has a wish: `waits` tells.
    pub(super) fn next(&mut self, again: &mut usize, waits: impl Fn(u64) -> bool) -> Option<(Wished, bool)> {
        while *again > 0 {
            *again -= 1;
            let wished = self.again.pop_front()?;
            if waits(wished.ticket) {
                return Some((wished, true));
            }
            self.release(wished.wish.id());
        }
        loop {
            let wished = self.wishes.pop_front()?;
            if !waits(wished.ticket) {
                continue;
            }
            match self.held.get_mut(wished.wish.id()) {
                None => return Some((wished, false)),
                Some(held) => {
                    held.push_back(wished);
                    self.held_count += 1;
                }
            }
        }
    }

    /// How many wishes have to be looked at again.
    pub(super) fn again_len(&self) -> usize {
        self.again.len()
    }

    /// The wish has to be looked at again, and what comes for its id waits behind it.
    pub(super) fn hold(&mut self, wished: Wished) {
        self.held.entry(wished.wish.id().clone()).or_default();
        self.again.push_back(wished);
    }

    /// The wish has to be looked at again, after one for the same id that has to be, if there is one.
    pub(super) fn hold_behind(&mut self, wished: Wished) {
        match self.held.get_mut(wished.wish.id()) {
            None => self.hold(wished),
            Some(held) => {
                held.push_back(wished);
                self.held_count += 1;
            }
        }
    }

    /// The registration that had to be looked at again is through: what waits behind it is looked at next.
    pub(super) fn release(&mut self, id: &str) {
        for wished in self.held.remove(id).into_iter().flatten().rev() {
            self.held_count -= 1;
            self.wishes.push_front(wished);
        }
    }

    /// Drops the wishes of clients that have been told that nothing came of them. They are the first in their queues.
    pub(super) fn drop_given_up(&mut self, waits: impl Fn(u64) -> bool) {
        while self.again.front().is_some_and(|first| !waits(first.ticket)) {
            let id = self.again.pop_front().map(|first| first.wish.id().clone());
            id.into_iter().for_each(|id| self.release(&id));
        }
        while self.wishes.front().is_some_and(|first| !waits(first.ticket)) {
            self.wishes.pop_front();
        }
    }
}
