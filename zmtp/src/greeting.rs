//! The first 64 bytes of each side ([RFC 37](https://rfc.zeromq.org/spec/37/), "Version Negotiation").

/// How long a greeting is, in bytes.
pub const GREETING_BYTES: usize = 64;

const MECHANISM: std::ops::Range<usize> = 12..32;
const AS_SERVER: usize = 32;

/// How peers make sure of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Not at all.
    Null,
    /// By keys: everything is encrypted, and both know whom they talk to.
    Curve,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Null => "NULL",
            Mechanism::Curve => "CURVE",
        }
    }
}

/// Why a peer cannot be talked to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// The first byte, or the tenth.
    #[error("this is not ZMTP")]
    NotZmtp,
    /// ZMTP 1 and 2.
    #[error("the peer speaks ZMTP {0}, and 3 is the oldest that is spoken here")]
    Version(u8),
    /// NULL meets CURVE, or worse.
    #[error("the peer's mechanism is {theirs}, and {ours} is wanted here")]
    Mechanism {
        /// What the peer says, for people.
        theirs: String,
        /// What is configured.
        ours: &'static str,
    },
    /// Both sides want to be the one that the other has to know, or neither does.
    #[error("the peer is on the same side of {0} as we are")]
    SameSide(&'static str),
}

/// Which side of a connection somebody is: CURVE's two sides are not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The registry.
    Server,
    /// Who connects to it.
    Client,
}

/// What the server sends.
pub fn ours(mechanism: Mechanism) -> [u8; GREETING_BYTES] {
    greeting(mechanism, Side::Server)
}

/// What a client sends.
pub fn theirs(mechanism: Mechanism) -> [u8; GREETING_BYTES] {
    greeting(mechanism, Side::Client)
}

fn greeting(mechanism: Mechanism, side: Side) -> [u8; GREETING_BYTES] {
    let mut greeting = [0; GREETING_BYTES];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[11] = 1;
    let name = mechanism.name();
    greeting[MECHANISM.start..MECHANISM.start + name.len()].copy_from_slice(name.as_bytes());
    greeting[AS_SERVER] = u8::from(mechanism == Mechanism::Curve && side == Side::Server);
    greeting
}

/// Looks at as much of a client's greeting as has come. The minor version, if it is complete.
///
/// # Errors
/// As soon as it is clear that nothing can come of it.
pub fn read(bytes: &[u8], mechanism: Mechanism) -> Result<Option<u8>, GreetingError> {
    read_from(Side::Client, bytes, mechanism)
}

/// The same of the greeting of the peer that is on this side.
///
/// # Errors
/// As soon as it is clear that nothing can come of it.
pub fn read_from(side: Side, bytes: &[u8], mechanism: Mechanism) -> Result<Option<u8>, GreetingError> {
    // What stands between these two is left open, and old peers use it.
    if bytes.first().is_some_and(|first| *first != 0xff) || bytes.get(9).is_some_and(|tenth| tenth & 1 != 1) {
        return Err(GreetingError::NotZmtp);
    }
    if let Some(&major) = bytes.get(10).filter(|major| **major < 3) {
        // Version 2 is told as 1: the number was that of a revision then.
        return Err(GreetingError::Version(if major == 0 { 1 } else { 2 }));
    }
    let Some(greeting) = bytes.get(..GREETING_BYTES) else { return Ok(None) };
    let ours = mechanism.name();
    let mut expected = [0; MECHANISM.end - MECHANISM.start];
    expected[..ours.len()].copy_from_slice(ours.as_bytes());
    if greeting[MECHANISM] != expected {
        let theirs = String::from_utf8_lossy(&greeting[MECHANISM]);
        let theirs = theirs.trim_end_matches('\0').escape_debug().to_string();
        return Err(GreetingError::Mechanism { theirs, ours });
    }
    if mechanism == Mechanism::Curve && greeting[AS_SERVER] != u8::from(side == Side::Server) {
        return Err(GreetingError::SameSide(ours));
    }
    // What comes after 3 has to understand 3.1, as 3.1 does 3.0.
    Ok(Some(if greeting[10] > 3 { 1 } else { greeting[11] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_when_it_is_complete() {
        for mechanism in [Mechanism::Null, Mechanism::Curve] {
            let greeting = theirs(mechanism);
            for length in 0..GREETING_BYTES {
                assert_eq!(read(&greeting[..length], mechanism), Ok(None), "{length} bytes");
            }
            assert_eq!(read(&greeting, mechanism), Ok(Some(1)));
            assert_eq!(read(&[&greeting[..], b"more"].concat(), mechanism), Ok(Some(1)));
        }
    }

    #[test]
    fn what_is_not_zmtp_3_is_refused_by_its_first_byte_that_tells() {
        assert_eq!(read(b"G", Mechanism::Null), Err(GreetingError::NotZmtp));
        assert_eq!(read(&[1], Mechanism::Null), Err(GreetingError::NotZmtp));
        assert_eq!(read(&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0], Mechanism::Null), Err(GreetingError::NotZmtp));
        // ZMTP 2 sends a socket type after its revision, and waits.
        assert_eq!(read(&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 1], Mechanism::Null), Err(GreetingError::Version(2)));
        assert_eq!(read(&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 0], Mechanism::Null), Err(GreetingError::Version(1)));
    }

    #[test]
    fn older_and_newer_minor_versions_are_told_apart() {
        let mut greeting = theirs(Mechanism::Null);
        greeting[11] = 0;
        assert_eq!(read(&greeting, Mechanism::Null), Ok(Some(0)));
        (greeting[10], greeting[11]) = (4, 0);
        assert_eq!(read(&greeting, Mechanism::Null), Ok(Some(1)));
    }

    #[test]
    fn each_mechanism_wants_its_own_kind() {
        let other = |theirs: &str, ours| Err(GreetingError::Mechanism { theirs: theirs.into(), ours });
        assert_eq!(read(&theirs(Mechanism::Null), Mechanism::Curve), other("NULL", "CURVE"));
        assert_eq!(read(&theirs(Mechanism::Curve), Mechanism::Null), other("CURVE", "NULL"));
        let mut greeting = theirs(Mechanism::Null);
        greeting[12..17].copy_from_slice(b"NULL2");
        assert_eq!(read(&greeting, Mechanism::Null), other("NULL2", "NULL"));
        greeting[12..17].copy_from_slice(b"\x1b[2Jx");
        assert_eq!(read(&greeting, Mechanism::Null), other("\\u{1b}[2Jx", "NULL"));
        assert_eq!(read(&ours(Mechanism::Curve), Mechanism::Curve), Err(GreetingError::SameSide("CURVE")));
        let from_server = |greeting: &[u8]| read_from(Side::Server, greeting, Mechanism::Curve);
        assert_eq!(from_server(&ours(Mechanism::Curve)), Ok(Some(1)));
        assert_eq!(from_server(&theirs(Mechanism::Curve)), Err(GreetingError::SameSide("CURVE")));
        assert_eq!(read_from(Side::Server, &ours(Mechanism::Null), Mechanism::Null), Ok(Some(1)));
    }
}
