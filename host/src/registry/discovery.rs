//! `discover`: one healthy service of a type, by the store's choice or at random.

use registry_plugin_api::Query;

use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::changes::Wait;
use crate::registry::moment::Now;
use crate::registry::output::Output;

/// How many choices the store may have to make at the same time, at most. Beyond that the host makes them, so that a
/// store that is held up is not asked without end.
const QUERIES_MAX: usize = 1024;
/// Among how many services the store chooses, at most: of more, as many picked at random.
const CANDIDATES_MAX: usize = 64;

impl<C> Registry<C> {
    pub(super) fn discover(&mut self, caller: C, service_type: String, now: Now, out: &mut Output<C>) {
        if self.promises.balances && self.queries < QUERIES_MAX {
            let candidates = self.candidates(&service_type, now);
            if candidates.len() > 1 {
                let query = Query::new(service_type.as_str(), candidates);
                let wait = Wait::Choice { service_type };
                let deadline_ms = self.reply_deadline_ms(now);
                let ticket = self.changes.waiters.add(caller, wait, deadline_ms);
                self.queries += 1;
                out.queries.push((ticket, query));
                return;
            }
        }
        let reply = self.pick(&service_type, now);
        out.replies.push((caller, reply));
    }

    /// Ids of passing services of a type.
    fn candidates(&mut self, service_type: &str, now: Now) -> Vec<String> {
        let (passing, _) = self.services.members(service_type);
        if passing <= CANDIDATES_MAX {
            let passing = self.services.passing_of_type(service_type);
            let passing = passing.filter(|service| service.is_passing(now.uptime_ms));
            return passing.map(|service| service.id().to_string()).collect();
        }
        let mut candidates = Vec::with_capacity(CANDIDATES_MAX);
        for _ in 0..CANDIDATES_MAX {
            let picked = self.services.pick(service_type, now.uptime_ms, &mut self.rng);
            candidates.extend(picked.map(|service| service.id().to_string()));
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// The store's choice among the candidates of a query, if it made one.
    pub fn chosen(&mut self, ticket: u64, service_id: Option<String>, now: Now, out: &mut Output<C>) {
        self.queries = self.queries.saturating_sub(1);
        let Some((caller, Wait::Choice { service_type })) = self.changes.waiters.take(ticket) else { return };
        // It may have changed since it was a candidate.
        let chosen = service_id.and_then(|id| self.services.get(&id)).filter(|service| {
            service.is_passing(now.uptime_ms) && service.types().iter().any(|name| **name == *service_type)
        });
        let reply = match chosen {
            Some(service) => Reply::success().service("service", &service.at(now.uptime_ms)),
            None => self.pick(&service_type, now),
        };
        out.replies.push((caller, reply));
    }

    /// A passing service of a type, at random.
    pub(super) fn pick(&mut self, service_type: &str, now: Now) -> Reply {
        match self.services.pick(service_type, now.uptime_ms, &mut self.rng) {
            Some(service) => Reply::success().service("service", &service.at(now.uptime_ms)),
            None => Reply::failure(Code::NoneHealthy, &format!("No healthy service of type {service_type} found")),
        }
    }
}
