//! The store lane: one thread that owns the storage plugin and makes all calls to it.
//!
//! A plugin may block there, or await: nothing else runs on that thread, and the rest of the host only sends jobs and
//! receives answers. What a durable store keeps is sealed there, at no cost for anybody who is served.

pub(crate) mod mark;
pub(crate) mod restoring;
mod seal;

use std::collections::VecDeque;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use registry_plugin_api::{
    Capabilities, Cursor, Error, Event, Group, Outcome, Position, Query, Record, Remove, Result,
};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use crate::plugin::{OpenBackend, Plugin};
use mark::Mark;

/// How many records are removed at once that are of no use any more.
const CLEARED_MAX: usize = 1000;

/// What the lane is asked to do.
enum Job {
    Commit(Group),
    Discover { ticket: u64, query: Query },
}

/// What comes back.
#[derive(Debug)]
pub enum Answer {
    /// The plugin's store is open, and this is in it: the first answer. Or why it cannot be opened or read: the last one.
    Opened(Result<Contents>),
    /// What became of the group of changes.
    Committed(Result<Vec<Outcome>>),
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
    /// How far the store's history goes. No revision in the store is greater.
    pub position: Position,
    /// All records that are sound.
    pub records: Vec<Record>,
    /// The ids of records that are damaged.
    pub damaged: Vec<String>,
    /// The recent changes.
    pub history: RecentChanges,
}

/// How many recent changes are taken over from a store that has kept them.
#[derive(Clone, Copy, Debug)]
pub struct HistoryMax {
    /// The most changes.
    pub changes: usize,
    /// How long they may be together, in bytes.
    pub bytes: usize,
}

impl Default for HistoryMax {
    fn default() -> Self {
        HistoryMax { changes: 100_000, bytes: 64 << 20 }
    }
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be in charge.
    Serve {
        /// Even if another one has taken its place.
        reopened: bool,
    },
    /// To be filled, and to be in charge then.
    Fill,
}

/// The recent changes that a store has kept.
#[derive(Debug, Default)]
pub struct RecentChanges {
    /// Every change with a greater revision is among the events.
    pub complete_after: u64,
    /// In the order of their revisions.
    pub events: VecDeque<Event>,
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
    /// Opens the plugin's store on a lane of its own, and waits until everything is loaded that is in it: see
    /// [`begin`](Self::begin).
    ///
    /// # Errors
    /// Why the store cannot be opened or read.
    pub fn open(
        plugin: Plugin,
        options: Map<String, Value>,
        call_timeout: Duration,
        history: Option<HistoryMax>,
    ) -> Result<(Store, Contents)> {
        let mut store = Store::begin(plugin, options, call_timeout, history, Purpose::Serve { reopened: false })?;
        match store.answers.blocking_recv() {
            Some(Answer::Opened(contents)) => Ok((store, contents?)),
            _ => Err(Error::internal("the store lane ended unexpectedly")),
        }
    }

    /// Begins to open the plugin's store on a lane of its own, and to load what is in it: the first
    /// [`answer`](Self::answer) brings that. From then on a call that takes longer than `call_timeout` is given up, if
    /// it waits; one that blocks cannot be. The recent changes, which may be many, are loaded only if they are wanted.
    ///
    /// # Errors
    /// There is no lane.
    pub fn begin(
        plugin: Plugin,
        options: Map<String, Value>,
        call_timeout: Duration,
        history: Option<HistoryMax>,
        purpose: Purpose,
    ) -> Result<Store> {
        let (jobs, job_receiver) = mpsc::unbounded_channel();
        let (answer_sender, answers) = mpsc::unbounded_channel();
        let lane = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.map_err(|error| Error::internal(format!("cannot start the store lane: {error}")));
            let opened = runtime.and_then(|runtime| {
                let is_durable = plugin.capabilities(&options)?.has(Capabilities::NONE.durable());
                let (backend, mut contents) = runtime.block_on(open_with(&plugin, options, history, purpose))?;
                seal::open(&mut contents);
                if !contents.damaged.is_empty() {
                    runtime.block_on(begin_anew(&backend, &mut contents))?;
                }
                Ok((runtime, Lane { backend, call_timeout, is_durable }, contents))
            });
            // If nobody waits for the answer any more, the host has given up.
            match opened {
                Ok((runtime, lane, contents)) => {
                    if answer_sender.send(Answer::Opened(Ok(contents))).is_ok() {
                        runtime.block_on(work(lane, job_receiver, answer_sender));
                    }
                }
                Err(error) => drop(answer_sender.send(Answer::Opened(Err(error)))),
            }
        };
        let thread = std::thread::Builder::new().name("store".into()).spawn(lane);
        let thread = thread.map_err(|error| Error::internal(format!("cannot start the store lane: {error}")))?;
        Ok(Store { jobs: Some(jobs), answers, thread: Some(thread) })
    }

    /// Has a group of changes made: one at a time.
    pub fn commit(&self, group: Group) {
        self.job(Job::Commit(group));
    }

    /// Has one of a query's candidates chosen.
    pub fn discover(&self, ticket: u64, query: Query) {
        self.job(Job::Discover { ticket, query });
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

/// Opens the plugin's store and loads all that is in it. A store without a position begins a new epoch, and so does one
/// whose position is behind its records, since it cannot be the one that was committed last.
///
/// # Errors
/// Why it cannot be opened, read or, with a new epoch, written.
pub async fn open(plugin: &Plugin, options: Map<String, Value>) -> Result<(OpenBackend, Contents)> {
    open_with(plugin, options, Some(HistoryMax::default()), Purpose::Serve { reopened: false }).await
}

async fn open_with(
    plugin: &Plugin,
    options: Map<String, Value>,
    wanted: Option<HistoryMax>,
    purpose: Purpose,
) -> Result<(OpenBackend, Contents)> {
    let capabilities = plugin.capabilities(&options)?;
    let is_kept = capabilities.has(Capabilities::NONE.history());
    let (backend, position, mut records) = read(plugin, options).await?;
    let mut staged = Vec::new();
    if purpose != Purpose::Fill
        && let Some(position) = &position
        && let Some(Mark::Restoring(name)) = Mark::of(position)
    {
        let (mut rest, damaged) = restoring::resume(name, position.clone(), records);
        tracing::warn!("the registry ended while a backup was restored: that is completed now");
        rest.write(&backend, capabilities.has(Capabilities::NONE.durable())).await?;
        let (position, records) = rest.into_restored();
        let history = RecentChanges { complete_after: position.revision, ..RecentChanges::default() };
        return Ok((backend, Contents { position, records, damaged, history }));
    }
    let position = match (purpose, position) {
        (Purpose::Fill, position) => {
            mark::check_fillable(position.as_ref(), records.len())?;
            let position = position.unwrap_or_default();
            return Ok((backend, Contents { position, records, ..Contents::default() }));
        }
        (Purpose::Serve { reopened }, Some(position)) => mark::in_charge(position, reopened)?,
        (Purpose::Serve { .. }, None) => None,
    };
    records.retain(|record| {
        let is_staged = restoring::is_staged(&record.id);
        staged.extend(is_staged.then(|| record.id.clone()));
        !is_staged
    });
    let wanted = wanted.filter(|_| is_kept);
    let has_history = wanted.is_some();
    let history = match wanted {
        Some(max) => load_history(&backend, max).await?,
        None => RecentChanges::default(),
    };
    let last_record = records.iter().map(|record| record.revision).max().unwrap_or_default();
    let last_event = history.events.back().map(|event| event.revision).unwrap_or_default();
    let last = last_record.max(last_event);
    let position = position.filter(|position| {
        if position.revision < last {
            let revision = position.revision;
            tracing::warn!(
                "the storage says that it is at revision {revision}, and holds a change with revision {last}: \
                 a new epoch begins"
            );
        }
        position.revision >= last
    });
    let contents = match position {
        Some(position) if has_history => Contents { position, records, history, ..Contents::default() },
        Some(position) => {
            let history = RecentChanges { complete_after: position.revision, ..history };
            Contents { position, records, history, ..Contents::default() }
        }
        // The revisions go on where what is there ends, so that no two changes ever have the same.
        None => {
            let position = Position::new(new_epoch(), last);
            backend.commit(Group::new(position.clone(), Vec::new())).await?;
            let history = RecentChanges { complete_after: last, events: VecDeque::new() };
            Contents { position, records, history, ..Contents::default() }
        }
    };
    if let Err(error) = clear(&backend, &contents.position, staged).await {
        tracing::warn!("what an earlier restore has left behind cannot be removed, and does no harm: {error}");
    }
    Ok((backend, contents))
}

/// Removes what a restore has left behind that never came to anything.
async fn clear(backend: &OpenBackend, position: &Position, staged: Vec<String>) -> Result<()> {
    for part in staged.chunks(CLEARED_MAX) {
        let removed = part.iter().map(|id| Remove::new(id.as_str(), position.revision).into());
        backend.commit(Group::new(position.clone(), removed.collect())).await?;
    }
    Ok(())
}

/// Begins a new epoch: something that clients know of is not there any more, of which nobody can be told.
async fn begin_anew(backend: &OpenBackend, contents: &mut Contents) -> Result<()> {
    let revision = contents.position.revision;
    contents.position = Position::new(new_epoch(), revision);
    contents.history = RecentChanges { complete_after: revision, events: VecDeque::new() };
    backend.commit(Group::new(contents.position.clone(), Vec::new())).await?;
    Ok(())
}

/// Opens the plugin's store and loads its position and its records, without writing anything.
///
/// # Errors
/// Why it cannot be opened or read.
pub async fn read(
    plugin: &Plugin,
    options: Map<String, Value>,
) -> Result<(OpenBackend, Option<Position>, Vec<Record>)> {
    let backend = plugin.open(options).await?;
    let first = backend.load(Cursor::start()).await?;
    let (position, mut records, mut next) = (first.position, first.records, first.next);
    while let Some(after) = next {
        let page = backend.load(after).await?;
        records.extend(page.records);
        next = page.next;
    }
    Ok((backend, position, records))
}

/// The newest of the recent changes, as many as there may be.
async fn load_history(backend: &OpenBackend, max: HistoryMax) -> Result<RecentChanges> {
    let mut history = RecentChanges::default();
    let (mut next, mut bytes) = (Some(Cursor::start()), 0);
    while let Some(after) = next {
        let page = backend.history(after).await?;
        history.complete_after = history.complete_after.max(page.complete_after);
        for event in page.events {
            bytes += event.text.len();
            history.events.push_back(event);
            while (history.events.len() > max.changes || bytes > max.bytes)
                && let Some(oldest) = history.events.pop_front()
            {
                bytes -= oldest.text.len();
                history.complete_after = history.complete_after.max(oldest.revision);
            }
        }
        next = page.next;
    }
    Ok(history)
}

/// A name for a new history of changes: 128 random bits in hexadecimal.
pub(crate) fn new_epoch() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// What the lane's calls are made with.
struct Lane {
    backend: OpenBackend,
    call_timeout: Duration,
    /// What is stored outlives the host.
    is_durable: bool,
}

async fn work(lane: Lane, mut jobs: mpsc::UnboundedReceiver<Job>, answers: mpsc::UnboundedSender<Answer>) {
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
                Some(job) => calls.push(Box::pin(call(&lane, job))),
            },
        }
    }
    // What a call holds must not keep the close waiting.
    drop(calls);
    let closed = lane.backend.close().await;
    drop(lane);
    let _ = answers.send(Answer::Closed(closed));
}

async fn call(Lane { backend, call_timeout, is_durable }: &Lane, job: Job) -> Answer {
    let call_timeout = *call_timeout;
    match job {
        Job::Commit(mut group) => {
            if *is_durable {
                seal::seal(&mut group);
            }
            Answer::Committed(limited(call_timeout, backend.commit(group)).await)
        }
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
