//! A service that is kept registered.

mod beats;
mod keeper;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

pub(crate) use beats::Beats;
pub(crate) use keeper::Keeper;

use crate::error::Error;
use crate::link::{Connectivity, Link};

/// How a registration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The registry has it, as far as is known.
    Registered,
    /// It could not be renewed for longer than its ttl: the registry is away, and others may not find it there.
    Unsure,
    /// The registry does not take it back: another has its unique type by now, say. It is tried again and again.
    Refused,
    /// Somebody else has deregistered it: it is not brought back.
    Deregistered,
    /// Somebody else has registered its id since: that one is left alone.
    Replaced,
    /// It was ended here.
    Closed,
}

impl State {
    /// Whether it is over for good.
    pub fn is_over(self) -> bool {
        matches!(self, State::Deregistered | State::Replaced | State::Closed)
    }
}

/// A service that stays registered for as long as this is there: by [`Registry::register`](crate::Registry::register).
///
/// It is renewed every third of its ttl, and right after each new connection; together with others, if the
/// [`Registry`](crate::Registry) has registered several. A registry that has forgotten it gets it
/// again, with all fields, under the same id. It ends by itself only if somebody else has deregistered it or has
/// registered its id: [`state`](Self::state) says so, and [`over`](Self::over) waits for that.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), registry_client::Error> {
/// use registry_client::{Registry, ServiceInfo};
///
/// let registry = Registry::connect("registry.example")?;
/// let camera = registry.register(ServiceInfo::new("Camera", 7000).service_type("camera")).await?;
/// println!("{} is registered", camera.id());
/// camera.close().await?;
/// # Ok(()) }
/// ```
///
/// If it is dropped, it is deregistered in the background, as far as the runtime goes on for that; [`close`](Self::close)
/// makes sure of it.
#[must_use = "it is deregistered as soon as it is dropped"]
pub struct Registration {
    id: String,
    link: Link,
    orders: mpsc::Sender<Order>,
    shown: watch::Receiver<Shown>,
}

/// What a keeper shows.
#[derive(Clone, Debug)]
struct Shown {
    state: State,
    error: Option<Error>,
    generation: Option<u64>,
    /// Whether the registry has it, as far as is known.
    is_known: bool,
    host: Option<String>,
    registrations: u64,
}

/// What a keeper is told to do.
#[derive(Debug)]
enum Order {
    Update(Map<String, Value>, Done),
    /// Without, it is drained no more.
    Drain(Option<Draining>, Done),
    Close(Instant, Done),
}

type Done = oneshot::Sender<Result<(), Error>>;

/// For how long it is to be drained, and why.
#[derive(Debug)]
struct Draining {
    time: Option<Duration>,
    reason: Option<String>,
}

impl Registration {
    /// The service's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The number of the registration, if the registry gives such numbers. It changes when the service is registered
    /// again.
    pub fn generation(&self) -> Option<u64> {
        self.shown.borrow().generation
    }

    /// Where the service is said to run.
    pub fn host(&self) -> Option<String> {
        self.shown.borrow().host.clone()
    }

    /// How it is.
    pub fn state(&self) -> State {
        self.shown.borrow().state
    }

    /// Why it is not registered, if it is not, or not for sure.
    pub fn error(&self) -> Option<Error> {
        self.shown.borrow().error.clone()
    }

    /// How often the service was registered from here: more than once if the registry had forgotten it, or its address has
    /// changed.
    pub fn registrations(&self) -> u64 {
        self.shown.borrow().registrations
    }

    /// Waits until something of this changes: the state, the generation, the host, how often it was registered.
    pub async fn changed(&mut self) {
        if self.shown.changed().await.is_err() {
            // It is over, and nothing will change any more.
            std::future::pending().await
        }
    }

    /// Waits until it is over for good, and says why.
    pub async fn over(&self) -> State {
        self.until(State::is_over).await
    }

    /// Waits until it is in such a state, or over for good, and says which it is.
    pub async fn until(&self, is_such: impl Fn(State) -> bool) -> State {
        let mut shown = self.shown.clone();
        match shown.wait_for(|shown| is_such(shown.state) || shown.state.is_over()).await {
            Ok(shown) => shown.state,
            Err(_) => State::Closed,
        }
    }

    /// Changes the metadata by a JSON merge patch ([RFC 7396](https://www.rfc-editor.org/rfc/rfc7396)): what is `null` is
    /// taken away. It is remembered for the case that the service has to be registered again.
    ///
    /// # Errors
    /// The registry refuses, or there was no answer in time; what it is to be is remembered all the same if it may have
    /// been done.
    pub async fn update(&self, patch: Map<String, Value>) -> Result<(), Error> {
        self.order(|done| Order::Update(patch, done)).await
    }

    /// Drains the service: it stays registered, and is not discovered any more, for so long or until
    /// [`undrain`](Self::undrain). `reason` is for everybody to read. A registry that has forgotten the service gets it
    /// again for that; one that forgets it later has forgotten this too.
    ///
    /// # Errors
    /// The registry refuses, or there was no answer in time; or the registration is over (`Closed`).
    pub async fn drain(&self, time: Option<Duration>, reason: Option<&str>) -> Result<(), Error> {
        let draining = Draining { time, reason: reason.map(String::from) };
        self.order(|done| Order::Drain(Some(draining), done)).await
    }

    /// Has the service discovered again. That it was not drained is no error.
    ///
    /// # Errors
    /// As with [`drain`](Self::drain).
    pub async fn undrain(&self) -> Result<(), Error> {
        self.order(|done| Order::Drain(None, done)).await
    }

    async fn order(&self, order: impl FnOnce(Done) -> Order) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        self.orders.send(order(done)).await.map_err(|_| Error::Closed)?;
        result.await.unwrap_or(Err(Error::Closed))
    }

    /// Deregisters the service, and ends. That it is gone already, or another's by now, is no error. A registry that is
    /// away is waited for no longer than the time-out of the settings: the ttl does the rest.
    ///
    /// # Errors
    /// The registry could not be told in time.
    pub async fn close(&self) -> Result<(), Error> {
        let timeout = self.link.settings().timeout;
        self.close_within(timeout).await
    }

    /// The same, with another time-out.
    ///
    /// # Errors
    /// The registry could not be told in time.
    pub async fn close_within(&self, timeout: Duration) -> Result<(), Error> {
        let (done, result) = oneshot::channel();
        let deadline = Instant::now() + timeout;
        // A keeper that has ended has nothing to deregister.
        if self.orders.send(Order::Close(deadline, done)).await.is_err() {
            return Ok(());
        }
        result.await.unwrap_or(Ok(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let shown = self.shown.borrow().clone();
        if shown.state.is_over() || !shown.is_known {
            return;
        }
        // The keeper notices, and makes sure of it; but the runtime may end before it can.
        let mut request = crate::registry::named(&self.id, shown.generation);
        request["action"] = "deregister".into();
        self.link.farewell(&request);
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("id", &self.id).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// The address that this machine has towards the registry. Over a Unix socket, the registry is on this machine.
fn address(link: &Link) -> Option<String> {
    if let Some(address) = &link.settings().address {
        return address();
    }
    match &*link.connectivity().borrow() {
        Connectivity::Connected { local_address, .. } => {
            Some(local_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_string())
        }
        Connectivity::Away { .. } => None,
    }
}
