//! ZMTP, the protocol of ZeroMQ's connections.

pub mod curve;
