//! Many changes of one service.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Client, message};
use crate::host::Host;
use crate::requests::register;
use crate::witness::{Witness, milliseconds};
use crate::{Attack, Report, Result};

const PIPELINED: usize = 20_000;
const CLIENTS: usize = 256;
const OUTSTANDING: usize = 8;
const SECONDS: Duration = Duration::from_secs(4);
/// How the rate of one id is to compare with that of different ones.
const RATIO_MIN: f64 = 0.5;
const STACK_BYTES: usize = 1 << 18;

pub(crate) fn attacks() -> Vec<Attack> {
    let attack = |name, about, plugins, run| Attack { name, about, plugins, settings: &[], growth_max_mb: None, run };
    vec![
        attack("one-id", "20,000 pipelined registers of one id from one connection", &["memory", "sqlite"], pipeline),
        attack("one-id-crowd", "one id from 256 clients x 8, beside different ids", &["memory"], crowd),
    ]
}

fn pipeline(host: &Host) -> Result<Report> {
    let bytes = message(&register("one", "t", 3600.0, Value::Null)).repeat(PIPELINED);
    let mut client = Client::connect(host.requests)?;
    let mut sender = client.sender()?;
    let witness = Witness::begin(host)?;
    let is_over = AtomicBool::new(false);
    let start = Instant::now();
    let (done, refused, others) = std::thread::scope(|scope| -> Result<_> {
        let others = scope.spawn(|| register_now_and_then(host.requests, &is_over));
        scope.spawn(move || std::io::Write::write_all(&mut sender, &bytes));
        let (mut done, mut refused) = (0, None);
        // Whatever becomes of it, the others end too.
        let read = (0..PIPELINED).try_for_each(|_| -> Result<()> {
            let reply = client.reply()?;
            if reply.success {
                done += 1;
            } else {
                refused.get_or_insert_with(|| reply.text().to_owned());
            }
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        let others = others.join().map_err(|_| "another client has panicked")??;
        read?;
        Ok((done, refused, others))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let (mut latencies, others_refused) = others;
    latencies.sort_unstable();
    let part = |part: f64| milliseconds(latencies[((latencies.len() - 1) as f64 * part) as usize]);
    let mut note = format!("{done} of {PIPELINED} answered truly in {seconds:.1} s");
    if let Some(refused) = refused {
        note += &format!(" (else {refused})");
    }
    note += &format!(
        "; others' registers: {} of {} refused, p50 {:.1} ms, p99 {:.1} ms",
        others_refused,
        latencies.len(),
        part(0.5),
        part(0.99)
    );
    let report = Report::new(witness.end()?, note);
    Ok(report.goal(done == PIPELINED, "answered falsely").goal(others_refused == 0, "others refused"))
}

/// Registers different services, one after the other: how long each took, and how many were refused.
fn register_now_and_then(port: u16, until: &AtomicBool) -> Result<(Vec<Duration>, usize)> {
    let mut client = Client::connect(port)?;
    let (mut latencies, mut refused) = (Vec::new(), 0);
    while !until.load(Ordering::Relaxed) || latencies.is_empty() {
        let request = register(&format!("other-{}", latencies.len()), "other", 3600.0, Value::Null);
        let start = Instant::now();
        refused += usize::from(!client.ask(&request)?.success);
        latencies.push(start.elapsed());
        sleep(Duration::from_millis(5));
    }
    Ok((latencies, refused))
}

fn crowd(host: &Host) -> Result<Report> {
    let different = register_together(host, |client| format!("different-{client}"))?;
    let witness = Witness::begin(host)?;
    let one = register_together(host, |_| "one".to_owned())?;
    let seen = witness.end()?;
    let ratio = one.per_second / different.per_second;
    let note = format!(
        "{:.0} /s of one id, {:.0} /s of different ones: {ratio:.2}; {:.2} % answered truly{}",
        one.per_second,
        different.per_second,
        one.true_part * 100.0,
        one.refused.map_or(String::new(), |refused| format!(" (else {refused})")),
    );
    let report = Report::new(seen, note);
    Ok(report.goal(one.true_part == 1.0, "answered falsely").goal(ratio >= RATIO_MIN, "ratio"))
}

/// What a crowd of clients got.
struct Together {
    per_second: f64,
    true_part: f64,
    refused: Option<String>,
}

/// Has all clients register, each with several requests outstanding.
fn register_together(host: &Host, id: fn(usize) -> String) -> Result<Together> {
    let start = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let request = message(&register(&id(number), "t", 3600.0, Value::Null));
            let port = host.requests;
            let client = move || register_over_and_over(port, &request, start + SECONDS);
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn(client)
        })
        .collect::<std::io::Result<_>>()?;
    let (mut done, mut all, mut refused) = (0, 0, None);
    for client in clients {
        let (its_done, its_all, its_refused) = client.join().map_err(|_| "a client has panicked")??;
        done += its_done;
        all += its_all;
        refused = refused.or(its_refused);
    }
    let per_second = done as f64 / start.elapsed().as_secs_f64();
    Ok(Together { per_second, true_part: done as f64 / all as f64, refused })
}

/// How many of a client's requests succeeded, how many were answered, and what was said of the first that did not.
fn register_over_and_over(port: u16, request: &[u8], end: Instant) -> Result<(usize, usize, Option<String>)> {
    let mut client = Client::connect(port)?;
    client.write(&request.repeat(OUTSTANDING))?;
    let (mut done, mut all, mut refused, mut outstanding) = (0, 0, None, OUTSTANDING);
    while outstanding > 0 {
        // Whatever has come at once is asked anew at once.
        let mut come = 0;
        while come == 0 || (come < outstanding && client.has_more()) {
            let reply = client.reply()?;
            come += 1;
            all += 1;
            if reply.success {
                done += 1;
            } else {
                refused.get_or_insert_with(|| reply.text().to_owned());
            }
        }
        if Instant::now() < end {
            client.write(&request.repeat(come))?;
        } else {
            outstanding -= come;
        }
    }
    Ok((done, all, refused))
}
