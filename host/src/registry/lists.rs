//! Long lists: written a piece at a time, and shared by all who have asked for the same meanwhile.
//!
//! A short list is written at once, by `reads.rs`. For a long one a client waits until the one that is being written is
//! whole; those who come meanwhile get the next one, together. So whoever has registered something sees it in the list
//! that it asks for afterwards, and however many ask, one list at a time is made.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::reply::Reply;
use crate::registry::Registry;
use crate::registry::moment::Now;
use crate::registry::orders::{Order, Orders};
use crate::registry::output::Output;
use crate::registry::selection::Selection;
use crate::registry::snapshot::Snapshot;
use crate::security::origin::Address;

/// Up to here a list is written at once, in bytes.
pub(super) const AT_ONCE_BYTES: usize = 64 * 1024;

/// How many replies are handed over at a time.
const HANDED_MAX: usize = 256;

/// What a client has asked for, of what is made of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `list`
    List,
    /// `info`, with what is an admin's to know or without.
    Info {
        /// Whether it is an admin who asks.
        to_admin: bool,
    },
}

/// A list that is being made.
struct Making<C> {
    takers: Vec<(C, Form)>,
    snapshot: Snapshot,
    /// The revision from which on changes may be missing in it.
    revision: u64,
}

/// The long lists that clients wait for.
pub(super) struct Lists<C> {
    making: Option<Making<C>>,
    /// Those to be made afterwards, and who waits for them. Plain ones come first: there are fewer of them, and each is of
    /// use to more clients.
    plain: Orders<Selection, (C, Form)>,
    filtered: Orders<Selection, (C, Form)>,
    waiting: usize,
    /// Replies that are whole, to be handed over a number at a time.
    ready: VecDeque<(C, Reply)>,
}

impl<C> Default for Lists<C> {
    fn default() -> Self {
        Lists {
            making: None,
            plain: Orders::default(),
            filtered: Orders::default(),
            waiting: 0,
            ready: VecDeque::new(),
        }
    }
}

impl<C> Lists<C> {
    /// Whether one is being made or handed over.
    pub(super) fn is_making(&self) -> bool {
        self.making.is_some() || !self.ready.is_empty()
    }

    /// The next one to be made.
    fn next(&self) -> Option<&Arc<Selection>> {
        self.plain.first().or_else(|| self.filtered.first())
    }

    fn take_next(&mut self) -> Option<Order<Selection, (C, Form)>> {
        self.plain.take_first().or_else(|| self.filtered.take_first())
    }

    /// How many clients wait for one.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn ask(&mut self, taker: (C, Form), address: Address, selection: Selection) {
        let wanted = if selection.is_plain() { &mut self.plain } else { &mut self.filtered };
        wanted.ask(address, selection, taker);
        self.waiting += 1;
    }
}

impl<C> Registry<C> {
    /// Whether there is more to do for long lists at once.
    pub fn is_making_list(&self) -> bool {
        self.lists.is_making()
    }

    /// All services may be others: the list that is being made is made of those.
    pub(super) fn begin_list_again(&mut self) {
        let revision = self.certain_revision();
        if let Some(making) = &mut self.lists.making {
            making.snapshot = making.snapshot.again(&mut self.services);
            making.revision = revision;
        }
    }

    /// Whether somebody waits for a long list.
    pub fn has_lists(&self) -> bool {
        self.lists.is_making() || self.lists.next().is_some()
    }

    /// About how much memory the next list to begin takes at most, in bytes, if there is one and none is being made.
    pub fn next_list_bytes(&self) -> Option<usize> {
        let next = self.lists.next().filter(|_| self.lists.making.is_none())?;
        Some(self.services.extent(next.narrowest(&self.services)).1)
    }

    /// Writes a piece of the list that is being made, or begins the next one if it `may_begin`. What is whole goes to
    /// all who wait for it.
    pub fn continue_lists(&mut self, may_begin: bool, now: Now, out: &mut Output<C>) {
        if !self.lists.ready.is_empty() {
            let count = self.lists.ready.len().min(HANDED_MAX);
            self.lists.waiting -= count;
            out.replies.extend(self.lists.ready.drain(..count));
            if !self.lists.ready.is_empty() {
                return;
            }
        }
        if self.lists.making.is_none() && may_begin {
            let revision = self.certain_revision();
            self.lists.making = self.lists.take_next().map(|(selection, takers)| Making {
                takers,
                snapshot: Snapshot::begin(&mut self.services, selection),
                revision,
            });
        }
        let Some(making) = &mut self.lists.making else { return };
        if !making.snapshot.go_on(&mut self.services, now.uptime_ms) {
            return;
        }
        let Some(Making { takers, snapshot, revision }) = self.lists.making.take() else { return };
        let pieces = snapshot.into_pieces();
        let mut wholes: Vec<(Form, Arc<[Bytes]>)> = Vec::new();
        for (caller, form) in takers {
            let made = wholes.iter().find(|(made, _)| *made == form).map(|(_, whole)| whole.clone());
            let shared = made.unwrap_or_else(|| {
                let whole = behind(self.begin(form, now), &pieces);
                wholes.push((form, whole.clone()));
                whole
            });
            let reply = self.at_revision(Reply::with_shared(shared), revision);
            self.lists.ready.push_back((caller, reply));
        }
    }
}

/// The pieces of a list behind the beginning of a reply.
fn behind(begin: Reply, pieces: &[Bytes]) -> Arc<[Bytes]> {
    let begin = begin.begin_list("services");
    let end = Bytes::from_static(b"]");
    std::iter::once(Bytes::from(begin)).chain(pieces.iter().cloned()).chain([end]).collect()
}
