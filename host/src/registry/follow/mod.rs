//! `watch`: clients follow the changes, from a revision on.
//!
//! The core keeps the recent changes in a [`ring`]. A watcher is told those after the revision that it names, and where
//! there are none it waits in a [room](rooms) until there is one that concerns it, or until its time is up. Each reply
//! says up to which revision everything was looked at, so a watcher of rare changes is moved on while others are busy.
//!
//! All work here is done a part at a time, by `tick`: ten thousand watchers that are woken by one change are told in many
//! turns.
//!
//! | file | what is in it |
//! |---|---|
//! | [`ring`] | the recent changes |
//! | [`long`] | long records that change over and over |
//! | [`ask`] | what a client asks for |
//! | [`tell`] | what the time and the changes bring to those who wait |
//! | [`told`] | what is told of a change, and what a store keeps of it |
//! | [`answer`] | what one watcher is told |
//! | [`rooms`] | who waits for which changes |
//! | [`doubt`] | changes that wait for one before them |

mod answer;
mod ask;
mod doubt;
mod long;
mod ring;
mod rooms;
mod tell;
mod told;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexSet;
use rand::RngExt;
use registry_plugin_api::Position;
use slab::Slab;

use crate::protocol::event::{Event, EventKind};
use crate::protocol::filter::Filter;
use crate::registry::Registry;
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::policy::Following;
use crate::registry::service::Service;
use crate::registry::shares::Shares;
use crate::registry::turns::Turns;
use crate::security::origin::Holder;
pub(super) use doubt::Doubt;
use ring::{Before, Entry, Ring};
use rooms::{Rooms, Unseen};
pub(super) use told::Told;

/// How many steps are taken for one request, some hundredths of a millisecond: one client may ask for it some hundred
/// times in a turn. A watcher of rare changes asks again.
const REQUEST_STEPS: usize = 1024;

/// A client that waits for changes.
struct Watcher<C> {
    caller: C,
    terms: Terms,
    filter_bytes: usize,
    place: Place,
}

/// How it waits, and what it wants to be told then.
#[derive(Clone, Copy)]
struct Terms {
    /// Whose share of the places it takes.
    holder: Holder,
    deadline_ms: u64,
    /// How many changes at most.
    limit: usize,
    /// For how long the host may not have been sure of them, at most.
    max_stale_ms: u64,
}

/// Where a watcher waits.
enum Place {
    /// In the audience with this name; or for its answer, once that is being given to all of them.
    Audience(u64),
    /// For a revision that is still to come.
    Ahead(u64, Arc<Filter>),
}

/// An audience that is being told something.
struct Telling {
    filter: Arc<Filter>,
    watchers: IndexSet<usize>,
    /// Which changes may concern them, by their numbers.
    news: Arc<[u64]>,
    /// The number of the first change that was not looked at, and the revision up to which everything was.
    end: (u64, u64),
    /// The last answer, and how many changes it was to have at most. Most watchers of an audience get the same.
    made: Option<(usize, Answer)>,
}

#[derive(Clone)]
enum Answer {
    Changes(Arc<[Bytes]>),
    Compacted,
}

/// The recent changes, and all who follow them.
pub(super) struct Follow<C> {
    ring: Ring,
    pub(super) doubt: Doubt,
    /// What was told before this revision the store has never had.
    pub(super) forget_before: u64,
    /// The number of the first change that watchers have not been told of.
    shown: u64,
    watchers: Slab<Watcher<C>>,
    /// Whose the watchers are.
    shares: Shares,
    deadlines: BTreeSet<(u64, usize)>,
    ahead: BTreeSet<(u64, usize)>,
    rooms: Rooms,
    /// By the names of the audiences, and whose turn it is.
    telling: HashMap<u64, Telling>,
    turns: Turns<u64>,
    /// While the recent changes are taken over: the types of each service that was there.
    loaded: HashMap<Arc<str>, Arc<[Arc<str>]>>,
    /// Everybody is answered now: the host is about to stop.
    is_ending: bool,
    /// Which watcher is asked next whether it is still there, and when.
    gone_next: usize,
    gone_at_ms: u64,
}

impl<C> Follow<C> {
    /// Nothing to follow yet, after this revision.
    pub(super) fn after(revision: u64, max: Following) -> Self {
        Follow {
            ring: Ring::after(revision, max),
            forget_before: 0,
            doubt: Doubt::default(),
            shown: 0,
            watchers: Slab::new(),
            shares: Shares::default(),
            deadlines: BTreeSet::new(),
            ahead: BTreeSet::new(),
            rooms: Rooms::default(),
            telling: HashMap::new(),
            turns: Turns::default(),
            loaded: HashMap::new(),
            is_ending: false,
            gone_next: 0,
            gone_at_ms: 0,
        }
    }

    /// Sets how many changes are kept from now on.
    pub(super) fn set_max(&mut self, max: Following) {
        let bound = self.doubt.bound();
        self.ring.set_max(max, bound);
    }

    /// From which revision on a store need not keep what was told.
    pub(super) fn forget_before(&self) -> u64 {
        self.forget_before.max(self.ring.stored_after() + 1)
    }

    /// Whose those are who wait.
    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// How many wait, and how many of them for an answer that there is.
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.watchers.len(), self.telling.values().map(|telling| telling.watchers.len()).sum())
    }

    /// How many changes watchers may not be told of yet.
    pub(super) fn untold(&self) -> u64 {
        self.ring.numbers().end.saturating_sub(self.shown)
    }

    /// How many changes are kept, and how much memory they take, in bytes.
    pub(super) fn extent(&self) -> (usize, usize) {
        self.ring.extent()
    }

    /// Whether a watcher is about to get its answer.
    fn is_told(&self, watcher: &Watcher<C>) -> bool {
        matches!(watcher.place, Place::Audience(name) if !self.rooms.has(name))
    }

    /// The number of the first change that watchers may not be told of yet.
    fn end(&self) -> u64 {
        self.doubt.bound().map_or(self.ring.numbers().end, |bound| self.ring.after_revision(bound))
    }

    /// Takes a watcher out. `Some` if it was in an audience that may still have to be told something.
    fn remove(&mut self, key: usize) -> Option<(Watcher<C>, Option<Unseen>)> {
        let watcher = self.watchers.try_remove(key)?;
        self.shares.give_back(watcher.terms.holder, watcher.filter_bytes);
        self.deadlines.remove(&(watcher.terms.deadline_ms, key));
        let unseen = match &watcher.place {
            Place::Audience(name) => self.rooms.leave(key, *name),
            Place::Ahead(revision, _) => {
                self.ahead.remove(&(*revision, key));
                None
            }
        };
        Some((watcher, unseen))
    }
}

impl<C> Registry<C> {
    /// Begins to take over the recent changes from a store that has kept every one after `complete_after`. To be called
    /// when all services are loaded and before anything happens.
    pub fn begin_history(&mut self, complete_after: u64) {
        self.follow.ring.clear(complete_after);
    }

    /// Takes over a change that the store has kept: in their order.
    pub fn load_change(&mut self, revision: u64, text: &str, now: Now) {
        let previous = self.follow.ring.newest();
        if revision <= previous || revision > self.revision {
            return;
        }
        let read = told::read(text, &self.epoch, (revision, previous));
        let Some(told::Read { kind, id, unix_seconds, cause, generation, mut entry }) = read else {
            // Nobody can go on over what cannot be told.
            return self.follow.ring.clear(revision);
        };
        // What was to be undone and was not counts, too: whoever is told of it has to be told when it goes.
        let before = match kind {
            EventKind::Register => self.follow.loaded.insert(id.clone(), entry.types_now().clone()),
            EventKind::Deregister | EventKind::Expire => self.follow.loaded.remove(&id),
        };
        if let Some(before) = before.filter(|_| kind == EventKind::Register) {
            entry.replaces(before);
        }
        self.follow.ring.push(entry, None);
        self.note_generation(generation);
        self.note_past((kind, cause), &id, unix_seconds.saturating_mul(1000), now);
    }

    /// All recent changes are taken over.
    pub fn end_history(&mut self) {
        self.follow.loaded = HashMap::new();
        self.follow.shown = self.follow.ring.numbers().end;
    }

    /// Begins a new epoch at this position: what clients know of changes and of lists is of no use any more. Whoever waits
    /// for changes is told so.
    pub fn begin_epoch(&mut self, position: Position, out: &mut Output<C>) {
        self.epoch = position.epoch;
        self.revision = position.revision;
        // Cursors name places that may be others' now.
        self.run = self.rng.random();
        self.follow.doubt = Doubt::default();
        self.follow.ring.begin_anew(self.revision);
        self.show_news();
        while let Some((_, key)) = self.follow.ahead.first().copied()
            && let Some((watcher, _)) = self.follow.remove(key)
        {
            out.replies.push((watcher.caller, self.forgotten()));
        }
    }

    /// Adds a change that takes effect now, and is to be announced.
    pub(super) fn note_change(&mut self, kind: EventKind, service: &Service, revision: u64, told: Told) -> Event {
        // One that is removed is not there any more.
        let replaced = self.services.get(service.id());
        let before = replaced.map_or(Before::Nothing, |replaced| Before::Types(replaced.types().clone()));
        let place = (revision, self.follow.ring.newest());
        let shown = service.with(told.moving);
        let event = Event::new(kind, service.id(), &shown, told.unix_seconds, &self.epoch, place);
        let bound = self.follow.doubt.bound();
        self.follow.ring.push(Entry::new(&event, revision, service.types().clone(), before), bound);
        event
    }
}
