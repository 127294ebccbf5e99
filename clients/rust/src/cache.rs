//! Services always at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indexmap::IndexMap;
use rand::RngExt as _;
use rand::seq::IteratorRandom as _;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::warn;

use crate::change::Change;
use crate::error::Error;
use crate::filter::Filter;
use crate::link::Connectivity;
use crate::record::Record;
use crate::registry::Registry;
use crate::watch::{News, Puller, Start};

/// The services that are meant, always at hand: listed once and kept by a watch, in the background. It answers without
/// asking, and goes on with what it has while the registry is away; [`age`](Self::age) says how old that is.
///
/// It knows who is registered. Whether a service is late with its heartbeats, only the registry knows.
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), registry_client::Error> {
/// use std::time::Duration;
///
/// use registry_client::{Filter, Registry};
///
/// let registry = Registry::connect("registry.example")?;
/// let cameras = registry.cache("camera");
/// cameras.ready(Duration::from_secs(5)).await?;
/// if let Some(camera) = cameras.discover(None)? {
///     println!("{camera}, as of {:?} ago", cameras.age());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Cache {
    registry: Registry,
    content: Arc<Mutex<Content>>,
    task: AbortHandle,
    listed: watch::Receiver<bool>,
}

#[derive(Debug, Default)]
struct Content {
    services: IndexMap<String, Arc<Record>>,
    by_type: HashMap<String, IndexMap<String, Arc<Record>>>,
    news: News,
    /// Why it is not kept any more, if it is not.
    failed: Option<Error>,
}

impl Content {
    fn take_in(&mut self, change: Change) {
        let id = change.id();
        if let Some(before) = self.services.swap_remove(id) {
            for service_type in types(&before) {
                let Some(services) = self.by_type.get_mut(service_type) else { continue };
                services.swap_remove(id);
                if services.is_empty() {
                    self.by_type.remove(service_type);
                }
            }
        }
        if change.is_there() {
            for service_type in types(&change.record) {
                let services = self.by_type.entry(service_type.to_string()).or_default();
                services.insert(id.to_string(), change.record.clone());
            }
            self.services.insert(id.to_string(), change.record.clone());
        }
    }
}

fn types(record: &Record) -> impl Iterator<Item = &str> {
    record.tags().chain(record.metadata("type").and_then(Value::as_str))
}

/// One of those that may be given, each as likely as the others.
fn one_of(services: &IndexMap<String, Arc<Record>>) -> Option<&Arc<Record>> {
    let mut random = rand::rng();
    // While all is well the first that is drawn is good, however many there are.
    let (_, drawn) = services.get_index(random.random_range(0..services.len().max(1)))?;
    if drawn.is_passing() && !drawn.is_drained() {
        return Some(drawn);
    }
    let given = services.values().filter(|record| !record.is_drained());
    let healthy = given.clone().filter(|record| record.is_passing()).choose(&mut random);
    healthy.or_else(|| given.choose(&mut random))
}

impl Cache {
    pub(crate) fn new(registry: Registry, filter: Filter) -> Self {
        let mut puller = Puller::new(registry.clone(), filter, Start::Existing);
        let content = Arc::new(Mutex::new(Content::default()));
        let kept = content.clone();
        let (has_listed, listed) = watch::channel(false);
        let task = tokio::spawn(async move {
            loop {
                let pulled = puller.pull().await;
                let mut content = lock(&kept);
                match pulled {
                    Ok(changes) => changes.into_iter().for_each(|change| content.take_in(change)),
                    Err(error) => {
                        warn!("a cache is not kept any more: {error}");
                        content.failed = Some(error);
                        return;
                    }
                }
                content.news = puller.news();
                has_listed.send_replace(true);
            }
        });
        Cache { registry, content, task: task.abort_handle(), listed }
    }

    /// Waits for the first list, for no longer than this.
    ///
    /// # Errors
    /// There was none: the registry refuses, or is away (`TimedOut`).
    pub async fn ready(&self, within: Duration) -> Result<(), Error> {
        let mut listed = self.listed.clone();
        match tokio::time::timeout(within, listed.wait_for(|listed| *listed)).await {
            Err(_) => Err(Error::TimedOut { endpoint: self.registry.endpoint(), after: within }),
            // Or nobody lists any more: the error is there to be seen.
            Ok(_) => self.content().map(drop),
        }
    }

    /// How long ago the registry has said for the last time that this is all: some ten seconds at most while all is well,
    /// growing while it is away. `None` before the first list.
    pub fn age(&self) -> Option<Duration> {
        let news = lock(&self.content).news;
        let doubt = Duration::try_from_secs_f64(news.stale_seconds.unwrap_or(0.0)).unwrap_or_default();
        Some(news.confirmed?.elapsed() + doubt)
    }

    /// One service.
    ///
    /// # Errors
    /// There has been no list yet: nobody can tell whether there is one.
    pub fn get(&self, id: &str) -> Result<Option<Arc<Record>>, Error> {
        Ok(self.content()?.services.get(id).cloned())
    }

    /// All services, in no order.
    ///
    /// # Errors
    /// There has been no list yet: nobody can tell what there is.
    pub fn list(&self) -> Result<Vec<Arc<Record>>, Error> {
        Ok(self.content()?.services.values().cloned().collect())
    }

    /// All services of a type, in no order.
    ///
    /// # Errors
    /// There has been no list yet: nobody can tell what there is.
    pub fn list_of(&self, service_type: &str) -> Result<Vec<Arc<Record>>, Error> {
        Ok(self.content()?.by_type.get(service_type).into_iter().flat_map(|all| all.values().cloned()).collect())
    }

    /// One service at random, of a type or, with `None`, of all: of those that were last seen to be healthy, if there are
    /// such. One that is drained is never given.
    ///
    /// # Errors
    /// There has been no list yet: nobody can tell whether there is one.
    pub fn discover<'a>(&self, service_type: impl Into<Option<&'a str>>) -> Result<Option<Arc<Record>>, Error> {
        let content = self.content()?;
        let services = match service_type.into() {
            Some(service_type) => content.by_type.get(service_type),
            None => Some(&content.services),
        };
        Ok(services.and_then(one_of).cloned())
    }

    /// What there is, if it has been listed.
    fn content(&self) -> Result<MutexGuard<'_, Content>, Error> {
        let content = lock(&self.content);
        if content.news.confirmed.is_some() {
            return Ok(content);
        }
        if let Some(error) = &content.failed {
            return Err(error.clone());
        }
        let cause = match &*self.registry.connectivity().borrow() {
            Connectivity::Away { cause } => cause.clone(),
            Connectivity::Connected { .. } => None,
        };
        Err(Error::Unreachable { cause })
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nothing panics in between, so what is there is whole.
fn lock(content: &Mutex<Content>) -> MutexGuard<'_, Content> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::change::ChangeKind;
    use crate::values::Position;

    fn change(kind: &str, id: &str, service_type: &str) -> Change {
        let record = json!({"id": id, "tags": ["all"], "metadata": {"type": service_type}, "health": "passing"});
        let record = Arc::new(Record::try_from(record).unwrap());
        Change::synthesize(ChangeKind::from(kind), record, &Position::new("e", 1))
    }

    #[test]
    fn what_is_found_by_type_follows_the_changes() {
        let mut content = Content::default();
        let found = |content: &Content, service_type: &str| content.by_type.get(service_type).map_or(0, IndexMap::len);
        content.take_in(change("register", "a", "x"));
        content.take_in(change("register", "b", "x"));
        assert_eq!((found(&content, "all"), found(&content, "x")), (2, 2));
        content.take_in(change("register", "a", "y"));
        assert_eq!((found(&content, "all"), found(&content, "x"), found(&content, "y")), (2, 1, 1));
        content.take_in(change("leave", "a", "y"));
        content.take_in(change("expire", "b", "x"));
        assert!(content.services.is_empty() && content.by_type.is_empty());
    }

    #[test]
    fn healthy_ones_are_given_evenly_late_ones_at_last_and_drained_ones_never() {
        let put = |services: &mut IndexMap<String, Arc<Record>>, id: &str, health: &str, drain: Value| {
            let record = Record::try_from(json!({"id": id, "health": health, "drain": drain})).unwrap();
            services.insert(id.to_string(), Arc::new(record));
        };
        let mut services = IndexMap::new();
        assert_eq!(one_of(&services), None);
        put(&mut services, "drained", "passing", json!({"since": 1}));
        assert_eq!(one_of(&services), None);
        put(&mut services, "late", "critical", Value::Null);
        assert_eq!(one_of(&services).unwrap().id(), "late");
        // One behind many that are drained gets no more than its share.
        (0..20).for_each(|number| put(&mut services, &format!("d{number}"), "passing", json!({"since": 1})));
        ["a", "b", "c"].iter().for_each(|id| put(&mut services, id, "passing", Value::Null));
        let mut counts = HashMap::new();
        (0..3000).for_each(|_| *counts.entry(one_of(&services).unwrap().id()).or_insert(0) += 1);
        assert_eq!(counts.len(), 3, "{counts:?}");
        assert!(counts.values().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    /// A list may have changes after its revision, which are told again.
    #[test]
    fn what_is_told_again_changes_nothing() {
        let mut content = Content::default();
        // The list: a came, b came and went, a became another.
        content.take_in(change("register", "a", "y"));
        let again = [("register", "a", "x"), ("register", "b", "x"), ("deregister", "b", "x"), ("register", "a", "y")];
        for (kind, id, service_type) in again {
            content.take_in(change(kind, id, service_type));
        }
        content.take_in(change("leave", "c", "x"));
        content.take_in(change("register", "a", "y"));
        assert_eq!(content.services.keys().collect::<Vec<_>>(), ["a"]);
        let by_type: Vec<(usize, bool)> = content.by_type.values().map(|of| (of.len(), of.contains_key("a"))).collect();
        assert_eq!((by_type.as_slice(), content.by_type.contains_key("x")), (&[(1, true), (1, true)][..], false));
    }
}
