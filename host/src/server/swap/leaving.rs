//! Stores that are not in charge any more, or will not be: each says so in a last write, and is closed.

use std::pin::pin;
use std::task::{Context, Poll};

use registry_plugin_api::Group;

use crate::fronts::Front;
use crate::server::Server;
use crate::store::{Answer, Store};

/// A store that is being closed.
pub(crate) struct Leaving {
    store: Store,
    /// How many groups it has still to answer before.
    owed: usize,
    /// What it is told after those.
    last: Option<Group>,
}

impl Leaving {
    /// A store that has so many groups to answer. Then it is told the last one, if there is one, and is closed.
    pub(super) fn new(store: Store, owed: usize, last: Option<Group>) -> Self {
        let mut leaving = Leaving { store, owed, last };
        leaving.go_on();
        leaving
    }

    fn go_on(&mut self) {
        if self.owed > 0 {
            return;
        }
        // One after the other: no store has to make two at a time.
        match self.last.take() {
            Some(group) => {
                self.store.commit(group);
                self.owed = 1;
            }
            None => self.store.close(),
        }
    }
}

/// The next answer of any of them, and of which.
pub(crate) fn poll_leaving(all: &mut [Leaving], context: &mut Context<'_>) -> Poll<(usize, Answer)> {
    for (place, leaving) in all.iter_mut().enumerate() {
        if let Poll::Ready(answer) = pin!(leaving.store.answer()).poll(context) {
            return Poll::Ready((place, answer));
        }
    }
    Poll::Pending
}

impl<F: Front> Server<F> {
    /// A store that is not in charge has answered: the last one that it gives is that it is closed.
    pub(in crate::server) fn left(&mut self, place: usize, answer: &Answer) {
        match answer {
            Answer::Committed(_) => {
                let leaving = &mut self.leaving[place];
                leaving.owed = leaving.owed.saturating_sub(1);
                leaving.go_on();
            }
            Answer::Closed(result) => {
                self.leaving.remove(place);
                match result {
                    Ok(()) => tracing::info!("a storage that is not in charge is closed"),
                    Err(error) => tracing::warn!("a storage that is not in charge cannot be closed: {error}"),
                }
            }
            _ => {}
        }
    }
}
