//! Pages: a part of a list at a time, for clients that do not want all of it at once.
//!
//! A page begins at a slot and ends before another, which its cursor names: so a service that stays as it is, and so in
//! its slot, is on exactly one page. What has changed since the first page is announced, and every page names the
//! revision of the first: who follows the changes from there has an exact list in the end. Nothing is kept for a client
//! between two pages.
//!
//! A page does not take longer however large the registry is. If those that may be wanted are few, their slots are put
//! in order. If they are many, the slots are gone through from where the page begins, those of others too: up to a
//! number, and then the page ends, be it empty. So all pages of a type together take no longer than one walk through
//! all slots, and no type needs an ordered set of its members beside the one that it is picked from at random.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::protocol::clients::{Clients, ClientsCursor};
use crate::protocol::filter::Filter;
use crate::protocol::json::{Shown, push_number, push_text};
use crate::protocol::page::{ListCursor, Page, TypesCursor};
use crate::protocol::reply::Reply;
use crate::registry::Registry;
use crate::registry::moment::Now;
use crate::registry::selection::Selection;
use crate::registry::services::Counts;
use crate::registry::slots::Slot;

/// How long the entries of a page may be together before it ends, in bytes.
pub(super) const PAGE_BYTES: usize = 128 * 1024;
/// How much is read for a page, in bytes, and how much it counts to look at a slot.
pub(super) const WORK_MAX: usize = 64 * 1024;
pub(super) const SLOT_WORK: usize = 32;
/// How many are few: what is put in order for a page is in proportion to what may be on it.
const FEW_MIN: usize = 512;
const FEW_MAX: usize = 8192;
const FEW_PER_ENTRY: usize = 16;

impl<C> Registry<C> {
    pub(super) fn list_page(&self, selection: &Selection, page: Page<ListCursor>, now: Now) -> Reply {
        let filter = stands_for(&selection.filter);
        let (revision, first) = match page.cursor {
            None => (self.certain_revision(), 0),
            Some(cursor) if cursor.run == self.run && cursor.filter == filter => (cursor.revision, cursor.next),
            Some(_) => return self.compacted("The cursor is of another list", "list again from the first page"),
        };
        if revision > self.revision {
            return self.forged();
        }
        let mut json = String::from("[");
        let next = self.write_page(selection, page.limit, first, now, &mut json);
        json.push(']');
        let reply = self.at_revision(Reply::success().written("services", &json), revision);
        match next {
            Some(next) => {
                let cursor = ListCursor { run: self.run, filter, revision, next };
                reply.text("cursor", &cursor.to_string())
            }
            None => reply,
        }
    }

    /// What refuses a question about clients whose cursor is of another run.
    pub(super) fn roll_call(&self, asked: &Clients) -> Option<Reply> {
        asked.page.cursor.filter(|cursor| cursor.run != self.run).map(|_| self.forged())
    }

    /// Where the page of clients begins that comes after this one.
    pub fn clients_after(&self, after: u64) -> ClientsCursor {
        ClientsCursor { run: self.run, after }
    }

    /// The refusal of a cursor that this run cannot have given: it is of a revision that is still to come.
    fn forged(&self) -> Reply {
        self.compacted("The cursor is of another list", "list again from the first page")
    }

    /// Writes the services of a page that begins at a slot. Where the next page begins, if this is not the last.
    fn write_page(
        &self,
        selection: &Selection,
        limit: usize,
        first: Slot,
        now: Now,
        json: &mut String,
    ) -> Option<Slot> {
        let services = &self.services;
        let among = selection.narrowest(services);
        let (members, _) = services.extent(among);
        let are_few = members <= limit.saturating_mul(FEW_PER_ENTRY).clamp(FEW_MIN, FEW_MAX);
        let mut few = are_few.then(|| services.slots_from(among, first).into_iter());
        let end = services.slots_end();
        let mut slots = first.min(end)..end;
        let (mut count, mut work) = (0, 0);
        loop {
            let slot = match &mut few {
                Some(few) => few.next()?,
                None => slots.next()?,
            };
            if count == limit || json.len() >= PAGE_BYTES || work >= WORK_MAX {
                return Some(slot);
            }
            work += SLOT_WORK;
            let Some(service) = services.at(slot) else { continue };
            work += selection.work(service);
            if selection.wants(service) {
                if count > 0 {
                    json.push(',');
                }
                selection.show(service, now.uptime_ms).show(json);
                count += 1;
            }
        }
    }

    /// The types that there are, in order, and how many services of each are passing and how many critical, as far as
    /// has been noticed: of those that run out in the same moment some may be counted as passing for a moment longer.
    pub(super) fn types(&self, page: Page<TypesCursor>) -> Reply {
        let (revision, after) = match page.cursor {
            None => (self.certain_revision(), None),
            Some(cursor) if cursor.run == self.run => (cursor.revision, Some(cursor.after)),
            Some(_) => return self.compacted("The cursor is of another list", "list again from the first page"),
        };
        if revision > self.revision {
            return self.forged();
        }
        let mut names = self.services.types_after(after.as_deref()).peekable();
        let mut json = String::from("{");
        let mut last = None;
        for name in names.by_ref().take(page.limit) {
            if json.len() > 1 {
                json.push(',');
            }
            let Counts { passing, drained, critical } = self.services.members(name);
            push_text(&mut json, name);
            json.push_str(":{\"passing\":");
            push_number(&mut json, passing as u64);
            json.push_str(",\"drained\":");
            push_number(&mut json, drained as u64);
            json.push_str(",\"critical\":");
            push_number(&mut json, critical as u64);
            json.push('}');
            last = Some(name);
            if json.len() >= PAGE_BYTES {
                break;
            }
        }
        json.push('}');
        let reply = self.at_revision(Reply::success().written("types", &json), revision);
        match last.filter(|_| names.peek().is_some()) {
            Some(name) => {
                let cursor = TypesCursor { run: self.run, revision, after: name.to_string() };
                reply.text("cursor", &cursor.to_string())
            }
            None => reply,
        }
    }
}

/// A number that stands for a filter, for as long as the host runs.
fn stands_for(filter: &Filter) -> u64 {
    let mut hasher = DefaultHasher::new();
    filter.hash(&mut hasher);
    hasher.finish()
}
