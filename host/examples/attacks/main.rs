//! Attacks on a registry, and what another client notices of them: `bench/attacks` builds and runs it.
//!
//! Each attack gets a registry of its own, in an empty directory and on free ports of the loopback address. While it
//! goes on, a [witness] asks for `health`, one request after the other, and the process's resident memory is
//! read. What is seen is printed beside the goals; if one is missed, the program ends with 1.
//!
//! It is a measurement: on a busy machine look at the column `machine` first, which is the longest time that the
//! witness itself was kept waiting for a processor.

mod client;
mod crowds;
mod flood;
mod host;
mod http;
mod many;
mod messages;
mod requests;
mod unread;
mod waits;
mod web;
mod witness;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::host::Host;
use crate::witness::Seen;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The goals for another client's `health`.
const P99_MAX_MS: f64 = 20.0;
const SILENCE_MAX_MS: f64 = 50.0;

/// Attacks a registry, and measures what another client notices.
///
/// Prints a table, and ends with 1 if a goal was missed: p99 of `health` at most 20 ms, no silence over 50 ms, memory
/// within the limits, and true answers.
#[derive(Parser)]
struct Plan {
    /// The attacks; all of them if none is named. `--list` shows them.
    attacks: Vec<String>,
    /// The registry to attack, with its plugins beside it. If it is not given, the one that was built along.
    #[arg(long)]
    registry: Option<PathBuf>,
    /// Runs each attack with this plugin, instead of those that it is meant for.
    #[arg(long)]
    plugin: Option<String>,
    /// Shows the attacks.
    #[arg(long)]
    list: bool,
}

/// One attack.
struct Attack {
    name: &'static str,
    about: &'static str,
    /// With which plugins it is run.
    plugins: &'static [&'static str],
    /// The configuration, where it is not the default.
    settings: &'static [(&'static str, &'static str)],
    /// How much resident memory may grow, in MB.
    growth_max_mb: Option<f64>,
    run: fn(&Host) -> Result<Report>,
}

/// What came of an attack.
struct Report {
    seen: Seen,
    /// What else is worth knowing.
    note: String,
    /// Goals beside those for time and memory that were missed.
    missed: Vec<String>,
}

impl Report {
    /// A report on an attack with no goals of its own.
    fn new(seen: Seen, note: String) -> Self {
        Report { seen, note, missed: Vec::new() }
    }

    /// Adds a goal of the attack's own.
    fn goal(mut self, is_met: bool, goal: &str) -> Self {
        if !is_met {
            self.missed.push(goal.to_owned());
        }
        self
    }
}

fn attacks() -> Vec<Attack> {
    [
        messages::attacks(),
        unread::attacks(),
        many::attacks(),
        crowds::attacks(),
        flood::attacks(),
        waits::attacks(),
        http::attacks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> Result<ExitCode> {
    let plan = Plan::parse();
    let all = attacks();
    if plan.list {
        for attack in &all {
            println!("{:<20} {} ({})", attack.name, attack.about, attack.plugins.join(", "));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = plan.attacks.iter().find(|name| all.iter().all(|attack| attack.name != **name)) {
        let names: Vec<_> = all.iter().map(|attack| attack.name).collect();
        return Err(format!("no attack {unknown:?}: choose from {}", names.join(", ")).into());
    }
    let registry = match plan.registry {
        Some(registry) => registry.canonicalize().map_err(|error| format!("{}: {error}", registry.display()))?,
        None => host::built_along()?,
    };
    println!(
        "Goals: p99 of another client's `health` <= {P99_MAX_MS} ms, silence <= {SILENCE_MAX_MS} ms, growth as shown."
    );
    println!("`machine`: the longest that the witness itself waited for a processor. Milliseconds and MB.\n");
    println!("| attack | plugin | p50 | p99 | silence | machine | growth | goal | missed | seen |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |");
    let mut missed = 0;
    for attack in all.iter().filter(|attack| plan.attacks.is_empty() || plan.attacks.iter().any(|n| n == attack.name)) {
        let chosen: Vec<&str> = plan.plugin.as_deref().map_or(attack.plugins.to_vec(), |plugin| vec![plugin]);
        for plugin in chosen {
            missed += usize::from(!try_one(attack, &registry, plugin)?);
        }
    }
    if missed > 0 {
        println!("\n{missed} missed a goal.");
        return Ok(ExitCode::FAILURE);
    }
    println!("\nAll goals were met.");
    Ok(ExitCode::SUCCESS)
}

/// Runs one attack against a fresh registry and prints its row. Whether all goals were met.
fn try_one(attack: &Attack, registry: &std::path::Path, plugin: &str) -> Result<bool> {
    eprintln!("attacks: {} ({plugin})", attack.name);
    let mut host = Host::start(registry, plugin, attack.settings)?;
    let ran = (attack.run)(&host);
    let ended = host.has_ended()?;
    let name = attack.name;
    let (row, is_met) = match ran {
        Ok(Report { seen, note, mut missed }) => {
            let goals = [
                (seen.p99_ms > P99_MAX_MS, "p99"),
                (seen.silence_ms > SILENCE_MAX_MS, "silence"),
                (attack.growth_max_mb.is_some_and(|max| seen.growth_mb > max), "growth"),
                (ended, "the registry has ended"),
            ];
            missed.extend(goals.into_iter().filter(|(is_missed, _)| *is_missed).map(|(_, goal)| goal.to_owned()));
            let Seen { p50_ms, p99_ms, silence_ms, machine_ms, growth_mb } = seen;
            let goal = attack.growth_max_mb.map_or("-".to_owned(), |max| format!("{max:.0}"));
            let figures = format!("{p50_ms:.2} | {p99_ms:.1} | {silence_ms:.0} | {machine_ms:.0} | {growth_mb:.0}");
            let is_met = missed.is_empty();
            (format!("| {figures} | {goal} | {} | {note} |", missed.join(", ")), is_met)
        }
        Err(error) => (format!("| - | - | - | - | - | - | all | {error} |"), false),
    };
    println!("| {name} | {plugin} {row}");
    Ok(is_met)
}
