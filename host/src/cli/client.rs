//! A client of a registry, whose failures are said as a user of the command line understands them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use registry_client::{
    Code, ConnectionError, ConnectionProblem, Endpoint, Error, Keys, ProtocolProblem, Refusal, Registry,
};
use serde_json::{Value, json};

use super::arguments::Connection;
use super::endpoint;
use super::keys;
use super::output::Failure;

/// How long it takes until a registry that is away is looked for again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Talks to one registry.
pub(super) struct Client {
    registry: Registry,
    endpoints: Vec<Endpoint>,
    timeout: Duration,
    keys: Option<Keys>,
    key_file: Option<PathBuf>,
}

/// Whether a registry that is away is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// No: somebody waits for the answer.
    None,
    /// As long as a call may take.
    Some,
}

impl Client {
    /// # Errors
    /// The keys cannot be used, or the configuration that says where the registry is.
    pub(super) fn new(connection: &Connection, patience: Patience) -> Result<Self, Failure> {
        let keys = keys::read(connection)?;
        let endpoints = endpoint::of(connection)?;
        let timeout = connection.timeout;
        let mut builder = Registry::builder()
            .hosts(&endpoints)
            .timeout(timeout)
            .connect_timeout(timeout)
            .backoff(BACKOFF.0, BACKOFF.1)
            .fail_fast(patience == Patience::None);
        if let Some(keys) = &keys {
            builder = builder.keys(keys.clone());
        }
        let registry = builder.connect().map_err(|error| Failure::Failed(error.to_string()))?;
        Ok(Client { registry, endpoints, timeout, keys, key_file: connection.key.clone() })
    }

    /// The client library's own.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where the registry is, or the first that may be one.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoints[0]
    }

    /// Asks for `action`, with the fields of `request`, and waits for the reply.
    ///
    /// # Errors
    /// There is none, or the registry refuses.
    pub(super) async fn request(&self, action: &str, request: Value) -> Result<Value, Failure> {
        self.understood(self.registry.request(action, request.clone()).await, &request)
    }

    /// The same, for what must not be done twice.
    ///
    /// # Errors
    /// There is none, or the registry refuses.
    pub(super) async fn request_once(&self, action: &str, request: Value) -> Result<Value, Failure> {
        self.understood(self.registry.request_once(action, request.clone()).await, &request)
    }

    /// The result, with a failure that names what was asked for.
    ///
    /// # Errors
    /// If it is a failure.
    pub(super) fn understood<T>(&self, result: Result<T, Error>, request: &Value) -> Result<T, Failure> {
        result.map_err(|error| self.failure(error, request))
    }

    /// The same of what asks about one service.
    ///
    /// # Errors
    /// If it is a failure.
    pub(super) fn about<T>(&self, id: &str, result: Result<T, Error>) -> Result<T, Failure> {
        self.understood(result, &json!({ "service_id": id }))
    }

    /// A failure that names what was asked for.
    pub(super) fn failure(&self, error: Error, request: &Value) -> Failure {
        match error {
            Error::Refused(refusal) => {
                let text = refused(&refusal, request);
                Failure::Refused { text, reply: refusal.reply }
            }
            error => self.no_answer(&error),
        }
    }

    fn no_answer(&self, error: &Error) -> Failure {
        let text = self.told(error);
        let is_elsewhere = match error {
            Error::TimedOut { .. } | Error::Unreachable { cause: None } => true,
            Error::Unreachable { cause: Some(cause) } => {
                matches!(cause.problem, ConnectionProblem::Refused | ConnectionProblem::TimedOut(_))
            }
            _ => false,
        };
        let hint = if is_elsewhere { "; --connect or REGISTRY_CONNECT says where the registry is" } else { "" };
        Failure::NoAnswer(format!("{text}{hint}"))
    }

    /// An error in one line, with what can be done about it.
    pub(super) fn told(&self, error: &Error) -> String {
        match error {
            Error::Unreachable { cause: Some(cause) } => self.unreachable(cause),
            Error::Unreachable { cause: None } => self.too_late(self.endpoint()),
            Error::TimedOut { endpoint, .. } => self.too_late(endpoint),
            Error::Protocol { endpoint, problem: ProtocolProblem::NoRegistry(why) } => {
                format!("{endpoint} does not answer as a registry does: {why}")
            }
            error => error.to_string(),
        }
    }

    fn too_late(&self, endpoint: &Endpoint) -> String {
        format!("no answer from {endpoint} within {} s", self.timeout.as_secs_f64())
    }

    /// What is in the way of a connection, and what can be done about it.
    pub(super) fn unreachable(&self, cause: &ConnectionError) -> String {
        let endpoint = &cause.endpoint;
        match &cause.problem {
            ConnectionProblem::TimedOut(_) => self.too_late(endpoint),
            ConnectionProblem::OtherSocket(kind) => {
                let what = if kind.ends_with("PUB") { "it sends events".to_string() } else { format!("a {kind}") };
                format!("{endpoint} is no request port ({what}): try 5556, or what server.req_port says")
            }
            ConnectionProblem::KeysMissing => {
                format!("{endpoint} asks for keys: --key names yours, and --server-key the registry's")
            }
            ConnectionProblem::KeysNotWanted => format!(
                "{endpoint} asks for no keys, so nothing would be encrypted: leave out --key and --server-key if that \
                 is meant"
            ),
            ConnectionProblem::KeyRefused => self.key_refused(endpoint),
            _ => cause.to_string(),
        }
    }

    /// That the client's key is not let in.
    fn key_refused(&self, endpoint: &Endpoint) -> String {
        let key = self.keys.as_ref().map(|keys| keys.own.public().to_string()).unwrap_or_default();
        let certificate = self.key_file.as_deref().and_then(public_half);
        let certificate = certificate.map_or("its certificate".to_string(), |file| file.display().to_string());
        format!(
            "your public key {key} is not authorized at {endpoint}: copy {certificate} into the directory that the \
             registry's security.authorized_clients names"
        )
    }
}

/// A refusal as a line of text. It names what was asked for where the registry's own words do not.
fn refused(refusal: &Refusal, request: &Value) -> String {
    let asked = |field: &str| request.get(field).and_then(Value::as_str);
    let endpoint = &refusal.endpoint;
    match (&refusal.code, asked("service_id"), asked("service_type")) {
        (Code::NotFound, Some(id), _) => format!("no service {id:?} at {endpoint}"),
        (Code::NoneHealthy, _, Some(service_type)) => {
            format!("no healthy service of type {service_type:?} at {endpoint}")
        }
        _ => refusal.to_string(),
    }
}

/// The public certificate that belongs to a secret one, by its name.
fn public_half(secret: &Path) -> Option<PathBuf> {
    secret.to_str().and_then(|name| name.strip_suffix("_secret")).map(PathBuf::from)
}
