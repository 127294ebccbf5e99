//! What the registry says of itself when it cannot be sure: "there is nothing" is never "I cannot tell".

use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::Request;
use crate::registry::Registry;
use crate::registry::moment::Now;

impl<C> Registry<C> {
    /// A core that has no services yet: it answers that it is starting.
    pub fn starting(mut self) -> Self {
        self.is_starting = true;
        self
    }

    /// Whether it has no services yet.
    pub fn is_starting(&self) -> bool {
        self.is_starting
    }

    /// What is answered as long as it has no services.
    pub(super) fn not_started(request: &Request) -> Reply {
        let reply = Reply::failure(Code::Starting, "The registry is starting, try again later");
        match request {
            Request::Health => reply.text("status", "starting").boolean("alive", true).boolean("ready", false),
            _ => reply,
        }
    }

    /// Since when the store has been stalled, if it is.
    fn stalled_since_ms(&self, now: Now) -> Option<u64> {
        let is_stalled = |at_ms: &u64| now.uptime_ms.saturating_sub(*at_ms) > self.policy.call_timeout_ms;
        self.changes.sent_at_ms().filter(is_stalled)
    }

    /// Finds out for how long the store has been failing or stalled.
    pub(super) fn look_at_storage(&mut self, now: Now) {
        let failing_since_ms = self.storage_failure.as_ref().map(|failure| failure.since_uptime_ms);
        let since_ms = failing_since_ms.into_iter().chain(self.stalled_since_ms(now)).min();
        self.stale_ms = since_ms.map(|since_ms| now.uptime_ms.saturating_sub(since_ms));
    }

    /// The answer to a read, with how long the registry has not been sure of what it knows, if it is not.
    pub(super) fn as_sure(&self, reply: Reply) -> Reply {
        match self.stale_ms {
            Some(stale_ms) => reply.seconds("stale_seconds", stale_ms),
            None => reply,
        }
    }

    /// The answer to a read that has waited: it may have become too old for whoever asked meanwhile.
    pub(super) fn as_fresh(&self, reply: Reply, max_stale_ms: u64) -> Reply {
        self.too_stale(max_stale_ms).unwrap_or_else(|| self.as_sure(reply))
    }

    /// The refusal of a read that wants to know it better.
    pub(super) fn too_stale(&self, max_stale_ms: u64) -> Option<Reply> {
        let stale_ms = self.stale_ms.filter(|stale_ms| *stale_ms > max_stale_ms)?;
        let message = "the storage has been failing for longer than max_stale allows";
        let refusal = Reply::failure(Code::Stale, "What the registry knows may be too old").text("message", message);
        Some(refusal.seconds("stale_seconds", stale_ms))
    }

    /// What `health` says besides: the registry is alive, but is it ready?
    pub(super) fn with_readiness(&self, reply: Reply, now: Now) -> Reply {
        let not_ready = match (self.stalled_since_ms(now), &self.storage_failure) {
            (Some(_), _) => Some("storage stalled"),
            (None, Some(_)) => Some("storage failing"),
            (None, None) => None,
        };
        let reply = reply.boolean("alive", true).boolean("ready", not_ready.is_none());
        match not_ready {
            Some(reason) => reply.json("not_ready", &serde_json::json!([reason])),
            None => reply,
        }
    }
}
