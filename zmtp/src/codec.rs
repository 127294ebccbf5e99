//! Frames as ZMTP 3 has them ([RFC 37](https://rfc.zeromq.org/spec/37/), "Framing"), from bytes and to bytes.
//!
//! Pure: bytes are fed in as they come, frames are taken out. Nothing is allocated for a size that was only announced.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;
/// The longest body that a short frame can have.
const SHORT_MAX: usize = 255;

/// How little is kept in a large buffer, in bytes: a long message leaves a buffer that is too large for what follows.
const KEPT_BYTES: usize = 1024;

/// What is within a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of a message, and whether further parts follow.
    Message {
        /// Whether further parts follow.
        more: bool,
    },
    /// A command of the protocol itself.
    Command,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Message or command.
    pub kind: Kind,
    /// What it holds.
    pub body: Bytes,
}

/// Bytes that are no frame that is accepted here. Nothing after them can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Reserved bits are set, or a command claims to go on.
    #[error("a frame begins with {0:#04x}, which is no kind of frame")]
    Flags(u8),
    /// More than is accepted.
    #[error("a frame of {announced} bytes was announced, at most {max} are accepted")]
    TooLong {
        /// What the frame's header says, in bytes.
        announced: u64,
        /// What is accepted, in bytes.
        max: usize,
    },
}

/// The bytes that have come from one peer and are not used up.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Whether `buffer` is the decoder's alone: a part of a large shared buffer is not kept for a few bytes.
    owned: bool,
}

impl Decoder {
    /// Adds bytes that have come.
    pub fn feed(&mut self, bytes: BytesMut) {
        if self.buffer.is_empty() {
            self.buffer = bytes;
            self.owned = false;
        } else {
            self.settle();
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// Lets go of the buffer that came with [`feed`](Decoder::feed): called when no further frame is to be had from it.
    pub fn settle(&mut self) {
        if self.buffer.is_empty() {
            (self.buffer, self.owned) = (BytesMut::new(), false);
        } else if !self.owned || self.buffer.capacity() / 4 > self.buffer.len().max(KEPT_BYTES) {
            self.buffer = BytesMut::from(&self.buffer[..]);
            self.owned = true;
        }
    }

    /// What has come, for looking at it before it is complete.
    pub fn peek(&self) -> &[u8] {
        &self.buffer
    }

    /// How much memory this keeps, in bytes.
    pub fn held(&self) -> usize {
        if self.owned { self.buffer.capacity() } else { self.buffer.len() }
    }

    /// Takes the next bytes, which have to be there.
    pub fn take(&mut self, count: usize) -> Bytes {
        self.buffer.split_to(count).freeze()
    }

    /// Takes the next frame, if it is complete.
    ///
    /// # Errors
    /// If the next bytes are no frame, or one with more than `body_bytes_max` bytes. Nothing after that can be read.
    pub fn next_frame(&mut self, body_bytes_max: usize) -> Result<Option<Frame>, FrameError> {
        let Some(&flags) = self.buffer.first() else { return Ok(None) };
        let kind = match flags & !LONG {
            0 => Kind::Message { more: false },
            MORE => Kind::Message { more: true },
            COMMAND => Kind::Command,
            _ => return Err(FrameError::Flags(flags)),
        };
        let (header_bytes, announced) = match (flags & LONG, &self.buffer[1..]) {
            (0, [length, ..]) => (2, u64::from(*length)),
            (LONG, [a, b, c, d, e, f, g, h, ..]) => (9, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
            _ => return Ok(None),
        };
        let length = match usize::try_from(announced) {
            Ok(length) if length <= body_bytes_max => length,
            _ => return Err(FrameError::TooLong { announced, max: body_bytes_max }),
        };
        if self.buffer.len() - header_bytes < length {
            return Ok(None);
        }
        self.buffer.advance(header_bytes);
        Ok(Some(Frame { kind, body: self.take(length) }))
    }
}

/// Appends the header of a frame, whose body has to follow.
pub fn put_header(kind: Kind, body_bytes: usize, out: &mut BytesMut) {
    let flags = match kind {
        Kind::Message { more: false } => 0,
        Kind::Message { more: true } => MORE,
        Kind::Command => COMMAND,
    };
    match u8::try_from(body_bytes) {
        Ok(length) => out.put_slice(&[flags, length]),
        Err(_) => {
            out.put_u8(flags | LONG);
            out.put_u64(body_bytes as u64);
        }
    }
}

/// Appends a frame.
pub fn put_frame(kind: Kind, body: &[u8], out: &mut BytesMut) {
    out.reserve(frame_bytes(body.len()));
    put_header(kind, body.len(), out);
    out.put_slice(body);
}

/// How many bytes a frame with such a body takes.
pub fn frame_bytes(body_bytes: usize) -> usize {
    body_bytes + if body_bytes > SHORT_MAX { 9 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100_000;

    fn frame(kind: Kind, body: &[u8]) -> Frame {
        Frame { kind, body: Bytes::copy_from_slice(body) }
    }

    fn frames_of_every_shape() -> Vec<Frame> {
        let kinds = [Kind::Message { more: false }, Kind::Message { more: true }, Kind::Command];
        let lengths = [0, 1, 254, 255, 256, 257, 70_000];
        let all = kinds.iter().flat_map(|kind| lengths.map(|length| frame(*kind, &vec![7; length])));
        all.collect()
    }

    fn encode(frames: &[Frame]) -> BytesMut {
        let mut bytes = BytesMut::new();
        for frame in frames {
            let before = bytes.len();
            put_frame(frame.kind, &frame.body, &mut bytes);
            assert_eq!(bytes.len() - before, frame_bytes(frame.body.len()));
        }
        bytes
    }

    /// All frames from these bytes, which come in pieces of that length.
    fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.feed(BytesMut::from(piece));
            while let Some(frame) = decoder.next_frame(MAX)? {
                frames.push(frame);
            }
            decoder.settle();
        }
        assert!(decoder.peek().is_empty(), "nothing is left over");
        Ok(frames)
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_are_cut() {
        let frames = frames_of_every_shape();
        let bytes = encode(&frames);
        for piece in [1, 2, 3, 7, 64, 255, 4096, bytes.len()] {
            assert_eq!(decode(&bytes, piece).unwrap(), frames, "in pieces of {piece}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_rfc() {
        let mut bytes = BytesMut::new();
        put_frame(Kind::Message { more: true }, b"a", &mut bytes);
        put_frame(Kind::Command, b"", &mut bytes);
        put_frame(Kind::Message { more: false }, &[9; 256], &mut bytes);
        assert_eq!(bytes[..14], [1, 1, b'a', 4, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(bytes.len(), 14 + 256);
        // A long frame need not be long.
        assert_eq!(decode(&[6, 0, 0, 0, 0, 0, 0, 0, 1, 5], 10).unwrap(), [frame(Kind::Command, &[5])]);
    }

    #[test]
    fn first_bytes_that_the_rfc_does_not_have_are_refused_at_once() {
        for flags in 0..=255 {
            let mut decoder = Decoder::default();
            decoder.feed(BytesMut::from(&[flags][..]));
            let expected = match flags {
                0..=4 | 6 => Ok(None),
                _ => Err(FrameError::Flags(flags)),
            };
            assert_eq!(decoder.next_frame(MAX), expected, "{flags:#x}");
        }
    }

    #[test]
    fn an_announced_size_is_refused_before_anything_is_kept_for_it() {
        for announced in [MAX as u64 + 1, 1 << 36, 1 << 62, u64::MAX] {
            let mut decoder = Decoder::default();
            decoder.feed(BytesMut::from(&[&[2][..], &announced.to_be_bytes()].concat()[..]));
            assert_eq!(decoder.next_frame(MAX), Err(FrameError::TooLong { announced, max: MAX }));
            assert!(decoder.buffer.capacity() < 1000);
        }
    }

    #[test]
    fn a_few_bytes_do_not_keep_a_large_buffer() {
        let mut shared = BytesMut::zeroed(1 << 20);
        let mut decoder = Decoder::default();
        decoder.feed(shared.split_to(1));
        assert_eq!(decoder.next_frame(MAX), Ok(None));
        decoder.settle();
        shared.reserve(1 << 20);
        assert!(decoder.buffer.capacity() < 1000);
        assert_eq!(decoder.peek(), [0]);
    }
}
