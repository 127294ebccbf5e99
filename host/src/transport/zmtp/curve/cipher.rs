//! NaCl's boxes: encrypted, and authenticated by the 16 bytes that they begin with.

use crypto_secretbox::{AeadInPlace, Kdf, KeyInit, XSalsa20Poly1305};
use zeroize::Zeroizing;

use crate::security::key::{PublicKey, SecretKey};

/// How much longer a box is than what is in it, in bytes.
pub(super) const TAG_BYTES: usize = 16;

/// Twenty-four bytes that must not occur twice with one key.
pub(super) type Nonce = [u8; 24];

/// What a box is closed and opened with. It is cleared from memory when it is dropped.
pub(super) struct BoxKey(XSalsa20Poly1305);

impl BoxKey {
    /// The key that two sides have in common. `None` if the public key is one of those that make no secret.
    pub(super) fn agree(secret: &SecretKey, public: &PublicKey) -> Option<Self> {
        secret.agree(public).map(|shared| Self::of_shared_secret(shared.as_bytes()))
    }

    pub(super) fn of_shared_secret(shared: &[u8; 32]) -> Self {
        let key = Zeroizing::new(XSalsa20Poly1305::kdf(shared.into(), &[0; 16].into()));
        BoxKey(XSalsa20Poly1305::new(&key))
    }

    /// A key that one side has for itself.
    pub(super) fn from_bytes(key: &[u8; 32]) -> Self {
        BoxKey(XSalsa20Poly1305::new(key.into()))
    }

    /// Makes a box of what stands in `buffer` behind its first [`TAG_BYTES`], which must be there.
    pub(super) fn seal_in_place(&self, nonce: &Nonce, buffer: &mut [u8]) {
        let (tag, text) = buffer.split_at_mut(TAG_BYTES);
        let made = self.0.encrypt_in_place_detached(nonce.into(), &[], text);
        // It can only refuse additional data, and there is none.
        tag.copy_from_slice(&made.expect("a box without additional data can be made"));
    }

    /// Opens a box where it is: what was in it stands behind the first [`TAG_BYTES`] then. `None`, and nothing is
    /// changed, if it is not one that this key has made.
    #[must_use]
    pub(super) fn open_in_place<'a>(&self, nonce: &Nonce, buffer: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let (tag, text) = buffer.split_first_chunk_mut::<TAG_BYTES>()?;
        self.0.decrypt_in_place_detached(nonce.into(), &[], text, (&*tag).into()).ok()?;
        Some(text)
    }

    /// A new box.
    pub(super) fn seal(&self, nonce: &Nonce, text: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(TAG_BYTES + text.len());
        sealed.resize(TAG_BYTES, 0);
        sealed.extend_from_slice(text);
        self.seal_in_place(nonce, &mut sealed);
        sealed
    }

    /// What is in a box. `None` if it is not one that this key has made.
    #[must_use]
    pub(super) fn open(&self, nonce: &Nonce, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (tag, text) = sealed.split_first_chunk::<TAG_BYTES>()?;
        let mut text = Zeroizing::new(text.to_vec());
        self.0.decrypt_in_place_detached(nonce.into(), &[], &mut text, tag.into()).ok()?;
        Some(text)
    }
}

/// A nonce of those that count.
pub(super) fn counted(prefix: &[u8; 16], count: u64) -> Nonce {
    let mut nonce = [0; 24];
    nonce[..16].copy_from_slice(prefix);
    nonce[16..].copy_from_slice(&count.to_be_bytes());
    nonce
}

/// A nonce of those that are drawn at random.
pub(super) fn drawn(prefix: &[u8; 8], random: &[u8; 16]) -> Nonce {
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(prefix);
    nonce[8..].copy_from_slice(random);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"libsodium has sealed this";
    /// What libsodium's crypto_box makes of the text with the keys of RFC 7748, section 6.1.
    const COUNTED: &str = "e5b17c333b818cc37ab4ea137e56cae577e97085122f5f0740f78517b645cd297d23210fcb1e674a1e";
    const DRAWN: &str = "0621b39aafbe84992d9c74701fd268b1cfcb433b55636efdc3359fa1eb590dc8abe3caa09449f811cd";

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn key() -> BoxKey {
        let secret = |text| SecretKey::from_bytes(&hex(text).try_into().unwrap());
        let alice = secret("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = secret("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        BoxKey::agree(&alice, &bob.public()).unwrap()
    }

    #[test]
    fn seals_as_libsodium_does() {
        let random = std::array::from_fn(|index| index as u8);
        for (nonce, sealed) in [(counted(b"CurveZMQMESSAGEC", 7), COUNTED), (drawn(b"WELCOME-", &random), DRAWN)] {
            assert_eq!(key().seal(&nonce, TEXT), hex(sealed));
            assert_eq!(key().open(&nonce, &hex(sealed)).unwrap().as_slice(), TEXT);
            let mut buffer = hex(sealed);
            assert_eq!(key().open_in_place(&nonce, &mut buffer).unwrap(), TEXT);
        }
    }

    #[test]
    fn opens_nothing_that_was_changed() {
        let nonce = counted(b"CurveZMQMESSAGEC", 7);
        let sealed = hex(COUNTED);
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(key().open(&nonce, &changed).is_none(), "byte {position}");
            let before = changed.clone();
            assert!(key().open_in_place(&nonce, &mut changed).is_none(), "byte {position}");
            assert_eq!(changed, before);
        }
        for length in 0..sealed.len() {
            assert!(key().open(&nonce, &sealed[..length]).is_none(), "{length} bytes");
            assert!(key().open_in_place(&nonce, &mut sealed[..length].to_vec()).is_none(), "{length} bytes");
        }
        assert!(key().open(&counted(b"CurveZMQMESSAGEC", 8), &sealed).is_none());
        assert!(key().open(&counted(b"CurveZMQMESSAGES", 7), &sealed).is_none());
    }
}
