//! Clients that ask for things at random, and write down what comes of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::history::{Ask, Claim, Registration};
use crate::reached::Reached;
use crate::recorder::Recorder;
use crate::request;
use crate::wire::Wire;

const TYPES: [&str; 3] = ["web", "mail", "cam"];
/// How many requests a client that does not wait for answers may have under way.
const OUTSTANDING_MAX: usize = 8;
/// How long such a client looks for an answer before it asks something else.
const POLL: Duration = Duration::from_millis(3);

/// The way to a host that serves.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) life: usize,
    /// For requests, events and heartbeats.
    pub(crate) ports: [u16; 3],
    /// Held by everybody who may still have something to read from it.
    pub(crate) _token: Arc<()>,
}

/// What clients do, and how much of it.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    pub(crate) ids: usize,
    pub(crate) ttls: &'static [u64],
    /// The longest pause between two requests, in milliseconds.
    pub(crate) pause_ms: u64,
    /// How many of 100 registrations are singletons.
    pub(crate) singletons: u32,
    pub(crate) bulk: usize,
}

/// What everybody shares.
pub(crate) struct Around {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) habits: Habits,
    door: Mutex<Option<Door>>,
    opened: Condvar,
    over: AtomicBool,
    clients: AtomicUsize,
    /// What clients have found out themselves.
    pub(crate) problems: Mutex<Vec<String>>,
    pub(crate) reached: Mutex<Reached>,
}

impl Around {
    pub(crate) fn new(recorder: Arc<Recorder>, habits: Habits) -> Around {
        Around {
            recorder,
            habits,
            door: Mutex::default(),
            opened: Condvar::new(),
            over: AtomicBool::new(false),
            clients: AtomicUsize::new(0),
            problems: Mutex::default(),
            reached: Mutex::default(),
        }
    }

    pub(crate) fn note(&self, kind: &str) {
        self.reached.lock().expect("no thread panics with it").note(kind);
    }

    /// Lets clients in, or keeps them out: then those that are in may go on until they lose their connection.
    pub(crate) fn set_door(&self, door: Option<Door>) -> Option<Door> {
        let before = std::mem::replace(&mut *self.door.lock().expect("no thread panics with it"), door);
        self.opened.notify_all();
        before
    }

    /// Waits until there is a host to talk to. `None`: it is over.
    pub(crate) fn door(&self) -> Option<Door> {
        let mut door = self.door.lock().expect("no thread panics with it");
        while !self.is_over() {
            if let Some(open) = &*door {
                return Some(open.clone());
            }
            door = self.opened.wait_timeout(door, Duration::from_millis(50)).expect("no thread panics with it").0;
        }
        None
    }

    /// The life of the host that lets clients in, if one does.
    pub(crate) fn life(&self) -> Option<usize> {
        self.door.lock().expect("no thread panics with it").as_ref().map(|door| door.life)
    }

    /// Its ports.
    pub(crate) fn ports(&self) -> Option<[u16; 3]> {
        self.door.lock().expect("no thread panics with it").as_ref().map(|door| door.ports)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// A number for a connection: what is asked over two connections may be read in any order.
    pub(crate) fn next_client(&self) -> usize {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }
}

/// A way of being a client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A REQ socket: one request at a time.
    Plain,
    /// A DEALER with many requests under way.
    Eager,
    /// Keeps services alive, by the port for heartbeats.
    Keeper,
}

/// Is a client until it is over. Connections are lost and made again, which is no failure.
pub(crate) fn run(around: &Around, kind: Kind, number: usize, seed: u64) {
    let mut client = Client::new(around, number, seed);
    while let Some(door) = around.door() {
        let lost = match kind {
            Kind::Plain => client.plain(&door),
            Kind::Eager => client.eager(&door),
            Kind::Keeper => client.keep(&door),
        };
        drop(door);
        if lost.is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

pub(crate) struct Client<'a> {
    pub(crate) around: &'a Around,
    number: usize,
    pub(crate) rng: StdRng,
    /// The services that it keeps alive.
    kept: BTreeMap<String, Kept>,
    generations: BTreeMap<String, u64>,
}

struct Kept {
    ttl_ms: u64,
    is_registered: bool,
    next: Instant,
}

impl<'a> Client<'a> {
    pub(crate) fn new(around: &'a Around, number: usize, seed: u64) -> Client<'a> {
        Client { around, number, rng: StdRng::seed_from_u64(seed), kept: BTreeMap::new(), generations: BTreeMap::new() }
    }

    fn patience(&mut self) -> Duration {
        Duration::from_millis(one_of(&mut self.rng, &[3000, 6000, 12_000]))
    }

    pub(crate) fn rest(&mut self) -> Duration {
        Duration::from_millis(self.rng.random_range(0..=self.around.habits.pause_ms))
    }

    /// One request after the other.
    fn plain(&mut self, door: &Door) -> io::Result<()> {
        let mut wire = Wire::connect(door.ports[0], "REQ", false)?;
        let client = self.around.next_client();
        for _ in 0..self.rng.random_range(5..200) {
            if self.around.is_over() {
                return Ok(());
            }
            let ask = self.ask();
            if self.exchange(door, &mut wire, client, ask)?.is_none() {
                return Ok(());
            }
            std::thread::sleep(self.rest());
        }
        Ok(())
    }

    /// Asks, and waits for the answer. `None`: it has waited for too long.
    pub(crate) fn exchange(
        &mut self,
        door: &Door,
        wire: &mut Wire,
        client: usize,
        ask: Ask,
    ) -> io::Result<Option<Value>> {
        let recorder = &self.around.recorder;
        let call = recorder.asked(client, ask.clone());
        wire.send(&[b"", request::body(&ask, call).to_string().as_bytes()])?;
        let waits_ms = if let Ask::Watch { wait_ms, .. } = ask { wait_ms } else { 0 };
        let Some(reply) = wire.receive(self.patience() + Duration::from_millis(waits_ms))? else {
            self.around.recorder.gave_up(call);
            return Ok(None);
        };
        let reply = read(&reply);
        self.hear(&reply);
        self.around.recorder.answered(door.life, call, reply.clone());
        Ok(Some(reply))
    }

    /// Many requests at once, told apart by their ids.
    fn eager(&mut self, door: &Door) -> io::Result<()> {
        let mut wire = Wire::connect(door.ports[0], "DEALER", false)?;
        let client = self.around.next_client();
        let mut open: BTreeMap<usize, Instant> = BTreeMap::new();
        let mut left = self.rng.random_range(20..400);
        let is_typed = self.rng.random_bool(0.5);
        while left > 0 || !open.is_empty() {
            if left > 0 && open.len() < OUTSTANDING_MAX && !self.around.is_over() {
                for _ in 0..self.rng.random_range(0..4) {
                    let ask = self.ask();
                    let call = self.around.recorder.asked(client, ask.clone());
                    open.insert(call, Instant::now() + self.patience());
                    let mut body = request::body(&ask, call);
                    body["request_id"] = call.into();
                    let body = body.to_string();
                    match is_typed {
                        true => wire.send(&[b"REQ", body.as_bytes()])?,
                        false => wire.send(&[body.as_bytes()])?,
                    }
                    left -= 1;
                }
            } else if self.around.is_over() {
                left = 0;
            }
            let mut wait = if left > 0 { self.rest() } else { Duration::from_millis(50) };
            while let Some(reply) = wire.receive(wait.max(POLL))? {
                let reply = read(&reply);
                self.hear(&reply);
                let call = reply["request_id"].as_u64().and_then(|call| usize::try_from(call).ok());
                let call = call.filter(|call| open.remove(call).is_some());
                // An answer to nothing is for the checker to see.
                self.around.recorder.answered(door.life, call.unwrap_or(0), reply);
                wait = POLL;
            }
            if open.values().any(|deadline| *deadline <= Instant::now()) {
                open.keys().for_each(|call| self.around.recorder.gave_up(*call));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Services that are renewed in time, and registered again where they are not known.
    fn keep(&mut self, door: &Door) -> io::Result<()> {
        let mut requests = Wire::connect(door.ports[0], "REQ", false)?;
        let mut heartbeats = Wire::connect(door.ports[2], "REQ", false)?;
        let client = self.around.next_client();
        for at in 0..3 {
            let ttl_ms = one_of(&mut self.rng, &[1500, 2500, 4000]);
            let kept = Kept { ttl_ms, is_registered: false, next: Instant::now() };
            self.kept.entry(format!("k{}-{at}", self.number)).or_insert(kept);
        }
        while !self.around.is_over() {
            let now = Instant::now();
            let due = self.kept.iter().filter(|(_, kept)| kept.next <= now).map(|(id, _)| id.clone()).next();
            let Some(id) = due else {
                // Nothing comes, unless the host is gone.
                requests.receive(Duration::from_millis(10))?;
                heartbeats.receive(Duration::from_millis(10))?;
                continue;
            };
            let Kept { ttl_ms, is_registered, .. } = self.kept[&id];
            let wire = if is_registered { &mut heartbeats } else { &mut requests };
            let ask = match is_registered {
                true => Ask::Renew { id: id.clone(), generation: self.generations.get(&id).copied() },
                false => Ask::Register(Registration {
                    id: Some(id.clone()),
                    service_type: format!("kept-{id}"),
                    tag: None,
                    claim: Claim::Plain,
                    ttl_ms,
                    bulk: 0,
                }),
            };
            let Some(reply) = self.exchange(door, wire, client, ask)? else { return Ok(()) };
            let kept = self.kept.get_mut(&id).expect("it is kept");
            kept.is_registered = reply["success"] == true;
            let every_ms = if kept.is_registered { ttl_ms / 3 } else { 50 };
            kept.next = Instant::now() + Duration::from_millis(every_ms);
        }
        Ok(())
    }

    pub(crate) fn ask(&mut self) -> Ask {
        match self.rng.random_range(0..22) {
            0..7 => Ask::Register(self.registration()),
            7..10 => {
                let (id, generation) = self.known_id();
                Ask::Deregister { id, generation }
            }
            10..14 => {
                let (id, generation) = self.known_id();
                Ask::Renew { id, generation }
            }
            20..22 => {
                let (id, generation) = self.known_id();
                Ask::Update { id, generation }
            }
            14 | 15 => Ask::Get { id: self.id() },
            16 | 17 => Ask::List { service_type: self.rng.random_bool(0.3).then(|| self.service_type()) },
            _ => Ask::Discover { service_type: self.service_type() },
        }
    }

    fn registration(&mut self) -> Registration {
        let habits = &self.around.habits;
        let claim = match self.rng.random_range(0..100) {
            roll if roll < habits.singletons => Claim::Singleton,
            roll if roll < habits.singletons + 10 => Claim::AllowDuplicate,
            _ => Claim::Plain,
        };
        Registration {
            id: self.rng.random_bool(0.9).then(|| self.id()),
            service_type: self.service_type(),
            tag: self.rng.random_bool(0.15).then(|| self.service_type()),
            claim,
            ttl_ms: one_of(&mut self.rng, habits.ttls),
            bulk: habits.bulk,
        }
    }

    /// An id, and the generation that this client has last given it, if it says so.
    fn known_id(&mut self) -> (String, Option<u64>) {
        let id = self.id();
        let generation = self.generations.get(&id).copied().filter(|_| self.rng.random_bool(0.5));
        (id, generation)
    }

    /// Remembers what it is told of its own registrations.
    fn hear(&mut self, reply: &Value) {
        if let (Some(id), Some(generation)) = (reply["service_id"].as_str(), reply["generation"].as_u64()) {
            self.generations.insert(id.into(), generation);
        }
    }

    fn id(&mut self) -> String {
        format!("s{}", self.rng.random_range(0..self.around.habits.ids))
    }

    pub(crate) fn service_type(&mut self) -> String {
        TYPES[self.rng.random_range(0..TYPES.len())].into()
    }
}

fn read(reply: &[u8]) -> Value {
    serde_json::from_slice(reply).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(reply)))
}

pub(crate) fn one_of<T: Copy>(rng: &mut StdRng, choices: &[T]) -> T {
    choices[rng.random_range(0..choices.len())]
}
