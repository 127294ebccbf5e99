//! All services, or those that a client wants, as they are at one moment, written over several.
//!
//! A registry with a million services is some hundred megabytes of text, which takes longer to write than anybody
//! else may wait. So it is written a piece at a time. What changes meanwhile, at a slot that is still to be written, is
//! noted in a journal as it was before: the text is that of the moment at which the snapshot began, but for heartbeats,
//! which are no changes.

use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::json::Shown;
use crate::registry::journal::Journal;
use crate::registry::selection::Selection;
use crate::registry::services::Services;
use crate::registry::slots::Slot;

/// How much is written at a time, in bytes, how much is read for it, and how many slots are looked at.
const PIECE_BYTES: usize = 128 * 1024;
const READ_BYTES: usize = 256 * 1024;
const PIECE_SLOTS: usize = 2048;

/// A snapshot that is being written. There is one at a time: its journal is the collection's.
pub(super) struct Snapshot {
    selection: Arc<Selection>,
    /// One bit for each slot that may be wanted; all of them if no type is asked for.
    wanted: Option<Vec<u64>>,
    next: Slot,
    end: Slot,
    pieces: Vec<Bytes>,
    is_empty: bool,
}

impl Snapshot {
    /// Begins one of the services that are wanted.
    pub(super) fn begin(services: &mut Services, selection: Arc<Selection>) -> Self {
        let end = services.slots_end();
        let wanted = selection.narrowest(services).map(|service_type| {
            let mut bits = vec![0_u64; end.div_ceil(64)];
            services.slots_of_type(service_type).for_each(|slot| bits[slot / 64] |= 1 << (slot % 64));
            bits
        });
        services.journal = Some(Journal::default());
        Snapshot { selection, wanted, next: 0, end, pieces: Vec::new(), is_empty: true }
    }

    /// Begins one of the same selection, of other services.
    pub(super) fn again(&self, services: &mut Services) -> Self {
        Snapshot::begin(services, self.selection.clone())
    }

    /// Writes one piece more. Whether that was the last.
    pub(super) fn go_on(&mut self, services: &mut Services, uptime_ms: u64) -> bool {
        let mut json = String::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        let mut end = self.end.min(self.next.saturating_add(PIECE_SLOTS));
        let mut read = 0;
        while self.next < end && json.len() < PIECE_BYTES && read < READ_BYTES {
            let slot = self.next;
            self.next += 1;
            if let Some(bits) = &self.wanted {
                let rest = bits[slot / 64] >> (slot % 64);
                if rest == 0 {
                    // Nobody up to the end of this word, which is passed over as one step.
                    let word_end = (slot / 64 + 1) * 64;
                    end = (end + word_end - self.next).min(self.end);
                    self.next = word_end.min(self.end);
                }
                if rest & 1 == 0 {
                    continue;
                }
            }
            let before = services.journal.as_ref().and_then(|journal| journal.before(slot));
            let stood = match before {
                Some(before) => before.map(|(service, until_ms)| (service, *until_ms)),
                None => services.at(slot).map(|service| (service, uptime_ms)),
            };
            let Some((service, at_ms)) = stood else { continue };
            read += self.selection.work(service);
            if !self.selection.wants(service) {
                continue;
            }
            if !std::mem::replace(&mut self.is_empty, false) {
                json.push(',');
            }
            self.selection.show(service, at_ms).show(&mut json);
        }
        if !json.is_empty() {
            // A piece may be kept for long.
            json.shrink_to_fit();
            self.pieces.push(json.into());
        }
        if let Some(journal) = &mut services.journal {
            journal.written_to(self.next);
        }
        let is_whole = self.next == self.end;
        if is_whole {
            services.journal = None;
        }
        is_whole
    }

    /// What was written: the elements of a JSON array.
    pub(super) fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }
}
