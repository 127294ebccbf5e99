//! One message of 1 MB, whatever is in it; and subscriptions as large.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::client::{Client, frame};
use crate::host::Host;
use crate::requests::register;
use crate::witness::{Witness, milliseconds};
use crate::{Attack, Report, Result};

/// As long as messages may be by default, less what is around them.
const BYTES: usize = 1_000_000;
/// How often each is sent, one after the other.
const TIMES: usize = 5;
const SUBSCRIPTIONS: usize = 200;

pub(crate) fn attacks() -> Vec<Attack> {
    let message =
        |name, about, run| Attack { name, about, plugins: &["memory"], settings: &[], growth_max_mb: None, run };
    vec![
        Attack {
            name: "idle",
            about: "no attack at all, for comparing",
            ..message("", "", |host: &Host| {
                let witness = Witness::begin(host)?;
                sleep(Duration::from_secs(2));
                Ok(Report::new(witness.end()?, String::new()))
            })
        },
        message("tags", "a service with 20,000 tags of 50 bytes", |host| send(host, tags)),
        message("short-tags", "a service with 130,000 tags of 5 bytes", |host| send(host, short_tags)),
        message("fields", "a request with 100,000 tiny fields of its own", |host| send(host, fields)),
        message("service-fields", "a service with 100,000 tiny fields", |host| send(host, service_fields)),
        message("metadata-fields", "a service with 100,000 tiny fields in its metadata", |host| send(host, metadata)),
        message("text", "a service with one text of 1 MB", |host| send(host, text)),
        message("escapes", "a service with one text of 160,000 escapes", |host| send(host, escapes)),
        message("long-id", "a service whose id, name and type have 300 kB each", |host| send(host, long_id)),
        message("nesting", "a service with 7,000 arrays, nested 60 deep each", |host| send(host, nesting)),
        message("abyss", "half a million opening brackets", |host| send(host, abyss)),
        Attack {
            name: "subscriptions",
            about: "one subscriber with 200 subscriptions of 1 MB",
            growth_max_mb: Some(16.0),
            ..message("", "", subscribe)
        },
    ]
}

/// Sends a message a few times, each once the one before is answered.
fn send(host: &Host, make: fn(&str) -> Vec<u8>) -> Result<Report> {
    let messages: Vec<_> = (0..TIMES).map(|number| make(&format!("big-{number}"))).collect();
    let mut client = Client::connect(host.requests)?;
    let witness = Witness::begin(host)?;
    sleep(Duration::from_millis(200));
    let mut longest = Duration::ZERO;
    let mut answers = Vec::new();
    for message in &messages {
        let start = Instant::now();
        answers.push(client.ask(message)?.text().to_owned());
        longest = longest.max(start.elapsed());
    }
    answers.dedup();
    let note = format!("{} kB: {}, in {:.0} ms", messages[0].len() / 1000, answers.join(", "), milliseconds(longest));
    Ok(Report::new(witness.end()?, note))
}

fn tags(id: &str) -> Vec<u8> {
    let tags: Vec<_> = (0..BYTES / 50).map(|number| format!("{number:047}")).collect();
    register(id, "t", 30.0, json!({"tags": tags}))
}

fn short_tags(id: &str) -> Vec<u8> {
    let tags: Vec<_> = (0..130_000).map(|number| format!("{number:x}")).collect();
    register(id, "t", 30.0, json!({"tags": tags}))
}

fn tiny_fields() -> Map<String, Value> {
    (0..BYTES / 10).map(|number| (format!("{number:05}"), json!(1))).collect()
}

fn fields(id: &str) -> Vec<u8> {
    let mut request = register(id, "t", 30.0, Value::Null);
    let fields = serde_json::to_vec(&tiny_fields()).expect("a map of numbers can be written");
    request.pop();
    request.push(b',');
    request.extend_from_slice(&fields[1..]);
    request
}

fn service_fields(id: &str) -> Vec<u8> {
    register(id, "t", 30.0, Value::Object(tiny_fields()))
}

fn metadata(id: &str) -> Vec<u8> {
    register(id, "t", 30.0, json!({"metadata": tiny_fields()}))
}

fn text(id: &str) -> Vec<u8> {
    register(id, "t", 30.0, json!({"metadata": {"text": "x".repeat(BYTES)}}))
}

/// JSON as it is written: the escapes have to reach the registry as such.
fn with_raw(id: &str, raw: &str) -> Vec<u8> {
    format!(
        r#"{{"action":"register","service_info":{{"id":"{id}","name":"s","host":"h","port":1,"metadata":{{"raw":{raw}}}}}}}"#
    )
    .into_bytes()
}

fn escapes(id: &str) -> Vec<u8> {
    with_raw(id, &format!("\"{}\"", "\\u00e9".repeat(BYTES / 6)))
}

fn long_id(id: &str) -> Vec<u8> {
    let long = "x".repeat(BYTES / 3 - 10_000);
    register(&format!("{id}-{long}"), &long, 30.0, json!({"name": long}))
}

fn nesting(id: &str) -> Vec<u8> {
    let mut raw = String::from("[");
    for number in 0..7_000 {
        let comma = if number == 0 { "" } else { "," };
        write!(raw, "{comma}{}{}", "[".repeat(59), "]".repeat(59)).expect("a string takes all");
    }
    raw.push(']');
    with_raw(id, &raw)
}

fn abyss(id: &str) -> Vec<u8> {
    with_raw(id, &("[".repeat(BYTES / 2) + &"]".repeat(BYTES / 2)))
}

fn subscribe(host: &Host) -> Result<Report> {
    let mut subscriber = Client::open(host.events, "SUB", None)?;
    let witness = Witness::begin(host)?;
    let mut taken = 0;
    for number in 0..SUBSCRIPTIONS {
        let mut topic = vec![1];
        topic.extend(format!("{number:04}").bytes());
        topic.resize(BYTES, b'x');
        // To be cut off for it is as well.
        if subscriber.write(&frame(0, &topic)).is_err() {
            break;
        }
        taken += 1;
    }
    sleep(Duration::from_secs(1));
    let note = format!("{taken} of {SUBSCRIPTIONS} were sent before the registry closed the connection or took all");
    Ok(Report::new(witness.end()?, note))
}
