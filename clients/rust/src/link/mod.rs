//! The connection to the registry, for everybody who asks: one at a time, made again when it is lost, with many
//! requests under way. Each has a number of its own, which stands in its envelope and comes back with the reply; no
//! number is used twice, so a late reply can answer nothing else.

mod backoff;
mod driver;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

pub(crate) use backoff::{Backoff, KeptTtls};

use crate::endpoint::Endpoint;
use crate::error::{ConnectionError, Error};
use crate::settings::Settings;
use driver::Driver;

/// How many requests are under way at once, watches and waits included; a registry lets 256 wait per connection. Others
/// wait here.
const UNDER_WAY_MAX: usize = 192;
/// What may wait for the driver: requests under way, and a few that want no reply.
const COMMANDS_MAX: usize = 2 * UNDER_WAY_MAX;

/// Whether there is a connection to a registry. As text: to which, or why not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Connectivity {
    /// There is none.
    Away {
        /// What the last attempt met, or how the last connection ended; `None` before the first attempt.
        cause: Option<ConnectionError>,
    },
    /// There is one.
    #[non_exhaustive]
    Connected {
        /// The host that it goes to.
        endpoint: Endpoint,
        /// This machine's address towards the registry; none over a Unix socket.
        local_address: Option<IpAddr>,
    },
}

impl Connectivity {
    /// Whether there is one.
    pub fn is_connected(&self) -> bool {
        matches!(self, Connectivity::Connected { .. })
    }
}

impl fmt::Display for Connectivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Connectivity::Away { cause: Some(cause) } => write!(f, "away: {cause}"),
            Connectivity::Away { cause: None } => f.write_str("away: no attempt has ended yet"),
            Connectivity::Connected { endpoint, .. } => write!(f, "connected to {endpoint}"),
        }
    }
}

/// A request for the driver.
struct Ask {
    body: Bytes,
    resend: bool,
    deadline: Instant,
    reply: oneshot::Sender<Result<Answer, Error>>,
}

/// A reply: its last frame.
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    /// Who sent it.
    pub(crate) endpoint: Endpoint,
    /// How often it was asked for.
    pub(crate) attempts: u32,
}

enum Command {
    Ask(Ask),
    /// To be sent if there is a connection; nobody waits for the reply.
    Farewell(Bytes),
    /// The host that answers there is of no use now: another is to be tried.
    Leave(Endpoint),
}

/// The asking side. The connection ends with the last clone.
#[derive(Clone)]
pub(crate) struct Link {
    settings: Arc<Settings>,
    commands: mpsc::Sender<Command>,
    slots: Arc<Semaphore>,
    connectivity: watch::Receiver<Connectivity>,
    closed: Arc<watch::Sender<bool>>,
    pub(crate) kept: Arc<KeptTtls>,
}

impl Link {
    pub(crate) fn open(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (sender, connectivity) = watch::channel(Connectivity::Away { cause: None });
        let closed = Arc::new(watch::Sender::new(false));
        let kept = Arc::new(KeptTtls::default());
        tokio::spawn(Driver::new(settings.clone(), receiver, sender, closed.subscribe(), kept.clone()).run());
        let slots = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        Link { settings, commands, slots, connectivity, closed, kept }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn connectivity(&self) -> watch::Receiver<Connectivity> {
        self.connectivity.clone()
    }

    /// Ends the connection. Whoever waits is told that it is closed.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits for the end.
    pub(crate) async fn closed(&self) {
        // The sender is ours.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Sends a request, and waits for its reply. With `resend` it is sent again if the connection is lost meanwhile.
    pub(crate) async fn ask(&self, body: Bytes, resend: bool, timeout: Duration) -> Result<Answer, Error> {
        let deadline = Instant::now() + timeout;
        let asked = async {
            let _slot = self.slots.acquire().await.map_err(|_| Error::Closed)?;
            let (reply, answer) = oneshot::channel();
            let ask = Command::Ask(Ask { body, resend, deadline, reply });
            self.commands.send(ask).await.map_err(|_| Error::Closed)?;
            answer.await.unwrap_or(Err(Error::Closed))
        };
        tokio::select! {
            asked = tokio::time::timeout_at(deadline, asked) => asked.unwrap_or_else(|_| Err(self.too_late(timeout))),
            () = self.closed() => Err(Error::Closed),
        }
    }

    fn too_late(&self, after: Duration) -> Error {
        match &*self.connectivity.borrow() {
            Connectivity::Connected { endpoint, .. } => Error::TimedOut { endpoint: endpoint.clone(), after },
            Connectivity::Away { cause } => Error::Unreachable { cause: cause.clone() },
        }
    }

    /// Sends a request whose reply nobody waits for, if there is a connection.
    pub(crate) fn farewell(&self, request: &Value) {
        let _ = self.commands.try_send(Command::Farewell(request.to_string().into()));
    }

    /// Goes on to another host than this one.
    pub(crate) fn leave(&self, endpoint: &Endpoint) {
        let _ = self.commands.try_send(Command::Leave(endpoint.clone()));
    }
}
