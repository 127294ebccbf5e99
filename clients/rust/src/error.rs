//! What can go wrong.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use registry_zmtp::client::ClientError;
use registry_zmtp::greeting::GreetingError;
use serde_json::Value;

use crate::endpoint::Endpoint;

/// Why a call has no result. `Debug` is the same sentence as `Display`: it is what a `main` that fails prints.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No registry could be reached in time.
    #[error("{}", match cause {
        Some(cause) => cause.to_string(),
        None => "no registry could be reached in time".to_string(),
    })]
    Unreachable {
        /// What the last attempt met, if there was one.
        cause: Option<ConnectionError>,
    },
    /// The registry was reached, and did not answer in time. What was asked for may have been done.
    #[error("no answer from {endpoint} within {} s", seconds(after))]
    TimedOut {
        /// Who did not answer.
        endpoint: Endpoint,
        /// How long it was waited for.
        after: Duration,
    },
    /// The registry has answered, and said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// Something else than a registry answers, or one that nobody has heard of.
    #[error("{endpoint} {problem}")]
    Protocol {
        /// Who answered.
        endpoint: Endpoint,
        /// What is wrong with the answer.
        problem: ProtocolProblem,
    },
    /// The [`Registry`](crate::Registry) is closed.
    #[error("this client of the registry is closed")]
    Closed,
    /// What was given is of no use.
    #[error("{0}")]
    Invalid(String),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As many digits as anybody reads.
fn seconds(duration: &Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}

/// What is wrong with an answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolProblem {
    /// It is none of a registry.
    #[error("does not answer as a registry does: {0}")]
    NoRegistry(String),
    /// It comes from the heartbeat port, which takes everything for a heartbeat.
    #[error("is the heartbeat port: try 5556 for requests, or what server.req_port says")]
    HeartbeatPort,
}

impl Error {
    /// Why the registry refused, if it did.
    ///
    /// ```
    /// use registry_client::{Code, Error};
    ///
    /// fn is_missing(error: &Error) -> bool {
    ///     error.code() == Some(&Code::NotFound)
    /// }
    /// assert!(!is_missing(&Error::Closed));
    /// ```
    pub fn code(&self) -> Option<&Code> {
        match self {
            Error::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }

    /// Whether the same call may well succeed a little later.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::TimedOut { .. } => true,
            Error::Refused(refusal) => {
                let code = &refusal.code;
                matches!(code, Code::BackendUnavailable | Code::Overloaded | Code::Starting | Code::Stale)
                    || *code == Code::TooManyRequests
            }
            Error::Protocol { .. } | Error::Closed | Error::Invalid(_) => false,
        }
    }

    /// Whether the registry has said that there is nothing of that id. An older one sends no code: what else could it
    /// refuse a renewal or a removal for?
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self.code(), Some(Code::NotFound)) || matches!(self.code(), Some(Code::Other(code)) if code.is_empty())
    }
}

/// A registry's no.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// What is wrong, for programs.
    pub code: Code,
    /// What is wrong, in the registry's words.
    pub error: String,
    /// More about it, if it said more.
    pub message: Option<String>,
    /// The field that has a wrong value, if it is about one.
    pub field: Option<String>,
    /// Who said so.
    pub endpoint: Endpoint,
    /// The whole reply.
    pub reply: Value,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) => write!(f, "{}: {message}", self.error),
            None => f.write_str(&self.error),
        }
    }
}

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $word:literal,)*) => {
        /// Why a registry refuses: `docs/protocol.md` says more about each.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$meta])* $name,)*
            /// Another one, of a registry that is newer than this library; empty from one that sends none.
            Other(String),
        }

        impl Code {
            /// The word on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Code::$name => $word,)*
                    Code::Other(word) => word,
                }
            }
        }

        impl From<&str> for Code {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Code::$name,)*
                    other => Code::Other(other.to_string()),
                }
            }
        }

        #[cfg(test)]
        const KNOWN: &[&str] = &[$($word),*];
    };
}

codes! {
    /// The request is no JSON object.
    InvalidJson = "invalid_json",
    /// A field is missing, or has a value that it cannot have.
    InvalidRequest = "invalid_request",
    /// The registry does not know the action: it is older than this library.
    UnknownAction = "unknown_action",
    /// No service has that id.
    NotFound = "not_found",
    /// No service of that type is healthy.
    NoneHealthy = "none_healthy",
    /// The type must be unique, and another healthy service has it.
    DuplicateServiceType = "duplicate_service_type",
    /// `singleton` and `allow_duplicate_service_type` contradict each other.
    InvalidServiceTypePolicy = "invalid_service_type_policy",
    /// The client may not do that.
    Forbidden = "forbidden",
    /// Too much waits for the storage, or the services take all the memory that they may.
    Overloaded = "overloaded",
    /// The storage failed or did not answer in time.
    BackendUnavailable = "backend_unavailable",
    /// The storage cannot store this service.
    BackendRefused = "backend_refused",
    /// The service was deregistered by somebody else.
    Deregistered = "deregistered",
    /// The id was registered again by somebody else.
    Replaced = "replaced",
    /// The changes since that position are not known any more: list again.
    Compacted = "compacted",
    /// The registry cannot be sure of its state for longer than `max_stale` allows.
    Stale = "stale",
    /// The registry is starting, and does not know its services yet.
    Starting = "starting",
    /// The registry's configuration cannot be used, so nothing has been changed: `problems` of the reply has why.
    ConfigRefused = "config_refused",
    /// The client has as many services as a quota of the registry allows it.
    QuotaExceeded = "quota_exceeded",
    /// The client asks more often than a quota of the registry allows it: `retry_after` of the reply says, in seconds,
    /// when it may again.
    TooManyRequests = "too_many_requests",
}

/// Why a host could not be talked to.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", match &problem {
    ConnectionProblem::Refused => format!("connection refused by {endpoint}: nothing listens"),
    ConnectionProblem::Other(cause) => format!("cannot talk to {endpoint}: {cause}"),
    problem => format!("{endpoint} {problem}"),
})]
#[non_exhaustive]
pub struct ConnectionError {
    /// Who it is about.
    pub endpoint: Endpoint,
    /// What is in the way.
    pub problem: ConnectionProblem,
}

/// What is in the way of a connection: the cases in which one can do different things about it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionProblem {
    /// Nothing listens there: no such port, or no such Unix socket.
    #[error("refuses the connection: nothing listens")]
    Refused,
    /// It did not answer in time.
    #[error("did not answer within {} s", seconds(.0))]
    TimedOut(Duration),
    /// A socket of another kind answers there: a `PUB`, say.
    #[error("is no request port, but a {0}")]
    OtherSocket(String),
    /// The registry asks for keys, and none were given.
    #[error("asks for keys")]
    KeysMissing,
    /// Keys were given to a registry that asks for none, so nothing would be encrypted.
    #[error("asks for no keys, so nothing would be encrypted")]
    KeysNotWanted,
    /// The registry does not let this client's key in.
    #[error("does not know this client's public key")]
    KeyRefused,
    /// The registry is starting, and does not know its services yet.
    #[error("is starting")]
    Starting,
    /// Anything else, as a line of text.
    #[error("{0}")]
    Other(Arc<str>),
}

impl From<ClientError> for ConnectionProblem {
    fn from(error: ClientError) -> Self {
        match error {
            // The latter is a Unix socket that is not there; a host name that is not known has a kind of its own.
            ClientError::Network(error)
                if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) =>
            {
                ConnectionProblem::Refused
            }
            ClientError::WrongPort { theirs, .. } => ConnectionProblem::OtherSocket(theirs),
            ClientError::NotAuthorized { .. } => ConnectionProblem::KeyRefused,
            ClientError::Greeting(GreetingError::Mechanism { ours: "NULL", theirs }) if theirs == "CURVE" => {
                ConnectionProblem::KeysMissing
            }
            ClientError::Greeting(GreetingError::Mechanism { ours: "CURVE", theirs }) if theirs == "NULL" => {
                ConnectionProblem::KeysNotWanted
            }
            error => ConnectionProblem::Other(error.to_string().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_that_fails_prints_a_sentence() {
        let after = Duration::from_nanos(2_364_540_068);
        let error = Error::TimedOut { endpoint: "h:1".parse().unwrap(), after };
        assert_eq!(format!("{error:?}"), "no answer from h:1 within 2.365 s");
    }

    #[test]
    fn every_code_that_the_registry_has_is_known_by_its_word() {
        for code in registry_protocol::reply::Code::ALL {
            assert!(!matches!(Code::from(code.as_str()), Code::Other(_)), "{}", code.as_str());
        }
        for word in KNOWN {
            assert_eq!(Code::from(*word).as_str(), *word);
        }
        assert_eq!(Code::from("later").as_str(), "later");
    }
}
