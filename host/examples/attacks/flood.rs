//! Several clients that send a great many requests at once, each of which is long to answer.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::time::Instant;

use serde_json::{Value, json};

use crate::client::{Client, message};
use crate::host::Host;
use crate::requests::{register, register_many};
use crate::witness::Witness;
use crate::{Attack, Report, Result};

const CONNECTIONS: usize = 8;
/// What is searched through.
const SERVICES: usize = 100_000;
/// The same, where each search is one of many.
const FEWER: usize = 20_000;
/// What may be renewed by one message.
const RENEWED: usize = 1000;
const LONG_BYTES: usize = 900_000;

pub(crate) fn attacks() -> Vec<Attack> {
    let attack = |name, about, plugins, run| Attack { name, about, plugins, settings: &[], growth_max_mb: None, run };
    vec![
        attack(
            "discover-filters",
            "800 different filters that nothing of 20,000 services passes",
            &["memory"],
            |host| {
                among_many(host, FEWER, 100, |connection, number| {
                    let n = -((connection * 1000 + number) as i64) - 1;
                    json!({"action": "discover", "service_type": "t", "metadata": {"n": n}})
                })
            },
        ),
        attack("list-filters", "80 whole lists of 100,000 services by different filters", &["memory"], |host| {
            among_many(host, SERVICES, 10, |connection, number| {
                let n = -((connection * 1000 + number) as i64) - 1;
                json!({"action": "list", "metadata": {"n": n}})
            })
        }),
        attack("pages", "8,000 pages of 100,000 services that none passes the filter of", &["memory"], |host| {
            among_many(host, SERVICES, 1000, |_, _| json!({"action": "list", "limit": 100, "metadata": {"n": -1}}))
        }),
        attack("renew-many", "800 renewals of 1,000 services each", &["memory", "sqlite"], |host| {
            among_many(host, SERVICES, 100, |connection, number| {
                let ids = (0..RENEWED).map(|place| (connection * 12_500 + number * 100 + place) % SERVICES);
                let ids: Vec<String> = ids.map(|number| format!("s{number:07}")).collect();
                json!({"action": "renew", "services": ids})
            })
        }),
        attack(
            "long-filters",
            "4,000 requests with a filter that look at a record of 0.9 MB",
            &["memory"],
            long_filters,
        ),
        attack("updates", "400 small updates of 8 records of 0.9 MB", &["memory", "sqlite"], updates),
        attack("histories", "40,000 histories of a service with 64 changes and 16 refusals", &["memory"], histories),
    ]
}

/// Floods a registry with many services.
fn among_many(host: &Host, services: usize, each: usize, make: fn(usize, usize) -> Value) -> Result<Report> {
    let fields = json!({"metadata": {"n": 7, "note": "as long as what services say of themselves"}});
    let (taken, refused) = register_many(host.requests, services, 3600.0, &fields)?;
    if taken < services {
        return Err(format!("only {taken} services were taken: {}", refused.unwrap_or_default()).into());
    }
    let requests = prepare(each, make);
    let witness = Witness::begin(host)?;
    let answers = flood(host.requests, each, &requests)?;
    let report = Report::new(witness.end()?, answers.to_string());
    Ok(report.goal(answers.are_true(CONNECTIONS * each), "answered falsely"))
}

fn long_filters(host: &Host) -> Result<Report> {
    let long = json!({"metadata": {"n": 7, "pad": "x".repeat(LONG_BYTES)}});
    if !Client::connect(host.requests)?.ask(&register("long", "t", 3600.0, long))?.success {
        return Err("a long record was not taken".into());
    }
    let requests = prepare(500, |_, number| match number % 3 {
        0 => json!({"action": "discover", "service_type": "t", "metadata": {"n": -1}}),
        1 => json!({"action": "list", "limit": 1, "fields": []}),
        _ => json!({"action": "discover", "service_type": "t", "fields": ["port"]}),
    });
    let witness = Witness::begin(host)?;
    let answers = flood(host.requests, 500, &requests)?;
    let report = Report::new(witness.end()?, answers.to_string());
    Ok(report.goal(answers.are_true(CONNECTIONS * 500), "answered falsely"))
}

fn updates(host: &Host) -> Result<Report> {
    let mut client = Client::connect(host.requests)?;
    for number in 0..CONNECTIONS {
        let long = json!({"metadata": {"pad": "x".repeat(LONG_BYTES)}});
        if !client.ask(&register(&format!("long{number}"), "t", 3600.0, long))?.success {
            return Err("a long record was not taken".into());
        }
    }
    let requests = prepare(
        50,
        |connection, number| json!({"action": "update", "service_id": format!("long{connection}"), "metadata": {"n": number}}),
    );
    let witness = Witness::begin(host)?;
    let answers = flood(host.requests, 50, &requests)?;
    // To be told that there is no room for now is an answer.
    let report = Report::new(witness.end()?, answers.to_string());
    Ok(report.goal(answers.are_true(CONNECTIONS * 50), "answered falsely"))
}

fn histories(host: &Host) -> Result<Report> {
    let mut client = Client::connect(host.requests)?;
    for number in 0..64 {
        client.ask(&register("busy", &format!("t{number}"), 3600.0, Value::Null))?;
    }
    for generation in 0..16 {
        let renewal = json!({"action": "renew", "service_id": "busy", "generation": generation});
        client.ask(renewal.to_string().as_bytes())?;
    }
    let requests = prepare(5000, |_, _| json!({"action": "history", "service_id": "busy"}));
    let witness = Witness::begin(host)?;
    let answers = flood(host.requests, 5000, &requests)?;
    let report = Report::new(witness.end()?, answers.to_string());
    Ok(report.goal(answers.are_true(CONNECTIONS * 5000), "answered falsely"))
}

/// How requests were answered, in a word each, and in how many seconds all were.
#[derive(Default)]
pub(crate) struct Answers {
    counts: BTreeMap<String, usize>,
    seconds: f64,
}

impl Answers {
    /// Notes one.
    pub(crate) fn note(&mut self, word: &str) {
        *self.counts.entry(word.to_owned()).or_default() += 1;
    }

    /// Whether there are so many, and none is a refusal but for what is not there or for want of room.
    fn are_true(&self, count: usize) -> bool {
        let is_true = |word: &String| ["done", "none_healthy", "overloaded", "backend_unavailable"].contains(&&**word);
        self.counts.values().sum::<usize>() == count && self.counts.keys().all(is_true)
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
        write!(f, "{} in {:.1} s", words.join(", "), self.seconds)
    }
}

/// So many requests for each connection, as they are sent: made before anything is measured.
fn prepare(each: usize, make: impl Fn(usize, usize) -> Value) -> Vec<Vec<u8>> {
    let of =
        |connection| (0..each).flat_map(|number| message(make(connection, number).to_string().as_bytes())).collect();
    (0..CONNECTIONS).map(of).collect()
}

/// Sends so many requests over each of several connections, as fast as they are taken, and reads the replies.
fn flood(port: u16, each: usize, requests: &[Vec<u8>]) -> Result<Answers> {
    let start = Instant::now();
    let one = |requests: &[u8]| -> Result<Vec<String>> {
        let mut client = Client::connect(port)?;
        let mut sender = client.sender()?;
        std::thread::scope(|scope| {
            // If the connection ends, the reader says so.
            scope.spawn(move || sender.write_all(requests));
            (0..each).map(|_| Ok(client.reply()?.text().to_owned())).collect()
        })
    };
    let mut answers = Answers::default();
    std::thread::scope(|scope| {
        let clients: Vec<_> = requests.iter().map(|requests| scope.spawn(move || one(requests))).collect();
        clients.into_iter().try_for_each(|client| -> Result<()> {
            let words = client.join().map_err(|_| "a client has panicked")??;
            words.iter().for_each(|word| answers.note(word));
            Ok(())
        })
    })?;
    answers.seconds = start.elapsed().as_secs_f64();
    Ok(answers)
}
