//! What any transport has to bear: hostile, careless and slow clients hurt only themselves.
//!
//! Each rule is one function that attacks a running host, while another client discovers a service again and again and
//! may not have to wait for long; in the end the host has to be as it was before. The rules are held against both
//! transports. `zmtp` has to keep all of them. `zeromq` does not, for the reasons below; which is why it is for
//! loopback only.
//!
//! ```text
//! cargo test --test transport                              all that has to hold, in amounts that fit a debug build
//! cargo test --release --test transport -- --nocapture     in full, with the times that were measured
//! cargo test --test transport -- --ignored zeromq          what the crate fails; some of it hangs until patience ends
//! ```

#![allow(unreachable_pub)]

#[path = "transport/crowds.rs"]
mod crowds;
#[path = "transport/encrypted.rs"]
mod encrypted;
#[path = "transport/floods.rs"]
mod floods;
#[path = "transport/handshakes.rs"]
mod handshakes;
mod harness;
#[path = "transport/heartbeats.rs"]
mod heartbeats;
#[path = "transport/memory.rs"]
mod memory;
#[path = "transport/raw.rs"]
mod raw;
#[path = "transport/sizes.rs"]
mod sizes;
#[path = "transport/stage.rs"]
mod stage;

/// The rules, and whether the `zeromq` crate (0.7) keeps them.
macro_rules! rules {
    ($($theme:ident::$rule:ident: $verdict:ident $($why:literal)?,)*) => {
        mod zmtp {
            $(#[test] fn $rule() { crate::$theme::$rule("zmtp"); })*
        }
        mod zeromq {
            $(rules! { @$verdict $theme $rule $($why)? })*
        }
    };
    (@holds $theme:ident $rule:ident) => {
        #[test] fn $rule() { crate::$theme::$rule("zeromq"); }
    };
    (@fails $theme:ident $rule:ident $why:literal) => {
        #[test] #[ignore = $why] fn $rule() { crate::$theme::$rule("zeromq"); }
    };
}

rules! {
    sizes::huge_announced_frames: fails "what is announced is allocated: the process aborts",
    sizes::endless_multipart: fails "no such limit: the process grows without bound",
    sizes::limit_of_frames: fails "no such limit",
    sizes::limit_of_bytes: fails "no such limit",
    sizes::limit_of_all_together: fails "no such limit",
    sizes::limit_of_nesting: holds,

    handshakes::half_open_connections: fails "handshakes have no time limit: they are held for ever",
    handshakes::refusals_are_told: fails "it says nothing",
    handshakes::half_open_connections_keep_nobody_out: holds,
    handshakes::mechanisms: fails "the mechanism is not looked at: a PLAIN client gets READY",
    handshakes::old_versions: fails "ZMTP 1 and 2 are held for ever",
    handshakes::garbage_at_every_position: fails "a length among it is allocated: the process aborts",
    handshakes::slow_bytes: holds,
    handshakes::bytes_that_are_too_slow: fails "handshakes have no time limit",
    handshakes::lengths_of_identities: holds,
    handshakes::equal_identities: fails "whoever takes an identity puts out the one that had it",
    handshakes::reasons: fails "it closes without a word",

    floods::floods: fails "a few that send all the time keep everybody else waiting",
    floods::a_client_that_never_reads: fails "100,000 replies of any size wait for it, and it stays",
    floods::limit_of_replies: fails "no such limit",
    floods::a_client_that_reads_slowly: fails "all that is asked for is kept for it at once",
    floods::a_client_that_leaves_at_once: holds,
    floods::a_stuck_subscriber: fails "no such limit: the process grows without bound",
    floods::replies_at_the_end: fails "it does not tell when they are sent: what is left after 250 ms is lost",

    memory::what_nobody_reads: fails "no such limit: the process grows without bound",
    memory::what_is_never_finished: fails "no such limit",
    memory::what_grows_slowly: fails "no such limit",
    memory::small_replies_to_many: fails "no such limit",

    crowds::comings_and_goings: holds,
    crowds::limit_of_connections: fails "no such limit",
    crowds::limit_of_connections_from_an_address: fails "no such limit",
    crowds::limit_of_subscriptions: fails "no such limit, and SUBSCRIBE commands end the connection",
    crowds::long_subscriptions: fails "no limit of their bytes, and SUBSCRIBE commands end the connection",
    crowds::limit_of_requests_per_second: fails "no such limit",
    crowds::limit_of_unanswered_requests: fails "no such limit",
    crowds::open_files_are_raised: holds,
    crowds::few_open_files: fails "no limit of connections: they take all open files",
    crowds::no_open_files: fails "it says nothing, and asks the kernel again and again",

    heartbeats::pings_are_answered: fails "PING ends the connection",
    heartbeats::the_silent_are_dropped: fails "it has no heartbeats: they are held for ever",
    heartbeats::who_has_to_wait_is_not_silent: fails "no such limit",
    heartbeats::who_cannot_answer_is_not_asked: holds,
    heartbeats::the_ttl_of_a_ping_is_kept: fails "PING ends the connection",
    heartbeats::libzmq: fails "PING ends the connection",
}
