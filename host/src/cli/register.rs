//! `register`, `renew`, `update`: the life of a service.

use std::time::Duration;

use registry_client::{Connectivity, Registration, State};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::arguments::Connection;
use super::client::{Client, Patience};
use super::output::{self, Failure};
use super::service::Service;

/// What the registry takes if a request names no ttl.
const DEFAULT_TTL: Duration = Duration::from_secs(30);
/// Three heartbeats to a ttl: two may be lost.
const HEARTBEATS_PER_TTL: u32 = 3;
/// How long the last deregistration is tried for. Supervisors kill a program that takes ten seconds to end.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Registers a service and prints its id. With `--keep` it stays until a signal comes.
pub(super) async fn register(service: &Service, connection: &Connection) -> Result<(), Failure> {
    // Caught before the service is there, so that no signal can end this command and leave the service behind.
    let signals = if service.keep { Some(Signals::new()?) } else { None };
    let client = Client::new(connection, Patience::None)?;
    // Without an id it must not be sent twice: there would be two services.
    let reply = client.request_once("register", service.info().as_request()).await?;
    let Some(id) = reply["service_id"].as_str() else {
        return Err(Failure::NoAnswer(format!("{} sent a reply without a service_id", client.endpoint())));
    };
    match connection.json {
        true => output::json(&reply)?,
        false => output::line(&output::printable(id))?,
    }
    let Some(signals) = signals else { return Ok(()) };
    let interval = service.ttl.unwrap_or(DEFAULT_TTL) / HEARTBEATS_PER_TTL;
    let seconds = (interval.as_secs_f64() * 1000.0).round() / 1000.0;
    output::note(&format!("{id} is renewed every {seconds} s until Ctrl-C"));
    let kept = client.registry().adopt(service.info(), id, reply["generation"].as_u64());
    keep(&client, client.about(id, kept)?, signals).await
}

/// Sends one heartbeat.
pub(super) async fn renew(id: &str, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let reply = client.request("renew", json!({ "service_id": id })).await?;
    done(&reply, &format!("{id} renewed"), connection)
}

/// Changes the metadata.
pub(super) async fn update(id: &str, metadata: Vec<(String, Value)>, connection: &Connection) -> Result<(), Failure> {
    let client = Client::new(connection, Patience::None)?;
    let metadata: Map<String, Value> = metadata.into_iter().collect();
    let reply = client.request("update", json!({ "service_id": id, "metadata": metadata })).await?;
    done(&reply, &format!("{id} updated"), connection)
}

fn done(reply: &Value, text: &str, connection: &Connection) -> Result<(), Failure> {
    match connection.json {
        true => output::json(reply),
        false => output::line(&output::printable(text)),
    }
}

/// Keeps the service until a signal comes, then deregisters it.
async fn keep(client: &Client, mut registration: Registration, mut signals: Signals) -> Result<(), Failure> {
    let id = registration.id().to_string();
    let mut news = News::new(client);
    tokio::select! {
        state = news.follow(client, &mut registration) => return Err(Failure::Failed(lost(&id, state))),
        () = signals.any() => {}
    }
    tokio::select! {
        left = leave(client, registration) => left,
        () = signals.any() => Err(Failure::Failed(format!("{id} is not deregistered: interrupted"))),
    }
}

/// Deregisters at the end, and waits for a registry that is just being restarted: otherwise others would find a service
/// that is gone, until its ttl has passed.
pub(super) async fn leave(client: &Client, registration: Registration) -> Result<(), Failure> {
    let id = registration.id().to_string();
    match registration.close_within(LEAVE_WITHIN).await {
        Ok(()) => {
            output::note(&format!("{id} is deregistered"));
            Ok(())
        }
        Err(error) => Err(match client.failure(error.clone(), &json!({ "service_id": id })) {
            Failure::NoAnswer(_) => Failure::NoAnswer(format!("{id} is not deregistered: {}", client.told(&error))),
            failure => failure,
        }),
    }
}

/// That a service is not kept any more.
pub(super) fn lost(id: &str, state: State) -> String {
    match state {
        State::Replaced => format!("{id} was registered by somebody else"),
        _ => format!("{id} was deregistered by somebody else"),
    }
}

/// What has been said of how a kept service is, so that it is said once.
pub(super) struct News {
    connectivity: tokio::sync::watch::Receiver<Connectivity>,
    is_away: bool,
    registrations: u64,
    state: State,
}

impl News {
    pub(super) fn new(client: &Client) -> Self {
        let mut connectivity = client.registry().connectivity();
        connectivity.mark_unchanged();
        News { connectivity, is_away: false, registrations: 0, state: State::Registered }
    }

    /// The service has been registered once, which is no news.
    pub(super) fn begun(mut self, registration: &Registration) -> Self {
        self.registrations = registration.registrations();
        self.state = registration.state();
        self
    }

    /// Says what changes, until somebody else ends the registration.
    pub(super) async fn follow(&mut self, client: &Client, registration: &mut Registration) -> State {
        loop {
            if let Some(state) = self.tell(registration) {
                return state;
            }
            tokio::select! {
                () = registration.changed() => {}
                changed = self.connectivity.changed() => match (changed, &*self.connectivity.borrow_and_update()) {
                    (Ok(()), Connectivity::Away { cause: Some(cause) }) if !self.is_away => {
                        output::note(&format!("{}; trying again", client.unreachable(cause)));
                        self.is_away = true;
                    }
                    (Ok(()), Connectivity::Connected { endpoint, .. }) if self.is_away => {
                        output::note(&format!("{endpoint} answers again"));
                        self.is_away = false;
                    }
                    (Ok(()), _) => {}
                    (Err(_), _) => return State::Closed,
                },
            }
        }
    }

    fn tell(&mut self, registration: &Registration) -> Option<State> {
        let (id, state, registrations) = (registration.id(), registration.state(), registration.registrations());
        if registrations > self.registrations {
            output::note(&match registrations {
                1 if self.state == State::Unsure => format!("{id} is registered"),
                _ => format!("the registry did not know {id} any more: it is registered again"),
            });
            self.registrations = registrations;
        }
        if std::mem::replace(&mut self.state, state) != state {
            match (state, registration.error()) {
                (State::Unsure, _) => output::note(&format!("{id} could not be renewed: others may not find it")),
                (State::Refused, Some(error)) => output::note(&format!("{id} is refused: {error}; trying again")),
                _ => {}
            }
        }
        state.is_over().then_some(state)
    }
}

/// The signals that end a kept service.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::Failed(format!("cannot wait for signals: {error}")));
        Ok(Signals { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Waits for SIGTERM. SIGINT is taken and nothing more: the terminal sends it to all programs that it runs.
    pub(super) async fn terminated(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => return,
            }
        }
    }
}
