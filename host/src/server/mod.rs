//! The loop that ties sockets, core, store and clock together, on one thread.
//!
//! The core is asked in batches, as messages come; the store's answers and the passing of time are handed to it in
//! between. Nothing here waits for anything but the next thing to happen.

pub mod clock;
mod journal;
mod signals;
pub mod start;

use std::time::Duration;

use bytes::Bytes;

use crate::fronts::{Inbound, Transport};
use crate::protocol::frames::{self, Layout};
use crate::protocol::reply::{Code, Reply};
use crate::protocol::request::{self, Limits};
use crate::registry::{Forbidden, Now, Output, Registry, Unreadable};
use crate::security::audit::Audit;
use crate::security::guard::Security;
use crate::store::{Answer, Contents, Store};
use crate::text::{counted, one_line, quoted};
use clock::{Clock, READ_INTERVAL};
use journal::Journal;

/// Whoever a reply goes to, and how.
#[derive(Debug)]
pub struct Caller<P> {
    peer: P,
    layout: Layout,
    request_id: Option<Box<str>>,
}

/// A clean-up that is due waits until no message is waiting, but not longer than this, in milliseconds.
const CLEANUP_DELAY_MAX_MS: u64 = 1000;
/// How long the store gets for what was taken when the server stops, and then for closing.
const FLUSH_MAX: Duration = Duration::from_secs(5);
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The server at work.
pub struct Server<T: Transport> {
    transport: T,
    store: Store,
    registry: Registry<Caller<T::Peer>>,
    clock: Clock,
    out: Output<Caller<T::Peer>>,
    storage_fails: bool,
    limits: Limits,
    /// Who clients are.
    security: Security,
    audit: Audit,
    journal: Journal,
}

/// How many records that cannot be read are told one by one.
const UNREADABLE_SHOWN_MAX: usize = 5;

/// Tells operators of records that the registry leaves out.
fn warn_of_unreadable(unreadable: &[Unreadable]) {
    for (position, Unreadable { id, reason }) in unreadable.iter().enumerate() {
        let (id, reason) = (quoted(id), one_line(reason));
        if position < UNREADABLE_SHOWN_MAX {
            tracing::warn!("the stored service {id} is left out, it cannot be read: {reason}");
        } else {
            tracing::debug!("the stored service {id} is left out, it cannot be read: {reason}");
        }
    }
    let more = unreadable.len().saturating_sub(UNREADABLE_SHOWN_MAX);
    if more > 0 {
        let more = counted(more, "more stored service is", "more stored services are");
        tracing::warn!("{more} left out, they cannot be read; log.level \"debug\" shows each");
    }
}

/// What the loop was woken by.
enum Woken {
    Messages,
    Store(Answer),
    Time,
    Stop(String),
}

impl<T: Transport> Server<T> {
    /// A server that is ready to run. What the registry has loaded was heard of at the clock's zero.
    pub fn new(
        transport: T,
        store: Store,
        registry: Registry<Caller<T::Peer>>,
        clock: Clock,
        limits: Limits,
        security: Security,
    ) -> Self {
        Server {
            transport,
            store,
            registry,
            clock,
            out: Output::default(),
            storage_fails: false,
            limits,
            security,
            audit: Audit::default(),
            journal: Journal::default(),
        }
    }

    /// Serves until `stop` is ready (it says why) or a client stops the server, and then stops in good order.
    ///
    /// # Errors
    /// What was lost when stopping, in one line.
    pub async fn run(mut self, stop: impl Future<Output = String>) -> Result<(), String> {
        tokio::pin!(stop);
        let mut batch: Vec<Inbound<T::Peer>> = Vec::new();
        let reason = loop {
            let pause = self.pause();
            let woken = tokio::select! {
                biased;
                reason = &mut stop => Woken::Stop(reason),
                answer = self.store.answer() => Woken::Store(answer),
                () = self.transport.receive(&mut batch) => Woken::Messages,
                () = tokio::time::sleep(pause) => Woken::Time,
            };
            let now = self.read_clock();
            let is_quiet = matches!(woken, Woken::Time);
            match woken {
                Woken::Stop(reason) => break reason,
                Woken::Store(Answer::Closed(result)) => {
                    let error = result.err().map_or_else(|| "it ended by itself".into(), |error| error.to_string());
                    return Err(format!("the storage is gone: {error}"));
                }
                Woken::Store(answer) => self.answered(answer, now),
                Woken::Messages => batch.drain(..).for_each(|inbound| {
                    if let Some(inbound) = self.transport.ready(inbound) {
                        self.received(inbound, now);
                    }
                    // At once: so the memory of one reply serves the next, and is still in the cache.
                    self.hand_over_replies();
                }),
                Woken::Time => {}
            }
            self.registry.tick(now, &mut self.out);
            if self.registry.is_cleanup_due(now) && (is_quiet || self.is_cleanup_late(now)) {
                self.registry.clean_up(now);
            }
            self.dispatch(now);
            if std::mem::take(&mut self.out.terminate) {
                break "a client asked for it".into();
            }
        };
        tracing::info!("stopping: {reason}");
        self.stop().await
    }

    /// Finishes what was taken, lets the replies go, and closes the store.
    async fn stop(mut self) -> Result<(), String> {
        let flushed = tokio::time::timeout(FLUSH_MAX, self.flush()).await;
        self.transport.close().await;
        self.store.close();
        let closed = tokio::time::timeout(CLOSE_MAX, async {
            loop {
                if let Answer::Closed(result) = self.store.answer().await {
                    return result;
                }
            }
        });
        let closed = closed.await;
        self.journal.last_lines().for_each(|line| tracing::info!("{line}"));
        let (Ok(flushed), Ok(closed)) = (flushed, closed) else {
            return Err("the storage did not finish in time: the last changes may be lost".into());
        };
        flushed.and(closed).map_err(|error| format!("the storage failed while stopping: {error}"))?;
        let services = counted(self.registry.len(), "service", "services");
        tracing::info!("stopped, with {services} registered");
        Ok(())
    }

    /// Has everything stored that waits for it.
    async fn flush(&mut self) -> Result<(), registry_plugin_api::Error> {
        loop {
            let now = self.read_clock();
            self.registry.tick(now, &mut self.out);
            self.registry.hurry();
            self.dispatch(now);
            if self.registry.is_idle() {
                return Ok(());
            }
            let pause = self.pause();
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
                self.dispatch(now);
                return Err(error);
            }
        }
    }

    fn received(&mut self, inbound: Inbound<T::Peer>, now: Now) {
        let Inbound { port, peer, client, frames } = inbound;
        let (layout, body) = match frames::open(&frames) {
            Ok(opened) => opened,
            Err((layout, problem)) => {
                tracing::debug!(%problem, "a message in no known layout");
                let error = Reply::failure(Code::InvalidRequest, "Invalid message frames").text("message", &problem);
                self.out.replies.push((Caller { peer, layout, request_id: None }, error));
                return;
            }
        };
        let request::Parsed { request, request_id } = request::parse(body, port, &self.limits);
        let caller = Caller { peer, layout, request_id };
        match request {
            Ok(request) => self.registry.request(caller, client, request, now, &mut self.out),
            Err(refusal) => self.out.replies.push((caller, refusal)),
        }
    }

    fn answered(&mut self, answer: Answer, now: Now) {
        match answer {
            Answer::Committed(result) => {
                self.note_storage(result.as_ref().err());
                self.registry.committed(result, now, &mut self.out);
            }
            Answer::Observed(observed) => {
                let last = observed.last().map(|last| last.revision);
                let unreadable = self.registry.observed(observed, now, &mut self.out);
                warn_of_unreadable(&unreadable);
                last.into_iter().for_each(|revision| self.store.watch(revision));
            }
            Answer::HistoryLost => {
                tracing::warn!("the storage has lost track of what changed, loading everything again");
                self.store.load();
            }
            Answer::Loaded(Ok(contents)) => {
                self.store.watch(contents.revision);
                let Contents { epoch, revision, records } = contents;
                let unreadable = self.registry.reload(epoch, revision, records, now, &mut self.out);
                warn_of_unreadable(&unreadable);
            }
            Answer::Loaded(Err(error)) => {
                tracing::error!(%error, "the storage could not be loaded, trying again");
                self.store.load();
            }
            Answer::Chosen { ticket, service_id } => self.registry.chosen(ticket, service_id, now, &mut self.out),
            Answer::Closed(_) => {}
        }
    }

    /// Says once that the storage fails, and once that it works again.
    fn note_storage(&mut self, error: Option<&registry_plugin_api::Error>) {
        match error {
            Some(error) if self.storage_fails => {
                tracing::debug!(error = %one_line(&error.to_string()), "the storage still fails");
            }
            Some(error) => {
                let error = one_line(&error.to_string());
                tracing::error!(%error, "the storage fails: changes are refused until it works again");
            }
            None if self.storage_fails => tracing::info!("the storage works again"),
            None => {}
        }
        self.storage_fails = error.is_some();
    }

    /// Sends what the core has to say: changes to the store, replies and events to clients.
    fn dispatch(&mut self, now: Now) {
        if let Some(changes) = self.registry.next_group(now) {
            self.store.commit(changes);
        }
        for (ticket, query) in self.out.queries.drain(..) {
            self.store.discover(ticket, query);
        }
        self.hand_over_replies();
        for Forbidden { client, what } in self.out.forbidden.drain(..) {
            let shown = || self.security.shown(&client);
            if let Some(line) = self.audit.line(client, shown, &what, now.uptime_ms) {
                tracing::warn!("{line}");
            }
        }
        for event in self.out.events.drain(..) {
            self.journal.note(event.kind, &event.service_id, now.uptime_ms);
            self.transport.publish(event.kind.as_str(), Bytes::from(event.json));
        }
        self.transport.flush();
        for line in self.journal.lines(self.registry.is_idle(), now.uptime_ms) {
            tracing::info!("{line}");
        }
    }

    fn hand_over_replies(&mut self) {
        for (caller, reply) in self.out.replies.drain(..) {
            let Caller { peer, layout, request_id } = caller;
            if layout.is_answered() {
                let body = reply.finish(request_id.as_deref());
                self.transport.reply(peer, &layout.reply(body.to_text().as_bytes()));
            }
        }
    }

    fn read_clock(&mut self) -> Now {
        let (now, held_up) = self.clock.read();
        if let Some(held_up) = held_up {
            let seconds = held_up.as_secs_f64();
            tracing::warn!("the host was held up for {seconds:.1} s: all services get that much longer to renew");
        }
        now
    }

    /// How long until there is something to do without anybody asking.
    fn pause(&mut self) -> Duration {
        let now = self.read_clock();
        Duration::from_millis(self.registry.wake_at_ms().saturating_sub(now.uptime_ms)).min(READ_INTERVAL)
    }

    fn is_cleanup_late(&self, now: Now) -> bool {
        self.registry.is_cleanup_due(Now { uptime_ms: now.uptime_ms.saturating_sub(CLEANUP_DELAY_MAX_MS), ..now })
    }
}
