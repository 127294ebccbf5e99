//! The two sockets of the command line: one that asks, and one that hears events. Each is one connection, which is not
//! made again when it is lost.

use std::io::ErrorKind;

use super::endpoint::Endpoint;
use registry_zmtp::client::{Client, ClientError, Keys};
use registry_zmtp::greeting::GreetingError;

/// Why there is no connection, or no longer: the cases in which the user can do different things about it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing listens there: no such port, or no such Unix socket.
    Refused,
    /// A socket of another kind answers there: a `PUB`, say.
    OtherSocket(String),
    /// The server asks for keys, and none were given.
    KeysMissing,
    /// Keys were given to a server that asks for none.
    KeysNotWanted,
    /// The server does not let this client's key in.
    KeyRefused,
    /// Anything else, as a line of text.
    Other(String),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        match error {
            // The latter is a Unix socket that is not there; a host name that is not known has a kind of its own.
            ClientError::Network(error)
                if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) =>
            {
                Trouble::Refused
            }
            ClientError::WrongPort { theirs, .. } => Trouble::OtherSocket(theirs),
            ClientError::NotAuthorized { .. } => Trouble::KeyRefused,
            ClientError::Greeting(GreetingError::Mechanism { ours: "NULL", theirs }) if theirs == "CURVE" => {
                Trouble::KeysMissing
            }
            ClientError::Greeting(GreetingError::Mechanism { ours: "CURVE", theirs }) if theirs == "NULL" => {
                Trouble::KeysNotWanted
            }
            error => Trouble::Other(error.to_string()),
        }
    }
}

/// Sends requests, and gets their replies.
pub(super) struct Asking(Client);

impl Asking {
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn connect(endpoint: &Endpoint, keys: Option<&Keys>) -> Result<Self, Trouble> {
        Ok(Asking(Client::connect(&endpoint.address(), "REQ", keys).await?))
    }

    /// Sends a request, and waits for the last frame of the next message.
    ///
    /// # Errors
    /// Why there is none. The socket is not to be used again.
    pub(super) async fn exchange(&mut self, request: &str) -> Result<Vec<u8>, Trouble> {
        // A REQ's messages begin with an empty frame.
        self.0.send(&[b"", request.as_bytes()]).await?;
        let reply = self.0.receive().await?;
        Ok(reply.last().map(|frame| frame.to_vec()).unwrap_or_default())
    }
}

/// Hears all events, until the connection is lost.
pub(super) struct Hearing(Client);

impl Hearing {
    /// Connects, and subscribes to everything.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub(super) async fn connect(endpoint: &Endpoint, keys: Option<&Keys>) -> Result<Self, Trouble> {
        let mut client = Client::connect(&endpoint.address(), "SUB", keys).await?;
        // 1 is "subscribe"; what follows it is the beginning of a topic, and nothing is the beginning of all.
        client.send(&[&[1]]).await?;
        Ok(Hearing(client))
    }

    /// The last frame of the next event; `None` if the connection is lost. Nothing is lost if the future is dropped
    /// before it is ready.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        self.0.receive().await.ok()?.last().map(|frame| frame.to_vec())
    }
}
