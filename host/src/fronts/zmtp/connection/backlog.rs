//! What waits for a peer before the last of its own bytes: pieces in the order in which they go out.
//!
//! Long pieces are not copied, and others may wait for the same ones. An encrypted message has to be one box, which is
//! made piece by piece as the network takes it.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::fronts::zmtp::memory::Shared;
use registry_zmtp::curve::{LongMessage, Sealer};

/// How many pieces are handed to the network at once.
const SLICES: usize = 16;
/// How much of a box is made at once.
const SEAL_BYTES: usize = 64 * 1024;

/// Pieces that wait.
#[derive(Default)]
pub(super) struct Backlog {
    pieces: VecDeque<Piece>,
    own_bytes: usize,
    shared_bytes: usize,
}

enum Piece {
    Own(Bytes),
    Shared { bytes: Shared, written: usize },
    Sealing(Box<Sealing>),
}

/// A box in the making. Its tag stands first, so all of it is read twice.
struct Sealing {
    stage: Stage,
    shared: Vec<Shared>,
    rest: Bytes,
    /// Where in the first part it begins.
    from: usize,
    /// How much of which part has been read.
    at: (usize, usize),
}

enum Stage {
    Reading(Box<LongMessage>),
    Sealing(Sealer),
}

impl Backlog {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many bytes wait that only this peer gets, and how many that others may get as well.
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.own_bytes, self.shared_bytes)
    }

    /// Adds what was written into a buffer so far.
    pub(super) fn push_own(&mut self, out: &mut BytesMut) {
        if !out.is_empty() {
            // The buffer's free space is not kept for it.
            let bytes = Bytes::copy_from_slice(out);
            out.clear();
            self.own_bytes += bytes.len();
            self.pieces.push_back(Piece::Own(bytes));
        }
    }

    /// Adds a piece, the first `written` bytes of which are written already.
    pub(super) fn push_shared(&mut self, bytes: Shared, written: usize) {
        if written < bytes.len() {
            self.shared_bytes += bytes.len() - written;
            self.pieces.push_back(Piece::Shared { bytes, written });
        }
    }

    /// Adds an encrypted frame of all these, from `from` in the first on.
    pub(super) fn push_sealed(&mut self, message: LongMessage, shared: Vec<Shared>, from: usize, rest: &[u8]) {
        self.shared_bytes += shared.iter().map(|part| part.len()).sum::<usize>();
        self.own_bytes += rest.len();
        let rest = Bytes::copy_from_slice(rest);
        let sealing = Sealing { stage: Stage::Reading(Box::new(message)), shared, rest, from, at: (0, from) };
        self.pieces.push_back(Piece::Sealing(Box::new(sealing)));
    }

    /// Goes on making the box that is next, if it is one: how many bytes were looked at for it. When this is 0, there is
    /// something to write.
    pub(super) fn prepare(&mut self) -> usize {
        let Some(Piece::Sealing(sealing)) = self.pieces.front_mut() else { return 0 };
        let mut made = BytesMut::new();
        let read = sealing.step(&mut made);
        if sealing.is_done() {
            self.shared_bytes -= sealing.shared.iter().map(|part| part.len()).sum::<usize>();
            self.own_bytes -= sealing.rest.len();
            self.pieces.pop_front();
        }
        if !made.is_empty() {
            self.own_bytes += made.len();
            self.pieces.push_front(Piece::Own(made.freeze()));
        }
        // At least one, so that it is asked again.
        read.max(1)
    }

    /// What is to be written next, and `last` behind it if everything before fits: at most `max` bytes.
    pub(super) fn slices<'a>(&'a self, last: &'a [u8], max: usize) -> SmallVec<[IoSlice<'a>; SLICES]> {
        let mut slices = SmallVec::new();
        let mut left = max;
        let is_box = |piece: &&Piece| matches!(piece, Piece::Sealing(_));
        let ready = self.pieces.iter().take_while(|piece| !is_box(piece)).map(Piece::unwritten);
        let has_box = self.pieces.iter().any(|piece| is_box(&piece));
        for bytes in ready.chain((!has_box).then_some(last)).take(SLICES) {
            let bytes = &bytes[..bytes.len().min(left)];
            left -= bytes.len();
            if !bytes.is_empty() {
                slices.push(IoSlice::new(bytes));
            }
        }
        slices
    }

    /// So many bytes were written: how many of them were beyond all pieces.
    pub(super) fn advance(&mut self, mut written: usize) -> usize {
        while written > 0 {
            let Some(piece) = self.pieces.front_mut() else { break };
            let length = piece.unwritten().len();
            let taken = written.min(length);
            match piece {
                Piece::Own(bytes) => {
                    bytes.advance(taken);
                    self.own_bytes -= taken;
                }
                Piece::Shared { written, .. } => {
                    *written += taken;
                    self.shared_bytes -= taken;
                }
                Piece::Sealing(_) => break,
            }
            if taken == length {
                self.pieces.pop_front();
            }
            written -= taken;
        }
        written
    }
}

impl Piece {
    fn unwritten(&self) -> &[u8] {
        match self {
            Piece::Own(bytes) => bytes,
            Piece::Shared { bytes, written } => &bytes[*written..],
            Piece::Sealing(_) => &[],
        }
    }
}

impl Sealing {
    /// Reads the next part, and appends what can be written: how many bytes were read.
    fn step(&mut self, made: &mut BytesMut) -> usize {
        let mut part = self.next_part();
        let read = part.len();
        match &mut self.stage {
            Stage::Reading(message) => {
                message.read(&mut part);
                if self.is_done() {
                    let Stage::Reading(message) = &mut self.stage else { return read };
                    let (head, sealer) = message.finish();
                    made.extend_from_slice(&head);
                    self.stage = Stage::Sealing(sealer);
                    self.at = (0, self.from);
                }
            }
            Stage::Sealing(sealer) => {
                sealer.seal(&mut part);
                *made = part;
            }
        }
        read
    }

    /// A copy of the next bytes.
    fn next_part(&mut self) -> BytesMut {
        let mut part = BytesMut::with_capacity(SEAL_BYTES);
        while part.len() < SEAL_BYTES
            && let Some(bytes) = self.shared.get(self.at.0).map_or_else(|| self.rest_at(), |shared| Some(&**shared))
        {
            let bytes = &bytes[self.at.1..];
            let taken = bytes.len().min(SEAL_BYTES - part.len());
            part.extend_from_slice(&bytes[..taken]);
            self.at = if taken == bytes.len() { (self.at.0 + 1, 0) } else { (self.at.0, self.at.1 + taken) };
        }
        part
    }

    fn rest_at(&self) -> Option<&Bytes> {
        (self.at.0 == self.shared.len()).then_some(&self.rest)
    }

    /// Whether everything has been read in this stage.
    fn is_done(&self) -> bool {
        self.at.0 > self.shared.len()
    }
}
