//! `watch`: changes, as they happen.

use std::pin::pin;
use std::time::Duration;

use registry_client::{Change, Connectivity, Error, Filter, Position, Registry, Watch};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::arguments::{Connection, EventType, MASS_EXPIRY};
use super::client::{Client, Patience};
use super::output::{self, Failure};
use super::table::cell;
use crate::text::utc;

/// How often the registry is asked whether services are held.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Prints the events that are `shown`, or all if it is empty, until the reader of standard output has gone. With
/// `existing` it begins with what there is.
pub(super) async fn watch(
    shown: &[EventType],
    existing: bool,
    filter: Filter,
    connection: &Connection,
) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::Some)?;
    let mut link = Link::of(&client);
    let mut changes = begin(&client, &mut link, existing, filter).await?;
    let mut held = if is_shown(shown, MASS_EXPIRY) { Some(held(client.registry().clone())) } else { None };
    let mut seen = None;
    loop {
        tokio::select! {
            () = link.follow(&client) => {}
            Some(notice) = next(&mut held) => print_notice(&notice, connection.json)?,
            change = changes.next() => match change {
                Some(Ok(change)) => {
                    missed(&mut seen, &change).iter().for_each(|news| output::note(news));
                    print(&change, shown, connection.json)?;
                }
                Some(Err(error)) => return Err(refused(&client, error)),
                None => return Ok(()),
            },
        }
    }
}

/// What has been said of the connection.
struct Link {
    connectivity: tokio::sync::watch::Receiver<Connectivity>,
    is_away: bool,
    was_connected: bool,
}

impl Link {
    fn of(client: &Client) -> Self {
        Link { connectivity: client.registry().connectivity(), is_away: false, was_connected: false }
    }

    /// Waits until something changes, and says so.
    async fn follow(&mut self, client: &Client) {
        if self.connectivity.changed().await.is_err() {
            // It will not change any more.
            std::future::pending().await
        }
        match &*self.connectivity.borrow_and_update() {
            Connectivity::Away { cause: Some(cause) } if !self.is_away => {
                self.is_away = true;
                output::note(&match self.was_connected {
                    true => format!("the connection to {} is lost; waiting for the registry", cause.endpoint),
                    false => format!("{}; waiting for the registry", client.unreachable(cause)),
                });
            }
            Connectivity::Connected { endpoint, .. } => {
                if self.is_away {
                    output::note(&format!("{endpoint} answers"));
                }
                (self.is_away, self.was_connected) = (false, true);
            }
            _ => {}
        }
    }
}

/// Begins as soon as there is a registry.
async fn begin(client: &Client, link: &mut Link, existing: bool, filter: Filter) -> Result<Watch, Failure> {
    let begin = async || match existing {
        true => client.registry().watch_existing(filter.clone()).await,
        false => client.registry().watch(filter.clone()).await,
    };
    let mut beginning = pin!(begin());
    loop {
        tokio::select! {
            () = link.follow(client) => {}
            begun = &mut beginning => match begun {
                Err(error) if error.may_pass() => beginning.set(begin()),
                begun => return client.understood(begun, &json!({})),
            },
        }
    }
}

fn refused(client: &Client, error: Error) -> Failure {
    client.failure(error, &json!({}))
}

/// What is to be said before this change, if changes were not known any more before it.
fn missed(seen: &mut Option<Position>, change: &Change) -> Option<String> {
    let now = &change.position;
    let before = seen.replace(now.clone())?;
    let follows = if change.synthesized { "what is different now follows" } else { "nothing else is different now" };
    if before.epoch != now.epoch {
        let (new, old) = (&now.epoch, &before.epoch);
        return Some(format!("the registry has another history now (epoch {new}, before {old}): {follows}"));
    }
    let is_gap = change.synthesized && before.revision < now.revision;
    is_gap.then(|| format!("the changes since revision {} are not known any more: {follows}", before.revision))
}

/// Asks again and again whether services are held, and tells of the begin and the end: each as subscribers of the
/// registry are told of it, as far as that can be asked for.
fn held(registry: Registry) -> mpsc::Receiver<Value> {
    let (notices, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(ASK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut since = None;
        loop {
            ticks.tick().await;
            // A registry that is away is told of by others.
            let Ok(health) = registry.health().await else { continue };
            let notice = notice(&mut since, &Value::Object(health.fields));
            if let Some(notice) = notice
                && notices.send(notice).await.is_err()
            {
                return;
            }
        }
    });
    receiver
}

async fn next(notices: &mut Option<mpsc::Receiver<Value>>) -> Option<Value> {
    match notices {
        Some(notices) => notices.recv().await,
        None => std::future::pending().await,
    }
}

/// What is new about mass expiry, if it was the one `since` then before.
fn notice(since: &mut Option<Value>, health: &Value) -> Option<Value> {
    let held = health.get("mass_expiry");
    let now = held.and_then(|held| held.get("since")).cloned();
    let before = std::mem::replace(since, now.clone());
    match (before, now) {
        (before, Some(now)) if before.as_ref() != Some(&now) => Some(json!({
            "type": MASS_EXPIRY, "timestamp": now, "state": "begun", "critical": held?["critical"],
        })),
        (Some(_), None) => Some(json!({ "type": MASS_EXPIRY, "timestamp": health["timestamp"], "state": "ended" })),
        _ => None,
    }
}

fn print_notice(notice: &Value, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::json_line(notice);
    }
    let when = notice["timestamp"].as_f64().map_or_else(|| "-".to_string(), utc);
    let what = match notice["critical"].as_u64() {
        Some(1) => "begun: 1 critical service is held".to_string(),
        Some(critical) => format!("begun: {critical} critical services are held"),
        None => "ended".to_string(),
    };
    output::line(&format!("{when:20}  {MASS_EXPIRY}  {what}"))
}

fn is_shown(shown: &[EventType], kind: &str) -> bool {
    shown.is_empty() || shown.iter().any(|shown| shown.as_str() == kind)
}

fn print(change: &Change, shown: &[EventType], as_json: bool) -> Result<(), Failure> {
    match is_shown(shown, change.kind.as_str()) {
        true if as_json => output::json_line(&change.to_json()),
        true => output::line(&describe(change)),
        false => Ok(()),
    }
}

/// A change in one line: when, what, id, type, where, and whether it is drained.
fn describe(change: &Change) -> String {
    let record = &change.record;
    let when = change.timestamp.map_or_else(|| "-".to_string(), utc);
    let what = output::printable(change.kind.as_str());
    let field = |name: &str| cell(record.get(name));
    let (id, service_type, host, port) = (field("id"), field("type"), field("host"), field("port"));
    let drained = match record.get("drain") {
        Some(drain) => {
            format!("  drained{}", drain["reason"].as_str().map_or_else(String::new, |why| format!(": {why}")))
        }
        None => String::new(),
    };
    format!("{when:20}  {what:10}  {id}  {service_type}  {host}:{port}{}", output::printable(&drained))
}
