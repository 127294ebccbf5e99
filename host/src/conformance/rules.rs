//! The rules: each is a sentence of the contract that the kit can see kept or broken, and one line of its table.

use registry_plugin_api::Capabilities;

/// A rule of the contract, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs)] // `contract` says it
pub enum Rule {
    Options,
    Runtime,
    Outcomes,
    Revisions,
    Contents,
    Reopen,
    Pages,
    Epoch,
    Text,
    Close,
    Exclusive,
    Cancellation,
    Kill,
    Shared,
    Unique,
    Watch,
    Discover,
    Expires,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 18] = [
        Rule::Options,
        Rule::Runtime,
        Rule::Outcomes,
        Rule::Revisions,
        Rule::Contents,
        Rule::Reopen,
        Rule::Pages,
        Rule::Epoch,
        Rule::Text,
        Rule::Close,
        Rule::Exclusive,
        Rule::Cancellation,
        Rule::Kill,
        Rule::Shared,
        Rule::Unique,
        Rule::Watch,
        Rule::Discover,
        Rule::Expires,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Options => "options",
            Rule::Runtime => "runtime",
            Rule::Outcomes => "outcomes",
            Rule::Revisions => "revisions",
            Rule::Contents => "contents",
            Rule::Pages => "pages",
            Rule::Epoch => "epoch",
            Rule::Text => "text",
            Rule::Reopen => "reopen",
            Rule::Close => "close",
            Rule::Exclusive => "exclusive",
            Rule::Cancellation => "cancellation",
            Rule::Kill => "kill",
            Rule::Shared => "shared",
            Rule::Unique => "unique",
            Rule::Watch => "watch",
            Rule::Discover => "discover",
            Rule::Expires => "expires",
        }
    }

    /// What the contract says.
    pub fn contract(self) -> &'static str {
        match self {
            Rule::Options => {
                "An option that is not declared, or has another type than the declared one, is refused by its name; \
                 with what is declared and given, the store opens."
            }
            Rule::Runtime => {
                "All calls come from one thread. A plugin waits by its own runtime (the feature `tokio` of plugin-api) \
                 or by `Host::sleep`: there is no runtime of the caller's."
            }
            Rule::Outcomes => {
                "`commit` gives one outcome for each change, in the same order: `Done`, or `Missing` where there is no \
                 record to remove or to renew."
            }
            Rule::Revisions => {
                "The revision grows by exactly one with each `Put` and `Remove` that is done, in the order of the group, \
                 and stays with a `Renew` and with what is `Missing`; `load` tells the same one."
            }
            Rule::Contents => {
                "`load` gives every record as it was last put, with the heartbeat of its last `Renew` and the revision \
                 of its last `Put`, and nothing that was removed."
            }
            Rule::Pages => "Over all pages of `load`, each record comes once.",
            Rule::Epoch => "The epoch stays with the store; a new store is a new epoch.",
            Rule::Text => {
                "An id is any Unicode, a document any JSON text, types are any number; all of it comes back as it was. A \
                 change that the store cannot take is `Refused`, alone, and nothing of it is stored."
            }
            Rule::Reopen => {
                "What was committed is there when a durable store is opened again. One that is not durable begins a new \
                 epoch, or has kept everything."
            }
            Rule::Close => {
                "`close` returns, and once the backend is dropped the store can be opened again: a lock does not outlive it."
            }
            Rule::Exclusive => {
                "A durable store that is not `shared` belongs to one host: while it is open, a second one is refused \
                 by a line that says so, and the first goes on undisturbed."
            }
            Rule::Cancellation => {
                "The host may drop a call at any `await`. It then writes the records that were concerned again, and \
                 after that the store is right."
            }
            Rule::Kill => {
                "What a durable store has acknowledged survives the death of the process. Of a group that was not \
                 acknowledged, a first part is there, or nothing, or all; the revision is that of what is there."
            }
            Rule::Shared => "Several hosts may open a `shared` store at once, and each sees what the others commit.",
            Rule::Unique => {
                "A `Put` with `unique` in a `shared` store is a `Conflict`, and changes nothing, if another record of that \
                 type is in the store."
            }
            Rule::Watch => {
                "`watch` waits until the store has changed after a revision and tells how, in order and leaving nothing \
                 out, from any revision on; or it says that the history is lost."
            }
            Rule::Discover => "`discover` chooses one of the candidates, or leaves the choice to the host with `None`.",
            Rule::Expires => {
                "A record is gone by itself once its ttl has passed since its last `Put` or `Renew`, also while no host \
                 has the store open, and not before."
            }
        }
    }

    /// Whether it holds for a backend that makes these promises.
    pub fn is_claimed(self, claimed: Capabilities) -> bool {
        let has = |capability| claimed.has(capability);
        let durable = has(Capabilities::NONE.durable());
        let shared = has(Capabilities::NONE.shared());
        match self {
            Rule::Exclusive => durable && !shared,
            Rule::Kill => durable,
            Rule::Shared | Rule::Unique => shared,
            Rule::Watch => has(Capabilities::NONE.watches()),
            Rule::Discover => has(Capabilities::NONE.balances()),
            Rule::Expires => has(Capabilities::NONE.expires()),
            _ => true,
        }
    }
}
