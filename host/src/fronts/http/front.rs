//! What stands between the thread that speaks HTTP and the one that serves: requests over a channel of limited length,
//! and a way back for each reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::config;
use crate::fronts::roll::Roll;
use crate::fronts::{Asked, Front};
use crate::protocol::event::{Event, Notice};
use crate::protocol::reply::Reply;
use crate::protocol::request::Request;
use crate::security::origin::Origin;

use super::answer::Answer;
use super::connections::Connections;

/// How many requests wait for the serving thread; those beyond wait with their connections.
pub(super) const WAITING_MAX: usize = 1024;
/// How many are taken in one turn.
const BATCH_MAX: usize = 64;
/// How long clients get, when the server stops, to take what is sent to them.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// A request on its way to the serving thread.
#[derive(Debug)]
pub struct Asking {
    request: Request,
    origin: Origin,
    /// What held when it was proved who asks.
    version: u64,
    is_first: bool,
    back: Back,
}

/// The way back.
#[derive(Debug)]
pub struct Back(oneshot::Sender<Came>);

/// What comes back.
#[derive(Debug)]
pub(super) enum Came {
    /// The answer.
    Answer(Answer),
    /// The request: something else holds since, by which it has to be proved again who asks.
    Again(Request),
}

/// The serving thread's end of HTTP.
#[derive(Debug)]
pub struct Http {
    requests: mpsc::Receiver<Asking>,
    /// What holds now.
    version: Arc<AtomicU64>,
    /// Tells the other thread to end.
    stop: watch::Sender<bool>,
    /// Dropped when it has.
    ended: oneshot::Receiver<()>,
    /// Who is connected there.
    connections: Arc<Connections>,
}

/// The other end: hands requests over. Clones hand over to the same.
#[derive(Clone, Debug)]
pub(super) struct Core(mpsc::Sender<Asking>);

/// What the thread that speaks HTTP needs to know of the one that serves.
pub(super) struct Serving {
    pub(super) core: Core,
    /// To be set to another number when something else holds.
    pub(super) version: Arc<AtomicU64>,
    pub(super) stop: watch::Receiver<bool>,
    /// To be dropped at the end.
    pub(super) ended: oneshot::Sender<()>,
}

impl Http {
    /// Both ends, over these connections.
    pub(super) fn new(connections: Arc<Connections>) -> (Self, Serving) {
        let (sender, requests) = mpsc::channel(WAITING_MAX);
        let (stop, told_to_stop) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let version = Arc::<AtomicU64>::default();
        let serving = Serving { core: Core(sender), version: version.clone(), stop: told_to_stop, ended: end };
        (Http { requests, version, stop, ended, connections }, serving)
    }
}

impl Core {
    /// Has a request answered, which is the first for what a client wants, or one more; `None` if nobody answers it any
    /// more. If this is dropped before, nobody waits for the answer. Who asks was proved by what held in this version.
    pub(super) async fn ask(&self, request: Request, origin: Origin, version: u64, is_first: bool) -> Option<Came> {
        let (back, came) = oneshot::channel();
        self.0.send(Asking { request, origin, version, is_first, back: Back(back) }).await.ok()?;
        came.await.ok()
    }
}

impl Front for Http {
    type Message = Asking;
    type Caller = Back;

    async fn receive(&mut self, batch: &mut Vec<Asking>) {
        if self.requests.recv_many(batch, BATCH_MAX).await == 0 {
            // The other thread is gone, and nothing will come.
            std::future::pending::<()>().await;
        }
    }

    fn read(&mut self, Asking { request, origin, version, is_first, back }: Asking) -> Option<Asked<Back>> {
        if version != self.version.load(Ordering::Acquire) {
            // If it fails, the client is gone.
            let _ = back.0.send(Came::Again(request));
            return None;
        }
        let Origin { principal, address } = origin;
        Some(Asked { caller: back, principal, address, is_first, request: Ok(request) })
    }

    /// Long replies are made here whatever waits: one that there is no room for is dropped when it is there, and its
    /// client told so. Else clients that read slowly could keep those of other fronts waiting.
    fn has_room(&self, _bytes: usize) -> bool {
        true
    }

    fn is_gone(&self, caller: &Back) -> bool {
        caller.0.is_closed()
    }

    fn reply(&mut self, caller: Back, reply: Reply) {
        // If it fails, the client is gone.
        let _ = caller.0.send(Came::Answer(reply.into()));
    }

    /// Who follows changes over HTTP does so by `watch`.
    fn publish(&mut self, _event: Event) {}

    fn notify(&mut self, _notice: Notice) {}

    /// Its limits are its thread's: see [`Steering`](super::live::Steering).
    fn set_limits(&mut self, _: &config::Limits, _: &config::Server) {}

    fn call_roll(&self, roll: &mut Roll<'_>) {
        self.connections.call_roll(roll);
    }

    fn flush(&mut self) {}

    async fn close(mut self) {
        let _ = self.stop.send(true);
        self.requests.close();
        // Nobody answers those that have come too late.
        while self.requests.try_recv().is_ok() {}
        let _ = tokio::time::timeout(CLOSE_MAX, self.ended).await;
    }
}
