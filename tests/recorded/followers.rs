//! Clients that follow changes over all restarts: watchers, which the checker judges by what they are told, and caches,
//! which see for themselves whether they are as the registry.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::Value;

use crate::clients::{Around, Client, Door, one_of};
use crate::history::{Ask, Service};
use crate::run::APART_MS;
use crate::wire::Wire;

/// What there is, by id: all that does not move with heartbeats.
type Services = BTreeMap<String, Value>;

/// Where a follower is: epoch and revision up to which it knows everything.
type Place = (String, u64);

/// Follows until it is over, and goes on where it was whenever a host is there again.
pub(crate) fn run(around: &Around, is_cache: bool, seed: u64) {
    let mut client = Client::new(around, 0, seed);
    let service_type = client.rng.random_bool(0.5).then(|| client.service_type());
    let mut follower = Follower { client, is_cache, service_type, known: None, life: 0, services: None, wanted: None };
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
    /// What it has to come to.
    wanted: Option<Wanted>,
}

/// A list that a cache is compared with. It has all changes up to its revision, and while something is in doubt later ones,
/// too.
struct Wanted {
    revision: u64,
    services: Services,
    /// The same with all changes after its revision that were told since.
    brought_on: Services,
    /// The life of the host that has given it, and when.
    life: usize,
    listed: Instant,
    /// A revision that none of its changes is beyond, as soon as there is one that is certain.
    end: Option<u64>,
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
                self.listed(door, &reply);
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

    fn listed(&mut self, door: &Door, reply: &Value) {
        let (Some(place), Some(list)) = (Self::place(reply), reply["services"].as_array()) else { return };
        let services = list.iter().filter_map(|service| Service::read(service.clone()).ok());
        let services: Services = services.map(|service| (service.id, service.fixed)).collect();
        match &self.known {
            Some(known) if self.services.is_some() && known.0 == place.0 => {
                if place.1 < known.1 {
                    self.problem(format!("a list at {}, and {} was told before", place.1, known.1));
                }
                let (life, listed, brought_on) = (door.life, Instant::now(), services.clone());
                self.wanted = Some(Wanted { revision: place.1, services, brought_on, life, listed, end: None });
                self.compare(door.life);
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
            self.compare_at(revision - 1);
            // A list is exactly at its revision if what comes next was not in doubt.
            let is_next = |wanted: &Wanted| wanted.revision + 1 == revision && wanted.life == door.life;
            if self.wanted.as_ref().is_some_and(is_next) {
                return self.complain();
            }
            let Ok(service) = Service::read(change["data"]["service_info"].clone()) else { continue };
            let brought_on = self.wanted.as_mut().filter(|wanted| wanted.revision < revision);
            for services in self.services.iter_mut().chain(brought_on.map(|wanted| &mut wanted.brought_on)) {
                match change["type"].as_str() {
                    Some("register") => services.insert(service.id.clone(), service.fixed.clone()),
                    _ => services.remove(&service.id),
                };
            }
        }
        self.known = Some(place);
        self.life = door.life;
        self.compare(door.life);
    }

    /// Compares with a list, if all changes up to there are known, and no others.
    fn compare_at(&mut self, revision: u64) {
        let Some(wanted) = self.wanted.take_if(|wanted| wanted.revision <= revision) else { return };
        if self.services.as_ref() == Some(&wanted.services) {
            return self.client.around.note("cache: as the registry");
        }
        self.wanted = Some(wanted);
    }

    /// Compares with a list, and says so if it cannot come to that any more.
    fn compare(&mut self, life: usize) {
        let known = self.known.as_ref().map_or(0, |known| known.1);
        self.compare_at(known);
        let Some(wanted) = &mut self.wanted else { return };
        // By then all events of what it shows were seen, or another host has found the store beyond that.
        if wanted.listed.elapsed() > Duration::from_millis(APART_MS) {
            wanted.end.get_or_insert_with(|| self.client.around.recorder.newest());
        }
        if wanted.end.is_none_or(|end| known < end) {
            return;
        }
        if life == wanted.life || self.services.as_ref() != Some(&wanted.brought_on) {
            return self.complain();
        }
        // What a host that died could not take back has come between.
        self.wanted = None;
        self.client.around.note("cache: as the registry, with what was left behind");
    }

    /// It is not as the list that it was to come to, and begins anew.
    fn complain(&mut self) {
        let (Some(wanted), Some(services)) = (self.wanted.take(), self.services.take()) else { return };
        let (known, Wanted { revision, services: listed, brought_on, .. }) = (self.known.take(), wanted);
        self.problem(format!(
            "a cache at {known:?} has {services:?}, the registry had {listed:?} at {revision}, now that is {brought_on:?}"
        ));
    }

    fn problem(&self, text: String) {
        self.client.around.problems.lock().expect("no thread panics with it").push(text);
    }
}
