//! `[events]`: what is kept of what has happened.

use serde::{Deserialize, Serialize};

/// `[events]`: what is kept of what has happened.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// The most recent changes that are kept for clients that follow them.
    pub history_changes: u32,
    /// The most bytes that these take together.
    pub history_bytes: u32,
    /// The most bytes of what is known of all services' pasts, for `history`.
    pub service_history_bytes: u32,
}

impl Default for Events {
    fn default() -> Self {
        Events { history_changes: 100_000, history_bytes: 64 << 20, service_history_bytes: 16 << 20 }
    }
}
