//! The usual case.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::error::Error;
use crate::info::ServiceInfo;
use crate::registration::{Keeper, Registration, State};
use crate::registry::Registry;

/// Who begins to end at the same time ends at the same time, give or take this.
const AT_THE_SAME_TIME: Duration = Duration::from_millis(100);

/// The usual case: a process that is discoverable for as long as it lives.
///
/// ```no_run
/// use registry_client::{Error, Service, ServiceInfo};
///
/// #[tokio::main(flavor = "current_thread")]
/// async fn main() -> Result<(), Error> {
///     let camera = ServiceInfo::new("Camera", 7000).service_type("camera");
///     Service::start("registry.example", camera).await?.run_until(serve()).await
/// }
///
/// async fn serve() {
///     // What the process is for.
/// }
/// ```
///
/// It does not need a registry: it goes on without one, and is registered when there is one.
#[derive(Debug)]
#[must_use = "it is deregistered as soon as it is dropped"]
pub struct Service {
    registry: Registry,
    registration: Registration,
}

impl Service {
    /// Registers this process at the registry on this host, and keeps it registered. For the registry that the variable
    /// `REGISTRY_CONNECT` names, see [`start_with`](Self::start_with). After the time-out of the settings
    /// it goes on even if no registry has answered.
    ///
    /// # Errors
    /// What would never work: a value that is of no use, `Forbidden`, a type that another has.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn start(host: &str, info: ServiceInfo) -> Result<Self, Error> {
        Service::start_with(Registry::connect(host)?, info).await
    }

    /// The same with a client that is there already, or has other settings.
    ///
    /// ```no_run
    /// # async fn example(camera: registry_client::ServiceInfo) -> Result<(), registry_client::Error> {
    /// use registry_client::{Registry, Service};
    ///
    /// // The registry that REGISTRY_CONNECT names, else the one at 127.0.0.1:5556.
    /// let registry = Registry::builder().connect()?;
    /// Service::start_with(registry, camera).await?.run().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As with [`start`](Self::start).
    pub async fn start_with(registry: Registry, info: ServiceInfo) -> Result<Self, Error> {
        let registration = Keeper::new(&registry, info, None)?.start_anyway().await?;
        Ok(Service { registry, registration })
    }

    /// The client: for looking up other services.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The registration.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// How it is.
    pub fn state(&self) -> State {
        self.registration.state()
    }

    /// The registration alone, without the rest.
    pub fn into_registration(self) -> Registration {
        self.registration
    }

    /// Drains the service: see [`Registration::drain`].
    ///
    /// # Errors
    /// The registry refuses, or there was no answer in time.
    pub async fn drain(&self, time: Option<Duration>, reason: Option<&str>) -> Result<(), Error> {
        self.registration.drain(time, reason).await
    }

    /// Has the service discovered again: see [`Registration::undrain`].
    ///
    /// # Errors
    /// As with [`drain`](Self::drain).
    pub async fn undrain(&self) -> Result<(), Error> {
        self.registration.undrain().await
    }

    /// Runs until the future is ready, or SIGTERM or SIGINT comes; then deregisters. The process goes on even if somebody
    /// else deregisters it: [`registration`](Self::registration) tells of that. A registry that cannot be told of the end
    /// is no failure of the process: the log says so, and the ttl does the rest.
    ///
    /// # Errors
    /// Signals cannot be waited for, or the registry refuses.
    pub async fn run_until(self, future: impl Future<Output = ()>) -> Result<(), Error> {
        tokio::select! {
            () = future => {}
            signal = terminated() => info!("{} comes: the service ends", signal?),
        }
        let id = self.registration.id().to_string();
        match self.close().await {
            Err(error) if error.may_pass() => {
                warn!("{id} is not deregistered, and may be found until its ttl is over: {error}");
                Ok(())
            }
            closed => closed,
        }
    }

    /// Runs until SIGTERM or SIGINT comes, then deregisters.
    ///
    /// # Errors
    /// As with [`run_until`](Self::run_until).
    pub async fn run(self) -> Result<(), Error> {
        self.run_until(std::future::pending()).await
    }

    /// Waits until somebody else has deregistered the service or registered its id, and says which.
    pub async fn over(&self) -> State {
        self.registration.over().await
    }

    /// Deregisters the service, and ends.
    ///
    /// # Errors
    /// The registry could not be told in time: then the ttl does the rest.
    pub async fn close(self) -> Result<(), Error> {
        // All at once, so that it takes no longer than the time-out of the settings, however many others there are and
        // whatever they are about.
        let deadline = Instant::now() + self.registry.timeout() + AT_THE_SAME_TIME;
        let (closed, ()) = tokio::join!(self.registration.close(), async { self.registry.begin_to_close() });
        self.registry.close_by(deadline).await;
        closed
    }
}

/// Waits for a signal that asks the process to end, and says which.
async fn terminated() -> Result<&'static str, Error> {
    let failed = |error: io::Error| Error::Invalid(format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}
