//! How many bytes wait for and from all clients, how many of them wait for something to happen, and whether there is room
//! for more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

/// All that waits.
#[derive(Debug)]
pub(super) struct Budget {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    max: usize,
    bytes: usize,
    /// What several replies share counts once. It is known by its address: nothing else can be there while it is held.
    shared: HashMap<usize, usize>,
}

/// Bytes that wait, until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: Arc<Budget>,
    shared: Option<Arc<[Bytes]>>,
    own: usize,
}

impl Budget {
    /// Nothing waits yet, and so many bytes may.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Budget { waiting: Mutex::new(Waiting { max, ..Waiting::default() }) })
    }

    /// From now on so many may wait. What waits already stays.
    pub(super) fn set_max(&self, max: usize) {
        self.lock().max = max;
    }

    /// Makes room for these pieces, and `own` bytes besides; `None` if there is none. What could never fit has room when
    /// little else waits.
    pub(super) fn hold(self: &Arc<Self>, shared: Option<&Arc<[Bytes]>>, own: usize) -> Option<Held> {
        let mut waiting = self.lock();
        let is_new = |pieces: &&Arc<[Bytes]>| !waiting.shared.contains_key(&place(pieces));
        let more = own + shared.filter(is_new).map_or(0, |pieces| length(pieces));
        if waiting.bytes + more.min(waiting.max / 2) > waiting.max {
            return None;
        }
        waiting.bytes += more;
        if let Some(pieces) = shared {
            *waiting.shared.entry(place(pieces)).or_default() += 1;
        }
        Some(Held { budget: self.clone(), shared: shared.cloned(), own })
    }

    /// How many bytes wait, and how many may.
    pub(super) fn extent(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.bytes, waiting.max)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Held {
    /// Makes room for so many bytes more. Whether there was some.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let mut waiting = self.budget.lock();
        let fits = waiting.bytes + more <= waiting.max;
        if fits {
            waiting.bytes += more;
            self.own += more;
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut waiting = self.budget.lock();
        waiting.bytes -= self.own;
        let Some(pieces) = &self.shared else { return };
        let Some(count) = waiting.shared.get_mut(&place(pieces)) else { return };
        *count -= 1;
        if *count == 0 {
            waiting.shared.remove(&place(pieces));
            waiting.bytes -= length(pieces);
        }
    }
}

/// Places for those that wait for something to happen.
#[derive(Debug, Default)]
pub(super) struct Places(AtomicUsize);

/// One of them, until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

impl Places {
    /// A place, if fewer than so many are taken.
    pub(super) fn take(self: &Arc<Self>, max: usize) -> Option<Place> {
        let one_more = |taken: usize| (taken < max).then_some(taken + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn place(pieces: &Arc<[Bytes]>) -> usize {
    pieces.as_ptr() as usize
}

fn length(pieces: &[Bytes]) -> usize {
    pieces.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_wait_for_counts_once_until_the_last_lets_go() {
        let budget = Budget::new(1000);
        let list: Arc<[Bytes]> = (1..=4).map(|length| Bytes::from(vec![0; length * 10])).collect();
        let mut held: Vec<Held> = (0..5).map(|_| budget.hold(Some(&list), 1).unwrap()).collect();
        assert_eq!(budget.lock().bytes, 105);
        held.truncate(1);
        assert_eq!(budget.lock().bytes, 101);
        held.clear();
        let waiting = budget.lock();
        assert_eq!((waiting.bytes, waiting.shared.len()), (0, 0));
    }

    #[test]
    fn there_are_so_many_places_whatever_was_said_before() {
        let places = Arc::<Places>::default();
        let taken = [2, 2].map(|max| places.take(max).unwrap());
        assert!(places.take(2).is_none() && places.take(1).is_none());
        assert!(places.take(3).is_some(), "a limit that has grown");
        drop(taken);
        assert!(places.take(1).is_some());
    }

    #[test]
    fn what_has_no_room_is_refused_and_what_never_fits_comes_when_little_waits() {
        let budget = Budget::new(1000);
        let mut body = budget.hold(None, 0).unwrap();
        assert!(body.grow(600) && !body.grow(401) && body.grow(400));
        assert!(budget.hold(None, 1).is_none());
        budget.set_max(1001);
        assert!(budget.hold(None, 1).is_some() && budget.hold(None, 2).is_none());
        budget.set_max(1000);
        drop(body);
        let huge = budget.hold(None, 1 << 30).expect("nothing else waits");
        assert!(budget.hold(None, 1).is_none());
        drop(huge);
        let _much = budget.hold(None, 501).unwrap();
        assert!(budget.hold(None, 1 << 30).is_none());
        assert!(budget.hold(None, 499).is_some());
    }
}
