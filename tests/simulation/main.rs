//! A simulation of the host, and a checker of what comes of it.
//!
//! A [plan](plan) is made from a seed: what clients ask for and when, how the store fails, when the host is held up,
//! stopped or killed, when the wall clock is set. A [world](world) plays it in simulated time, with the real core, the
//! host's loop as it is in `server/mod.rs` ([host]), and a model of a store that fails in every way it may ([store]). What
//! could be seen of that is a [history](history), and the [checker] judges it. The plan of a history that must not be
//! is made as short as it gets ([shrink]) and told as a [story](story).
//!
//! `SIMULATION_SECONDS=3600 cargo test --release --test simulation -- --nocapture` (or `scripts/simulate`) runs it for
//! longer, `SIMULATION_SEED=17` begins at another seed, and together with `SIMULATION_SECONDS=0` it plays that one only.

mod adapter;
mod checker;
mod follower;
// Some of it only a recorded history has.
#[allow(dead_code)]
mod history;
mod host;
mod plan;
mod reached;
mod request;
mod shrink;
mod store;
mod story;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use checker::Verdict;
use plan::Plan;
use reached::Reached;

/// How many seeds a plain `cargo test` plays: about 20 s of a debug build.
const SEEDS: u64 = 1200;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")))
}

/// The story of a plan with a history that must not be, made short.
fn tell(plan: &Plan, rule: &str) -> String {
    let short = shrink::shrink(plan, rule);
    let (history, _) = world::play(&short);
    let story = match checker::judge(&history) {
        Some(verdict) => story::tell(&history, &verdict),
        None => "it cannot be told, for it does not happen again".into(),
    };
    format!("seed {}, {} of {} actions:\n{story}", plan.settings.seed, short.actions.len(), plan.actions.len())
}

/// What a run has come to.
#[derive(Default)]
struct Outcome {
    seeds: u64,
    reached: Reached,
    /// For each rule that was broken: how often, and the first story.
    broken: BTreeMap<&'static str, (u64, String)>,
}

/// Plays one seed after the other, until it is enough.
fn run(next: &AtomicU64, is_enough: &(impl Fn(u64) -> bool + Sync), outcome: &Mutex<Outcome>) {
    loop {
        let count = next.fetch_add(1, Ordering::Relaxed);
        if is_enough(count) {
            return;
        }
        let plan = Plan::from_seed(number("SIMULATION_SEED").unwrap_or(0) + count);
        let (history, reached) = world::play(&plan);
        let verdict = checker::judge(&history);
        let mut all = outcome.lock().expect("no thread panics with it");
        all.seeds += 1;
        all.reached.add(&reached);
        let Some(Verdict { rule, .. }) = verdict else { continue };
        let (times, _) = all.broken.entry(rule).or_default();
        *times += 1;
        let is_first = *times == 1;
        drop(all);
        if is_first {
            let story = tell(&plan, rule);
            println!("{story}");
            outcome.lock().expect("no thread panics with it").broken.entry(rule).or_default().1 = story;
        }
    }
}

#[test]
fn whatever_happens_clients_store_and_events_agree() {
    let seconds = number("SIMULATION_SECONDS");
    let began = Instant::now();
    let is_enough = |count: u64| match seconds {
        Some(seconds) => count > 0 && began.elapsed() >= Duration::from_secs(seconds),
        None => count >= SEEDS,
    };
    let (next, outcome) = (AtomicU64::new(0), Mutex::new(Outcome::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| run(&next, &is_enough, &outcome));
        }
    });
    let Outcome { seeds, reached, broken } = outcome.into_inner().expect("no thread panics with it");
    let hours = reached.simulated_ms as f64 / 3_600_000.0;
    let (requests, took) = (reached.requests, began.elapsed().as_secs_f64());
    println!("{seeds} seeds, {hours:.1} simulated hours, {requests} requests in {took:.1} s");
    for (kind, count) in &reached.counts {
        println!("{count:>9}  {kind}");
    }
    for (rule, (count, _)) in &broken {
        println!("{count:>9}  BROKEN: {rule}");
    }
    if let Some((_, story)) = broken.values().next() {
        panic!("{} rules were broken, the first like this: {story}", broken.len());
    }
    if seeds >= SEEDS {
        assert_eq!(reached.missing(), Vec::<&str>::new(), "what was never reached");
    }
}
