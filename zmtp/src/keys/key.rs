//! The keys of CURVE: Curve25519, 32 bytes each, written in Z85.

use std::fmt;
use std::str::FromStr;

use x25519_dalek::{SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use super::z85;

/// Says who somebody is. Everybody may know it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// Proves who somebody is. It is cleared from memory when it is dropped, and `Debug` does not show it.
#[derive(Clone)]
pub struct SecretKey(StaticSecret);

/// A secret key with its public one.
#[derive(Clone, Debug)]
pub struct KeyPair {
    public: PublicKey,
    secret: SecretKey,
}

/// Text that is not a key. It does not repeat the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a key: 40 characters of Z85")]
pub struct KeyError;

impl PublicKey {
    /// A key as it is on the wire.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        PublicKey(bytes)
    }

    /// The key as it is on the wire.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        z85::decode(text).map(|bytes| PublicKey(*bytes)).ok_or(KeyError)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&z85::encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl SecretKey {
    /// A new key, from this thread's generator, which the operating system seeds.
    pub fn generate() -> Self {
        Self::from_bytes(&Zeroizing::new(rand::random()))
    }

    /// A key as it is in memory.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        SecretKey(StaticSecret::from(*bytes))
    }

    /// The key itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public key that belongs to it.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// The key as text, for a file that nobody else can read.
    pub fn to_z85(&self) -> Zeroizing<String> {
        z85::encode(self.as_bytes())
    }

    /// What only the holders of these two keys know. `None` if everybody knows it: some public keys, which no honest
    /// program makes, lead to the same secret whatever the other key is.
    pub(crate) fn agree(&self, other: &PublicKey) -> Option<SharedSecret> {
        let shared = self.0.diffie_hellman(&x25519_dalek::PublicKey::from(other.0));
        shared.was_contributory().then_some(shared)
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        z85::decode(text).map(|bytes| SecretKey::from_bytes(&bytes)).ok_or(KeyError)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl KeyPair {
    /// A new pair.
    pub fn generate() -> Self {
        Self::from(SecretKey::generate())
    }

    /// The half to give away.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The half to keep.
    pub fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// Pretends to be somebody else.
    #[cfg(test)]
    pub(crate) fn claim(&mut self, public: PublicKey) {
        self.public = public;
    }
}

impl From<SecretKey> for KeyPair {
    fn from(secret: SecretKey) -> Self {
        KeyPair { public: secret.public(), secret }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key pairs of libzmq's manual, zmq_curve(7).
    const PAIRS: [(&str, &str); 2] = [
        ("Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID", "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"),
        ("rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"),
    ];

    fn hex(text: &str) -> [u8; 32] {
        std::array::from_fn(|index| u8::from_str_radix(&text[index * 2..index * 2 + 2], 16).unwrap())
    }

    #[test]
    fn a_secret_key_has_the_public_key_that_libzmq_says() {
        for (public, secret) in PAIRS {
            let pair = KeyPair::from(secret.parse::<SecretKey>().unwrap());
            assert_eq!(pair.public().to_string(), public);
            assert_eq!(pair.public(), &public.parse().unwrap());
            assert_eq!(*pair.secret().to_z85(), secret);
        }
    }

    #[test]
    fn no_two_pairs_are_the_same() {
        assert_ne!(KeyPair::generate().public(), KeyPair::generate().public());
    }

    #[test]
    fn agrees_as_rfc_7748_does() {
        let alice = SecretKey::from_bytes(&hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        let bob = SecretKey::from_bytes(&hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        let public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(alice.public(), PublicKey::from_bytes(public));
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(*alice.agree(&bob.public()).unwrap().as_bytes(), shared);
        assert_eq!(*bob.agree(&alice.public()).unwrap().as_bytes(), shared);
    }

    #[test]
    fn a_key_that_makes_no_secret_is_refused() {
        let mut low: Vec<[u8; 32]> = vec![[0; 32]];
        low.push(std::array::from_fn(|index| u8::from(index == 0)));
        // p - 1, p and p + 1, where p = 2^255 - 19.
        for last in [0xec, 0xed, 0xee] {
            low.push(std::array::from_fn(|index| match index {
                0 => last,
                31 => 0x7f,
                _ => 0xff,
            }));
        }
        for bytes in low {
            for key in [bytes, std::array::from_fn(|index| if index == 31 { bytes[31] | 0x80 } else { bytes[index] })] {
                assert!(SecretKey::generate().agree(&PublicKey::from_bytes(key)).is_none(), "{key:x?}");
            }
        }
    }

    #[test]
    fn a_secret_key_is_not_shown() {
        let pair = KeyPair::from(PAIRS[0].1.parse::<SecretKey>().unwrap());
        assert_eq!(
            format!("{pair:?}"),
            format!("KeyPair {{ public: PublicKey({}), secret: SecretKey(..) }}", PAIRS[0].0)
        );
        let error = PAIRS[0].1[1..].parse::<SecretKey>().unwrap_err();
        assert!(!error.to_string().contains(&PAIRS[0].1[1..]), "{error}");
    }
}
