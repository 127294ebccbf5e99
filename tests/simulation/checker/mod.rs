//! The checker: it takes a history and says whether a registry may have behaved like that.
//!
//! It knows nothing of how a registry works. The events of a host, from one start to its end, are the changes of what
//! there is, in order ("states"); everything else is held against them. An answer may have been given at any moment
//! between its request and itself, so it has to agree with some state in between.

mod answers;
mod drains;
mod events;
mod follow;
mod index;
mod life;
mod lives;
mod mass;
mod moves;
mod reads;
mod restarts;
mod time;
mod unique;

use crate::history::History;
use index::Index;
pub(crate) use lives::patch;

/// Something that must not have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The rule that was broken: a few words that stay the same.
    pub(crate) rule: &'static str,
    /// How.
    pub(crate) text: String,
    /// The entry of the history at which it shows.
    pub(crate) place: usize,
}

/// The verdicts on a history, in order of their places.
pub(crate) struct Verdicts(Vec<Verdict>);

impl Verdicts {
    fn add(&mut self, place: usize, rule: &'static str, text: String) {
        self.0.push(Verdict { rule, text, place });
    }
}

/// Judges a history: the first thing that must not have happened, if anything did.
pub(crate) fn judge(history: &History) -> Option<Verdict> {
    let mut verdicts = Verdicts(Vec::new());
    let index = Index::new(history, &mut verdicts);
    answers::judge(&index, &mut verdicts);
    drains::judge(&index, &mut verdicts);
    events::judge(&index, &mut verdicts);
    lives::judge(&index, &mut verdicts);
    follow::judge(&index, &mut verdicts);
    mass::judge(&index, &mut verdicts);
    moves::judge(&index, &mut verdicts);
    reads::judge(&index, &mut verdicts);
    restarts::judge(&index, &mut verdicts);
    time::judge(&index, &mut verdicts);
    unique::judge(&index, &mut verdicts);
    // Of several at one place the first rule counts, so that a shrunk history fails like the whole.
    verdicts.0.into_iter().min_by_key(|verdict| verdict.place)
}
