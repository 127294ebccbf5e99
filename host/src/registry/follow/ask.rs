//! What a client asks for: the changes after a revision, at once or as soon as there is one.

use std::sync::Arc;

use super::answer::{Gathered, nothing_new};
use super::{Follow, Place, REQUEST_STEPS, Watcher};
use crate::protocol::filter::Filter;
use crate::protocol::reply::{Code, Reply};
use crate::protocol::watch::Watch;
use crate::registry::Registry;
use crate::registry::moment::Now;
use crate::registry::output::Output;

/// How long the filters of all who wait may be together, in bytes.
const FILTERS_BYTES_MAX: usize = 32 << 20;

impl<C> Registry<C> {
    /// Tells a client the changes after a revision, or lets it wait for the next ones.
    pub(in crate::registry) fn watch(&mut self, caller: C, watch: Watch, now: Now, out: &mut Output<C>) {
        self.show_news();
        let Watch { epoch, after, filter, limit, wait } = watch;
        let is_ours = epoch.is_none_or(|epoch| epoch == self.epoch);
        // Whoever knows more than there is has it of a state that the store has lost since.
        let is_known = |after| (self.follow.ring.complete_after()..=self.revision).contains(&after);
        if !is_ours || !after.is_none_or(is_known) {
            out.replies.push((caller, self.forgotten()));
            return;
        }
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let deadline_ms = now.uptime_ms.saturating_add(if self.follow.is_ending { 0 } else { wait_ms });
        let mut steps = REQUEST_STEPS;
        self.look(caller, (after, Arc::new(filter)), (limit, deadline_ms), &mut steps, now, out);
    }

    /// Looks for changes after a revision. Without any the watcher waits, if it still has time.
    pub(super) fn look(
        &mut self,
        caller: C,
        (after, filter): (Option<u64>, Arc<Filter>),
        (limit, deadline_ms): (usize, u64),
        steps: &mut usize,
        now: Now,
        out: &mut Output<C>,
    ) {
        let Follow { ring, shown, .. } = &self.follow;
        let from = after.map_or(*shown, |after| ring.after_revision(after));
        let gathered = Gathered::among(ring, &filter, (from..*shown, *shown), limit, steps);
        let is_everything = gathered.next >= *shown;
        let looked_to = self.bookmark(gathered.next);
        // What it knows already it keeps, even if that is still to come here.
        let is_ahead = after.is_some_and(|after| after > looked_to);
        let revision = if is_ahead { after.unwrap_or_default() } else { looked_to };
        if gathered.count > 0 {
            let reply = Reply::with_shared(gathered.into_pieces(&self.epoch, revision));
            return out.replies.push((caller, self.as_sure(reply)));
        }
        if deadline_ms <= now.uptime_ms || !is_everything {
            return out.replies.push((caller, self.as_sure(nothing_new(&self.epoch, revision))));
        }
        let waiting = self.waiting_clients();
        let follow = &mut self.follow;
        if waiting >= self.policy.following.watchers || follow.filter_bytes > FILTERS_BYTES_MAX {
            let message = "too many clients wait for changes, try again later";
            let refusal = Reply::failure(Code::Overloaded, "Too many requests").text("message", message);
            return out.replies.push((caller, refusal));
        }
        let key = follow.watchers.vacant_key();
        let filter_bytes = filter.bytes();
        let place = if is_ahead {
            follow.ahead.insert((revision, key));
            Place::Ahead(revision, filter)
        } else {
            Place::Audience(follow.rooms.enter(key, filter, follow.shown))
        };
        follow.filter_bytes += filter_bytes;
        follow.deadlines.insert((deadline_ms, key));
        follow.watchers.insert(Watcher { caller, deadline_ms, limit, filter_bytes, place });
    }

    /// The revision up to which nothing can happen any more: who knows all that there is may go on from here. What is
    /// behind it may be told again.
    pub(in crate::registry) fn certain_revision(&self) -> u64 {
        self.follow.doubt.bound().map_or(self.revision, |bound| bound.saturating_sub(1).min(self.revision))
    }

    /// The revision up to which everything was looked at, if the changes before this number were.
    pub(super) fn bookmark(&self, next: u64) -> u64 {
        let Follow { ring, shown, .. } = &self.follow;
        if next >= *shown {
            return self.certain_revision();
        }
        let before = next.checked_sub(1).and_then(|last| ring.get(last));
        before.map_or(ring.complete_after(), |entry| entry.revision)
    }

    /// Says to a watcher that has been away for too long that it has to list again.
    pub(super) fn forgotten(&self) -> Reply {
        self.compacted("The changes after that revision are not known any more", "list again, and go on from there")
    }

    /// Says that a client has to list again, and where it would begin.
    pub(in crate::registry) fn compacted(&self, error: &str, message: &str) -> Reply {
        let reply = Reply::failure(Code::Compacted, error).text("message", message);
        reply.text("epoch", &self.epoch).number("revision", self.bookmark(self.follow.shown))
    }
}
