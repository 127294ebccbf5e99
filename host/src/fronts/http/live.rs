//! What can change of HTTP while it is served, and who changes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::Config;
use crate::protocol::request;
use crate::security::tls::Tls;
use crate::security::token::Tokens;

use super::connections::Connections;
use super::guard::Hosts;
use super::routes::Shared;
use super::serve::Patience;

/// What holds now.
pub(super) struct Live {
    /// Another one for each change: what was proved by one may not be by the next.
    pub(super) version: u64,
    /// The limits of requests.
    pub(super) limits: request::Limits,
    pub(super) body_bytes_max: usize,
    pub(super) patience: Patience,
    pub(super) hosts: Hosts,
    /// Whether clients have to prove who they are.
    pub(super) asks_for_proof: bool,
    /// By which they do.
    pub(super) tokens: Tokens,
    /// By which connections are encrypted, and clients prove who they are, too.
    pub(super) tls: Option<Arc<Tls>>,
}

impl Live {
    /// What is configured. `has_keys` says that clients of other fronts have to prove who they are.
    pub(super) fn of(config: &Config, tls: Option<Arc<Tls>>, version: u64, basis: &Basis) -> Self {
        let (http, all) = (&config.http, &config.limits);
        Live {
            version,
            limits: all.for_requests(basis.req_port),
            body_bytes_max: all.message_bytes as usize,
            patience: Patience {
                request: http.request_timeout(),
                unread: all.unread_timeout(),
                handshake: Duration::from_secs_f64(all.handshake_timeout),
            },
            hosts: Hosts::new(&http.hosts),
            asks_for_proof: basis.has_keys || http.asks_for_proof(),
            tokens: http.tokens(),
            tls,
        }
    }

    /// When the registry's certificate runs out, in seconds since the Unix epoch; 0 if there is none.
    pub(super) fn certificate_until(&self) -> u64 {
        self.tls.as_ref().and_then(|tls| tls.holds_until()).unwrap_or_default()
    }
}

/// What does not change.
#[derive(Clone, Copy, Debug)]
pub struct Basis {
    /// The port for requests over ZeroMQ, which replies name.
    pub req_port: u16,
    /// Whether clients of other fronts have to prove who they are.
    pub has_keys: bool,
}

/// Changes what holds. What it says counts for all requests that the core has not taken yet.
pub struct Steering {
    pub(super) shared: Arc<Shared>,
    pub(super) connections: Arc<Connections>,
    pub(super) version: Arc<AtomicU64>,
    pub(super) basis: Basis,
}

impl Steering {
    /// From now on this holds, for those who are connected too; but what a connection was accepted by (TLS, time-outs) it
    /// keeps.
    pub fn set(&self, config: &Config, tls: Option<Arc<Tls>>) {
        let version = self.version.load(Ordering::Relaxed) + 1;
        self.shared.set_live(Live::of(config, tls, version, &self.basis));
        self.shared.budget.set_max(config.http.buffered_bytes as usize);
        self.connections.set_limits(&config.http, config.limits.requests_per_second);
        self.version.store(version, Ordering::Release);
    }

    /// What TLS is spoken with.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.shared.live().tls.clone()
    }
}
