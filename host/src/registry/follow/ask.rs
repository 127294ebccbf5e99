//! What a client asks for: the changes after a revision, at once or as soon as there is one.

use std::sync::Arc;

use super::answer::{Gathered, nothing_new};
use super::ring::STEP_BYTES;
use super::{Follow, Place, REQUEST_STEPS, Terms, Watcher};
use crate::protocol::filter::Filter;
use crate::protocol::reply::{Code, Reply};
use crate::protocol::watch::Watch;
use crate::registry::Registry;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::put_off::COPIED;
use crate::security::origin::Origin;

impl<C> Follow<C> {
    /// About how much is looked at for a request, in bytes.
    pub(in crate::registry) fn work_of(&self, watch: &Watch) -> usize {
        let first = watch.after.map_or(self.shown, |after| self.ring.after_revision(after));
        let changes = usize::try_from(self.shown.saturating_sub(first)).unwrap_or(usize::MAX);
        let mean = self.ring.mean_bytes();
        match watch.filter.is_type_only() {
            true => changes.min(REQUEST_STEPS) * STEP_BYTES + changes.min(watch.limit) * mean / COPIED,
            false => (changes * mean).min(mean.max(REQUEST_STEPS * STEP_BYTES)),
        }
    }
}

impl<C> Registry<C> {
    /// Tells a client the changes after a revision, or lets it wait for the next ones.
    pub(in crate::registry) fn watch(
        &mut self,
        caller: C,
        watch: Watch,
        (origin, max_stale_ms): (Origin, u64),
        now: Now,
        out: &mut Output<C>,
    ) {
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
        let terms = Terms { holder: origin.holder(), deadline_ms, limit, max_stale_ms };
        self.look(caller, (after, Arc::new(filter)), terms, now, out);
    }

    /// Looks for changes after a revision, and says how many steps that took. Without any the watcher waits, if it still
    /// has time.
    pub(super) fn look(
        &mut self,
        caller: C,
        (after, filter): (Option<u64>, Arc<Filter>),
        terms: Terms,
        now: Now,
        out: &mut Output<C>,
    ) -> usize {
        let Follow { ring, shown, .. } = &self.follow;
        let from = after.map_or(*shown, |after| ring.after_revision(after));
        let gathered = Gathered::among(ring, &filter, (from..*shown, *shown), terms.limit, REQUEST_STEPS);
        let taken = gathered.taken;
        let is_everything = gathered.next >= *shown;
        let looked_to = self.bookmark(gathered.next);
        // What it knows already it keeps, even if that is still to come here.
        let is_ahead = after.is_some_and(|after| after > looked_to);
        let revision = if is_ahead { after.unwrap_or_default() } else { looked_to };
        if gathered.count > 0 {
            let reply = Reply::with_shared(gathered.into_pieces(&self.epoch, revision));
            out.replies.push((caller, self.as_fresh(reply, terms.max_stale_ms)));
            return taken;
        }
        if terms.deadline_ms <= now.uptime_ms || !is_everything {
            let reply = self.as_fresh(nothing_new(&self.epoch, revision), terms.max_stale_ms);
            out.replies.push((caller, reply));
            return taken;
        }
        if let Some(refusal) = self.no_room_to_wait(terms.holder) {
            out.replies.push((caller, refusal));
            return taken;
        }
        let follow = &mut self.follow;
        let key = follow.watchers.vacant_key();
        let filter_bytes = filter.bytes();
        let place = if is_ahead {
            follow.ahead.insert((revision, key));
            Place::Ahead(revision, filter)
        } else {
            Place::Audience(follow.rooms.enter(key, filter, follow.shown))
        };
        follow.shares.take(terms.holder, filter_bytes);
        follow.deadlines.insert((terms.deadline_ms, key));
        follow.watchers.insert(Watcher { caller, terms, filter_bytes, place });
        taken
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
