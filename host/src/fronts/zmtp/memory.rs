//! How many bytes wait for and from all connections, and whether there is room for more.
//!
//! What a connection has for itself is counted as often as it changes. What many wait for, an event or a piece of a long
//! list, is counted once, for as long as anybody waits for it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Deref;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::Notify;

/// All that waits.
#[derive(Debug)]
pub struct Memory {
    max: usize,
    /// What each connection has for itself, all together.
    own: Cell<usize>,
    /// What several may wait for, each counted once.
    shared: Cell<usize>,
    /// How many hold each shared piece. A piece is known by its address: nothing else can be there while it is held.
    holders: RefCell<HashMap<Place, usize>>,
    /// The longest reply that there was no room for, in bytes; 0 if nobody waits for room.
    wanted: Cell<usize>,
    /// How often there has been room again.
    round: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    pressed: Notify,
}

/// Address and length.
type Place = (usize, usize);

impl Memory {
    /// Nothing waits yet, and so many bytes may.
    pub fn new(max: usize) -> Rc<Self> {
        Rc::new(Memory {
            max,
            own: Cell::new(0),
            shared: Cell::new(0),
            holders: RefCell::default(),
            wanted: Cell::new(0),
            round: Cell::new(0),
            waiting: RefCell::default(),
            pressed: Notify::new(),
        })
    }

    /// How many bytes wait.
    pub fn used(&self) -> usize {
        self.own.get() + self.shared.get()
    }

    /// What long replies may take: the rest is kept for everybody's small ones.
    fn for_long_replies(&self) -> usize {
        self.max / 4 * 3
    }

    /// Whether more waits than may. An eighth of the limit is left for what the allocator cannot use again at once.
    pub fn is_over(&self) -> bool {
        self.used() > self.max / 8 * 7
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
            self.pressed.notify_one();
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

    /// Keeps bytes for one more who waits for them.
    pub fn share(self: &Rc<Self>, bytes: Bytes) -> Shared {
        let place = (bytes.as_ptr() as usize, bytes.len());
        let mut holders = self.holders.borrow_mut();
        let count = holders.entry(place).or_default();
        if *count == 0 {
            self.shared.set(self.shared.get() + bytes.len());
        }
        *count += 1;
        Shared { bytes, memory: self.clone() }
    }

    fn let_go(&self, bytes: &Bytes) {
        let place = (bytes.as_ptr() as usize, bytes.len());
        let mut holders = self.holders.borrow_mut();
        if let Some(count) = holders.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                holders.remove(&place);
                self.shared.set(self.shared.get() - bytes.len());
                drop(holders);
                self.look_for_room();
            }
        }
    }

    fn look_for_room(&self) {
        if self.wanted.get() > 0 && self.fits(self.wanted.get()) {
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

/// Bytes that others may wait for as well. They are counted until the last lets go.
#[derive(Debug)]
pub struct Shared {
    bytes: Bytes,
    memory: Rc<Memory>,
}

impl Deref for Shared {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        self.memory.share(self.bytes.clone())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.memory.let_go(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[test]
    fn what_many_wait_for_counts_once_until_the_last_lets_go() {
        let memory = Memory::new(1000);
        let (one, other) = (Bytes::from(vec![1; 100]), Bytes::from(vec![2; 10]));
        let mut held: Vec<Shared> = (0..5).map(|_| memory.share(one.clone())).collect();
        held.push(held[0].clone());
        assert_eq!(memory.used(), 100);
        held.push(memory.share(other));
        assert_eq!(memory.used(), 110);
        held.drain(..5);
        assert_eq!(memory.used(), 110);
        held.clear();
        assert_eq!(memory.used(), 0);
        assert!(memory.holders.borrow().is_empty());
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
        let shared = memory.share(Bytes::from(vec![0; 500]));
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
