//! What clients may cost.

use std::time::Duration;

/// What clients may cost. Each is a key of `[limits]`; see `registry.toml`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest message, in bytes, all its frames together.
    pub message_bytes: usize,
    /// The most frames of a message.
    pub message_frames: usize,
    /// How long a peer may take until it is ready.
    pub handshake_timeout: Duration,
    /// The most connections at the same time, on all ports together.
    pub connections: usize,
    /// The most of them from one address. A /64 of IPv6 is one, and all of this machine's Unix sockets are another.
    pub connections_per_address: usize,
    /// After how long a silence a peer is asked whether it is there.
    pub heartbeat_interval: Duration,
    /// After how long a silence a peer is taken for gone.
    pub heartbeat_timeout: Duration,
    /// From how many bytes of replies on that wait for a client its further requests wait too.
    pub reply_queue_bytes: usize,
    /// How long a client may take nothing of the replies that wait for it.
    pub unread_timeout: Duration,
    /// The most bytes of events that wait for a subscriber.
    pub event_queue_bytes: usize,
    /// The most bytes that wait for or from all clients together; what several wait for counts once.
    pub buffered_bytes: usize,
    /// The most subscriptions of a subscriber.
    pub subscriptions: usize,
    /// The most requests that are taken from one connection in a second, on average; 0 for any number.
    pub requests_per_second: u32,
    /// The most requests of one connection that are not answered yet.
    pub requests_waiting: usize,
    /// The most requests that are taken off all connections before the earlier ones have been answered.
    pub batch: usize,
}
