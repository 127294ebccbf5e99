//! A client of CURVE that seals whatever it is told to, written from RFC 26 and not from the registry's own client:
//! its boxes open, and what is in them need not be what it should be.

use crypto_secretbox::aead::Aead;
use crypto_secretbox::{Kdf, KeyInit, XSalsa20Poly1305};
use x25519_dalek::{PublicKey, StaticSecret};

/// The keys of a client: its own, and those of one connection.
pub struct Forger {
    /// Proves who it is.
    pub long_term: StaticSecret,
    /// Of this connection.
    pub connection: StaticSecret,
    server: PublicKey,
}

/// What goes into INITIATE's box: each part can be spoilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who the client says it is.
    pub client: [u8; 32],
    /// The vouch's text: the connection's key, and the server's.
    pub vouched: Vec<u8>,
    /// The client's ZMTP metadata.
    pub metadata: Vec<u8>,
}

const VOUCH_RANDOM: [u8; 16] = [5; 16];

impl Forger {
    /// For a connection to the server with this key.
    pub fn new(long_term: [u8; 32], connection: [u8; 32], server: [u8; 32]) -> Self {
        Forger { long_term: long_term.into(), connection: connection.into(), server: server.into() }
    }

    /// HELLO, with this text in its box. A right one has 64 zeros there.
    pub fn hello(&self, text: &[u8]) -> Vec<u8> {
        let sealed = seal(&self.connection, &self.server, b"CurveZMQHELLO---\0\0\0\0\0\0\0\x01", text);
        let connection = PublicKey::from(&self.connection);
        [b"\x05HELLO\x01\0", &[0; 72][..], connection.as_bytes(), &1_u64.to_be_bytes(), &sealed].concat()
    }

    /// What the right INITIATE has in its box.
    pub fn identity(&self, metadata: &[u8]) -> Identity {
        Identity {
            client: PublicKey::from(&self.long_term).to_bytes(),
            vouched: [*PublicKey::from(&self.connection).as_bytes(), *self.server.as_bytes()].concat(),
            metadata: metadata.to_vec(),
        }
    }

    /// INITIATE for the WELCOME of an honest server, with this in its box. `None` if the server is not honest.
    pub fn initiate(&self, welcome: &[u8], identity: &Identity) -> Option<Vec<u8>> {
        let (random, sealed) = welcome.strip_prefix(b"\x07WELCOME")?.split_first_chunk::<16>()?;
        let nonce: [u8; 24] = [b"WELCOME-", &random[..]].concat().try_into().ok()?;
        let text = key(&self.connection, &self.server).decrypt(&nonce.into(), sealed).ok()?;
        let (server_connection, cookie) = text.split_first_chunk::<32>()?;
        let server_connection = PublicKey::from(*server_connection);
        let nonce: [u8; 24] = [b"VOUCH---", &VOUCH_RANDOM[..]].concat().try_into().ok()?;
        let vouch = seal(&self.long_term, &server_connection, &nonce, &identity.vouched);
        let text = [&identity.client[..], &VOUCH_RANDOM, &vouch, &identity.metadata].concat();
        let sealed = seal(&self.connection, &server_connection, b"CurveZMQINITIATE\0\0\0\0\0\0\0\x02", &text);
        Some([b"\x08INITIATE", cookie, &2_u64.to_be_bytes(), &sealed].concat())
    }
}

fn key(secret: &StaticSecret, public: &PublicKey) -> XSalsa20Poly1305 {
    let shared = secret.diffie_hellman(public);
    XSalsa20Poly1305::new(&XSalsa20Poly1305::kdf(shared.as_bytes().into(), &[0; 16].into()))
}

fn seal(secret: &StaticSecret, public: &PublicKey, nonce: &[u8; 24], text: &[u8]) -> Vec<u8> {
    key(secret, public).encrypt(nonce.into(), text).expect("a box can be made")
}
