//! The way back to the sender of a request.

use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use crate::protocol::request::Request;

use super::Connection;

/// The sender of one request. The request counts as answered when this goes, whether by a reply or without one.
pub struct Peer {
    connection: Rc<Connection>,
    /// Whether the request waits for something to happen.
    waits: Cell<bool>,
}

impl Peer {
    /// The sender of one more request.
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        connection.unanswered.set(connection.unanswered.get() + 1);
        Peer { connection, waits: Cell::new(false) }
    }

    /// The connection that the reply goes to.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// What has been asked for; `None` if it cannot be read.
    pub fn note_asked(&self, request: Option<&Request>) {
        let Connection { deeds, waits, .. } = &*self.connection;
        deeds.borrow_mut().note(request);
        if request.is_some_and(Request::may_wait) && !self.waits.replace(true) {
            waits.set(waits.get() + 1);
        }
    }
}

impl Deref for Peer {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let Connection { unanswered, waits, hub, .. } = &*self.connection;
        let before = unanswered.get();
        unanswered.set(before - 1);
        waits.set(waits.get() - usize::from(self.waits.get()));
        if before >= hub.limits.get().requests_waiting {
            self.connection.wake();
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.connection, f)
    }
}
