//! The trait that a backend implements.

use std::future::Future;

use crate::{Cursor, Error, ErrorKind, Group, History, Host, OptionSpec, Options, Outcome, Page, Query, Result};

/// A storage backend: what a plugin implements, in plain Rust, with `async fn`.
///
/// The host keeps all services in its memory and answers every read from there. The backend is what makes them
/// outlive the host: [`load`](Self::load) gives back everything when the host starts, and [`commit`](Self::commit)
/// stores what has changed, in groups. The rules of the registry (ids, time to live, unique types, who is discovered)
/// are the host's, and so are the revisions: no backend repeats a rule, counts, or reads a clock.
///
/// # Who calls, and when
/// All calls come from one thread of the host, the *store lane*, which does nothing else: a call may block it, or
/// await on the plugin's own tokio runtime (the `tokio` feature). One `commit` has returned before the next is
/// called, and everything has been loaded before the first. Only [`discover`](Self::discover) may wait while others are
/// called.
///
/// # Cancellation
/// The host gives up a `commit` or a `discover` that waits longer than `[backend] call_timeout`, which drops its future
/// at an `await`. After that it assumes nothing about what has been stored: it restores the records that were
/// concerned. So every change must be one that can be repeated: `Put` over an equal record, `Remove` of one that is
/// gone.
///
/// **What was given up must not land later**: once a call's future is dropped, nothing of that call may reach the store
/// after the next call has begun. What blocks or lives in the process cannot land later. A database server that was
/// sent a statement can: see [Database servers](crate#database-servers).
///
/// # Panics
/// A panic in any call is caught in the plugin and becomes an error of that call, with file and line. The plugin is
/// called again afterwards, so state behind a poisoned lock should be recovered or reported.
pub trait Backend: Send + Sync + Sized + 'static {
    /// The options that the backend knows in `[backend.options]`. The host refuses all others by name, so that
    /// [`open`](Self::open) meets only options that are declared here and have the declared type.
    const OPTIONS: &'static [OptionSpec] = &[];

    /// What this backend promises when it is opened with these options. Called before [`open`](Self::open), and also to
    /// show what the plugin can do: then an option that must be given may be empty (`""`, `0`, `false`).
    fn capabilities(options: &Options) -> Capabilities {
        let _ = options;
        Capabilities::NONE
    }

    /// Opens the store, making it if it is not there. What is there after a crash is repaired here: the rest of a group
    /// that was never acknowledged is no damage.
    ///
    /// While a durable store is open, opening it again is an error, [`Unavailable`](ErrorKind::Unavailable), for
    /// everybody: two hosts that do not know of each other lose each other's services. A file lock (`File::try_lock`)
    /// that is held for as long as the backend lives does it.
    ///
    /// # Errors
    /// Any error ends the host's start with one line that ends in the error's message. What is stored must not have
    /// been touched: in particular a store that another program made, that is damaged, or that another host has open.
    fn open(options: Options, host: Host) -> impl Future<Output = Result<Self>> + Send;

    /// Everything that is stored, page by page: `after` is [`Cursor::start`] first, and then what the last page named
    /// as [`next`](Page::next). Each record comes once. How many there are to a page is the backend's choice; some
    /// thousand are a good one. Nothing is committed between two pages.
    ///
    /// # Errors
    /// An error ends the host's start: better no registry than one that has lost services.
    fn load(&self, after: Cursor) -> impl Future<Output = Result<Page>> + Send;

    /// Makes a group of changes, in order, stores the group's position, and gives one outcome for each change, in the
    /// same order.
    ///
    /// When it returns `Ok`, all that is [`Done`](Outcome::Done) and the position survive a crash of the host, and of
    /// the machine, if the backend claims [`durable`](Capabilities::durable). If the host dies before that, any first
    /// part of the group may have been stored, or all of it, or none; and the position fits that part: its revision is
    /// the greatest of that part's changes and of the position before.
    ///
    /// A group has up to 3072 changes: first up to 1024 that restore records whose state in the store is in doubt, then
    /// up to 1024 that clients have asked for and services that have expired, then up to 1024 renewals. A record that
    /// is restored has the revision that it had before. The revisions of the second part grow strictly, and are greater
    /// than any that the host gave before.
    ///
    /// The host commits an empty group right after opening a store whose [`Page::position`] is `None`.
    ///
    /// # Errors
    /// An error stands for the whole group: the host tells its clients that nothing has been changed and restores the
    /// records that were concerned as soon as the backend works again, in case some of the changes were stored after
    /// all.
    fn commit(&self, group: Group) -> impl Future<Output = Result<Vec<Outcome>>> + Send;

    /// The recent changes, page by page, oldest first, if the backend claims [`history`](Capabilities::history). Called
    /// after everything has been loaded and before the first commit.
    ///
    /// # Errors
    /// An error ends the host's start.
    fn history(&self, after: Cursor) -> impl Future<Output = Result<History>> + Send {
        let _ = after;
        async { Err(Error::new(ErrorKind::Unsupported, "this backend keeps no history")) }
    }

    /// Chooses one of the candidates for a client that asks for a service type, if the backend claims
    /// [`balances`](Capabilities::balances). `None` leaves the choice to the host. The client waits for the answer, so
    /// it should come at once: the host chooses itself if it does not.
    ///
    /// # Errors
    /// After an error the host chooses, and logs it.
    fn discover(&self, query: Query) -> impl Future<Output = Result<Option<String>>> + Send {
        let _ = query;
        async { Ok(None) }
    }

    /// Closes the store: the last call. The futures of all other calls have been dropped before it, and the backend is
    /// dropped after it. All that was committed is stored already, so there is nothing to save, only to tidy up. The
    /// host waits some seconds for it.
    ///
    /// # Errors
    /// An error is logged.
    fn close(&self) -> impl Future<Output = Result<()>> + Send {
        async { Ok(()) }
    }
}

/// What a backend promises: the host and the conformance check go by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    bits: u64,
}

impl Capabilities {
    const NAMES: [(u64, &'static str); 3] = [(1, "durable"), (2, "balances"), (4, "history")];

    /// No promise: records live as long as the backend is open.
    pub const NONE: Capabilities = Capabilities { bits: 0 };

    /// What was committed survives a crash of the host and of the machine.
    pub const fn durable(self) -> Self {
        Capabilities { bits: self.bits | 1 }
    }

    /// [`Backend::discover`] is to be asked before the host chooses.
    pub const fn balances(self) -> Self {
        Capabilities { bits: self.bits | 2 }
    }

    /// The store keeps recent changes, so that clients that follow them can go on after a restart of the host as if
    /// nothing had been: the text of each `Put` and `Remove` that is not [`Refused`](Outcome::Refused) and has an
    /// `event`, under the change's revision.
    ///
    /// - [`Backend::history`] gives them back.
    /// - A group is stored whole or not at all: the history must fit the records after every crash.
    /// - Events before [`Group::forget_before`] no longer count, and are forgotten by and by, so that a group is not
    ///   held up by many of them. Those in [`Group::undone`] are forgotten at once.
    /// - A history is that of one epoch: when a group has another epoch than the one before, all earlier events are
    ///   forgotten, and the history is complete after the position of that group.
    pub const fn history(self) -> Self {
        Capabilities { bits: self.bits | 4 }
    }

    /// Whether all of `other` are promised.
    pub const fn has(self, other: Capabilities) -> bool {
        self.bits & other.bits == other.bits
    }

    /// The words for what is promised, for logs.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(bit, _)| self.bits & bit != 0).map(|(_, name)| *name).collect()
    }

    /// As they cross the boundary. A bit that one side does not know is nothing to it.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Capabilities { bits }
    }

    pub(crate) const fn bits(self) -> u64 {
        self.bits
    }
}
