//! Who may come in.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::security::authorized::Authorized;
use crate::security::key::{KeyPair, PublicKey};

use super::greeting::Mechanism;

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
    looked_at: Cell<Option<Instant>>,
    told_at: Cell<Option<Instant>>,
}

impl Guard {
    /// Lets in those that are authorized.
    pub fn new(keys: KeyPair, authorized: Authorized) -> Self {
        authorized.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
        let keys = Arc::new(keys);
        Guard { keys, authorized: RefCell::new(authorized), looked_at: Cell::default(), told_at: Cell::default() }
    }

    fn is_allowed(&self, client: &PublicKey) -> bool {
        let is_allowed = self.authorized.borrow().name(client).is_some();
        if !is_allowed && is_time(&self.told_at) {
            tracing::warn!("the key {client} is not among the authorized ones");
        }
        is_allowed
    }

    fn reload(&self) -> bool {
        if !is_time(&self.looked_at) {
            return false;
        }
        let mut authorized = self.authorized.borrow_mut();
        match authorized.reload() {
            Ok(false) => return false,
            Ok(true) => {
                tracing::info!("{} clients are authorized now", authorized.len());
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

impl Security {
    /// What greetings have to say.
    pub fn mechanism(&self) -> Mechanism {
        match self {
            Security::Null => Mechanism::Null,
            Security::Curve(_) => Mechanism::Curve,
        }
    }

    /// Whether who holds this key may come in.
    pub fn is_allowed(&self, client: &PublicKey) -> bool {
        match self {
            Security::Null => true,
            Security::Curve(guard) => guard.is_allowed(client),
        }
    }

    /// Takes note of keys that were added or removed. Whether there may be such.
    pub fn reload(&self) -> bool {
        match self {
            Security::Null => false,
            Security::Curve(guard) => guard.reload(),
        }
    }

    /// What the client with this key is called.
    pub fn name(&self, client: &PublicKey) -> Option<String> {
        match self {
            Security::Null => None,
            Security::Curve(guard) => guard.authorized.borrow().name(client).map(String::from),
        }
    }
}
