//! The task that keeps a service registered.

use std::time::Duration;

use rand::RngExt as _;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Draining, Order, Registration, Shown, State, address, beats};
use crate::error::{Code, Error};
use crate::info::ServiceInfo;
use crate::link::Connectivity;
use crate::registry::{Registry, named};

/// Three heartbeats to a ttl: two may be lost.
const HEARTBEATS_PER_TTL: u32 = 3;
/// The shortest wait between two heartbeats, however short the ttl.
const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
/// The longest wait after a heartbeat that failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest wait for a heartbeat over a new connection.
const AFTER_CONNECTION: Duration = Duration::from_secs(1);
const ORDERS_MAX: usize = 16;
/// The field of a record by which a keeper knows what it has registered itself.
const INSTANCE: &str = "instance";

pub(crate) struct Keeper {
    registry: Registry,
    info: ServiceInfo,
    id: String,
    generation: Option<u64>,
    /// The host that it was registered with, if that was left to us.
    host: Option<String>,
    instance: String,
    /// When the registry has said yes for the last time.
    confirmed: Instant,
    /// Whether the registry has it, as far as is known: then it is renewed, else registered.
    is_known: bool,
    /// Whether the registry may have it: then it is deregistered at the end.
    may_be_there: bool,
    shown: watch::Sender<Shown>,
}

impl Keeper {
    /// Of a service that is registered already, under this id and generation, if it is.
    pub(crate) fn new(
        registry: &Registry,
        mut info: ServiceInfo,
        known: Option<(String, Option<u64>)>,
    ) -> Result<Self, Error> {
        if registry.link.is_closed() {
            return Err(Error::Closed);
        }
        let instance = format!("{:016x}", rand::random::<u64>());
        info = info.field(INSTANCE, instance.clone());
        let is_known = known.is_some();
        let (id, generation) = known.unwrap_or_else(|| {
            let id = info.id_given().map_or_else(|| info.make_id(), String::from);
            (id, None)
        });
        let host = info.host_given().map(String::from);
        let shown = watch::Sender::new(Shown {
            state: State::Registered,
            error: None,
            generation,
            is_known,
            host,
            registrations: 0,
        });
        registry.keepers.count.send_modify(|count| *count += 1);
        registry.link.kept.add(info.lifetime());
        let (registry, confirmed) = (registry.within(registry.link.settings().timeout), Instant::now());
        let (host, may_be_there) = (None, is_known);
        Ok(Keeper { registry, info, id, generation, host, instance, confirmed, is_known, may_be_there, shown })
    }

    /// Registers the service, and keeps it.
    pub(crate) async fn start(mut self, timeout: Duration) -> Result<Registration, Error> {
        self.register_in_time(timeout).await?;
        Ok(self.go_on())
    }

    /// Registers the service, and keeps it; if nobody answers, it is registered when somebody does.
    pub(crate) async fn start_anyway(mut self) -> Result<Registration, Error> {
        if let Err(error) = self.register_in_time(self.registry.timeout()).await {
            if !error.may_pass() {
                return Err(error);
            }
            warn!("{} is not registered yet: {error}", self.id);
            self.show(State::Unsure, Some(error));
        }
        Ok(self.go_on())
    }

    /// Keeps the service.
    pub(crate) fn go_on(self) -> Registration {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let (id, link, shown) = (self.id.clone(), self.registry.link.clone(), self.shown.subscribe());
        tokio::spawn(self.run(receiver));
        Registration { id, link, orders, shown }
    }

    /// Registers, and tries again what may pass, as long as a call may take.
    async fn register_in_time(&mut self, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.register(left).await {
                Err(error @ Error::Refused(_)) if error.may_pass() && Instant::now() < deadline => {
                    debug!("{} is not registered yet: {error}", self.id);
                    self.registry.pause().await;
                }
                result => return result,
            }
        }
    }

    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut connectivity = self.registry.link.connectivity();
        let mut leaving = self.registry.keepers.leaving.subscribe();
        let mut calls = self.registry.keepers.beats.calls();
        connectivity.mark_unchanged();
        let mut is_well = self.shown.borrow().state == State::Registered;
        let mut next = Instant::now() + self.wait(is_well);
        loop {
            // Only the wait is cut short by an order: a registration under way must not arrive after a deregistration. Who
            // closes this one is told how that went, even if all are closed.
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next) => {
                    is_well = self.beat().await;
                    if self.shown.borrow().state.is_over() {
                        self.may_be_there = false;
                        return;
                    }
                    next = Instant::now() + self.wait(is_well);
                }
                changed = connectivity.changed() => {
                    let is_connected = matches!(*connectivity.borrow_and_update(), Connectivity::Connected { .. });
                    match changed {
                        // A host that has forgotten it learns of it right away.
                        Ok(()) if is_connected => next = next.min(Instant::now() + self.soon()),
                        Ok(()) => {}
                        Err(_) => return self.end_in_time().await,
                    }
                }
                // Another of the client's services is renewed: if this one is past the middle of its wait, it goes along.
                // The sender is the registry's, which the keeper has a part of.
                _ = calls.changed(), if self.is_known => {
                    if next.saturating_duration_since(Instant::now()) <= self.interval() / 2 {
                        next = Instant::now();
                    }
                }
                order = orders.recv() => match order {
                    Some(Order::Update(patch, done)) => {
                        let _ = done.send(self.update(&patch).await);
                    }
                    Some(Order::Drain(draining, done)) => {
                        let _ = done.send(self.drain(draining.as_ref()).await);
                    }
                    Some(Order::Close(deadline, done)) => return drop(done.send(self.end(deadline).await)),
                    None => return self.end_in_time().await,
                },
                () = has_come(&mut leaving) => return self.end_in_time().await,
            }
        }
    }

    fn interval(&self) -> Duration {
        (self.info.lifetime() / HEARTBEATS_PER_TTL).max(HEARTBEAT_MIN)
    }

    fn wait(&self, is_well: bool) -> Duration {
        let interval = if is_well { self.interval() } else { self.interval().min(RETRY_AFTER) };
        interval.mul_f64(rand::rng().random_range(0.9..=1.0))
    }

    fn soon(&self) -> Duration {
        AFTER_CONNECTION.min(self.info.lifetime() / 10).mul_f64(rand::random())
    }

    /// How long a heartbeat is waited for: no longer than until the next one.
    fn patience(&self) -> Duration {
        self.registry.timeout().min(self.interval().max(Duration::from_millis(500)))
    }

    /// One heartbeat, or what is needed instead. Whether all is well.
    async fn beat(&mut self) -> bool {
        let has_moved = self.has_moved();
        let mut result = Ok(());
        if has_moved || !self.is_known {
            result = self.register(self.patience()).await;
        }
        // What is there is kept, even if it cannot be changed at the moment.
        if self.is_known && (!has_moved || result.is_err()) {
            result = self.renew().await;
        }
        match result {
            Ok(()) => {
                self.confirmed = Instant::now();
                self.show(State::Registered, None);
                return true;
            }
            Err(error) if error.code() == Some(&Code::Deregistered) => {
                info!("{} was deregistered by somebody else", self.id);
                self.show(State::Deregistered, Some(error));
            }
            Err(error) if error.code() == Some(&Code::Replaced) => {
                info!("{} was registered by somebody else", self.id);
                self.show(State::Replaced, Some(error));
            }
            Err(Error::Closed) => self.show(State::Closed, Some(Error::Closed)),
            Err(error) if error.may_pass() => {
                debug!("{} is not renewed: {error}", self.id);
                if self.confirmed.elapsed() > self.info.lifetime() {
                    self.show(State::Unsure, Some(error));
                }
                return false;
            }
            Err(error) => {
                if self.shown.borrow().state != State::Refused {
                    warn!("{} is refused: {error}; it is tried again", self.id);
                }
                self.show(State::Refused, Some(error));
                // As often as a heartbeat: nothing is urgent about it.
                return true;
            }
        }
        false
    }

    async fn renew(&mut self) -> Result<(), Error> {
        match beats::renew(&self.registry, &self.id, self.generation, self.patience()).await {
            Err(error) if error.is_not_found() => {
                info!("the registry does not know {} any more: it is registered again", self.id);
                self.is_known = false;
                self.register(self.patience()).await
            }
            Err(error) if error.code() == Some(&Code::Replaced) && self.is_own(self.patience()).await? => Ok(()),
            renewed => renewed,
        }
    }

    /// Whether what is registered under the id comes from here: from a registration whose answer was lost.
    async fn is_own(&mut self, patience: Duration) -> Result<bool, Error> {
        let record = match self.registry.within(patience).get(&self.id).await {
            Ok(record) => record,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        };
        let is_own = record.get(INSTANCE).and_then(Value::as_str) == Some(&self.instance);
        if is_own {
            self.generation = record.generation();
        }
        Ok(is_own)
    }

    async fn register(&mut self, patience: Duration) -> Result<(), Error> {
        let host = match self.info.host_given() {
            Some(_) => None,
            None => self.find_host(patience).await?,
        };
        let request = self.info.request(Some(&self.id), host.as_deref());
        // Even if no answer comes: it may have been done.
        let may_have_been_there = std::mem::replace(&mut self.may_be_there, true);
        match self.registry.ask_within("register", request, patience, true).await.0 {
            Ok(reply) => {
                self.generation = reply.get("generation").and_then(Value::as_u64);
                self.is_known = true;
                self.confirmed = Instant::now();
                self.shown.send_modify(|shown| {
                    shown.host = self.info.host_given().map(String::from).or(host.clone());
                    shown.registrations += 1;
                });
                self.host = host;
                self.show(State::Registered, None);
                Ok(())
            }
            Err(error) => {
                if matches!(error, Error::Refused(_)) {
                    self.may_be_there = may_have_been_there;
                }
                Err(error)
            }
        }
    }

    /// The address that this machine has, as soon as there is a connection that says it.
    async fn find_host(&self, patience: Duration) -> Result<Option<String>, Error> {
        let mut connectivity = self.registry.link.connectivity();
        let fails_fast = self.registry.link.settings().fail_fast;
        let found = tokio::time::timeout(patience, async {
            loop {
                let host = address(&self.registry.link);
                let cause = match &*connectivity.borrow_and_update() {
                    Connectivity::Away { cause } => cause.clone(),
                    Connectivity::Connected { .. } => None,
                };
                if host.is_some() {
                    return Ok(host);
                }
                if fails_fast && cause.is_some() {
                    return Err(Error::Unreachable { cause });
                }
                connectivity.changed().await.map_err(|_| Error::Closed)?;
            }
        });
        found.await.unwrap_or_else(|_| match &*self.registry.link.connectivity().borrow() {
            Connectivity::Away { cause } => Err(Error::Unreachable { cause: cause.clone() }),
            Connectivity::Connected { .. } => Err(Error::Invalid("this machine's address is not known".to_string())),
        })
    }

    /// Whether this machine has another address than the one that was registered.
    fn has_moved(&mut self) -> bool {
        if self.info.host_given().is_some() {
            return false;
        }
        let Some(now) = address(&self.registry.link) else { return false };
        match &self.host {
            Some(before) if *before != now => {
                info!("{} has another address now: {now}", self.id);
                true
            }
            Some(_) => false,
            None => {
                self.host = Some(now);
                false
            }
        }
    }

    async fn update(&mut self, patch: &Map<String, Value>) -> Result<(), Error> {
        let before = self.info.clone();
        self.info.patch(patch);
        let mut result = self.registry.update(&self.id, patch, self.generation).await;
        if result.as_ref().is_err_and(|error| error.code() == Some(&Code::UnknownAction) || error.is_not_found()) {
            result = self.register(self.registry.timeout()).await;
        }
        if result.as_ref().is_err_and(|error| !error.may_pass()) {
            self.info = before;
        }
        result
    }

    /// Only this registration: whoever else has the id by now is left alone.
    async fn drain(&mut self, draining: Option<&Draining>) -> Result<(), Error> {
        let patience = self.registry.timeout();
        let mut is_again = false;
        loop {
            if !self.is_known {
                self.register(patience).await?;
            }
            let result = match draining {
                Some(Draining { time, reason }) => {
                    self.registry.drain(&self.id, *time, reason.as_deref(), self.generation).await
                }
                None => self.registry.undrain(&self.id, self.generation).await,
            };
            match result {
                Err(error) if !is_again && error.code() == Some(&Code::NotFound) => self.is_known = false,
                Err(error) if !is_again && error.code() == Some(&Code::Replaced) && self.is_own(patience).await? => {}
                result => return result,
            }
            is_again = true;
        }
    }

    async fn end_in_time(&mut self) {
        if let Err(error) = self.end(Instant::now() + self.registry.timeout()).await {
            warn!("{} is not deregistered: {error}", self.id);
        }
    }

    /// Deregisters. That there is nothing to deregister any more is as good.
    async fn end(&mut self, deadline: Instant) -> Result<(), Error> {
        if !std::mem::replace(&mut self.may_be_there, false) {
            self.show(State::Closed, None);
            return Ok(());
        }
        let result = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.deregister(left).await {
                Ok(()) => break Ok(()),
                Err(error) if error.is_not_found() => break Ok(()),
                Err(error) if matches!(error.code(), Some(Code::Deregistered | Code::Replaced)) => break Ok(()),
                Err(error) if error.may_pass() && Instant::now() < deadline => {
                    debug!("{} is not deregistered yet: {error}", self.id);
                    self.registry.pause().await;
                }
                Err(error) => break Err(error),
            }
        };
        self.show(State::Closed, result.as_ref().err().cloned());
        result
    }

    async fn deregister(&mut self, patience: Duration) -> Result<(), Error> {
        // Nobody has said yes, so it may be another's.
        if !self.is_known && !self.is_own(patience).await? {
            return Ok(());
        }
        let request = named(&self.id, self.generation);
        self.registry.ask_within("deregister", request, patience, true).await.0.map(drop)
    }

    fn show(&self, state: State, error: Option<Error>) {
        self.shown.send_if_modified(|shown| {
            let is_other = shown.state != state || shown.generation != self.generation;
            (shown.state, shown.error) = (state, error);
            (shown.generation, shown.is_known) = (self.generation, self.is_known);
            is_other
        });
    }
}

async fn has_come(leaving: &mut watch::Receiver<bool>) {
    // The sender is the registry's, which the keeper has a part of.
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

impl Drop for Keeper {
    /// Also if the runtime ends, or nobody waits for the registration any more.
    fn drop(&mut self) {
        if self.may_be_there && self.is_known {
            let mut request = named(&self.id, self.generation);
            request["action"] = "deregister".into();
            self.registry.link.farewell(&request);
        }
        self.registry.link.kept.remove(self.info.lifetime());
        self.registry.keepers.count.send_modify(|count| *count -= 1);
    }
}
