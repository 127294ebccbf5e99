//! Random histories of requests, time and a store that fails in every way it may: whatever happens, each request is
//! answered once and in time, what is announced is what there is, also to a client that lists in pages and applies what
//! was announced since the first, a unique type has one healthy service, and in the end the store holds what the core
//! holds.

use std::collections::BTreeMap;

use rand::RngExt;

use super::*;

const HISTORIES: u64 = 100;
const STEPS: usize = 250;
const IDS: u32 = 7;
/// Only singletons register with it.
const UNIQUE: &str = "unique";

#[test]
fn whatever_happens_core_store_and_clients_agree() {
    let mut paged = (0, 0);
    for seed in 0..HISTORIES {
        let mut history = History::new(seed);
        for _ in 0..STEPS {
            history.step();
        }
        history.end();
        paged = (paged.0 + history.paged.0, paged.1 + history.paged.1);
    }
    assert!(paged.0 > 1000 && paged.1 > 200, "lists in pages, and with changes meanwhile: {paged:?}");
}

struct History {
    seed: u64,
    rng: StdRng,
    registry: Registry<usize>,
    now: Now,
    out: Output<usize>,
    /// When each request was made, and whether it was answered.
    asked: Vec<(u64, bool)>,
    /// What the events tell.
    announced: BTreeMap<String, Value>,
    last_revision: u64,
    /// Each change that was announced: its revision, of whom, and the record if there is one now.
    told: Vec<(u64, String, Option<Value>)>,
    /// A list that is under way, page by page: the revision of the first page, the cursor, and what was on them.
    pages: Option<(u64, Value, BTreeMap<String, Value>)>,
    /// How many such lists came to their end, and how many of those with changes meanwhile.
    paged: (usize, usize),
    /// The store.
    stored: BTreeMap<String, Record>,
    under_way: Option<Vec<Change>>,
}

impl History {
    fn new(seed: u64) -> Self {
        let policy = Policy { cleanup_interval_ms: 1000, pending_changes_max: 8, ..policy() };
        History {
            seed,
            rng: StdRng::seed_from_u64(seed),
            registry: Registry::new(
                policy,
                Promises::default(),
                About::default(),
                Position::new("e", 0),
                StdRng::seed_from_u64(seed),
            ),
            now: Now { uptime_ms: 0, unix_ms: 1_700_000_000_000 },
            out: Output::default(),
            asked: Vec::new(),
            announced: BTreeMap::new(),
            last_revision: 0,
            told: Vec::new(),
            pages: None,
            paged: (0, 0),
            stored: BTreeMap::new(),
            under_way: None,
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..10) {
            0..3 => self.ask(),
            3..5 => self.take_group(),
            5..8 => self.commit(),
            _ => self.pass(),
        }
        self.check();
        if self.rng.random_bool(0.5) {
            self.turn_page();
        }
    }

    /// Asks for the next page of a list. After the last one, pages and changes tell what there is.
    fn turn_page(&mut self) {
        let (mut request, seed) = (json!({"action": "list", "limit": self.rng.random_range(1..4)}), self.seed);
        let before = self.pages.take();
        if let Some((_, cursor, _)) = &before {
            request["cursor"] = cursor.clone();
        }
        let page = self.read(&request);
        let revision = page["revision"].as_u64().expect("a page has a revision");
        let mut known = before.map_or_else(BTreeMap::new, |(first, _, known)| {
            assert_eq!(revision, first, "seed {seed}: the first page's");
            known
        });
        known.extend(
            page["services"].as_array().expect("a page has services").iter().map(|one| (id_of(one), fixed(one))),
        );
        if let Some(cursor) = page.get("cursor") {
            self.pages = Some((revision, cursor.clone(), known));
            return;
        }
        let since = self.told.iter().filter(|(told, ..)| *told > revision);
        let changes = since.clone().count();
        for (_, id, record) in since {
            match record {
                Some(record) => drop(known.insert(id.clone(), record.clone())),
                None => drop(known.remove(id)),
            }
        }
        assert_eq!(known, self.announced, "seed {seed}: pages, and {changes} changes since {revision}");
        self.paged.0 += 1;
        self.paged.1 += usize::from(changes > 0);
    }

    fn ask(&mut self) {
        let id = format!("s{}", self.rng.random_range(0..IDS));
        let request = match self.rng.random_range(0..6) {
            0 | 1 => {
                let service_type = ["web", "mail"][self.rng.random_range(0..2)];
                with_ttl(register(&id, service_type), &mut self.rng)
            }
            2 => with_ttl(singleton(&id, UNIQUE), &mut self.rng),
            3 => deregister(&id),
            _ => renew(&id),
        };
        let request = parse(request.to_string().as_bytes(), Port::Requests, &Limits::default())
            .request
            .expect("it is well-formed");
        let caller = self.asked.len();
        self.asked.push((self.now.uptime_ms, false));
        self.registry.request(caller, Principal::Nobody, request, self.now, &mut self.out);
    }

    fn pass(&mut self) {
        let ms = [1, 30, 200, 700][self.rng.random_range(0..4)];
        self.now.uptime_ms += ms;
        self.now.unix_ms += ms;
        self.registry.tick(self.now, &mut self.out);
        if self.registry.is_cleanup_due(self.now) {
            self.registry.clean_up(self.now);
        }
    }

    fn take_group(&mut self) {
        if self.under_way.is_none() {
            let group = self.registry.next_group(self.now, &mut self.out);
            self.under_way = group.map(|group| group.changes);
        }
    }

    /// The store does what it was asked to do, or a part of it, or nothing, and may say that it has failed.
    fn commit(&mut self) {
        let Some(changes) = self.under_way.take() else { return };
        let result = match self.rng.random_range(0..10) {
            0 => {
                let done = self.rng.random_range(0..=changes.len());
                self.make(&changes[..done]);
                Err(failed())
            }
            1 => Ok(changes.iter().flat_map(|change| self.refuse(change)).collect()),
            _ => Ok(self.make(&changes)),
        };
        self.registry.committed(result, self.now, &mut self.out);
    }

    /// The store cannot take what it has not got.
    fn refuse(&mut self, change: &Change) -> Vec<Outcome> {
        match change {
            Change::Put(_) => vec![Outcome::Refused(failed())],
            other => self.make(std::slice::from_ref(other)),
        }
    }

    fn make(&mut self, changes: &[Change]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for change in changes {
            if !matches!(change, Change::Put(_)) && !self.stored.contains_key(change.id()) {
                outcomes.push(Outcome::Missing);
                continue;
            }
            match change {
                Change::Put(put) => drop(self.stored.insert(put.record.id.clone(), put.record.clone())),
                Change::Remove(remove) => drop(self.stored.remove(&remove.id)),
                Change::Renew(renew) => {
                    self.stored.get_mut(&renew.id).expect("it is there").last_heartbeat_ms = renew.last_heartbeat_ms;
                }
                other => panic!("{other:?}"),
            }
            outcomes.push(Outcome::Done);
        }
        outcomes
    }

    /// What holds at any time.
    fn check(&mut self) {
        let seed = self.seed;
        for (caller, _) in self.out.replies.drain(..) {
            assert!(!self.asked[caller].1, "seed {seed}: a request is answered twice");
            self.asked[caller].1 = true;
        }
        self.registry.tick(self.now, &mut self.out);
        for (caller, _) in self.out.replies.drain(..) {
            self.asked[caller].1 = true;
        }
        let late = self.asked.iter().find(|(asked_ms, done)| !done && asked_ms + 400 <= self.now.uptime_ms);
        assert_eq!(late, None, "seed {seed}: somebody waits at {:?}", self.now);
        for (event, _) in self.out.events.drain(..) {
            let event: Value = serde_json::from_slice(&event.json).expect("an event is JSON");
            let revision = event["revision"].as_u64().expect("an event has a revision");
            assert!(revision > self.last_revision, "seed {seed}: {event} after {}", self.last_revision);
            assert_eq!(event["previous"], self.last_revision, "seed {seed}: {event}");
            self.last_revision = revision;
            let id = event["data"]["service_id"].as_str().expect("an event is about a service").to_string();
            let is_there = event["type"] == "register";
            self.told.push((revision, id.clone(), is_there.then(|| fixed(&event["data"]["service_info"]))));
            match event["type"].as_str() {
                Some("register") => drop(self.announced.insert(id, fixed(&event["data"]["service_info"]))),
                _ => assert!(self.announced.remove(&id).is_some(), "seed {seed}: {event} about nobody"),
            }
        }
        let listed = self.list();
        let there: BTreeMap<String, Value> = listed.iter().map(|service| (id_of(service), fixed(service))).collect();
        assert_eq!(there, self.announced, "seed {seed}: what there is, and what was announced");
        let is_unique = |service: &&Value| service["type"] == UNIQUE && service["health"] == "passing";
        let unique: Vec<_> = listed.iter().filter(is_unique).collect();
        assert!(unique.len() <= 1, "seed {seed}: {unique:?}");
    }

    fn list(&mut self) -> Vec<Value> {
        self.read(&json!({"action": "list"}))["services"].as_array().expect("a list has services").clone()
    }

    /// The answer to a question that is answered at once.
    fn read(&mut self, request: &Value) -> Value {
        let request = parse(request.to_string().as_bytes(), Port::Requests, &Limits::default()).request;
        let mut out = Output::default();
        self.registry.request(0, Principal::Nobody, request.expect("it is well-formed"), self.now, &mut out);
        let reply = out.replies.pop().expect("a list comes at once").1.finish(None).into_text();
        serde_json::from_str(&reply).expect("a reply is JSON")
    }

    /// The store works again, and gets the time that it needs.
    fn end(&mut self) {
        for _ in 0..50 {
            if let Some(changes) = self.under_way.take() {
                let outcomes = self.make(&changes);
                self.registry.committed(Ok(outcomes), self.now, &mut self.out);
            }
            self.now.uptime_ms += 200;
            self.now.unix_ms += 200;
            self.registry.hurry();
            self.take_group();
            self.check();
        }
        let seed = self.seed;
        assert!(self.registry.is_idle(), "seed {seed}: something is left to do");
        assert!(self.asked.iter().all(|(_, done)| *done), "seed {seed}: somebody was not answered");
        let listed = self.list();
        let known = |service: &Value| (id_of(service), (fixed(service), service["last_heartbeat"].as_u64()));
        let there: BTreeMap<_, _> = listed.iter().map(known).collect();
        let stored = |record: &Record| {
            let document = serde_json::from_str(&record.document).expect("a document is JSON");
            (record.id.clone(), (document, Some(record.last_heartbeat_ms / 1000)))
        };
        let stored: BTreeMap<_, _> = self.stored.values().map(stored).collect();
        assert_eq!(there, stored, "seed {seed}: what there is, and what is stored");
    }
}

fn with_ttl(mut request: Value, rng: &mut StdRng) -> Value {
    request["ttl"] = [0.1, 1.0, 30.0][rng.random_range(0..3)].into();
    request
}

fn id_of(service: &Value) -> String {
    service["id"].as_str().expect("a service has an id").to_string()
}

/// What does not move with heartbeats and time.
fn fixed(service: &Value) -> Value {
    let mut fixed = service.clone();
    let fields = fixed.as_object_mut().expect("a service is an object");
    fields.retain(|field, _| field != "last_heartbeat" && field != "health");
    fixed
}
