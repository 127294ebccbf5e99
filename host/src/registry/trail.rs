//! What has happened to each service, and by whom: the answer to "why did my service vanish?". In memory, within a
//! bound for all services together; the oldest goes first.
//!
//! Changes and refusals have bounds of their own, so that a client that is refused all the time drives out nothing but
//! other refusals. The same refusal again is counted with the one before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::protocol::json::{Shown, push_number, push_text};
use crate::protocol::reply::Code;
use crate::registry::changes::Amendment;
use crate::registry::moment::Now;
use crate::security::origin::Origin;
use crate::security::principal::Principal;

/// How much all entries may take if the operator says nothing, in bytes.
const BYTES_DEFAULT: usize = 16 << 20;
/// Which part of it refusals may take: one of so many.
const REFUSALS_PART: usize = 4;
/// How many changes and how many refusals of one service are kept.
const OF_ONE_MAX: (usize, usize) = (64, 16);
/// About what an entry takes, and what a service takes that has entries, besides its id, in bytes.
const ENTRY_BYTES: usize = 384;
const SERVICE_BYTES: usize = 240;

/// What has happened to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It was registered.
    Registered,
    /// It was registered again, in place of an earlier registration.
    Replaced,
    /// Its metadata was changed.
    Updated,
    /// It was drained.
    Drained,
    /// It was not drained any more.
    Undrained,
    /// It was deregistered.
    Deregistered,
    /// A backup was restored that has it.
    Restored,
    /// A backup was restored that does not have it.
    Dropped,
    /// It ran out, so many seconds after its last heartbeat, if that is known.
    Expired(Option<u64>),
    /// Something was refused.
    Refused(Refused),
}

/// What was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The action.
    pub(super) action: &'static str,
    pub(super) code: Code,
    /// The reason, in words.
    pub(super) message: &'static str,
    /// The service that was in the way.
    pub(super) existing: Option<Arc<str>>,
}

impl What {
    fn word(&self) -> &'static str {
        match self {
            What::Registered => "registered",
            What::Replaced => "replaced",
            What::Updated => "updated",
            What::Drained => "drained",
            What::Undrained => "undrained",
            What::Restored => "restored",
            What::Dropped => "dropped",
            What::Deregistered => "deregistered",
            What::Expired(_) => "expired",
            What::Refused(_) => "refused",
        }
    }
}

/// What is kept of a change for this alone, and told to nobody else: events do not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Who asked for it, if somebody did.
    pub by: Option<Origin>,
    /// What it changes of a registration, if it is none itself.
    pub amended: Option<Amendment>,
}

/// Something that has happened to a service.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    id: Arc<str>,
    unix_ms: u64,
    what: What,
    by: Option<Origin>,
    /// How many times, and when last.
    count: u64,
    last_unix_ms: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        let existing = match &self.what {
            What::Refused(Refused { existing: Some(existing), .. }) => existing.len(),
            _ => 0,
        };
        ENTRY_BYTES + existing
    }

    fn is_the_same(&self, what: &What, by: Option<&Origin>) -> bool {
        let is_near = match (&self.by, by) {
            (Some(one), Some(other)) => one.principal == other.principal && one.address.is_near(&other.address),
            (one, other) => one.is_none() && other.is_none(),
        };
        is_near && self.what == *what
    }
}

impl Shown for &Entry {
    fn show(&self, json: &mut String) {
        json.push_str("{\"timestamp\":");
        push_number(json, self.unix_ms / 1000);
        json.push_str(",\"what\":\"");
        json.push_str(self.what.word());
        json.push('"');
        match &self.what {
            What::Expired(Some(seconds)) => {
                json.push_str(",\"seconds\":");
                push_number(json, *seconds);
            }
            What::Refused(Refused { action, code, message, existing }) => {
                for (key, text) in [("action", *action), ("code", code.as_str()), ("message", *message)] {
                    push_field(json, key, text);
                }
                if let Some(existing) = existing {
                    push_field(json, "existing_service_id", existing);
                }
            }
            _ => {}
        }
        if self.count > 1 {
            json.push_str(",\"count\":");
            push_number(json, self.count);
            json.push_str(",\"last\":");
            push_number(json, self.last_unix_ms / 1000);
        }
        push_by(json, self.by.as_ref());
        json.push('}');
    }
}

/// The field that says who did it, as far as it is known.
pub(super) fn push_by(json: &mut String, by: Option<&Origin>) {
    let address = by.and_then(|by| by.address.shown());
    let proof = match by.map(|by| by.principal) {
        Some(Principal::Key(key)) => Some(("key", key.to_string())),
        Some(Principal::Token(name)) => Some(("token", name.to_string())),
        Some(Principal::Certificate(name)) => Some(("certificate", name.to_string())),
        Some(Principal::Nobody | Principal::Stranger) | None => None,
    };
    if address.is_some() || proof.is_some() {
        let mut shown = String::new();
        address.into_iter().for_each(|address| push_field(&mut shown, "address", &address));
        proof.into_iter().for_each(|(kind, proof)| push_field(&mut shown, kind, &proof));
        json.push_str(",\"by\":{");
        json.push_str(&shown[1..]);
        json.push('}');
    }
}

fn push_field(json: &mut String, key: &str, text: &str) {
    json.push_str(",\"");
    json.push_str(key);
    json.push_str("\":");
    push_text(json, text);
}

/// Entries of many services, of which the oldest go.
struct Ring {
    entries: BTreeMap<u64, Entry>,
    /// The places of each service's entries, the oldest first.
    by_id: HashMap<Arc<str>, VecDeque<u64>>,
    bytes: usize,
    bytes_max: usize,
    of_one_max: usize,
}

impl Ring {
    fn new(bytes_max: usize, of_one_max: usize) -> Self {
        Ring { entries: BTreeMap::new(), by_id: HashMap::new(), bytes: 0, bytes_max, of_one_max }
    }

    /// The same entry again is counted. Whether there was one.
    fn count(&mut self, id: &str, what: &What, by: Option<&Origin>, unix_ms: u64) -> bool {
        let Some(places) = self.by_id.get(id) else { return false };
        for place in places.iter().rev() {
            if let Some(entry) = self.entries.get_mut(place).filter(|entry| entry.is_the_same(what, by)) {
                entry.count += 1;
                entry.last_unix_ms = unix_ms;
                entry.by = by.copied();
                return true;
            }
        }
        false
    }

    fn add(&mut self, place: u64, mut entry: Entry) {
        if let Some((id, _)) = self.by_id.get_key_value(&entry.id) {
            // One text for all of a service's entries.
            entry.id = id.clone();
        }
        let id = entry.id.clone();
        self.bytes += entry.bytes();
        self.entries.insert(place, entry);
        let places = self.by_id.entry(id).or_insert_with_key(|id| {
            self.bytes += SERVICE_BYTES + id.len();
            VecDeque::new()
        });
        places.push_back(place);
        let oldest = if places.len() > self.of_one_max { places.front().copied() } else { None };
        oldest.into_iter().for_each(|place| self.remove(place));
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.bytes > self.bytes_max
            && let Some(place) = self.entries.keys().next().copied()
        {
            self.remove(place);
        }
    }

    /// Removes the entry that is its service's oldest.
    fn remove(&mut self, place: u64) {
        let Some(entry) = self.entries.remove(&place) else { return };
        self.bytes -= entry.bytes();
        if let Some(places) = self.by_id.get_mut(&entry.id) {
            places.pop_front();
            if places.is_empty() {
                self.by_id.remove(&entry.id);
                self.bytes -= SERVICE_BYTES + entry.id.len();
            }
        }
    }

    fn of(&self, id: &str) -> impl Iterator<Item = (u64, &Entry)> {
        let places = self.by_id.get(id).into_iter().flatten();
        places.filter_map(|place| Some((*place, self.entries.get(place)?)))
    }
}

/// Something that was done, for the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// What, in a word.
    pub what: &'static str,
    /// The service's id, if it is about one.
    pub service_id: Option<Arc<str>>,
    /// Who did it, if somebody did.
    pub by: Option<Origin>,
    /// When, in milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// What has happened to all services.
pub(super) struct Trail {
    changes: Ring,
    refusals: Ring,
    next_place: u64,
    /// What the audit has not been told yet, if there is one.
    deeds: Option<Vec<Deed>>,
}

impl Default for Trail {
    fn default() -> Self {
        let mut trail = Trail {
            changes: Ring::new(0, OF_ONE_MAX.0),
            refusals: Ring::new(0, OF_ONE_MAX.1),
            next_place: 0,
            deeds: None,
        };
        trail.set_bytes(BYTES_DEFAULT);
        trail
    }
}

impl Trail {
    /// Sets how much all entries may take, in bytes.
    pub(super) fn set_bytes(&mut self, bytes: usize) {
        let refusals = bytes / REFUSALS_PART;
        (self.changes.bytes_max, self.refusals.bytes_max) = (bytes - refusals, refusals);
        self.changes.shrink();
        self.refusals.shrink();
    }

    /// Notes that something has happened to a service.
    pub(super) fn note(&mut self, id: &str, what: What, by: Option<Origin>, now: Now) {
        let is_refused = matches!(what, What::Refused(_));
        let ring = if is_refused { &mut self.refusals } else { &mut self.changes };
        if is_refused && ring.count(id, &what, by.as_ref(), now.unix_ms) {
            return;
        }
        let id: Arc<str> = id.into();
        if let Some(deeds) = self.deeds.as_mut().filter(|_| !is_refused) {
            deeds.push(Deed { what: what.word(), service_id: Some(id.clone()), by, unix_ms: now.unix_ms });
        }
        let entry = Entry { id, unix_ms: now.unix_ms, what, by, count: 1, last_unix_ms: now.unix_ms };
        ring.add(self.next_place, entry);
        self.next_place += 1;
    }

    /// Notes what a restore has made of a service. The audit has the restore itself.
    pub(super) fn note_restore(&mut self, id: &Arc<str>, what: What, by: Origin, now: Now) {
        let entry =
            Entry { id: id.clone(), unix_ms: now.unix_ms, what, by: Some(by), count: 1, last_unix_ms: now.unix_ms };
        self.changes.add(self.next_place, entry);
        self.next_place += 1;
    }

    pub(super) fn begin_audit(&mut self) {
        self.deeds.get_or_insert_default();
    }

    pub(super) fn take_deeds(&mut self) -> Vec<Deed> {
        self.deeds.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Notes for the audit, if there is one, what was done to the registry itself.
    pub(super) fn operated(&mut self, what: &'static str, by: Origin, now: Now) {
        if let Some(deeds) = &mut self.deeds {
            deeds.push(Deed { what, service_id: None, by: Some(by), unix_ms: now.unix_ms });
        }
    }

    /// Whether the last that is known of a service is that it was there.
    pub(super) fn was_there(&self, id: &str) -> bool {
        let last = self.changes.of(id).last();
        last.is_some_and(|(_, entry)| !matches!(entry.what, What::Deregistered | What::Dropped | What::Expired(_)))
    }

    /// What has happened to a service, the oldest first, and of that the last `limit`.
    pub(super) fn of(&self, id: &str, limit: Option<usize>) -> Vec<&Entry> {
        let mut entries: Vec<(u64, &Entry)> = self.changes.of(id).chain(self.refusals.of(id)).collect();
        entries.sort_unstable_by_key(|(place, _)| *place);
        let before = entries.len().saturating_sub(limit.unwrap_or(usize::MAX));
        entries.into_iter().skip(before).map(|(_, entry)| entry).collect()
    }
}

#[cfg(test)]
mod tests;
