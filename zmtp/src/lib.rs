//! ZMTP 3.1, the protocol of ZeroMQ on a connection ([RFC 37](https://rfc.zeromq.org/spec/37/)): both sides of it, with
//! the mechanisms NULL and CURVE.
//!
//! Nothing here knows a registry. All but [`client`] and the key files is pure: bytes go in and come out, and the I/O is
//! the caller's. What a peer sends is bounded before anything of it is kept.
//!
//! | module | what it does | does I/O |
//! |---|---|---|
//! | [`codec`] | frames from bytes, and back | |
//! | [`greeting`], [`command`] | what stands in them | |
//! | [`handshake`] | the accepting side, from the first byte to a peer that is ready | |
//! | [`curve`] | the handshake and the frames of encrypted connections, both sides | |
//! | [`wire`] | frames in and out, encrypted or not | |
//! | [`assembly`] | messages from frames | |
//! | [`subscriptions`] | what a subscriber wants | |
//! | [`keys`] | keys, and the files that they live in | files |
//! | [`client`] | the connecting side | yes |

pub mod assembly;
pub mod client;
pub mod codec;
pub mod command;
pub mod curve;
pub mod greeting;
pub mod handshake;
pub mod keys;
pub mod subscriptions;
pub mod wire;

use bytes::Bytes;
use smallvec::SmallVec;

/// The frames of a message. Requests and replies have three at most.
pub type Frames = SmallVec<[Bytes; 3]>;
