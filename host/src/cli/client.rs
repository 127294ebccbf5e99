//! A client of a registry: one JSON request, one JSON reply, over a REQ socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

use super::arguments::Connection;
use super::endpoint::{self, Endpoint};
use super::keys;
use super::output::Failure;
use super::socket::{Asking, Trouble};
use registry_zmtp::client::Keys;

/// What the heartbeat port says of every request that is no heartbeat.
const WANTS_A_HEARTBEAT: &str = "Missing required field: service_id";
const RENEWED: [&str; 2] = ["Service renewed successfully", "Service not found or could not be renewed"];

/// Talks to one registry. The connection is made with the first request, and again after a failure.
pub(super) struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    keys: Option<Keys>,
    key_file: Option<PathBuf>,
    socket: Option<Asking>,
}

/// Why there is no reply to use.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    /// The registry has answered, and said no.
    #[error("{text}")]
    Refused {
        /// The word for programs: `not_found` and the like. Empty from a registry that sends none.
        code: String,
        /// What the registry said, as a line of text.
        text: String,
        /// The whole reply.
        reply: Value,
    },
    /// Nothing came in time.
    #[error("no answer from {endpoint} within {} s", timeout.as_secs_f64())]
    NoAnswer { endpoint: Endpoint, timeout: Duration },
    /// There is no such port or socket.
    #[error("connection refused by {0}: nothing listens")]
    NobodyListens(Endpoint),
    /// The connection cannot be made for another reason, or broke.
    #[error("{0}")]
    Unreachable(String),
    /// Something else than a registry answers there, or another port of it.
    #[error("{0}")]
    NotARegistry(String),
}

impl ClientError {
    /// Whether the same request may well be answered a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            ClientError::NoAnswer { .. } | ClientError::NobodyListens(_) | ClientError::Unreachable(_) => true,
            ClientError::Refused { code, .. } => code == "backend_unavailable" || code == "overloaded",
            ClientError::NotARegistry(_) => false,
        }
    }

    /// Whether the registry has said that there is nothing of that id. An older one sends no code: what else could it
    /// refuse a renewal or a removal for?
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Refused { code, .. } if code.is_empty() || code == "not_found")
    }
}

impl Client {
    /// # Errors
    /// The keys cannot be used, or the configuration that says where the registry is.
    pub(super) fn new(connection: &Connection) -> Result<Self, Failure> {
        let keys = keys::read(connection)?;
        let endpoint = endpoint::of(connection)?;
        Ok(Client { endpoint, timeout: connection.timeout, keys, key_file: connection.key.clone(), socket: None })
    }

    /// Where the registry is.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The keys that the registry is talked to with.
    pub(super) fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }

    /// Asks for `action`, with the fields of `request`, and waits for the reply.
    ///
    /// # Errors
    /// See [`ClientError`]. A reply with `success: false` is one.
    pub(super) async fn request(&mut self, action: &str, mut request: Value) -> Result<Value, ClientError> {
        request["action"] = json!(action);
        let exchange = exchange(self.socket.take(), &self.endpoint, self.keys.as_ref(), request.to_string());
        match tokio::time::timeout(self.timeout, exchange).await {
            // The socket is gone with the exchange: a reply that comes late can answer no later request.
            Err(_) => Err(ClientError::NoAnswer { endpoint: self.endpoint.clone(), timeout: self.timeout }),
            Ok(Err(trouble)) => Err(self.unreachable(trouble)),
            Ok(Ok((socket, reply))) => {
                self.socket = Some(socket);
                self.understand(&request, &reply)
            }
        }
    }

    /// What is in the way, and what can be done about it.
    fn unreachable(&self, trouble: Trouble) -> ClientError {
        let endpoint = &self.endpoint;
        match trouble {
            Trouble::Refused => ClientError::NobodyListens(endpoint.clone()),
            Trouble::OtherSocket(kind) => {
                let what = if kind.ends_with("PUB") { "it sends events".to_string() } else { format!("a {kind}") };
                ClientError::NotARegistry(format!(
                    "{endpoint} is no request port ({what}): try 5556, or what server.req_port says"
                ))
            }
            Trouble::KeysMissing => ClientError::Unreachable(format!(
                "{endpoint} asks for keys: --key names yours, and --server-key the registry's"
            )),
            Trouble::KeysNotWanted => ClientError::Unreachable(format!(
                "{endpoint} asks for no keys, so nothing would be encrypted: leave out --key and --server-key if that \
                 is meant"
            )),
            Trouble::KeyRefused => ClientError::Unreachable(self.key_refused()),
            Trouble::Other(cause) => ClientError::Unreachable(format!("cannot talk to {endpoint}: {cause}")),
        }
    }

    /// That the client's key is not let in.
    pub(super) fn key_refused(&self) -> String {
        let key = self.keys.as_ref().map(|keys| keys.own.public().to_string()).unwrap_or_default();
        let certificate = self.key_file.as_deref().and_then(public_half);
        let certificate = certificate.map_or("its certificate".to_string(), |file| file.display().to_string());
        let endpoint = &self.endpoint;
        format!(
            "your public key {key} is not authorized at {endpoint}: copy {certificate} into the directory that the \
             registry's security.authorized_clients names"
        )
    }

    /// The reply, if it is one of a registry that has done what it was asked for.
    fn understand(&self, request: &Value, reply: &[u8]) -> Result<Value, ClientError> {
        let endpoint = &self.endpoint;
        let no_registry = |cause: String| {
            ClientError::NotARegistry(format!("{endpoint} does not answer as a registry does: {cause}"))
        };
        let reply: Value = serde_json::from_slice(reply).map_err(|error| no_registry(format!("no JSON: {error}")))?;
        let text = |field: &str| reply.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        // Every request there is taken for a heartbeat.
        let is_taken_for_a_heartbeat = match text("message").or(text("error")) {
            Some(text) if request.get("service_id").is_none() => text == WANTS_A_HEARTBEAT,
            Some(text) => request["action"] != "renew" && RENEWED.contains(&text),
            None => false,
        };
        match reply.get("success").and_then(Value::as_bool) {
            Some(_) if is_taken_for_a_heartbeat => Err(self.heartbeat_port()),
            Some(true) => Ok(reply),
            Some(false) => {
                let code = text("code").unwrap_or_default().to_string();
                Err(ClientError::Refused { text: refusal(request, &code, &reply, endpoint), code, reply })
            }
            None => Err(no_registry("a reply without `success`".to_string())),
        }
    }

    fn heartbeat_port(&self) -> ClientError {
        let endpoint = &self.endpoint;
        ClientError::NotARegistry(format!(
            "{endpoint} is the heartbeat port: try 5556 for requests, or what server.req_port says"
        ))
    }
}

/// A refusal as a line of text. It names what was asked for where the registry's own words do not.
fn refusal(request: &Value, code: &str, reply: &Value, endpoint: &Endpoint) -> String {
    let asked = |field: &str| request.get(field).and_then(Value::as_str);
    match (code, asked("service_id"), asked("service_type")) {
        ("not_found", Some(id), _) => return format!("no service {id:?} at {endpoint}"),
        ("none_healthy", _, Some(service_type)) => {
            return format!("no healthy service of type {service_type:?} at {endpoint}");
        }
        _ => {}
    }
    let text = |field: &str| reply.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let error = text("error").unwrap_or("the registry refused, and did not say why");
    text("message").map_or_else(|| error.to_string(), |message| format!("{error}: {message}"))
}

/// The public certificate that belongs to a secret one, by its name.
fn public_half(secret: &Path) -> Option<PathBuf> {
    secret.to_str().and_then(|name| name.strip_suffix("_secret")).map(PathBuf::from)
}

/// Asks over the connection that there is. If the registry has closed that meanwhile, or was restarted, a new one is
/// made: no request does harm that is done twice.
async fn exchange(
    socket: Option<Asking>,
    endpoint: &Endpoint,
    keys: Option<&Keys>,
    request: String,
) -> Result<(Asking, Vec<u8>), Trouble> {
    if let Some(mut socket) = socket
        && let Ok(reply) = socket.exchange(&request).await
    {
        return Ok((socket, reply));
    }
    let mut socket = Asking::connect(endpoint, keys).await?;
    let reply = socket.exchange(&request).await?;
    Ok((socket, reply))
}
