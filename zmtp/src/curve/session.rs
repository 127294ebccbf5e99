//! MESSAGE: what is said on a connection after the handshake.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::cipher::{BoxKey, LongBox, Nonce, Sealer, TAG_BYTES, counted};

const NAME: &[u8; 8] = b"\x07MESSAGE";
const HEADER_BYTES: usize = NAME.len() + size_of::<u64>();

/// How much longer a MESSAGE is than what is in it, in bytes.
pub const MESSAGE_OVERHEAD: usize = HEADER_BYTES + TAG_BYTES + 1;

const MORE: u8 = 1;
const COMMAND: u8 = 2;

/// What a frame in a MESSAGE is. Other flags are ignored, as libzmq does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Another frame of the same message follows.
    pub more: bool,
    /// It is a ZMTP command, such as SUBSCRIBE or PING.
    pub command: bool,
}

/// Why a MESSAGE is refused. The connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Something that is not encrypted, or too short to be.
    #[error("CURVE: expected a MESSAGE, got something else")]
    NotAMessage,
    /// A message came again, or in another order than it was sent.
    #[error("CURVE: a MESSAGE came again, or out of order")]
    Replayed,
    /// It was not made on this connection, or was changed on the way.
    #[error("CURVE: a MESSAGE cannot be opened: it was changed on the way, or is not of this connection")]
    Sealed,
}

/// A connection after the handshake: its key, computed once, and its counters.
pub struct Session {
    key: BoxKey,
    outgoing: Direction,
    incoming: Direction,
}

/// One of the two directions that share a key. Their nonces never meet, since their prefixes differ.
pub(super) struct Direction {
    prefix: &'static [u8; 16],
    /// The last number that was used; each is used once, in rising order.
    last: u64,
}

impl Direction {
    /// From the server to the client.
    pub(super) fn from_server(last: u64) -> Self {
        Direction { prefix: b"CurveZMQMESSAGES", last }
    }

    /// From the client to the server.
    pub(super) fn from_client(last: u64) -> Self {
        Direction { prefix: b"CurveZMQMESSAGEC", last }
    }
}

impl Session {
    pub(super) fn new(key: BoxKey, outgoing: Direction, incoming: Direction) -> Self {
        Session { key, outgoing, incoming }
    }

    /// Opens a MESSAGE: the body of a ZMTP frame. It is copied once; [`Self::open_owned`] does without.
    ///
    /// # Errors
    /// If it is not the next thing that the other side has sent, unchanged.
    pub fn open(&mut self, frame_body: &[u8]) -> Result<(Flags, Bytes), SessionError> {
        self.open_owned(BytesMut::from(frame_body))
    }

    /// Opens a MESSAGE where it is: what comes back is a part of the buffer.
    ///
    /// # Errors
    /// If it is not the next thing that the other side has sent, unchanged.
    pub fn open_owned(&mut self, mut frame_body: BytesMut) -> Result<(Flags, Bytes), SessionError> {
        let Some((header, sealed)) = frame_body.split_first_chunk_mut::<HEADER_BYTES>() else {
            return Err(SessionError::NotAMessage);
        };
        let (name, number) = header.split_at(NAME.len());
        if name != NAME || sealed.len() <= TAG_BYTES {
            return Err(SessionError::NotAMessage);
        }
        let number = number.try_into().map(u64::from_be_bytes).map_err(|_| SessionError::NotAMessage)?;
        if number <= self.incoming.last {
            return Err(SessionError::Replayed);
        }
        let nonce = counted(self.incoming.prefix, number);
        let text = self.key.open_in_place(&nonce, sealed).ok_or(SessionError::Sealed)?;
        let flags = *text.first().ok_or(SessionError::NotAMessage)?;
        self.incoming.last = number;
        frame_body.advance(MESSAGE_OVERHEAD);
        let flags = Flags { more: flags & MORE != 0, command: flags & COMMAND != 0 };
        Ok((flags, frame_body.freeze()))
    }

    /// Appends a MESSAGE to `out`: [`MESSAGE_OVERHEAD`] bytes more than `body`, for a ZMTP message frame without MORE.
    pub fn seal(&mut self, more: bool, command: bool, body: &[u8], out: &mut BytesMut) {
        out.reserve(MESSAGE_OVERHEAD + body.len());
        let nonce = self.put_header(out);
        let start = out.len();
        out.put_bytes(0, TAG_BYTES);
        out.put_u8(if more { MORE } else { 0 } | if command { COMMAND } else { 0 });
        out.put_slice(body);
        self.key.seal_in_place(&nonce, &mut out[start..]);
    }

    /// Appends the beginning of a MESSAGE with the last part of a message, too long to be sealed at once. The rest of it
    /// is what the [`LongMessage`] makes, and has to follow.
    pub fn begin(&mut self, out: &mut BytesMut) -> LongMessage {
        let nonce = self.put_header(out);
        let mut message = LongMessage(self.key.begin(&nonce));
        message.0.read(&mut [0]);
        message
    }

    fn put_header(&mut self, out: &mut BytesMut) -> Nonce {
        // At a million a second this lasts for half a million years.
        self.outgoing.last += 1;
        out.put_slice(NAME);
        out.put_u64(self.outgoing.last);
        counted(self.outgoing.prefix, self.outgoing.last)
    }
}

/// A MESSAGE that is sealed piece by piece: each piece is read first, and sealed then.
pub struct LongMessage(LongBox);

impl LongMessage {
    /// Reads the next piece of what the message holds. It is overwritten.
    pub fn read(&mut self, piece: &mut [u8]) {
        self.0.read(piece);
    }

    /// When everything has been read: what comes before the sealed pieces, and what seals them.
    pub fn finish(&self) -> ([u8; TAG_BYTES + 1], Sealer) {
        let (tag, mut sealer) = self.0.tag();
        let mut head = [0; TAG_BYTES + 1];
        head[..TAG_BYTES].copy_from_slice(&tag);
        // The flags: nothing follows, and it is no command.
        sealer.seal(&mut head[TAG_BYTES..]);
        (head, sealer)
    }
}

impl std::fmt::Debug for LongMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LongMessage")
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}
