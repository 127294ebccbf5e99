//! Clients that follow changes over all restarts: watchers, which the checker judges by what they are told, and caches,
//! which see for themselves whether they are as the registry.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use rand::RngExt;
use serde_json::Value;

use crate::clients::{Around, Client, Door, one_of};
use crate::history::{Ask, Service};
use crate::wire::Wire;

/// What there is, by id: all that does not move with heartbeats.
type Services = BTreeMap<String, Value>;

/// Where a follower is: epoch and revision up to which it knows everything.
type Place = (String, u64);

/// Follows until it is over, and goes on where it was whenever a host is there again.
pub(crate) fn run(around: &Around, is_cache: bool, seed: u64) {
    let mut client = Client::new(around, 0, seed);
    let service_type = client.rng.random_bool(0.5).then(|| client.service_type());
    let mut follower =
        Follower { client, is_cache, service_type, known: None, life: 0, services: None, wanted: None, wanted_life: 0 };
    while let Some(door) = around.door() {
        if follower.follow(&door).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Follower<'a> {
    client: Client<'a>,
    is_cache: bool,
    service_type: Option<String>,
    known: Option<Place>,
    /// In which life of the host it came to know that.
    life: usize,
    /// What a cache has.
    services: Option<Services>,
    /// What a cache should have, once it is at this revision, and the life of the host that has said so.
    wanted: Option<(u64, Services)>,
    wanted_life: usize,
}

impl Follower<'_> {
    fn follow(&mut self, door: &Door) -> io::Result<()> {
        let mut wire = Wire::connect(door.ports[0], "REQ", false)?;
        let client = self.client.around.next_client();
        for _ in 0..self.client.rng.random_range(5..100) {
            if self.client.around.is_over() {
                return Ok(());
            }
            let is_new = self.services.is_none();
            if self.is_cache && self.wanted.is_none() && (is_new || self.client.rng.random_bool(0.2)) {
                let ask = Ask::List { service_type: self.service_type.clone() };
                let Some(reply) = self.client.exchange(door, &mut wire, client, ask)? else { return Ok(()) };
                self.wanted_life = door.life;
                self.listed(&reply);
                continue;
            }
            let ask = self.ask();
            let Some(reply) = self.client.exchange(door, &mut wire, client, ask)? else { return Ok(()) };
            self.told(door, &reply);
            let rest = self.client.rest();
            std::thread::sleep(if self.client.rng.random_bool(0.05) { rest * 20 } else { rest });
        }
        Ok(())
    }

    fn ask(&mut self) -> Ask {
        let rng = &mut self.client.rng;
        let (limit, wait_ms) = (one_of(rng, &[1, 3, 1000, 1000]), one_of(rng, &[0, 100, 1000, 3000]));
        // Some remember what nobody else does.
        if !self.is_cache && rng.random_bool(0.01) {
            self.known = Some(("another epoch".into(), 1));
        }
        Ask::Watch { after: self.known.clone(), service_type: self.service_type.clone(), limit, wait_ms }
    }

    fn place(reply: &Value) -> Option<Place> {
        Some((reply["epoch"].as_str()?.into(), reply["revision"].as_u64()?))
    }

    fn listed(&mut self, reply: &Value) {
        let (Some(place), Some(list)) = (Self::place(reply), reply["services"].as_array()) else { return };
        let services = list.iter().filter_map(|service| Service::read(service.clone()).ok());
        let services: Services = services.map(|service| (service.id, service.fixed)).collect();
        match &self.known {
            Some(known) if self.services.is_some() && known.0 == place.0 => {
                if place.1 < known.1 {
                    self.complain(format!("a list at {}, and {} was told before", place.1, known.1));
                }
                self.wanted = Some((place.1, services));
                self.compare(self.wanted_life);
            }
            _ => {
                self.known = Some(place);
                self.services = Some(services);
            }
        }
    }

    fn told(&mut self, door: &Door, reply: &Value) {
        let Some(place) = Self::place(reply) else { return };
        if reply["code"] == "compacted" {
            (self.services, self.wanted) = (None, None);
            self.known = (!self.is_cache).then_some(place);
            return;
        }
        let changes = reply["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !changes.is_empty() {
            self.client.around.note("watch: told of changes");
            if self.life != door.life && self.known.is_some() {
                self.client.around.note("watch: told of what was before a start");
            }
        }
        for change in changes {
            let Some(revision) = change["revision"].as_u64() else { continue };
            if self.wanted.as_ref().is_some_and(|(wanted, _)| *wanted < revision) {
                self.compare_now(door.life);
            }
            let service = Service::read(change["data"]["service_info"].clone());
            if let (Some(services), Ok(service)) = (&mut self.services, service) {
                match change["type"].as_str() {
                    Some("register") => services.insert(service.id, service.fixed),
                    _ => services.remove(&service.id),
                };
            }
        }
        self.known = Some(place);
        self.life = door.life;
        self.compare(door.life);
    }

    /// Compares with a list, once all that comes before it is known.
    fn compare(&mut self, life: usize) {
        let known = self.known.as_ref().map_or(0, |known| known.1);
        if self.wanted.as_ref().is_some_and(|(wanted, _)| *wanted <= known) {
            self.compare_now(life);
        }
    }

    fn compare_now(&mut self, life: usize) {
        let (Some((revision, wanted)), Some(services)) = (self.wanted.take(), &self.services) else { return };
        if wanted == *services {
            return self.client.around.note("cache: as the registry");
        }
        if life != self.wanted_life {
            // A host that dies may leave behind changes that were given up, with revisions of before those of its last
            // lists: who lists then and follows from there after the restart does not hear of them.
            self.services = None;
            return self.client.around.note("cache: a list from before a restart hides what was left behind");
        }
        let text = format!("a cache at {revision} has {services:?}, the registry has {wanted:?}");
        self.services = None;
        self.complain(text);
    }

    fn complain(&self, text: String) {
        self.client.around.problems.lock().expect("no thread panics with it").push(text);
    }
}
