//! Seals: a checksum with each record and each change that a durable store keeps.
//!
//! Disks lose bits, and few stores notice: SQLite finds a damaged page only where its own structure is hit. A service
//! whose port has become another one is worse than one that is left out, since that registers again. So what goes to
//! the store gets a checksum as the last field of its JSON, whatever the plugin, and what comes back without the right
//! one is not believed. Where there is none, an earlier version or a person has written it: that is taken as it is.
//!
//! A record's seal is over its id, document, types and ttl. What moves without the document is not in it: the last
//! heartbeat, and the revision, which `registry migrate` gives anew.

use registry_plugin_api::{Change, Event, Group, Record};

use super::{Contents, RecentChanges};

/// How a seal begins, which stands before the last brace in place of it. Eight hexadecimal digits follow.
const BEGIN: &str = ",\"crc32\":\"";
const DIGITS: usize = 8;
const END: &str = "\"}";
const SEAL_BYTES: usize = BEGIN.len() + DIGITS + END.len();
/// A text that ends as with a seal but for so many bytes had one.
const DAMAGED_MAX: usize = 4;

/// What a text says of itself.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// It has no seal.
    Nothing,
    /// It is sealed with this checksum, which is taken off.
    Seal(u32),
    /// The seal itself is damaged.
    Damage,
}

/// Seals all that a group has the store keep.
pub(super) fn seal(group: &mut Group) {
    for change in &mut group.changes {
        match change {
            Change::Put(put) => {
                let checksum = of_record(&put.record);
                append(&mut put.record.document, checksum);
                seal_event(&mut put.event, put.record.revision);
            }
            Change::Remove(remove) => seal_event(&mut remove.event, remove.revision),
            _ => {}
        }
    }
}

fn seal_event(text: &mut String, revision: u64) {
    let checksum = of_event(text, revision);
    append(text, checksum);
}

/// Breaks the seals of all that was stored. Records that are damaged are taken out and named; of the changes those stay
/// that come after the last damaged one.
pub(super) fn open(contents: &mut Contents) {
    open_records(&mut contents.records, &mut contents.damaged);
    let RecentChanges { complete_after, events } = &mut contents.history;
    let is_damaged = |event: &mut Event| match take(&mut event.text) {
        Found::Nothing => false,
        Found::Seal(checksum) => checksum != of_event(&event.text, event.revision),
        Found::Damage => true,
    };
    // All of them are looked at, since each loses its seal.
    let last = events.iter_mut().enumerate().filter_map(|(place, event)| is_damaged(event).then_some(place)).last();
    if let Some(event) = last.and_then(|place| events.drain(..=place).next_back()) {
        let revision = event.revision;
        *complete_after = revision.max(*complete_after);
        tracing::warn!(
            "the stored change {revision} is damaged, its checksum is wrong: watchers that have not seen it have to \
             list again"
        );
    }
}

/// Breaks the seals of records. Those that are damaged are taken out and named.
pub(super) fn open_records(records: &mut Vec<Record>, damaged: &mut Vec<String>) {
    records.retain_mut(|record| {
        let is_sound = match take(&mut record.document) {
            Found::Nothing => true,
            Found::Seal(checksum) => checksum == of_record(record),
            Found::Damage => false,
        };
        if !is_sound {
            damaged.push(std::mem::take(&mut record.id));
        }
        is_sound
    });
}

fn of_record(record: &Record) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // No two records may give the same bytes: each text goes after its length.
    let mut text = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    text(&record.id);
    text(&record.document);
    record.types.iter().for_each(|name| text(name));
    hasher.update(&record.ttl_ms.to_le_bytes());
    hasher.finalize()
}

fn of_event(text: &str, revision: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&revision.to_le_bytes());
    hasher.update(text.as_bytes());
    hasher.finalize()
}

/// Adds a seal to a JSON object that has a field. What is none stays as it is.
fn append(json: &mut String, checksum: u32) {
    if json.len() > "{}".len() && json.ends_with('}') {
        json.pop();
        json.push_str(&format!("{BEGIN}{checksum:08x}{END}"));
    }
}

/// Takes the seal off a text.
fn take(json: &mut String) -> Found {
    let Some(start) = json.len().checked_sub(SEAL_BYTES) else { return Found::Nothing };
    let seal = &json.as_bytes()[start..];
    let (begin, rest) = seal.split_at(BEGIN.len());
    let (digits, end) = rest.split_at(DIGITS);
    let differ = |a: &[u8], b: &str| a.iter().zip(b.as_bytes()).filter(|(a, b)| a != b).count();
    match differ(begin, BEGIN) + differ(end, END) {
        0 => {}
        1..=DAMAGED_MAX => return Found::Damage,
        _ => return Found::Nothing,
    }
    let digits = std::str::from_utf8(digits).ok();
    let Some(checksum) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else { return Found::Damage };
    json.truncate(start);
    json.push('}');
    Found::Seal(checksum)
}

#[cfg(test)]
mod tests {
    use registry_plugin_api::{Position, Put, Remove};

    use super::*;

    fn record() -> Record {
        let mut record = Record::new("s1", r#"{"id":"s1","host":"h","port":80}"#);
        record.types = vec!["cam".into(), "web".into()];
        record.ttl_ms = 30_000;
        record.revision = 7;
        record
    }

    /// A record and two changes, as they are stored.
    fn stored() -> (Record, Vec<Event>) {
        let put = Put::new(record()).with_event(r#"{"type":"register"}"#);
        let remove = Remove::new("s2", 8).with_event(r#"{"type":"deregister"}"#);
        let mut group = Group::new(Position::new("epoch", 8), vec![put.into(), remove.into()]);
        seal(&mut group);
        let [Change::Put(put), Change::Remove(remove)] = &group.changes[..] else { panic!("{group:?}") };
        let events = vec![Event::new(7, put.event.as_str()), Event::new(8, remove.event.as_str())];
        (put.record.clone(), events)
    }

    fn opened(record: Record, events: Vec<Event>) -> Contents {
        let history = RecentChanges { complete_after: 3, events: events.into() };
        let mut contents = Contents { records: vec![record], history, ..Contents::default() };
        open(&mut contents);
        contents
    }

    #[test]
    fn what_was_sealed_comes_back_as_it_was() {
        let (stored, events) = stored();
        assert_ne!(stored.document, record().document);
        assert!(serde_json::from_str::<serde_json::Value>(&stored.document).is_ok(), "{}", stored.document);
        let contents = opened(stored, events);
        assert_eq!(contents.records, [record()]);
        assert_eq!(contents.damaged, Vec::<String>::new());
        let texts: Vec<_> = contents.history.events.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(texts, [r#"{"type":"register"}"#, r#"{"type":"deregister"}"#]);
        assert_eq!(contents.history.complete_after, 3);
    }

    #[test]
    fn what_has_no_seal_is_taken_as_it_is() {
        let events = vec![Event::new(7, "no JSON"), Event::new(8, "")];
        let contents = opened(record(), events.clone());
        assert_eq!(contents.records, [record()]);
        assert!(contents.history.events.iter().eq(&events));
    }

    #[test]
    fn every_bit_of_a_record_is_guarded() {
        let (stored, events) = stored();
        let with = |change: &dyn Fn(&mut Record)| {
            let mut record = stored.clone();
            change(&mut record);
            opened(record, events.clone())
        };
        for place in 0..stored.document.len() {
            for bit in 0..7 {
                let mut bytes = stored.document.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let Ok(document) = String::from_utf8(bytes) else { continue };
                let contents = with(&|record| record.document = document.clone());
                // A digit may become upper case: it is the same number.
                let is_same = document.eq_ignore_ascii_case(&stored.document) && contents.records == [record()];
                assert!(is_same || contents.damaged == ["s1"], "{document}");
            }
        }
        assert_eq!(with(&|record| record.id = "s3".into()).damaged, ["s3"]);
        assert_eq!(with(&|record| record.ttl_ms ^= 1 << 40).damaged, ["s1"]);
        assert_eq!(with(&|record| record.types = vec!["camweb".into()]).damaged, ["s1"]);
        assert_eq!(with(&|record| record.last_heartbeat_ms += 1).damaged, Vec::<String>::new());
        assert_eq!(with(&|record| record.revision += 1).damaged, Vec::<String>::new());
    }

    #[test]
    fn changes_up_to_a_damaged_one_are_forgotten() {
        let (record, events) = stored();
        let with = |revision: u64, text: &str| {
            let mut events = events.clone();
            events[0] = Event::new(revision, text);
            let history = opened(record.clone(), events).history;
            (history.complete_after, history.events.len())
        };
        assert_eq!(with(7, &events[0].text), (3, 2));
        assert_eq!(with(6, &events[0].text), (6, 1));
        assert_eq!(with(7, &events[0].text.replace("register", "registes")), (7, 1));
        assert_eq!(with(7, &events[0].text.replace("crc32", "crc3s")), (7, 1));
    }
}
