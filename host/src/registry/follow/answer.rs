//! What a watcher is told: changes out of the ring, and up to where it has been looked for them.

use std::sync::Arc;

use bytes::Bytes;

use super::ring::{Ring, Telling};
use crate::protocol::event;
use crate::protocol::filter::Filter;
use crate::protocol::reply::Reply;

/// How long the changes in one reply may be together, in bytes, and one change beyond.
const CHANGES_BYTES_MAX: usize = 1 << 20;
/// From how many bytes on a change is kept where it is, rather than copied beside others.
const LONG_BYTES: usize = 4 * 1024;
/// How long a piece of several changes gets, in bytes.
const PIECE_BYTES: usize = 32 * 1024;
/// How many bytes are copied in the time that it takes to compare two types.
const STEP_BYTES: usize = 1024;

/// Changes that a watcher is told.
pub(super) struct Gathered {
    pieces: Vec<Bytes>,
    piece: String,
    /// How many changes they are.
    pub(super) count: usize,
    bytes: usize,
    /// The number of the first change that was not looked at.
    pub(super) next: u64,
    /// How many steps that took.
    pub(super) taken: usize,
}

impl Gathered {
    /// Looks for changes among those with these numbers, before `end`: for `limit` of them at most, and until `most` steps
    /// are taken, with one change beyond.
    pub(super) fn among(
        ring: &Ring,
        filter: &Filter,
        (numbers, end): (impl Iterator<Item = u64>, u64),
        limit: usize,
        most: usize,
    ) -> Self {
        let mut gathered =
            Gathered { pieces: Vec::new(), piece: String::new(), count: 0, bytes: 0, next: end, taken: 0 };
        for number in numbers {
            let Some(entry) = ring.get(number) else { continue };
            if gathered.count == limit || gathered.taken >= most {
                gathered.next = number;
                return gathered;
            }
            if let Some(telling) = entry.telling(filter) {
                if gathered.count > 0 && gathered.bytes + entry.json().len() > CHANGES_BYTES_MAX {
                    gathered.next = number;
                    return gathered;
                }
                gathered.add(entry.json(), telling);
                gathered.taken += entry.json().len() / STEP_BYTES;
            }
            gathered.taken += entry.steps(filter);
        }
        gathered
    }

    fn add(&mut self, json: &Bytes, telling: Telling) {
        let (begin, rest) = match telling {
            Telling::Event => ("", json.clone()),
            Telling::Leave => event::leave(json),
        };
        if self.count > 0 {
            self.piece.push(',');
        }
        self.piece.push_str(begin);
        self.count += 1;
        self.bytes += json.len();
        if rest.len() >= LONG_BYTES {
            self.end_piece();
            self.pieces.push(rest);
        } else {
            // What the host has written itself is text.
            self.piece.push_str(str::from_utf8(&rest).unwrap_or_default());
            if self.piece.len() >= PIECE_BYTES {
                self.end_piece();
            }
        }
    }

    fn end_piece(&mut self) {
        if !self.piece.is_empty() {
            let piece = std::mem::take(&mut self.piece);
            self.pieces.push(piece.into_boxed_str().into_boxed_bytes().into());
        }
    }

    /// The beginning of a reply that many may share, if there are changes.
    pub(super) fn into_pieces(mut self, epoch: &str, revision: u64) -> Arc<[Bytes]> {
        self.piece.push(']');
        let begin = bookmark(epoch, revision).begin_list("changes");
        if self.pieces.is_empty() {
            // In one: most replies are short.
            let whole = begin + &self.piece;
            return [whole.into_boxed_str().into_boxed_bytes().into()].into();
        }
        self.end_piece();
        std::iter::once(Bytes::from(begin)).chain(self.pieces).collect()
    }
}

/// A reply without changes.
pub(super) fn nothing_new(epoch: &str, revision: u64) -> Reply {
    bookmark(epoch, revision).json("changes", &serde_json::Value::Array(Vec::new()))
}

fn bookmark(epoch: &str, revision: u64) -> Reply {
    Reply::success().text("epoch", epoch).number("revision", revision)
}
