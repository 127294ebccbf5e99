//! `watch`: changes, as they happen.

use std::pin::pin;

use registry_client::{Change, Connectivity, Error, Filter, Position, Watch};
use serde_json::json;

use super::arguments::{Connection, EventType};
use super::client::{Client, Patience};
use super::output::{self, Failure};
use super::table::{cell, utc};

/// Prints the events that are `shown`, or all if it is empty, until the reader of standard output has gone.
pub(super) async fn watch(shown: &[EventType], filter: Filter, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::Some)?;
    let mut link = Link::of(&client);
    let mut changes = begin(&client, &mut link, filter).await?;
    let mut seen = None;
    loop {
        tokio::select! {
            () = link.follow(&client) => {}
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
async fn begin(client: &Client, link: &mut Link, filter: Filter) -> Result<Watch, Failure> {
    let registry = client.registry();
    let mut beginning = pin!(registry.watch(filter.clone()));
    loop {
        tokio::select! {
            () = link.follow(client) => {}
            begun = &mut beginning => match begun {
                Err(error) if error.may_pass() => beginning.set(registry.watch(filter.clone())),
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

fn print(change: &Change, shown: &[EventType], as_json: bool) -> Result<(), Failure> {
    match shown.is_empty() || shown.iter().any(|shown| shown.as_str() == change.kind.as_str()) {
        true if as_json => output::json_line(&change.to_json()),
        true => output::line(&describe(change)),
        false => Ok(()),
    }
}

/// A change in one line: when, what, id, type, where.
fn describe(change: &Change) -> String {
    let record = &change.record;
    let when = change.timestamp.map_or_else(|| "-".to_string(), utc);
    let what = output::printable(change.kind.as_str());
    let field = |name: &str| cell(record.get(name));
    let (id, service_type, host, port) = (field("id"), field("type"), field("host"), field("port"));
    format!("{when:20}  {what:10}  {id}  {service_type}  {host}:{port}")
}
