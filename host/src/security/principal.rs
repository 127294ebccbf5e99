//! Who asks.

use std::fmt;

use super::key::PublicKey;

/// What stands before the name of a token, and of a certificate, where an owner is written down. No key has a space in it.
const TOKEN: &str = "token ";
const CERTIFICATE: &str = "certificate ";

/// Who asks, as far as it is proved. Rights and ownership go by this and by nothing that a client says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Principal {
    /// Nobody was asked for a proof.
    #[default]
    Nobody,
    /// Somebody was asked for a proof and has given none: there is nothing that such a client has a right to.
    Stranger,
    /// Whoever holds the secret half of this key.
    Key(PublicKey),
    /// Whoever has the token of this name.
    Token(Name),
    /// Whoever has a certificate of TLS with this name, from an authority that the registry trusts.
    Certificate(Name),
}

impl Principal {
    /// The key, if it is one.
    pub fn key(&self) -> Option<&PublicKey> {
        match self {
            Principal::Key(key) => Some(key),
            Principal::Nobody | Principal::Stranger | Principal::Token(_) | Principal::Certificate(_) => None,
        }
    }

    /// As an owner is written down in a service's record; `None` if it is nobody.
    pub fn written(&self) -> Option<String> {
        match self {
            Principal::Nobody | Principal::Stranger => None,
            Principal::Key(key) => Some(key.to_string()),
            Principal::Token(name) => Some(format!("{TOKEN}{name}")),
            Principal::Certificate(name) => Some(format!("{CERTIFICATE}{name}")),
        }
    }

    /// The owner that was written down so; `None` if nobody would write that.
    pub fn read(written: &str) -> Option<Self> {
        match (written.strip_prefix(TOKEN), written.strip_prefix(CERTIFICATE)) {
            (Some(name), _) => Name::new(name).map(Principal::Token),
            (_, Some(name)) => Name::new(name).map(Principal::Certificate),
            (None, None) => written.parse().ok().map(Principal::Key),
        }
    }

    /// What a client is told that it has shown.
    pub fn proof(&self) -> &'static str {
        match self {
            Principal::Nobody | Principal::Stranger | Principal::Key(_) => "this key",
            Principal::Token(_) => "this token",
            Principal::Certificate(_) => "this certificate",
        }
    }
}

impl From<Option<PublicKey>> for Principal {
    fn from(key: Option<PublicKey>) -> Self {
        key.map_or(Principal::Nobody, Principal::Key)
    }
}

/// A name of limited length that is copied as keys are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name([u8; Name::BYTES_MAX]);

impl Name {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// A name that is neither empty nor too long, and has no control characters and no space at its ends.
    pub fn new(text: &str) -> Option<Self> {
        let is_name = !text.is_empty() && text.trim() == text && !text.contains(char::is_control);
        let mut bytes = [0; Self::BYTES_MAX];
        bytes.get_mut(..text.len()).filter(|_| is_name)?.copy_from_slice(text.as_bytes());
        Some(Name(bytes))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        // It was made from text, and no text that is a name has a zero in it.
        str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_as_it_was_written() {
        let token = Principal::Token(Name::new("the ci, ä").unwrap());
        let certificate = Principal::Certificate(Name::new("spiffe://lab/camera").unwrap());
        for principal in [Principal::Key(PublicKey::from_bytes([7; 32])), token, certificate] {
            assert_eq!(Principal::read(&principal.written().unwrap()), Some(principal));
        }
        assert_eq!((Principal::Nobody.written(), token.written().as_deref()), (None, Some("token the ci, ä")));
        assert_eq!(certificate.written().as_deref(), Some("certificate spiffe://lab/camera"));
        for odd in ["", "nobody", "token ", "token  ci", "tokenci", "token a\u{0}b", "certificate "] {
            assert_eq!(Principal::read(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_name_has_an_end() {
        let longest = "x".repeat(128);
        assert_eq!(Name::new(&longest).unwrap().as_str(), longest);
        for odd in ["", " a", "a ", "a\nb", "a\0", &"x".repeat(129)] {
            assert_eq!(Name::new(odd), None, "{odd:?}");
        }
    }
}
