//! The client's side of the handshake.

use zeroize::Zeroizing;

use super::HandshakeError;
use super::cipher::{BoxKey, TAG_BYTES, counted, drawn};
use super::fields::{Fields, command, name_and_rest};
use super::session::{Direction, Session};
use crate::keys::key::{KeyPair, PublicKey};

/// The cookie that WELCOME brings and INITIATE takes back.
const COOKIE_BYTES: usize = 16 + TAG_BYTES + 64;
/// The numbers of the commands that count.
const HELLO_NUMBER: u64 = 1;
const INITIATE_NUMBER: u64 = 2;

/// A handshake, from HELLO to READY. It is used once, for one connection.
pub struct ClientHandshake {
    keys: KeyPair,
    server: PublicKey,
    /// Sent with INITIATE.
    metadata: Vec<u8>,
    state: State,
}

enum State {
    /// HELLO was sent: this connection's keys, and the key that they make with the server's long-term one.
    Welcome {
        connection: KeyPair,
        key: BoxKey,
    },
    /// INITIATE was sent.
    Ready {
        key: BoxKey,
    },
    Over,
}

/// What to do after a command.
#[derive(Debug)]
pub enum ClientStep {
    /// Send this command, and wait for the next.
    Reply(Vec<u8>),
    /// The server is who it should be, and has let us in.
    Established {
        /// The server's ZMTP metadata, not parsed yet.
        metadata: Vec<u8>,
        /// For all that follows, in both directions.
        session: Session,
    },
}

impl ClientHandshake {
    /// For a connection to the server with that key; with it comes HELLO, the command to begin with. `metadata` is the
    /// client's ZMTP metadata.
    ///
    /// # Errors
    /// [`HandshakeError::Sealed`] if the server's key is one that makes no secret; nothing can be sealed with it.
    pub fn new(keys: KeyPair, server: PublicKey, metadata: Vec<u8>) -> Result<(Self, Vec<u8>), HandshakeError> {
        let connection = KeyPair::generate();
        let key = BoxKey::agree(connection.secret(), &server).ok_or(HandshakeError::Sealed("HELLO"))?;
        let mut hello = command("HELLO", 194);
        hello.extend_from_slice(&[1, 0]);
        hello.extend_from_slice(&[0; 72]);
        hello.extend_from_slice(connection.public().as_bytes());
        hello.extend_from_slice(&HELLO_NUMBER.to_be_bytes());
        hello.extend_from_slice(&key.seal(&counted(b"CurveZMQHELLO---", HELLO_NUMBER), &[0; 64]));
        Ok((ClientHandshake { keys, server, metadata, state: State::Welcome { connection, key } }, hello))
    }

    /// Takes the body of a ZMTP command from the server.
    ///
    /// # Errors
    /// If the server refuses, or if it is not what an honest server sends next. The connection is to be closed, and the
    /// handshake is over.
    pub fn receive(&mut self, body: &[u8]) -> Result<ClientStep, HandshakeError> {
        let state = std::mem::replace(&mut self.state, State::Over);
        if !matches!(state, State::Over) && name_and_rest(body).is_some_and(|(name, _)| name == b"ERROR") {
            return Err(HandshakeError::Refused(reason(body)?));
        }
        match state {
            State::Welcome { connection, key } => {
                let (initiate, key) = self.welcome(body, &connection, &key)?;
                self.state = State::Ready { key };
                Ok(ClientStep::Reply(initiate))
            }
            State::Ready { key } => ready(body, key),
            State::Over => Err(HandshakeError::Over),
        }
    }

    /// Answers WELCOME with INITIATE, and says what key the connection has.
    fn welcome(&self, body: &[u8], connection: &KeyPair, key: &BoxKey) -> Result<(Vec<u8>, BoxKey), HandshakeError> {
        let sealed = HandshakeError::Sealed("WELCOME");
        let mut fields = Fields::of("WELCOME", body)?;
        let nonce = drawn(b"WELCOME-", fields.take()?);
        let sealed_text = fields.last::<{ TAG_BYTES + 32 + COOKIE_BYTES }>()?;
        let Some(text) = key.open(&nonce, sealed_text) else { return Err(sealed) };
        let mut text = Fields::bare("WELCOME", &text);
        let server_connection = PublicKey::from_bytes(*text.take()?);
        let cookie = text.last::<COOKIE_BYTES>()?;
        let Some(key) = BoxKey::agree(connection.secret(), &server_connection) else { return Err(sealed) };
        let Some(vouch_key) = BoxKey::agree(self.keys.secret(), &server_connection) else { return Err(sealed) };

        let vouch_random = rand::random::<[u8; 16]>();
        let vouch = [*connection.public().as_bytes(), *self.server.as_bytes()].concat();
        let vouch = vouch_key.seal(&drawn(b"VOUCH---", &vouch_random), &vouch);
        let mut identity = Zeroizing::new(Vec::with_capacity(32 + 16 + vouch.len() + self.metadata.len()));
        identity.extend_from_slice(self.keys.public().as_bytes());
        identity.extend_from_slice(&vouch_random);
        identity.extend_from_slice(&vouch);
        identity.extend_from_slice(&self.metadata);

        let mut initiate = command("INITIATE", COOKIE_BYTES + 8 + TAG_BYTES + identity.len());
        initiate.extend_from_slice(cookie);
        initiate.extend_from_slice(&INITIATE_NUMBER.to_be_bytes());
        initiate.extend_from_slice(&key.seal(&counted(b"CurveZMQINITIATE", INITIATE_NUMBER), &identity));
        Ok((initiate, key))
    }
}

fn ready(body: &[u8], key: BoxKey) -> Result<ClientStep, HandshakeError> {
    let mut fields = Fields::of("READY", body)?;
    let number = u64::from_be_bytes(*fields.take()?);
    let sealed_text = fields.rest(TAG_BYTES)?;
    let text = key.open(&counted(b"CurveZMQREADY---", number), sealed_text);
    let metadata = text.ok_or(HandshakeError::Sealed("READY"))?.to_vec();
    let session = Session::new(key, Direction::from_client(INITIATE_NUMBER), Direction::from_server(number));
    Ok(ClientStep::Established { metadata, session })
}

/// What ERROR says. Anybody on the way can have sent it, since it is not encrypted.
fn reason(body: &[u8]) -> Result<String, HandshakeError> {
    let mut fields = Fields::of("ERROR", body)?;
    let [length] = *fields.take()?;
    let rest = fields.rest(usize::from(length))?;
    Ok(String::from_utf8_lossy(&rest[..usize::from(length)]).escape_debug().to_string())
}

impl std::fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Welcome { .. } => "expecting WELCOME",
            State::Ready { .. } => "expecting READY",
            State::Over => "over",
        };
        write!(f, "ClientHandshake({state})")
    }
}
