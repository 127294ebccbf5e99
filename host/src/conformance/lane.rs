//! Calling a plugin: one call at a time, from one thread, without any runtime, and with an end to the waiting.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use registry_plugin_api::{Change, Cursor, Error, Observed, Outcome, Page, Query, Record, Result};
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

/// The call that is under way, for whoever has to tell a call that blocks its thread.
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

/// How calls are made.
#[derive(Clone)]
pub(super) struct Caller {
    pub limit: Duration,
    pub under_way: UnderWay,
}

impl Caller {
    fn call<T>(&self, call: &'static str, future: impl Future<Output = Result<T>>) -> Called<T> {
        let answer = self.drive(call, pin!(future), usize::MAX, self.limit);
        let trouble = |error| Trouble { call, error, limit: self.limit };
        answer.ok_or_else(|| trouble(None))?.map_err(|error| trouble(Some(error)))
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
}

impl Loaded {
    pub(super) fn epoch(&self) -> &str {
        self.pages.first().map_or("", |page| &page.epoch)
    }

    pub(super) fn revision(&self) -> u64 {
        self.pages.first().map_or(0, |page| page.revision)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.pages.iter().flat_map(|page| &page.records)
    }
}

impl Store {
    pub(super) fn load(&self) -> Called<Loaded> {
        let mut pages: Vec<Page> = Vec::new();
        let mut after = Cursor::start();
        // A store that changes its mind for ever about where to go on has to be stopped: it has more pages than
        // anything that was put into it.
        while pages.len() < PAGES_MAX {
            let page = self.caller.call("load", self.backend.load(after))?;
            let next = page.next.clone();
            pages.push(page);
            match next {
                Some(next) => after = next,
                None => return Ok(Loaded { pages }),
            }
        }
        let error = Error::internal(format!("there is no end after {PAGES_MAX} pages"));
        Err(Trouble { call: "load", error: Some(error), limit: self.caller.limit })
    }

    pub(super) fn commit(&self, changes: Vec<Change>) -> Called<Vec<Outcome>> {
        self.caller.call("commit", self.backend.commit(changes))
    }

    /// Begins a commit and drops it after so many polls. `None` if it was ended by that.
    pub(super) fn commit_and_drop(&self, changes: Vec<Change>, polls: usize) -> Option<Result<Vec<Outcome>>> {
        self.caller.drive("commit", pin!(self.backend.commit(changes)), polls, self.caller.limit)
    }

    /// A `watch` that waits until it is driven.
    pub(super) fn watch(&self, revision: u64) -> Watch<'_> {
        Watch { future: Box::pin(self.backend.watch(revision)), caller: &self.caller }
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

/// A call of `watch` that is under way.
pub(super) struct Watch<'a> {
    future: Pin<Box<dyn Future<Output = Result<Vec<Observed>>> + 'a>>,
    caller: &'a Caller,
}

impl Watch<'_> {
    /// Waits for the answer. `None` if there is none so far; then it can be waited for again.
    pub(super) fn wait(&mut self, limit: Duration) -> Option<Result<Vec<Observed>>> {
        self.caller.drive("watch", self.future.as_mut(), usize::MAX, limit)
    }
}
