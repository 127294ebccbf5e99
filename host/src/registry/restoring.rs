//! All services anew: a core that is filled from a backup beside the one that serves, and then takes its place.

use std::collections::HashSet;

use registry_plugin_api::{Change, Position, Put, Record, Remove};

use crate::protocol::reply::{Code, Reply};
use crate::protocol::restore::Restored;
use crate::registry::moment::Now;
use crate::registry::output::{Output, Unreadable};
use crate::registry::slots::Slot;
use crate::registry::{Registry, Service};

/// How many slots are gone through at a time.
const SLOTS_MAX: usize = 2000;

impl<C> Registry<C> {
    /// A core without services, in an epoch of its own and behind all revisions of this one, to take its place later.
    pub fn successor(&self, epoch: String, rng: rand::rngs::StdRng) -> Self {
        let position = Position::new(epoch, self.issued() + 1);
        let mut successor = Registry::new(self.policy.clone(), self.promises, self.about.clone(), position, rng);
        successor.changes.generation = self.changes.generation;
        successor
    }

    /// Takes over a service of a backup. One with the same id that came before is replaced.
    ///
    /// # Errors
    /// It cannot be one; or all of them take more memory than services may.
    pub fn restore(&mut self, restored: Restored, now: Now) -> Result<(), Unreadable> {
        let Restored { registration, last_heartbeat, document } = restored;
        let id = registration.id.unwrap_or_default();
        let mut record = Record::new(id.clone(), document);
        record.types = registration.types;
        record.ttl_ms = registration.ttl_ms;
        record.last_heartbeat_ms = last_heartbeat.saturating_mul(1000);
        record.revision = self.revision;
        self.load(record, now)?;
        if self.services.bytes() > self.policy.services_bytes_max {
            let reason = "all services together take more memory than limits.services_bytes allows".into();
            return Err(Unreadable { id, reason });
        }
        Ok(())
    }

    /// The next services as a store is to keep them, from a slot on, and where to go on. Each has a full ttl from now
    /// on.
    pub fn prepare(&mut self, first: Slot, now: Now, changes: &mut Vec<Change>) -> Option<Slot> {
        let end = self.services.slots_end();
        let last = end.min(first + SLOTS_MAX);
        for slot in first..last {
            let Some(service) = self.services.at(slot) else { continue };
            changes.push(Put::new(service.to_record()).into());
            let (id, heard_ms) = (service.id().clone(), service.last_heartbeat_ms());
            self.services.renew(&id, now.uptime_ms, heard_ms);
        }
        (last < end).then_some(last)
    }

    /// What a store has to remove that has the services of this core and is to have those of another.
    pub fn removals_for(&self, other: &Registry<C>, changes: &mut Vec<Change>) {
        let gone = self.services.iter().map(Service::id).filter(|id| other.services.get(id).is_none());
        changes.extend(gone.map(|id| Change::from(Remove::new(&**id, other.revision))));
    }

    /// What the store holds may be the services of another core, or some of them: all is in doubt.
    pub fn doubt_all(&mut self, other: &Registry<C>) {
        let all: HashSet<_> = self.services.iter().chain(other.services.iter()).map(|of| of.id().clone()).collect();
        all.into_iter().for_each(|id| self.changes.upkeep.doubt(id));
    }

    /// Takes the place of another core: what has happened to services stays known. Whoever waits at the other one for
    /// services is told to ask again.
    pub fn take_place_of(&mut self, mut other: Registry<C>, now: Now, out: &mut Output<C>) {
        self.trail = std::mem::take(&mut other.trail);
        self.past = std::mem::take(&mut other.past);
        self.changes.generation = self.changes.generation.max(other.changes.generation);
        self.cleanup_at_ms = now.uptime_ms + self.policy.cleanup_interval_ms;
        self.bad_key_files = other.bad_key_files;
        let again = Reply::failure(Code::Starting, "The registry is being restored")
            .text("message", "all services have changed, ask again");
        let waiting = other.lists.drain().chain(other.searches.drain()).chain(other.put_off.drain());
        out.replies.extend(waiting.map(|caller| (caller, again.clone())));
        // It takes a while to free many services.
        let services = std::mem::take(&mut other.services);
        std::thread::spawn(move || drop(services));
    }
}
