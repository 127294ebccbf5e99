//! NaCl's boxes: encrypted, and authenticated by the 16 bytes that they begin with.

use crypto_secretbox::{AeadInPlace, Kdf, KeyInit, XSalsa20Poly1305};
use poly1305::Poly1305;
use poly1305::universal_hash::UniversalHash;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use crate::keys::key::{PublicKey, SecretKey};

/// How much longer a box is than what is in it, in bytes.
pub(super) const TAG_BYTES: usize = 16;

/// Twenty-four bytes that must not occur twice with one key.
pub(super) type Nonce = [u8; 24];

/// What a box is closed and opened with. It is cleared from memory when it is dropped.
pub(super) struct BoxKey {
    cipher: XSalsa20Poly1305,
    /// The same key again: boxes that are made piece by piece need it.
    bytes: Zeroizing<[u8; 32]>,
}

impl BoxKey {
    /// The key that two sides have in common. `None` if the public key is one of those that make no secret.
    pub(super) fn agree(secret: &SecretKey, public: &PublicKey) -> Option<Self> {
        secret.agree(public).map(|shared| Self::of_shared_secret(shared.as_bytes()))
    }

    pub(super) fn of_shared_secret(shared: &[u8; 32]) -> Self {
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(XSalsa20Poly1305::kdf(shared.into(), &[0; 16].into()).into());
        Self::from_bytes(&key)
    }

    /// A key that one side has for itself.
    pub(super) fn from_bytes(key: &[u8; 32]) -> Self {
        BoxKey { cipher: XSalsa20Poly1305::new(key.into()), bytes: Zeroizing::new(*key) }
    }

    /// Makes a box of what stands in `buffer` behind its first [`TAG_BYTES`], which must be there.
    pub(super) fn seal_in_place(&self, nonce: &Nonce, buffer: &mut [u8]) {
        let (tag, text) = buffer.split_at_mut(TAG_BYTES);
        let made = self.cipher.encrypt_in_place_detached(nonce.into(), &[], text);
        // It can only refuse additional data, and there is none.
        tag.copy_from_slice(&made.expect("a box without additional data can be made"));
    }

    /// Opens a box where it is: what was in it stands behind the first [`TAG_BYTES`] then. `None`, and nothing is
    /// changed, if it is not one that this key has made.
    #[must_use]
    pub(super) fn open_in_place<'a>(&self, nonce: &Nonce, buffer: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let (tag, text) = buffer.split_first_chunk_mut::<TAG_BYTES>()?;
        self.cipher.decrypt_in_place_detached(nonce.into(), &[], text, (&*tag).into()).ok()?;
        Some(text)
    }

    /// Begins a box that is made piece by piece.
    pub(super) fn begin(&self, nonce: &Nonce) -> LongBox {
        let key = &self.bytes;
        let mut cipher = XSalsa20::new((&**key).into(), nonce.into());
        // As NaCl has it: the first 32 bytes that the cipher makes are the key of the tag.
        let mut mac_key = Zeroizing::new(poly1305::Key::default());
        cipher.apply_keystream(&mut mac_key);
        let mac = <Poly1305 as poly1305::universal_hash::KeyInit>::new(&mac_key);
        LongBox { key: key.clone(), nonce: *nonce, cipher, mac, rest: Vec::with_capacity(BLOCK_BYTES) }
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
        self.cipher.decrypt_in_place_detached(nonce.into(), &[], &mut text, tag.into()).ok()?;
        Some(text)
    }
}

/// How many bytes the tag is computed from at a time.
const BLOCK_BYTES: usize = 16;

/// A box that is made piece by piece, since it is too long to be made at once. What goes into it has to be
/// [read](LongBox::read) first, for the tag, and is [sealed](Sealer::seal) then, in pieces of any lengths.
pub(super) struct LongBox {
    key: Zeroizing<[u8; 32]>,
    nonce: Nonce,
    cipher: XSalsa20,
    mac: Poly1305,
    /// The beginning of the next block of the tag.
    rest: Vec<u8>,
}

/// The second half of making a box: seals the pieces that were read.
pub struct Sealer(XSalsa20);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl LongBox {
    /// Reads the next piece. It is overwritten.
    pub(super) fn read(&mut self, piece: &mut [u8]) {
        self.cipher.apply_keystream(piece);
        let mut piece = &*piece;
        if !self.rest.is_empty() {
            let (first, others) = piece.split_at(piece.len().min(BLOCK_BYTES - self.rest.len()));
            self.rest.extend_from_slice(first);
            piece = others;
            if self.rest.len() < BLOCK_BYTES {
                return;
            }
            self.mac.update(&[*poly1305::Block::from_slice(&self.rest)]);
            self.rest.clear();
        }
        let (blocks, rest) = piece.split_at(piece.len() / BLOCK_BYTES * BLOCK_BYTES);
        for block in blocks.chunks_exact(BLOCK_BYTES) {
            self.mac.update(std::slice::from_ref(poly1305::Block::from_slice(block)));
        }
        self.rest.extend_from_slice(rest);
    }

    /// The tag, and what the same pieces are to be sealed with.
    pub(super) fn tag(&self) -> ([u8; TAG_BYTES], Sealer) {
        let tag = self.mac.clone().compute_unpadded(&self.rest);
        let mut cipher = XSalsa20::new((&*self.key).into(), (&self.nonce).into());
        cipher.apply_keystream(&mut [0; 32]);
        (tag.into(), Sealer(cipher))
    }
}

impl Sealer {
    /// Seals the next piece where it is.
    pub fn seal(&mut self, piece: &mut [u8]) {
        self.0.apply_keystream(piece);
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
    fn a_box_made_piece_by_piece_is_the_same() {
        let nonce = counted(b"CurveZMQMESSAGES", 3);
        for length in [0, 1, 15, 16, 17, 33, 1000] {
            let text: Vec<u8> = (0..length).map(|index| index as u8).collect();
            for piece in [1, 7, 16, 40, 999, 2000] {
                let mut long_box = key().begin(&nonce);
                text.clone().chunks_mut(piece).for_each(|piece| long_box.read(piece));
                let (tag, mut sealer) = long_box.tag();
                let mut sealed = text.clone();
                sealed.chunks_mut(piece + 1).for_each(|piece| sealer.seal(piece));
                assert_eq!([&tag[..], &sealed].concat(), key().seal(&nonce, &text), "{length} bytes by {piece}");
            }
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
