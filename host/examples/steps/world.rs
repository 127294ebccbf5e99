//! What the work is done on, and what there is before.

use rand::SeedableRng;
use rand::rngs::StdRng;
use registry_host::protocol::request::{Limits, Port, parse};
use registry_host::registry::{About, Following, Now, Output, Policy, Promises, Registry};
use registry_host::security::access::{Access, Pattern};
use registry_host::security::key::PublicKey;
use registry_host::security::origin::Holder;
use registry_host::security::principal::Principal;
use registry_host::security::quota::{Quota, Quotas, Rate, Whose};
use registry_plugin_api::{Outcome, Position, Record};

const KEY: PublicKey = PublicKey::from_bytes([1; 32]);

/// A core, its clock, and a store that does whatever it is asked to do.
pub(crate) struct World {
    pub(crate) registry: Registry<()>,
    pub(crate) now: Now,
    pub(crate) out: Output<()>,
    pub(crate) answered: usize,
    /// Who asks.
    pub(crate) principal: Principal,
}

impl World {
    pub(crate) fn new() -> Self {
        let policy = Policy {
            enforce_unique_service_types: false,
            allow_swap: false,
            allow_terminate: false,
            reply_timeout_ms: 400,
            cleanup_interval_ms: 10_000,
            call_timeout_ms: 5_000,
            pending_changes_max: usize::MAX,
            pending_bytes_max: usize::MAX,
            services_bytes_max: usize::MAX,
            access: Access::open(),
            following: Following { watchers: usize::MAX, watchers_per_address: usize::MAX, ..Following::default() },
            mass_expiry_share: 0.0,
            mass_expiry_hold_ms: 30_000,
        };
        let rng = StdRng::seed_from_u64(1);
        let registry = Registry::new(policy, Promises::default(), About::default(), Position::new("e", 0), rng);
        World { registry, now: Now::default(), out: Output::default(), answered: 0, principal: Principal::Nobody }
    }

    pub(crate) fn ask(&mut self, request: &str) {
        let limits = Limits { types: usize::MAX, json_depth: usize::MAX, ..Limits::default() };
        match parse(request.as_bytes(), Port::Requests, &limits).request {
            Ok(request) => match self.registry.admit(self.principal.into(), Some(&request), self.now) {
                Ok(()) => self.registry.request((), self.principal, request, self.now, &mut self.out),
                Err(refusal) => self.out.replies.push(((), refusal)),
            },
            Err(_) => panic!("{} is no request", &request[..request.len().min(100)]),
        }
        self.finish_reads();
        self.take();
    }

    /// Has what was put off answered.
    pub(crate) fn finish_reads(&mut self) {
        while self.registry.has_put_off() {
            self.registry.tick(self.now, &mut self.out);
        }
    }

    /// Asks for more than may be asked for.
    pub(crate) fn ask_too_much(&mut self, request: &str) {
        let refusal = parse(request.as_bytes(), Port::Requests, &Limits::default()).request.err();
        self.answered += refusal.expect("it is refused").finish(None).rest().len();
    }

    /// Lists all services, or types, page by page.
    pub(crate) fn pages(&mut self, action: &str, how: &str) {
        let mut cursor = String::new();
        loop {
            let request = format!("{{\"action\":\"{action}\",{how}{cursor}}}");
            let request = parse(request.as_bytes(), Port::Requests, &Limits::default()).request.expect("it is right");
            self.registry.request((), Principal::Nobody, request, self.now, &mut self.out);
            self.finish_reads();
            let (_, page) = self.out.replies.pop().expect("a page needs no more than a turn");
            let page = page.finish(None).into_text();
            self.answered += page.len();
            let Some((_, next)) = page.rsplit_once("\"cursor\":") else { return };
            cursor = format!(",\"cursor\":{}", next.trim_end_matches('}'));
        }
    }

    pub(crate) fn take(&mut self) {
        self.answered += self.out.replies.drain(..).map(|(_, reply)| reply.finish(None).rest().len()).sum::<usize>();
        self.answered += self.out.events.drain(..).map(|(event, _)| event.json.len()).sum::<usize>();
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.uptime_ms += ms;
        self.registry.tick(self.now, &mut self.out);
        self.take();
    }

    pub(crate) fn store(&mut self) {
        while let Some(group) = self.registry.next_group(self.now, &mut self.out) {
            let outcomes = vec![Outcome::Done; group.changes.len()];
            self.registry.committed(Ok(outcomes), self.now, &mut self.out);
            self.take();
        }
        self.take();
    }

    pub(crate) fn finish_watches(&mut self) {
        self.pass(0);
        while self.registry.has_news() || self.registry.is_watched() && self.registry.wake_at_ms() <= self.now.uptime_ms
        {
            self.pass(0);
        }
    }

    pub(crate) fn finish_lists(&mut self) {
        while self.registry.has_lists() {
            self.registry.continue_lists(true, self.now, &mut self.out);
        }
        self.take();
    }

    /// Services of the type `web` with this ttl.
    pub(crate) fn fill(&mut self, count: usize, ttl_ms: u64) {
        for i in 0..count {
            let document = format!("{{\"id\":\"s{i}\",\"name\":\"N\",\"host\":\"h\",\"port\":1}}");
            let mut record = Record::new(format!("s{i}"), document);
            (record.ttl_ms, record.types) = (ttl_ms, vec!["web".to_string()]);
            self.registry.load(record, self.now).expect("the record is a service's");
        }
    }
}

pub(crate) fn nothing(_: &mut World, _: usize) {}

pub(crate) fn passing(world: &mut World, n: usize) {
    world.fill(n, 1_000_000);
}

/// As many clients named by a quota, of which the last one asks.
fn named(n: usize) -> Vec<Whose> {
    let key = |i: usize| PublicKey::from_bytes(std::array::from_fn(|at| (i >> (8 * at.min(7))) as u8));
    (2..n + 2).map(key).chain([KEY]).map(|key| Whose::One(Holder::Key(key))).collect()
}

/// Each client may have three services of some types, and all that ask are one.
pub(crate) fn quotas(world: &mut World, n: usize) {
    let quota = |name: &str, services, types: &[&str]| Quota {
        name: name.into(),
        clients: named(n),
        services: Some(services),
        types: types.iter().map(|text| Pattern::new(*text)).collect(),
        requests: None,
    };
    world.registry.set_quotas(Quotas::new(vec![quota("few", 3, &["t1", "w*"]), quota("all", 100, &[])]));
    world.pass(0);
    world.principal = Principal::Key(KEY);
}

pub(crate) fn rates(world: &mut World, n: usize) {
    let requests = Some(Rate { per_second: 0.1, burst: 1.0 });
    let (name, clients) = ("seldom".into(), named(n));
    world.registry.set_quotas(Quotas::new(vec![Quota { name, clients, services: None, types: Vec::new(), requests }]));
    world.principal = Principal::Key(KEY);
}

/// As many types as services.
pub(crate) fn types(world: &mut World, n: usize) {
    for i in 0..n {
        let mut record =
            Record::new(format!("s{i}"), format!("{{\"id\":\"s{i}\",\"name\":\"N\",\"host\":\"h\",\"port\":1}}"));
        (record.ttl_ms, record.types) = (1_000_000, vec![format!("t{i}")]);
        world.registry.load(record, world.now).expect("the record is a service's");
    }
}

pub(crate) fn critical(world: &mut World, n: usize) {
    world.fill(n, 1);
    world.pass(2);
    while world.registry.wake_at_ms() == 0 {
        world.pass(0);
    }
}

pub(crate) fn each(n: usize, mut what: impl FnMut(usize)) {
    (0..n).for_each(&mut what);
}

pub(crate) fn register(number: usize, service_type: &str, more: &str) -> String {
    format!(
        "{{\"action\":\"register\",\"ttl\":1000,\"service_info\":{{\"id\":\"s{number}\",\"name\":\"N\",\"host\":\"h\",\
         \"port\":1,\"type\":\"{service_type}\"{more}}}}}"
    )
}

pub(crate) fn by_id(action: &str, number: usize) -> String {
    format!("{{\"action\":\"{action}\",\"service_id\":\"s{number}\"}}")
}

pub(crate) fn update(number: usize, fields: &str) -> String {
    format!("{{\"action\":\"update\",\"service_id\":\"s{number}\",\"metadata\":{{{fields}}}}}")
}
