//! Who waits for which changes.
//!
//! Watchers with the same filter are one audience: what concerns one of them concerns all, and they are told in the same
//! words. Audiences stand in rooms by the type that they ask for; those that ask for nothing but a type have one of their
//! own, for the type tells all. A change stirs the rooms of its types, and nobody else; in a room that is stirred each
//! audience is asked whether the change concerns it, a number of them at a time. All rooms that are stirred are looked
//! through at the same speed: who is in one does not wait for those in another, and for what they have to look at.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use indexmap::IndexSet;

use super::ring::{Entry, Ring};
use crate::protocol::filter::Filter;
use crate::registry::turns::Turns;

/// Where a round of a room begins: before all names of audiences.
const BEGIN: u64 = 0;

/// How many steps are taken for one room before it is another's turn, and one change beyond.
const PIECE_STEPS: usize = 512;

/// What all in a room ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Door {
    /// The type; `None` if they ask for none.
    name: Option<Arc<str>>,
    /// They ask for nothing else.
    is_plain: bool,
}

/// Watchers with the same filter that wait.
struct Audience {
    filter: Arc<Filter>,
    door: Door,
    /// By their keys.
    watchers: IndexSet<usize>,
    /// The number of the first change that was not looked at for them, among those that stirred their room.
    next: u64,
}

#[derive(Default)]
struct Room {
    audiences: BTreeSet<u64>,
    /// The numbers of the changes that have stirred it.
    news: Vec<u64>,
    /// While it is stirred: how many of them are being looked at, and for which audience next.
    round: Option<(usize, u64)>,
}

/// Everybody who waits for changes.
#[derive(Default)]
pub(super) struct Rooms {
    audiences: HashMap<u64, Audience>,
    by_filter: HashMap<Arc<Filter>, u64>,
    rooms: HashMap<Door, Room>,
    /// Those that are stirred.
    stirred: Turns<Door>,
    /// Names of audiences grow, so that one that comes while its room is looked through is found behind the others.
    last_name: u64,
}

/// What was not looked at yet for a watcher: what it wants, and the numbers of the changes.
pub(super) type Unseen = (Arc<Filter>, Arc<[u64]>);

/// An audience that a change concerns.
pub(super) struct Concerned {
    /// Its name.
    pub(super) name: u64,
    pub(super) filter: Arc<Filter>,
    pub(super) watchers: IndexSet<usize>,
    /// The numbers of that change and of those that came to the room after it.
    pub(super) news: Arc<[u64]>,
}

impl Rooms {
    /// A watcher comes who knows of everything before the change with the number `next`. The name of its audience.
    pub(super) fn enter(&mut self, watcher: usize, filter: Arc<Filter>, next: u64) -> u64 {
        if let Some(name) = self.by_filter.get(&filter) {
            let newest = |door: &Door| self.rooms.get(door).and_then(|room| room.news.last());
            let audience = self.audiences.get_mut(name).filter(|audience| {
                // Otherwise they may still have to be told what this one knows already.
                newest(&audience.door).is_none_or(|newest| audience.next > *newest)
            });
            if let Some(audience) = audience {
                audience.next = next;
                audience.watchers.insert(watcher);
                return *name;
            }
        }
        self.last_name += 1;
        let name = self.last_name;
        // A tag is a type, too.
        let wanted = filter.service_type.as_ref().or(filter.tags.first()).map(|name| Arc::from(name.as_str()));
        let door = Door { name: wanted, is_plain: filter.is_type_only() };
        self.rooms.entry(door.clone()).or_default().audiences.insert(name);
        self.by_filter.insert(filter.clone(), name);
        let watchers = IndexSet::from([watcher]);
        self.audiences.insert(name, Audience { filter, door, watchers, next });
        name
    }

    /// A watcher goes. `Some` if it may still have to be told something.
    pub(super) fn leave(&mut self, watcher: usize, name: u64) -> Option<Unseen> {
        let audience = self.audiences.get_mut(&name)?;
        audience.watchers.swap_remove(&watcher);
        let news = self.rooms.get(&audience.door).map_or(&[][..], |room| &room.news);
        let unseen = &news[news.partition_point(|number| *number < audience.next)..];
        let left = (!unseen.is_empty()).then(|| (audience.filter.clone(), unseen.into()));
        if audience.watchers.is_empty() {
            self.close(name);
        }
        left
    }

    /// Whether this audience still waits.
    pub(super) fn has(&self, name: u64) -> bool {
        self.audiences.contains_key(&name)
    }

    /// An audience is no more.
    fn close(&mut self, name: u64) -> Option<Audience> {
        let audience = self.audiences.remove(&name)?;
        if self.by_filter.get(&audience.filter) == Some(&name) {
            self.by_filter.remove(&audience.filter);
        }
        if let Some(room) = self.rooms.get_mut(&audience.door) {
            room.audiences.remove(&name);
            if room.audiences.is_empty() {
                self.rooms.remove(&audience.door);
            }
        }
        Some(audience)
    }

    /// There is a change with this number.
    pub(super) fn stir(&mut self, number: u64, entry: &Entry) {
        if self.rooms.is_empty() {
            return;
        }
        for name in std::iter::once(None).chain(entry.types().map(|name| Some(name.clone()))) {
            for is_plain in [true, false] {
                self.stir_one(&Door { name: name.clone(), is_plain }, number, entry.steps_at(is_plain));
            }
        }
    }

    /// There was a change with this number, and nobody knows any more whom it concerns.
    pub(super) fn stir_all(&mut self, number: u64) {
        let doors: Vec<Door> = self.rooms.keys().cloned().collect();
        doors.iter().for_each(|door| self.stir_one(door, number, 1));
    }

    /// Stirs a room by a change that takes about so many steps to look at.
    fn stir_one(&mut self, door: &Door, number: u64, steps: usize) {
        let Some(room) = self.rooms.get_mut(door) else { return };
        if room.news.last() != Some(&number) {
            room.news.push(number);
        }
        if room.round.is_none() {
            room.round = Some((0, BEGIN));
            self.stirred.add(door, steps);
        }
    }

    /// Whether there are rooms to look through.
    pub(super) fn is_stirred(&self) -> bool {
        !self.stirred.is_empty()
    }

    /// Looks through rooms as far as `steps` go, which count down: the next audience that something concerns.
    pub(super) fn next_concerned(&mut self, ring: &Ring, steps: &mut usize) -> Option<Concerned> {
        while *steps > 0
            && let Some(door) = self.stirred.first().cloned()
        {
            let Looked { taken, concerned, has_more } = self.look_into(&door, ring, (*steps).min(PIECE_STEPS));
            *steps = steps.saturating_sub(taken);
            self.stirred.worked(taken, has_more);
            if concerned.is_some() {
                return concerned;
            }
        }
        None
    }

    /// Looks through a room until something concerns somebody, but for no more than so many steps and a change beyond.
    fn look_into(&mut self, door: &Door, ring: &Ring, most: usize) -> Looked {
        let mut looked = Looked { taken: 1, concerned: None, has_more: false };
        // If all have left there is no room.
        let Some(room) = self.rooms.get_mut(door) else { return looked };
        let Some((mut count, from)) = room.round else { return looked };
        looked.has_more = true;
        if from == BEGIN {
            count = room.news.len();
            room.round = Some((count, BEGIN + 1));
        }
        let Some(name) = room.audiences.range(from..).next().copied() else {
            // All were asked. What has come meanwhile is next.
            room.news.drain(..count);
            looked.has_more = !room.news.is_empty();
            room.round = looked.has_more.then_some((0, BEGIN));
            return looked;
        };
        let Some(audience) = self.audiences.get_mut(&name) else { return looked };
        let unseen = room.news[..count].partition_point(|number| *number < audience.next);
        let mut news: Option<Arc<[u64]>> = None;
        for (at, number) in room.news[unseen..count].iter().enumerate() {
            if looked.taken >= most {
                break;
            }
            let entry = ring.get(*number);
            looked.taken += entry.map_or(1, |entry| entry.steps(&audience.filter));
            // What is gone concerns everybody: they have to be told that it is.
            if entry.is_none_or(|entry| entry.telling(&audience.filter).is_some()) {
                news = Some(room.news[unseen + at..].into());
                break;
            }
            audience.next = number + 1;
        }
        if room.news[..count].last().is_none_or(|last| audience.next > *last) {
            room.round = Some((count, name + 1));
        }
        if let Some(news) = news {
            looked.taken += news.len() / 16;
            let audience = self.close(name);
            looked.concerned =
                audience.map(|Audience { filter, watchers, .. }| Concerned { name, filter, watchers, news });
        }
        looked
    }
}

/// What came of looking through a room.
struct Looked {
    /// How many steps that took.
    taken: usize,
    concerned: Option<Concerned>,
    has_more: bool,
}
