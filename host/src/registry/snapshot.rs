//! All services, or all of a type, as they are at one moment, written over several.
//!
//! A registry with a million services is some hundred megabytes of text, which takes longer to write than anybody
//! else may wait. So it is written a piece at a time. What changes meanwhile, at a slot that is still to be written, is
//! noted in a journal as it was before: the text is that of the moment at which the snapshot began, but for heartbeats,
//! which are no changes.

use bytes::Bytes;

use crate::protocol::json::Shown;
use crate::registry::journal::Journal;
use crate::registry::services::Services;
use crate::registry::slots::Slot;

/// How much is written at a time, in bytes and in slots.
const PIECE_BYTES: usize = 128 * 1024;
const PIECE_SLOTS: usize = 2048;

/// A snapshot that is being written. There is one at a time: its journal is the collection's.
pub(super) struct Snapshot {
    /// One bit for each slot that is to be written; all of them if it is of no type.
    wanted: Option<Vec<u64>>,
    next: Slot,
    end: Slot,
    pieces: Vec<Bytes>,
    is_empty: bool,
}

impl Snapshot {
    /// Begins one of all services, or of those of a type.
    pub(super) fn begin(services: &mut Services, service_type: Option<&str>) -> Self {
        let end = services.slots_end();
        let wanted = service_type.map(|service_type| {
            let mut bits = vec![0_u64; end.div_ceil(64)];
            services.slots_of_type(service_type).for_each(|slot| bits[slot / 64] |= 1 << (slot % 64));
            bits
        });
        services.journal = Some(Journal::default());
        Snapshot { wanted, next: 0, end, pieces: Vec::new(), is_empty: true }
    }

    /// Writes one piece more. Whether that was the last.
    pub(super) fn go_on(&mut self, services: &mut Services, uptime_ms: u64) -> bool {
        let mut json = String::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        let mut end = self.end.min(self.next.saturating_add(PIECE_SLOTS));
        while self.next < end && json.len() < PIECE_BYTES {
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
            let live = if before.is_none() { services.at(slot) } else { None };
            let text = before.flatten();
            if text.is_none() && live.is_none() {
                continue;
            }
            if !std::mem::replace(&mut self.is_empty, false) {
                json.push(',');
            }
            text.into_iter().for_each(|text| json.push_str(text));
            live.into_iter().for_each(|service| service.at(uptime_ms).show(&mut json));
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
