//! `register`, `renew`, `deregister`: the life of a service.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::arguments::{Connection, Service};
use super::client::{Client, ClientError};
use super::output::{self, Failure};

/// What the registry takes if a request names no ttl.
const DEFAULT_TTL: Duration = Duration::from_secs(30);
/// Three heartbeats to a ttl: two may be lost.
const HEARTBEATS_PER_TTL: u32 = 3;
/// The longest pause after a heartbeat that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long the last deregistration is tried for. Supervisors kill a program that takes ten seconds to end.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
const LEAVE_RETRY_AFTER: Duration = Duration::from_millis(200);

/// Registers a service and prints its id. With `--keep` it stays until a signal comes.
pub(super) async fn register(service: &Service, connection: &Connection) -> Result<(), Failure> {
    // Caught before the service is there, so that no signal can end this command and leave the service behind.
    let signals = if service.keep { Some(Signals::new()?) } else { None };
    let mut client = Client::new(connection)?;
    let reply = client.request("register", request(service, service.id.as_deref())).await?;
    let Some(id) = reply["service_id"].as_str() else {
        return Err(Failure::NoAnswer(format!("{} sent a reply without a service_id", client.endpoint())));
    };
    match connection.json {
        true => output::json(&reply)?,
        false => output::line(&output::printable(id))?,
    }
    match signals {
        Some(signals) => keep(&mut client, service, id, signals).await,
        None => Ok(()),
    }
}

/// Sends one heartbeat.
pub(super) async fn renew(id: &str, connection: &Connection) -> Result<(), Failure> {
    let reply = Client::new(connection)?.request("renew", json!({ "service_id": id })).await?;
    done(&reply, &format!("{id} renewed"), connection)
}

/// Removes a service.
pub(super) async fn deregister(id: &str, connection: &Connection) -> Result<(), Failure> {
    let reply = Client::new(connection)?.request("deregister", json!({ "service_id": id })).await?;
    done(&reply, &format!("{id} deregistered"), connection)
}

fn done(reply: &Value, text: &str, connection: &Connection) -> Result<(), Failure> {
    match connection.json {
        true => output::json(reply),
        false => output::line(&output::printable(text)),
    }
}

fn request(service: &Service, id: Option<&str>) -> Value {
    let mut info = json!({ "name": service.name, "host": service.host, "port": service.port });
    if let Some(id) = id {
        info["id"] = json!(id);
    }
    if let Some(service_type) = &service.service_type {
        info["type"] = json!(service_type);
    }
    if !service.tags.is_empty() {
        info["tags"] = json!(service.tags);
    }
    if !service.metadata.is_empty() {
        info["metadata"] =
            service.metadata.iter().map(|(key, value)| (key.clone(), json!(value))).collect::<Map<_, _>>().into();
    }
    if service.singleton {
        info["singleton"] = json!(true);
    }
    let mut request = json!({ "service_info": info });
    if let Some(ttl) = service.ttl {
        // A whole number as such: not every registry takes a fraction.
        request["ttl"] = if ttl.subsec_nanos() == 0 { json!(ttl.as_secs()) } else { json!(ttl.as_secs_f64()) };
    }
    request
}

/// Renews until a signal comes, then deregisters. Waits for a registry that is away, and registers again with one that
/// has forgotten the service.
async fn keep(client: &mut Client, service: &Service, id: &str, mut signals: Signals) -> Result<(), Failure> {
    let interval = service.ttl.unwrap_or(DEFAULT_TTL) / HEARTBEATS_PER_TTL;
    let seconds = (interval.as_secs_f64() * 1000.0).round() / 1000.0;
    output::note(&format!("{id} is renewed every {seconds} s until Ctrl-C"));
    let mut away = false;
    loop {
        // Only the pause is cut short by a signal: a registration under way must not arrive after the deregistration.
        tokio::select! {
            () = tokio::time::sleep(if away { interval.min(RETRY_AFTER) } else { interval }) => {}
            () = signals.any() => break,
        }
        match heartbeat(client, service, id).await {
            Ok(news) => {
                let back = away.then(|| format!("{} answers again", client.endpoint()));
                news.or(back).iter().for_each(|text| output::note(text));
                away = false;
            }
            // Said once, not with every try.
            Err(error) if !away => {
                output::note(&format!("{error}; trying again"));
                away = true;
            }
            Err(_) => {}
        }
    }
    tokio::select! {
        left = leave(client, id) => left,
        () = signals.any() => Err(Failure::Failed(format!("{id} is not deregistered: interrupted"))),
    }
}

/// Deregisters at the end, and waits for a registry that is just being restarted: otherwise others would find a service
/// that is gone, until its ttl has passed.
async fn leave(client: &mut Client, id: &str) -> Result<(), Failure> {
    let give_up_at = Instant::now() + LEAVE_WITHIN;
    loop {
        match client.request("deregister", json!({ "service_id": id })).await {
            Ok(_) => output::note(&format!("{id} is deregistered")),
            Err(error) if error.is_not_found() => output::note(&format!("{id} was gone already")),
            Err(error) if error.may_pass() && Instant::now() < give_up_at => {
                tokio::time::sleep(LEAVE_RETRY_AFTER).await;
                continue;
            }
            Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
            Err(error) => return Err(Failure::NoAnswer(format!("{id} is not deregistered: {error}"))),
        }
        return Ok(());
    }
}

/// One heartbeat. Says so if the service had to be registered again.
async fn heartbeat(client: &mut Client, service: &Service, id: &str) -> Result<Option<String>, ClientError> {
    match client.request("renew", json!({ "service_id": id })).await {
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => {
            client.request("register", request(service, Some(id))).await?;
            Ok(Some(format!("the registry did not know {id} any more: it is registered again")))
        }
        Err(error) => Err(error),
    }
}

/// The signals that end a kept service.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::Failed(format!("cannot wait for signals: {error}")));
        Ok(Signals { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
