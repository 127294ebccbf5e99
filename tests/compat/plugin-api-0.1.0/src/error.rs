//! What went wrong in a backend.

use std::fmt;

/// The result of a backend's call.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of a backend: a kind for the host to act on, and one line for the operator.
///
/// The host shows the message to operators, with the plugin's name before it, and to clients that ask for its health.
/// So it should name the thing that failed and, where there is one, the way out, and hold no secret:
/// `service_registry.db is locked by another process`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of that kind. `message` is one line without a full stop.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Error { kind, message: message.to_string() }
    }

    /// [`ErrorKind::Unavailable`]: the same call may succeed later.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Error::new(ErrorKind::Unavailable, message)
    }

    /// [`ErrorKind::InvalidOption`]: the configuration is wrong.
    pub fn invalid_option(message: impl fmt::Display) -> Self {
        Error::new(ErrorKind::InvalidOption, message)
    }

    /// [`ErrorKind::Corrupt`]: what is stored cannot be read, or is somebody else's.
    pub fn corrupt(message: impl fmt::Display) -> Self {
        Error::new(ErrorKind::Corrupt, message)
    }

    /// [`ErrorKind::Internal`]: a defect, or something unforeseen.
    pub fn internal(message: impl fmt::Display) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What went wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Kinds of failure that the host treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store cannot be reached or written at the moment: the host tries again.
    Unavailable,
    /// An option is unknown, missing or wrong.
    InvalidOption,
    /// What is stored cannot be read, or was not written by this backend. The backend leaves it untouched.
    Corrupt,
    /// The backend does not have this call, or cannot store such a record, however often it is tried.
    Unsupported,
    /// The backend panicked. The glue makes this from a caught panic; a backend has no reason to.
    Panicked,
    /// A defect, or something unforeseen.
    Internal,
}

impl ErrorKind {
    /// One word, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::InvalidOption => "invalid option",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Panicked => "panicked",
            ErrorKind::Internal => "internal",
        }
    }
}
