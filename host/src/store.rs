//! The store lane: one thread that owns the storage plugin and makes all calls to it.
//!
//! A plugin may block there, or await: nothing else runs on that thread, and the rest of the host only sends jobs and
//! receives answers.

use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use registry_plugin_api::{Capabilities, Change, Cursor, Error, ErrorKind, Observed, Outcome, Query, Record, Result};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use crate::plugin::{OpenBackend, Plugin};

/// How long to wait after a failed `watch` before the next.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// What the lane is asked to do.
enum Job {
    Commit(Vec<Change>),
    Discover { ticket: u64, query: Query },
    Load,
    Watch { revision: u64 },
}

/// What comes back.
#[derive(Debug)]
pub enum Answer {
    /// What became of the group of changes.
    Committed(Result<Vec<Outcome>>),
    /// What the store has told of its history.
    Observed(Vec<Observed>),
    /// The store no longer knows its history: everything is to be loaded again.
    HistoryLost,
    /// Everything that is stored.
    Loaded(Result<Contents>),
    /// The choice among the candidates of a query.
    Chosen {
        /// The query's ticket.
        ticket: u64,
        /// The chosen id.
        service_id: Option<String>,
    },
    /// The plugin is closed, and the lane is gone.
    Closed(Result<()>),
}

/// Everything that is stored.
#[derive(Debug, Default)]
pub struct Contents {
    /// The name of the store's history.
    pub epoch: String,
    /// The store's revision.
    pub revision: u64,
    /// All records.
    pub records: Vec<Record>,
}

/// The host's end of the lane.
#[derive(Debug)]
pub struct Store {
    /// `None` once the lane has been told to end.
    jobs: Option<mpsc::UnboundedSender<Job>>,
    answers: mpsc::UnboundedReceiver<Answer>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the plugin's store on a lane of its own, and loads what is in it. From then on a call that takes longer
    /// than `call_timeout` is given up, if it waits; one that blocks cannot be.
    ///
    /// # Errors
    /// Why the store cannot be opened or read.
    pub fn open(plugin: Plugin, options: Map<String, Value>, call_timeout: Duration) -> Result<(Store, Contents)> {
        let (jobs, job_receiver) = mpsc::unbounded_channel();
        let (answer_sender, answers) = mpsc::unbounded_channel();
        let (opened_sender, opened) = oneshot::channel();
        let watches = plugin.info().capabilities.has(Capabilities::NONE.watches());
        let lane = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.map_err(|error| Error::internal(format!("cannot start the store lane: {error}")));
            let opened = runtime.and_then(|runtime| {
                runtime.block_on(open(&plugin, options)).map(|(backend, contents)| (runtime, backend, contents))
            });
            // Whoever does not wait for the answer any more has given up on the host.
            match opened {
                Ok((runtime, backend, contents)) => {
                    if opened_sender.send(Ok(contents)).is_ok() {
                        runtime.block_on(work(backend, call_timeout, job_receiver, answer_sender));
                    }
                }
                Err(error) => drop(opened_sender.send(Err(error))),
            }
        };
        let thread = std::thread::Builder::new().name("store".into()).spawn(lane);
        let thread = thread.map_err(|error| Error::internal(format!("cannot start the store lane: {error}")))?;
        let lost = |_| Error::internal("the store lane ended unexpectedly");
        let contents = opened.blocking_recv().map_err(lost)??;
        let store = Store { jobs: Some(jobs), answers, thread: Some(thread) };
        if watches {
            store.watch(contents.revision);
        }
        Ok((store, contents))
    }

    /// Has a group of changes made: one at a time.
    pub fn commit(&self, changes: Vec<Change>) {
        self.job(Job::Commit(changes));
    }

    /// Has one of a query's candidates chosen.
    pub fn discover(&self, ticket: u64, query: Query) {
        self.job(Job::Discover { ticket, query });
    }

    /// Has everything loaded again.
    pub fn load(&self) {
        self.job(Job::Load);
    }

    /// Has the store's history watched from a revision on.
    pub fn watch(&self, revision: u64) {
        self.job(Job::Watch { revision });
    }

    /// Has the plugin closed, giving up calls that are under way.
    pub fn close(&mut self) {
        self.jobs = None;
    }

    /// The next answer. Nothing is lost if the future is dropped before it is ready.
    pub async fn answer(&mut self) -> Answer {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => {
                // A lane that dies without a word has panicked: that is a defect of the host, told once.
                if let Some(thread) = self.thread.take()
                    && thread.join().is_err()
                {
                    return Answer::Closed(Err(Error::internal("the store lane panicked")));
                }
                std::future::pending().await
            }
        }
    }

    fn job(&self, job: Job) {
        // A lane that is gone has said so in its last answer.
        let _ = self.jobs.as_ref().map(|jobs| jobs.send(job));
    }
}

/// Opens the plugin's store and loads all that is in it.
///
/// # Errors
/// Why it cannot be opened or read.
pub async fn open(plugin: &Plugin, options: Map<String, Value>) -> Result<(OpenBackend, Contents)> {
    let backend = plugin.open(options).await?;
    let contents = load(&backend).await?;
    Ok((backend, contents))
}

async fn load(backend: &OpenBackend) -> Result<Contents> {
    let mut contents = Contents::default();
    let mut after = Cursor::start();
    loop {
        let page = backend.load(after.clone()).await?;
        // A store that others write to may have moved on between two pages: what came after the first is watched.
        if after.is_start() {
            contents.epoch = page.epoch;
            contents.revision = page.revision;
        }
        contents.records.extend(page.records);
        match page.next {
            Some(next) if next == after => {
                return Err(Error::internal("loading does not get on: a page ends where it began"));
            }
            Some(next) => after = next,
            None => return Ok(contents),
        }
    }
}

async fn work(
    backend: OpenBackend,
    call_timeout: Duration,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    answers: mpsc::UnboundedSender<Answer>,
) {
    let closed = {
        let mut calls: FuturesUnordered<LocalBoxFuture<'_, Answer>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(answer) = calls.next(), if !calls.is_empty() => {
                    if answers.send(answer).is_err() {
                        break;
                    }
                }
                job = jobs.recv() => match job {
                    None => break,
                    Some(job) => calls.push(Box::pin(call(&backend, call_timeout, job))),
                },
            }
        }
        backend.close().await
    };
    drop(backend);
    let _ = answers.send(Answer::Closed(closed));
}

async fn call(backend: &OpenBackend, call_timeout: Duration, job: Job) -> Answer {
    match job {
        Job::Commit(changes) => Answer::Committed(limited(call_timeout, backend.commit(changes)).await),
        Job::Load => Answer::Loaded(load(backend).await),
        Job::Watch { revision } => watch(backend, revision).await,
        Job::Discover { ticket, query } => {
            let chosen = limited(call_timeout, backend.discover(query)).await;
            let service_id = chosen.unwrap_or_else(|error| {
                tracing::warn!(%error, "the storage could not choose among services, the host does");
                None
            });
            Answer::Chosen { ticket, service_id }
        }
    }
}

/// Gives a call up when its time is over.
async fn limited<T>(call_timeout: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    let given_up = |_| Error::unavailable(format!("no answer within {} s", call_timeout.as_secs_f64()));
    tokio::time::timeout(call_timeout, call).await.map_err(given_up)?
}

async fn watch(backend: &OpenBackend, revision: u64) -> Answer {
    loop {
        match backend.watch(revision).await {
            Ok(observed) if observed.is_empty() => {}
            Ok(observed) => return Answer::Observed(observed),
            Err(error) if error.kind() == ErrorKind::HistoryLost => return Answer::HistoryLost,
            Err(error) => {
                tracing::warn!(%error, "the storage cannot be watched at the moment");
                tokio::time::sleep(WATCH_RETRY).await;
            }
        }
    }
}
