//! Changes as they happen.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::answer;
use crate::change::{Change, ChangeKind};
use crate::error::{Code, Error};
use crate::filter::Filter;
use crate::link::{Backoff, Connectivity};
use crate::record::Record;
use crate::registry::Registry;
use crate::values::{Listing, Position, stale_seconds};

/// How long a registry waits for a change before it says that there was none.
const WAIT: Duration = Duration::from_secs(10);
/// A registry that says so sooner is not asked again at once.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// How many changes a reply may have.
const CHANGES_MAX: u64 = 1000;

/// Every change to services that are meant, once and in order: a [`Stream`] that goes on over lost connections and
/// restarts of the registry.
///
/// - It is pulled: while nobody asks for the next change, nothing runs and nothing piles up. Whoever comes back after a
///   while gets all that has happened meanwhile.
/// - A registry that is away is waited for: [`connectivity`](Registry::connectivity) tells of that.
/// - While the registry takes back a change that its storage was too slow with, a list may have later changes than its
///   position says: those are given again.
/// - If the registry does not know the changes any more, because there were too many or its store is another, the watch
///   lists the services and gives the difference to what it had given before: [`Change::synthesized`] says so. A watch
///   from a position of the caller's has nothing to compare with, and fails as `Compacted`.
/// - While it waits it is one of the 192 requests that a [`Registry`] has under way at most: for more watches than that,
///   take several.
/// - Any other refusal (`Forbidden`, say) is given as an error; after that it ends.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), registry_client::Error> {
/// use registry_client::Registry;
///
/// let registry = Registry::connect("registry.example")?;
/// let mut changes = registry.watch("camera").await?;
/// while let Some(change) = changes.next().await {
///     let change = change?;
///     println!("{} {}", change.kind.as_str(), change.record);
/// }
/// # Ok(()) }
/// ```
#[must_use = "nothing is watched before it is polled"]
pub struct Watch {
    step: Step,
    ready: VecDeque<Change>,
    given: Option<Position>,
}

/// When the registry has said for the last time that this is all, and whether it could be sure of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct News {
    pub(crate) confirmed: Option<Instant>,
    pub(crate) stale_seconds: Option<f64>,
}

/// Where a watch begins.
pub(crate) enum Start {
    Now,
    Existing,
    After(Position),
}

/// What has come of a pull, and who pulls on.
type Pulled = (Box<Puller>, Result<Vec<Change>, Error>);

enum Step {
    Idle(Box<Puller>),
    Pulling(Pin<Box<dyn Future<Output = Pulled> + Send>>),
    Over,
}

impl Watch {
    pub(crate) fn new(puller: Puller) -> Self {
        let given = puller.position.clone();
        Watch { step: Step::Idle(Box::new(puller)), ready: VecDeque::new(), given }
    }

    /// One that knows where it begins.
    pub(crate) async fn begin(mut puller: Puller) -> Result<Self, Error> {
        let ready = puller.list().await?.into();
        // What is there already is given from where it is on.
        let given = puller.position.clone();
        Ok(Watch { step: Step::Idle(Box::new(puller)), ready, given })
    }

    /// The next change. Nothing is lost if the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Result<Change, Error>> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// The position up to which all changes have been given: from there another watch can go on. `None` before the first
    /// answer of the registry.
    pub fn position(&self) -> Option<&Position> {
        self.given.as_ref()
    }
}

impl Stream for Watch {
    type Item = Result<Change, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let watch = self.get_mut();
        loop {
            if let Some(change) = watch.ready.pop_front() {
                watch.given = Some(change.position.clone());
                return Poll::Ready(Some(Ok(change)));
            }
            match std::mem::replace(&mut watch.step, Step::Over) {
                Step::Over => return Poll::Ready(None),
                Step::Idle(mut puller) => {
                    // All that was there has been given, and there is nothing else up to here.
                    watch.given = puller.position.clone().or(watch.given.take());
                    watch.step = Step::Pulling(Box::pin(async move {
                        let pulled = puller.pull().await;
                        (puller, pulled)
                    }));
                }
                Step::Pulling(mut pulling) => match pulling.as_mut().poll(context) {
                    Poll::Pending => {
                        watch.step = Step::Pulling(pulling);
                        return Poll::Pending;
                    }
                    Poll::Ready((puller, Ok(changes))) => {
                        watch.ready = changes.into();
                        watch.step = Step::Idle(puller);
                    }
                    Poll::Ready((_, Err(Error::Closed))) => return Poll::Ready(None),
                    Poll::Ready((_, Err(error))) => return Poll::Ready(Some(Err(error))),
                },
            }
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("given", &self.given).finish_non_exhaustive()
    }
}

/// Asks for changes.
pub(crate) struct Puller {
    registry: Registry,
    filter: Filter,
    position: Option<Position>,
    /// The services that are there, as far as changes were given: what a new list is compared with.
    known: Option<HashMap<String, Arc<Record>>>,
    /// Whether the first list is given, too.
    is_existing_wanted: bool,
    backoff: Backoff,
    connectivity: watch::Receiver<Connectivity>,
    news: News,
}

impl Puller {
    pub(crate) fn new(registry: Registry, filter: Filter, start: Start) -> Self {
        let (position, known, is_existing_wanted) = match start {
            Start::Now => (None, Some(HashMap::new()), false),
            Start::Existing => (None, Some(HashMap::new()), true),
            Start::After(position) => (Some(position), None, false),
        };
        let backoff = Backoff::new(registry.link.settings().backoff);
        let connectivity = registry.link.connectivity();
        let (filter, news) = (filter.without_fields(), News::default());
        Puller { registry, filter, position, known, is_existing_wanted, backoff, connectivity, news }
    }

    /// What the registry has said last.
    pub(crate) fn news(&self) -> News {
        self.news
    }

    /// Asks until there are changes, or none for a while.
    pub(crate) async fn pull(&mut self) -> Result<Vec<Change>, Error> {
        loop {
            let pulled = match self.position.clone() {
                Some(position) => self.changes(position).await,
                None => self.list().await,
            };
            match pulled {
                Err(error) if error.may_pass() => {
                    debug!("watching goes on later: {error}");
                    // A clone knows of no change before the last request: another connection is not waited out.
                    let mut connectivity = self.connectivity.clone();
                    let _ = tokio::time::timeout(self.backoff.next(), connectivity.changed()).await;
                }
                Err(error) if error.code() == Some(&Code::Compacted) && self.known.is_some() => {
                    info!("the registry does not know the changes any more: it is listed again");
                    self.position = None;
                }
                pulled => {
                    self.backoff.reset();
                    return pulled;
                }
            }
        }
    }

    async fn changes(&mut self, position: Position) -> Result<Vec<Change>, Error> {
        let mut request = self.filter.request();
        request["epoch"] = json!(position.epoch);
        request["after"] = json!(position.revision);
        request["limit"] = json!(CHANGES_MAX);
        // Over another connection than the last time it is known at once whether anything has changed meanwhile. Nor is the
        // request sent again with a wait that is over too late: the next one is as good.
        let is_new = self.connectivity.has_changed().unwrap_or(true);
        let is_away = matches!(*self.connectivity.borrow_and_update(), Connectivity::Away { .. });
        let wait = if is_new || is_away { Duration::ZERO } else { WAIT };
        request["wait"] = json!(wait.as_secs());
        let timeout = wait + self.registry.timeout();
        let asked = Instant::now();
        let mut reply = self.registry.ask_within("watch", request, timeout, false).await.0?;
        let lacks = |field| answer::without(&self.registry.endpoint(), field);
        let next = Position::of(&reply).ok_or_else(|| lacks("revision"))?;
        let changes = reply.get_mut("changes").map(Value::take).unwrap_or_default();
        let Value::Array(changes) = changes else { return Err(lacks("changes")) };
        let changes = changes.into_iter().map(|change| Change::read(change).ok_or_else(|| lacks("changes[].data")));
        let mut changes: Vec<Change> = changes.collect::<Result<_, _>>()?;
        changes
            .retain(|change| change.position.epoch == position.epoch && change.position.revision > position.revision);
        if let Some(known) = &mut self.known {
            for change in &changes {
                if change.is_there() {
                    known.insert(change.id().to_string(), change.record.clone());
                } else {
                    known.remove(change.id());
                }
            }
        }
        self.news = News { confirmed: Some(Instant::now()), stale_seconds: stale_seconds(&reply) };
        let has_moved = self.position.as_ref() != Some(&next);
        self.position = Some(next);
        if changes.is_empty() && !has_moved && !wait.is_zero() && asked.elapsed() < WAIT_MIN {
            self.registry.pause().await;
        }
        Ok(changes)
    }

    /// Lists what there is, and finds the difference to what was known.
    async fn list(&mut self) -> Result<Vec<Change>, Error> {
        let listing = self.registry.list(self.filter.clone()).await?;
        let Some(position) = listing.position.clone() else {
            return Err(answer::without(&self.registry.endpoint(), "revision"));
        };
        self.connectivity.mark_unchanged();
        let is_first = self.news.confirmed.is_none();
        let changes = self.difference(listing, &position);
        self.position = Some(position);
        Ok(if is_first && !self.is_existing_wanted { Vec::new() } else { changes })
    }

    fn difference(&mut self, listing: Listing, position: &Position) -> Vec<Change> {
        self.news = News { confirmed: Some(Instant::now()), stale_seconds: listing.stale_seconds };
        let mut before = self.known.take().unwrap_or_default();
        let mut now = HashMap::with_capacity(listing.services.len());
        let mut come = Vec::new();
        for record in listing.services {
            let record = Arc::new(record);
            let is_new = before.remove(record.id()).is_none_or(|before| !before.is_same_as(&record));
            if is_new {
                come.push(Change::synthesize(ChangeKind::Register, record.clone(), position));
            }
            now.insert(record.id().to_string(), record);
        }
        self.known = Some(now);
        // What has gone goes first: another may have its place by now.
        let gone = before.into_values().map(|record| Change::synthesize(ChangeKind::Leave, record, position));
        gone.chain(come).collect()
    }
}
