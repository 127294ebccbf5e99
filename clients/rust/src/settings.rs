//! How a client is set up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use registry_zmtp::client::Keys;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::registry::Registry;

/// Where the hosts are, if nobody says: several with commas between them.
const HOSTS_VARIABLE: &str = "REGISTRY_CONNECT";
const HOST_DEFAULT: &str = "127.0.0.1";
/// Longer than anybody waits; deadlines cannot be counted much further.
const TIME_MAX: Duration = Duration::from_secs(31_536_000);

/// Says which address a service has.
pub(crate) type FindAddress = Arc<dyn Fn() -> Option<String> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) hosts: Vec<Endpoint>,
    pub(crate) keys: Option<Keys>,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) backoff: (Duration, Duration),
    pub(crate) address: Option<FindAddress>,
    pub(crate) fail_fast: bool,
}

/// The settings of a [`Registry`], each with a default that makes sense.
///
/// ```no_run
/// use std::time::Duration;
///
/// use registry_client::Registry;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), registry_client::Error> {
/// let registry = Registry::builder()
///     .host("registry-1.example")
///     .host("registry-2.example:6556")
///     .timeout(Duration::from_secs(2))
///     .connect()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is connected before `connect`"]
pub struct Builder {
    hosts: Option<Vec<String>>,
    settings: Settings,
}

impl Default for Builder {
    fn default() -> Self {
        let settings = Settings {
            hosts: Vec::new(),
            keys: None,
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            dead_after: Duration::from_secs(10),
            backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            address: None,
            fail_fast: false,
        };
        Builder { hosts: None, settings }
    }
}

impl Builder {
    /// A host of the registry, `tcp://host:port`, `host:port`, `host` or `ipc://path`. Several are tried in turn. Without
    /// any, it is what the environment variable `REGISTRY_CONNECT` says, with commas between several, else
    /// `127.0.0.1:5556`.
    pub fn host(mut self, host: impl fmt::Display) -> Self {
        self.hosts.get_or_insert_default().push(host.to_string());
        self
    }

    /// Several hosts, as with [`host`](Self::host).
    pub fn hosts(mut self, hosts: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        self.hosts.get_or_insert_default().extend(hosts.into_iter().map(|host| host.to_string()));
        self
    }

    /// The keys for a registry that asks for some: [`keys::load`](crate::keys::load) has them from files.
    pub fn keys(mut self, keys: Keys) -> Self {
        self.settings.keys = Some(keys);
        self
    }

    /// How long a call may take, all attempts together. 5 seconds, if nothing else is said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// How long one attempt at one host may take, handshake included. 2 seconds, if nothing else is said.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// A connection on which nothing has been heard for so long is given up; before that the host is asked for a sign of
    /// life. 10 seconds, if nothing else is said.
    pub fn dead_after(mut self, silence: Duration) -> Self {
        self.settings.dead_after = silence;
        self
    }

    /// How long it takes from a round of attempts at all hosts to the next: this doubles from `first` to `longest`, and
    /// each wait is drawn at random between half and all of it. 0.1 to 5 seconds, if nothing else is said.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.backoff = (first, longest.max(first));
        self
    }

    /// Says which address a service has whose `host` is left out, where the address towards the registry is not the one
    /// by which others reach it: in a container, say. It is asked before every renewal; a new address is registered.
    pub fn address(mut self, address: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.settings.address = Some(Arc::new(address));
        self
    }

    /// Whether a call fails as soon as every host has been tried once, instead of waiting for one until its time is up:
    /// for programs that somebody waits for.
    pub fn fail_fast(mut self, fail_fast: bool) -> Self {
        self.settings.fail_fast = fail_fast;
        self
    }

    /// Begins to connect, in the background, and goes on with that for as long as the client is there. A registry that
    /// is away is no error: each call waits for one, and no longer than its time-out.
    ///
    /// # Errors
    /// A setting is of no use.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect(mut self) -> Result<Registry, Error> {
        let hosts = self.hosts.unwrap_or_else(|| {
            let variable = std::env::var(HOSTS_VARIABLE).ok().filter(|hosts| !hosts.trim().is_empty());
            let hosts = variable.unwrap_or_else(|| HOST_DEFAULT.to_string());
            hosts.split(',').map(|host| host.trim().to_string()).collect()
        });
        if hosts.is_empty() {
            return Err(Error::Invalid("expected at least one host".to_string()));
        }
        let hosts = hosts.iter().map(|host| {
            Endpoint::of_host(host).map_err(|error| Error::Invalid(format!("{host:?} is no host: {error}")))
        });
        self.settings.hosts = hosts.collect::<Result<_, _>>()?;
        let (first, longest) = self.settings.backoff;
        let times = [
            ("timeout", self.settings.timeout),
            ("connect_timeout", self.settings.connect_timeout),
            ("dead_after", self.settings.dead_after),
            ("backoff", first),
            ("backoff", longest),
        ];
        match times.into_iter().find(|(_, time)| time.is_zero() || *time > TIME_MAX) {
            Some((name, time)) => {
                Err(Error::Invalid(format!("{name}: expected more than no time and at most a year, got {time:?}")))
            }
            None => Ok(Registry::open(self.settings)),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("hosts", &self.hosts).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settings_of_no_use_are_refused_at_once() {
        let refused = |builder: Builder| builder.connect().map(|_| ()).unwrap_err().to_string();
        assert!(refused(Builder::default().host("udp://a:1")).contains("\"udp://a:1\" is no host: expected tcp://"));
        let zero = refused(Builder::default().host("a").timeout(Duration::ZERO));
        assert_eq!(zero, "timeout: expected more than no time and at most a year, got 0ns");
        assert_eq!(refused(Builder::default().hosts([""; 0])), "expected at least one host");
        assert!(refused(Builder::default().host("a").dead_after(Duration::MAX)).starts_with("dead_after: "));
    }
}
