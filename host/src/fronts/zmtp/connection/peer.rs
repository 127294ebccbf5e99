//! The way back to the sender of a request.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use super::Connection;

/// The sender of one request. The request counts as answered when this goes, whether by a reply or without one.
pub struct Peer(Rc<Connection>);

impl Peer {
    /// The sender of one more request.
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        connection.unanswered.set(connection.unanswered.get() + 1);
        Peer(connection)
    }

    /// The connection that the reply goes to.
    pub fn connection(&self) -> &Rc<Connection> {
        &self.0
    }
}

impl Deref for Peer {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let before = self.0.unanswered.get();
        self.0.unanswered.set(before - 1);
        if before >= self.0.hub.limits.get().requests_waiting {
            self.0.wake();
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}
