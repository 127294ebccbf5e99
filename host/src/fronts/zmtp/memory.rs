//! How many bytes wait for and from all connections, and whether there is room for more.
//!
//! What a connection has for itself is counted as often as it changes. What many wait for, an event or a long list, is
//! counted once, for as long as anybody waits for it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

/// Who has not asked again for so long has left: those that wait are told to ask ten times as often.
const WAIT_GAP: Duration = Duration::from_secs(1);

/// All that waits.
#[derive(Debug)]
pub struct Memory {
    max: Cell<usize>,
    /// What each connection has for itself, all together.
    own: Cell<usize>,
    /// What several may wait for, each counted once.
    shared: Cell<usize>,
    /// Who holds what is shared, which is known by its address: nothing else can be there while it is held.
    holders: RefCell<HashMap<Place, Holders>>,
    /// In how many of these each piece is: other replies may share a list that begin otherwise.
    pieces: RefCell<HashMap<Place, usize>>,
    /// The longest reply that there was no room for, in bytes; 0 if nobody waits for room.
    wanted: Cell<usize>,
    /// How long there has been no room, however often it was asked for anew meanwhile.
    wait: Cell<Option<Wait>>,
    /// How often there has been room again.
    round: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    pressed: Notify,
}

/// A time without room.
#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Instant,
    /// When it was last asked for.
    asked: Instant,
    /// The most that was asked for.
    bytes: usize,
}

/// Address and length.
type Place = (usize, usize);

/// How many hold something.
#[derive(Debug)]
struct Holders {
    count: usize,
    /// How long it is, in bytes: its pieces are not added up again for each of them.
    bytes: usize,
}

impl Memory {
    /// Nothing waits yet, and so many bytes may.
    pub fn new(max: usize) -> Rc<Self> {
        Rc::new(Memory {
            max: Cell::new(max),
            own: Cell::new(0),
            shared: Cell::new(0),
            holders: RefCell::default(),
            pieces: RefCell::default(),
            wanted: Cell::new(0),
            wait: Cell::new(None),
            round: Cell::new(0),
            waiting: RefCell::default(),
            pressed: Notify::new(),
        })
    }

    /// Sets how many bytes may wait.
    pub fn set_max(&self, max: usize) {
        self.max.set(max);
    }

    /// How many bytes wait.
    pub fn used(&self) -> usize {
        self.own.get() + self.shared.get()
    }

    /// What long replies may take: the rest is kept for everybody's small ones.
    fn for_long_replies(&self) -> usize {
        self.max.get() / 4 * 3
    }

    /// Whether more waits than may. An eighth of the limit is left for what the allocator cannot use again at once.
    pub fn is_over(&self) -> bool {
        self.used() > self.max.get() / 8 * 7
    }

    /// Whether so much waits that clients who leave replies unread are not answered any further.
    pub fn is_tight(&self) -> bool {
        self.used() > self.for_long_replies()
    }

    /// Whether a reply of so many bytes may be made now. One that could never fit may be made when little else waits.
    pub fn has_room(&self, bytes: usize) -> bool {
        let fits = self.fits(bytes);
        if !fits {
            self.wanted.set(self.wanted.get().max(bytes));
            self.note_wait(bytes, Instant::now());
            self.pressed.notify_one();
        } else if self.wait.get().is_some_and(|wait| bytes >= wait.bytes) {
            self.wait.set(None);
        }
        fits
    }

    fn fits(&self, bytes: usize) -> bool {
        let all = self.for_long_replies();
        self.used() + bytes.min(all / 2) <= all
    }

    /// What somebody waits for room for, in bytes.
    pub fn wanted(&self) -> usize {
        self.wanted.get()
    }

    /// For how long somebody has waited for room.
    pub fn waited(&self, now: Instant) -> Duration {
        self.wait.get().map_or(Duration::ZERO, |wait| now.saturating_duration_since(wait.since))
    }

    fn note_wait(&self, bytes: usize, now: Instant) {
        let going_on = self.wait.get().filter(|wait| now.saturating_duration_since(wait.asked) < WAIT_GAP);
        let wait = going_on.unwrap_or(Wait { since: now, asked: now, bytes });
        self.wait.set(Some(Wait { asked: now, bytes: wait.bytes.max(bytes), ..wait }));
    }

    /// How often there has been room again. To wait for room is to wait until this changes.
    pub fn round(&self) -> u64 {
        self.round.get()
    }

    /// Ready as soon as the round is another one.
    pub fn poll_round(&self, round: u64, context: &Context<'_>) -> Poll<()> {
        if self.round.get() != round {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.last().is_some_and(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until somebody waits for room.
    pub async fn pressed(&self) {
        while self.wanted.get() == 0 {
            self.pressed.notified().await;
        }
    }

    /// A connection has `now` bytes for itself where it had `before`.
    pub fn recount(&self, before: usize, now: usize) {
        self.own.set(self.own.get() - before + now);
        if now < before {
            self.look_for_room();
        }
    }

    /// Keeps something for one more who waits for it.
    pub fn share(self: &Rc<Self>, kept: Kept) -> Shared {
        let mut holders = self.holders.borrow_mut();
        let holders = holders.entry(kept.place()).or_insert_with(|| {
            let mut pieces = self.pieces.borrow_mut();
            for piece in kept.pieces() {
                let count = pieces.entry(place_of(piece)).or_default();
                if *count == 0 {
                    self.shared.set(self.shared.get() + piece.len());
                }
                *count += 1;
            }
            Holders { count: 0, bytes: kept.pieces().iter().map(Bytes::len).sum() }
        });
        holders.count += 1;
        Shared { kept, bytes: holders.bytes, memory: self.clone() }
    }

    fn let_go(&self, kept: &Kept) {
        let place = kept.place();
        let mut all = self.holders.borrow_mut();
        if let Some(holders) = all.get_mut(&place) {
            holders.count -= 1;
            if holders.count == 0 {
                self.let_go_pieces(kept.pieces());
                all.remove(&place);
                drop(all);
                self.look_for_room();
            }
        }
    }

    fn let_go_pieces(&self, pieces: &[Bytes]) {
        let mut counts = self.pieces.borrow_mut();
        for piece in pieces {
            let place = place_of(piece);
            let Some(count) = counts.get_mut(&place) else { continue };
            *count -= 1;
            if *count == 0 {
                self.shared.set(self.shared.get() - piece.len());
                counts.remove(&place);
            }
        }
    }

    fn look_for_room(&self) {
        if self.wanted.get() > 0 && self.fits(self.wanted.get()) {
            self.wait.set(None);
            self.begin_round();
        }
    }

    /// Wakes all that wait for room, to ask again.
    pub fn begin_round(&self) {
        self.wanted.set(0);
        self.round.set(self.round.get() + 1);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

/// What several may wait for.
#[derive(Clone, Debug)]
pub enum Kept {
    /// One piece.
    One(Bytes),
    /// Pieces that are kept and counted as one.
    Many(Arc<[Bytes]>),
}

impl Kept {
    fn pieces(&self) -> &[Bytes] {
        match self {
            Kept::One(piece) => std::slice::from_ref(piece),
            Kept::Many(pieces) => pieces,
        }
    }

    fn place(&self) -> Place {
        match self {
            Kept::One(piece) => place_of(piece),
            Kept::Many(pieces) => (pieces.as_ptr() as usize, pieces.len()),
        }
    }
}

fn place_of(piece: &Bytes) -> Place {
    (piece.as_ptr() as usize, piece.len())
}

/// Bytes that others may wait for as well. They are counted until the last lets go.
#[derive(Debug)]
pub struct Shared {
    kept: Kept,
    bytes: usize,
    memory: Rc<Memory>,
}

impl Shared {
    /// The pieces, in their order.
    pub fn pieces(&self) -> &[Bytes] {
        self.kept.pieces()
    }

    /// How many bytes they have together.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether they have none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        self.memory.share(self.kept.clone())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.memory.let_go(&self.kept);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[test]
    fn what_many_wait_for_counts_once_until_the_last_lets_go() {
        let memory = Memory::new(1000);
        let (one, other) = (Bytes::from(vec![1; 100]), Bytes::from(vec![2; 10]));
        let mut held: Vec<Shared> = (0..5).map(|_| memory.share(Kept::One(one.clone()))).collect();
        held.push(held[0].clone());
        assert_eq!(memory.used(), 100);
        held.push(memory.share(Kept::One(other)));
        assert_eq!(memory.used(), 110);
        held.drain(..5);
        assert_eq!(memory.used(), 110);
        held.clear();
        assert_eq!(memory.used(), 0);
        assert!(memory.holders.borrow().is_empty());
    }

    #[test]
    fn pieces_that_are_kept_together_are_counted_once() {
        let memory = Memory::new(1000);
        let list: Arc<[Bytes]> = (1..=4).map(|length| Bytes::from(vec![0; length * 10])).collect();
        let held: Vec<Shared> = (0..5).map(|_| memory.share(Kept::Many(list.clone()))).collect();
        assert_eq!((memory.used(), memory.holders.borrow().len(), held[4].len()), (100, 1, 100));
        drop(held);
        assert_eq!(memory.used(), 0);
        assert!(memory.holders.borrow().is_empty());
    }

    #[test]
    fn a_piece_that_is_in_several_lists_counts_once() {
        let memory = Memory::new(1000);
        let pieces = [100, 200].map(|length| Bytes::from(vec![0; length]));
        let begins_with = |length: usize| -> Arc<[Bytes]> {
            std::iter::once(Bytes::from(vec![1; length])).chain(pieces.iter().cloned()).collect()
        };
        let (list, info) = (begins_with(10), begins_with(20));
        let held = [&list, &info, &list].map(|pieces| memory.share(Kept::Many(pieces.clone())));
        assert_eq!((memory.used(), held[0].len(), held[1].len()), (330, 310, 320));
        let [first, second, third] = held;
        drop((first, third));
        assert_eq!(memory.used(), 320);
        drop(second);
        assert_eq!((memory.used(), memory.pieces.borrow().len()), (0, 0));
    }

    #[test]
    fn long_replies_leave_room_for_small_ones() {
        let memory = Memory::new(1000);
        assert!(memory.has_room(1 << 30), "one that never fits is made when nothing waits");
        memory.recount(0, 400);
        assert!(memory.has_room(350));
        assert!(!memory.has_room(1 << 30));
        memory.recount(400, 750);
        assert!(!memory.has_room(1) && !memory.is_tight());
        memory.recount(750, 875);
        assert!(memory.is_tight() && !memory.is_over());
        memory.recount(875, 876);
        assert!(memory.is_over());
    }

    #[test]
    fn who_waits_for_room_has_waited_since_it_asked_first() {
        let memory = Memory::new(1000);
        memory.recount(0, 700);
        assert!(!memory.has_room(300));
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for millis in (500..=3000).step_by(500) {
            memory.begin_round();
            memory.note_wait(300, at(millis));
        }
        assert!(memory.waited(at(3000)) >= Duration::from_secs(3), "a new round is not room");
        assert!(memory.has_room(40) && memory.waited(at(3000)) > Duration::ZERO, "little says nothing about much");
        memory.note_wait(300, at(5000));
        assert_eq!(memory.waited(at(5000)), Duration::ZERO, "the one that waited before has left");
        assert!(!memory.has_room(300));
        let later = at(9000);
        memory.recount(700, 0);
        assert_eq!((memory.wanted(), memory.waited(later)), (0, Duration::ZERO));
    }

    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_for_room_is_woken_when_there_is_enough() {
        let memory = Memory::new(1000);
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        let waker = Waker::from(counter.clone());
        let context = Context::from_waker(&waker);
        let woken = || counter.0.load(Ordering::Relaxed);
        let shared = memory.share(Kept::One(Bytes::from(vec![0; 500])));
        memory.recount(0, 200);
        assert!(!memory.has_room(300));
        let round = memory.round();
        assert!(memory.poll_round(round, &context).is_pending());
        memory.recount(200, 100);
        assert_eq!((woken(), memory.wanted()), (0, 300), "not yet");
        drop(shared);
        assert_eq!((woken(), memory.wanted()), (1, 0));
        assert!(memory.poll_round(round, &context).is_ready());
    }
}
