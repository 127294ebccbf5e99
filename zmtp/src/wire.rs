//! What goes over a connection, in both directions: frames, encrypted if both sides have agreed on it.

use bytes::BytesMut;

use super::codec::{self, Decoder, Frame, FrameError, Kind};
use super::curve::{LongMessage, MESSAGE_OVERHEAD, Session, SessionError};

/// What came is no frame of this connection.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It is no frame that is accepted.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It is not encrypted as it has to be.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// The bytes that have come and those that are to go.
#[derive(Debug, Default)]
pub struct Wire {
    /// What has come and is not used up.
    pub input: Decoder,
    /// What is to go.
    pub out: BytesMut,
    session: Option<Box<Session>>,
}

impl Wire {
    /// From now on everything is encrypted.
    pub fn encrypt(&mut self, session: Session) {
        self.session = Some(Box::new(session));
    }

    /// Takes the next frame, if it is complete.
    ///
    /// # Errors
    /// If there can be none, or it has more than `body_bytes_max` bytes.
    pub fn next_frame(&mut self, body_bytes_max: usize) -> Result<Option<Frame>, WireError> {
        let Some(session) = &mut self.session else { return Ok(self.input.next_frame(body_bytes_max)?) };
        let Some(frame) = self.input.next_frame(body_bytes_max.saturating_add(MESSAGE_OVERHEAD))? else {
            return Ok(None);
        };
        // The flags of the outer frame are not encrypted, and mean nothing.
        let (flags, body) = session.open(&frame.body)?;
        let kind = if flags.command { Kind::Command } else { Kind::Message { more: flags.more } };
        Ok(Some(Frame { kind, body }))
    }

    /// Whether everything is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.session.is_some()
    }

    /// How much memory is kept for what waits, in both directions, in bytes.
    pub fn held(&self) -> usize {
        self.input.held() + self.out.capacity()
    }

    /// Appends a frame to what is to go.
    pub fn put(&mut self, kind: Kind, body: &[u8]) {
        let Some(session) = &mut self.session else { return codec::put_frame(kind, body, &mut self.out) };
        let length = MESSAGE_OVERHEAD + body.len();
        self.out.reserve(codec::frame_bytes(length));
        codec::put_header(Kind::Message { more: false }, length, &mut self.out);
        session.seal(kind == Kind::Message { more: true }, kind == Kind::Command, body, &mut self.out);
    }

    /// Appends the beginning of a message's last frame, whose body of so many bytes has to follow: as it is, or, on an
    /// encrypted connection, as the [`LongMessage`] makes it.
    pub fn begin_last(&mut self, body_bytes: usize) -> Option<LongMessage> {
        let last = Kind::Message { more: false };
        let Some(session) = &mut self.session else {
            codec::put_header(last, body_bytes, &mut self.out);
            return None;
        };
        codec::put_header(last, MESSAGE_OVERHEAD + body_bytes, &mut self.out);
        Some(session.begin(&mut self.out))
    }

    /// How many bytes a frame with such a body adds.
    pub fn frame_bytes(&self, body_bytes: usize) -> usize {
        codec::frame_bytes(body_bytes + if self.session.is_some() { MESSAGE_OVERHEAD } else { 0 })
    }
}
