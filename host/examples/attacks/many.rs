//! Very many services at once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::host::Host;
use crate::requests::{LIST, register, register_many, services};
use crate::witness::{Witness, milliseconds};
use crate::{Attack, Report, Result};

const CRITICAL: usize = 100_000;
const EXPIRED: usize = 300_000;
const LISTED: usize = 1_000_000;
/// Who ask for the long list, at once.
const READERS: usize = 3;
/// When the first clean-up comes: later than the services are registered and their ttl has passed.
const CLEANUP_SECONDS: u64 = 60;
/// How long before that the witness begins.
const BEFORE: Duration = Duration::from_secs(1);
const CLEANUP_MAX: Duration = Duration::from_secs(60);

pub(crate) fn attacks() -> Vec<Attack> {
    vec![
        Attack {
            name: "singleton",
            about: "a singleton over 100,000 critical services of its type",
            plugins: &["memory"],
            settings: &[("server.cleanup_interval", "3600")],
            growth_max_mb: None,
            run: singleton,
        },
        Attack {
            name: "clean-up",
            about: "300,000 services that expire at once",
            plugins: &["memory", "sqlite"],
            settings: &[("server.cleanup_interval", "60")],
            growth_max_mb: None,
            run: clean_up,
        },
        Attack {
            name: "list",
            about: "3 clients that list 1,000,000 services",
            plugins: &["memory"],
            settings: &[("limits.services_bytes", "1073741824")],
            // Half as much again as may wait by default.
            growth_max_mb: Some(402.0),
            run: list,
        },
    ]
}

fn singleton(host: &Host) -> Result<Report> {
    let start = Instant::now();
    let (taken, _) = register_many(host.requests, CRITICAL, 0.5, &Value::Null)?;
    let registered = start.elapsed();
    sleep(Duration::from_secs(1));
    let mut client = Client::connect(host.requests)?;
    let request = register("only", "t", 3600.0, json!({"singleton": true}));
    let witness = Witness::begin(host)?;
    sleep(Duration::from_millis(200));
    let start = Instant::now();
    let reply = client.ask(&request)?;
    let taken_ms = milliseconds(start.elapsed());
    // What is left to expire still does.
    let start = Instant::now();
    let mut left = services(&mut client)?;
    while left > 1 && start.elapsed() < CLEANUP_MAX && reply.success {
        sleep(Duration::from_millis(20));
        left = services(&mut client)?;
    }
    let note = format!(
        "over {taken} (registered in {:.1} s): {} after {taken_ms:.0} ms; {left} services then",
        registered.as_secs_f64(),
        reply.text()
    );
    Ok(Report::new(witness.end()?, note).goal(reply.success, "answered falsely"))
}

fn clean_up(host: &Host) -> Result<Report> {
    let (taken, refused) = register_many(host.requests, EXPIRED, 0.5, &Value::Null)?;
    let due = host.started + Duration::from_secs(CLEANUP_SECONDS);
    let registered = host.started.elapsed();
    let mut client = Client::connect(host.requests)?;
    if registered + BEFORE * 2 > Duration::from_secs(CLEANUP_SECONDS) || services(&mut client)? < EXPIRED as u64 {
        let why = refused.unwrap_or_else(|| "too slowly".to_owned());
        return Err(format!("only {taken} were registered in {:.0} s: {why}", registered.as_secs_f64()).into());
    }
    sleep((due - BEFORE).saturating_duration_since(Instant::now()));
    let witness = Witness::begin(host)?;
    // From the last look at which all were there.
    let start = Instant::now();
    let mut last_whole = start;
    let mut left = services(&mut client)?;
    while left > 0 && start.elapsed() < CLEANUP_MAX {
        sleep(Duration::from_millis(5));
        left = services(&mut client)?;
        if left == EXPIRED as u64 {
            last_whole = Instant::now();
        }
    }
    let seconds = last_whole.elapsed().as_secs_f64();
    let report = witness.end()?;
    let note = format!("{left} of {taken} left after {seconds:.2} s; log {:.1} MB", host.log_mb()?);
    Ok(Report::new(report, note).goal(left == 0, "not cleaned up"))
}

fn list(host: &Host) -> Result<Report> {
    let start = Instant::now();
    let (taken, refused) = register_many(host.requests, LISTED, 3600.0, &Value::Null)?;
    let registered = start.elapsed().as_secs_f64();
    let witness = Witness::begin(host)?;
    let read = || -> Result<(usize, f64)> {
        let mut client = Client::connect(host.requests)?;
        let start = Instant::now();
        client.send(LIST)?;
        let bytes = client.receive()?.len();
        Ok((bytes, start.elapsed().as_secs_f64()))
    };
    let lists = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap_or(Err("a reader has panicked".into())))
            .collect::<Vec<_>>()
    });
    let seen = witness.end()?;
    let whole: Vec<_> = lists.iter().flatten().collect();
    let longest = whole.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    let mut note = format!(
        "{} of {READERS} got it ({} MB), after {longest:.1} s; {taken} services (registered in {registered:.0} s)",
        whole.len(),
        whole.first().map_or(0, |(bytes, _)| bytes / 1_000_000),
    );
    if let Some(refused) = refused {
        note += &format!(", then {refused}");
    }
    if let Some(Err(error)) = lists.iter().find(|list| list.is_err()) {
        note += &format!("; {error}");
    }
    let is_whole = whole.len() == READERS;
    Ok(Report::new(seen, note).goal(is_whole, "not all got it"))
}
