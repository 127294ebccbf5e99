//! What clients wish: taken in as far as there is room, and judged when its turn comes.
//!
//! A wish is judged against the services as they will be when all changes before it are stored: those of the group that
//! is being put together are among them (see [`Projection`]). A refusal that rests on one of these is not given yet,
//! since the store may still say no to it: the wish is judged again when it has answered.

use std::sync::Arc;

use crate::protocol::registration::{GENERATION_BYTES, Registration};
use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::changes::amend::Amendment;
use crate::registry::changes::projection::Projection;
use crate::registry::changes::queue::{Wish, Wished};
use crate::registry::changes::{FULL, Wait};
use crate::registry::lives::{Reason, replaced};
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::quotas::over_quota;
use crate::registry::service::{Service, memory_bytes};
use crate::security::origin::{Holder, Origin};
use crate::security::quota::Quota;

/// What is to be done for a wish.
pub(super) enum Verdict {
    /// The store is to make the change.
    Write,
    /// The client is told this.
    Refuse(Reply, Reason),
    /// It will be known when the group is stored.
    Later,
    /// These have run out and have to make way first, and maybe more than these.
    MakeWay(Vec<Arc<str>>),
}

/// That a client has as many services as it may.
pub(super) struct NoPlace<'a> {
    /// By which quota.
    pub(super) quota: &'a Arc<Quota>,
    /// How many it has.
    pub(super) has: usize,
    /// It depends on the group.
    is_open: bool,
}

impl<C> Registry<C> {
    pub(in crate::registry) fn register(
        &mut self,
        caller: C,
        origin: Origin,
        registration: Box<Registration>,
        now: Now,
        out: &mut Output<C>,
    ) {
        let id = match &registration.id {
            Some(id) => Arc::from(id.as_str()),
            None => self.new_id(&registration.name),
        };
        let wanted = registration.singleton || self.policy.enforce_unique_service_types;
        let is_unique = wanted && !registration.allow_duplicate_service_type;
        let unique = registration.service_type.as_deref().filter(|_| is_unique).map(Arc::from);
        let bytes =
            memory_bytes(registration.bytes + GENERATION_BYTES, id.len(), registration.types.iter().map(String::len));
        self.wish(caller, origin, Wish::Register { id, registration, unique }, bytes, now, out);
    }

    pub(in crate::registry) fn deregister(
        &mut self,
        caller: C,
        origin: Origin,
        (service_id, generation): (&str, Option<u64>),
        now: Now,
        out: &mut Output<C>,
    ) {
        let wish = Wish::Deregister { id: service_id.into(), generation };
        self.wish(caller, origin, wish, service_id.len(), now, out);
    }

    pub(super) fn wish(&mut self, caller: C, origin: Origin, wish: Wish, bytes: usize, now: Now, out: &mut Output<C>) {
        let error = wish.failure();
        if let Some(message) = self.has_no_room_for(&wish, bytes) {
            out.replies.push((caller, Reply::failure(Code::Overloaded, error).text("message", message)));
            return;
        }
        let deadline_ms = self.reply_deadline_ms(now);
        let ticket = self.changes.waiters.add(caller, Wait::Change { error, bytes }, deadline_ms);
        self.changes.queue.push(Wished { ticket, origin, wish, arrived: now });
    }

    /// Why a wish cannot be taken, if it cannot: what clients say is kept in memory, and that has an end.
    fn has_no_room_for(&self, wish: &Wish, bytes: usize) -> Option<&'static str> {
        let (policy, changes) = (&self.policy, &self.changes);
        // One fits always, however long it is, if nothing else waits.
        let waiting = changes.waiters.bytes();
        let is_long = waiting > 0 && waiting + bytes > policy.pending_bytes_max;
        if changes.waiters.len() + changes.upkeep.doubtful() >= policy.pending_changes_max || is_long {
            return Some("too many changes wait for the storage, try again later");
        }
        let Wish::Register { id, .. } = wish else { return None };
        let before = self.services.get(id).map_or(0, Service::bytes);
        let after = (self.services.bytes() - before).saturating_add(bytes);
        // Whoever does not get longer does no harm.
        (bytes > before && after > policy.services_bytes_max).then_some(FULL)
    }

    /// Judges a wish. No more than `most` services are to make way at once.
    pub(super) fn judge(
        &self,
        wished: &Wished,
        projection: &Projection,
        most: usize,
        uptime_ms: u64,
        out: &mut Output<C>,
    ) -> Verdict {
        let Wished { wish, origin, .. } = wished;
        let (id, principal) = (wish.id(), &origin.principal);
        let standing = projection.standing(&self.services, id);
        let is_foreign = standing.is_some_and(|(owner, _)| !self.policy.access.may_change(principal, owner));
        let is_absent = !matches!(wish, Wish::Register { .. }) && standing.is_none();
        let is_replaced = standing.zip(wish.generation()).is_some_and(|((_, current), named)| current != named);
        let is_open = match is_foreign || is_absent {
            true => projection.is_contested(id),
            false => is_replaced && projection.has_id(id),
        };
        let depends = match wish {
            // What registers again stays drained.
            Wish::Register { .. } => projection.drains(id),
            // Who has nothing to end is told so at once.
            Wish::Drain { drain, .. } if drain.order.is_none() => projection.drains(id) || projection.has_id(id),
            _ => false,
        };
        if is_open || depends {
            return Verdict::Later;
        }
        if is_absent {
            return Verdict::Refuse(self.absent(id, wish.failure(), uptime_ms), Reason::Absent);
        }
        if is_foreign {
            let verb = match wish {
                Wish::Register { .. } => "replace",
                Wish::Deregister { .. } => "deregister",
                Wish::Update { .. } => "update",
                Wish::Drain { drain, .. } => Amendment::of(drain).word(),
            };
            let what = format!("to {verb} {id:?}, which belongs to another key");
            return Verdict::Refuse(self.forbid(*principal, &what, out), Reason::Foreign);
        }
        let service = self.services.get(id).zip(wish.generation()).filter(|_| is_replaced);
        if service.is_some_and(|(service, named)| service.is_before(named)) {
            return Verdict::Refuse(self.absent(id, wish.failure(), uptime_ms), Reason::Absent);
        }
        if is_replaced {
            return Verdict::Refuse(replaced(wish.failure()), Reason::Replaced);
        }
        if let Wish::Register { registration, .. } = wish {
            let types = registration.types.iter().map(String::as_str);
            match self.no_place_for(id, &origin.holder(), types, projection) {
                None => {}
                Some(NoPlace { is_open: true, .. }) => return Verdict::Later,
                Some(NoPlace { quota, has, .. }) => {
                    return Verdict::Refuse(over_quota(quota, origin, has), Reason::Quota(quota.clone()));
                }
            }
        }
        match wish {
            Wish::Register { unique: Some(name), .. } => self.judge_unique(name, id, projection, most, uptime_ms),
            _ => Verdict::Write,
        }
    }

    /// The quota that leaves this client no place for a service with these types, if one does. One that is sure comes
    /// before one that depends on the group.
    pub(super) fn no_place_for<'a>(
        &self,
        id: &str,
        holder: &Holder,
        types: impl Iterator<Item = &'a str> + Clone,
        projection: &Projection,
    ) -> Option<NoPlace<'_>> {
        let services = &self.services;
        let quotas = services.usage.quotas();
        let mut open = None;
        for class in quotas.classes(types) {
            let Some((quota, most)) =
                quotas.of_services(class, holder).and_then(|quota| Some((quota, quota.services?)))
            else {
                continue;
            };
            let has = projection.places(services, class, holder);
            if has < most || projection.keeps_place(services, class, holder, id) {
                continue;
            }
            let is_open = projection.has_place(class, holder, id);
            let found = NoPlace { quota, has, is_open };
            if !is_open {
                return Some(found);
            }
            open = Some(found);
        }
        open
    }

    /// Judges the demand to be the only service of a type.
    fn judge_unique(&self, name: &str, id: &str, projection: &Projection, most: usize, uptime_ms: u64) -> Verdict {
        if self.services.is_behind(uptime_ms) {
            // Nobody can say who is passing as long as somebody's time may be up.
            return Verdict::MakeWay(Vec::new());
        }
        match projection.others(&self.services, name, id) {
            (0, 0) => Verdict::Write,
            (0, _) => Verdict::MakeWay(self.in_the_way(name, id, projection, most)),
            _ if projection.has_type(name) => Verdict::Later,
            _ => match self.services.passing_other(name, id, uptime_ms) {
                Some(other) => Verdict::Refuse(duplicate(name, other.id()), Reason::Duplicate(other.id().clone())),
                None => Verdict::Later,
            },
        }
    }

    /// Critical services of a type that the group does not concern yet, other than the one with this id.
    fn in_the_way(&self, name: &str, id: &str, projection: &Projection, most: usize) -> Vec<Arc<str>> {
        let critical = self.services.critical_of_type(name).map(Service::id);
        critical.filter(|other| ***other != *id && !projection.has_id(other)).take(most).cloned().collect()
    }
}

pub(super) fn duplicate(service_type: &str, existing: &str) -> Reply {
    let message = format!("Service type '{service_type}' is already registered by service_id '{existing}'.");
    Reply::failure(Code::DuplicateServiceType, "duplicate_service_type")
        .text("message", &message)
        .text("service_type", service_type)
        .text("existing_service_id", existing)
}
