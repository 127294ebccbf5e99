//! Transactions from changes. etcd takes so many operations and bytes in one, and each key once: so what a run of
//! changes comes to is written for each id, and what the single changes found is worked out.

use std::collections::HashMap;

use etcd_client::{Compare, CompareOp, DeleteOptions, GetOptions, Txn, TxnOp, TxnOpResponse};
use registry_plugin_api::{Change, Group, Outcome, Position, Put, Record, Remove, Renew};

use crate::keys::{Keys, record_value};

/// How much of a group goes into one transaction.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Operations beside the one that stores the position.
    operations: usize,
    /// Of keys and values. A change that is longer goes alone.
    bytes: usize,
}

impl Default for Limits {
    /// What etcd takes by default is 128 operations and 1.5 MiB.
    fn default() -> Self {
        Limits { operations: 127, bytes: 1 << 20 }
    }
}

impl Limits {
    /// For a cluster that takes less.
    pub(crate) fn half(self) -> Self {
        Limits { operations: (self.operations / 2).max(1), bytes: self.bytes / 2 }
    }
}

/// What all changes of one id come to.
enum Effect<'group> {
    /// The record, and when the service was last heard of.
    Put(&'group Record, u64),
    Remove,
    /// Only if there is a record.
    Renew(u64),
}

struct Net<'group> {
    id: &'group str,
    effect: Effect<'group>,
    /// The outcome of the first change depends on what was there.
    asks: bool,
}

impl Net<'_> {
    fn operations(&self) -> usize {
        1 + usize::from(self.asks && matches!(self.effect, Effect::Put(..)))
    }

    fn bytes(&self) -> usize {
        // The prefix, and what stands around the document.
        const AROUND: usize = 256;
        let of_types = |types: &[String]| types.iter().map(|word| word.len() + 8).sum::<usize>();
        AROUND
            + self.id.len()
            + match self.effect {
                Effect::Put(record, _) => record.document.len() + of_types(&record.types),
                Effect::Remove | Effect::Renew(_) => 0,
            }
    }
}

/// A part of a group, as one transaction.
pub(crate) struct Batch<'group> {
    changes: &'group [Change],
    nets: Vec<Net<'group>>,
    operations: Vec<TxnOp>,
    position: Position,
    is_last: bool,
}

impl<'group> Batch<'group> {
    /// What comes after the first `done` changes of a group; `before` is what the store's position is.
    pub(crate) fn new(
        keys: &Keys,
        group: &'group Group,
        done: usize,
        before: Option<&Position>,
        limits: Limits,
    ) -> Batch<'group> {
        let rest = &group.changes[done..];
        let (nets, count) = combine(rest, limits);
        let changes = &rest[..count];
        let is_last = count == rest.len();
        let position = if is_last {
            group.position.clone()
        } else {
            let before = before.map_or(0, |position| position.revision);
            let revision = changes.iter().filter_map(revision).fold(before, u64::max);
            Position::new(group.position.epoch.clone(), revision)
        };
        let operations = nets.iter().flat_map(|net| operations(keys, net)).collect();
        Batch { changes, nets, operations, position, is_last }
    }

    /// How many changes it makes.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether the group is done with it.
    pub(crate) fn is_last(&self) -> bool {
        self.is_last
    }

    /// The store's position with it.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    pub(crate) fn operations(&self) -> Vec<TxnOp> {
        self.operations.clone()
    }

    /// What became of each change, from what etcd says of each operation.
    pub(crate) fn outcomes(&self, responses: &[TxnOpResponse]) -> Vec<Outcome> {
        let mut responses = responses.iter();
        let mut is_there: HashMap<&str, bool> = HashMap::with_capacity(self.nets.len());
        for net in &self.nets {
            let first = responses.next();
            let was_there = match first {
                Some(TxnOpResponse::Get(found)) => found.count() > 0,
                Some(TxnOpResponse::Delete(deleted)) => deleted.deleted() > 0,
                Some(TxnOpResponse::Txn(renewed)) => renewed.succeeded(),
                Some(TxnOpResponse::Put(_)) | None => false,
            };
            is_there.insert(net.id, was_there);
            responses.by_ref().take(net.operations() - 1).for_each(drop);
        }
        let outcome = |change: &'group Change| {
            let there = is_there.entry(change.id()).or_default();
            match change {
                Change::Put(_) => {
                    *there = true;
                    Outcome::Done
                }
                Change::Remove(_) => Outcome::done_if(std::mem::take(there)),
                Change::Renew(_) => Outcome::done_if(*there),
                _ => Outcome::unknown(),
            }
        };
        self.changes.iter().map(outcome).collect()
    }
}

/// What the first changes come to for each id, and how many these are: as many as go into one transaction, and one at
/// least, if there is one.
fn combine(changes: &[Change], limits: Limits) -> (Vec<Net<'_>>, usize) {
    let mut nets: Vec<Net> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let (mut operations, mut bytes) = (0, 0);
    for (number, change) in changes.iter().enumerate() {
        let place = places.get(change.id()).copied();
        let earlier = place.map(|place| &nets[place]);
        let Some(net) = after(earlier, change) else { continue };
        let (operations_before, bytes_before) = earlier.map_or((0, 0), |net| (net.operations(), net.bytes()));
        operations = operations - operations_before + net.operations();
        bytes = bytes - bytes_before + net.bytes();
        if number > 0 && (operations > limits.operations || bytes > limits.bytes) {
            return (nets, number);
        }
        match place {
            Some(place) => nets[place] = net,
            None => {
                places.insert(net.id, nets.len());
                nets.push(net);
            }
        }
    }
    (nets, changes.len())
}

/// What one more change makes of those before it. `None` for a kind that nobody knows here.
fn after<'group>(earlier: Option<&Net<'group>>, change: &'group Change) -> Option<Net<'group>> {
    let effect = match change {
        Change::Put(Put { record, .. }) => Effect::Put(record, record.last_heartbeat_ms),
        Change::Remove(_) => Effect::Remove,
        Change::Renew(Renew { last_heartbeat_ms, .. }) => match earlier.map(|net| &net.effect) {
            Some(Effect::Put(record, _)) => Effect::Put(record, *last_heartbeat_ms),
            Some(Effect::Remove) => Effect::Remove,
            Some(Effect::Renew(_)) | None => Effect::Renew(*last_heartbeat_ms),
        },
        _ => return None,
    };
    let asks = earlier.map_or(!matches!(change, Change::Put(_)), |net| net.asks);
    Some(Net { id: change.id(), effect, asks })
}

fn operations(keys: &Keys, net: &Net) -> Vec<TxnOp> {
    let record = keys.record(net.id);
    match net.effect {
        Effect::Put(stored, last_heartbeat_ms) => {
            let put = TxnOp::put(record.clone(), record_value(stored, last_heartbeat_ms), None);
            let ask = TxnOp::get(record, Some(GetOptions::new().with_count_only()));
            if net.asks { vec![ask, put] } else { vec![put] }
        }
        Effect::Remove => vec![TxnOp::delete(keys.service(net.id), Some(DeleteOptions::new().with_prefix()))],
        Effect::Renew(last_heartbeat_ms) => {
            let put = TxnOp::put(keys.heartbeat(net.id), last_heartbeat_ms.to_string(), None);
            let is_there = Compare::version(record, CompareOp::Greater, 0);
            vec![TxnOp::txn(Txn::new().when([is_there]).and_then([put]))]
        }
    }
}

fn revision(change: &Change) -> Option<u64> {
    match change {
        Change::Put(Put { record, .. }) => Some(record.revision),
        Change::Remove(Remove { revision, .. }) => Some(*revision),
        _ => None,
    }
}
