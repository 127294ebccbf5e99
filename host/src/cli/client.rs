//! A client of a registry: one JSON request, one JSON reply, over a REQ socket.

use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use zeromq::{ReqSocket, Socket, SocketOptions, SocketRecv, SocketSend, ZmqError, ZmqMessage};

use super::arguments::Connection;
use super::endpoint::Endpoint;

/// Talks to one registry. The connection is made with the first request, and again after a failure.
pub(super) struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    socket: Option<ReqSocket>,
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
         says where to look",
        timeout.as_secs_f64()
    )]
    NoAnswer { endpoint: Endpoint, timeout: Duration },
    /// The connection cannot be made, or broke.
    #[error("cannot talk to {endpoint}: {cause}")]
    Unreachable { endpoint: Endpoint, cause: String },
    /// Something else than a registry answers there.
    #[error("{endpoint} does not answer as a registry does: {cause}")]
    NotARegistry { endpoint: Endpoint, cause: String },
}

impl Client {
    pub(super) fn new(connection: &Connection) -> Self {
        Client { endpoint: connection.connect.clone(), timeout: connection.timeout, socket: None }
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
        let exchange = exchange(self.socket.take(), &self.endpoint, request.to_string());
        let endpoint = || self.endpoint.clone();
        match tokio::time::timeout(self.timeout, exchange).await {
            // The socket is gone with the exchange: a reply that comes late can answer no later request.
            Err(_) => Err(ClientError::NoAnswer { endpoint: endpoint(), timeout: self.timeout }),
            Ok(Err(error)) => Err(ClientError::Unreachable { endpoint: endpoint(), cause: cause(&error) }),
            Ok(Ok((socket, reply))) => {
                self.socket = Some(socket);
                understand(&reply).map_err(|cause| ClientError::NotARegistry { endpoint: endpoint(), cause })?
            }
        }
    }
}

async fn exchange(
    socket: Option<ReqSocket>,
    endpoint: &Endpoint,
    request: String,
) -> Result<(ReqSocket, ZmqMessage), ZmqError> {
    let mut socket = match socket {
        Some(socket) => socket,
        None => {
            let mut options = SocketOptions::default();
            // Refused connections are tried again until the caller's patience ends, which may be longer than 30 s.
            options.no_connect_timeout();
            let mut socket = ReqSocket::with_options(options);
            socket.connect(&endpoint.to_string()).await?;
            socket
        }
    };
    socket.send(request.into()).await?;
    let reply = socket.recv().await?;
    Ok((socket, reply))
}

/// Why a connection cannot be used, in words for people.
pub(super) fn cause(error: &ZmqError) -> String {
    match error {
        ZmqError::Network(error) => error.to_string(),
        ZmqError::NoMessage => "the connection was closed before the answer came".to_string(),
        error => error.to_string(),
    }
}

/// The reply; `Err` of it says what the registry refused, and `Err` of the whole what no registry sends.
fn understand(reply: &ZmqMessage) -> Result<Result<Value, ClientError>, String> {
    let frame = reply.iter().last().ok_or("an empty message")?;
    let reply: Value = serde_json::from_slice(frame).map_err(|error| format!("no JSON: {error}"))?;
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
