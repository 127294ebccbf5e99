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
    /// How many of them are boxes in the making.
    boxes: usize,
    own_bytes: usize,
    shared_bytes: usize,
}

enum Piece {
    Own(Bytes),
    Shared(Waiting),
    Sealing(Box<Sealing>),
}

/// What is not written yet of what others may get as well.
struct Waiting {
    shared: Shared,
    /// Which of its pieces is next, and how much of that is written.
    at: (usize, usize),
    left: usize,
}

/// A box in the making. Its tag stands first, so all of it is read twice.
struct Sealing {
    stage: Stage,
    shared: Shared,
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

    /// Adds what others may get as well. The first `written` bytes of its first piece are written already.
    pub(super) fn push_shared(&mut self, shared: Shared, written: usize) {
        let left = shared.len() - written;
        if left > 0 {
            self.shared_bytes += left;
            self.pieces.push_back(Piece::Shared(Waiting { shared, at: (0, written), left }));
        }
    }

    /// Adds an encrypted frame of all these, from `from` in the first on.
    pub(super) fn push_sealed(&mut self, message: LongMessage, shared: Shared, from: usize, rest: &[u8]) {
        self.shared_bytes += shared.len();
        self.own_bytes += rest.len();
        self.boxes += 1;
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
            self.shared_bytes -= sealing.shared.len();
            self.own_bytes -= sealing.rest.len();
            self.boxes -= 1;
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
        let ready = self.pieces.iter().take_while(|piece| !matches!(piece, Piece::Sealing(_)));
        for bytes in ready.flat_map(Piece::unwritten).chain((self.boxes == 0).then_some(last)) {
            if left == 0 || slices.len() == SLICES {
                break;
            }
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
        while written > 0
            && let Some(piece) = self.pieces.front_mut()
        {
            let (taken, is_done) = match piece {
                Piece::Own(bytes) => {
                    let taken = written.min(bytes.len());
                    bytes.advance(taken);
                    self.own_bytes -= taken;
                    (taken, bytes.is_empty())
                }
                Piece::Shared(waiting) => {
                    let taken = waiting.advance(written);
                    self.shared_bytes -= taken;
                    (taken, waiting.left == 0)
                }
                Piece::Sealing(_) => break,
            };
            if is_done {
                self.pieces.pop_front();
            }
            written -= taken;
        }
        written
    }
}

impl Piece {
    fn unwritten(&self) -> impl Iterator<Item = &[u8]> {
        let (first, others): (&[u8], &[Bytes]) = match self {
            Piece::Own(bytes) => (bytes, &[]),
            Piece::Shared(Waiting { shared, at: (next, written), .. }) => {
                let first = shared.pieces().get(*next).map_or(&[][..], |first| &first[*written..]);
                (first, shared.pieces().get(next + 1..).unwrap_or_default())
            }
            Piece::Sealing(_) => (&[], &[]),
        };
        std::iter::once(first).chain(others.iter().map(|bytes| &bytes[..]))
    }
}

impl Waiting {
    /// So many bytes were written: how many of them were of this.
    fn advance(&mut self, written: usize) -> usize {
        let taken = written.min(self.left);
        self.left -= taken;
        self.at.1 += taken;
        while let Some(piece) = self.shared.pieces().get(self.at.0)
            && self.at.1 >= piece.len()
        {
            self.at = (self.at.0 + 1, self.at.1 - piece.len());
        }
        taken
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
            && let Some(bytes) = self.shared.pieces().get(self.at.0).or_else(|| self.rest_at())
        {
            let bytes = &bytes[self.at.1..];
            let taken = bytes.len().min(SEAL_BYTES - part.len());
            part.extend_from_slice(&bytes[..taken]);
            self.at = if taken == bytes.len() { (self.at.0 + 1, 0) } else { (self.at.0, self.at.1 + taken) };
        }
        part
    }

    fn rest_at(&self) -> Option<&Bytes> {
        (self.at.0 == self.shared.pieces().len()).then_some(&self.rest)
    }

    /// Whether everything has been read in this stage.
    fn is_done(&self) -> bool {
        self.at.0 > self.shared.pieces().len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fronts::zmtp::memory::{Kept, Memory};

    fn written(backlog: &Backlog, last: &[u8], max: usize) -> Vec<u8> {
        backlog.slices(last, max).iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn pieces_are_written_in_their_order_however_much_is_taken_at_once() {
        let memory = Memory::new(1 << 20);
        let pieces: Arc<[Bytes]> =
            ["", "ab", "", "cdefg", "h", ""].map(|piece| Bytes::from_static(piece.as_bytes())).into();
        for taken_at_once in 1..14 {
            let mut backlog = Backlog::default();
            backlog.push_own(&mut BytesMut::from("12"));
            backlog.push_shared(memory.share(Kept::Many(pieces.clone())), 0);
            let (mut last, mut all) = (&b"xyz"[..], Vec::new());
            while !backlog.is_empty() {
                let next = written(&backlog, last, taken_at_once);
                assert!(!next.is_empty(), "nothing to write would be taken for the end");
                last = &last[backlog.advance(next.len())..];
                all.extend(next);
            }
            assert_eq!([&all[..], last].concat(), b"12abcdefghxyz", "{taken_at_once} at once");
            assert_eq!((backlog.bytes(), memory.used()), ((0, 0), 0));
        }
    }

    #[test]
    fn no_more_is_gathered_than_is_written() {
        let memory = Memory::new(1 << 20);
        let pieces: Arc<[Bytes]> = (0..400).map(|_| Bytes::from_static(b"0123456789")).collect();
        let mut backlog = Backlog::default();
        backlog.push_shared(memory.share(Kept::Many(pieces)), 4);
        assert_eq!(backlog.slices(b"", 16).len(), 2);
        assert_eq!(written(&backlog, b"", 16), b"4567890123456789");
        assert_eq!(backlog.slices(b"", 1 << 20).len(), SLICES);
    }
}
