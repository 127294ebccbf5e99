//! Who may come in: everybody, or those whose keys are authorized.

use std::cell::{Cell, RefCell};
use std::path::Path;
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
    /// The server's own, and the one before if clients may still know that.
    keys: RefCell<Arc<[KeyPair]>>,
    authorized: RefCell<Arc<Authorized>>,
    access: RefCell<Access>,
    /// Looks whether files have changed, on a thread where that may take its time.
    look: RefCell<Option<JoinHandle<Option<Looked>>>>,
    looked_at: Cell<Option<Instant>>,
    told_at: Cell<Option<Instant>>,
}

/// The keys as they are now, and what is to be said about them.
type Looked = (Authorized, News);

impl Keyring {
    /// Lets in those that are authorized.
    pub fn new(keys: Arc<[KeyPair]>, authorized: Authorized, access: Access) -> Self {
        Keyring {
            keys: RefCell::new(keys),
            authorized: RefCell::new(Arc::new(authorized)),
            access: RefCell::new(access),
            look: RefCell::default(),
            looked_at: Cell::default(),
            told_at: Cell::default(),
        }
    }

    fn is_authorized(&self, client: &PublicKey) -> bool {
        self.authorized.borrow().name(client).is_some()
    }

    /// Events show services, as reading does.
    fn may_read(&self, client: &PublicKey) -> bool {
        self.access.borrow().may_read(&Principal::Key(*client))
    }

    fn shown(&self, client: &PublicKey) -> String {
        shown(client, self.authorized.borrow().name(client))
    }

    fn admits(&self, client: &PublicKey, socket_type: SocketType) -> bool {
        let refused = match socket_type {
            // The whole key: an operator who looks for it has nothing else to go by.
            _ if !self.is_authorized(client) => format!("its key {client} is not among the authorized ones"),
            SocketType::Publisher if !self.may_read(client) => {
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
        let access = self.access.borrow();
        let strangers = access.named().filter(|key| authorized.name(key).is_none());
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
    Key(KeyFileError),
    /// The one before.
    #[error("security.previous_key_file: {0}")]
    PreviousKey(KeyFileError),
    /// Some are not named.
    #[error("security.mechanism = \"curve\" needs security.key_file and security.authorized_clients")]
    Missing,
    /// The clients'.
    #[error("security.authorized_clients: {0}")]
    Authorized(#[from] AuthorizedError),
}

/// The registry's own keys: the one, and the one before if there is one.
fn own_keys(file: &Path, previous: Option<&Path>) -> Result<Arc<[KeyPair]>, SecurityError> {
    let key = key_file(file).map_err(SecurityError::Key)?;
    let previous = previous.map(key_file).transpose().map_err(SecurityError::PreviousKey)?;
    Ok(std::iter::once(key).chain(previous).collect())
}

/// The keys of the registry and of its clients, read again. Takes as long as the disk does.
///
/// # Errors
/// Why they cannot be used.
pub(crate) fn read_again(config: &config::Security) -> Result<Option<Keys>, SecurityError> {
    let (Some(key), Some(authorized)) = (&config.key_file, &config.authorized_clients) else { return Ok(None) };
    let own = own_keys(key, config.previous_key_file.as_deref())?;
    Ok(Some(Keys { own, authorized: Authorized::load(authorized)? }))
}

/// Keys that have been read.
pub(crate) struct Keys {
    own: Arc<[KeyPair]>,
    authorized: Authorized,
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
        let keys = own_keys(key, config.previous_key_file.as_deref())?;
        Ok(Guard::Curve(Rc::new(Keyring::new(keys, Authorized::load(authorized)?, config.access()))))
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

    /// The name that operators have given a key.
    pub fn name(&self, client: &PublicKey) -> Option<String> {
        match self {
            Guard::Null => None,
            Guard::Curve(keyring) => keyring.authorized.borrow().name(client).map(String::from),
        }
    }

    /// A client as operators know it.
    pub fn shown(&self, client: &Principal) -> String {
        match (client, self) {
            (Principal::Nobody | Principal::Stranger, _) => "a client that has proved nothing".to_string(),
            (Principal::Key(key), Guard::Null) => shown(key, None),
            (Principal::Key(key), Guard::Curve(keyring)) => keyring.shown(key),
            (Principal::Token(name), _) => format!("who has the token {name:?}"),
            (Principal::Certificate(name), _) => format!("who has the certificate {name:?}"),
        }
    }

    /// What is asked of clients, for people.
    pub fn describe(&self) -> String {
        match self {
            Guard::Null => "clients are not asked who they are".to_string(),
            Guard::Curve(keyring) => {
                let keys = keyring.keys.borrow();
                let mut public = keys.iter().map(|keys| keys.public().to_string());
                let own = public.next().unwrap_or_default();
                let before = public.next().map(|before| format!(", and {before} as before"));
                format!(
                    "clients prove who they are (CURVE), {} authorized; the registry's public key is {own}{}",
                    counted(keyring.authorized.borrow().len(), "key is", "keys are"),
                    before.unwrap_or_default()
                )
            }
        }
    }

    /// The registry's own keys, if clients have to prove theirs.
    pub fn keys(&self) -> Option<Arc<[KeyPair]>> {
        match self {
            Guard::Null => None,
            Guard::Curve(keyring) => Some(keyring.keys.borrow().clone()),
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

    /// Whether who holds this key may see services, and so follow events.
    pub fn may_read(&self, client: &PublicKey) -> bool {
        match self {
            Guard::Null => true,
            Guard::Curve(keyring) => keyring.may_read(client),
        }
    }

    /// From now on these rules hold, and these keys, if they have been read again. Who is connected stays.
    pub(crate) fn take_over(&self, access: Access, keys: Option<Keys>) {
        let Guard::Curve(keyring) = self else { return };
        *keyring.access.borrow_mut() = access;
        if let Some(Keys { own, authorized }) = keys {
            *keyring.keys.borrow_mut() = own;
            // What a look that is under way finds is of other files.
            *keyring.look.borrow_mut() = None;
            *keyring.authorized.borrow_mut() = Arc::new(authorized);
        }
        keyring.news().log();
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
