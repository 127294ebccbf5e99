//! `registry migrate`: all services from one configured storage to another. And `registry restore`: from a backup.

use std::error::Error;
use std::path::Path;

use registry_plugin_api::{Capabilities, Group, Outcome, Position, Put, Record};

use crate::cli::store_trial::path_option;
use crate::config::{self, Loaded};
use crate::log::counted;
use crate::plugin::OpenBackend;
use crate::server::start::load_plugin;
use crate::store;
use crate::store::mark::{self, Mark};
use crate::store::restoring::{Journal, is_staged};

type Failure = Box<dyn Error + Send + Sync>;

/// How many services are written at once.
const GROUP: usize = 1000;

/// Copies all services from the storage that the configuration `from` names to the one that `to` names, and says how
/// many. The two are to be different, and no host may be running on either.
///
/// # Errors
/// Why one of them cannot be opened, read or written; that the target keeps nothing; or that there are services in it
/// already (unless `merge`, which lets those of the source take the place of those with the same id).
pub(crate) fn run(from: &Path, to: &Path, merge: bool) -> Result<usize, Failure> {
    let [source, target] = [from, to].map(|file| config::load(Some(file), &[]));
    let (source, target) = (source?, target?);
    let in_file = |file: &Path, error: Failure| Failure::from(format!("{}: {error}", file.display()));
    let source_plugin = load_plugin(&source).map_err(|error| in_file(from, error))?;
    let target_plugin = load_plugin(&target).map_err(|error| in_file(to, error))?;
    // Opening would make it.
    if let Some(path) = path_option(&source_plugin, &source.config.backend.options)
        && !Path::new(&path).exists()
    {
        return Err(in_file(from, format!("{path} does not exist: nothing to copy").into()));
    }
    let promises = target_plugin.capabilities(&target.config.backend.options);
    if !promises.map_err(|error| in_file(to, error.into()))?.has(Capabilities::NONE.durable()) {
        let name = &target_plugin.info().name;
        let error = format!("the storage {name} is not durable: nothing would be left of what is copied to it");
        return Err(in_file(to, error.into()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let (source, position, records) = store::read(&source_plugin, source.config.backend.options)
            .await
            .map_err(|error| in_file(from, error.into()))?;
        position.as_ref().map_or(Ok(()), mark::check_known).map_err(|error| in_file(from, error.into()))?;
        match position.as_ref().and_then(Mark::of) {
            Some(Mark::Filling(_)) => {
                return Err(in_file(from, "it is not whole: a registry was about to move there when it ended".into()));
            }
            Some(Mark::Restoring(_)) => {
                let error = "a backup was being restored when its registry ended: start that, which completes it";
                return Err(in_file(from, error.into()));
            }
            _ => {}
        }
        let (target, present) = store::open(&target_plugin, target.config.backend.options)
            .await
            .map_err(|error| in_file(to, error.into()))?;
        if !present.records.is_empty() && !merge {
            let present = counted(present.records.len(), "service is", "services are");
            let error = format!("{present} in it already; --merge copies over them");
            return Err(in_file(to, error.into()));
        }
        // What a restore has left behind that came to nothing is none of its services.
        let records: Vec<_> = records.into_iter().filter(|record| !is_staged(&record.id)).collect();
        let count = records.len();
        write(&target, present.position.revision, records).await.map_err(|error| in_file(to, error))?;
        target.close().await.map_err(|error| in_file(to, error.into()))?;
        source.close().await.map_err(|error| in_file(from, error.into()))?;
        Ok(count)
    })
}

/// Writes records into a store.
async fn write(target: &OpenBackend, mut revision: u64, records: Vec<Record>) -> Result<(), Failure> {
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let changes = records.by_ref().take(GROUP).map(|mut record| {
            revision += 1;
            record.revision = revision;
            Put::new(record).into()
        });
        let changes = changes.collect();
        // Each group is an epoch of its own: there are no events of these changes, so that no history may hold them.
        let outcomes = target.commit(Group::new(Position::new(store::new_epoch(), revision), changes)).await?;
        if let Some(refused) = outcomes.iter().find(|outcome| **outcome != Outcome::Done) {
            return Err(format!("a service was not stored: {refused:?}").into());
        }
    }
    Ok(())
}

/// Puts records into the store that is configured, and says how many. No host may be running on it.
///
/// # Errors
/// Why it cannot be opened or written; or that there are services in it already, unless they are to be `replaced`.
pub(crate) fn restore(loaded: &Loaded, records: Vec<Record>, replaced: bool) -> Result<usize, Failure> {
    let plugin = load_plugin(loaded)?;
    let options = loaded.config.backend.options.clone();
    if !plugin.capabilities(&options)?.has(Capabilities::NONE.durable()) {
        let name = &plugin.info().name;
        return Err(
            format!("the storage {name} is not durable: nothing would be left of what is restored to it").into()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let (target, present) = store::open(&plugin, options).await?;
        if !present.records.is_empty() && !replaced {
            let present = counted(present.records.len(), "service is", "services are");
            return Err(format!("{present} in the store already; --replace puts the backup in their place").into());
        }
        let count = records.len();
        let there = present.records.into_iter().map(|record| record.id);
        let mut journal = Journal::new(present.position, records, there);
        if let Err(error) = journal.write(&target, true).await {
            let told = match journal.is_decided() {
                true => "the rest is restored when the registry starts",
                false => "nothing is restored",
            };
            return Err(format!("{error}; {told}").into());
        }
        target.close().await?;
        Ok(count)
    })
}
