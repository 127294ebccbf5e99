//! Calling a plugin: one call at a time, from one thread, without any runtime, and with an end to the waiting.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use registry_plugin_api::{
    Cursor, Error, Event, Group, History, Outcome, Page, Position, Query, Record, Result, SECRET,
};
use serde_json::{Map, Value};

use super::rules::Rule;
use crate::plugin::{OpenBackend, Plugin};

/// Something that is not as the contract has it.
#[derive(Clone, Debug)]
pub(super) struct Mismatch {
    pub rule: Rule,
    pub expected: String,
    pub got: String,
}

impl Mismatch {
    pub(super) fn new(rule: Rule, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Mismatch { rule, expected: expected.into(), got: got.into() }
    }

    /// The same as a break of the rule that was tried. What the history shows is the history's fault.
    pub(super) fn seen_by(self, rule: Rule) -> Self {
        if self.rule == Rule::History { self } else { Mismatch { rule, ..self } }
    }
}

/// A call that did not end in an answer.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub call: &'static str,
    /// `None` if there was no answer at all.
    pub error: Option<Error>,
    limit: Duration,
}

impl Trouble {
    /// As something that a rule does not allow.
    pub(super) fn breaks(&self, rule: Rule) -> Mismatch {
        let call = self.call;
        let got = match &self.error {
            Some(error) => format!("{} ({})", error, error.kind().as_str()),
            None => format!("no answer within {} s", self.limit.as_secs_f64()),
        };
        Mismatch::new(rule, format!("`{call}` to succeed"), got)
    }

    /// As [`breaks`](Self::breaks), for the opening of a store that has been closed.
    pub(super) fn breaks_reopening(&self, rule: Rule) -> Mismatch {
        let expected = "`open` to succeed after `close`: a lock must be gone when the backend has been dropped";
        Mismatch { expected: expected.to_string(), ..self.breaks(rule) }
    }
}

pub(super) type Called<T> = std::result::Result<T, Trouble>;

/// The call that is under way, so that another thread can name the one that blocks.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<Option<(&'static str, Instant)>>>);

impl UnderWay {
    /// The call, and for how long it has been going on.
    pub(super) fn get(&self) -> Option<(&'static str, Duration)> {
        let call = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        call.map(|(call, since)| (call, since.elapsed()))
    }

    fn set(&self, call: Option<(&'static str, Instant)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = call;
    }
}

/// What no message may hold.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    values: Vec<String>,
    /// The message that held one, without it.
    told: Arc<Mutex<Option<String>>>,
}

impl Secrets {
    pub(super) fn new(values: Vec<String>) -> Self {
        Secrets { values, told: Arc::default() }
    }

    /// The first message that held a secret.
    pub(super) fn told(&self) -> Option<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The error without what is secret.
    fn keep(&self, error: Error) -> Error {
        let message = self.values.iter().fold(error.message().to_string(), |text, value| text.replace(value, SECRET));
        if message == error.message() {
            return error;
        }
        self.told.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| message.clone());
        Error::new(error.kind(), message)
    }
}

/// How calls are made.
#[derive(Clone)]
pub(super) struct Caller {
    pub limit: Duration,
    pub under_way: UnderWay,
    pub secrets: Secrets,
    pub keeps_history: bool,
}

impl Caller {
    fn call<T>(&self, call: &'static str, future: impl Future<Output = Result<T>>) -> Called<T> {
        let answer = self.drive(call, pin!(future), usize::MAX, self.limit);
        let trouble = |error| Trouble { call, error, limit: self.limit };
        answer.ok_or_else(|| trouble(None))?.map_err(|error| trouble(Some(self.secrets.keep(error))))
    }

    /// Polls the future, at most so many times and for so long. `None` if it was not ready by then.
    fn drive<F: Future + ?Sized>(
        &self,
        call: &'static str,
        mut future: Pin<&mut F>,
        polls: usize,
        limit: Duration,
    ) -> Option<F::Output> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let deadline = Instant::now() + limit;
        for poll in 0..polls {
            if poll > 0 {
                // An early return of `park_timeout` costs one poll more.
                thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            }
            self.under_way.set(Some((call, Instant::now())));
            let polled = future.as_mut().poll(&mut context);
            self.under_way.set(None);
            if let Poll::Ready(output) = polled {
                return Some(output);
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
        None
    }

    pub(super) fn open(&self, plugin: &Plugin, options: &Map<String, Value>) -> Called<Store> {
        let backend = self.call("open", plugin.open(options.clone()))?;
        Ok(Store { backend, caller: self.clone() })
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// An open store.
pub(super) struct Store {
    backend: OpenBackend,
    caller: Caller,
}

/// Everything in a store, page by page.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub pages: Vec<Page>,
    /// The recent changes; none if the store does not keep them.
    pub history: Vec<History>,
}

impl Loaded {
    pub(super) fn position(&self) -> Option<&Position> {
        self.pages.first().and_then(|page| page.position.as_ref())
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.pages.iter().flat_map(|page| &page.records)
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.history.iter().flat_map(|page| &page.events)
    }
}

impl Store {
    pub(super) fn load(&self) -> Called<Loaded> {
        let load = |after| self.caller.call("load", self.backend.load(after));
        let pages = self.all("load", load, |page: &Page| page.next.clone())?;
        let history = match self.caller.keeps_history {
            true => {
                let history = |after| self.caller.call("history", self.backend.history(after));
                self.all("history", history, |page: &History| page.next.clone())?
            }
            false => Vec::new(),
        };
        Ok(Loaded { pages, history })
    }

    /// All pages. A store that changes its mind for ever about where to go on has to be stopped: it has more pages than
    /// anything that was put into it.
    fn all<P>(
        &self,
        call: &'static str,
        page: impl Fn(Cursor) -> Called<P>,
        next: impl Fn(&P) -> Option<Cursor>,
    ) -> Called<Vec<P>> {
        let mut pages = vec![page(Cursor::start())?];
        while let Some(after) = pages.last().and_then(&next) {
            if pages.len() >= PAGES_MAX {
                let error = Error::internal(format!("there is no end after {PAGES_MAX} pages"));
                return Err(Trouble { call, error: Some(error), limit: self.caller.limit });
            }
            pages.push(page(after)?);
        }
        Ok(pages)
    }

    pub(super) fn commit(&self, group: Group) -> Called<Vec<Outcome>> {
        self.caller.call("commit", self.backend.commit(group))
    }

    /// Commits with one of the changes of a kind that no plugin knows.
    pub(super) fn commit_unknown(&self, group: Group, place: usize) -> Called<Vec<Outcome>> {
        self.caller.call("commit", self.backend.commit_unknown(group, place))
    }

    /// Begins a commit and drops it after so many polls. `None` if it was ended by that.
    pub(super) fn commit_and_drop(&self, group: Group, polls: usize) -> Option<Result<Vec<Outcome>>> {
        self.caller.drive("commit", pin!(self.backend.commit(group)), polls, self.caller.limit)
    }

    pub(super) fn discover(&self, query: Query) -> Called<Option<String>> {
        self.caller.call("discover", self.backend.discover(query))
    }

    /// Closes the store and drops the backend.
    pub(super) fn close(self) -> Called<()> {
        let closed = self.caller.call("close", self.backend.close());
        self.caller.under_way.set(Some(("drop", Instant::now())));
        drop(self.backend);
        self.caller.under_way.set(None);
        closed
    }
}

/// More pages than a store of the kit's may have.
const PAGES_MAX: usize = 2_000_000;
