//! All services from a backup, in place of those that there are.
//!
//! They are loaded into a core of their own, a piece at a time, as at a start; then this one takes them over, in one turn.
//! Whoever waits for something goes on waiting, and gets it of the services that there are then.

use rand::SeedableRng;
use registry_plugin_api::{Position, Record};

use crate::registry::Registry;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::service::Service;
use crate::registry::trail::What;
use crate::security::origin::Origin;

/// For how many services their past says what a restore has made of them: it has no room for more.
const NOTED_MAX: usize = 10_000;

impl<C> Registry<C> {
    /// A core without services under the same rules, at this position, to load services into for
    /// [`take_over`](Self::take_over). They are counted by the same quotas.
    pub fn successor(&mut self, position: Position) -> Registry<C> {
        let rng = rand::rngs::StdRng::from_rng(&mut self.rng);
        let mut successor = Registry::new(self.policy.clone(), self.promises, self.about.clone(), position, rng);
        successor.services.count_by(self.bounds.quotas().clone());
        successor
    }

    /// Whether a record can be a service, and about how much memory it takes then, in bytes.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub fn memory_of(record: Record) -> Result<usize, String> {
        Service::from_record(record, Now::default()).map(|service| service.bytes())
    }

    /// The ids of all records that the store may have of this core's services, those in doubt among them.
    pub fn stored_ids(&self) -> Vec<String> {
        let there = (0..self.services.slots_end()).filter_map(|slot| self.services.at(slot));
        let there = there.map(|service| service.id().to_string());
        there.chain(self.changes.upkeep.doubtful_ids().map(|id| id.to_string())).collect()
    }

    /// How much memory all services may take, in bytes.
    pub fn bytes_max(&self) -> usize {
        self.policy.services_bytes_max
    }

    /// Takes over the services of another core, which are stored as they are there, in place of all that there are. Its
    /// epoch begins, as somebody has asked for. The store must have nothing to answer.
    pub fn take_over(&mut self, restored: Registry<C>, by: Origin, now: Now, out: &mut Output<C>) {
        self.end_mass_of_all(now);
        let before = std::mem::replace(&mut self.services, restored.services);
        // There may be others since they were loaded.
        self.services.set_quotas(self.bounds.quotas().clone());
        self.changes.begin_anew(restored.revision, restored.changes.generation);
        self.begin_epoch(Position::new(restored.epoch, restored.revision), out);
        self.storage_failure = None;
        self.cleanup_at_ms = now.uptime_ms + self.policy.cleanup_interval_ms;
        let services = &self.services;
        self.past.come_back(|id| services.get(id).is_some());
        let dropped = (0..before.slots_end()).filter_map(|slot| before.at(slot));
        let dropped = dropped.filter(|service| services.get(service.id()).is_none());
        let restored = (0..services.slots_end()).filter_map(|slot| services.at(slot));
        let restored = restored
            .filter(|service| before.get(service.id()).is_none_or(|before| before.document() != service.document()));
        let noted = dropped.map(|service| (service, What::Dropped));
        for (service, what) in noted.chain(restored.map(|service| (service, What::Restored))).take(NOTED_MAX) {
            self.trail.note_restore(service.id(), what, by, now);
        }
        self.begin_list_again();
        self.begin_search_again();
        self.look_again();
    }
}
