//! What goes to the store at once, and in which order.
//!
//! The contract promises plugins this order: restorations of records whose stored state is in doubt, then what clients
//! have asked for and what has run out, then heartbeats. An id may come more than once. The host gives the revisions:
//! each change of the middle part has its own, greater than all before it. One that the store refuses leaves a gap.

use std::collections::HashMap;
use std::sync::Arc;

use registry_plugin_api::{Change, Group, Position, Put, Remove, Renew};

use crate::protocol::event::EventKind;
use crate::registry::Registry;
use crate::registry::changes::admit::Verdict;
use crate::registry::changes::amend::Amendment;
use crate::registry::changes::projection::Projection;
use crate::registry::changes::queue::{Wish, Wished};
use crate::registry::changes::{Sent, Write};
use crate::registry::follow::Told;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::service::Service;

/// How many changes of each of the three kinds go to the store at once, at most: it bounds how long one group takes.
const CHANGES_MAX: usize = 1024;
/// How many of the middle ones are kept for a clean-up that is under way: however much clients ask for, it gets on.
const EXPIRIES_MIN: usize = 64;
/// How many of the middle ones make way for registrations, at most: others that wait for the store have their part too.
const MAKE_WAY_MAX: usize = CHANGES_MAX / 2;
/// How many changes a group undoes, at most, and those of one record beyond.
const UNDONE_MAX: usize = 4 * CHANGES_MAX;
/// How many wishes are judged for a group, at most. Those that are refused at once are no part of it, and take time too.
const WISHES_MAX: usize = 4 * CHANGES_MAX;
/// How long the records of a group may be together, in bytes, and one record beyond.
const GROUP_BYTES: usize = 4 << 20;

/// A group that is being put together.
#[derive(Default)]
struct Draft {
    sent: Vec<Sent>,
    changes: Vec<Change>,
    /// The revisions of changes that the restorations undo.
    undone: Vec<u64>,
    projection: Projection,
    /// Where in `sent` the last write of each id is.
    written: HashMap<Arc<str>, usize>,
    /// How many services make way for registrations.
    made_way: usize,
    /// How many of the changes are writes, and how long they are, in bytes.
    writes: usize,
    bytes: usize,
}

impl Draft {
    /// The service as the changes so far leave it, if they concern it.
    fn service(&self, id: &str) -> Option<Option<&Service>> {
        match self.sent.get(*self.written.get(id)?)? {
            Sent::Write { write: Write::Put { service, .. } | Write::Amend { service, .. }, .. } => Some(Some(service)),
            _ => Some(None),
        }
    }
}

impl<C> Registry<C> {
    /// The next group of changes for the store, if it has none and there is something to store. What became of it is
    /// to be handed to [`committed`](Self::committed).
    pub fn next_group(&mut self, now: Now, out: &mut Output<C>) -> Option<Group> {
        self.tell_news(out);
        if self.changes.sent.is_some() || self.changes.are_held {
            return None;
        }
        let mut draft = Draft::default();
        self.take_doubtful(&mut draft, now);
        self.take_wishes(&mut draft, now, out);
        self.take_ended_drains(&mut draft, now);
        self.take_expiries(&mut draft, now);
        self.take_heartbeats(&mut draft, now);
        let Draft { sent, changes, undone, .. } = draft;
        if changes.is_empty() {
            // What was to be judged after a change that is not there is judged anew.
            for sent in sent {
                if let Sent::Judge(wished) = sent {
                    self.changes.queue.hold(wished);
                }
            }
            return None;
        }
        self.changes.sent = Some((now.uptime_ms, sent));
        let mut group = Group::new(Position::new(&*self.epoch, self.changes.issued), changes);
        (group.undone, group.forget_before) = match self.promises.history {
            true => (undone, self.follow.forget_before()),
            // These changes have no events: no history may claim to have them.
            false => (Vec::new(), group.position.revision + 1),
        };
        Some(group)
    }

    fn take_doubtful(&mut self, draft: &mut Draft, now: Now) {
        let with_changes = !self.changes.queue.is_empty();
        let mut bytes = 0;
        while draft.changes.len() < CHANGES_MAX && bytes < GROUP_BYTES && draft.undone.len() < UNDONE_MAX {
            let Some((id, undone)) = self.changes.upkeep.next_doubtful(with_changes, now) else { break };
            draft.changes.push(match self.services.get(&id) {
                Some(service) => {
                    bytes += service.shown_bytes();
                    Put::new(service.to_record()).into()
                }
                None => Remove::new(&*id, self.revision).into(),
            });
            draft.undone.extend(&undone);
            draft.sent.push(Sent::Restore { id, undone });
        }
    }

    fn take_wishes(&mut self, draft: &mut Draft, now: Now, out: &mut Output<C>) {
        let kept = if self.changes.upkeep.is_sweeping() { EXPIRIES_MIN } else { 0 };
        let writes_max = CHANGES_MAX - kept;
        let mut again = self.changes.queue.again_len();
        for _ in 0..WISHES_MAX {
            if draft.writes >= writes_max || draft.bytes >= GROUP_BYTES {
                break;
            }
            let waiters = &self.changes.waiters;
            let Some(wished) = self.changes.queue.next(&mut again, |ticket| waiters.has(ticket)) else { break };
            self.take_wish(draft, wished, writes_max, now, out);
        }
    }

    fn take_wish(&mut self, draft: &mut Draft, wished: Wished, writes_max: usize, now: Now, out: &mut Output<C>) {
        loop {
            let most = (writes_max - draft.writes).min(MAKE_WAY_MAX.saturating_sub(draft.made_way));
            let most = if draft.bytes < GROUP_BYTES { most } else { 0 };
            match self.judge(&wished, &draft.projection, most, now.uptime_ms, out) {
                Verdict::Write => {
                    self.changes.queue.release(wished.wish.id());
                    return self.write_wish(draft, wished, now, out);
                }
                Verdict::Refuse(reply, reason) => {
                    self.changes.queue.release(wished.wish.id());
                    self.note_refusal(&wished, reason, now);
                    return self.answer(Some(wished.ticket), reply, out);
                }
                Verdict::Later => {
                    self.changes.queue.block(wished.wish.id());
                    return draft.sent.push(Sent::Judge(wished));
                }
                Verdict::MakeWay(expired) if expired.is_empty() => return self.changes.queue.hold(wished),
                Verdict::MakeWay(expired) => {
                    for id in expired {
                        if draft.bytes >= GROUP_BYTES {
                            break;
                        }
                        draft.made_way += 1;
                        self.write(draft, None, Write::expire(id), now);
                    }
                }
            }
        }
    }

    /// Adds the change that makes a wish come true.
    fn write_wish(&mut self, draft: &mut Draft, wished: Wished, now: Now, out: &mut Output<C>) {
        let (ticket, id) = (wished.ticket, wished.wish.id().clone());
        let generation = match wished.wish {
            Wish::Register { .. } => self.changes.next_generation(now),
            _ => 0,
        };
        let before = draft.service(&id).unwrap_or_else(|| self.services.get(&id));
        let before_bytes = before.map_or(0, Service::shown_bytes);
        match wished.into_write(generation, before).and_then(|write| self.fits(write)) {
            Ok(write) => self.write(draft, Some(ticket), write, now),
            Err(refusal) => {
                // It has taken as much work as if it had been written.
                draft.bytes += before_bytes;
                self.answer(Some(ticket), refusal, out);
            }
        }
    }

    /// Those that are drained no longer, but for what clients want of the same services. No clock wakes for it: the loop
    /// turns often enough for what is told in whole seconds.
    fn take_ended_drains(&mut self, draft: &mut Draft, now: Now) {
        if now.uptime_ms < self.changes.upkeep.retry_at_ms() {
            return;
        }
        let most = CHANGES_MAX - draft.writes;
        let (mut bytes, mut ended) = (draft.bytes, Vec::new());
        for service in self.services.drained_until(now.unix_ms).take(most) {
            if bytes >= GROUP_BYTES {
                break;
            }
            bytes += service.shown_bytes();
            ended.extend((!draft.written.contains_key(service.id())).then(|| Write::end_drain(service)));
        }
        for write in ended {
            self.write(draft, None, write, now);
        }
    }

    fn take_expiries(&mut self, draft: &mut Draft, now: Now) {
        let Some(places) = self.changes.upkeep.sweep(now) else { return };
        let most = CHANGES_MAX - draft.writes;
        let mut bytes = draft.bytes;
        if most == 0 || bytes >= GROUP_BYTES {
            return;
        }
        let (mut last, mut expired) = (None, Vec::new());
        for (place, service) in self.services.critical_in(places).take(most) {
            last = Some(place);
            if !draft.projection.has_id(service.id()) {
                bytes += service.shown_bytes();
                expired.push(service.id().clone());
            }
            if bytes >= GROUP_BYTES {
                break;
            }
        }
        self.changes.upkeep.swept_to(last);
        for id in expired {
            self.write(draft, None, Write::expire(id), now);
        }
    }

    fn take_heartbeats(&mut self, draft: &mut Draft, now: Now) {
        for id in self.changes.upkeep.take_heartbeats(CHANGES_MAX, now) {
            if draft.projection.has_id(&id) {
                // What is being changed may have been heard of since: its heartbeat is written afterwards.
                self.changes.upkeep.heartbeat(id, now);
            } else if let Some(service) = self.services.get(&id) {
                draft.changes.push(Renew::new(&*id, service.last_heartbeat_ms()).into());
                draft.sent.push(Sent::Renew(id));
            }
        }
    }

    /// Adds a change to the group, under a revision of its own.
    fn write(&mut self, draft: &mut Draft, ticket: Option<u64>, mut write: Write, now: Now) {
        self.changes.issued += 1;
        let revision = self.changes.issued;
        let told;
        let cause = write.cause();
        // Neither whose it is, nor its types, nor whether it is there are changed by these.
        let amendment = match &write {
            Write::Amend { what, .. } => Some(*what),
            _ => None,
        };
        draft.changes.push(match &mut write {
            Write::Put { service, .. } | Write::Amend { service, .. } => {
                service.revision = revision;
                told = Told::of(Some(&**service), cause, now);
                // What a change before it in the group comes to is not known yet.
                let before = draft.service(service.id()).is_none().then(|| self.services.get(service.id()));
                let event = self.event_text(told, EventKind::Register, Some(&**service), before);
                match amendment {
                    None => draft.projection.put(&self.services, service),
                    Some(Amendment::Metadata) => {}
                    Some(Amendment::Drained | Amendment::Undrained) => draft.projection.drain(service.id().clone()),
                }
                let record = service.to_record();
                draft.bytes += record.document.len();
                Put::new(record).with_event(event).into()
            }
            Write::Remove { id, kind, .. } => {
                let before = draft.service(id).is_none().then_some(None);
                let service = draft.service(id).unwrap_or_else(|| self.services.get(id));
                let bytes = service.map_or(0, Service::shown_bytes);
                told = Told::of(service, cause, now);
                let event = self.event_text(told, *kind, service, before);
                if service.is_some_and(Service::is_drained) {
                    draft.projection.drain(id.clone());
                }
                draft.projection.remove(&self.services, id);
                draft.bytes += bytes;
                Remove::new(&**id, revision).with_event(event).into()
            }
        });
        draft.writes += 1;
        draft.written.insert(write.id().clone(), draft.sent.len());
        draft.sent.push(Sent::Write { ticket, write, revision, told });
    }

    /// What a store that keeps history keeps of a change: see [`Told::text`].
    fn event_text(
        &self,
        told: Told,
        kind: EventKind,
        service: Option<&Service>,
        before: Option<Option<&Service>>,
    ) -> String {
        let kept = service.filter(|_| self.promises.history);
        kept.map(|service| told.text(kind, service, before)).unwrap_or_default()
    }
}
