//! `[limits]`: what clients may cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Server;
use super::quotas::Quota;
use crate::fronts::zmtp;
use crate::protocol::request;

/// `[limits]`: what clients may cost.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// The largest message, in bytes.
    pub message_bytes: u32,
    /// The most frames of a message.
    pub message_frames: u32,
    /// How deep objects and arrays may be nested in a request.
    pub json_depth: u32,
    /// The longest id of a service, in bytes.
    pub id_bytes: u32,
    /// The longest name of a service, in bytes.
    pub name_bytes: u32,
    /// The longest type of a service, in bytes; tags are types.
    pub type_bytes: u32,
    /// The most types of one service.
    pub types: u32,
    /// The most connections at the same time.
    pub connections: u32,
    /// The most of them from one address.
    pub connections_per_address: u32,
    /// Seconds that a peer may take to get ready.
    pub handshake_timeout: f64,
    /// Seconds of silence after which a peer is asked whether it is there.
    pub heartbeat_interval: f64,
    /// Seconds of silence after which a peer is taken for gone.
    pub heartbeat_timeout: f64,
    /// From how many bytes of replies on that wait for a client its further requests wait too.
    pub reply_queue_bytes: u32,
    /// Seconds for which a client may take nothing of the replies that wait for it.
    pub unread_timeout: f64,
    /// The most bytes of events that wait for a subscriber.
    pub event_queue_bytes: u32,
    /// The most bytes that wait for or from all clients together.
    pub buffered_bytes: u32,
    /// The most bytes of registrations that wait for the storage.
    pub pending_bytes: u32,
    /// The most bytes of all services' records together.
    pub services_bytes: u32,
    /// The most subscriptions of a subscriber.
    pub subscriptions: u32,
    /// The most requests of one connection that are not answered yet.
    pub requests_waiting: u32,
    /// The most requests per second from one connection, on average; 0 for any number.
    pub requests_per_second: u32,
    /// The most watchers that wait for changes, of all clients together.
    pub waiting_watchers: u32,
    /// The most of them from one address, or with one key.
    pub waiting_watchers_per_address: u32,
    /// How much each client may have.
    pub quotas: Vec<Quota>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message_bytes: 1 << 20,
            message_frames: 64,
            json_depth: 64,
            id_bytes: 512,
            name_bytes: 256,
            type_bytes: 256,
            types: 256,
            connections: 10_000,
            connections_per_address: 5000,
            handshake_timeout: 5.0,
            heartbeat_interval: 10.0,
            heartbeat_timeout: 30.0,
            reply_queue_bytes: 1 << 20,
            unread_timeout: 10.0,
            event_queue_bytes: 4 << 20,
            buffered_bytes: 256 << 20,
            pending_bytes: 64 << 20,
            services_bytes: 512 << 20,
            subscriptions: 1000,
            requests_waiting: 256,
            requests_per_second: 0,
            waiting_watchers: 20_000,
            waiting_watchers_per_address: 10_000,
            quotas: Vec::new(),
        }
    }
}

impl Limits {
    /// The limits of requests, of which most go to the port with this number.
    pub fn for_requests(&self, requests_port: u16) -> request::Limits {
        request::Limits {
            json_depth: self.json_depth as usize,
            id_bytes: self.id_bytes as usize,
            name_bytes: self.name_bytes as usize,
            type_bytes: self.type_bytes as usize,
            types: self.types as usize,
            document_bytes: self.message_bytes as usize,
            requests_port: Some(requests_port),
        }
    }

    /// How long a client may take nothing of what waits for it.
    pub fn unread_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.unread_timeout)
    }

    /// The limits as the transport takes them.
    pub fn for_transport(&self, server: &Server) -> zmtp::limits::Limits {
        zmtp::limits::Limits {
            message_bytes: self.message_bytes as usize,
            message_frames: self.message_frames as usize,
            handshake_timeout: Duration::from_secs_f64(self.handshake_timeout),
            connections: self.connections as usize,
            connections_per_address: self.connections_per_address as usize,
            heartbeat_interval: Duration::from_secs_f64(self.heartbeat_interval),
            heartbeat_timeout: Duration::from_secs_f64(self.heartbeat_timeout),
            reply_queue_bytes: self.reply_queue_bytes as usize,
            unread_timeout: self.unread_timeout(),
            event_queue_bytes: self.event_queue_bytes as usize,
            buffered_bytes: self.buffered_bytes as usize,
            subscriptions: self.subscriptions as usize,
            requests_waiting: self.requests_waiting as usize,
            requests_per_second: self.requests_per_second,
            batch: server.receive_high_water_mark as usize,
        }
    }
}
