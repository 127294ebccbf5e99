//! What is answered from memory, whatever the store does: `get`, `list`, `info`, `health`, and heartbeats.

use serde_json::{Value, json};

use crate::protocol::reply::{Code, Reply};
use crate::registry::Registry;
use crate::registry::lists::{AT_ONCE_BYTES, Form};
use crate::registry::moment::Now;
use crate::registry::output::Output;
use crate::registry::selection::Selection;
use crate::registry::service::Service;
use crate::security::origin::Origin;

/// Since when the store fails, and why.
pub(super) struct StorageFailure {
    since_unix_ms: u64,
    error: String,
    pub(super) since_uptime_ms: u64,
}

impl<C> Registry<C> {
    pub(super) fn get(&self, service_id: &str, now: Now) -> Reply {
        self.as_sure(match self.services.get(service_id) {
            Some(service) => Reply::success().service("service", &service.at(now.uptime_ms)),
            None => Reply::failure(Code::NotFound, "Service not found"),
        })
    }

    /// Answers `list` and `info` at once if that does not take long, and in pieces otherwise.
    pub(super) fn list(
        &mut self,
        caller: C,
        origin: Origin,
        form: Form,
        selection: Selection,
        now: Now,
        out: &mut Output<C>,
    ) {
        let among = selection.narrowest(&self.services);
        let (_, bytes) = self.services.extent(among);
        if bytes > AT_ONCE_BYTES && self.lists.waiting() >= self.policy.pending_changes_max {
            let message = "too many clients wait for long lists, try again later";
            let refusal = Reply::failure(Code::Overloaded, "Too many requests").text("message", message);
            out.replies.push((caller, refusal));
            return;
        }
        if bytes > AT_ONCE_BYTES {
            self.lists.ask((caller, form), origin.address, selection);
            return;
        }
        let begin = self.begin(form, now);
        let wanted = |service: &&Service| selection.wants(service);
        let shown = |service| selection.show(service, now.uptime_ms);
        let reply = match among {
            Some(among) => begin.services("services", self.services.of_type(among).filter(wanted).map(shown)),
            None => begin.services("services", self.services.iter().filter(wanted).map(shown)),
        };
        out.replies.push((caller, self.at_revision(reply, self.certain_revision())));
    }

    /// What stands before the services.
    pub(super) fn begin(&self, form: Form, now: Now) -> Reply {
        match form {
            Form::List => Reply::success(),
            Form::Info { to_admin } => self.about(to_admin, now),
        }
    }

    /// Says of which moment in the store's history a list is.
    pub(super) fn at_revision(&self, reply: Reply, revision: u64) -> Reply {
        self.as_sure(reply.number("revision", revision).text("epoch", &self.epoch))
    }

    /// `info`, but for the services.
    fn about(&self, to_admin: bool, now: Now) -> Reply {
        let reply = Reply::success()
            .text("status", "ok")
            .number("req_port", self.about.req_port.into())
            .number("pub_port", self.about.pub_port.into())
            .number("hb_port", self.about.heartbeat_port.into());
        let reply = match self.about.http_port {
            Some(port) => reply.number("http_port", port.into()),
            None => reply,
        };
        reply
            .boolean("enforce_unique_service_types", self.policy.enforce_unique_service_types)
            .text("version", &self.about.version)
            .json("backend", &self.backend(to_admin, now))
    }

    pub(super) fn health(&self, to_admin: bool, now: Now) -> Reply {
        let reply = Reply::success()
            .text("status", "ok")
            .number("timestamp", now.unix_seconds())
            .json("backend", &self.backend(to_admin, now));
        match self.bad_key_files {
            0 => reply,
            // Which ones, and why, is for those who read the log.
            bad => reply.json("keys", &json!({"state": "failing", "bad_files": bad})),
        }
    }

    /// The state of the storage, and since when it is no good one. Old clients look at `status` alone, which is the
    /// host's. What the plugin says of its failure may name files and hosts: it is for those who run the registry.
    fn backend(&self, to_admin: bool, now: Now) -> Value {
        let sent_at_ms = self.changes.sent_at_ms();
        let is_stalled = |at_ms: u64| now.uptime_ms.saturating_sub(at_ms) > self.policy.call_timeout_ms;
        let plugin = &self.about.plugin;
        match (&self.storage_failure, sent_at_ms) {
            (_, Some(at_ms)) if is_stalled(at_ms) => {
                let since_ms = now.unix_ms.saturating_sub(now.uptime_ms.saturating_sub(at_ms));
                json!({"plugin": plugin, "state": "stalled", "since": since_ms / 1000})
            }
            (Some(failure), _) => {
                let since = failure.since_unix_ms / 1000;
                let mut backend = json!({"plugin": plugin, "state": "failing", "since": since});
                if to_admin {
                    backend["error"] = failure.error.as_str().into();
                }
                backend
            }
            (None, _) => json!({"plugin": plugin, "state": "ok"}),
        }
    }

    /// Notes whether the store could do what it was asked to do.
    pub(super) fn note_storage(&mut self, failed: Option<String>, now: Now) {
        self.storage_failure = failed.map(|error| {
            let since_unix_ms = self.storage_failure.as_ref().map_or(now.unix_ms, |failure| failure.since_unix_ms);
            let since_uptime_ms =
                self.storage_failure.as_ref().map_or(now.uptime_ms, |failure| failure.since_uptime_ms);
            StorageFailure { since_unix_ms, error, since_uptime_ms }
        });
    }
}
