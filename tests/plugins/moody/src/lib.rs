//! A store in memory that works, except when a service is stored whose id asks for a misdeed: `moody-panic`. Unlike
//! `chaos`, which answers nonsense, it shows how a whole host lives with a plugin that fails now and then.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry_plugin_api::{
    Backend, Change, Cursor, Error, Group, Host, OptionSpec, Options, Outcome, Page, Position, Record, Result,
    export_backend,
};

/// See the [module](self).
pub struct Moody {
    options: Options,
    host: Host,
    contents: Mutex<Contents>,
    _bomb: Option<Bomb>,
}

#[derive(Default)]
struct Contents {
    position: Option<Position>,
    records: BTreeMap<String, Record>,
}

/// Panics when dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb was dropped");
    }
}

export_backend!(Moody);

impl Backend for Moody {
    const OPTIONS: &'static [OptionSpec] = &[
        OptionSpec::text("outage", Some(""), "a file: while it is there, nothing can be stored"),
        OptionSpec::text("close", Some("calm"), "what close does: calm, panic, error, hang"),
        OptionSpec::text("locked", Some(""), "a file: while it is there, the store is not opened"),
        OptionSpec::text("opens", Some("calm"), "what open does then: calm, error"),
        OptionSpec::boolean("bomb", Some(false), "whether dropping the backend panics"),
    ];

    async fn open(options: Options, host: Host) -> Result<Self> {
        let locked = options.text("locked");
        while !locked.is_empty() && Path::new(locked).exists() {
            // It blocks, as a store does whose disk is slow.
            std::thread::sleep(Duration::from_millis(10));
        }
        if options.text("opens") == "error" {
            return Err(Error::unavailable("the key does not fit"));
        }
        let bomb = options.boolean("bomb").then(|| Bomb);
        Ok(Moody { options, host, contents: Mutex::default(), _bomb: bomb })
    }

    async fn load(&self, _after: Cursor) -> Result<Page> {
        let contents = self.contents();
        Ok(Page::new(contents.position.clone()).with_records(contents.records.values().cloned().collect()))
    }

    async fn commit(&self, group: Group) -> Result<Vec<Outcome>> {
        let outage = self.options.text("outage");
        if !outage.is_empty() && Path::new(outage).exists() {
            return Err(Error::unavailable("the power is out"));
        }
        let puts = group.changes.iter().filter(|change| matches!(change, Change::Put(_)));
        let misdeed = puts.filter_map(|put| put.id().strip_prefix("moody-")).next().unwrap_or("none").to_string();
        match misdeed.as_str() {
            "panic" => panic!("moody before the first await"),
            "error" => return Err(Error::unavailable("moody today")),
            "block" => std::thread::sleep(Duration::from_millis(1500)),
            "flood" => (0..100_000).for_each(|number| tracing::warn!(number, "drip")),
            _ => {}
        }
        let mut outcomes = self.contents().apply(group);
        match misdeed.as_str() {
            "panic-later" => {
                self.host.sleep(Duration::from_millis(1)).await;
                panic!("moody after an await, with everything stored");
            }
            "panic-in-task" => {
                let task = tokio::spawn(async { panic!("moody in a task") });
                task.await.map_err(|error| Error::internal(format!("a task failed: {error}")))?;
            }
            "hang" => std::future::pending().await,
            "short" => drop(outcomes.pop()),
            _ => {}
        }
        Ok(outcomes)
    }

    async fn close(&self) -> Result<()> {
        match self.options.text("close") {
            "panic" => panic!("moody to the end"),
            "error" => Err(Error::internal("the lid does not shut")),
            "hang" => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

impl Moody {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn apply(&mut self, group: Group) -> Vec<Outcome> {
        self.position = Some(group.position);
        group.changes.into_iter().map(|change| self.apply_one(change)).collect()
    }

    fn apply_one(&mut self, change: Change) -> Outcome {
        match change {
            Change::Put(put) => {
                self.records.insert(put.record.id.clone(), put.record);
                Outcome::Done
            }
            Change::Remove(remove) => Outcome::done_if(self.records.remove(&remove.id).is_some()),
            Change::Renew(renew) => {
                let record = self.records.get_mut(&renew.id);
                Outcome::done_if(record.map(|record| record.last_heartbeat_ms = renew.last_heartbeat_ms).is_some())
            }
            _ => Outcome::unknown(),
        }
    }
}
