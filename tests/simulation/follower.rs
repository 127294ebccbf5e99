//! Clients that follow changes: they watch, go on from what they were told, and ask again when nobody answers.

use serde_json::Value;

use crate::history::Ask;
use crate::reached::Reached;

/// How much longer than it wants to wait a follower waits for its answer.
const PATIENCE_MS: u64 = 700;

/// How a client follows.
#[derive(Clone, Debug)]
pub(crate) struct Follow {
    pub(crate) client: usize,
    pub(crate) host: usize,
    pub(crate) service_type: Option<String>,
    pub(crate) limit: usize,
    pub(crate) wait_ms: u64,
    /// How long it does something else between two questions.
    pub(crate) pause_ms: u64,
    /// How often it asks.
    pub(crate) times: u32,
}

/// A client that follows.
pub(crate) struct Follower {
    follow: Follow,
    /// Epoch and revision up to which it knows everything.
    known: Option<(String, u64)>,
    waits_for: Option<usize>,
    pub(crate) next_ms: u64,
}

impl Follower {
    pub(crate) fn new(follow: Follow, now_ms: u64) -> Follower {
        Follower { follow, known: None, waits_for: None, next_ms: now_ms }
    }

    /// Whether it asks at all any more.
    pub(crate) fn is_active(&self) -> bool {
        self.follow.times > 0 || self.waits_for.is_some()
    }

    /// What it asks for now, and whom.
    pub(crate) fn next(&mut self, now_ms: u64) -> Option<(usize, usize, Ask)> {
        self.waits_for = None;
        self.follow.times = self.follow.times.checked_sub(1)?;
        self.next_ms = now_ms + self.follow.wait_ms + PATIENCE_MS;
        let Follow { client, host, service_type, limit, wait_ms, .. } = self.follow.clone();
        Some((client, host, Ask::Watch { after: self.known.clone(), service_type, limit, wait_ms }))
    }

    pub(crate) fn asked(&mut self, call: usize) {
        self.waits_for = Some(call);
    }

    /// A reply to somebody has come.
    pub(crate) fn hear(&mut self, call: usize, reply: &Value, now_ms: u64) {
        if self.waits_for != Some(call) {
            return;
        }
        self.waits_for = None;
        self.next_ms = now_ms + self.follow.pause_ms.max(1);
        // Told that what it knows is too old, it goes on from now.
        if let (Some(epoch), Some(revision)) = (reply["epoch"].as_str(), reply["revision"].as_u64()) {
            self.known = Some((epoch.into(), revision));
        }
    }
}

/// Notes what a watcher was told, or somebody who lists, by a host that found the store at `began` when it began, and has
/// told its subscribers of all changes up to `told`.
pub(crate) fn note(reply: &Value, (began, told): (u64, u64), is_stopping: bool, reached: &mut Reached) {
    if reply["services"].is_array() && reply["revision"].as_u64().is_some_and(|revision| revision < told) {
        reached.note("list: shows what is still to be told");
    }
    let Some(changes) = reply["changes"].as_array() else { return };
    if changes.is_empty() {
        reached.note(if is_stopping { "watch: answered at the end" } else { "watch: nothing in time" });
        return;
    }
    reached.note("watch: told of changes");
    if changes.iter().any(|change| change["revision"].as_u64().is_some_and(|told| told <= began)) {
        reached.note("watch: told of what was before a start");
    }
    if changes.iter().any(|change| change["type"] == "leave") {
        reached.note("watch: told that a service leaves");
    }
}
