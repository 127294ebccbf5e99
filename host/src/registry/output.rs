//! What comes out of the core.

use registry_plugin_api::Query;

use crate::protocol::clients::Clients;
use crate::protocol::event::{Event, Notice};
use crate::protocol::reply::Reply;
use crate::protocol::request::Swap;
use crate::protocol::restore::Restore;
use crate::registry::Amendment;
use crate::security::origin::Origin;
use crate::security::principal::Principal;

/// What comes out of the core. `C` stands for whoever asked; the core hands it back and never looks into it.
#[derive(Debug)]
pub struct Output<C> {
    /// Replies, each to one request.
    pub replies: Vec<(C, Reply)>,
    /// Events, in the order in which the changes happened, and what was changed of a service that stayed what it is.
    pub events: Vec<(Event, Option<Amendment>)>,
    /// Choices that the store is asked to make, with the ticket for [`Registry::chosen`](super::Registry::chosen).
    pub queries: Vec<(u64, Query)>,
    /// What clients were not allowed to do, for operators.
    pub forbidden: Vec<Forbidden>,
    /// A client asked the server to stop, and may.
    pub terminate: bool,
    /// Clients who may have the registry moved to another store, each with which one.
    pub swaps: Vec<(C, Swap)>,
    /// Clients who may have a backup restored, each with a step of that.
    pub restores: Vec<(C, Origin, Restore)>,
    /// Clients who may have asked for the configuration to be read again, each with whether it is only a trial.
    pub reloads: Vec<(C, bool)>,
    /// Clients who may know who is connected, each with what it asks for.
    pub roll_calls: Vec<(C, Box<Clients>)>,
    /// What subscribers and operators are told that is no change of a service, each with the log's line.
    pub notices: Vec<(Notice, String)>,
    /// For how long no service was heard of, in milliseconds, where all were given that time on top.
    pub forgiven: Vec<u64>,
    /// For how long no service has been heard of, in milliseconds, if nobody is judged from now on for that.
    pub silent_ms: Option<u64>,
}

impl<C> Default for Output<C> {
    fn default() -> Self {
        Output {
            replies: Vec::new(),
            events: Vec::new(),
            queries: Vec::new(),
            forbidden: Vec::new(),
            terminate: false,
            swaps: Vec::new(),
            restores: Vec::new(),
            reloads: Vec::new(),
            roll_calls: Vec::new(),
            notices: Vec::new(),
            forgiven: Vec::new(),
            silent_ms: None,
        }
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
