//! Marks: what stands in a store's position in place of an epoch while the store is not in charge.
//!
//! When a registry moves to another store while it serves, there are two with the same services for a moment, and the
//! host can die at any. So both say in their positions what they are, in the one write that every store does whole:
//!
//! | the new store | the old store | which is in charge, should the host die now |
//! |---|---|---|
//! | *filling* | its epoch | the old one; the new one is refused |
//! | *ready* | its epoch | whichever is opened: both are the same, since changes are held until the new one is *filling* again or the old one *closed*; the new one begins a new epoch, so that the history cannot fork |
//! | *ready* | *closed* | the new one, in a new epoch; the old one is refused |
//! | the epoch | *closed* | the new one; the old one is refused |
//!
//! One that is *restoring* is in charge, with the services of a backup: see [`restoring`](super::restoring).

use registry_plugin_api::{Error, Position, Result};

// As the contract has an epoch: without spaces, and at most 64 bytes. No epoch begins like this: what does and is not
// known here is of a later registry.
const RESERVED: &str = "registry:";
const FILLING: &str = "registry:filling-from:";
const READY: &str = "registry:ready-from:";
const RESTORING: &str = "registry:restoring:";
const CLOSED: &str = "registry:closed-for:";
/// How much of a plugin's name is written down, in bytes.
const NAME_MAX: usize = 32;

/// A mark in place of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It is being filled from the store of this plugin.
    Filling(String),
    /// It has all services of the store of this plugin, and is not in charge yet.
    Ready(String),
    /// The store of this plugin has taken its place.
    Closed(String),
    /// What is staged under the name of this restore is in charge.
    Restoring(String),
}

impl Mark {
    /// The mark in a position, if there is one.
    pub(crate) fn of(position: &Position) -> Option<Mark> {
        let epoch = position.epoch.as_str();
        let text = |mark: &str| epoch.strip_prefix(mark).map(String::from);
        let swapped = text(FILLING).map(Mark::Filling).or_else(|| text(READY).map(Mark::Ready));
        swapped.or_else(|| text(CLOSED).map(Mark::Closed)).or_else(|| text(RESTORING).map(Mark::Restoring))
    }

    /// That of a store that is being filled from one of this plugin, or has all of it.
    pub(crate) fn of_copy(from: &str, is_ready: bool) -> Self {
        if is_ready { Mark::Ready(from.to_string()) } else { Mark::Filling(from.to_string()) }
    }

    /// A position with this mark.
    pub(crate) fn at(&self, revision: u64) -> Position {
        let name = |plugin: &str| plugin.chars().filter(char::is_ascii_graphic).take(NAME_MAX).collect::<String>();
        let epoch = match self {
            Mark::Filling(from) => format!("{FILLING}{}", name(from)),
            Mark::Ready(from) => format!("{READY}{}", name(from)),
            Mark::Restoring(restore) => format!("{RESTORING}{restore}"),
            Mark::Closed(to) => format!("{CLOSED}{}", name(to)),
        };
        Position::new(epoch, revision)
    }
}

/// Whether this version can tell what a store is.
///
/// # Errors
/// Its mark is of a later one.
pub(crate) fn check_known(position: &Position) -> Result<()> {
    let mark = position.epoch.as_str();
    if !mark.starts_with(RESERVED) || Mark::of(position).is_some() {
        return Ok(());
    }
    Err(Error::corrupt(format!(
        "this store was left by a newer registry in a state ({mark:?}) that this one, {}, does not know: open it with that one",
        env!("CARGO_PKG_VERSION")
    )))
}

/// The position of a store that is to be in charge: `None` if a new epoch begins.
///
/// # Errors
/// It is not whole, or another one has taken its place, unless the operator wants it `reopened`.
pub(super) fn in_charge(position: Position, reopened: bool) -> Result<Option<Position>> {
    check_known(&position)?;
    match Mark::of(&position) {
        None => Ok(Some(position)),
        Some(Mark::Ready(from)) => {
            tracing::warn!(
                "this store was about to take the place of a store of the plugin {from} when the host ended: it is in \
                 charge now, and a new epoch begins. If a host has been started on that one since, it knows more: stop \
                 this one, name that in [backend], and move here again"
            );
            Ok(None)
        }
        Some(Mark::Restoring(_)) => Err(Error::corrupt("a backup was being restored to it")),
        Some(Mark::Closed(to)) if reopened => {
            tracing::warn!("this store was closed when {to} took its place, and is opened again: a new epoch begins");
            Ok(None)
        }
        Some(Mark::Closed(to)) => Err(Error::corrupt(format!(
            "this store is closed: a store of the plugin {to} has taken its place. Name that in [backend], or set backend.reopen_closed = true \
             to go on with what was in this one"
        ))),
        Some(Mark::Filling(from)) => Err(Error::corrupt(format!(
            "this store is not whole: it was being filled from a store of the plugin {from}, which is still in charge. Name that \
             in [backend], and reload the running registry to move here"
        ))),
    }
}

/// Whether a store may be filled: it has nothing of its own.
///
/// # Errors
/// It has.
pub(super) fn check_fillable(position: Option<&Position>, records: usize) -> Result<()> {
    position.map_or(Ok(()), check_known)?;
    let is_left = match position.and_then(Mark::of) {
        Some(Mark::Filling(_) | Mark::Ready(_) | Mark::Closed(_)) => true,
        Some(Mark::Restoring(_)) | None => false,
    };
    if records == 0 || is_left {
        return Ok(());
    }
    let services = crate::text::counted(records, "service", "services");
    Err(Error::corrupt(format!("{services} of another registry in it, expected a store that is empty or was closed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_no_epoch_is_one() {
        for mark in [
            Mark::Filling("sqlite".into()),
            Mark::Ready("redb".into()),
            Mark::Closed("memory".into()),
            Mark::Restoring("0123456789abcdef".into()),
        ] {
            assert_eq!(Mark::of(&mark.at(7)), Some(mark.clone()));
            assert_eq!(mark.at(7).revision, 7);
        }
        assert_eq!(Mark::of(&Position::new(super::super::new_epoch(), 1)), None);
        let long = Mark::Closed(format!("a plugin with spaces{}", "x".repeat(100))).at(1).epoch;
        assert!(long.len() <= 64 && !long.contains(' '), "{long}");
    }

    #[test]
    fn only_a_store_that_is_whole_and_not_closed_is_in_charge() {
        let position = Position::new("e", 3);
        assert_eq!(in_charge(position.clone(), false).unwrap(), Some(position));
        assert_eq!(in_charge(Mark::Ready("sqlite".into()).at(3), false).unwrap(), None);
        let closed = Mark::Closed("redb".into()).at(3);
        assert!(in_charge(closed.clone(), false).unwrap_err().message().contains("redb has taken its place"));
        assert_eq!(in_charge(closed, true).unwrap(), None);
        let later = Position::new("registry:shared-with:7", 3);
        for refused in [in_charge(later.clone(), true).unwrap_err(), check_fillable(Some(&later), 0).unwrap_err()] {
            assert!(refused.message().contains("newer registry in a state (\"registry:shared-with:7\")"), "{refused}");
        }
        let filling = Mark::Filling("sqlite".into()).at(3);
        assert!(
            in_charge(filling, true).unwrap_err().message().contains("of the plugin sqlite, which is still in charge")
        );
    }

    #[test]
    fn what_another_registry_has_stored_is_not_written_over() {
        assert!(check_fillable(None, 0).is_ok() && check_fillable(Some(&Position::new("e", 7)), 0).is_ok());
        assert!(check_fillable(Some(&Position::new("e", 7)), 1).is_err() && check_fillable(None, 1).is_err());
        assert!(check_fillable(Some(&Mark::Closed("x".into()).at(7)), 1).is_ok());
        assert!(check_fillable(Some(&Mark::Restoring("x".into()).at(7)), 1).is_err(), "it is in charge");
    }
}
