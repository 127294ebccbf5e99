//! A client of a registry: one JSON request, one JSON reply, over a REQ socket.

use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;

use super::arguments::Connection;
use super::endpoint::Endpoint;
use super::keys;
use super::output::Failure;
use super::socket::Asking;
use crate::transport::zmtp::client::Keys;

/// Talks to one registry. The connection is made with the first request, and again after a failure.
pub(super) struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    keys: Option<Keys>,
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
        /// What the registry said.
        text: String,
    },
    /// Nothing came in time.
    #[error(
        "no answer from {endpoint} within {} s: is the registry running there? --connect or REGISTRY_CONNECT \
         says where to look{}",
        timeout.as_secs_f64(), hint(*has_keys)
    )]
    NoAnswer { endpoint: Endpoint, timeout: Duration, has_keys: bool },
    /// The connection cannot be made, or broke.
    #[error("cannot talk to {endpoint}: {cause}{}", hint(*has_keys))]
    Unreachable { endpoint: Endpoint, cause: String, has_keys: bool },
    /// Something else than a registry answers there.
    #[error("{endpoint} does not answer as a registry does: {cause}")]
    NotARegistry { endpoint: Endpoint, cause: String },
}

/// Without keys, their lack may be what is wrong.
fn hint(has_keys: bool) -> &'static str {
    if has_keys { "" } else { "; if it asks for keys, they are told by --key and --server-key" }
}

impl Client {
    /// # Errors
    /// The keys cannot be used.
    pub(super) fn new(connection: &Connection) -> Result<Self, Failure> {
        let keys = keys::read(connection)?;
        Ok(Client { endpoint: connection.connect.clone(), timeout: connection.timeout, keys, socket: None })
    }

    /// Where the registry is.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks for `action`, with the fields of `request`, and waits for the reply.
    ///
    /// # Errors
    /// See [`ClientError`]. A reply with `success: false` is one.
    pub(super) async fn request(&mut self, action: &str, mut request: Value) -> Result<Value, ClientError> {
        request["action"] = json!(action);
        let exchange = exchange(self.socket.take(), &self.endpoint, self.keys.as_ref(), request.to_string());
        let endpoint = || self.endpoint.clone();
        let has_keys = self.keys.is_some();
        match tokio::time::timeout(self.timeout, exchange).await {
            // The socket is gone with the exchange: a reply that comes late can answer no later request.
            Err(_) => Err(ClientError::NoAnswer { endpoint: endpoint(), timeout: self.timeout, has_keys }),
            Ok(Err(cause)) => Err(ClientError::Unreachable { endpoint: endpoint(), cause, has_keys }),
            Ok(Ok((socket, reply))) => {
                self.socket = Some(socket);
                understand(&reply).map_err(|cause| ClientError::NotARegistry { endpoint: endpoint(), cause })?
            }
        }
    }

    /// The keys that the registry is talked to with.
    pub(super) fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }
}

async fn exchange(
    socket: Option<Asking>,
    endpoint: &Endpoint,
    keys: Option<&Keys>,
    request: String,
) -> Result<(Asking, Vec<u8>), String> {
    let mut socket = match socket {
        Some(socket) => socket,
        None => Asking::connect(endpoint, keys).await?,
    };
    let reply = socket.exchange(&request).await?;
    Ok((socket, reply))
}

/// The reply; `Err` of it says what the registry refused, and `Err` of the whole what no registry sends.
fn understand(reply: &[u8]) -> Result<Result<Value, ClientError>, String> {
    let reply: Value = serde_json::from_slice(reply).map_err(|error| format!("no JSON: {error}"))?;
    let text = |field: &str| reply.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    match reply.get("success").and_then(Value::as_bool) {
        Some(true) => Ok(Ok(reply)),
        Some(false) => {
            let error = text("error").unwrap_or("the registry refused, and did not say why");
            let text = text("message").map_or_else(|| error.to_string(), |message| format!("{error}: {message}"));
            let code = reply.get("code").and_then(Value::as_str).unwrap_or_default().to_string();
            Ok(Err(ClientError::Refused { code, text }))
        }
        None => Err("a reply without `success`".to_string()),
    }
}
