//! Who asks.

use super::key::PublicKey;

/// Who asks, as far as it is proved. Rights and ownership go by this and by nothing that a client says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Principal {
    /// Nobody was asked for a proof.
    #[default]
    Nobody,
    /// Whoever holds the secret half of this key.
    Key(PublicKey),
}

impl Principal {
    /// The key, if it is one.
    pub fn key(&self) -> Option<&PublicKey> {
        match self {
            Principal::Nobody => None,
            Principal::Key(key) => Some(key),
        }
    }
}

impl From<Option<PublicKey>> for Principal {
    fn from(key: Option<PublicKey>) -> Self {
        key.map_or(Principal::Nobody, Principal::Key)
    }
}
