//! Long records that change over and over: a small update of one is as long as all of it, and many would drive everything
//! else out of the history.
//!
//! So those of one service take no more than a share of it. Beyond that its oldest states are left out that another one
//! of the same service follows, as long as nobody can miss that it has left or come: it was there before and afterwards,
//! and was discovered by the same types. Who has been away for so long is told of a later state of it only.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// From which length on a change is long, in bytes.
pub(super) const LONG_BYTES: usize = 4 * 1024;
/// Which part of the history those of one service may take.
const SHARE: usize = 8;

/// The long changes of a service that are kept, by their numbers.
#[derive(Default)]
struct Long {
    kept: VecDeque<(u64, usize)>,
    bytes: usize,
    /// Those of them that can be left out, since another one follows.
    followed: VecDeque<u64>,
    /// The last change is one that can be left out if another one follows.
    open: Option<u64>,
}

/// The long changes that are kept, by the services.
#[derive(Default)]
pub(super) struct Longs {
    by_id: HashMap<Arc<str>, Long>,
}

/// What a change is to those before and after it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) number: u64,
    /// How long it is, in bytes.
    pub(super) bytes: usize,
    /// The service was there before it, and is there after it.
    pub(super) follows: bool,
    /// Nothing but the service's record is other than before, if there was one; and it is there after it.
    pub(super) is_plain: bool,
}

impl Longs {
    /// Notes a change of a service, in a history of so many bytes. Which changes are to be left out.
    pub(super) fn note(&mut self, id: &Arc<str>, place: Place, history_bytes: usize) -> Vec<u64> {
        let Place { number, bytes, follows, is_plain } = place;
        let is_long = bytes >= LONG_BYTES;
        if !is_long && !self.by_id.contains_key(id) {
            return Vec::new();
        }
        let long = self.by_id.entry(id.clone()).or_default();
        if let Some(before) = long.open.take().filter(|_| follows) {
            long.followed.push_back(before);
        }
        if is_long {
            long.kept.push_back((number, bytes));
            long.bytes += bytes;
            long.open = is_plain.then_some(number);
        }
        let mut left_out = Vec::new();
        while long.bytes > history_bytes / SHARE
            && let Some(number) = long.followed.pop_front()
        {
            long.forget(number);
            left_out.push(number);
        }
        left_out
    }

    /// A change is not kept any more.
    pub(super) fn forget(&mut self, id: &Arc<str>, number: u64) {
        let Some(long) = self.by_id.get_mut(id) else { return };
        long.forget(number);
        if long.followed.front() == Some(&number) {
            long.followed.pop_front();
        }
        long.open = long.open.filter(|open| *open != number);
        if long.kept.is_empty() {
            self.by_id.remove(id);
        }
    }

    /// Nothing is kept any more.
    pub(super) fn clear(&mut self) {
        self.by_id.clear();
    }
}

impl Long {
    fn forget(&mut self, number: u64) {
        if let Ok(at) = self.kept.binary_search_by_key(&number, |(number, _)| *number)
            && let Some((_, bytes)) = self.kept.remove(at)
        {
            self.bytes -= bytes;
        }
    }
}
