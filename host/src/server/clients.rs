//! Who is connected: what the fronts know of each connection, and the core of whose it is.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Server;
use crate::fronts::Front;
use crate::fronts::roll::{Client, Following, Roll};
use crate::protocol::json::Shown;
use crate::protocol::reply::Reply;
use crate::protocol::request::Action;
use crate::registry::Now;
use crate::security::guard::Guard;
use crate::security::principal::Principal;

impl<F: Front> Server<F> {
    /// Answers who has asked who is connected.
    pub(super) fn take_roll_calls(&mut self, now: Now) {
        if self.out.roll_calls.is_empty() {
            return;
        }
        for (caller, asked) in std::mem::take(&mut self.out.roll_calls) {
            let meant = asked.principal.as_deref().and_then(Principal::read);
            let is_wanted = |principal: &Principal| match &asked.principal {
                None => true,
                Some(name) => meant == Some(*principal) || is_called(principal, &self.guard, name),
            };
            let mut roll = Roll::begin(&asked, &is_wanted);
            self.front.call_roll(&mut roll);
            let (clients, connected, next) = roll.end();
            let shown = clients.into_iter().map(|client| {
                let name = client.origin.principal.key().and_then(|key| self.guard.name(key));
                let services = self.registry.services_of(&client.origin.holder());
                Told::of(client, name, services, now)
            });
            let reply = Reply::success().services("clients", shown);
            let connected: Map<String, Value> =
                connected.into_iter().map(|(front, count)| (front.to_string(), count.into())).collect();
            let reply = reply.json("connected", &connected.into());
            let reply = match next {
                Some(after) => reply.text("cursor", &self.registry.clients_after(after).to_string()),
                None => reply,
            };
            self.front.reply(caller, reply);
        }
    }
}

/// Whether operators have given somebody this name.
fn is_called(principal: &Principal, guard: &Guard, name: &str) -> bool {
    match principal {
        Principal::Nobody | Principal::Stranger => false,
        Principal::Key(key) => guard.name(key).is_some_and(|given| given == name),
        Principal::Token(given) | Principal::Certificate(given) => given.as_str() == name,
    }
}

/// A client as it is told of.
#[derive(Serialize)]
struct Told {
    connection: u64,
    front: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    /// The name that operators have given its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    ready: bool,
    /// The wall clock's time at which it was let in, in seconds since 1970.
    since: u64,
    connected_seconds: f64,
    silent_seconds: f64,
    requests: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_action: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_service: String,
    unanswered: usize,
    waits: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_bytes: Option<usize>,
    /// How many services it has registered, with all that count as one client with it.
    services: usize,
    #[serde(flatten)]
    following: Option<Followed>,
}

/// What a subscriber follows.
#[derive(Serialize)]
struct Followed {
    subscriptions: usize,
    topics: Vec<String>,
    missed_events: u64,
}

impl Told {
    fn of(client: Client, name: Option<String>, services: usize, now: Now) -> Self {
        let Client { origin, deeds, following, .. } = client;
        let seconds = |span: Duration| span.as_millis() as f64 / 1000.0;
        let age_ms = u64::try_from(client.age.as_millis()).unwrap_or(u64::MAX);
        Told {
            connection: client.connection,
            front: client.front,
            address: origin.address.shown(),
            principal: origin.principal.written(),
            name,
            ready: client.is_ready,
            since: now.unix_ms.saturating_sub(age_ms) / 1000,
            connected_seconds: seconds(client.age),
            silent_seconds: seconds(client.silent),
            requests: deeds.requests,
            last_action: deeds.last_action.map(Action::as_str),
            last_service: deeds.last_service,
            unanswered: client.unanswered,
            waits: client.waits,
            waiting_bytes: client.waiting_bytes,
            services,
            following: following.map(|Following { subscriptions, topics, missed }| Followed {
                subscriptions,
                topics,
                missed_events: missed,
            }),
        }
    }
}

impl Shown for Told {
    fn show(&self, json: &mut String) {
        // Texts and numbers can always be written.
        json.push_str(&serde_json::to_string(self).unwrap_or_default());
    }
}
