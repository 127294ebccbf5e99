//! What comes out of the core.

use registry_plugin_api::Query;

use crate::protocol::event::Event;
use crate::protocol::reply::Reply;
use crate::security::principal::Principal;

/// What comes out of the core. `C` stands for whoever asked; the core hands it back and never looks into it.
#[derive(Debug)]
pub struct Output<C> {
    /// Replies, each to one request.
    pub replies: Vec<(C, Reply)>,
    /// Events, in the order in which the changes happened.
    pub events: Vec<Event>,
    /// Choices that the store is asked to make, with the ticket for [`Registry::chosen`](super::Registry::chosen).
    pub queries: Vec<(u64, Query)>,
    /// What clients were not allowed to do, for operators.
    pub forbidden: Vec<Forbidden>,
    /// A client asked the server to stop, and may.
    pub terminate: bool,
}

impl<C> Default for Output<C> {
    fn default() -> Self {
        Output { replies: Vec::new(), events: Vec::new(), queries: Vec::new(), forbidden: Vec::new(), terminate: false }
    }
}

/// Something that a client was not allowed to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// Who wanted it.
    pub principal: Principal,
    /// What it wanted: "to stop the server".
    pub what: String,
}

/// A stored record that cannot be a service. The store keeps it as it is; the registry leaves it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The record's id.
    pub id: String,
    /// What is wrong with it.
    pub reason: String,
}
