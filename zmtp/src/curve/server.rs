//! The server's side of the handshake.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::HandshakeError;
use super::cipher::{BoxKey, TAG_BYTES, counted, drawn};
use super::fields::{Fields, command};
use super::session::{Direction, Session};
use crate::keys::key::{KeyPair, PublicKey, SecretKey};

/// The cookie: its nonce, and the box that holds C' and s'.
const COOKIE_BYTES: usize = 16 + TAG_BYTES + 64;
/// INITIATE's box up to the metadata: C, and the vouch with its nonce.
const IDENTITY_BYTES: usize = 32 + 16 + VOUCH_BYTES;
const VOUCH_BYTES: usize = TAG_BYTES + 64;
/// Makes libzmq's clients report a failed authentication, and stop trying: what a ZAP handler would have answered.
const REFUSED: &[u8; 10] = b"\x05ERROR\x03400";

/// A handshake, from HELLO to READY. It is used once, for one connection.
///
/// Between HELLO and INITIATE it does not know the connection's keys: they are in the cookie, which the client has to
/// bring back. The key to the cookie is this connection's own, as in libzmq: with one for all connections, as the
/// specification has it, a recorded INITIATE would open another connection with the same keys and counters.
pub struct ServerHandshake {
    /// The server's, of which a client may take any for the server's.
    keys: Arc<[KeyPair]>,
    /// Sent with READY.
    metadata: Vec<u8>,
    state: State,
}

enum State {
    /// Nothing has come yet.
    Hello,
    /// WELCOME was sent, with a cookie for this key.
    Initiate {
        cookie_key: Zeroizing<[u8; 32]>,
        /// Which of the server's keys the client knows.
        known: usize,
    },
    Over,
}

/// What to do after a command.
#[derive(Debug)]
pub enum Step {
    /// Send this command, and wait for the next.
    Reply(Vec<u8>),
    /// Send `ready`; then everything goes through `session`.
    Established {
        /// Who the client is: it has proved that it holds the secret key.
        client: PublicKey,
        /// The client's ZMTP metadata, not parsed yet.
        metadata: Vec<u8>,
        /// The command to send.
        ready: Vec<u8>,
        /// For all that follows, in both directions.
        session: Session,
    },
    /// Send this command, and close the connection.
    Refused {
        /// Who the client is: it has proved that it holds the secret key.
        client: PublicKey,
        /// The command to send.
        error: Vec<u8>,
    },
}

impl ServerHandshake {
    /// For a connection that was just accepted. There are several `keys` while one takes the place of another: a client
    /// may know any of them. `metadata` is the server's ZMTP metadata.
    pub fn new(keys: Arc<[KeyPair]>, metadata: Vec<u8>) -> Self {
        ServerHandshake { keys, metadata, state: State::Hello }
    }

    /// Takes the body of a ZMTP command from the client. `is_allowed` is asked about the client's key, at most once,
    /// when the client has proved that it is its own.
    ///
    /// # Errors
    /// If it is not what an honest client sends next. The connection is to be closed, and the handshake is over.
    pub fn receive(
        &mut self,
        body: &[u8],
        is_allowed: impl FnOnce(&PublicKey) -> bool,
    ) -> Result<Step, HandshakeError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Hello => {
                let cookie_key = Zeroizing::new(rand::random());
                let (known, welcome) = self.hello(body, &cookie_key)?;
                self.state = State::Initiate { cookie_key, known };
                Ok(Step::Reply(welcome))
            }
            State::Initiate { cookie_key, known } => self.initiate(body, (&cookie_key, known), is_allowed),
            State::Over => Err(HandshakeError::Over),
        }
    }

    /// Answers HELLO with WELCOME, and says which of the server's keys the client knows.
    fn hello(&self, body: &[u8], cookie_key: &[u8; 32]) -> Result<(usize, Vec<u8>), HandshakeError> {
        let sealed = HandshakeError::Sealed("HELLO");
        let mut fields = Fields::of("HELLO", body)?;
        let [major, minor] = *fields.take()?;
        // As long as WELCOME will be, so that nobody can have us send more than he does to a third party.
        let padding = fields.take::<72>()?;
        let client = PublicKey::from_bytes(*fields.take()?);
        let number = u64::from_be_bytes(*fields.take()?);
        let signature = fields.last::<{ TAG_BYTES + 64 }>()?;
        if (major, minor) != (1, 0) {
            return Err(HandshakeError::Version(major, minor));
        }
        if *padding != [0; 72] {
            return Err(HandshakeError::Padding);
        }
        let nonce = counted(b"CurveZMQHELLO---", number);
        let opened = self.keys.iter().enumerate().find_map(|(place, keys)| {
            let key = BoxKey::agree(keys.secret(), &client)?;
            key.open(&nonce, signature).filter(|text| text.as_slice() == [0; 64])?;
            Some((place, key))
        });
        let Some((known, key)) = opened else { return Err(sealed) };

        let connection = KeyPair::generate();
        let mut secrets = Zeroizing::new([0; 64]);
        secrets[..32].copy_from_slice(client.as_bytes());
        secrets[32..].copy_from_slice(connection.secret().as_bytes());
        let cookie_random = rand::random::<[u8; 16]>();
        let cookie = BoxKey::from_bytes(cookie_key).seal(&drawn(b"COOKIE--", &cookie_random), &*secrets);

        let mut text = Vec::with_capacity(32 + COOKIE_BYTES);
        text.extend_from_slice(connection.public().as_bytes());
        text.extend_from_slice(&cookie_random);
        text.extend_from_slice(&cookie);
        let random = rand::random::<[u8; 16]>();
        let mut welcome = command("WELCOME", 16 + TAG_BYTES + text.len());
        welcome.extend_from_slice(&random);
        welcome.extend_from_slice(&key.seal(&drawn(b"WELCOME-", &random), &text));
        Ok((known, welcome))
    }

    /// Answers INITIATE with READY, or with ERROR.
    fn initiate(
        &self,
        body: &[u8],
        (cookie_key, known): (&[u8; 32], usize),
        is_allowed: impl FnOnce(&PublicKey) -> bool,
    ) -> Result<Step, HandshakeError> {
        let sealed = HandshakeError::Sealed("INITIATE");
        let mut fields = Fields::of("INITIATE", body)?;
        let cookie_random = fields.take()?;
        let cookie = fields.take::<{ TAG_BYTES + 64 }>()?;
        let number = u64::from_be_bytes(*fields.take()?);
        let sealed_text = fields.rest(TAG_BYTES + IDENTITY_BYTES)?;

        let cookie = BoxKey::from_bytes(cookie_key).open(&drawn(b"COOKIE--", cookie_random), cookie);
        let cookie = cookie.ok_or(HandshakeError::Cookie)?;
        let (connection_client, connection_secret) = halves(&cookie).ok_or(HandshakeError::Cookie)?;
        let connection_secret = SecretKey::from_bytes(connection_secret);
        let Some(key) = BoxKey::agree(&connection_secret, &PublicKey::from_bytes(*connection_client)) else {
            return Err(sealed);
        };
        let Some(text) = key.open(&counted(b"CurveZMQINITIATE", number), sealed_text) else { return Err(sealed) };

        let Some((identity, metadata)) = text.split_first_chunk::<IDENTITY_BYTES>() else { return Err(sealed) };
        let mut identity = Fields::bare("INITIATE", identity);
        let client = PublicKey::from_bytes(*identity.take()?);
        let vouch_nonce = drawn(b"VOUCH---", identity.take()?);
        let vouch = identity.last::<VOUCH_BYTES>()?;
        // Only who holds the client's secret key can have made it, and only for this connection to this server.
        let vouch = BoxKey::agree(&connection_secret, &client).and_then(|key| key.open(&vouch_nonce, vouch));
        let vouch = vouch.ok_or(HandshakeError::Vouch)?;
        let server = self.keys.get(known).map(|keys| keys.public().as_bytes());
        if halves(&vouch) != Some(connection_client).zip(server) {
            return Err(HandshakeError::Vouch);
        }

        if !is_allowed(&client) {
            return Ok(Step::Refused { client, error: REFUSED.to_vec() });
        }
        let ready_number = 1_u64;
        let mut ready = command("READY", 8 + TAG_BYTES + self.metadata.len());
        ready.extend_from_slice(&ready_number.to_be_bytes());
        ready.extend_from_slice(&key.seal(&counted(b"CurveZMQREADY---", ready_number), &self.metadata));
        let metadata = metadata.to_vec();
        let session = Session::new(key, Direction::from_server(ready_number), Direction::from_client(number));
        Ok(Step::Established { client, metadata, ready, session })
    }
}

/// Two times 32 bytes.
fn halves(text: &[u8]) -> Option<(&[u8; 32], &[u8; 32])> {
    let (first, second) = text.split_first_chunk()?;
    Some((first, second.try_into().ok()?))
}

impl std::fmt::Debug for ServerHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Hello => "expecting HELLO",
            State::Initiate { .. } => "expecting INITIATE",
            State::Over => "over",
        };
        write!(f, "ServerHandshake({state})")
    }
}
