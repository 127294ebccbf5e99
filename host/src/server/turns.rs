//! Whose turn it is in the loop, and what it was woken by.

use super::reload;
use super::swap::Moved;
use crate::store::Answer;

/// Who is looked at first for the next thing to happen: each in turn, so that none of them, however much comes of it, keeps
/// the others waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Clients' messages.
    Messages,
    /// The store in charge.
    Store,
    /// What operators want: another configuration, another store; and stores that are left.
    Operators,
}

impl Turn {
    /// Who comes after it.
    pub(super) fn other(self) -> Self {
        match self {
            Turn::Messages => Turn::Store,
            Turn::Store => Turn::Operators,
            Turn::Operators => Turn::Messages,
        }
    }
}

/// What the loop was woken by.
pub(super) enum Woken {
    Messages,
    Store(Answer),
    Time,
    Settings(reload::Found),
    Swap(Moved),
    /// A store that is left has answered: which one.
    Left(usize, Answer),
    Stop(String),
}

impl Woken {
    /// Whose turn is next.
    pub(super) fn next_turn(&self, turn: Turn) -> Turn {
        match self {
            Woken::Messages => Turn::Messages.other(),
            Woken::Store(_) => Turn::Store.other(),
            Woken::Settings(_) | Woken::Swap(_) | Woken::Left(..) => Turn::Operators.other(),
            Woken::Time | Woken::Stop(_) => turn,
        }
    }
}
