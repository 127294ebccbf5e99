//! Wishes of clients, in the order in which they came.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::protocol::drain::Drain;
use crate::protocol::event::EventKind;
use crate::protocol::lives::Update;
use crate::protocol::registration::Registration;
use crate::protocol::reply::Reply;
use crate::registry::changes::amend::Amendment;
use crate::registry::changes::{DEREGISTER_FAILED, REGISTER_FAILED, UPDATE_FAILED, Write};
use crate::registry::moment::Now;
use crate::registry::service::Service;
use crate::security::origin::Origin;

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
        /// Only if it is of this generation.
        generation: Option<u64>,
    },
    /// Change its metadata.
    Update {
        /// The service's id.
        id: Arc<str>,
        /// What is to be changed.
        update: Box<Update>,
    },
    /// Drain it, or end that.
    Drain {
        /// The service's id.
        id: Arc<str>,
        /// Which of both.
        drain: Box<Drain>,
    },
}

impl Wish {
    pub(super) fn id(&self) -> &Arc<str> {
        match self {
            Wish::Register { id, .. } | Wish::Deregister { id, .. } => id,
            Wish::Update { id, .. } | Wish::Drain { id, .. } => id,
        }
    }

    /// The generation that it is for, if it names one.
    pub(super) fn generation(&self) -> Option<u64> {
        match self {
            Wish::Register { .. } => None,
            Wish::Deregister { generation, .. } => *generation,
            Wish::Update { update, .. } => update.generation,
            Wish::Drain { drain, .. } => drain.generation,
        }
    }

    /// What a client gets to read if nothing comes of it, without a better reason.
    pub(super) fn failure(&self) -> &'static str {
        match self {
            Wish::Register { .. } => REGISTER_FAILED,
            Wish::Deregister { .. } => DEREGISTER_FAILED,
            Wish::Update { .. } => UPDATE_FAILED,
            Wish::Drain { drain, .. } => Amendment::of(drain).failure(),
        }
    }
}

/// A wish, whose it is, and when it came.
pub(super) struct Wished {
    pub(super) ticket: u64,
    pub(super) origin: Origin,
    pub(super) wish: Wish,
    pub(super) arrived: Now,
}

impl Wished {
    /// The change that makes the wish come true. A registration has this generation, and what is changed is the service
    /// as it will be when it is its turn.
    ///
    /// # Errors
    /// The reply that refuses an update, or that says that there is nothing to change.
    pub(super) fn into_write(self, generation: u64, before: Option<&Service>) -> Result<Write, Reply> {
        let Wished { origin, wish, arrived, .. } = self;
        Ok(match wish {
            Wish::Deregister { id, generation } => {
                Write::Remove { id, kind: EventKind::Deregister, by: Some(origin), generation }
            }
            Wish::Register { id, registration, unique } => {
                let service = Service::new(id, *registration, origin, generation, arrived);
                let service = service.drained_like(before);
                Write::Put { service: Box::new(service), unique, origin }
            }
            Wish::Update { update, .. } => Write::update(&update, before, origin)?,
            Wish::Drain { drain, .. } => Write::drain(&drain, before, origin, arrived)?,
        })
    }
}

/// All wishes that wait to be looked at. Each is looked at once, and moved once at most, unless it has to be looked at
/// again itself: so many wishes for one id cost no more than as many for different ones.
#[derive(Default)]
pub(super) struct Queue {
    /// In the order in which they came.
    wishes: VecDeque<Wished>,
    /// Those that were looked at and have to be looked at again, before all others.
    again: VecDeque<Wished>,
    /// What came for an id while an earlier wish for it was undecided.
    held: HashMap<Arc<str>, Held>,
    held_count: usize,
    /// The ids whose held wishes can be looked at.
    ready: VecDeque<Arc<str>>,
}

/// What waits behind a wish for the same id.
#[derive(Default)]
struct Held {
    /// The wish before these is not decided yet.
    is_blocked: bool,
    wishes: VecDeque<Wished>,
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

    /// The next wish to look at; of those that have to be looked at again, `again` are left, which counts down. Only a
    /// client that still waits has a wish: `waits` tells.
    pub(super) fn next(&mut self, again: &mut usize, waits: impl Fn(u64) -> bool) -> Option<Wished> {
        while *again > 0 {
            *again -= 1;
            let wished = self.again.pop_front()?;
            if waits(wished.ticket) {
                return Some(wished);
            }
            self.release(wished.wish.id());
        }
        while let Some(id) = self.ready.front() {
            let held = self.held.get_mut(id).filter(|held| !held.is_blocked);
            match held.map(|held| held.wishes.pop_front()) {
                Some(Some(wished)) => {
                    self.held_count -= 1;
                    if waits(wished.ticket) {
                        return Some(wished);
                    }
                }
                Some(None) => {
                    self.held.remove(id);
                    self.ready.pop_front();
                }
                // It will be ready again when the wish before is decided.
                None => drop(self.ready.pop_front()),
            }
        }
        loop {
            let wished = self.wishes.pop_front()?;
            if !waits(wished.ticket) {
                continue;
            }
            match self.held.get_mut(wished.wish.id()) {
                None => return Some(wished),
                Some(held) => {
                    held.wishes.push_back(wished);
                    self.held_count += 1;
                }
            }
        }
    }

    /// How many wishes have to be looked at again.
    pub(super) fn again_len(&self) -> usize {
        self.again.len()
    }

    /// A wish for this id is not decided yet: what comes for the id waits behind it.
    pub(super) fn block(&mut self, id: &Arc<str>) {
        self.held.entry(id.clone()).or_default().is_blocked = true;
    }

    /// The wish has to be looked at again, and what comes for its id waits behind it.
    pub(super) fn hold(&mut self, wished: Wished) {
        self.block(wished.wish.id());
        self.again.push_back(wished);
    }

    /// The wish for this id is decided: what waits behind it is looked at next.
    pub(super) fn release(&mut self, id: &Arc<str>) {
        if let Some(held) = self.held.get_mut(id)
            && std::mem::replace(&mut held.is_blocked, false)
        {
            self.ready.push_back(id.clone());
        }
    }

    /// Drops the wishes of clients that have been told that nothing came of them. They are the first in their queues, but
    /// for some that are looked at again or are held: those are passed over at their turn.
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
