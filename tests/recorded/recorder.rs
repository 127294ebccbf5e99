//! Writes down what happens, all of it by one clock and in one order.
//!
//! What is sent is written down before it is sent, and what is received after it was: so whatever stands before
//! something else in the history may have caused it.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::history::{Ask, Event, History, Rules, What};

/// There is one host.
pub(crate) const HOST: usize = 0;

pub(crate) struct Recorder {
    began: Instant,
    inner: Mutex<Inner>,
    acknowledged: Condvar,
}

struct Inner {
    history: History,
    calls: usize,
    /// The life of the host that goes on, if one does.
    life: Option<usize>,
    acknowledged: usize,
    /// The greatest revision that was announced, or that a store was at.
    newest: u64,
}

impl Recorder {
    pub(crate) fn new(rules: Rules) -> Recorder {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |unix| unix.as_millis() as u64);
        let history = History { rules, unix_ms, entries: Vec::new() };
        let inner = Inner { history, calls: 0, life: None, acknowledged: 0, newest: 0 };
        Recorder { began: Instant::now(), inner: Mutex::new(inner), acknowledged: Condvar::new() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// A client is about to ask for something: the number of the call.
    pub(crate) fn asked(&self, client: usize, ask: Ask) -> usize {
        let mut inner = self.inner();
        inner.calls += 1;
        let call = inner.calls;
        self.push(&mut inner, What::Asked { call, client, host: HOST, key: None, ask });
        call
    }

    /// A host has answered in this life.
    pub(crate) fn answered(&self, life: usize, call: usize, reply: Value) {
        let mut inner = self.inner();
        if inner.life != Some(life) {
            return self.push(&mut inner, What::Note(format!("#{call} was answered by {reply}, seen too late")));
        }
        inner.acknowledged += usize::from(reply["success"] == true && reply["service"].is_null());
        self.push(&mut inner, What::Answered { call, host: HOST, reply });
        self.acknowledged.notify_all();
    }

    /// A client does not wait for an answer any longer.
    pub(crate) fn gave_up(&self, call: usize) {
        self.note(What::GaveUp { call });
    }

    /// A host has told its subscribers something in this life.
    pub(crate) fn announced(&self, life: usize, event: Result<Event, String>) {
        let mut inner = self.inner();
        if inner.life == Some(life) {
            self.push(&mut inner, What::Announced { host: HOST, event });
        }
    }

    /// Something that was noticed in this life, if it still goes on.
    pub(crate) fn noticed(&self, life: usize, what: What) {
        let mut inner = self.inner();
        if inner.life == Some(life) {
            self.push(&mut inner, what);
        }
    }

    pub(crate) fn note(&self, what: What) {
        let mut inner = self.inner();
        self.push(&mut inner, what);
    }

    /// A life begins, or ends.
    pub(crate) fn turn(&self, life: Option<usize>, what: What) {
        let mut inner = self.inner();
        inner.life = life;
        self.push(&mut inner, what);
    }

    /// Does something while nothing is written down: so that it has happened between what stands before and after it.
    pub(crate) fn between<T>(&self, what: What, act: impl FnOnce() -> T) -> T {
        let mut inner = self.inner();
        let done = act();
        self.push(&mut inner, what);
        done
    }

    /// Waits until so many more changes are acknowledged than there are now, but not for long.
    pub(crate) fn wait_for_acknowledged(&self, count: usize, longest: Duration) {
        let inner = self.inner();
        let wanted = inner.acknowledged + count;
        let wait = self.acknowledged.wait_timeout_while(inner, longest, |inner| inner.acknowledged < wanted);
        drop(wait);
    }

    /// The greatest revision that anybody has seen.
    pub(crate) fn newest(&self) -> u64 {
        self.inner().newest
    }

    /// What has been written down.
    pub(crate) fn into_history(self) -> History {
        self.inner.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).history
    }

    fn push(&self, inner: &mut Inner, what: What) {
        let revision = match &what {
            What::Announced { event: Ok(event), .. } => event.revision,
            What::Started { revision, .. } => *revision,
            _ => 0,
        };
        inner.newest = inner.newest.max(revision);
        inner.history.push(self.now_ms(), what);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no thread panics with it")
    }
}
