//! From the first message to the first service: while the store is opened and read, clients are told that the registry
//! is starting.
//!
//! The loop runs already, with a core that says nothing else. What is in the store is taken over a piece at a time, so
//! that nobody waits for that either. Then the loaded core takes its place, and time begins.

use std::collections::VecDeque;
use std::time::Instant;

use registry_plugin_api::{Event, Position, Record};

use super::start::{announce, unreadable_lines};
use super::{Clock, Server};
use crate::config::Config;
use crate::fronts::Front;
use crate::registry::{About, Now, Output, Policy, Promises, Registry, Unreadable};
use crate::store::{Contents, RecentChanges, new_epoch};
use crate::text::counted;

/// How many records, or changes, are taken over in one turn.
const LOADED_MAX: usize = 4096;
/// After so many milliseconds operators are told what is waited for.
const TOLD_AFTER_MS: u64 = 1000;

/// What is needed to begin.
pub(super) struct Starting<C> {
    pub(super) config: Config,
    pub(super) policy: Policy,
    pub(super) promises: Promises,
    pub(super) about: About,
    /// When the store began to be opened.
    pub(super) began: Instant,
    pub(super) is_told: bool,
    /// What is being taken over, once the store is open.
    pub(super) loading: Option<Loading<C>>,
}

/// A core that is being filled.
pub(super) struct Loading<C> {
    records: std::vec::IntoIter<Record>,
    events: std::collections::vec_deque::IntoIter<Event>,
    registry: Registry<C>,
    unreadable: Vec<Unreadable>,
    /// A record could not be read, of which clients may know.
    has_lost: bool,
}

impl<C> Loading<C> {
    /// Fills a core with these records.
    pub(super) fn of(records: Vec<Record>, registry: Registry<C>) -> Self {
        let (records, events) = (records.into_iter(), VecDeque::new().into_iter());
        Loading { records, events, registry, unreadable: Vec::new(), has_lost: false }
    }

    /// The core, once it is filled.
    pub(super) fn into_registry(self) -> Registry<C> {
        self.registry
    }

    /// Takes over a piece. Whether that was the last.
    pub(super) fn go_on(&mut self, now: Now) -> bool {
        let Loading { records, events, registry, unreadable, has_lost } = self;
        if records.len() > 0 {
            for record in records.take(LOADED_MAX) {
                let lost = registry.load(record, now).err();
                *has_lost |= lost.is_some();
                unreadable.extend(lost);
            }
            return false;
        }
        if std::mem::take(has_lost) {
            // Nobody can be told that it is gone: all have to list again. The first change writes the epoch down; until
            // then nothing rests on it.
            let position = Position::new(new_epoch(), registry.position().1);
            registry.begin_epoch(position, &mut Output::default());
            *events = VecDeque::new().into_iter();
            tracing::warn!("a new epoch begins, since not all that is stored can be read");
        }
        for event in events.take(LOADED_MAX) {
            registry.load_change(event.revision, &event.text, now);
        }
        let is_whole = events.len() == 0;
        if is_whole {
            registry.end_history();
        }
        is_whole
    }
}

impl<C> Starting<C> {
    pub(super) fn new(config: Config, policy: Policy, promises: Promises, about: About, began: Instant) -> Self {
        Starting { config, policy, promises, about, began, is_told: false, loading: None }
    }

    /// The core that answers meanwhile.
    pub(super) fn registry(&self) -> Registry<C> {
        let (policy, about) = (self.policy.clone(), self.about.clone());
        Registry::new(policy, self.promises, about, Default::default(), rand::make_rng()).starting()
    }
}

impl<F: Front> Server<F> {
    /// The store is open: what is in it is taken over from now on.
    pub(super) fn opened(&mut self, contents: Contents) {
        let Some(starting) = &mut self.starting else { return };
        let Contents { position, records, damaged, history } = contents;
        let (policy, about) = (starting.policy.clone(), starting.about.clone());
        let mut registry = Registry::new(policy, starting.promises, about, position, rand::make_rng());
        registry.set_service_history_bytes(starting.config.events.service_history_bytes as usize);
        registry.set_quotas(starting.config.limits.quotas());
        let RecentChanges { complete_after, events } = history;
        if starting.promises.history {
            registry.begin_history(complete_after);
        }
        let (records, events) = (records.into_iter(), events.into_iter());
        let unreadable = |id| Unreadable { id, reason: "it is damaged, its checksum is wrong".into() };
        let unreadable = damaged.into_iter().map(unreadable).collect();
        starting.loading = Some(Loading { records, events, registry, unreadable, has_lost: false });
    }

    /// Whether there is something to take over at once.
    pub(super) fn is_loading(&self) -> bool {
        self.starting.as_ref().is_some_and(|starting| starting.loading.is_some())
    }

    /// Takes over a piece of what was stored. Whether the registry serves from now on.
    pub(super) fn go_on_starting(&mut self, now: Now) -> bool {
        let Some(starting) = &mut self.starting else { return false };
        if now.uptime_ms >= TOLD_AFTER_MS && !std::mem::replace(&mut starting.is_told, true) {
            tracing::info!("the storage is being opened; meanwhile clients are told that the registry is starting");
        }
        let Some(loading) = &mut starting.loading else { return false };
        // Time begins when everything is loaded.
        if !loading.go_on(Now { uptime_ms: 0, ..now }) {
            return false;
        }
        let Some(Starting { config, about, began, loading: Some(loading), .. }) = self.starting.take() else {
            return false;
        };
        unreadable_lines(&loading.unreadable).into_iter().for_each(|line| tracing::warn!("{line}"));
        self.registry = loading.registry;
        if self.audit.is_on() {
            self.registry.begin_audit();
        }
        self.clock = Clock::start();
        let services = counted(self.registry.len(), "service", "services");
        tracing::info!("{services} loaded in {} ms", began.elapsed().as_millis());
        announce(&config, &self.guard, &about);
        true
    }
}
