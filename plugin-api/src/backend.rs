//! The trait that a backend implements.

use std::future::Future;

use crate::{Change, Cursor, Error, ErrorKind, Host, Observed, OptionSpec, Options, Outcome, Page, Query, Result};

/// A storage backend: what a plugin implements, in plain Rust, with `async fn`.
///
/// The host keeps all services in its memory and answers every read from there. The backend is what makes them
/// outlive the host: [`load`](Self::load) gives back everything when the host starts, and [`commit`](Self::commit)
/// stores what has changed, in groups. The rules of the registry (ids, time to live, unique types, who is
/// discovered) are the host's: no backend repeats them, and none reads a clock.
///
/// # Who calls, and when
/// All calls come from one thread of the host, the *store lane*, which does nothing else: a call may block it, or
/// await on the plugin's own tokio runtime (the `tokio` feature). One `commit` has returned
/// before the next is called, and everything has been loaded before the first; [`watch`](Self::watch) and
/// [`discover`](Self::discover) may wait while the others are called. Of a backend that watches, everything is loaded
/// once more after [`ErrorKind::HistoryLost`], and commits may come meanwhile.
///
/// # Cancellation
/// The host may give up a call, which drops its future at an `await`. After that it assumes nothing about
/// what has been stored: it writes the records that were concerned again. So every change must be one that can be
/// repeated: `Put` over an equal record, `Remove` of one that is gone.
///
/// # Panics
/// A panic in any call is caught in the plugin and becomes an error of that call, with file and line. The plugin is
/// called again afterwards, so state behind a poisoned lock should be recovered or reported.
pub trait Backend: Send + Sync + Sized + 'static {
    /// What this backend promises.
    const CAPABILITIES: Capabilities;

    /// The options that the backend knows in `[backend.options]`. The host refuses all others by name, so that
    /// [`open`](Self::open) meets only options that are declared here and have the declared type.
    const OPTIONS: &'static [OptionSpec] = &[];

    /// Opens the store, making it if it is not there. What is there after a crash is repaired here: the rest of a group
    /// that was never acknowledged is no damage.
    ///
    /// While a durable store is open, opening it again is an error, [`Unavailable`](ErrorKind::Unavailable), for
    /// everybody, unless it is [`shared`](Capabilities::shared): two hosts that do not know of each other lose each
    /// other's services. A file lock (`File::try_lock`) that is held for as long as the backend lives does it.
    ///
    /// # Errors
    /// Any error ends the host's start with one line that ends in the error's message. What is stored must not have
    /// been touched: in particular a store that another program made, that is damaged, or that another host has open.
    fn open(options: Options, host: Host) -> impl Future<Output = Result<Self>> + Send;

    /// Everything that is stored, page by page: `after` is [`Cursor::start`] first, and then what the last page named
    /// as [`next`](Page::next). Each record comes once. How many there are to a page is the backend's choice; some
    /// thousand are a good one.
    ///
    /// Between two pages nothing is committed by this host, except while everything is loaded once more after
    /// [`HistoryLost`](ErrorKind::HistoryLost). Other hosts of a [`shared`](Capabilities::shared) store may commit at
    /// any time. A page gives what is there when it is read. The revision that counts is the first page's: what has
    /// changed since then may be in a later page or not, because [`watch`](Self::watch) tells it from there on.
    ///
    /// # Errors
    /// An error ends the host's start: better no registry than one that has lost services.
    fn load(&self, after: Cursor) -> impl Future<Output = Result<Page>> + Send;

    /// Makes a group of changes, in order, and gives one outcome for each, in the same order.
    ///
    /// When it returns `Ok`, all that is [`Done`](Outcome::Done) survives a crash of the host, and of the machine, if
    /// the backend claims [`durable`](Capabilities::durable). If the host dies before that, any first part of the
    /// group may have been stored, or none, or all. The revision grows by exactly one with each `Put` and `Remove` that
    /// is done, and is stored by the same write as the change: after a crash it is that of what is there.
    ///
    /// A group has up to 3072 changes: first up to 1024 that restore records whose state in the store is in doubt, then
    /// up to 1024 that clients have asked for, then up to 1024 renewals. No id is put or removed twice in a group, but a
    /// `Renew` may follow a `Put` or a `Remove` of its id, and goes by what that has left.
    ///
    /// # Errors
    /// An error stands for the whole group: the host tells its clients that nothing has been changed and restores the
    /// records that were concerned as soon as the backend works again, in case some of the changes were stored after
    /// all.
    fn commit(&self, changes: Vec<Change>) -> impl Future<Output = Result<Vec<Outcome>>> + Send;

    /// Waits until the store has changed after `revision`, and says how, in order. Called again and again, if the
    /// backend claims [`watches`](Capabilities::watches). This host's own changes may be among them.
    ///
    /// # Errors
    /// [`ErrorKind::HistoryLost`] makes the host load everything again. After any other error the host waits a
    /// moment and calls again with the same revision.
    fn watch(&self, revision: u64) -> impl Future<Output = Result<Vec<Observed>>> + Send {
        let _ = revision;
        async { Err(Error::new(ErrorKind::Unsupported, "this backend does not watch")) }
    }

    /// Chooses one of the candidates for a client that asks for a service type, if the backend claims
    /// [`balances`](Capabilities::balances). `None` leaves the choice to the host, which picks at random. The client
    /// waits for the answer, so it should come at once: the host chooses itself if it does not.
    ///
    /// # Errors
    /// After an error the host chooses, and logs it.
    fn discover(&self, query: Query) -> impl Future<Output = Result<Option<String>>> + Send {
        let _ = query;
        async { Ok(None) }
    }

    /// Closes the store: the last call before the backend is dropped. All that was committed is stored already, so
    /// there is nothing to save, only to tidy up.
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
    const NAMES: [(u64, &'static str); 5] =
        [(1, "durable"), (2, "shared"), (4, "expires"), (8, "watches"), (16, "balances")];

    /// No promise: records live as long as the backend is open.
    pub const NONE: Capabilities = Capabilities { bits: 0 };

    /// What was committed survives a crash of the host and of the machine.
    pub const fn durable(self) -> Self {
        Capabilities { bits: self.bits | 1 }
    }

    /// Other hosts may use the same store at the same time: the backend checks `unique` itself.
    pub const fn shared(self) -> Self {
        Capabilities { bits: self.bits | 2 }
    }

    /// The store removes a record by itself once its ttl has passed since its last `Put` or `Renew`, even with no host
    /// running, and not before. That time goes by the store's clock, and not by
    /// [`last_heartbeat_ms`](crate::Record::last_heartbeat_ms). Such a removal may move the revision by one, and is told
    /// by `watch` then, or leave it as it is.
    ///
    /// The host goes by its own clock as before. It renews about once a second, so that a record with a shorter ttl may
    /// go too early: the host is told `Missing`, and puts it again.
    pub const fn expires(self) -> Self {
        Capabilities { bits: self.bits | 4 }
    }

    /// [`Backend::watch`] tells what other hosts change.
    pub const fn watches(self) -> Self {
        Capabilities { bits: self.bits | 8 }
    }

    /// [`Backend::discover`] is to be asked before the host chooses.
    pub const fn balances(self) -> Self {
        Capabilities { bits: self.bits | 16 }
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
