//! The values that cross the boundary, and how they become the plain types of this crate.
//!
//! They are flat, and frozen within a series of versions (`0.y`, and later `x`): `ext` is where later versions of the
//! series put what they add, by name. It is empty today, and a side that does not know a name passes over it.

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RString, RVec, Tuple2};

use crate::{
    Change, Cursor, Error, ErrorKind, Event, Group, History, OptionSpec, Outcome, Page, Position, Put, Query, Record,
    Remove, Renew,
};

/// Named additions of later versions.
pub type Ext = RVec<Tuple2<RString, RVec<u8>>>;

/// [`Record`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawRecord {
    id: RString,
    document: RString,
    types: RVec<RString>,
    ttl_ms: u64,
    last_heartbeat_ms: u64,
    revision: u64,
    ext: Ext,
}

impl From<Record> for RawRecord {
    fn from(record: Record) -> Self {
        RawRecord {
            id: record.id.into(),
            document: record.document.into(),
            types: each(record.types),
            ttl_ms: record.ttl_ms,
            last_heartbeat_ms: record.last_heartbeat_ms,
            revision: record.revision,
            ext: Ext::new(),
        }
    }
}

impl From<RawRecord> for Record {
    fn from(raw: RawRecord) -> Self {
        Record {
            id: raw.id.into(),
            document: raw.document.into(),
            types: each_back(raw.types),
            ttl_ms: raw.ttl_ms,
            last_heartbeat_ms: raw.last_heartbeat_ms,
            revision: raw.revision,
        }
    }
}

/// [`Position`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawPosition {
    epoch: RString,
    revision: u64,
    ext: Ext,
}

impl From<Position> for RawPosition {
    fn from(position: Position) -> Self {
        RawPosition { epoch: position.epoch.into(), revision: position.revision, ext: Ext::new() }
    }
}

impl From<RawPosition> for Position {
    fn from(raw: RawPosition) -> Self {
        Position { epoch: raw.epoch.into(), revision: raw.revision }
    }
}

/// [`Group`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawGroup {
    position: RawPosition,
    changes: RVec<RawChange>,
    forget_before: u64,
    undone: RVec<u64>,
    ext: Ext,
}

impl From<Group> for RawGroup {
    fn from(group: Group) -> Self {
        RawGroup {
            position: group.position.into(),
            changes: each(group.changes),
            forget_before: group.forget_before,
            undone: group.undone.into(),
            ext: Ext::new(),
        }
    }
}

impl RawGroup {
    /// The group without the changes of kinds that only a newer version of the other side knows.
    pub(super) fn into_known(self) -> (Group, Unknown) {
        let mut unknown = Unknown { of: self.changes.len(), kinds: Vec::new() };
        let mut changes = Vec::with_capacity(self.changes.len());
        for (place, raw) in self.changes.into_iter().enumerate() {
            match Change::try_from(raw) {
                Ok(change) => changes.push(change),
                Err(error) => unknown.kinds.push((place, error)),
            }
        }
        let (position, undone) = (self.position.into(), self.undone.into());
        (Group { position, changes, forget_before: self.forget_before, undone }, unknown)
    }

    /// Makes the change at that place, if there is one, of a kind that no version knows.
    pub(super) fn make_unknown(&mut self, place: usize) {
        self.changes.iter_mut().skip(place).take(1).for_each(|change| change.kind = u32::MAX);
    }
}

/// The places in a group of the changes whose kind is not known.
pub(super) struct Unknown {
    of: usize,
    kinds: Vec<(usize, Error)>,
}

impl Unknown {
    /// Puts a refusal of each of them among the outcomes of the others. If a backend gave another number of outcomes
    /// than it had changes, the host shall see so: then nothing is added.
    pub(super) fn put_among(self, mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
        if outcomes.len() + self.kinds.len() == self.of {
            for (place, error) in self.kinds {
                outcomes.insert(place, Outcome::Refused(error));
            }
        }
        outcomes
    }
}

/// [`Change`]: one kind of change, and what any kind may need.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawChange {
    kind: u32,
    id: RString,
    record: ROption<RawRecord>,
    revision: u64,
    last_heartbeat_ms: u64,
    event: RString,
    ext: Ext,
}

const PUT: u32 = 1;
const REMOVE: u32 = 2;
const RENEW: u32 = 3;

impl RawChange {
    fn of_kind(kind: u32) -> Self {
        RawChange {
            kind,
            id: RString::new(),
            record: ROption::RNone,
            revision: 0,
            last_heartbeat_ms: 0,
            event: RString::new(),
            ext: Ext::new(),
        }
    }
}

impl From<Change> for RawChange {
    fn from(change: Change) -> Self {
        match change {
            Change::Put(Put { record, event }) => {
                RawChange { record: ROption::RSome(record.into()), event: event.into(), ..RawChange::of_kind(PUT) }
            }
            Change::Remove(Remove { id, revision, event }) => {
                RawChange { id: id.into(), revision, event: event.into(), ..RawChange::of_kind(REMOVE) }
            }
            Change::Renew(Renew { id, last_heartbeat_ms }) => {
                RawChange { id: id.into(), last_heartbeat_ms, ..RawChange::of_kind(RENEW) }
            }
        }
    }
}

/// A newer version of the other side may know kinds of change that this one does not.
impl TryFrom<RawChange> for Change {
    type Error = Error;

    fn try_from(raw: RawChange) -> Result<Self, Error> {
        match (raw.kind, raw.record) {
            (PUT, ROption::RSome(record)) => Ok(Change::Put(Put { record: record.into(), event: raw.event.into() })),
            (REMOVE, _) => {
                Ok(Change::Remove(Remove { id: raw.id.into(), revision: raw.revision, event: raw.event.into() }))
            }
            (RENEW, _) => Ok(Change::Renew(Renew { id: raw.id.into(), last_heartbeat_ms: raw.last_heartbeat_ms })),
            (code, _) => {
                let api = env!("CARGO_PKG_VERSION");
                let message =
                    format!("the plugin does not know changes of kind {code}: it was built against plugin-api {api}");
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        }
    }
}

/// [`Outcome`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawOutcome {
    code: u32,
    error: ROption<RawError>,
    ext: Ext,
}

const DONE: u32 = 1;
const MISSING: u32 = 2;
const REFUSED: u32 = 3;

impl From<Outcome> for RawOutcome {
    fn from(outcome: Outcome) -> Self {
        let (code, error) = match outcome {
            Outcome::Done => (DONE, ROption::RNone),
            Outcome::Missing => (MISSING, ROption::RNone),
            Outcome::Refused(error) => (REFUSED, ROption::RSome(error.into())),
        };
        RawOutcome { code, error, ext: Ext::new() }
    }
}

impl From<RawOutcome> for Outcome {
    fn from(raw: RawOutcome) -> Self {
        match (raw.code, raw.error) {
            (DONE, _) => Outcome::Done,
            (MISSING, _) => Outcome::Missing,
            (_, ROption::RSome(error)) => Outcome::Refused(error.into()),
            (code, ROption::RNone) => Outcome::Refused(Error::internal(format!("unknown outcome {code}"))),
        }
    }
}

/// [`Page`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawPage {
    position: ROption<RawPosition>,
    records: RVec<RawRecord>,
    next: ROption<RString>,
    ext: Ext,
}

impl From<Page> for RawPage {
    fn from(page: Page) -> Self {
        RawPage {
            position: page.position.map(RawPosition::from).into(),
            records: each(page.records),
            next: raw_cursor(page.next),
            ext: Ext::new(),
        }
    }
}

impl From<RawPage> for Page {
    fn from(raw: RawPage) -> Self {
        Page {
            position: raw.position.map(Position::from).into_option(),
            records: each_back(raw.records),
            next: cursor(raw.next),
        }
    }
}

fn raw_cursor(cursor: Option<Cursor>) -> ROption<RString> {
    cursor.map(|cursor| RString::from(cursor.as_str())).into()
}

fn cursor(raw: ROption<RString>) -> Option<Cursor> {
    raw.map(|position| Cursor::after(String::from(position))).into_option()
}

/// [`Event`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawEvent {
    revision: u64,
    text: RString,
    ext: Ext,
}

impl From<Event> for RawEvent {
    fn from(event: Event) -> Self {
        RawEvent { revision: event.revision, text: event.text.into(), ext: Ext::new() }
    }
}

impl From<RawEvent> for Event {
    fn from(raw: RawEvent) -> Self {
        Event { revision: raw.revision, text: raw.text.into() }
    }
}

/// [`History`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawHistory {
    complete_after: u64,
    events: RVec<RawEvent>,
    next: ROption<RString>,
    ext: Ext,
}

impl From<History> for RawHistory {
    fn from(history: History) -> Self {
        RawHistory {
            complete_after: history.complete_after,
            events: each(history.events),
            next: raw_cursor(history.next),
            ext: Ext::new(),
        }
    }
}

impl From<RawHistory> for History {
    fn from(raw: RawHistory) -> Self {
        History { complete_after: raw.complete_after, events: each_back(raw.events), next: cursor(raw.next) }
    }
}

/// [`Query`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawQuery {
    service_type: RString,
    candidates: RVec<RString>,
    ext: Ext,
}

impl From<Query> for RawQuery {
    fn from(query: Query) -> Self {
        RawQuery { service_type: query.service_type.into(), candidates: each(query.candidates), ext: Ext::new() }
    }
}

impl From<RawQuery> for Query {
    fn from(raw: RawQuery) -> Self {
        Query::new(raw.service_type, each_back(raw.candidates))
    }
}

/// [`Error`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawError {
    kind: u32,
    message: RString,
    ext: Ext,
}

/// The codes of kinds of error. A code that is not here is a kind of a newer version, and is taken as `Internal`.
const ERROR_KINDS: [(u32, ErrorKind); 6] = [
    (1, ErrorKind::Unavailable),
    (2, ErrorKind::InvalidOption),
    (3, ErrorKind::Corrupt),
    (4, ErrorKind::Unsupported),
    (5, ErrorKind::Panicked),
    (6, ErrorKind::Internal),
];

impl From<Error> for RawError {
    fn from(error: Error) -> Self {
        let code = ERROR_KINDS.iter().find(|(_, kind)| *kind == error.kind());
        RawError { kind: code.map_or(0, |(code, _)| *code), message: error.message().into(), ext: Ext::new() }
    }
}

/// The message becomes one line, whatever the plugin wrote: it ends up in the middle of the host's own.
impl From<RawError> for Error {
    fn from(raw: RawError) -> Self {
        let kind = ERROR_KINDS.iter().find(|(code, _)| *code == raw.kind);
        Error::new(kind.map_or(ErrorKind::Internal, |(_, kind)| *kind), one_line(&raw.message))
    }
}

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// [`OptionSpec`]. The kind is its word, the default is JSON text.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawOption {
    name: RString,
    kind: RString,
    default: ROption<RString>,
    help: RString,
    secret: bool,
    ext: Ext,
}

impl From<&OptionSpec> for RawOption {
    fn from(spec: &OptionSpec) -> Self {
        RawOption {
            name: spec.name().into(),
            kind: spec.kind().into(),
            default: spec.default_value().map(|value| RString::from(value.to_string())).into(),
            help: spec.help().into(),
            secret: spec.is_secret(),
            ext: Ext::new(),
        }
    }
}

impl From<RawOption> for OptionSpec {
    fn from(raw: RawOption) -> Self {
        let spec =
            OptionSpec::declared(&raw.name, &raw.kind, raw.default.as_ref().map(RString::as_str).into(), &raw.help);
        if raw.secret { spec.secret() } else { spec }
    }
}

/// A list whose elements are converted on the way out.
pub fn each<T, R: From<T>>(list: Vec<T>) -> RVec<R> {
    list.into_iter().map(R::from).collect()
}

/// A list whose elements are converted on the way in.
pub fn each_back<R, T: From<R>>(list: RVec<R>) -> Vec<T> {
    list.into_iter().map(T::from).collect()
}
