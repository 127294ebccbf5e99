//! A client: its calls, but for those that only read.

mod reads;

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answer;
use crate::cache::Cache;
use crate::endpoint::Endpoint;
use crate::error::{Code, Error};
use crate::filter::Filter;
use crate::info::ServiceInfo;
use crate::link::{Connectivity, Link};
use crate::registration::{Beats, Keeper, Registration};
use crate::settings::{Builder, Settings};
use crate::values::Position;
use crate::watch::{Puller, Start, Watch};

/// How long it takes until something is asked again that a registry could not do at the moment.
const ASK_AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(300));
/// How many seconds a registry waits at most.
const WAIT_MAX: f64 = 600.0;

/// A client of a registry. Clones share one connection, which ends with the last of them.
///
/// Every call ends within the time-out of the settings, however the registry or the network behaves. A connection that
/// is lost is made again in the background, and what was asked over it is asked again.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), registry_client::Error> {
/// use registry_client::Registry;
///
/// let registry = Registry::connect("registry.example:5556")?;
/// let camera = registry.discover("camera").await?;
/// println!("{camera}");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Registry {
    pub(crate) link: Link,
    pub(crate) keepers: Arc<Keepers>,
    timeout: Duration,
    max_stale: Option<Duration>,
}

/// Those who have something left to do when the client is closed.
pub(crate) struct Keepers {
    pub(crate) leaving: watch::Sender<bool>,
    pub(crate) count: watch::Sender<usize>,
    pub(crate) beats: Beats,
}

impl Registry {
    /// A client of the registry at this host: `host:port`, `host`, `tcp://host:port` or `ipc://path`. It connects in the
    /// background: a registry that is away is no error.
    ///
    /// # Errors
    /// That is no host.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(host: &str) -> Result<Self, Error> {
        Registry::builder().host(host).connect()
    }

    /// All settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn open(settings: Settings) -> Self {
        let (leaving, count) = (watch::Sender::new(false), watch::Sender::new(0));
        let keepers = Keepers { leaving, count, beats: Beats::default() };
        let timeout = settings.timeout;
        Registry { link: Link::open(settings), keepers: Arc::new(keepers), timeout, max_stale: None }
    }

    /// The same client, with another time-out for its calls.
    ///
    /// ```no_run
    /// # async fn example(registry: registry_client::Registry) -> Result<(), registry_client::Error> {
    /// use std::time::Duration;
    ///
    /// let camera = registry.within(Duration::from_millis(200)).discover("camera").await?;
    /// # Ok(()) }
    /// ```
    pub fn within(&self, timeout: Duration) -> Self {
        Registry { timeout, ..self.clone() }
    }

    /// The same client, to which an answer is an error (`Stale`) if the registry cannot be sure of its state for longer
    /// than this: because its storage fails, say.
    pub fn max_stale(&self, max_stale: Duration) -> Self {
        Registry { max_stale: Some(max_stale), ..self.clone() }
    }

    /// Ends everything: registrations are deregistered, watches and caches end, and calls that wait fail as
    /// [`Closed`](Error::Closed). Takes as long as the time-out of the settings at most.
    pub async fn close(self) {
        let deadline = Instant::now() + self.timeout();
        self.close_by(deadline).await;
    }

    /// The same, at that time at the latest.
    pub(crate) async fn close_by(self, deadline: Instant) {
        self.begin_to_close();
        let mut count = self.keepers.count.subscribe();
        let _ = tokio::time::timeout_at(deadline, count.wait_for(|count| *count == 0)).await;
        self.link.close();
    }

    /// Has all registrations end.
    pub(crate) fn begin_to_close(&self) {
        self.keepers.leaving.send_replace(true);
    }

    /// Whether there is a connection, and every change of that. Calls wait for one by themselves; this is for showing it.
    ///
    /// ```no_run
    /// # async fn example(registry: registry_client::Registry) {
    /// let mut connectivity = registry.connectivity();
    /// println!("{}", *connectivity.borrow());
    /// while connectivity.changed().await.is_ok() {
    ///     println!("{}", *connectivity.borrow_and_update());
    /// }
    /// # }
    /// ```
    pub fn connectivity(&self) -> watch::Receiver<Connectivity> {
        self.link.connectivity()
    }

    /// Registers a service, and keeps it registered for as long as the [`Registration`] is there.
    ///
    /// # Errors
    /// It is refused, or there was no answer in time.
    pub async fn register(&self, info: ServiceInfo) -> Result<Registration, Error> {
        Keeper::new(self, info, None)?.start(self.timeout).await
    }

    /// Takes over a service that this process, or the one before it, has registered already: it is kept as if it had been
    /// registered here. `generation` is the one that the registry gave, if it gave one.
    ///
    /// # Errors
    /// None of a registry, which is not asked.
    pub fn adopt(&self, info: ServiceInfo, id: &str, generation: Option<u64>) -> Result<Registration, Error> {
        Ok(Keeper::new(self, info, Some((id.to_string(), generation)))?.go_on())
    }

    /// Sends one heartbeat for a service. A [`Registration`] does that by itself.
    ///
    /// # Errors
    /// The registry does not know it, or there was no answer in time.
    pub async fn renew(&self, id: &str, generation: Option<u64>) -> Result<(), Error> {
        self.ask("renew", named(id, generation)).await.map(drop)
    }

    /// Changes a service's metadata by a JSON merge patch ([RFC 7396](https://www.rfc-editor.org/rfc/rfc7396)): what is
    /// `null` is taken away.
    ///
    /// # Errors
    /// The registry refuses, or there was no answer in time.
    pub async fn update(&self, id: &str, patch: &Map<String, Value>, generation: Option<u64>) -> Result<(), Error> {
        let mut request = named(id, generation);
        request["metadata"] = patch.clone().into();
        self.ask("update", request).await.map(drop)
    }

    /// Removes a service, whoever keeps it: its keeper is told, and does not bring it back.
    ///
    /// # Errors
    /// The registry does not know it, or there was no answer in time.
    pub async fn deregister(&self, id: &str, generation: Option<u64>) -> Result<(), Error> {
        let (reply, attempts) = self.ask_within("deregister", named(id, generation), self.timeout(), true).await;
        match reply {
            // The first request has done it, and its answer was lost.
            Err(error) if attempts > 1 && (error.is_not_found() || error.code() == Some(&Code::Deregistered)) => Ok(()),
            reply => reply.map(drop),
        }
    }

    /// Drains a service, whoever keeps it: it stays registered, and is not discovered any more, for so long or until
    /// [`undrain`](Self::undrain). `reason` is for everybody to read. It outlasts restarts of a registry that stores, and
    /// the service's own re-registration.
    ///
    /// # Errors
    /// The registry does not know it, or there was no answer in time.
    pub async fn drain(
        &self,
        id: &str,
        time: Option<Duration>,
        reason: Option<&str>,
        generation: Option<u64>,
    ) -> Result<(), Error> {
        let mut request = named(id, generation);
        if let Some(time) = time {
            request["seconds"] = json!(time.as_secs_f64());
        }
        if let Some(reason) = reason {
            request["reason"] = json!(reason);
        }
        self.ask("drain", request).await.map(drop)
    }

    /// Has a drained service discovered again. That it was not drained is no error.
    ///
    /// # Errors
    /// The registry does not know it, or there was no answer in time.
    pub async fn undrain(&self, id: &str, generation: Option<u64>) -> Result<(), Error> {
        self.ask("undrain", named(id, generation)).await.map(drop)
    }

    /// Every change to services that are meant, from now on: see [`Watch`].
    ///
    /// The services that there are now are listed first, so that the watch can tell the difference if changes are not
    /// known any more.
    ///
    /// # Errors
    /// The registry refuses, or the list did not come in time.
    pub async fn watch(&self, filter: impl Into<Filter>) -> Result<Watch, Error> {
        Watch::begin(Puller::new(self.clone(), filter.into(), Start::Now)).await
    }

    /// The same, and at the beginning a change of the kind `Register` for each service that there is.
    ///
    /// # Errors
    /// The registry refuses, or the list did not come in time.
    pub async fn watch_existing(&self, filter: impl Into<Filter>) -> Result<Watch, Error> {
        Watch::begin(Puller::new(self.clone(), filter.into(), Start::Existing)).await
    }

    /// Every change since a position: that of a [`Listing`](crate::Listing), or where another watch has got to. If they are not known any
    /// more, it fails as `Compacted`.
    pub fn watch_after(&self, filter: impl Into<Filter>, position: Position) -> Watch {
        Watch::new(Puller::new(self.clone(), filter.into(), Start::After(position)))
    }

    /// The services that are meant, always at hand: see [`Cache`].
    pub fn cache(&self, filter: impl Into<Filter>) -> Cache {
        Cache::new(self.clone(), filter.into())
    }

    /// Asks for anything: `action` with the fields of `request`. Gives the whole reply. What the registry may wait
    /// (`wait`) is added to the time-out.
    ///
    /// It is asked again over another connection if the first one is lost, so it should do no harm if it is done twice.
    ///
    /// # Errors
    /// The registry refuses, or there was no answer in time.
    pub async fn request(&self, action: &str, request: Value) -> Result<Value, Error> {
        let timeout = self.timeout() + waits(&request);
        self.ask_within(action, request, timeout, true).await.0
    }

    /// The same, asked once: if the connection is lost before the reply comes, it fails, and may have been done.
    ///
    /// # Errors
    /// The registry refuses, the connection is lost, or there was no answer in time.
    pub async fn request_once(&self, action: &str, request: Value) -> Result<Value, Error> {
        let timeout = self.timeout() + waits(&request);
        self.ask_once(action, request, timeout, false).await.0
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) async fn ask(&self, action: &str, request: Value) -> Result<Value, Error> {
        self.ask_within(action, request, self.timeout(), true).await.0
    }

    /// Asks until there is an answer that is more than "not now", within that time. Says how often it was asked for.
    pub(crate) async fn ask_within(
        &self,
        action: &str,
        request: Value,
        timeout: Duration,
        resend: bool,
    ) -> (Result<Value, Error>, u32) {
        let deadline = Instant::now() + timeout;
        let mut count = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (reply, attempts) = self.ask_once(action, request.clone(), left, resend).await;
            count += attempts;
            match &reply {
                Err(Error::Refused(refusal)) if refusal.code == Code::Starting => {
                    if self.link.settings().hosts.len() > 1 {
                        self.link.leave(&refusal.endpoint);
                    }
                    if Instant::now() + ASK_AGAIN_AFTER.1 >= deadline {
                        return (reply, count);
                    }
                    self.pause().await;
                }
                Err(Error::TimedOut { endpoint, .. }) => {
                    return (Err(Error::TimedOut { endpoint: endpoint.clone(), after: timeout }), count);
                }
                _ => return (reply, count),
            }
        }
    }

    async fn ask_once(
        &self,
        action: &str,
        mut request: Value,
        timeout: Duration,
        resend: bool,
    ) -> (Result<Value, Error>, u32) {
        request["action"] = json!(action);
        if let Some(max_stale) = self.max_stale {
            request["max_stale"] = json!(max_stale.as_secs_f64());
        }
        match self.link.ask(request.to_string().into(), resend, timeout).await {
            Ok(answer) => (answer::understand(&request, &answer), answer.attempts),
            Err(error) => (Err(error), 1),
        }
    }

    /// A short wait, before something is asked again.
    pub(crate) async fn pause(&self) {
        let wait = rand::rng().random_range(ASK_AGAIN_AFTER.0..=ASK_AGAIN_AFTER.1);
        tokio::time::sleep(wait).await;
    }

    /// The host that is talked to, or the first that would be.
    pub(crate) fn endpoint(&self) -> Endpoint {
        match &*self.link.connectivity().borrow() {
            Connectivity::Connected { endpoint, .. } => endpoint.clone(),
            Connectivity::Away { .. } => self.link.settings().hosts[0].clone(),
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("hosts", &self.link.settings().hosts).finish_non_exhaustive()
    }
}

/// How long the registry may wait with its reply. What it cannot is for the registry to refuse.
fn waits(request: &Value) -> Duration {
    let seconds = request.get("wait").and_then(Value::as_f64).unwrap_or_default();
    Duration::try_from_secs_f64(seconds.min(WAIT_MAX)).unwrap_or_default()
}

/// The fields that name a service.
pub(crate) fn named(id: &str, generation: Option<u64>) -> Value {
    let mut request = json!({ "service_id": id });
    if let Some(generation) = generation {
        request["generation"] = json!(generation);
    }
    request
}
