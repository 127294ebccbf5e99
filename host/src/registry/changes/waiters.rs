//! Clients that wait for the store, and until when.

use std::collections::{HashMap, VecDeque};

use crate::registry::discovery::Wanted;

/// What a client waits for.
pub(in crate::registry) enum Wait {
    /// A change.
    Change {
        /// The error text that it gets if the change fails without a better reason.
        error: &'static str,
        /// How much waits with it, in bytes.
        bytes: usize,
    },
    /// The store's choice among the services of a type.
    Choice {
        /// What was asked for.
        wanted: Box<Wanted>,
    },
}

impl Wait {
    fn bytes(&self) -> usize {
        match self {
            Wait::Change { bytes, .. } => *bytes,
            Wait::Choice { .. } => 0,
        }
    }
}

/// The clients that wait, each under a ticket.
pub(in crate::registry) struct Waiters<C> {
    waiting: HashMap<u64, (C, Wait)>,
    /// How much waits with them, in bytes.
    bytes: usize,
    /// Tickets in the order in which their time is up; those that were answered are passed over.
    timeouts: VecDeque<(u64, u64)>,
    next_ticket: u64,
}

impl<C> Default for Waiters<C> {
    fn default() -> Self {
        Waiters { waiting: HashMap::new(), bytes: 0, timeouts: VecDeque::new(), next_ticket: 0 }
    }
}

impl<C> Waiters<C> {
    /// Lets a client wait until `deadline_ms`. The deadlines of later calls must not be earlier.
    pub(in crate::registry) fn add(&mut self, caller: C, wait: Wait, deadline_ms: u64) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.bytes += wait.bytes();
        self.waiting.insert(ticket, (caller, wait));
        self.timeouts.push_back((deadline_ms, ticket));
        ticket
    }

    /// The client with this ticket, who now gets an answer. `None` if it has been told that nothing came of it.
    pub(in crate::registry) fn take(&mut self, ticket: u64) -> Option<(C, Wait)> {
        let (caller, wait) = self.waiting.remove(&ticket)?;
        self.bytes -= wait.bytes();
        Some((caller, wait))
    }

    /// Whether the client with this ticket still waits.
    pub(in crate::registry) fn has(&self, ticket: u64) -> bool {
        self.waiting.contains_key(&ticket)
    }

    /// The next client whose time is up.
    pub(in crate::registry) fn timed_out(&mut self, uptime_ms: u64) -> Option<(C, Wait)> {
        while let Some(&(deadline_ms, ticket)) = self.timeouts.front() {
            let is_answered = !self.has(ticket);
            if deadline_ms > uptime_ms && !is_answered {
                break;
            }
            self.timeouts.pop_front();
            if !is_answered {
                return self.take(ticket);
            }
        }
        None
    }

    /// When the time of the first is up, if anybody waits.
    pub(in crate::registry) fn wake_at_ms(&self) -> Option<u64> {
        // The front may have been answered already: then there is nothing to do at that time, which does no harm.
        self.timeouts.front().map(|(deadline_ms, _)| *deadline_ms)
    }

    pub(in crate::registry) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How much waits with clients, in bytes.
    pub(in crate::registry) fn bytes(&self) -> usize {
        self.bytes
    }
}
