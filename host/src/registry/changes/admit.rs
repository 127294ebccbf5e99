//! What is to be done for a wish.
//!
//! A wish is judged against the services as they will be when all changes before it are stored: those of the group that
//! is being put together are among them (see [`Projection`]). A refusal that rests on one of these is not given yet,
//! since the store may still say no to it: the wish is judged again when it has answered.

use std::sync::Arc;

use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::changes::DEREGISTER_FAILED;
use crate::registry::changes::projection::Projection;
use crate::registry::changes::queue::{Wish, Wished};
use crate::registry::output::Output;
use crate::registry::service::Service;

/// What is to be done for a wish.
pub(super) enum Verdict {
    /// The store is to make the change.
    Write,
    /// The client is told this.
    Refuse(Reply),
    /// It will be known when the group is stored.
    Later,
    /// These have run out and have to make way first, and maybe more than these.
    MakeWay(Vec<Arc<str>>),
}

impl<C> Registry<C> {
    /// Judges a wish. No more than `most` services are to make way at once.
    pub(super) fn judge(
        &self,
        wished: &Wished,
        projection: &Projection,
        most: usize,
        uptime_ms: u64,
        out: &mut Output<C>,
    ) -> Verdict {
        let Wished { wish, principal, .. } = wished;
        let id = wish.id();
        let owner = projection.owner(&self.services, id);
        let is_foreign = owner.is_some_and(|owner| !self.policy.access.may_change(principal, owner));
        let is_absent = matches!(wish, Wish::Deregister { .. }) && owner.is_none();
        if (is_foreign || is_absent) && projection.is_contested(id) {
            return Verdict::Later;
        }
        if is_absent {
            return Verdict::Refuse(Reply::failure(Code::NotFound, DEREGISTER_FAILED));
        }
        if is_foreign {
            let verb = if matches!(wish, Wish::Deregister { .. }) { "deregister" } else { "replace" };
            return Verdict::Refuse(self.forbid(
                *principal,
                &format!("to {verb} {id:?}, which belongs to another key"),
                out,
            ));
        }
        match wish {
            Wish::Register { unique: Some(name), .. } => self.judge_unique(name, id, projection, most, uptime_ms),
            _ => Verdict::Write,
        }
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
                Some(other) => Verdict::Refuse(duplicate(name, other.id())),
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
