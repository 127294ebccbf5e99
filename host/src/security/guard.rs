//! Who may come in: everybody, or those whose keys are authorized.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use registry_zmtp::handshake::SocketType;
use tokio::task::JoinHandle;

use crate::config;
use crate::security::access::Access;
use crate::security::authorized::News;
use crate::security::key::{KeyPair, PublicKey};
use crate::security::principal::Principal;
use crate::security::{Authorized, AuthorizedError, KeyFileError, key_file};
use crate::text::counted;

/// At most so often it looks whether keys have changed, and tells of a refused one.
const INTERVAL: Duration = Duration::from_secs(1);

/// How clients prove who they are.
#[derive(Clone, Debug)]
pub enum Guard {
    /// Not at all: everybody may come in.
    Null,
    /// By keys.
    Curve(Rc<Keyring>),
}

/// Lets in who has an authorized key.
#[derive(Debug)]
pub struct Keyring {
    /// The server's own.
    pub keys: Arc<KeyPair>,
    authorized: RefCell<Arc<Authorized>>,
    access: Access,
    /// Looks whether files have changed, on a thread where that may take its time.
    look: RefCell<Option<JoinHandle<Option<Looked>>>>,
    looked_at: Cell<Option<Instant>>,
    told_at: Cell<Option<Instant>>,
}

/// The keys as they are now, and what is to be said about them.
type Looked = (Authorized, News);

impl Keyring {
    /// Lets in those that are authorized.
    pub fn new(keys: KeyPair, authorized: Authorized, access: Access) -> Self {
        Keyring {
            keys: Arc::new(keys),
            authorized: RefCell::new(Arc::new(authorized)),
            access,
            look: RefCell::default(),
            looked_at: Cell::default(),
            told_at: Cell::default(),
        }
    }

    fn is_authorized(&self, client: &PublicKey) -> bool {
        self.authorized.borrow().name(client).is_some()
    }

    fn shown(&self, client: &PublicKey) -> String {
        shown(client, self.authorized.borrow().name(client))
    }

    fn admits(&self, client: &PublicKey, socket_type: SocketType) -> bool {
        let refused = match socket_type {
            // The whole key: an operator who looks for it has nothing else to go by.
            _ if !self.is_authorized(client) => format!("its key {client} is not among the authorized ones"),
            // Events show services, as reading does.
            SocketType::Publisher if !self.access.may_read(&Principal::Key(*client)) => {
                format!("{} is not allowed to read, and so to subscribe", self.shown(client))
            }
            _ => return true,
        };
        if is_time(&self.told_at) {
            tracing::warn!("a client is refused: {refused}");
        }
        false
    }

    /// What operators should look at, though everything else can be used.
    fn news(&self) -> News {
        let authorized = self.authorized.borrow();
        let strangers = self.access.named().filter(|key| authorized.name(key).is_none());
        let told =
            strangers.map(|key| format!("security.rules names the key {key}, which is not among the authorized ones"));
        News {
            problems: authorized.problems().map(String::from).collect(),
            warnings: authorized.warnings().iter().cloned().chain(told).collect(),
        }
    }

    /// Takes over what the last look at the files has found, and has the next one begun if it is time.
    fn reload(&self) -> bool {
        let look = &mut *self.look.borrow_mut();
        if let Some(under_way) = look {
            if !under_way.is_finished() {
                return false;
            }
            // A look that panicked has found nothing.
            let found = under_way.now_or_never().and_then(Result::ok).flatten();
            *look = None;
            let Some((authorized, news)) = found else { return false };
            let count = counted(authorized.len(), "client is", "clients are");
            *self.authorized.borrow_mut() = Arc::new(authorized);
            tracing::info!("{count} authorized now");
            news.log();
            return true;
        }
        if is_time(&self.looked_at) {
            let authorized = self.authorized.borrow().clone();
            *look = Some(tokio::task::spawn_blocking(move || {
                let now = authorized.look_again()?;
                let news = now.news(&authorized);
                Some((now, news))
            }));
        }
        false
    }
}

impl News {
    /// Tells operators.
    pub fn log(&self) {
        self.problems.iter().for_each(|problem| tracing::error!("{problem}"));
        self.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
}

/// A client in the log: by its name, with so much of its key that two of one name can be told apart.
fn shown(client: &PublicKey, name: Option<&str>) -> String {
    const SHOWN: usize = 8;
    let key = client.to_string();
    match name {
        Some(name) => format!("the client {name:?} (key {}...)", &key[..SHOWN]),
        None => format!("the client with the key {key}"),
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

impl Guard {
    /// Loads the keys that are configured.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn load(config: &config::Security) -> Result<Self, SecurityError> {
        if config.mechanism == config::Mechanism::Null {
            return Ok(Guard::Null);
        }
        // `load` of the configuration has refused CURVE without them; a hand-made one must not end in no keys at all.
        let (Some(key), Some(authorized)) = (&config.key_file, &config.authorized_clients) else {
            return Err(SecurityError::Missing);
        };
        let keyring = Keyring::new(key_file(key)?, Authorized::load(authorized)?, config.access());
        Ok(Guard::Curve(Rc::new(keyring)))
    }

    /// What operators should look at, though everything else can be used.
    pub fn news(&self) -> News {
        match self {
            Guard::Null => News::default(),
            Guard::Curve(keyring) => keyring.news(),
        }
    }

    /// The same; one line each.
    pub fn warnings(&self) -> Vec<String> {
        let News { problems, warnings } = self.news();
        problems.into_iter().chain(warnings).collect()
    }

    /// How many files with clients' keys cannot be used.
    pub fn problem_count(&self) -> usize {
        match self {
            Guard::Null => 0,
            Guard::Curve(keyring) => keyring.authorized.borrow().problem_count(),
        }
    }

    /// A client as operators know it.
    pub fn shown(&self, client: &Principal) -> String {
        match (client, self) {
            (Principal::Nobody | Principal::Stranger, _) => "a client that has proved nothing".to_string(),
            (Principal::Key(key), Guard::Null) => shown(key, None),
            (Principal::Key(key), Guard::Curve(keyring)) => keyring.shown(key),
            (Principal::Token(name), _) => format!("who has the token {name:?}"),
        }
    }

    /// What is asked of clients, for people.
    pub fn describe(&self) -> String {
        match self {
            Guard::Null => "clients are not asked who they are".to_string(),
            Guard::Curve(keyring) => format!(
                "clients prove who they are (CURVE), {} authorized; the registry's public key is {}",
                counted(keyring.authorized.borrow().len(), "key is", "keys are"),
                keyring.keys.public()
            ),
        }
    }

    /// The registry's own keys, if clients have to prove theirs.
    pub fn keys(&self) -> Option<Arc<KeyPair>> {
        match self {
            Guard::Null => None,
            Guard::Curve(keyring) => Some(keyring.keys.clone()),
        }
    }

    /// Whether who holds this key may come in, to a socket of this type.
    pub fn admits(&self, client: &PublicKey, socket_type: SocketType) -> bool {
        match self {
            Guard::Null => true,
            Guard::Curve(keyring) => keyring.admits(client, socket_type),
        }
    }

    /// Whether this key is still among those that may come in.
    pub fn is_authorized(&self, client: &PublicKey) -> bool {
        match self {
            Guard::Null => true,
            Guard::Curve(keyring) => keyring.is_authorized(client),
        }
    }

    /// Takes note of keys that were added or removed, and says whether there may be such. To be called now and then,
    /// within a tokio runtime: files are looked at on another thread, and what is found is taken over by a later call.
    pub fn reload(&self) -> bool {
        match self {
            Guard::Null => false,
            Guard::Curve(keyring) => keyring.reload(),
        }
    }
}
