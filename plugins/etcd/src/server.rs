//! The cluster: how it is reached, and what its errors mean.
//!
//! One member at a time is asked. A client that is given all of them goes on asking those that are dead, so there is one
//! for each, and after an error it is the next one's turn.

use std::error;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, Identity, TlsOptions};
use registry_plugin_api::{Error, ErrorKind, Options, Result};
use tokio::time::timeout;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For a member to show that it is of use, before it is the next one's turn.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);
/// Less than the host gives a call by default, so that it is etcd that is named.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// How often a connection with requests under way is tried, and how long an answer may take. etcd cuts off who asks more
/// often than every 5 s.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));

/// Where the cluster is.
pub(crate) struct Server {
    endpoints: Vec<String>,
    /// Whose turn it is.
    next: AtomicUsize,
    options: ConnectOptions,
    /// For messages.
    name: String,
}

impl Server {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let name = options.text("endpoints");
        let mut endpoints: Vec<String> = name.split(',').map(|endpoint| endpoint.trim().to_string()).collect();
        endpoints.retain(|endpoint| !endpoint.is_empty());
        if endpoints.is_empty() {
            return Err(Error::invalid_option(format!(
                "option \"endpoints\" is {name:?}, expected one like \"http://127.0.0.1:2379\", or several with commas"
            )));
        }
        if name.contains('@') {
            return Err(Error::invalid_option(
                "option \"endpoints\" has one with a user, expected that in \"user\" and \"password\"",
            ));
        }
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT)
            .with_keep_alive(KEEPALIVE.0, KEEPALIVE.1)
            .with_tcp_keepalive(KEEPALIVE.0)
            // From a member that has lost the others, an error is better than silence.
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        let (user, password) = (options.text("user"), options.text("password"));
        match (user, password) {
            ("", "") => {}
            ("", _) => return Err(Error::invalid_option("option \"user\" is missing, expected whose the password is")),
            _ => connect = connect.with_user(user, password),
        }
        let is_plain = |endpoint: &String| endpoint.starts_with("http://");
        match tls(options)? {
            Some(_) if endpoints.iter().any(is_plain) => {
                return Err(Error::invalid_option(
                    "option \"endpoints\" has one with http://, expected https:// with \"ca\", \"cert\" and \"key\"",
                ));
            }
            Some(tls) => connect = connect.with_tls(tls),
            None => {}
        }
        Ok(Server { name: endpoints.join(","), endpoints, next: AtomicUsize::new(0), options: connect })
    }

    /// A client of the first member that can read that key, and knows its newest value. It connects again whenever it has
    /// to.
    pub(crate) async fn reach(&self, key: &str) -> Result<Client> {
        let mut failure = None;
        for _ in &self.endpoints {
            // First, since whoever waits for a member that is frozen may give up: then it is the next one's turn.
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.endpoints.len();
            match self.ask(&self.endpoints[turn], key).await {
                Ok(client) => return Ok(client),
                Err(error) if error.kind() == ErrorKind::InvalidOption => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::internal("there are no members")))
    }

    async fn ask(&self, endpoint: &str, key: &str) -> Result<Client> {
        let asked = async {
            let mut client = Client::connect([endpoint], Some(self.options.clone())).await?;
            client.get(key, Some(GetOptions::new().with_count_only())).await?;
            Ok(client)
        };
        let Ok(asked) = timeout(REACH_TIMEOUT, asked).await else {
            return Err(self.refusal(ErrorKind::Unavailable, &format!("{endpoint} does not answer")));
        };
        asked.map_err(|error| match error {
            etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_) => {
                let name = &self.name;
                Error::invalid_option(format!(
                    "option \"endpoints\" is {name:?}, which is no address: {}",
                    with_causes(error.to_string(), &error)
                ))
            }
            error => self.error("reach", &error),
        })
    }

    /// What went wrong, in one line. `action` is what was to be done.
    pub(crate) fn error(&self, action: &str, error: &etcd_client::Error) -> Error {
        let name = &self.name;
        let (code, reason) = match error {
            etcd_client::Error::GRpcStatus(status) => {
                (Some(status.code() as i32), with_causes(status.message().to_string(), status))
            }
            error => (None, with_causes(error.to_string(), error)),
        };
        let hint = match () {
            () if reason.contains("database space exceeded") => {
                " (compact and defragment it, then run `etcdctl alarm disarm`; see --quota-backend-bytes)"
            }
            () if reason.contains("user name is empty") => " (see options \"user\" and \"password\")",
            () if reason.contains("permission denied") => {
                " (the user's role needs readwrite on all keys of the prefix)"
            }
            () => "",
        };
        let kind = match code {
            Some(code::INVALID_ARGUMENT | code::UNIMPLEMENTED) => ErrorKind::Internal,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, format!("cannot {action} etcd at {name}: {}{hint}", reason.replace('\n', " ")))
    }

    /// Another host has the store now.
    pub(crate) fn fenced(&self) -> Error {
        self.refusal(ErrorKind::Unavailable, "another host has taken over the store: restart this one")
    }

    /// What only an operator can say more of.
    pub(crate) fn refusal(&self, kind: ErrorKind, reason: &str) -> Error {
        Error::new(kind, format!("etcd at {}: {reason}", self.name))
    }
}

/// gRPC's numbers.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const UNIMPLEMENTED: i32 = 12;
}

/// Whether etcd has refused a request because it is too large or has too many operations. Nothing of it was done.
pub(crate) fn is_too_large(error: &etcd_client::Error) -> bool {
    let etcd_client::Error::GRpcStatus(status) = error else { return false };
    ["request is too large", "too many operations in txn request", "message larger than max"]
        .iter()
        .any(|words| status.message().contains(words))
}

/// What is said of an error and of its causes, each once: some say what caused them themselves.
fn with_causes(mut text: String, error: &dyn error::Error) -> String {
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        source = error.source();
    }
    text
}

/// Encryption, if one of its options is given. Without, `https://` goes by the system's authorities.
fn tls(options: &Options) -> Result<Option<TlsOptions>> {
    let (ca, cert, key) = (options.text("ca"), options.text("cert"), options.text("key"));
    let read = |option: &str, path: &str| {
        fs::read(path)
            .map_err(|error| Error::invalid_option(format!("option {option:?}: cannot read {path:?}: {error}")))
    };
    let mut tls = TlsOptions::new();
    tls = match ca {
        "" => tls.with_enabled_roots(),
        ca => tls.ca_certificate(Certificate::from_pem(read("ca", ca)?)),
    };
    match (cert, key) {
        ("", "") if ca.is_empty() => return Ok(None),
        ("", "") => {}
        ("", _) => {
            return Err(Error::invalid_option("option \"cert\" is missing, expected the certificate of \"key\""));
        }
        (_, "") => return Err(Error::invalid_option("option \"key\" is missing, expected the key of \"cert\"")),
        (cert, key) => tls = tls.identity(Identity::from_pem(read("cert", cert)?, read("key", key)?)),
    }
    Ok(Some(tls))
}
