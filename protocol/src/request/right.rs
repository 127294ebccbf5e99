//! What a client has to be allowed to do for what it asks.

use super::{Action, Request};
use crate::lives::Renewal;
use crate::registration::Registration;
use crate::restore::Restore;

/// The right that a client needs for a request.
#[derive(Clone, Copy, Debug)]
pub enum Right<'a> {
    /// Nothing: everybody may ask.
    None,
    /// To see services.
    Read,
    /// To register this service; and to change the one with its id, if there is one.
    Register(&'a Registration),
    /// To change the service with this id: its own, or anybody's.
    Change(&'a str),
    /// To renew each of these services that is one's own, or anybody's.
    RenewEach(&'a [Renewal]),
    /// To do what is for those who run the registry, in words.
    Operate(&'static str),
}

impl Request {
    /// The right that it needs.
    pub fn right(&self) -> Right<'_> {
        match self {
            Request::Health => Right::None,
            Request::Get { .. } | Request::List { .. } | Request::Discover(_) | Request::Info => Right::Read,
            Request::Register(registration) => Right::Register(registration),
            Request::Deregister { service_id, .. } | Request::Renew { service_id, .. } => Right::Change(service_id),
            Request::Terminate => Right::Operate("to stop the server"),
            Request::Types { .. } => Right::Read,
            Request::Watch(_) => Right::Read,
            Request::RenewMany(renewals) => Right::RenewEach(renewals),
            Request::Update(update) => Right::Change(&update.service_id),
            Request::Drain(drain) => Right::Change(&drain.service_id),
            Request::History { .. } => Right::Read,
            Request::Expiry(_) => Right::Operate("to end a mass expiry"),
            Request::Swap(_) => Right::Operate("to move to another storage"),
            Request::Restore(_) => Right::Operate("to restore a backup"),
            Request::Clients(_) => Right::Operate("to see who is connected"),
            Request::Reload { .. } => Right::Operate("to reload the configuration"),
            Request::Fresh { read, .. } => read.right(),
        }
    }

    /// What is done to the registry itself by it, as the word of its action; `None` if nothing is.
    pub fn operation(&self) -> Option<&'static str> {
        let action = match self {
            Request::Terminate => Action::Terminate,
            Request::Expiry(_) => Action::Expiry,
            Request::Reload { is_trial: false } => Action::Reload,
            Request::Swap(_) => Action::Swap,
            Request::Restore(restore) if matches!(**restore, Restore::End { .. }) => Action::Restore,
            _ => return None,
        };
        Some(action.as_str())
    }
}
