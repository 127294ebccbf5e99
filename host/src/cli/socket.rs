//! The two sockets of the command line: one that asks, and one that hears events.
//!
//! Both are the `zeromq` crate's, a client that we have not written. It knows no keys and no Unix sockets: for these there
//! is the host's own.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use zeromq::{ReqSocket, Socket, SocketEvent, SocketOptions, SocketRecv, SocketSend, SubSocket, ZmqError};

use super::endpoint::Endpoint;
use crate::transport::zmtp::client::{Client as Own, Keys};

/// Sends a request, and gets its reply.
pub(super) enum Asking {
    Crate(ReqSocket),
    Own(Own),
}

impl Asking {
    /// Connects. A connection that is refused is tried again, for as long as the future is waited for.
    ///
    /// # Errors
    /// Why it cannot be made, in words for people.
    pub(super) async fn connect(endpoint: &Endpoint, keys: Option<&Keys>) -> Result<Self, String> {
        if is_for_crate(endpoint, keys) {
            let mut socket = ReqSocket::with_options(patient());
            socket.connect(&endpoint.to_string()).await.map_err(|error| cause(&error))?;
            return Ok(Asking::Crate(socket));
        }
        Own::connect(&endpoint.address(), "REQ", keys).await.map(Asking::Own).map_err(|error| error.to_string())
    }

    /// Sends a request, and waits for the last frame of the next message.
    ///
    /// # Errors
    /// Why there is none, in words for people. The socket is not to be used again.
    pub(super) async fn exchange(&mut self, request: &str) -> Result<Vec<u8>, String> {
        match self {
            Asking::Crate(socket) => {
                socket.send(request.into()).await.map_err(|error| cause(&error))?;
                let reply = socket.recv().await.map_err(|error| cause(&error))?;
                Ok(reply.iter().last().map(|frame| frame.to_vec()).unwrap_or_default())
            }
            Asking::Own(client) => {
                // A REQ's messages begin with an empty frame.
                client.send(&[b"", request.as_bytes()]).await.map_err(|error| error.to_string())?;
                let reply = client.receive().await.map_err(|error| error.to_string())?;
                Ok(reply.last().map(|frame| frame.to_vec()).unwrap_or_default())
            }
        }
    }
}

/// Hears all events, until the connection is lost.
pub(super) enum Hearing {
    Crate(Box<SubSocket>, BoxStream<'static, SocketEvent>),
    Own(Own),
}

impl Hearing {
    /// Connects, and subscribes to everything.
    ///
    /// # Errors
    /// Why that cannot be done, in words for people.
    pub(super) async fn connect(endpoint: &Endpoint, keys: Option<&Keys>) -> Result<Self, String> {
        if is_for_crate(endpoint, keys) {
            let mut socket = SubSocket::with_options(patient());
            socket.connect(&endpoint.to_string()).await.map_err(|error| cause(&error))?;
            socket.subscribe("").await.map_err(|error| cause(&error))?;
            let monitor = socket.monitor().boxed();
            return Ok(Hearing::Crate(Box::new(socket), monitor));
        }
        let client = Own::connect(&endpoint.address(), "SUB", keys).await;
        let mut client = client.map_err(|error| error.to_string())?;
        // 1 is "subscribe", and what follows the beginning of all topics.
        client.send(&[&[1]]).await.map_err(|error| error.to_string())?;
        Ok(Hearing::Own(client))
    }

    /// The last frame of the next event; `None` if the connection is lost. Nothing is lost if the future is dropped
    /// before it is ready.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        match self {
            Hearing::Crate(socket, monitor) => loop {
                tokio::select! {
                    message = socket.recv() => return message.ok()?.iter().last().map(|frame| frame.to_vec()),
                    // The socket would connect again by itself, but with pauses that grow to half a minute, and to the
                    // old port.
                    event = monitor.next() => if matches!(event, None | Some(SocketEvent::Disconnected(_))) {
                        return None;
                    },
                }
            },
            Hearing::Own(client) => client.receive().await.ok()?.last().map(|frame| frame.to_vec()),
        }
    }
}

fn is_for_crate(endpoint: &Endpoint, keys: Option<&Keys>) -> bool {
    keys.is_none() && matches!(endpoint, Endpoint::Tcp { .. })
}

/// Refused connections are tried again until the caller's patience ends, which may be longer than the crate's.
fn patient() -> SocketOptions {
    let mut options = SocketOptions::default();
    options.no_connect_timeout();
    options
}

/// Why a connection cannot be used, in words for people.
fn cause(error: &ZmqError) -> String {
    match error {
        ZmqError::Network(error) => error.to_string(),
        ZmqError::NoMessage => "the connection was closed before the answer came".to_string(),
        error => error.to_string(),
    }
}
