//! `watch`: events, as they come.
//!
//! Events are sent once, to the subscribers of that moment. What is missed is not sent again, but it can be noticed:
//! each event carries a `revision`, which grows with every change, the `previous` event's revision, and the `epoch`
//! that they count in. So `watch` subscribes to all events, whichever it shows, and asks the registry for its revision
//! when it was away, and now and then in between, because a connection that has died in silence looks like a quiet day.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::arguments::{Connection, EventType};
use super::client::{Client, ClientError};
use super::endpoint::Endpoint;
use super::output::{self, Failure};
use super::socket::{Hearing, Trouble};
use super::table::{cell, utc};

/// The pause between two tries to reach a registry that is away.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often the registry is asked for its revision.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// A type that no service has. A list of those says the revision and nothing else, where `info` shows every service.
const NO_TYPE: &str = "registry watch: no service";

/// Prints the events that are `shown`, or all if it is empty, until the reader of standard output has gone.
pub(super) async fn watch(
    shown: &[EventType],
    events: Option<Endpoint>,
    connection: &Connection,
) -> Result<(), Failure> {
    let mut client = Client::new(connection)?;
    let mut progress = Progress::default();
    // Waiting was announced when the connection was lost.
    let mut is_known_to_be_away = false;
    loop {
        let info = wait_for_registry(&mut client, is_known_to_be_away).await?;
        progress.asked(&info).iter().for_each(|news| output::note(news));
        let endpoint = match &events {
            Some(endpoint) => endpoint.clone(),
            None => event_endpoint(client.endpoint(), &info)?,
        };
        match subscribe(&endpoint, &client, connection.timeout).await {
            Ok(socket) => {
                follow(socket, &mut client, &mut progress, shown, connection.json).await?;
                output::note(&format!("the connection to {endpoint} is lost; waiting for the registry"));
                is_known_to_be_away = true;
            }
            // Gone since it was asked, or back on another port: the next answer tells.
            Err(error) if progress.connected => output::note(&format!("cannot subscribe to {endpoint}: {error}")),
            Err(error) => return Err(Failure::NoAnswer(format!("cannot subscribe to {endpoint}: {error}"))),
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Asks until a registry answers. Says once that it waits.
///
/// # Errors
/// The registry refuses, or it is none: waiting would not change that.
async fn wait_for_registry(client: &mut Client, mut is_said: bool) -> Result<Value, Failure> {
    let mut is_away = is_said;
    loop {
        match client.request("info", json!({})).await {
            Ok(info) => {
                if is_away {
                    output::note(&format!("{} answers", client.endpoint()));
                }
                return Ok(info);
            }
            Err(error @ (ClientError::Refused { .. } | ClientError::NotARegistry(_))) => return Err(error.into()),
            Err(error) if !is_said => {
                output::note(&format!("{error}; waiting for the registry"));
                is_said = true;
            }
            Err(_) => {}
        }
        is_away = true;
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

fn event_endpoint(connect: &Endpoint, info: &Value) -> Result<Endpoint, Failure> {
    let port = info["pub_port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| Failure::NoAnswer(format!("{connect} does not say its event port: use --events")))?;
    Ok(connect.of_events(port))
}

async fn subscribe(endpoint: &Endpoint, client: &Client, timeout: Duration) -> Result<Hearing, String> {
    let subscribed = tokio::time::timeout(timeout, Hearing::connect(endpoint, client.keys())).await;
    subscribed.map_err(|_| format!("no answer within {} s", timeout.as_secs_f64()))?.map_err(|trouble| match trouble {
        Trouble::Refused => "nothing listens".to_string(),
        Trouble::OtherSocket(kind) => format!("it is no event port, but a {kind}"),
        Trouble::KeysMissing => "it asks for keys, see --key and --server-key".to_string(),
        Trouble::KeysNotWanted => "it asks for no keys".to_string(),
        // `info` has been answered with this key.
        Trouble::KeyRefused => "this key is not allowed to read, and so to subscribe".to_string(),
        Trouble::Other(cause) => cause,
    })
}

/// Prints events until the connection is lost.
async fn follow(
    mut socket: Hearing,
    client: &mut Client,
    progress: &mut Progress,
    shown: &[EventType],
    as_json: bool,
) -> Result<(), Failure> {
    progress.connected = true;
    let mut ask = tokio::time::interval_at(tokio::time::Instant::now() + ASK_EVERY, ASK_EVERY);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = socket.next() => match event {
                Some(event) => print(&event, progress, shown, as_json)?,
                None => return Ok(()),
            },
            _ = ask.tick() => match client.request("list", json!({"service_type": NO_TYPE})).await {
                Ok(list) => progress.asked_again(&list).iter().for_each(|news| output::note(news)),
                Err(_) => return Ok(()),
            },
        }
    }
}

fn print(event: &[u8], progress: &mut Progress, shown: &[EventType], as_json: bool) -> Result<(), Failure> {
    let Ok(event) = serde_json::from_slice::<Value>(event) else {
        output::note("an event was no JSON, and is left out");
        return Ok(());
    };
    progress.seen(&event).iter().for_each(|news| output::note(news));
    let event_type = event["type"].as_str().unwrap_or_default();
    match shown.is_empty() || shown.iter().any(|shown| shown.as_str() == event_type) {
        true if as_json => output::json_line(&event),
        true => output::line(&describe(&event)),
        false => Ok(()),
    }
}

/// An event in one line: when, what, id, type, where.
fn describe(event: &Value) -> String {
    let service = &event["data"]["service_info"];
    let (when, what) = (event["timestamp"].as_f64().map_or_else(|| "-".to_string(), utc), cell(event.get("type")));
    let (id, service_type) = (cell(event["data"].get("service_id")), cell(service.get("type")));
    let (host, port) = (cell(service.get("host")), cell(service.get("port")));
    format!("{when}  {what:10}  {id}  {service_type}  {host}:{port}")
}

/// How far the history has been seen.
#[derive(Debug, Default)]
struct Progress {
    epoch: Option<String>,
    revision: Option<u64>,
    /// The revision when the registry was last asked, whose events may still be under way.
    expected: Option<u64>,
    /// Whether there has been a connection at all.
    connected: bool,
}

impl Progress {
    /// Takes in the answer to `info` while no events can be under way. Says what was missed.
    fn asked(&mut self, info: &Value) -> Option<String> {
        let (changed, revision) = (self.epoch_changed(info), revision(info)?);
        let before = self.revision.replace(revision);
        self.expected = Some(revision);
        changed.or_else(|| before.filter(|before| *before < revision).map(|before| missed(before, revision)))
    }

    /// Takes in the answer to a question that was asked while events come. Events that it counts may still be under
    /// way: so the next answer decides whether they have come.
    fn asked_again(&mut self, info: &Value) -> Option<String> {
        let (changed, revision) = (self.epoch_changed(info), revision(info)?);
        let expected = self.expected.replace(revision);
        if changed.is_some() {
            self.revision = Some(revision);
            return changed;
        }
        let (seen, expected) = (self.revision?, expected?);
        if seen >= expected {
            return None;
        }
        self.revision = Some(expected);
        Some(missed(seen, expected))
    }

    /// Takes in an event. Says what was missed before it.
    fn seen(&mut self, event: &Value) -> Option<String> {
        let (changed, revision) = (self.epoch_changed(event), revision(event)?);
        if changed.is_some() {
            self.expected = None;
            self.revision = Some(revision);
            return changed;
        }
        let before = self.revision;
        self.revision = Some(before.map_or(revision, |before| before.max(revision)));
        // An older registry counts by one, and does not tell of the event before.
        let previous = event["previous"].as_u64().unwrap_or(revision.saturating_sub(1));
        before.filter(|before| *before < previous).map(|before| missed(before, previous))
    }

    fn epoch_changed(&mut self, from: &Value) -> Option<String> {
        let epoch = from["epoch"].as_str()?;
        let before = self.epoch.replace(epoch.to_string())?;
        (before != epoch).then(|| {
            format!("the registry has another history now (epoch {epoch}, before {before}): `registry list` shows what there is")
        })
    }
}

fn revision(from: &Value) -> Option<u64> {
    from["revision"].as_u64()
}

/// Revisions grow, but not by one each time: how many changes there were between two of them cannot be told.
fn missed(seen: u64, until: u64) -> String {
    format!("changes missed between revision {seen} and {until}: `registry list` shows what there is")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: &str, revision: u64) -> Value {
        json!({ "epoch": epoch, "revision": revision })
    }

    fn watching(epoch: &str, revision: u64) -> Progress {
        let mut progress = Progress::default();
        assert_eq!(progress.asked(&at(epoch, revision)), None);
        progress
    }

    #[test]
    fn events_without_a_gap_are_no_news() {
        let mut progress = watching("a", 5);
        assert_eq!(progress.seen(&at("a", 5)), None, "was under way when the registry was asked");
        assert_eq!(progress.seen(&at("a", 6)), None);
        assert_eq!(progress.seen(&at("a", 7)), None);
    }

    #[test]
    fn a_gap_between_events_is_told() {
        let news = watching("a", 5).seen(&at("a", 8)).unwrap();
        assert!(news.starts_with("changes missed between revision 5 and 7:"), "{news}");
    }

    #[test]
    fn an_event_that_names_the_one_before_leaves_no_gap_however_far_the_revision_jumps() {
        let after = |previous: u64, revision: u64| json!({"epoch": "a", "revision": revision, "previous": previous});
        let mut progress = watching("a", 5);
        assert_eq!(progress.seen(&after(5, 9)), None);
        assert_eq!(progress.seen(&after(9, 12)), None);
        let news = progress.seen(&after(14, 20)).unwrap();
        assert!(news.starts_with("changes missed between revision 12 and 14:"), "{news}");
    }

    #[test]
    fn changes_while_the_connection_was_lost_are_told() {
        let news = watching("a", 5).asked(&at("a", 6)).unwrap();
        assert!(news.starts_with("changes missed between revision 5 and 6:"), "{news}");
    }

    #[test]
    fn another_epoch_is_told_and_counts_anew() {
        let mut progress = watching("a", 50);
        assert!(progress.seen(&at("b", 1)).unwrap().contains("epoch b"));
        assert_eq!(progress.seen(&at("b", 2)), None);
        assert!(progress.asked(&at("c", 1)).unwrap().contains("epoch c"));
    }

    #[test]
    fn events_that_never_came_are_told_when_the_registry_is_asked_the_second_time() {
        let mut progress = watching("a", 5);
        assert_eq!(progress.asked_again(&at("a", 7)), None, "they may be under way");
        assert_eq!(progress.seen(&at("a", 6)), None);
        let news = progress.asked_again(&at("a", 7)).unwrap();
        assert!(news.starts_with("changes missed between revision 6 and 7:"), "{news}");
        assert_eq!(progress.asked_again(&at("a", 7)), None, "told once");
    }

    #[test]
    fn a_registry_that_counts_nothing_is_watched_all_the_same() {
        let mut progress = Progress::default();
        assert_eq!(progress.asked(&json!({})), None);
        assert_eq!(progress.seen(&json!({ "type": "register" })), None);
    }
}
