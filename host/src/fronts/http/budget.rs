//! How many bytes wait for and from all clients, and who makes room when it is too much.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

/// What holds no more than this has room always, and makes none for others: probes are answered whatever waits. There
/// are no more of them than connections.
const SMALL: usize = 16 * 1024;
/// So long a client is left in peace with what it holds.
const PEACE: Duration = Duration::from_secs(1);

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
    next_id: u64,
    holders: HashMap<u64, Holder>,
}

/// Who holds what.
#[derive(Debug)]
struct Holder {
    shared: Option<Arc<[Bytes]>>,
    own: usize,
    since: Instant,
    /// Told when its connection has to go.
    cut: Arc<Notify>,
}

/// What a connection may hold in the budget of all.
#[derive(Clone, Debug)]
pub(super) struct Account {
    budget: Arc<Budget>,
    cut: Arc<Notify>,
}

/// Bytes that wait, until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: Arc<Budget>,
    id: u64,
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

    /// For a connection that `cut` ends.
    pub(super) fn account(self: &Arc<Self>, cut: Arc<Notify>) -> Account {
        Account { budget: self.clone(), cut }
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

impl Account {
    /// Makes room for these pieces, and `own` bytes besides; `None` if there is none. What could never fit has room when
    /// little else waits. Beyond the limit those connections are cut off that have held most for longest, as those do who
    /// send or read as slowly as they may.
    pub(super) fn hold(&self, shared: Option<&Arc<[Bytes]>>, own: usize) -> Option<Held> {
        self.hold_at(shared, own, Instant::now())
    }

    fn hold_at(&self, shared: Option<&Arc<[Bytes]>>, own: usize, now: Instant) -> Option<Held> {
        let mut waiting = self.budget.lock();
        let is_new = |pieces: &&Arc<[Bytes]>| !waiting.shared.contains_key(&place(pieces));
        let more = own + shared.filter(is_new).map_or(0, |pieces| length(pieces));
        let fitting = more.min(waiting.max / 2);
        if !waiting.make_room(fitting, more <= SMALL, now) {
            return None;
        }
        // Again: whoever shared them may be one of those that were cut off.
        waiting.bytes += own;
        if let Some(pieces) = shared {
            let count = waiting.shared.entry(place(pieces)).or_default();
            *count += 1;
            let is_first = *count == 1;
            waiting.bytes += if is_first { length(pieces) } else { 0 };
        }
        waiting.next_id += 1;
        let id = waiting.next_id;
        waiting.holders.insert(id, Holder { shared: shared.cloned(), own, since: now, cut: self.cut.clone() });
        Some(Held { budget: self.budget.clone(), id })
    }
}

impl Waiting {
    /// Cuts off clients until there is room for so many bytes. Whether there is some.
    fn make_room(&mut self, more: usize, is_small: bool, now: Instant) -> bool {
        while self.bytes + more > self.max {
            let weighed = self.holders.iter().filter_map(|(id, holder)| {
                let shared = holder
                    .shared
                    .as_ref()
                    .map_or(0, |pieces| length(pieces) / self.shared.get(&place(pieces)).copied().unwrap_or(1).max(1));
                let (bytes, age) = (holder.own + shared, now.saturating_duration_since(holder.since));
                (holder.own + shared > SMALL && age >= PEACE).then_some((bytes as u128 * age.as_millis(), Reverse(*id)))
            });
            let Some((_, Reverse(heaviest))) = weighed.max() else { return is_small };
            if let Some(holder) = self.release(heaviest) {
                holder.cut.notify_one();
            }
        }
        true
    }

    /// Lets go of what somebody holds.
    fn release(&mut self, id: u64) -> Option<Holder> {
        let holder = self.holders.remove(&id)?;
        self.bytes -= holder.own;
        if let Some(pieces) = &holder.shared
            && let Some(count) = self.shared.get_mut(&place(pieces))
        {
            *count -= 1;
            if *count == 0 {
                self.shared.remove(&place(pieces));
                self.bytes -= length(pieces);
            }
        }
        Some(holder)
    }
}

impl Held {
    /// Makes room for so many bytes more. Whether there was some: there is none for who has been cut off.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        self.grow_at(more, Instant::now())
    }

    fn grow_at(&mut self, more: usize, now: Instant) -> bool {
        let mut waiting = self.budget.lock();
        let Some(own) = waiting.holders.get(&self.id).map(|holder| holder.own) else { return false };
        let has_room = waiting.make_room(more, own + more <= SMALL, now);
        // It may have been the one that makes room.
        let Some(holder) = waiting.holders.get_mut(&self.id).filter(|_| has_room) else { return false };
        holder.own += more;
        waiting.bytes += more;
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.lock().release(self.id);
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
    use futures_util::FutureExt;

    use super::*;

    const MAX: usize = 100 * SMALL;

    fn account(budget: &Arc<Budget>) -> Account {
        budget.account(Arc::default())
    }

    fn is_cut(account: &Account) -> bool {
        account.cut.notified().now_or_never().is_some()
    }

    #[test]
    fn what_several_wait_for_counts_once_until_the_last_lets_go() {
        let budget = Budget::new(1000);
        let list: Arc<[Bytes]> = (1..=4).map(|length| Bytes::from(vec![0; length * 10])).collect();
        let mut held: Vec<Held> = (0..5).map(|_| account(&budget).hold(Some(&list), 1).unwrap()).collect();
        assert_eq!(budget.lock().bytes, 105);
        held.truncate(1);
        assert_eq!(budget.lock().bytes, 101);
        held.clear();
        let waiting = budget.lock();
        assert_eq!((waiting.bytes, waiting.shared.len(), waiting.holders.len()), (0, 0, 0));
    }

    #[test]
    fn what_has_no_room_is_refused_and_what_never_fits_comes_when_little_waits() {
        let budget = Budget::new(MAX);
        let mut body = account(&budget).hold(None, 0).unwrap();
        assert!(body.grow(60 * SMALL) && !body.grow(41 * SMALL) && body.grow(40 * SMALL));
        assert!(account(&budget).hold(None, SMALL + 1).is_none());
        budget.set_max(MAX + SMALL + 1);
        assert!(account(&budget).hold(None, SMALL + 1).is_some() && account(&budget).hold(None, SMALL + 2).is_none());
        budget.set_max(MAX);
        drop(body);
        let huge = account(&budget).hold(None, 1 << 30).expect("nothing else waits");
        assert!(account(&budget).hold(None, SMALL + 1).is_none());
        drop(huge);
        let _much = account(&budget).hold(None, 51 * SMALL).unwrap();
        assert!(account(&budget).hold(None, 1 << 30).is_none());
        assert!(account(&budget).hold(None, 49 * SMALL).is_some());
    }

    #[test]
    fn the_small_always_have_room_and_are_left_alone() {
        let budget = Budget::new(MAX);
        let (start, full) = (Instant::now(), account(&budget));
        let small = account(&budget);
        let _small = small.hold_at(None, SMALL, start).unwrap();
        let _full = full.hold_at(None, 99 * SMALL, start).unwrap();
        let other = account(&budget);
        let mut body = other.hold_at(None, 0, start).unwrap();
        assert!(body.grow_at(SMALL, start) && !body.grow_at(1, start), "small as a whole");
        assert!(account(&budget).hold_at(None, 10, start).is_some() && !is_cut(&full), "it is left in peace");
        let later = start + PEACE;
        assert!(account(&budget).hold_at(None, SMALL + 1, later).is_some() && is_cut(&full));
        assert!(!is_cut(&small) && !is_cut(&other));
    }

    #[test]
    fn who_has_held_most_for_longest_makes_room() {
        let budget = Budget::new(MAX);
        let [first, second, third] = [account(&budget), account(&budget), account(&budget)];
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut longest = first.hold_at(None, 20 * SMALL, at(0)).unwrap();
        let much: Arc<[Bytes]> = [Bytes::from(vec![0; 70 * SMALL])].into();
        let _most = second.hold_at(Some(&much), 0, at(9)).unwrap();
        assert!(third.hold_at(None, 20 * SMALL, at(10)).is_some());
        assert!(is_cut(&first) && !is_cut(&second), "twenty for ten seconds, and seventy for one");
        assert!(!longest.grow_at(1, at(10)), "nothing more for who was cut off");
        drop(longest);
        let shares = [account(&budget), account(&budget)];
        let _shared = shares.each_ref().map(|one| one.hold_at(Some(&much), 0, at(12)).unwrap());
        assert_eq!(
            budget.lock().bytes,
            70 * SMALL,
            "what was cut off is gone once, and what is dropped afterwards too"
        );
        assert!(third.hold_at(None, 40 * SMALL, at(20)).is_some());
        assert!(is_cut(&second) && shares.iter().all(is_cut), "until nobody holds it any more");
        assert_eq!(budget.lock().bytes, 0);
    }
}
