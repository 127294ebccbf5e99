//! A durable store in a file that keeps every rule of the contract, until the option `fault` names one of the ways to
//! break one: a plugin for finding out whether the conformance kit finds it out.

use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::mem;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use registry_plugin_api::{
    Backend, Capabilities, Change, Cursor, Error, ErrorKind, Host, Observed, OptionSpec, Options, Outcome, Page, Query,
    Record, Result, export_backend, new_epoch,
};

use crate::log::{Entry, Log};

mod log;

/// Whether several hosts may open a store at once.
const SHARED: bool = cfg!(feature = "shared");
/// Whether a record goes when its ttl has passed.
const EXPIRES: bool = cfg!(feature = "expires");
const PAGE_RECORDS: usize = 100;
const WATCH_INTERVAL: Duration = Duration::from_millis(2);

/// See the [module](self).
pub struct Broken {
    host: Host,
    state: Mutex<State>,
}

export_backend!(Broken);

struct State {
    fault: String,
    log: Log,
    epoch: String,
    revision: u64,
    records: BTreeMap<String, Record>,
    /// When each record goes, in milliseconds since the Unix epoch.
    ends_ms: BTreeMap<String, u64>,
    /// All changes since the store began, and the revision after each.
    history: Vec<(u64, Change)>,
    puts: u64,
    /// Acknowledged, but not written.
    unwritten: Vec<Entry>,
    /// Commits that were dropped.
    dropped: Vec<Vec<Change>>,
}

impl Backend for Broken {
    const CAPABILITIES: Capabilities = match (SHARED, EXPIRES) {
        (true, _) => Capabilities::NONE.durable().balances().shared().watches(),
        (false, true) => Capabilities::NONE.durable().balances().expires(),
        (false, false) => Capabilities::NONE.durable().balances(),
    };

    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::text("path", Some("broken.log"), "the file that holds everything"),
        OptionSpec::text("fault", Some(""), "what is to be wrong; nothing, if it is empty"),
    ];

    async fn open(options: Options, host: Host) -> Result<Self> {
        let state = State::open(options.text("path"), options.text("fault"))?;
        Ok(Broken { host, state: Mutex::new(state) })
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        self.state().load(&after)
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<Vec<Outcome>> {
        if self.state().has("needs_runtime") {
            panic!("there is no reactor running, must be called from the context of a Tokio 1.x runtime");
        }
        let mut unfinished = Unfinished { store: self, changes };
        for _ in 0..unfinished.changes.len() {
            pause().await;
        }
        let changes = mem::take(&mut unfinished.changes);
        self.state().commit(changes)
    }

    async fn watch(&self, revision: u64) -> Result<Vec<Observed>> {
        loop {
            if let Some(observed) = self.state().observed(revision)? {
                return Ok(observed);
            }
            self.host.sleep(WATCH_INTERVAL).await;
        }
    }

    async fn discover(&self, query: Query) -> Result<Option<String>> {
        match self.state().has("picks_stranger") {
            true => Ok(Some("stranger".to_string())),
            false => Ok(query.candidates.last().cloned()),
        }
    }

    async fn close(&self) -> Result<()> {
        let fault = self.state().fault.clone();
        if fault == "close_hangs" {
            pending::<()>().await;
        }
        if fault == "close_blocks" {
            loop {
                thread::park();
            }
        }
        self.state().write(Vec::new())
    }
}

impl Broken {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for nothing: a place where a call can be dropped.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A commit that waits. It is empty once it no longer does.
struct Unfinished<'a> {
    store: &'a Broken,
    changes: Vec<Change>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.changes.is_empty() {
            self.store.state().dropped.push(mem::take(&mut self.changes));
        }
    }
}

impl State {
    fn open(path: &str, fault: &str) -> Result<State> {
        let log = Log::open(path)?;
        let mut state = State {
            fault: fault.to_string(),
            log,
            epoch: String::new(),
            revision: 0,
            records: BTreeMap::new(),
            ends_ms: BTreeMap::new(),
            history: Vec::new(),
            puts: 0,
            unwritten: Vec::new(),
            dropped: Vec::new(),
        };
        if state.has("refuses_to_open") {
            return Err(Error::internal("it does not open"));
        }
        match SHARED {
            true => state.log.lock()?,
            false if state.has("opens_twice") => {}
            false => state.log.claim(path)?,
        }
        if state.has("lock_outlives_close") {
            state.log.leak();
        }
        state.catch_up()?;
        if state.epoch.is_empty() {
            state.epoch = if state.has("epoch_never_changes") { "the only one".to_string() } else { new_epoch() };
            state.log.append(&[Entry::Epoch(state.epoch.clone())])?;
        } else if state.has("epoch_changes_on_reopen") {
            state.epoch = new_epoch();
        }
        if state.has("forgets_on_reopen") {
            state.records.clear();
        }
        if SHARED {
            state.log.unlock()?;
        }
        Ok(state)
    }

    fn has(&self, fault: &str) -> bool {
        self.fault == fault
    }

    /// Takes in what others have written.
    fn catch_up(&mut self) -> Result<()> {
        for entry in self.log.read_on()? {
            self.take_in(&entry);
        }
        Ok(())
    }

    fn take_in(&mut self, entry: &Entry) {
        let (revision, change, at_ms) = match entry {
            Entry::Epoch(epoch) => return self.epoch.clone_from(epoch),
            Entry::Changed(revision, change, at_ms) => (*revision, change, *at_ms),
        };
        self.prolong(change, at_ms);
        self.revision = self.revision.max(revision);
        match change {
            Change::Put { record, .. } => {
                self.records.insert(record.id.clone(), record.clone());
            }
            Change::Remove { id, .. } => {
                self.records.remove(id);
            }
            Change::Renew { id, last_heartbeat_ms } => {
                self.records.entry(id.clone()).and_modify(|record| record.last_heartbeat_ms = *last_heartbeat_ms);
                return;
            }
        }
        self.history.push((revision, change.clone()));
    }

    /// Notes when a record goes that is put or renewed.
    fn prolong(&mut self, change: &Change, at_ms: u64) {
        let ttl_ms = match change {
            Change::Put { record, .. } => record.ttl_ms,
            Change::Renew { id, .. } if !self.has("renewal_is_no_use") => {
                self.records.get(id).map_or(0, |record| record.ttl_ms)
            }
            _ => return,
        };
        let ttl_ms = if self.has("expires_early") { ttl_ms / 4 } else { ttl_ms };
        self.ends_ms.insert(change.id().to_string(), at_ms.saturating_add(ttl_ms));
    }

    fn expire(&mut self) {
        if EXPIRES && !self.has("never_expires") {
            let (now_ms, ends_ms) = (now_ms(), &self.ends_ms);
            self.records.retain(|id, _| ends_ms.get(id).is_none_or(|end_ms| now_ms < *end_ms));
        }
    }

    fn load(&mut self, after: &Cursor) -> Result<Page> {
        self.expire();
        if SHARED && !self.has("blind_to_others") {
            self.catch_up()?;
        }
        if self.has("dropped_lands_late") {
            for changes in mem::take(&mut self.dropped) {
                self.commit(changes)?;
            }
        }
        let start = match (after.is_start(), self.has("duplicate_in_pages")) {
            (true, _) => Unbounded,
            (false, true) => Included(after.as_str()),
            (false, false) => Excluded(after.as_str()),
        };
        let mut rest = self.records.range::<str, _>((start, Unbounded)).map(|(_, record)| record);
        let mut records: Vec<Record> = rest.by_ref().take(PAGE_RECORDS).cloned().collect();
        let left = rest.count();
        let next = records.last().filter(|_| left > 0).map(|last| Cursor::after(&last.id));
        if self.has("expires_unasked") {
            records.retain(|record| record.ttl_ms != 1);
        }
        let page = Page::new(&self.epoch, self.revision).with_records(records);
        Ok(match next {
            Some(_) if self.has("last_page_missing") && left <= PAGE_RECORDS => page,
            Some(next) => page.with_next(next),
            None => page,
        })
    }

    fn commit(&mut self, changes: Vec<Change>) -> Result<Vec<Outcome>> {
        self.expire();
        if self.has("slow") {
            thread::sleep(Duration::from_millis(300));
        }
        if self.has("dropped_stays_locked") && !self.dropped.is_empty() {
            return Err(Error::unavailable("another commit is under way"));
        }
        if SHARED {
            self.log.lock()?;
            if !self.has("blind_to_others") {
                self.catch_up()?;
            }
        }
        let mut outcomes = vec![Outcome::Missing; changes.len()];
        let mut entries = Vec::new();
        let mut positions: Vec<usize> = (0..changes.len()).collect();
        if self.has("reverses_group") {
            positions.reverse();
        }
        for position in positions {
            outcomes[position] = self.apply(changes[position].clone(), &mut entries);
        }
        self.write(entries)?;
        if SHARED {
            self.log.unlock()?;
        }
        match self.fault.as_str() {
            "unsorted_outcomes" => outcomes.reverse(),
            "missing_as_done" => {
                let done = Outcome::Done { revision: self.revision };
                outcomes.iter_mut().filter(|outcome| **outcome == Outcome::Missing).for_each(|it| *it = done.clone());
            }
            _ => {}
        }
        Ok(outcomes)
    }

    fn write(&mut self, entries: Vec<Entry>) -> Result<()> {
        match self.fault.as_str() {
            "acknowledges_first" => {
                let unwritten = mem::replace(&mut self.unwritten, entries);
                self.log.append(&unwritten)
            }
            "writes_backwards" => self.log.append_backwards(&entries),
            _ if entries.is_empty() => Ok(()),
            _ => self.log.append(&entries),
        }
    }

    fn apply(&mut self, change: Change, entries: &mut Vec<Entry>) -> Outcome {
        if let Some(conflict) = self.conflict(&change) {
            return Outcome::Conflict { id: conflict };
        }
        let is_there = self.records.contains_key(change.id());
        if !is_there && !matches!(change, Change::Put { .. }) {
            return Outcome::Missing;
        }
        let moves = !matches!(change, Change::Renew { .. }) || self.has("revision_on_renew");
        let step = if self.has("skips_revisions") { 2 } else { 1 };
        let revision = self.revision + if moves { step } else { 0 };
        self.revision = revision;
        if let Some(change) = self.corrupted(change, is_there) {
            let entry = Entry::Changed(revision, at_revision(change, revision), now_ms());
            self.take_in(&entry);
            entries.push(entry);
        }
        Outcome::Done { revision: revision + u64::from(self.has("wrong_revision")) }
    }

    /// The record that stands in the way of a `Put` with `unique`.
    fn conflict(&self, change: &Change) -> Option<String> {
        let Change::Put { record, unique: Some(unique) } = change else { return None };
        let mut others = self.records.values().filter(|other| other.id != record.id && other.types.contains(unique));
        others.next().map(|other| other.id.clone()).filter(|_| SHARED && !self.has("never_conflicts"))
    }

    /// What is stored of the change, if anything.
    fn corrupted(&mut self, mut change: Change, is_there: bool) -> Option<Change> {
        match &mut change {
            Change::Put { record, .. } => {
                self.puts += 1;
                match self.fault.as_str() {
                    "loses_7th_put" if self.puts.is_multiple_of(7) => return None,
                    "ignores_put_over_existing" if is_there => return None,
                    "truncates_documents" if record.document.len() > 65_536 => record.document.truncate(65_536),
                    "mangles_unicode" => record.document = record.document.replace(|c: char| !c.is_ascii(), "?"),
                    "ignores_case" => record.id = record.id.to_lowercase(),
                    "drops_types" => record.types.truncate(100),
                    _ => {}
                }
            }
            Change::Renew { .. } if self.has("loses_renewals") => return None,
            _ => {}
        }
        Some(change)
    }

    /// What has happened after a revision; `None` if that is nothing.
    fn observed(&mut self, after: u64) -> Result<Option<Vec<Observed>>> {
        self.catch_up()?;
        if after > self.revision {
            return Err(Error::new(ErrorKind::HistoryLost, "that revision is not of this store"));
        }
        let mut changes: Vec<_> = self.history.iter().filter(|(revision, _)| *revision > after).cloned().collect();
        match self.fault.as_str() {
            "watch_misses_one" => changes.retain(|(revision, _)| revision % 3 != 0),
            "watch_in_disorder" => changes.reverse(),
            "watch_repeats" if changes.is_empty() => changes.extend(self.history.last().cloned()),
            _ => {}
        }
        let observed: Vec<_> = changes.into_iter().map(|(revision, change)| Observed::new(revision, change)).collect();
        Ok(Some(observed).filter(|observed| !observed.is_empty()))
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// As it is stored.
fn at_revision(mut change: Change, revision: u64) -> Change {
    if let Change::Put { record, unique } = &mut change {
        record.revision = revision;
        *unique = None;
    }
    change
}
