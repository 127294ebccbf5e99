//! Moves from one store to another: whenever a host ends, a store is in charge, and in every one on which another host could
//! be started is what was acknowledged.

use super::Verdicts;
use super::index::Index;
use super::life::Life;
use super::restarts;
use crate::history::{End, Found};

pub(super) fn judge(index: &Index<'_>, verdicts: &mut Verdicts) {
    for before in &index.lives {
        let Some((moment, stores)) = before.left else {
            if let Some(refused) = before.refused {
                let text = "the host was not moving when it ended, and its store is not in charge".into();
                verdicts.add(refused.place, "a store is in charge", text);
            }
            continue;
        };
        if stores.is_empty() {
            let text = "no host can be started on any of the stores".into();
            verdicts.add(moment.place, "a store is in charge", text);
        }
        for Found { epoch, revision, contents } in stores {
            if epoch.as_ref().is_some_and(|epoch| epoch != before.epoch) {
                let text = format!("a store is in charge in the epoch {epoch:?}, after {:?}", before.epoch);
                verdicts.add(moment.place, "one epoch", text);
            }
            let epoch = epoch.as_deref().unwrap_or("a new one");
            let services = contents.iter().flatten().collect();
            let next = Life::new(before.host, moment, epoch, *revision, services);
            restarts::found(index, before, &next, verdicts);
        }
    }
}

/// Whether the next host may have begun a new epoch: the new store was not told yet that it goes on with this one.
pub(super) fn may_begin_anew(before: &Life<'_>) -> bool {
    let is_untold = before.moved.last().is_some_and(|moved| {
        let mut told = before.committed.iter().filter(|group| group.sent_at_ms >= moved.at_ms);
        !told.any(|group| group.end != End::Failed)
    });
    before.left.is_some() || is_untold
}
