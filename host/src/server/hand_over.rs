//! What the core has to say, on its way out: changes to the store, replies and events to clients, lines to operators.

use super::Server;
use crate::fronts::Front;
use crate::registry::{Deed, Exceeded, Forbidden, Now};
use crate::security::principal::Principal;
use crate::text::one_line;

impl<F: Front> Server<F> {
    /// Says once that the storage fails, and once that it works again.
    pub(super) fn note_storage(&mut self, error: Option<&registry_plugin_api::Error>) {
        match error {
            Some(error) if self.storage_fails => {
                tracing::debug!(error = %one_line(&error.to_string()), "the storage still fails");
            }
            Some(error) => {
                let error = one_line(&error.to_string());
                tracing::error!(%error, "the storage fails: changes are refused until it works again");
            }
            None if self.storage_fails => tracing::info!("the storage works again"),
            None => {}
        }
        self.storage_fails = error.is_some();
    }

    /// Sends what the core has to say: changes to the store, replies and events to clients.
    pub(super) fn dispatch(&mut self, now: Now) {
        self.write_lists(now);
        // What it has may land in any order with what comes behind it.
        let is_free = self.ignored == 0;
        if let Some(group) = is_free.then(|| self.registry.next_group(now, &mut self.out)).flatten() {
            self.note_group(&group);
            self.store.commit(group);
        }
        for (ticket, query) in self.out.queries.drain(..) {
            self.store.discover(ticket, query);
        }
        self.hand_over(now);
    }

    /// Sends replies and events, and tells operators what they are about.
    pub(super) fn hand_over(&mut self, now: Now) {
        self.hand_over_replies();
        for Forbidden { principal, what } in self.out.forbidden.drain(..) {
            let shown = || self.guard.shown(&principal);
            if principal == Principal::Nobody {
                continue;
            }
            if let Some(line) = self.refusals.line(principal, shown, &what, now.uptime_ms) {
                tracing::warn!("{line}");
            }
        }
        for Exceeded { origin, quota, allows, before } in self.registry.take_exceeded() {
            let who = match (origin.principal, origin.address.shown()) {
                (Principal::Nobody | Principal::Stranger, Some(address)) => format!("a client at {address}"),
                (principal, _) => self.guard.shown(&principal),
            };
            let more = match before {
                0 => String::new(),
                before => format!(" (it has refused {before} times more before)"),
            };
            tracing::warn!("{who} is over the quota {:?}, which allows {allows}{more}", &*quota);
        }
        if let Some(ms) = self.out.silent_ms.take() {
            let (silent, hold) = (ms as f64 / 1000.0, self.registry.mass_expiry_hold_ms() as f64 / 1000.0);
            tracing::warn!(
                "no service has been heard of for {silent:.1} s, though heartbeats are due: none is removed for up to \
                 {hold} s, unless `registry expiry remove` says so"
            );
        }
        for ms in self.out.forgiven.drain(..) {
            let seconds = ms as f64 / 1000.0;
            tracing::warn!(
                "no service was heard of for {seconds:.1} s, though heartbeats were due: all get that much longer to renew"
            );
        }
        for (notice, line) in self.out.notices.drain(..) {
            tracing::warn!("{line}");
            self.front.notify(notice);
        }
        for deed in self.registry.take_deeds() {
            self.audit.note(&deed, &self.guard);
        }
        for (event, amended) in self.out.events.drain(..) {
            self.digest.note((event.kind, amended), &event.service_id, now.uptime_ms);
            self.front.publish(event);
        }
        self.front.flush();
        for line in self.digest.lines(self.registry.is_idle(), now.uptime_ms) {
            tracing::info!("{line}");
        }
    }

    /// Writes down what has come of something that an operator asked for, or that a signal did.
    pub(super) fn note_outcome(&mut self, what: &'static str) {
        let deed = Deed { what, service_id: None, by: None, unix_ms: self.read_clock().unix_ms };
        self.audit.note(&deed, &self.guard);
    }

    /// Writes one piece more of the long lists that clients wait for, as far as there is room for them.
    pub(super) fn write_lists(&mut self, now: Now) {
        if self.registry.has_lists() {
            let may_begin = self.registry.next_list_bytes().is_none_or(|bytes| self.front.has_room(bytes));
            self.registry.continue_lists(may_begin, now, &mut self.out);
        }
    }

    pub(super) fn hand_over_replies(&mut self) {
        self.out.replies.drain(..).for_each(|(caller, reply)| self.front.reply(caller, reply));
    }
}
