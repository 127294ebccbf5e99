//! What is said on the wire, apart from sockets: frames, requests, replies and events.
//!
//! Two kinds of client share a port. *Plain* clients send one JSON frame from a REQ socket; *cgse* clients, those of
//! the Python registry that this one replaces, send `[type, json]` from a DEALER socket. [`frames`] tells them apart,
//! [`request`] and [`registration`] read the JSON, [`reply`] and [`event`] write it. Error texts that those clients
//! know are kept to the letter; each comes with a `code`, a stable word for programs.

pub mod event;
pub mod frames;
pub mod json;
pub mod registration;
pub mod reply;
pub mod request;
