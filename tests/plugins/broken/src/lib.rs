//! A durable store in a file that keeps every rule of the contract, until the option `fault` names one of the ways to
//! break one: a plugin for finding out whether the conformance kit finds it out.

use std::collections::{BTreeMap, HashSet};
use std::future::{pending, poll_fn};
use std::mem;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use registry_plugin_api::{
    Backend, Capabilities, Change, Cursor, Error, Event, Group, History, Host, OptionSpec, Options, Outcome, Page,
    Position, Put, Query, Record, Remove, Result, export_backend,
};

use crate::log::Log;

mod log;

const PAGE_RECORDS: usize = 100;

/// See the [module](self).
pub struct Broken {
    state: Mutex<State>,
}

export_backend!(Broken);

struct State {
    fault: String,
    log: Log,
    position: Option<Position>,
    records: BTreeMap<String, Record>,
    events: BTreeMap<u64, String>,
    complete_after: u64,
    puts: u64,
    /// Acknowledged, but not written.
    unwritten: Vec<Group>,
    /// Commits that were dropped.
    dropped: Vec<Group>,
}

impl Backend for Broken {
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::text("path", Some("broken.log"), "the file that holds everything"),
        OptionSpec::text("fault", Some(""), "what is to be wrong; nothing, if it is empty"),
        OptionSpec::text("password", Some("open sesame"), "whatever it is, it opens the store").secret(),
        OptionSpec::text("elsewhere", Some(""), "another directory for the file, which is named after its path"),
        OptionSpec::boolean("claims", Some(true), "whether anything is promised"),
    ];

    fn capabilities(options: &Options) -> Capabilities {
        match options.boolean("claims") {
            true => Capabilities::NONE.durable().balances().history(),
            false => Capabilities::NONE,
        }
    }

    async fn open(options: Options, _host: Host) -> Result<Self> {
        let path = match options.text("elsewhere") {
            "" => options.text("path").to_string(),
            directory => format!("{directory}/{}", options.text("path").replace('/', "_")),
        };
        let state = State::open(&path, options.text("fault"), options.text("password"))?;
        Ok(Broken { state: Mutex::new(state) })
    }

    async fn load(&self, after: Cursor) -> Result<Page> {
        self.state().load(&after)
    }

    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        if self.state().has("needs_runtime") {
            panic!("there is no reactor running, must be called from the context of a Tokio 1.x runtime");
        }
        let mut unfinished = Unfinished { store: self, group: Some(group) };
        for _ in 0..unfinished.group.as_ref().map_or(0, |group| group.changes.len()) {
            pause().await;
        }
        let group = unfinished.group.take().unwrap_or_default();
        self.state().commit(group)
    }

    async fn history(&self, after: Cursor) -> Result<History> {
        self.state().history(&after)
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
        let unwritten = mem::take(&mut self.state().unwritten);
        unwritten.iter().try_for_each(|group| self.state().log.append(group))
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
    group: Option<Group>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            self.store.state().dropped.push(group);
        }
    }
}

impl State {
    fn open(path: &str, fault: &str, password: &str) -> Result<State> {
        if fault == "tells_secret" && password.starts_with("no-such") {
            return Err(Error::unavailable(format!("the password {password} is wrong")));
        }
        let mut state = State {
            fault: fault.to_string(),
            log: Log::open(path)?,
            position: None,
            records: BTreeMap::new(),
            events: BTreeMap::new(),
            complete_after: 0,
            puts: 0,
            unwritten: Vec::new(),
            dropped: Vec::new(),
        };
        if state.has("refuses_to_open") {
            return Err(Error::internal("it does not open"));
        }
        if !state.has("opens_twice") {
            state.log.claim(path)?;
        }
        if state.has("lock_outlives_close") {
            state.log.leak();
        }
        for group in state.log.read()? {
            state.take_in(&group);
        }
        match fault {
            "begins_with_position" if state.position.is_none() => state.position = Some(Position::new("mine", 0)),
            "epoch_changes_on_reopen" => {
                if let Some(position) = &mut state.position {
                    position.epoch = "another".to_string();
                }
            }
            "loses_position_on_reopen" => state.position = None,
            "forgets_on_reopen" => state.records.clear(),
            "forgets_events_on_reopen" => state.events.clear(),
            _ => {}
        }
        Ok(state)
    }

    fn has(&self, fault: &str) -> bool {
        self.fault == fault
    }

    /// Makes the changes of a group that is in the log.
    fn take_in(&mut self, group: &Group) {
        if !self.has("keeps_undone") {
            self.events.retain(|revision, _| !group.undone.contains(revision));
        }
        for change in &group.changes {
            match change {
                Change::Put(Put { record, event, .. }) => {
                    self.keep(record.revision, event);
                    self.records.insert(record.id.clone(), record.clone());
                }
                Change::Remove(Remove { id, revision, event, .. }) => {
                    self.keep(*revision, event);
                    self.records.remove(id);
                }
                Change::Renew(renew) => {
                    if let Some(record) = self.records.get_mut(&renew.id) {
                        record.last_heartbeat_ms = renew.last_heartbeat_ms;
                    }
                }
                _ => {}
            }
        }
        let is_new = self.position.as_ref().is_none_or(|before| before.epoch != group.position.epoch);
        if is_new && !self.has("keeps_events_of_old_epochs") {
            self.events.clear();
            self.complete_after = group.position.revision;
        }
        self.events = self.events.split_off(&group.forget_before);
        if !self.has("hides_what_was_forgotten") {
            self.complete_after = self.complete_after.max(group.forget_before.saturating_sub(1));
        }
        self.position = Some(group.position.clone());
    }

    fn keep(&mut self, revision: u64, event: &str) {
        let is_lost = self.has("loses_events_of_removals") && !self.events.is_empty() && revision.is_multiple_of(4);
        if !event.is_empty() && !is_lost {
            self.events.insert(revision, event.to_string());
        }
    }

    fn load(&mut self, after: &Cursor) -> Result<Page> {
        if self.has("dropped_lands_late") {
            for group in mem::take(&mut self.dropped) {
                self.commit(group)?;
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
        if self.has("wrong_revision") {
            records.iter_mut().for_each(|record| record.revision += 1);
        }
        let page = Page::new(self.position.clone()).with_records(records);
        Ok(match next {
            Some(_) if self.has("last_page_missing") && left <= PAGE_RECORDS => page,
            Some(next) => page.with_next(next),
            None => page,
        })
    }

    fn history(&self, after: &Cursor) -> Result<History> {
        let start = after.as_str().parse::<u64>().map_or(Unbounded, Excluded);
        let mut rest = self.events.range((start, Unbounded)).map(|(revision, text)| Event::new(*revision, text));
        let mut events: Vec<Event> = rest.by_ref().take(PAGE_RECORDS).collect();
        let next = events.last().filter(|_| rest.next().is_some()).map(|last| last.revision.to_string());
        let mut complete_after = self.complete_after;
        match self.fault.as_str() {
            "events_in_disorder" => events.reverse(),
            "forgets_too_much" => complete_after = self.position.as_ref().map_or(0, |position| position.revision),
            _ => {}
        }
        let page = History::new(complete_after).with_events(events);
        Ok(match next {
            Some(next) => page.with_next(Cursor::after(next)),
            None => page,
        })
    }

    fn commit(&mut self, group: Group) -> Result<Vec<Outcome>> {
        if self.has("slow") {
            thread::sleep(Duration::from_millis(300));
        }
        if self.has("dropped_stays_locked") && !self.dropped.is_empty() {
            return Err(Error::unavailable("another commit is under way"));
        }
        if group.changes.is_empty() {
            match self.fault.as_str() {
                "refuses_empty_groups" => return Err(Error::internal("there is nothing to do")),
                "skips_empty_groups" if self.position.is_some() => return Ok(Vec::new()),
                _ => {}
            }
        }
        let (mut written, mut outcomes) = (group.clone(), vec![Outcome::Missing; group.changes.len()]);
        written.changes.clear();
        let mut places: Vec<usize> = (0..group.changes.len()).collect();
        if self.has("reverses_group") {
            places.reverse();
        }
        let mut ids = HashSet::new();
        let mut there: HashSet<String> = self.records.keys().cloned().collect();
        for place in places {
            let change = &group.changes[place];
            if self.has("makes_an_id_s_first_change_only") && !ids.insert(change.id().to_string()) {
                outcomes[place] = Outcome::done_if(there.contains(change.id()) || matches!(change, Change::Put(_)));
                continue;
            }
            let is_there = there.contains(change.id());
            outcomes[place] = Outcome::done_if(is_there || matches!(change, Change::Put(_)));
            match change {
                Change::Put(put) => there.insert(put.record.id.clone()),
                _ => {
                    there.remove(change.id())
                        && !matches!(change, Change::Remove(_))
                        && there.insert(change.id().into())
                }
            };
            written.changes.extend(self.corrupted(change.clone(), is_there));
        }
        if self.has("position_of_last_change") {
            let last = written.changes.iter().rev().find_map(revision);
            written.position.revision = last.unwrap_or(written.position.revision);
        }
        self.write(&written)?;
        self.take_in(&written);
        match self.fault.as_str() {
            "unsorted_outcomes" => outcomes.reverse(),
            "missing_as_done" => {
                outcomes.iter_mut().filter(|outcome| **outcome == Outcome::Missing).for_each(|it| *it = Outcome::Done);
            }
            _ => {}
        }
        Ok(outcomes)
    }

    fn write(&mut self, group: &Group) -> Result<()> {
        match self.fault.as_str() {
            "acknowledges_first" => {
                let unwritten = mem::replace(&mut self.unwritten, vec![group.clone()]);
                unwritten.iter().try_for_each(|group| self.log.append(group))
            }
            "writes_backwards" if !group.changes.is_empty() => self.log.append_backwards(group),
            "writes_position_later" => {
                let before = self.position.clone().unwrap_or(group.position.clone());
                let mut first = group.clone();
                first.position = before;
                self.log.append_slowly(&first)?;
                self.log.append(&Group::new(group.position.clone(), Vec::new()))
            }
            _ => self.log.append(group),
        }
    }

    /// What is stored of the change, if anything.
    fn corrupted(&mut self, mut change: Change, is_there: bool) -> Option<Change> {
        match &mut change {
            Change::Put(Put { record, .. }) => {
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
            Change::Renew(_) if self.has("loses_renewals") => return None,
            Change::Remove(remove) if self.has("loses_events_of_what_is_missing") && !is_there => {
                remove.event.clear();
            }
            _ => {}
        }
        Some(change)
    }
}

fn revision(change: &Change) -> Option<u64> {
    match change {
        Change::Put(put) => Some(put.record.revision),
        Change::Remove(remove) => Some(remove.revision),
        _ => None,
    }
}
