//! The calls that only read.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{Registry, named};
use crate::answer;
use crate::error::{Code, Error};
use crate::filter::Filter;
use crate::record::Record;
use crate::values::{Health, HistoryEntry, Listing, Position, TypeCount, stale_seconds};

/// How many services are asked for in one page.
const PAGE: usize = 500;
/// How often a list is begun again that the registry cannot go on with.
const LISTS_MAX: usize = 5;
impl Registry {
    /// One healthy service, at random.
    ///
    /// # Errors
    /// There is none (`NoneHealthy`), or no answer in time.
    pub async fn discover(&self, filter: impl Into<Filter>) -> Result<Record, Error> {
        let reply = self.ask("discover", filter.into().request()).await?;
        self.record(reply)
    }

    /// One healthy service, as soon as there is one within `wait`, over restarts of the registry too.
    ///
    /// # Errors
    /// There was none (`NoneHealthy`), or no answer within `wait` and the time-out together.
    pub async fn discover_within(&self, filter: impl Into<Filter>, wait: Duration) -> Result<Record, Error> {
        let reply = self.wait_for("discover", filter.into().request(), wait).await?;
        self.record(reply)
    }

    /// Up to so many healthy services, each once, at random: none, if there are none.
    ///
    /// # Errors
    /// The registry refuses, or there was no answer in time.
    pub async fn discover_many(&self, filter: impl Into<Filter>, limit: usize) -> Result<Vec<Record>, Error> {
        self.discover_many_within(filter, limit, Duration::ZERO).await
    }

    /// The same, as soon as there is one at least within `wait`, over restarts of the registry too.
    ///
    /// # Errors
    /// The registry refuses, or there was no answer within `wait` and the time-out together.
    pub async fn discover_many_within(
        &self,
        filter: impl Into<Filter>,
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Record>, Error> {
        let mut request = filter.into().request();
        request["limit"] = json!(limit);
        let reply = match wait {
            Duration::ZERO => self.ask("discover", request).await,
            wait => self.wait_for("discover", request, wait).await,
        };
        match reply {
            // An older registry knows no limit.
            Ok(reply) if reply.get("services").is_none() => Ok(vec![self.record(reply)?]),
            Ok(mut reply) => self.records(&mut reply),
            Err(error) if error.code() == Some(&Code::NoneHealthy) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Asks until there is something within `wait`, each time for what is left of it.
    async fn wait_for(&self, action: &str, mut request: Value, wait: Duration) -> Result<Value, Error> {
        let wait_until = Instant::now() + wait;
        let deadline = wait_until + self.timeout;
        loop {
            let begun = Instant::now();
            // In pieces: so nothing waits for long at a host that has not noticed that it is cut off.
            let piece = wait_until.saturating_duration_since(begun).min(self.link.settings().dead_after);
            request["wait"] = json!(piece.as_secs_f64());
            let timeout = deadline.saturating_duration_since(begun).min(piece + self.timeout);
            match self.ask_within(action, request.clone(), timeout, false).await.0 {
                Err(error) if error.code() == Some(&Code::NoneHealthy) && Instant::now() < wait_until => {
                    // An older registry does not wait.
                    if begun.elapsed() < piece / 2 {
                        self.pause().await;
                    }
                }
                Err(error) if error.may_pass() && Instant::now() < deadline => self.pause().await,
                reply => return reply,
            }
        }
    }

    /// One service, healthy or not.
    ///
    /// # Errors
    /// There is none (`NotFound`), or no answer in time.
    pub async fn get(&self, id: &str) -> Result<Record, Error> {
        let reply = self.ask("get", named(id, None)).await?;
        self.record(reply)
    }

    /// All services that are meant, healthy or not, and the moment when that was all: page by page, however many there
    /// are.
    ///
    /// # Errors
    /// The registry refuses, or one page did not come in time.
    pub async fn list(&self, filter: impl Into<Filter>) -> Result<Listing, Error> {
        self.list_by(filter, PAGE).await
    }

    /// The same, with so many services in a page: 1 to 10,000.
    ///
    /// # Errors
    /// The registry refuses, or one page did not come in time.
    pub async fn list_by(&self, filter: impl Into<Filter>, page: usize) -> Result<Listing, Error> {
        let request = filter.into().request();
        let mut listing = Listing { services: Vec::new(), position: None, stale_seconds: None };
        self.pages("list", request, page, |reply, is_first| {
            if is_first {
                listing.services.clear();
                listing.position = Position::of(reply);
                listing.stale_seconds = stale_seconds(reply);
            }
            listing.services.append(&mut self.records(reply)?);
            Ok(())
        })
        .await?;
        // A service that was changed between two pages may be in both.
        let mut last = HashMap::new();
        for (place, record) in listing.services.iter().enumerate() {
            last.insert(record.id().to_string(), place);
        }
        if last.len() < listing.services.len() {
            let mut place = 0;
            listing.services.retain(|record| (last.get(record.id()) == Some(&place), place += 1).0);
        }
        Ok(listing)
    }

    /// All types, and how many services are found by each.
    ///
    /// # Errors
    /// The registry refuses, or one page did not come in time.
    pub async fn types(&self) -> Result<BTreeMap<String, TypeCount>, Error> {
        let mut types = BTreeMap::new();
        self.pages("types", json!({}), PAGE, |reply, is_first| {
            if is_first {
                types.clear();
            }
            for (name, count) in reply.get("types").and_then(Value::as_object).into_iter().flatten() {
                let count_of = |health: &str| count.get(health).and_then(Value::as_u64).unwrap_or(0);
                let (passing, drained) = (count_of("passing"), count_of("drained"));
                types.insert(name.clone(), TypeCount { passing, drained, critical: count_of("critical") });
            }
            Ok(())
        })
        .await?;
        Ok(types)
    }

    /// What happened to a service, oldest first, as far as the registry remembers.
    ///
    /// # Errors
    /// The registry refuses, or there was no answer in time.
    pub async fn history(&self, id: &str) -> Result<Vec<HistoryEntry>, Error> {
        let reply = self.ask("history", named(id, None)).await?;
        let entries = reply.get("history").and_then(Value::as_array).into_iter().flatten();
        Ok(entries.filter_map(HistoryEntry::read).collect())
    }

    /// How the registry is. One that is starting says so.
    ///
    /// # Errors
    /// There was no answer in time.
    pub async fn health(&self) -> Result<Health, Error> {
        match self.ask_once("health", json!({}), self.timeout(), true).await.0 {
            Ok(reply) => Ok(Health::read(&reply)),
            Err(Error::Refused(refusal)) if refusal.code == Code::Starting => Ok(Health::read(&refusal.reply)),
            Err(error) => Err(error),
        }
    }

    /// What the registry says of itself: ports, settings, and all services.
    ///
    /// # Errors
    /// The registry refuses, or there was no answer in time.
    pub async fn info(&self) -> Result<Map<String, Value>, Error> {
        Ok(self.ask("info", json!({})).await?.as_object().cloned().unwrap_or_default())
    }

    /// Follows the cursor of a list. `take` gets each reply, and whether the list begins with it.
    async fn pages(
        &self,
        action: &str,
        request: Value,
        limit: usize,
        mut take: impl FnMut(&mut Value, bool) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut cursor, mut lists) = (None::<Value>, 1);
        loop {
            let mut page = request.clone();
            page["limit"] = json!(limit);
            let is_first = cursor.is_none();
            if let Some(cursor) = cursor {
                page["cursor"] = cursor;
            }
            match self.ask(action, page).await {
                Ok(mut reply) => {
                    take(&mut reply, is_first)?;
                    cursor = reply.get_mut("cursor").map(Value::take).filter(|cursor| !cursor.is_null());
                    if cursor.is_none() {
                        return Ok(());
                    }
                }
                Err(error) if error.code() == Some(&Code::Compacted) && lists < LISTS_MAX => {
                    lists += 1;
                    cursor = None;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn record(&self, mut reply: Value) -> Result<Record, Error> {
        let service = reply.get_mut("service").map(Value::take).unwrap_or_default();
        Record::try_from(service).map_err(|_| answer::without(&self.endpoint(), "service"))
    }

    fn records(&self, reply: &mut Value) -> Result<Vec<Record>, Error> {
        let services = reply.get_mut("services").map(Value::take).unwrap_or_default();
        let Value::Array(services) = services else { return Err(answer::without(&self.endpoint(), "services")) };
        let records = services.into_iter().map(Record::try_from).collect::<Result<_, _>>();
        records.map_err(|_| answer::without(&self.endpoint(), "services[].id"))
    }
}
