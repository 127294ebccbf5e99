//! Who may come in.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config;
use crate::log::counted;
use crate::security::access::Access;
use crate::security::key::{KeyPair, PublicKey};
use crate::security::{Authorized, AuthorizedError, KeyFileError, key_file};

use super::greeting::Mechanism;
use super::handshake::Role;

/// How often at most it is looked whether the keys have changed, and a refused key is told of.
const INTERVAL: Duration = Duration::from_secs(1);

/// How peers make sure of each other.
#[derive(Clone, Debug)]
pub enum Security {
    /// Not at all: everybody may come in.
    Null,
    /// By keys.
    Curve(Rc<Guard>),
}

/// Lets in who has an authorized key.
#[derive(Debug)]
pub struct Guard {
    /// The server's own.
    pub keys: Arc<KeyPair>,
    authorized: RefCell<Authorized>,
    access: Access,
    looked_at: Cell<Option<Instant>>,
    told_at: Cell<Option<Instant>>,
}

impl Guard {
    /// Lets in those that are authorized.
    pub fn new(keys: KeyPair, authorized: Authorized, access: Access) -> Self {
        let keys = Arc::new(keys);
        let authorized = RefCell::new(authorized);
        Guard { keys, authorized, access, looked_at: Cell::default(), told_at: Cell::default() }
    }

    fn is_authorized(&self, client: &PublicKey) -> bool {
        self.authorized.borrow().name(client).is_some()
    }

    fn admits(&self, client: &PublicKey, role: Role) -> bool {
        let problem = match role {
            _ if !self.is_authorized(client) => "not among the authorized ones",
            // Events show services, as reading does.
            Role::Publisher if !self.access.may_read(Some(client)) => "not allowed to read, and so to subscribe",
            _ => return true,
        };
        if is_time(&self.told_at) {
            tracing::warn!("a client is refused: its key {client} is {problem}");
        }
        false
    }

    /// What operators should look at, though everything can be used; one line each.
    fn warnings(&self) -> Vec<String> {
        let authorized = self.authorized.borrow();
        let strangers = self.access.named().filter(|key| authorized.name(key).is_none());
        let told =
            strangers.map(|key| format!("security.rules names the key {key}, which is not among the authorized ones"));
        authorized.warnings().iter().cloned().chain(told).collect()
    }

    fn reload(&self) -> bool {
        if !is_time(&self.looked_at) {
            return false;
        }
        let mut authorized = self.authorized.borrow_mut();
        match authorized.reload() {
            Ok(false) => return false,
            Ok(true) => {
                tracing::info!("{} authorized now", counted(authorized.len(), "client is", "clients are"));
                authorized.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
            }
            Err(error) => tracing::error!("the authorized clients stay as they were: {error}"),
        }
        true
    }
}

/// Whether enough time has passed since the last time.
fn is_time(last: &Cell<Option<Instant>>) -> bool {
    let now = Instant::now();
    let is_time = last.get().is_none_or(|last| now.duration_since(last) >= INTERVAL);
    if is_time {
        last.set(Some(now));
    }
    is_time
}

/// The keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// The registry's own.
    #[error("security.key_file: {0}")]
    Key(#[from] KeyFileError),
    /// Some are not named.
    #[error("security.mechanism = \"curve\" needs security.key_file and security.authorized_clients")]
    Missing,
    /// The clients'.
    #[error("security.authorized_clients: {0}")]
    Authorized(#[from] AuthorizedError),
}

impl Security {
    /// Loads the keys that are configured.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn load(config: &config::Security) -> Result<Self, SecurityError> {
        if config.mechanism == config::Mechanism::Null {
            return Ok(Security::Null);
        }
        // `load` of the configuration has refused CURVE without them; a hand-made one must not end in no keys at all.
        let (Some(key), Some(authorized)) = (&config.key_file, &config.authorized_clients) else {
            return Err(SecurityError::Missing);
        };
        let guard = Guard::new(key_file(key)?, Authorized::load(authorized)?, config.access());
        Ok(Security::Curve(Rc::new(guard)))
    }

    /// What operators should look at, though everything can be used; one line each.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Security::Null => Vec::new(),
            Security::Curve(guard) => guard.warnings(),
        }
    }

    /// What is asked of clients, for people.
    pub fn describe(&self) -> String {
        match self {
            Security::Null => "clients are not asked who they are".to_string(),
            Security::Curve(guard) => format!(
                "clients prove who they are (CURVE), {} authorized; the registry's public key is {}",
                counted(guard.authorized.borrow().len(), "key is", "keys are"),
                guard.keys.public()
            ),
        }
    }

    /// What greetings have to say.
    pub fn mechanism(&self) -> Mechanism {
        match self {
            Security::Null => Mechanism::Null,
            Security::Curve(_) => Mechanism::Curve,
        }
    }

    /// Whether who holds this key may come in, to a socket of this role.
    pub fn admits(&self, client: &PublicKey, role: Role) -> bool {
        match self {
            Security::Null => true,
            Security::Curve(guard) => guard.admits(client, role),
        }
    }

    /// Whether this key is still among those that may come in.
    pub fn is_authorized(&self, client: &PublicKey) -> bool {
        match self {
            Security::Null => true,
            Security::Curve(guard) => guard.is_authorized(client),
        }
    }

    /// Takes note of keys that were added or removed. Whether there may be such.
    pub fn reload(&self) -> bool {
        match self {
            Security::Null => false,
            Security::Curve(guard) => guard.reload(),
        }
    }
}
