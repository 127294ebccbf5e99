//! Many that wait for something to happen, and then it does; and an honest one that waits for something else.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, message};
use crate::flood::Answers;
use crate::host::Host;
use crate::requests::register;
use crate::witness::{Witness, milliseconds};
use crate::{Attack, Report, Result};

/// As many as one address may have waiting, but for the honest one; and how many of them on one connection.
const WAITING: usize = 9_960;
const EACH: usize = 120;
const CHANGES: usize = 1000;
const LONG: usize = 20;
const LONG_BYTES: usize = 900_000;
/// How long the honest one may wait for what is there already.
const HONEST_MAX_MS: f64 = 250.0;
const SETTLED: Duration = Duration::from_millis(500);

pub(crate) fn attacks() -> Vec<Attack> {
    let attack =
        |name, about, run| Attack { name, about, plugins: &["memory"], settings: &[], growth_max_mb: None, run };
    vec![
        attack("watchers", "10,000 watchers with a filter each, and 1,000 changes at once", |host| {
            wait(host, watch, CHANGES, 100)
        }),
        attack("watchers-long", "10,000 watchers with a filter each, and 20 changes of 0.9 MB", |host| {
            wait(host, watch, LONG, LONG_BYTES)
        }),
        attack("waiters-long", "10,000 that wait for a service, and 20 of 0.9 MB that are none of theirs", |host| {
            wait(host, discover, LONG, LONG_BYTES)
        }),
    ]
}

fn watch(number: usize) -> Value {
    // Half of them want what comes, each in its own words.
    let more = if number.is_multiple_of(2) { 0 } else { 100 };
    let version = format!(">={more}.{number}.0");
    json!({"action": "watch", "service_type": "t", "version": version, "wait": 30})
}

fn discover(number: usize) -> Value {
    json!({"action": "discover", "service_type": "t", "metadata": {"n": number}, "wait": 30})
}

/// Has many wait, registers so many services with so much in them, and sees how long another waits for its own.
fn wait(host: &Host, make: fn(usize) -> Value, changes: usize, bytes: usize) -> Result<Report> {
    let mut waiting = Vec::new();
    for connection in 0..WAITING / EACH {
        let mut client = Client::connect(host.requests)?;
        let requests = (0..EACH).map(|number| message(make(connection * EACH + number).to_string().as_bytes()));
        client.write(&requests.flatten().collect::<Vec<u8>>())?;
        waiting.push(client);
    }
    let mut honest = Client::connect(host.requests)?;
    sleep(SETTLED);
    let witness = Witness::begin(host)?;
    let mut attacker = Client::connect(host.requests)?;
    let mut registrar = Client::connect(host.requests)?;
    let fields = json!({"version": "50.0.0", "metadata": {"n": -1, "pad": "x".repeat(bytes)}});
    let mut answers = Answers::default();
    let mut latest = Duration::ZERO;
    let requests = (0..changes).map(|number| message(&register(&format!("s{number}"), "t", 3600.0, fields.clone())));
    let bytes: Vec<u8> = requests.flatten().collect();
    let mut sender = attacker.sender()?;
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(move || std::io::Write::write_all(&mut sender, &bytes));
        let replies = scope.spawn(move || (0..changes).map(|_| Ok(attacker.reply()?.text().to_owned())).collect());
        for number in 0..10 {
            let service_type = format!("other-{number}");
            let request = json!({"action": "discover", "service_type": service_type, "wait": 30});
            let following = json!({"action": "watch", "service_type": service_type, "wait": 30});
            honest.send(request.to_string().as_bytes())?;
            honest.send(following.to_string().as_bytes())?;
            sleep(Duration::from_millis(20));
            registrar.ask(&register(&service_type, &service_type, 3600.0, Value::Null))?;
            let start = Instant::now();
            for _ in 0..2 {
                if !honest.reply()?.success {
                    return Err("the honest one was refused".into());
                }
            }
            latest = latest.max(start.elapsed());
        }
        let replies: Result<Vec<String>> = replies.join().map_err(|_| "a client has panicked")?;
        replies?.iter().for_each(|word| answers.note(word));
        Ok(())
    })?;
    let latest_ms = milliseconds(latest);
    let note = format!("{answers}; who waited for something else got it {latest_ms:.0} ms late at most");
    drop(waiting);
    Ok(Report::new(witness.end()?, note).goal(latest_ms <= HONEST_MAX_MS, "another waited"))
}
