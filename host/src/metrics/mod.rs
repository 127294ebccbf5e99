//! What the registry tells of itself in numbers, for Prometheus: see `docs/metrics.md`.
//!
//! The serving thread counts in [`Metrics`], which costs a few plain instructions a request, and reads no clock for it
//! that it would not read anyway. What only the core knows is put there as [`Figures`] about once a second. The thread
//! of HTTP reads all of it whenever somebody asks, so that a host whose serving thread hangs is still looked into.
//!
//! | module | what it does |
//! |---|---|
//! | [`cells`] | numbers that one thread writes and another reads |
//! | `families` | the table of all that is shown |
//! | `text` | the text that Prometheus reads |
//! | `process` | what the system knows of this process |

pub mod cells;
mod families;
mod process;
pub(crate) mod text;

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crate::fronts::zmtp::report::Incidents;
use crate::protocol::event::EventKind;
use crate::protocol::reply::Code;
use crate::protocol::request::Action;
use crate::registry::Figures;
use cells::{Histogram, Number};

/// Seconds are counted in nanoseconds.
const PER_SECOND: f64 = 1e9;
const REQUEST_BOUNDS: &[u64] =
    &[100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 50_000_000, 250_000_000, 1_000_000_000];
const COMMIT_BOUNDS: &[u64] = &[
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    400_000_000,
    1_000_000_000,
    5_000_000_000,
];
const GROUP_BOUNDS: &[u64] = &[1, 2, 5, 10, 25, 100, 250, 1000];
/// No status is greater.
const STATUSES: usize = 600;

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    /// What the serving thread's clock said when it was last read, in nanoseconds.
    pub(crate) now: Number,
    pub(crate) requests: Requests,
    /// By [`Kind`].
    pub(crate) latency: [Histogram; Kind::ALL.len()],
    /// By kind of event.
    pub(crate) changes: [Number; EventKind::ALL.len()],
    pub(crate) groups: Histogram,
    pub(crate) commits: Histogram,
    /// Groups that the storage failed to store.
    pub(crate) failures: Number,
    /// Configurations read again that could be used, and that could not.
    pub(crate) reloads: [Number; 2],
    /// Moves to another storage that came to an end, and that did not.
    pub(crate) swaps: [Number; 2],
    /// Backups that were restored, and that were not.
    pub(crate) restores: [Number; 2],
    /// For how long the host was held up, in nanoseconds.
    pub(crate) held_up: Number,
    pub(crate) zeromq: Transport,
    pub(crate) http: Transport,
    /// When the certificate of HTTP runs out, in seconds since the Unix epoch; 0 if there is none.
    pub(crate) certificate_until: Number,
    /// Responses over HTTP by status.
    statuses: Box<[Number]>,
    core: Mutex<Arc<Figures>>,
    began: SystemTime,
}

/// What a front knows of its connections.
#[derive(Debug, Default)]
pub(crate) struct Transport {
    /// How many there are: for requests, for heartbeats, for events.
    pub(crate) connections: [Number; 3],
    /// How many bytes wait, and how many may.
    pub(crate) waiting: [Number; 2],
    /// What clients did that went too far.
    pub(crate) incidents: Arc<Incidents>,
}

/// Requests by action and code.
#[derive(Debug)]
pub(crate) struct Requests(Box<[Number]>);

/// What was asked for: an action, or what cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked(u8);

/// What kind of request, as far as that says how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Renew,
    Change,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Read, Kind::Renew, Kind::Change];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Renew => "renew",
            Kind::Change => "change",
        }
    }

    /// That of an action, unless it takes as long as it does because it was meant to.
    pub(crate) fn of(action: Action) -> Option<Self> {
        Some(match action {
            Action::Renew => Kind::Renew,
            Action::Register | Action::Deregister | Action::Update | Action::Drain | Action::Undrain => Kind::Change,
            Action::Get | Action::List | Action::Discover | Action::Health | Action::Info => Kind::Read,
            Action::Types | Action::Watch | Action::History | Action::Clients => Kind::Read,
            Action::Terminate | Action::Expiry | Action::Reload | Action::Swap | Action::Restore => {
                return None;
            }
        })
    }
}

impl Asked {
    /// What cannot be read.
    pub(crate) const UNREADABLE: Asked = Asked(Action::ALL.len() as u8);

    fn all() -> impl Iterator<Item = Asked> {
        (0..=Asked::UNREADABLE.0).map(Asked)
    }

    fn as_str(self) -> &'static str {
        Action::ALL.get(usize::from(self.0)).map_or("unreadable", |action| action.as_str())
    }
}

impl From<Action> for Asked {
    fn from(action: Action) -> Self {
        Asked(action as u8)
    }
}

impl Requests {
    /// The codes, and none.
    const CODES: usize = Code::ALL.len() + 1;

    fn new() -> Self {
        Requests((0..(Action::ALL.len() + 1) * Requests::CODES).map(|_| Number::default()).collect())
    }

    /// One was answered.
    pub(crate) fn note(&self, asked: Asked, code: Option<Code>) {
        self.of(asked, code).add(1);
    }

    fn of(&self, Asked(action): Asked, code: Option<Code>) -> &Number {
        &self.0[usize::from(action) * Requests::CODES + code.map_or(0, |code| code as usize + 1)]
    }

    /// All that there were, and for each action those that succeeded, be there none.
    fn iter(&self) -> impl Iterator<Item = (Asked, Option<Code>, u64)> {
        let codes = || std::iter::once(None).chain(Code::ALL.map(Some));
        let all =
            Asked::all().flat_map(move |asked| codes().map(move |code| (asked, code, self.of(asked, code).get())));
        all.filter(|(asked, code, count)| *count > 0 || (code.is_none() && *asked != Asked::UNREADABLE))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            now: Number::default(),
            requests: Requests::new(),
            latency: Kind::ALL.map(|_| Histogram::new(REQUEST_BOUNDS, PER_SECOND)),
            changes: Default::default(),
            groups: Histogram::new(GROUP_BOUNDS, 1.0),
            commits: Histogram::new(COMMIT_BOUNDS, PER_SECOND),
            failures: Number::default(),
            reloads: Default::default(),
            swaps: Default::default(),
            restores: Default::default(),
            held_up: Number::default(),
            zeromq: Transport::default(),
            http: Transport::default(),
            certificate_until: Number::default(),
            statuses: (0..STATUSES).map(|_| Number::default()).collect(),
            core: Mutex::default(),
            began: SystemTime::now(),
        }
    }
}

impl Metrics {
    /// The core has come this far.
    pub(crate) fn set_core(&self, figures: Figures) {
        let mut core = self.core.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *core = Arc::new(figures);
    }

    fn core(&self) -> Arc<Figures> {
        self.core.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// HTTP has answered with a status.
    pub(crate) fn note_status(&self, status: u16) {
        self.statuses.get(usize::from(status)).into_iter().for_each(|number| number.add(1));
    }

    /// All of it, as Prometheus reads it.
    pub(crate) fn shown(&self) -> String {
        families::shown(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_and_each_code_has_a_number_of_its_own() {
        let requests = Requests::new();
        let codes: Vec<Option<Code>> = std::iter::once(None).chain(Code::ALL.map(Some)).collect();
        let all: Vec<Asked> = Action::ALL.into_iter().map(Asked::from).chain([Asked::UNREADABLE]).collect();
        for asked in &all {
            codes.iter().for_each(|code| requests.note(*asked, *code));
        }
        assert_eq!(requests.iter().filter(|(.., count)| *count == 1).count(), all.len() * codes.len());
        assert_eq!(Asked::from(Action::Renew).as_str(), "renew");
        assert_eq!(Asked::UNREADABLE.as_str(), "unreadable");
    }

    #[test]
    fn what_is_documented_is_what_there_is() {
        let document = include_str!("../../../docs/metrics.md");
        let table = document.split_once("|---|---|---|---|\n").map_or("", |(_, table)| table);
        let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = families::rows().collect();
        for (row, expected) in rows.iter().zip(&expected) {
            assert_eq!(row, expected);
        }
        assert_eq!(rows.len(), expected.len(), "docs/metrics.md lacks {:?}", expected.get(rows.len()));
    }
}
