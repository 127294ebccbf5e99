//! Lets the core do one kind of work of a given size, for counting its instructions: see `tests/linear.rs`.
//!
//! usage: steps KIND SIZE

use rand::SeedableRng;
use rand::rngs::StdRng;
use registry_host::protocol::request::{Limits, Port, parse};
use registry_host::registry::{About, Following, Now, Output, Policy, Promises, Registry};
use registry_host::security::access::Access;
use registry_host::security::principal::Principal;
use registry_plugin_api::{Error, Outcome, Position, Record};

type Kind = (&'static str, fn(&mut World, usize), fn(&mut World, usize));

/// Each kind of work: what is there before, and what is counted. `n` is the size.
const KINDS: [Kind; 44] = [
    ("register-ids", nothing, |world, n| {
        each(n, |i| world.ask(&register(i, "web", "")));
        world.store();
    }),
    ("register-one-id", nothing, |world, n| {
        each(n, |_| world.ask(&register(0, "web", "")));
        world.store();
    }),
    ("register-and-deregister-one-id", nothing, |world, n| {
        each(n, |_| {
            world.ask(&register(0, "web", ""));
            world.ask(&by_id("deregister", 0));
            world.ask(&by_id("deregister", 0));
        });
        world.store();
    }),
    ("register-with-tags", nothing, |world, n| {
        let tags: Vec<String> = (0..n).map(|i| format!("\"t{i}\"")).collect();
        world.ask(&register(0, "web", &format!(",\"tags\":[{}]", tags.join(","))));
        world.store();
    }),
    ("register-with-fields", nothing, |world, n| {
        let fields: Vec<String> = (0..n).map(|i| format!(",\"f{i}\":1")).collect();
        world.ask(&register(0, "web", &fields.concat()));
        world.store();
    }),
    ("register-with-metadata", nothing, |world, n| {
        let fields: Vec<String> = (0..n).map(|i| format!("\"f{i}\":1")).collect();
        world.ask(&register(0, "web", &format!(",\"metadata\":{{{}}}", fields.join(","))));
        world.store();
    }),
    ("register-with-text", nothing, |world, n| {
        world.ask(&register(0, "web", &format!(",\"note\":\"{}\"", "é\\n".repeat(n))));
        world.store();
    }),
    ("register-with-nesting", nothing, |world, n| {
        world.ask(&register(0, "web", &format!(",\"note\":{}{}", "[".repeat(n), "]".repeat(n))));
        world.store();
    }),
    ("singletons-of-one-type", nothing, |world, n| {
        each(n, |i| world.ask(&register(i, "web", ",\"singleton\":true")));
        world.store();
    }),
    ("singletons-of-many-types", nothing, |world, n| {
        each(n, |i| world.ask(&register(i, &format!("t{i}"), ",\"singleton\":true")));
        world.store();
    }),
    ("singleton-over-critical", critical, |world, n| {
        world.ask(&register(n, "web", ",\"singleton\":true"));
        world.store();
    }),
    ("singletons-over-deregistered", critical, |world, n| {
        each(n, |i| world.ask(&by_id("deregister", i)));
        each(n, |i| world.ask(&register(i, "web", ",\"singleton\":true")));
        world.store();
    }),
    ("deregister", passing, |world, n| {
        each(n, |i| world.ask(&by_id("deregister", i)));
        world.store();
    }),
    ("deregister-unknown", nothing, |world, n| {
        each(n, |i| world.ask(&by_id("deregister", i)));
        world.store();
    }),
    ("renew", passing, |world, n| {
        each(n, |i| world.ask(&by_id("renew", i)));
        world.pass(1000);
        world.store();
    }),
    ("renew-many", passing, |world, n| {
        for first in (0..n).step_by(100) {
            let ids: Vec<String> = (first..n.min(first + 100)).map(|i| format!("\"s{i}\"")).collect();
            world.ask(&format!("{{\"action\":\"renew\",\"services\":[{}]}}", ids.join(",")));
        }
        world.pass(1000);
        world.store();
    }),
    ("renew-replaced", passing, |world, n| {
        each(n, |i| world.ask(&format!("{{\"action\":\"renew\",\"service_id\":\"s{i}\",\"generation\":7}}")));
        each(n, |_| world.ask("{\"action\":\"renew\",\"service_id\":\"s0\",\"generation\":7}"));
    }),
    ("update-ids", passing, |world, n| {
        each(n, |i| world.ask(&update(i, "\"a\":1")));
        world.store();
    }),
    ("update-one-id", passing, |world, n| {
        each(n, |i| world.ask(&update(0, &format!("\"a\":{{\"b\":{i}}}"))));
        world.store();
    }),
    ("update-with-many-keys", passing, |world, n| {
        let keys = |value: &str| (0..n).map(|i| format!("\"f{i}\":{value}")).collect::<Vec<_>>().join(",");
        for value in ["1", "{\"a\":2}", "null"] {
            world.ask(&update(0, &keys(value)));
        }
        world.store();
    }),
    ("history", passing, |world, n| {
        each(n, |_| world.ask(&by_id("deregister", 0)));
        each(n, |i| {
            world.ask(&register(i, "web", ""));
            world.ask(&by_id("history", i));
        });
        world.store();
        each(n, |i| world.ask(&by_id("history", i)));
    }),
    ("get", passing, |world, n| each(n, |i| world.ask(&by_id("get", i)))),
    ("discover", passing, |world, n| {
        each(n, |_| world.ask("{\"action\":\"discover\",\"service_type\":\"web\"}"));
    }),
    (
        "discover-behind",
        |world, n| world.fill(n, 1),
        |world, n| {
            world.now.uptime_ms += 10_000;
            each(n, |_| world.ask("{\"action\":\"discover\",\"service_type\":\"web\"}"));
        },
    ),
    ("list", passing, |world, _| {
        world.ask("{\"action\":\"list\"}");
        world.finish_lists();
    }),
    ("clean-up", critical, |world, _| {
        world.registry.clean_up(world.now);
        world.store();
    }),
    ("failing-store", nothing, |world, n| {
        each(n, |i| world.ask(&register(i, "web", "")));
        for _ in 0..3 {
            if world.registry.next_group(world.now, &mut world.out).is_some() {
                world.registry.committed(Err(Error::unavailable("it is away")), world.now, &mut world.out);
            }
            world.pass(200);
        }
        world.store();
    }),
    ("list-filtered", passing, |world, _| {
        world.ask("{\"action\":\"list\",\"service_type\":\"web\",\"metadata\":{\"a\":1},\"fields\":[\"host\"]}");
        world.finish_lists();
    }),
    ("list-in-pages", passing, |world, _| world.pages("list", "\"limit\":100")),
    ("list-filtered-in-pages", passing, |world, _| world.pages("list", "\"limit\":10,\"version\":\"1\"")),
    ("types-in-pages", types, |world, _| world.pages("types", "\"limit\":10")),
    ("discover-several", passing, |world, n| {
        each(n, |_| world.ask("{\"action\":\"discover\",\"service_type\":\"web\",\"limit\":10}"));
    }),
    ("discover-nobody", passing, |world, n| {
        each(n, |_| world.ask("{\"action\":\"discover\",\"service_type\":\"web\",\"metadata\":{\"a\":1}}"));
        while world.registry.is_searching() {
            world.pass(0);
        }
    }),
    ("discover-and-wait", nothing, |world, n| {
        each(n, |_| world.ask("{\"action\":\"discover\",\"service_type\":\"web\",\"wait\":9}"));
        world.ask(&register(0, "web", ""));
        world.store();
        while world.registry.wake_at_ms() == 0 {
            world.pass(0);
        }
    }),
    ("discover-and-wait-in-vain", nothing, |world, n| {
        each(n, |i| {
            let version = format!("\"version\":\"{i}\",\"wait\":9");
            world.ask(&format!("{{\"action\":\"discover\",\"service_type\":\"web\",{version}}}"));
        });
        each(10, |i| world.ask(&register(i, "web", "")));
        world.store();
        while world.registry.wake_at_ms() == 0 {
            world.pass(0);
        }
        world.pass(9000);
        while world.registry.wake_at_ms() <= world.now.uptime_ms {
            world.pass(0);
        }
    }),
    ("filter-with-tags", nothing, |world, n| {
        let tags: Vec<String> = (0..n).map(|i| format!("\"t{i}\"")).collect();
        world.ask_too_much(&format!("{{\"action\":\"list\",\"tags\":[{}]}}", tags.join(",")));
    }),
    ("filter-with-metadata", nothing, |world, n| {
        let fields: Vec<String> = (0..n).map(|i| format!("\"f{i}\":1")).collect();
        world.ask_too_much(&format!("{{\"action\":\"list\",\"metadata\":{{{}}}}}", fields.join(",")));
    }),
    // One change, and all who wait for it.
    (
        "watch-one-change",
        |world, n| each(n, |_| world.ask(WATCH)),
        |world, _| {
            world.ask(&register(0, "web", ""));
            world.store();
            world.finish_watches();
        },
    ),
    // As many changes as there are watchers, and each concerns one of them.
    (
        "watch-types",
        |world, n| each(n, |i| world.ask(&watch(&format!(",\"service_type\":\"t{i}\"")))),
        |world, n| {
            each(n, |i| world.ask(&register(i, &format!("t{i}"), "")));
            world.store();
            world.finish_watches();
        },
    ),
    // Many changes that concern none of those who wait.
    (
        "watch-others",
        |world, n| each(n, |i| world.ask(&watch(&format!(",\"service_type\":\"t{i}\"")))),
        |world, n| {
            each(n, |i| world.ask(&register(i, "web", "")));
            world.store();
            world.finish_watches();
        },
    ),
    // Each with a filter of its own that one change concerns or not.
    (
        "watch-filters",
        |world, n| each(n, |i| world.ask(&watch(&format!(",\"service_type\":\"web\",\"metadata\":{{\"f\":{i}}}")))),
        |world, _| {
            world.ask(&register(0, "web", ",\"metadata\":{\"f\":7}"));
            world.store();
            world.finish_watches();
        },
    ),
    ("watch-history", changes, |world, n| {
        for after in (0..n).step_by(100) {
            world.ask(&format!("{{\"action\":\"watch\",\"epoch\":\"e\",\"after\":{after},\"limit\":100}}"));
        }
    }),
    ("watch-rare", changes, |world, n| {
        each(10, |_| world.ask("{\"action\":\"watch\",\"epoch\":\"e\",\"after\":0,\"service_type\":\"rare\"}"));
        std::hint::black_box(n);
    }),
    ("watch-in-vain", nothing, |world, n| {
        each(n, |_| world.ask(WATCH));
        world.pass(600_000);
        world.finish_watches();
    }),
];

const WATCH: &str = "{\"action\":\"watch\",\"wait\":600}";

fn watch(more: &str) -> String {
    format!("{{\"action\":\"watch\",\"wait\":600{more}}}")
}

/// As many changes as the size says.
fn changes(world: &mut World, n: usize) {
    each(n, |i| world.ask(&register(i, "web", "")));
    world.store();
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(name), Some(size)) = (arguments.next(), arguments.next().and_then(|size| size.parse().ok())) else {
        KINDS.iter().for_each(|(name, ..)| println!("{name}"));
        return;
    };
    let Some((_, prepare, work)) = KINDS.iter().find(|(kind, ..)| *kind == name) else {
        eprintln!("steps: there is no kind {name:?}");
        std::process::exit(2);
    };
    let mut world = World::new();
    prepare(&mut world, size);
    counted(*work, &mut world, size);
}

/// What is counted happens in here.
#[inline(never)]
fn counted(work: fn(&mut World, usize), world: &mut World, size: usize) {
    work(world, std::hint::black_box(size));
    std::hint::black_box(world.answered);
}

/// A core, its clock, and a store that does whatever it is asked to do.
struct World {
    registry: Registry<()>,
    now: Now,
    out: Output<()>,
    answered: usize,
}

impl World {
    fn new() -> Self {
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
        World { registry, now: Now::default(), out: Output::default(), answered: 0 }
    }

    fn ask(&mut self, request: &str) {
        let limits = Limits { types: usize::MAX, json_depth: usize::MAX, ..Limits::default() };
        match parse(request.as_bytes(), Port::Requests, &limits).request {
            Ok(request) => self.registry.request((), Principal::Nobody, request, self.now, &mut self.out),
            Err(_) => panic!("{} is no request", &request[..request.len().min(100)]),
        }
        self.finish_reads();
        self.take();
    }

    /// Has what was put off answered.
    fn finish_reads(&mut self) {
        while self.registry.has_put_off() {
            self.registry.tick(self.now, &mut self.out);
        }
    }

    /// Asks for more than may be asked for.
    fn ask_too_much(&mut self, request: &str) {
        let refusal = parse(request.as_bytes(), Port::Requests, &Limits::default()).request.err();
        self.answered += refusal.expect("it is refused").finish(None).rest().len();
    }

    /// Lists all services, or types, page by page.
    fn pages(&mut self, action: &str, how: &str) {
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

    fn take(&mut self) {
        self.answered += self.out.replies.drain(..).map(|(_, reply)| reply.finish(None).rest().len()).sum::<usize>();
        self.answered += self.out.events.drain(..).map(|(event, _)| event.json.len()).sum::<usize>();
    }

    fn pass(&mut self, ms: u64) {
        self.now.uptime_ms += ms;
        self.registry.tick(self.now, &mut self.out);
        self.take();
    }

    fn store(&mut self) {
        while let Some(group) = self.registry.next_group(self.now, &mut self.out) {
            let outcomes = vec![Outcome::Done; group.changes.len()];
            self.registry.committed(Ok(outcomes), self.now, &mut self.out);
            self.take();
        }
        self.take();
    }

    fn finish_watches(&mut self) {
        self.pass(0);
        while self.registry.has_news() || self.registry.is_watched() && self.registry.wake_at_ms() <= self.now.uptime_ms
        {
            self.pass(0);
        }
    }

    fn finish_lists(&mut self) {
        while self.registry.has_lists() {
            self.registry.continue_lists(true, self.now, &mut self.out);
        }
        self.take();
    }

    /// Services of the type `web` with this ttl.
    fn fill(&mut self, count: usize, ttl_ms: u64) {
        for i in 0..count {
            let document = format!("{{\"id\":\"s{i}\",\"name\":\"N\",\"host\":\"h\",\"port\":1}}");
            let mut record = Record::new(format!("s{i}"), document);
            (record.ttl_ms, record.types) = (ttl_ms, vec!["web".to_string()]);
            self.registry.load(record, self.now).expect("the record is a service's");
        }
    }
}

fn nothing(_: &mut World, _: usize) {}

fn passing(world: &mut World, n: usize) {
    world.fill(n, 1_000_000);
}

/// As many types as services.
fn types(world: &mut World, n: usize) {
    for i in 0..n {
        let mut record =
            Record::new(format!("s{i}"), format!("{{\"id\":\"s{i}\",\"name\":\"N\",\"host\":\"h\",\"port\":1}}"));
        (record.ttl_ms, record.types) = (1_000_000, vec![format!("t{i}")]);
        world.registry.load(record, world.now).expect("the record is a service's");
    }
}

fn critical(world: &mut World, n: usize) {
    world.fill(n, 1);
    world.pass(2);
    while world.registry.wake_at_ms() == 0 {
        world.pass(0);
    }
}

fn each(n: usize, mut what: impl FnMut(usize)) {
    (0..n).for_each(&mut what);
}

fn register(number: usize, service_type: &str, more: &str) -> String {
    format!(
        "{{\"action\":\"register\",\"ttl\":1000,\"service_info\":{{\"id\":\"s{number}\",\"name\":\"N\",\"host\":\"h\",\
         \"port\":1,\"type\":\"{service_type}\"{more}}}}}"
    )
}

fn by_id(action: &str, number: usize) -> String {
    format!("{{\"action\":\"{action}\",\"service_id\":\"s{number}\"}}")
}

fn update(number: usize, fields: &str) -> String {
    format!("{{\"action\":\"update\",\"service_id\":\"s{number}\",\"metadata\":{{{fields}}}}}")
}
