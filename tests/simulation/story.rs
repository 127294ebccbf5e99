//! A history as people read it.

use std::fmt::Write;

use serde_json::Value;

use crate::checker::Verdict;
use crate::history::{Ask, Claim, Drain, Entry, Event, Found, History, How, Kind, Registration, What};

/// How long a part of a line gets, in characters.
const SHOWN_MAX: usize = 200;

/// The history up to where it went wrong, and how.
pub(crate) fn tell(history: &History, verdict: &Verdict) -> String {
    let mut story = String::new();
    let rules = &history.rules;
    let _ = writeln!(
        story,
        "  changes wait for {} ms at most, a sweep every {} ms, types are {}unique, clients have {}",
        rules.reply_timeout_ms,
        rules.sweep_ms,
        if rules.enforce_unique { "" } else { "not " },
        if rules.has_keys { "keys" } else { "no keys" },
    );
    // What happened at the same moment belongs to it.
    let until_ms = history.entries.get(verdict.place).map_or(u64::MAX, |entry| entry.at_ms);
    for (place, entry) in history.entries.iter().enumerate().filter(|(_, entry)| entry.at_ms <= until_ms) {
        let mark = if place == verdict.place { '>' } else { ' ' };
        let _ = writeln!(story, "{mark} {}  {}", time(entry.at_ms), line(entry));
    }
    let _ = writeln!(story, "  BROKEN: {}: {}", verdict.rule, verdict.text);
    story
}

fn time(at_ms: u64) -> String {
    let (seconds, ms) = (at_ms / 1000, at_ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn line(entry: &Entry) -> String {
    match &entry.what {
        What::Asked { call, client, host, key: _, ask } => {
            format!("client {client} -> host {host}  #{call} {}", asked(ask))
        }
        What::Answered { call, host, reply } => format!("host {host} -> #{call}  {}", answered(reply)),
        What::GaveUp { call } => format!("nobody waits for #{call} any more"),
        What::Announced { host, event: Ok(event) } => format!("host {host} tells all: {}", told(event)),
        What::Announced { host, event: Err(problem) } => format!("host {host} tells all: {problem}"),
        What::Started { host, epoch, revision, contents, .. } => {
            let services: Vec<String> = contents
                .iter()
                .map(|service| match service {
                    Ok(service) => {
                        let drain = service.drain.map(drained).unwrap_or_default();
                        format!("{} (#{}){drain}", service.id, service.call.map_or(-1, |call| call as i64))
                    }
                    Err(problem) => problem.clone(),
                })
                .collect();
            let services = services.join(", ");
            format!("host {host} starts, the store is at {epoch:?} {revision} and has [{services}]")
        }
        What::Refused { host, store } => {
            format!("host {host} does not start on the store {store}: it is not in charge")
        }
        What::Moved { host, store } => format!("host {host} has moved: the store {store} is in charge"),
        What::Left { host, stores } => {
            let stores = stores.iter().map(|Found { epoch, revision, contents }| {
                let ids: Vec<&str> = contents.iter().flatten().map(|service| service.id.as_str()).collect();
                format!("{epoch:?} {revision} [{}]", ids.join(", "))
            });
            format!("host {host} leaves {}", stores.collect::<Vec<_>>().join(" and "))
        }
        What::Serving { host } => format!("host {host} serves"),
        What::Stopping { host } => format!("host {host} is about to stop"),
        What::Ended { host, how: How::Killed } => format!("host {host} is killed"),
        What::Ended { host, how: How::Stopped } => format!("host {host} has stopped"),
        What::Ended { host, how: How::StoppedInTrouble } => {
            format!("host {host} has stopped, with the store in trouble")
        }
        What::HeldUp { host, ms, left_out_ms } => {
            format!("host {host} was held up for {ms} ms, {left_out_ms} of which do not count")
        }
        What::Committed { host, text, .. } => format!("store -> host {host}  {}", cut(text)),
        What::Trouble { host, since_ms, text } => {
            format!("the store of host {host} was in trouble since {}: {text}", time(*since_ms))
        }
        What::Busy { host } => format!("host {host} turns and turns"),
        What::WallJumped { by_ms } => format!("the wall clock is set by {by_ms} ms"),
        What::Lost { id } => format!("the store loses {id}"),
        What::Replaced => "the store is replaced".into(),
        What::Noticed { host, notice } => format!("host {host} tells all: {notice}"),
        What::Forgave { host, ms } => format!("host {host} has heard nothing for {ms} ms, which all get on top"),
        What::Note(text) => format!("({text})"),
    }
}

fn asked(ask: &Ask) -> String {
    match ask {
        Ask::Register(Registration { id, service_type, tag, claim, ttl_ms, bulk: _ }) => {
            let id = id.as_deref().unwrap_or("(new id)");
            let tag = tag.as_deref().map(|tag| format!(" and {tag}")).unwrap_or_default();
            let claim = match claim {
                Claim::Plain => "",
                Claim::Singleton => ", singleton",
                Claim::AllowDuplicate => ", does not mind others",
            };
            format!("register {id} as {service_type}{tag}, ttl {ttl_ms} ms{claim}")
        }
        Ask::Deregister { id, generation } => format!("deregister {id}{}", named(*generation)),
        Ask::Renew { id, generation } => format!("renew {id}{}", named(*generation)),
        Ask::Update { id, generation } => format!("update {id}{}", named(*generation)),
        Ask::Drain { id, generation, for_ms } => {
            let limit = for_ms.map(|for_ms| format!(" for {for_ms} ms")).unwrap_or_default();
            format!("drain {id}{limit}{}", named(*generation))
        }
        Ask::Undrain { id, generation } => format!("undrain {id}{}", named(*generation)),
        Ask::Get { id } => format!("get {id}"),
        Ask::List { service_type } => format!("list {}", service_type.as_deref().unwrap_or("all")),
        Ask::Discover { service_type } => format!("discover {service_type}"),
        Ask::Watch { after, service_type, limit, wait_ms } => {
            let service_type = service_type.as_deref().unwrap_or("all");
            let after = after.as_ref().map(|(epoch, after)| format!(" after {after} of {epoch:?}")).unwrap_or_default();
            format!("watch {service_type}{after}, {limit} at most, for {wait_ms} ms")
        }
        Ask::EndMassExpiry { keep } => format!("end the mass expiry, keep is {keep}"),
    }
}

fn named(generation: Option<u64>) -> String {
    generation.map(|generation| format!(", generation {generation}")).unwrap_or_default()
}

fn answered(reply: &Value) -> String {
    if reply["success"] != true {
        let message = reply["message"].as_str().unwrap_or("");
        return format!("no: {} {message}", reply["code"].as_str().unwrap_or("?"));
    }
    let show =
        |service: &Value| format!("{} (#{}, {})", text(&service["id"]), service["call"], text(&service["health"]));
    if let Some(services) = reply["services"].as_array() {
        let services: Vec<String> = services.iter().map(show).collect();
        return cut(&format!("at {}: [{}]", reply["revision"], services.join(", ")));
    }
    if let Some(changes) = reply["changes"].as_array() {
        let show = |change: &Value| {
            let (kind, data) = (text(&change["type"]), &change["data"]);
            format!("{} {kind} {} (#{})", change["revision"], text(&data["service_id"]), data["service_info"]["call"])
        };
        let changes: Vec<String> = changes.iter().map(show).collect();
        return cut(&format!("up to {}: [{}]", reply["revision"], changes.join(", ")));
    }
    if reply["service"].is_object() {
        return format!("it is {}", show(&reply["service"]));
    }
    match reply["service_id"].as_str() {
        Some(id) => format!("yes, it is {id}, generation {}", reply["generation"]),
        None => format!("yes: {}", text(&reply["message"])),
    }
}

fn told(event: &Event) -> String {
    let kind = match event.kind {
        Kind::Registered => "register",
        Kind::Deregistered => "deregister",
        Kind::Expired => "expire",
    };
    let previous = event.previous.map(|previous| format!(" (after {previous})")).unwrap_or_default();
    let call = event.service.call.map(|call| format!(" (#{call})")).unwrap_or_default();
    let drain = event.service.drain.map(drained).unwrap_or_default();
    format!("{} {kind} {}{call}{drain}{previous}", event.revision, event.service.id)
}

fn drained(drain: Drain) -> String {
    let until = drain.until.map(|until| format!(" until {until}")).unwrap_or_default();
    format!(", drained by #{}{until}", drain.call.map_or(-1, |call| call as i64))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}
