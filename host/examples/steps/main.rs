//! Lets the core do one kind of work of a given size, for counting its instructions: see `tests/linear.rs`.
//!
//! usage: steps KIND SIZE

mod world;

use registry_plugin_api::Error;
use world::*;

type Kind = (&'static str, fn(&mut World, usize), fn(&mut World, usize));

/// Each kind of work: what is there before, and what is counted. `n` is the size.
const KINDS: [Kind; 48] = [
    ("ask-too-often", rates, |world, n| each(n, |_| world.ask("{\"action\":\"types\"}"))),
    ("register-and-deregister-over-quota", quotas, |world, n| {
        each(n, |i| world.ask(&register(i, "web", "")));
        each(n, |i| world.ask(&by_id("deregister", i)));
        each(n, |i| world.ask(&register(i, "web", "")));
        world.store();
    }),
    ("register-over-quota", quotas, |world, n| {
        each(n, |i| world.ask(&register(i, &format!("t{}", i % 7), ",\"tags\":[\"web\"]")));
        world.store();
    }),
    ("clients", nothing, |world, n| {
        each(n, |_| world.ask("{\"action\":\"clients\",\"address\":\"10.0.0.1\"}"));
        world.answered += world.out.roll_calls.drain(..).count();
    }),
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
