//! The loop that ties front, core, store and clock together, on one thread.
//!
//! Messages, the store's answers and all else that can happen take turns, so that none can keep the others waiting, and
//! the work of a turn is bounded: a batch of messages, or one answer. Nothing here waits for anything but the next thing
//! to happen.

mod clients;
pub mod clock;
mod digest;
mod hand_over;
mod measuring;
mod quiet;
mod reload;
mod restore;
mod retry;
mod signals;
#[expect(clippy::disallowed_methods, reason = "starts the runtime that serves")]
pub(crate) mod start;
mod starting;
mod swap;
mod turns;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::fronts::{Asked, Front};
use crate::log;
use crate::metrics::Metrics;
use crate::registry::{Now, Output, Registry};
use crate::security::audit::Audit;
use crate::security::guard::Guard;
use crate::security::origin::Origin;
use crate::store::{Answer, Store};
use crate::text::counted;
use clock::{Clock, READ_INTERVAL};
use digest::Digest;
use measuring::Measuring;
use quiet::Quiet;
use reload::Settings;
pub(crate) use restore::upload;
use restore::{Restoring, Upload};
use starting::Starting;
use swap::{Leaving, Swap, poll_leaving};
use turns::{Turn, Woken};

/// How long the store gets for what was taken when the server stops, and then for closing.
const FLUSH_MAX: Duration = Duration::from_secs(5);
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// How long it is waited for the store at a time meanwhile, at least.
const FINISH_PAUSE_MIN: Duration = Duration::from_millis(5);

/// The server at work.
struct Server<F: Front> {
    front: F,
    store: Store,
    registry: Registry<F::Caller>,
    clock: Clock,
    out: Output<F::Caller>,
    storage_fails: bool,
    /// Who clients are.
    guard: Guard,
    /// What clients were not allowed to do.
    refusals: Audit,
    /// Who did what.
    audit: log::audit::Audit,
    digest: Digest,
    /// What it is configured by, if that can be read again.
    settings: Option<Settings<F::Caller>>,
    /// The move to another store that is under way.
    swap: Option<Swap<F::Caller>>,
    /// Stores that are not in charge any more, or will not be, and are being closed.
    leaving: Vec<Leaving>,
    /// How many answers the store in charge still owes that nobody waits for any more.
    ignored: usize,
    /// A backup that is being sent, and one that is being restored.
    upload: Option<Upload>,
    restoring: Option<Restoring<F::Caller>>,
    /// The ids of what a backup that could not be restored has left behind in the store.
    left_staged: Vec<String>,
    /// What is needed to begin, as long as the registry has not begun.
    starting: Option<Starting<F::Caller>>,
    metrics: Arc<Metrics>,
    measuring: Measuring,
}

impl<F: Front> Server<F> {
    /// A server that is ready to run. The registry heard of what it has loaded at the clock's zero.
    fn new(front: F, store: Store, registry: Registry<F::Caller>, clock: Clock, guard: Guard) -> Self {
        Server {
            front,
            store,
            registry,
            clock,
            out: Output::default(),
            storage_fails: false,
            guard,
            refusals: Audit::default(),
            audit: log::audit::Audit::default(),
            digest: Digest::default(),
            settings: None,
            swap: None,
            leaving: Vec::new(),
            ignored: 0,
            upload: None,
            restoring: None,
            left_staged: Vec::new(),
            starting: None,
            metrics: Arc::default(),
            measuring: Measuring::default(),
        }
    }

    /// A server whose store is being opened.
    fn start(
        front: F,
        store: Store,
        starting: Starting<F::Caller>,
        settings: Option<Settings<F::Caller>>,
        audit: log::audit::Audit,
        guard: Guard,
    ) -> Self {
        let server = Server::new(front, store, starting.registry(), Clock::start(), guard);
        Server { starting: Some(starting), settings, audit, ..server }
    }

    /// Serves until `stop` is ready (it says why) or a client stops the server, and then stops in good order.
    ///
    /// # Errors
    /// What was lost when stopping, in one line.
    async fn run(mut self, stop: impl Future<Output = String>) -> Result<(), String> {
        let mut stop = pin!(stop);
        let mut batch = Vec::new();
        let mut turn = Turn::Messages;
        let mut quiet = Quiet::default();
        let reason = loop {
            let woken = self.next(stop.as_mut(), turn, &mut batch).await;
            turn = woken.next_turn(turn);
            let has_read = matches!(woken, Woken::Messages);
            let is_idle = matches!(woken, Woken::Time);
            let now = self.read_clock();
            self.registry.set_bad_key_files(self.guard.problem_count());
            match woken {
                Woken::Stop(reason) => break reason,
                Woken::Store(Answer::Opened(Ok(contents))) => self.opened(contents),
                Woken::Store(Answer::Opened(Err(error))) => return Err(self.not_opened(&error).await),
                Woken::Store(Answer::Closed(result)) => {
                    let error = result.err().map_or_else(|| "it ended by itself".into(), |error| error.to_string());
                    return Err(format!("the storage is gone: {error}"));
                }
                Woken::Store(answer) => self.answered(answer, now),
                Woken::Swap(moved) => self.moved(moved),
                Woken::Left(place, answer) => self.left(place, &answer),
                Woken::Messages => batch.drain(..).for_each(|message| self.received(message, now)),
                Woken::Settings(found) => self.reload(found),
                Woken::Time => {}
            }
            let now = match self.go_on_starting(now) {
                true => {
                    quiet = Quiet::default();
                    self.read_clock()
                }
                false => now,
            };
            self.registry.tick(now, &mut self.out);
            let front = &self.front;
            self.registry.drop_gone(|caller| front.is_gone(caller), now);
            if quiet.allows(self.registry.is_cleanup_due(now), is_idle, now.uptime_ms) {
                self.registry.clean_up(now);
            }
            self.dispatch(now);
            self.measure(now);
            self.take_reloads();
            self.take_roll_calls(now);
            self.go_on_swapping();
            self.go_on_restoring(now);
            self.front.flush();
            if std::mem::take(&mut self.out.terminate) {
                break "a client asked for it".into();
            }
            if !has_read {
                // Connections are read by other tasks of this thread: they have to get to it before their turn.
                tokio::task::yield_now().await;
            }
        };
        tracing::info!("stopping: {reason}");
        self.stop().await
    }

    /// Waits for the next thing to happen. If several are there, it begins with those whose turn it is.
    async fn next(
        &mut self,
        stop: Pin<&mut impl Future<Output = String>>,
        turn: Turn,
        batch: &mut Vec<F::Message>,
    ) -> Woken {
        let pause = self.pause();
        let is_restoring = self.restoring.as_ref().is_some_and(Restoring::is_loading);
        let is_busy = self.is_loading() || is_restoring || self.registry.is_busy();
        let time = async {
            // The shortest sleep is a millisecond, longer than a piece of a list, or of a search, takes.
            if !is_busy {
                tokio::time::sleep(pause).await;
            }
        };
        // What is in force is not known before the registry has begun.
        let is_begun = self.starting.is_none();
        let settings = async {
            match &mut self.settings {
                Some(settings) if is_begun => settings.read_again().await,
                _ => std::future::pending().await,
            }
        };
        let swap = async {
            match &mut self.swap {
                Some(swap) => swap.next().await,
                None => std::future::pending().await,
            }
        };
        let leaving = &mut self.leaving;
        let left = poll_fn(|context| poll_leaving(leaving, context));
        let operators = async {
            tokio::select! {
                found = settings => Woken::Settings(found),
                moved = swap => Woken::Swap(moved),
                (place, answer) = left => Woken::Left(place, answer),
            }
        };
        let mut messages = pin!(self.front.receive(batch));
        let mut answer = pin!(self.store.answer());
        let mut operators = pin!(operators);
        let in_turn = poll_fn(|context| {
            let mut next = turn;
            for _ in 0..3 {
                let woken = match next {
                    Turn::Messages => messages.as_mut().poll(context).map(|()| Woken::Messages),
                    Turn::Store => answer.as_mut().poll(context).map(Woken::Store),
                    Turn::Operators => operators.as_mut().poll(context),
                };
                if woken.is_ready() {
                    return woken;
                }
                next = next.other();
            }
            Poll::Pending
        });
        tokio::select! {
            biased;
            reason = stop => Woken::Stop(reason),
            woken = in_turn => woken,
            () = time => Woken::Time,
        }
    }

    /// Finishes what was taken, lets the replies go, and closes the store.
    async fn stop(mut self) -> Result<(), String> {
        self.stop_restoring();
        if !self.hurry_swap_back() && !self.store_is_asked() {
            self.abandon_swap();
        }
        self.registry.hold_changes(self.store_is_asked());
        self.end_waits();
        let flushed = tokio::time::timeout(FLUSH_MAX, self.finish()).await;
        self.abandon_swap();
        self.leave_restoring();
        // Whoever still waits for a store that has failed.
        let now = self.read_clock();
        self.registry.give_up_all(now, &mut self.out);
        self.hand_over(now);
        let is_opening = self.registry.is_starting() && !self.is_loading();
        let leaving = async {
            while !self.leaving.is_empty() {
                let leaving = &mut self.leaving;
                let (place, answer) = poll_fn(|context| poll_leaving(leaving, context)).await;
                self.left(place, &answer);
            }
        };
        if tokio::time::timeout(CLOSE_MAX, leaving).await.is_err() {
            tracing::warn!("a storage that is not in charge could not be closed in time");
        }
        self.front.close().await;
        self.store.close();
        if is_opening {
            // It may take as long as it likes, and nobody has been told of anything in it.
            tracing::info!("stopped, before the storage was open");
            return Ok(());
        }
        let closed = tokio::time::timeout(CLOSE_MAX, async {
            loop {
                if let Answer::Closed(result) = self.store.answer().await {
                    return result;
                }
            }
        });
        let closed = closed.await;
        self.digest.last_lines().for_each(|line| tracing::info!("{line}"));
        let (Ok(flushed), Ok(closed)) = (flushed, closed) else {
            return Err("the storage did not finish in time: the last changes may be lost".into());
        };
        flushed.and(closed).map_err(|error| format!("the storage failed while stopping: {error}"))?;
        let services = counted(self.registry.len(), "service", "services");
        tracing::info!("stopped, with {services} registered");
        Ok(())
    }

    /// Answers all who wait for changes, or for a service to come.
    fn end_waits(&mut self) {
        self.registry.end_watches();
        while self.registry.is_watched() {
            let now = self.read_clock();
            self.registry.tick(now, &mut self.out);
            self.hand_over(now);
        }
        self.registry.dismiss_waiting(&mut self.out);
    }

    /// Whether the store has been asked something by a swap or a restore that it has not answered yet.
    fn store_is_asked(&self) -> bool {
        self.swap.as_ref().is_some_and(Swap::awaits_store)
            || self.restoring.as_ref().is_some_and(Restoring::awaits_store)
    }

    /// Has everything stored that waits for it.
    async fn finish(&mut self) -> Result<(), registry_plugin_api::Error> {
        loop {
            let now = self.read_clock();
            self.registry.tick(now, &mut self.out);
            self.registry.dismiss_waiting(&mut self.out);
            self.registry.hurry();
            self.dispatch(now);
            self.go_on_restoring(now);
            let is_restoring = self.restoring.as_ref().is_some_and(Restoring::is_loading);
            let is_answering = self.registry.is_making_list() || self.registry.has_put_off();
            if self.registry.is_idle() && !is_answering && !is_restoring && !self.store_is_asked() {
                return Ok(());
            }
            // A clean-up that is due is not begun any more, so the pause that it asks for would be none at all.
            let pause = if is_answering { Duration::ZERO } else { self.pause().max(FINISH_PAUSE_MIN) };
            let answer = tokio::select! {
                answer = self.store.answer() => answer,
                () = tokio::time::sleep(pause) => continue,
            };
            let failed = match &answer {
                Answer::Committed(Err(error)) | Answer::Closed(Err(error)) => Some(error.clone()),
                _ => None,
            };
            let now = self.read_clock();
            self.answered(answer, now);
            if let Some(error) = failed {
                // Nothing more is given to a store that fails: what became of it would not be told to anybody.
                self.hand_over(now);
                return Err(error);
            }
        }
    }

    fn received(&mut self, message: F::Message, now: Now) {
        let Some(Asked { caller, principal, address, is_first, request }) = self.front.read(message) else { return };
        let origin = Origin { principal, address };
        let is_admitted = if is_first { self.registry.admit(origin, request.as_ref().ok(), now) } else { Ok(()) };
        match is_admitted.and(request) {
            Ok(request) => self.registry.request(caller, origin, request, now, &mut self.out),
            Err(refusal) => self.out.replies.push((caller, refusal)),
        }
        // At once: so the memory of one reply serves the next, and is still in the cache.
        self.hand_over_replies();
    }

    fn answered(&mut self, answer: Answer, now: Now) {
        match answer {
            Answer::Committed(_) if self.ignored > 0 => self.ignored -= 1,
            Answer::Committed(result) if self.swap.as_ref().is_some_and(Swap::awaits_store) => self.store_moved(result),
            Answer::Committed(result) if self.store_is_asked() => self.restore_moved(result),
            Answer::Committed(result) => {
                self.note_committed(result.is_err());
                self.note_storage(result.as_ref().err());
                self.registry.committed(result, now, &mut self.out);
            }
            Answer::Chosen { ticket, service_id } => self.registry.chosen(ticket, service_id, now, &mut self.out),
            Answer::Opened(_) | Answer::Closed(_) => {}
        }
    }

    /// The store cannot be opened: why, in one line.
    async fn not_opened(self, error: &registry_plugin_api::Error) -> String {
        let plugin = self.starting.map(|starting| starting.about.plugin).unwrap_or_default();
        self.front.close().await;
        format!("the storage {plugin} cannot be opened: {error}")
    }

    fn read_clock(&mut self) -> Now {
        let (now, held_up) = self.clock.read();
        self.metrics.now.set(self.clock.last_ns());
        if let Some(held_up) = held_up {
            self.metrics.held_up.add(held_up.as_nanos() as u64);
            let seconds = held_up.as_secs_f64();
            tracing::warn!("the host was held up for {seconds:.1} s: all services get that much longer to renew");
        }
        now
    }

    /// How long until there is something to do without anybody asking.
    fn pause(&mut self) -> Duration {
        if self.is_loading() || self.restoring.as_ref().is_some_and(Restoring::is_loading) {
            return Duration::ZERO;
        }
        let now = self.read_clock();
        Duration::from_millis(self.registry.wake_at_ms().saturating_sub(now.uptime_ms)).min(READ_INTERVAL)
    }
}

#[cfg(test)]
mod tests;
