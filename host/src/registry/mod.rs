//! The core: it owns all live services and answers for them.
//!
//! A request and the time go in; replies, events and changes for the store come out. There is no socket, no clock and
//! no file here, so every rule is tested without waiting, and every storage backend gives users the same rules.
//!
//! Reads and heartbeats are answered at once, from memory. A change is *admitted*, sent to the store in a group with
//! others, and takes effect when the store has said yes: only then is it visible, answered and announced. That is
//! `changes.rs`; `services.rs` is how services are found and expire.

mod changes;
mod group;
mod pending;
mod service;
mod services;
mod watching;

use std::collections::VecDeque;
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::StdRng;
use registry_plugin_api::{Query, Record};
use serde_json::{Value, json};

use crate::protocol::event::{Event, EventKind, Place};
use crate::protocol::registration::cut;
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::Request;
use crate::security::access::Access;
use crate::security::key::PublicKey;
use pending::{Pending, Wait};
pub use service::Service;
use services::Services;
pub use watching::Unreadable;

/// How much of what was forbidden is shown, in characters.
const FORBIDDEN_SHOWN_MAX: usize = 200;

/// A moment. The core never asks for the time: it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on the clock that deadlines go by: it only moves forward, and stands still while the host is
    /// held up (see [`Clock`](crate::clock::Clock)).
    pub uptime_ms: u64,
    /// Milliseconds since the Unix epoch on the wall clock, which may jump: only to be shown and stored.
    pub unix_ms: u64,
}

/// The rules that an operator sets.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whether a service type is unique unless a service says otherwise.
    pub enforce_unique_service_types: bool,
    /// Whether a client may stop the server.
    pub allow_terminate: bool,
    /// How long a client waits for the store, in milliseconds.
    pub reply_timeout_ms: u64,
    /// How often critical services are removed, in milliseconds.
    pub cleanup_interval_ms: u64,
    /// How long a call of the store may take before the store counts as stalled, in milliseconds.
    pub call_timeout_ms: u64,
    /// How many changes may wait for the store.
    pub pending_changes_max: usize,
    /// How long they may be together, in bytes.
    pub pending_bytes_max: usize,
    /// How long all services may be together, in bytes, before no more are registered.
    pub services_bytes_max: usize,
    /// The store has a say in `discover`.
    pub balances: bool,
    /// The store tells of all changes, in order, this host's own among them.
    pub watches: bool,
    /// Who may do what.
    pub access: Access,
}

/// What `info` tells of the server, besides the services.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The port for requests.
    pub req_port: u16,
    /// The port for events.
    pub pub_port: u16,
    /// The port for heartbeats.
    pub heartbeat_port: u16,
    /// The host's version.
    pub version: String,
    /// The storage plugin's name.
    pub plugin: String,
}

/// What comes out of the core. `C` stands for whoever asked; the core hands it back and never looks into it.
#[derive(Debug)]
pub struct Output<C> {
    /// Replies, each to one request.
    pub replies: Vec<(C, Reply)>,
    /// Events, in the order in which the changes happened.
    pub events: Vec<Event>,
    /// Choices that the store is asked to make, with the ticket for [`Registry::chosen`].
    pub queries: Vec<(u64, Query)>,
    /// What clients were not allowed to do, for operators.
    pub forbidden: Vec<Forbidden>,
    /// A client asked the server to stop, and may.
    pub terminate: bool,
}

/// Something that a client was not allowed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// Whose key it is.
    pub client: PublicKey,
    /// What it wanted: "to stop the server".
    pub what: String,
}

impl<C> Default for Output<C> {
    fn default() -> Self {
        Output { replies: Vec::new(), events: Vec::new(), queries: Vec::new(), forbidden: Vec::new(), terminate: false }
    }
}

/// The core.
pub struct Registry<C> {
    policy: Policy,
    about: About,
    services: Services,
    pending: Pending<C>,
    /// The name of the history that `revision` counts in.
    epoch: String,
    revision: u64,
    /// The revision of the last event.
    announced_revision: u64,
    /// Makes ids, and chooses among services.
    rng: StdRng,
    cleanup_at_ms: u64,
    /// Why the last group of changes could not be stored, if it could not, and since when that is so, in milliseconds
    /// since the Unix epoch.
    storage_error: Option<(String, u64)>,
    /// With a store that watches: own changes that are stored, waiting for their turn in the store's history.
    unconfirmed: VecDeque<watching::Unconfirmed>,
    /// The revision up to which the store has told of changes.
    watched_revision: u64,
}

impl<C> Registry<C> {
    /// A core without services, at this revision of a store's history.
    pub fn new(policy: Policy, about: About, epoch: String, revision: u64, rng: StdRng) -> Self {
        Registry {
            cleanup_at_ms: policy.cleanup_interval_ms,
            policy,
            about,
            services: Services::default(),
            pending: Pending::default(),
            storage_error: None,
            epoch,
            revision,
            announced_revision: revision,
            rng,
            unconfirmed: VecDeque::new(),
            watched_revision: revision,
        }
    }

    /// Takes over a service from the store. It has one full ttl from now on.
    ///
    /// # Errors
    /// The record cannot be a service.
    pub fn load(&mut self, record: Record, now: Now) -> Result<(), Unreadable> {
        let id = record.id.clone();
        let service = Service::from_record(record, now).map_err(|reason| Unreadable { id, reason })?;
        self.services.put(service);
        Ok(())
    }

    /// How many services there are.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there are no services.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The core's state in the store's history: epoch and revision.
    pub fn position(&self) -> (&str, u64) {
        (&self.epoch, self.revision)
    }

    /// Sets what `info` says of the server.
    pub fn set_about(&mut self, about: About) {
        self.about = about;
    }

    /// Answers a request, now or when the store has spoken. `client` is the key that the client has proved to hold.
    pub fn request(&mut self, caller: C, client: Option<PublicKey>, request: Request, now: Now, out: &mut Output<C>) {
        self.services.advance(now.uptime_ms);
        let reply = match request {
            Request::Register(registration) => return self.register(caller, client, registration, now, out),
            Request::Deregister { service_id } => return self.deregister(caller, client, &service_id, now, out),
            Request::Get { .. } | Request::List { .. } | Request::Discover { .. } | Request::Info
                if !self.policy.access.may_read(client.as_ref()) =>
            {
                self.forbid(client, "to read", out)
            }
            Request::Discover { service_type } => return self.discover(caller, service_type, now, out),
            Request::Renew { service_id } => self.renew(client, &service_id, now, out),
            Request::Get { service_id } => match self.services.get(&service_id) {
                Some(service) => Reply::success().service("service", service),
                None => Reply::failure(Code::NotFound, "Service not found"),
            },
            Request::List { service_type } => {
                let reply = Reply::success();
                let reply = match service_type {
                    Some(service_type) => reply.services("services", self.services.of_type(&service_type)),
                    None => reply.services("services", self.services.iter()),
                };
                reply.number("revision", self.revision).text("epoch", &self.epoch)
            }
            Request::Health => Reply::success()
                .text("status", "ok")
                .number("timestamp", now.unix_ms / 1000)
                .json("backend", &self.backend(client.as_ref(), now)),
            Request::Info => self.info(client.as_ref(), now),
            Request::Terminate if !self.policy.access.is_admin(client.as_ref()) => {
                self.forbid(client, "to stop the server", out)
            }
            Request::Terminate if self.policy.allow_terminate => {
                out.terminate = true;
                Reply::success().text("status", "terminating").number("timestamp", now.unix_ms / 1000)
            }
            Request::Terminate => {
                let error = "terminate is not allowed: the server's allow_terminate is off";
                Reply::failure(Code::Forbidden, error)
            }
        };
        out.replies.push((caller, reply));
    }

    /// The state of the storage, and since when it is no good one. Old clients look at `status` alone, which is the
    /// host's. What the plugin says of its failure may name files and hosts: it is for those who run the registry.
    fn backend(&self, client: Option<&PublicKey>, now: Now) -> Value {
        let waited_ms = self.pending.sent_at_ms().map_or(0, |sent_at_ms| now.uptime_ms.saturating_sub(sent_at_ms));
        let (state, since_ms) = match &self.storage_error {
            _ if waited_ms > self.policy.call_timeout_ms => ("stalled", Some(now.unix_ms.saturating_sub(waited_ms))),
            Some((_, since_ms)) => ("failing", Some(*since_ms)),
            None => ("ok", None),
        };
        let mut backend = json!({"plugin": self.about.plugin, "state": state});
        if let Some(since_ms) = since_ms {
            backend["since"] = (since_ms / 1000).into();
        }
        if let Some((error, _)) = self.storage_error.as_ref().filter(|_| state == "failing")
            && self.policy.access.is_admin(client)
        {
            backend["error"] = error.as_str().into();
        }
        backend
    }

    fn info(&self, client: Option<&PublicKey>, now: Now) -> Reply {
        Reply::success()
            .text("status", "ok")
            .number("req_port", self.about.req_port.into())
            .number("pub_port", self.about.pub_port.into())
            .number("hb_port", self.about.heartbeat_port.into())
            .boolean("enforce_unique_service_types", self.policy.enforce_unique_service_types)
            .text("version", &self.about.version)
            .json("backend", &self.backend(client, now))
            .services("services", self.services.iter())
            .number("revision", self.revision)
            .text("epoch", &self.epoch)
    }

    fn renew(&mut self, client: Option<PublicKey>, service_id: &str, now: Now, out: &mut Output<C>) -> Reply {
        if self.services.get(service_id).is_some_and(|service| !self.is_changeable_by(client, service)) {
            return self.forbid(client, &format!("to renew {service_id:?}, which belongs to another key"), out);
        }
        match self.services.renew(service_id, now.uptime_ms, now.unix_ms) {
            Some(service) => {
                self.pending.heartbeat(service.id().clone(), now);
                Reply::success().text("message", "Service renewed successfully")
            }
            None => Reply::failure(Code::NotFound, "Service not found or could not be renewed"),
        }
    }

    fn discover(&mut self, caller: C, service_type: String, now: Now, out: &mut Output<C>) {
        if self.policy.balances {
            let candidates: Vec<String> =
                self.services.passing_of_type(&service_type).map(|service| service.id().to_string()).collect();
            if candidates.len() > 1 {
                let query = Query::new(service_type.as_str(), candidates);
                let ticket = self.pending.wait(caller, Wait::Choice { service_type }, self.reply_deadline_ms(now));
                out.queries.push((ticket, query));
                return;
            }
        }
        out.replies.push((caller, self.pick(&service_type)));
    }

    /// The store's choice among the candidates of a query, if it made one.
    pub fn chosen(&mut self, ticket: u64, service_id: Option<String>, now: Now, out: &mut Output<C>) {
        let Some((caller, Wait::Choice { service_type })) = self.pending.answer(ticket) else { return };
        self.services.advance(now.uptime_ms);
        let chosen = service_id.as_deref().and_then(|id| self.services.get(id)).filter(|service| service.passing);
        let reply = match chosen {
            Some(service) => Reply::success().service("service", service),
            None => self.pick(&service_type),
        };
        out.replies.push((caller, reply));
    }

    fn pick(&mut self, service_type: &str) -> Reply {
        match self.services.pick(service_type, &mut self.rng) {
            Some(service) => Reply::success().service("service", service),
            None => Reply::failure(Code::NoneHealthy, &format!("No healthy service of type {service_type} found")),
        }
    }

    /// What time alone brings: services past their ttl become critical, and whoever waits for the store too long is
    /// told so. To be called at [`wake_at_ms`](Self::wake_at_ms), or more often.
    pub fn tick(&mut self, now: Now, out: &mut Output<C>) {
        self.services.advance(now.uptime_ms);
        self.give_up_waiting(now, out);
    }

    /// Whether it is time for [`clean_up`](Self::clean_up).
    pub fn is_cleanup_due(&self, now: Now) -> bool {
        now.uptime_ms >= self.cleanup_at_ms
    }

    /// Has all critical services removed. Heartbeats that have arrived are to be handed in first.
    pub fn clean_up(&mut self, now: Now) {
        self.cleanup_at_ms = now.uptime_ms + self.policy.cleanup_interval_ms;
        self.services.advance(now.uptime_ms);
        self.expire_critical();
    }

    /// When [`tick`](Self::tick), [`clean_up`](Self::clean_up) or [`next_group`](Self::next_group) has something to
    /// do next, on the clock that deadlines go by.
    pub fn wake_at_ms(&self) -> u64 {
        self.pending.wake_at_ms().map_or(self.cleanup_at_ms, |at_ms| at_ms.min(self.cleanup_at_ms))
    }

    fn is_changeable_by(&self, client: Option<PublicKey>, service: &Service) -> bool {
        self.policy.access.may_change(client.as_ref(), service.owner())
    }

    /// The reply to a client that is not allowed to do what it wants, which operators are told of.
    fn forbid(&self, client: Option<PublicKey>, what: &str, out: &mut Output<C>) -> Reply {
        let what = &*cut(what, FORBIDDEN_SHOWN_MAX);
        out.forbidden.extend(client.map(|client| Forbidden { client, what: what.to_string() }));
        Reply::failure(Code::Forbidden, "Not allowed").text("message", &format!("this key is not allowed {what}"))
    }

    fn reply_deadline_ms(&self, now: Now) -> u64 {
        now.uptime_ms + self.policy.reply_timeout_ms
    }

    /// A new service's id: its name, lower case, spaces to dashes, and a random UUID.
    fn new_id(&mut self, name: &str) -> Arc<str> {
        let uuid = uuid::Builder::from_random_bytes(self.rng.random()).into_uuid();
        format!("{}-{uuid}", name.to_lowercase().replace(' ', "-")).into()
    }

    fn announce(&mut self, kind: EventKind, service: &Service, now: Now, out: &mut Output<C>) {
        let place = Place { epoch: &self.epoch, revision: self.revision, previous: self.announced_revision };
        out.events.push(Event::new(kind, service, now.unix_ms / 1000, place));
        self.announced_revision = self.revision;
    }
}
