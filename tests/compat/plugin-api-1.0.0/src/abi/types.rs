//! The values that cross the boundary, and how they become the plain types of this crate.
//!
//! They are flat, and frozen for the major version: `ext` is where later minor versions put what they add, by name.
//! It is empty today, and a side that does not know a name passes over it.

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RString, RVec, Tuple2};

use crate::{Change, Cursor, Error, ErrorKind, Observed, OptionSpec, Outcome, Page, Query, Record, RemoveReason};

/// Named additions of later minor versions.
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

/// [`Change`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawChange {
    kind: u32,
    id: RString,
    record: ROption<RawRecord>,
    unique: ROption<RString>,
    reason: u32,
    last_heartbeat_ms: u64,
    ext: Ext,
}

const PUT: u32 = 1;
const REMOVE: u32 = 2;
const RENEW: u32 = 3;

const DEREGISTERED: u32 = 1;
const EXPIRED: u32 = 2;

impl RawChange {
    #[cfg(test)]
    pub(super) fn set_kind(&mut self, kind: u32) {
        self.kind = kind;
    }

    fn of_kind(kind: u32, id: String) -> Self {
        RawChange {
            kind,
            id: id.into(),
            record: ROption::RNone,
            unique: ROption::RNone,
            reason: 0,
            last_heartbeat_ms: 0,
            ext: Ext::new(),
        }
    }
}

impl From<Change> for RawChange {
    fn from(change: Change) -> Self {
        match change {
            Change::Put { record, unique } => RawChange {
                record: ROption::RSome(record.into()),
                unique: unique.map(RString::from).into(),
                ..RawChange::of_kind(PUT, String::new())
            },
            Change::Remove { id, reason } => RawChange {
                reason: match reason {
                    RemoveReason::Deregistered => DEREGISTERED,
                    RemoveReason::Expired => EXPIRED,
                },
                ..RawChange::of_kind(REMOVE, id)
            },
            Change::Renew { id, last_heartbeat_ms } => RawChange { last_heartbeat_ms, ..RawChange::of_kind(RENEW, id) },
        }
    }
}

/// A newer minor version of the other side may know kinds of change that this one does not.
impl TryFrom<RawChange> for Change {
    type Error = Error;

    fn try_from(raw: RawChange) -> Result<Self, Error> {
        let unknown = |what: &str, code: u32| {
            let api = env!("CARGO_PKG_VERSION");
            Error::new(ErrorKind::Unsupported, format!("unknown {what} {code}: plugin-api {api} has none such"))
        };
        match (raw.kind, raw.record) {
            (PUT, ROption::RSome(record)) => {
                Ok(Change::Put { record: record.into(), unique: raw.unique.map(String::from).into_option() })
            }
            (REMOVE, _) => {
                let reason = match raw.reason {
                    DEREGISTERED => RemoveReason::Deregistered,
                    EXPIRED => RemoveReason::Expired,
                    code => return Err(unknown("reason of a removal", code)),
                };
                Ok(Change::Remove { id: raw.id.into(), reason })
            }
            (RENEW, _) => Ok(Change::Renew { id: raw.id.into(), last_heartbeat_ms: raw.last_heartbeat_ms }),
            (code, _) => Err(unknown("kind of change", code)),
        }
    }
}

/// [`Outcome`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawOutcome {
    code: u32,
    revision: u64,
    id: RString,
    error: ROption<RawError>,
    ext: Ext,
}

const DONE: u32 = 1;
const MISSING: u32 = 2;
const CONFLICT: u32 = 3;
const REFUSED: u32 = 4;

impl From<Outcome> for RawOutcome {
    fn from(outcome: Outcome) -> Self {
        let empty = RawOutcome { code: 0, revision: 0, id: RString::new(), error: ROption::RNone, ext: Ext::new() };
        match outcome {
            Outcome::Done { revision } => RawOutcome { code: DONE, revision, ..empty },
            Outcome::Missing => RawOutcome { code: MISSING, ..empty },
            Outcome::Conflict { id } => RawOutcome { code: CONFLICT, id: id.into(), ..empty },
            Outcome::Refused(error) => RawOutcome { code: REFUSED, error: ROption::RSome(error.into()), ..empty },
        }
    }
}

impl From<RawOutcome> for Outcome {
    fn from(raw: RawOutcome) -> Self {
        match (raw.code, raw.error) {
            (DONE, _) => Outcome::Done { revision: raw.revision },
            (MISSING, _) => Outcome::Missing,
            (CONFLICT, _) => Outcome::Conflict { id: raw.id.into() },
            (_, ROption::RSome(error)) => Outcome::Refused(error.into()),
            (code, ROption::RNone) => Outcome::Refused(Error::internal(format!("unknown outcome {code}"))),
        }
    }
}

/// [`Page`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawPage {
    epoch: RString,
    revision: u64,
    records: RVec<RawRecord>,
    next: ROption<RString>,
    ext: Ext,
}

impl From<Page> for RawPage {
    fn from(page: Page) -> Self {
        RawPage {
            epoch: page.epoch.into(),
            revision: page.revision,
            records: each(page.records),
            next: page.next.map(|next| RString::from(next.as_str())).into(),
            ext: Ext::new(),
        }
    }
}

impl From<RawPage> for Page {
    fn from(raw: RawPage) -> Self {
        Page {
            epoch: raw.epoch.into(),
            revision: raw.revision,
            records: each_back(raw.records),
            next: raw.next.map(|next| Cursor::after(String::from(next))).into_option(),
        }
    }
}

/// [`Observed`].
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawObserved {
    revision: u64,
    change: RawChange,
    ext: Ext,
}

impl From<Observed> for RawObserved {
    fn from(observed: Observed) -> Self {
        RawObserved { revision: observed.revision, change: observed.change.into(), ext: Ext::new() }
    }
}

impl TryFrom<RawObserved> for Observed {
    type Error = Error;

    fn try_from(raw: RawObserved) -> Result<Self, Error> {
        Ok(Observed::new(raw.revision, raw.change.try_into()?))
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

/// The codes of kinds of error. A code that is not here is a kind of a newer minor version, and is taken as
/// `Internal`.
const ERROR_KINDS: [(u32, ErrorKind); 7] = [
    (1, ErrorKind::Unavailable),
    (2, ErrorKind::InvalidOption),
    (3, ErrorKind::Corrupt),
    (4, ErrorKind::HistoryLost),
    (5, ErrorKind::Unsupported),
    (6, ErrorKind::Panicked),
    (7, ErrorKind::Internal),
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
    ext: Ext,
}

impl From<&OptionSpec> for RawOption {
    fn from(spec: &OptionSpec) -> Self {
        RawOption {
            name: spec.name().into(),
            kind: spec.kind().into(),
            default: spec.default_value().map(|value| RString::from(value.to_string())).into(),
            help: spec.help().into(),
            ext: Ext::new(),
        }
    }
}

impl From<RawOption> for OptionSpec {
    fn from(raw: RawOption) -> Self {
        OptionSpec::declared(&raw.name, &raw.kind, raw.default.as_ref().map(RString::as_str).into(), &raw.help)
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
