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
    Contents,
    Position,
    Reopen,
    Pages,
    Text,
    History,
    Close,
    Exclusive,
    Cancellation,
    Kill,
    Unknown,
    Discover,
    Secrets,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 16] = [
        Rule::Options,
        Rule::Runtime,
        Rule::Outcomes,
        Rule::Contents,
        Rule::Position,
        Rule::Reopen,
        Rule::Pages,
        Rule::Text,
        Rule::History,
        Rule::Close,
        Rule::Exclusive,
        Rule::Cancellation,
        Rule::Kill,
        Rule::Unknown,
        Rule::Discover,
        Rule::Secrets,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Options => "options",
            Rule::Runtime => "runtime",
            Rule::Outcomes => "outcomes",
            Rule::Contents => "contents",
            Rule::Position => "position",
            Rule::Reopen => "reopen",
            Rule::Pages => "pages",
            Rule::Text => "text",
            Rule::History => "history",
            Rule::Close => "close",
            Rule::Exclusive => "exclusive",
            Rule::Cancellation => "cancellation",
            Rule::Kill => "kill",
            Rule::Unknown => "unknown",
            Rule::Discover => "discover",
            Rule::Secrets => "secrets",
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
                "All calls come from one thread. A plugin waits by its own runtime (the feature `tokio` of \
                 plugin-api) or by `Host::sleep`: there is no runtime of the caller's."
            }
            Rule::Outcomes => {
                "`commit` gives one outcome for each change, in the same order: `Done`, or `Missing` if there is no \
                 record to remove or to renew."
            }
            Rule::Contents => {
                "`load` gives every record as it was last put, with the heartbeat of its last `Renew`, and nothing \
                 that was removed. A group is made in order, and an id may come more than once in it."
            }
            Rule::Position => {
                "A new store has no position. From the first group on, which may be empty, `load` gives the position \
                 of the last group, whatever became of its changes; revisions are kept as they were given."
            }
            Rule::Reopen => {
                "What was committed is there when a durable store is opened again. One that is not durable has no \
                 position then, or has kept everything."
            }
            Rule::Pages => "Over all pages of `load`, each record comes once.",
            Rule::Text => {
                "An id is any Unicode, a document any JSON text, types are any number; all of it comes back as it \
                 was. A change that the store cannot take is `Refused`, alone, and nothing of it is stored."
            }
            Rule::History => {
                "A store that keeps its history gives back the event of each `Put` and `Remove` that it has not \
                 refused, in order and whole from `complete_after` on, also when it is opened again. It forgets what \
                 `forget_before` and `undone` say and nothing else, and begins anew with a new epoch."
            }
            Rule::Close => {
                "`close` returns, and once the backend is dropped the store can be opened again: a lock does not \
                 outlive it."
            }
            Rule::Exclusive => {
                "A durable store belongs to one host: while it is open, a second one is refused by a line that says \
                 so, and the first goes on undisturbed."
            }
            Rule::Cancellation => {
                "The host may drop a call at any `await`. It then restores the records that were concerned, after \
                 which the store is right, and stays right: what was dropped does not land later."
            }
            Rule::Kill => {
                "What a durable store has acknowledged survives the death of the process. Of a group that was not \
                 acknowledged, a first part is there, or nothing, or all, with the position that fits it. A store \
                 that keeps its history has all or nothing."
            }
            Rule::Unknown => {
                "A change of a kind that the plugin does not know is `Refused`, alone: the others of its group are \
                 made."
            }
            Rule::Discover => "`discover` chooses one of the candidates, or leaves the choice to the host with `None`.",
            Rule::Secrets => "The value of a secret option is in no error message.",
        }
    }

    /// Whether it holds for a backend that makes these promises.
    pub fn is_claimed(self, claimed: Capabilities) -> bool {
        match self {
            Rule::Exclusive | Rule::Kill => claimed.has(Capabilities::NONE.durable()),
            Rule::History => claimed.has(Capabilities::NONE.history()),
            Rule::Discover => claimed.has(Capabilities::NONE.balances()),
            _ => true,
        }
    }
}
