//! The thread that speaks HTTP: lets connections in, and sees to it that none of them takes its time.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

use crate::fronts::zmtp::report::{Incident, Report};
use crate::protocol::reply::Code;

use super::answer::Refused;
use super::connections::{Busily, Connection, Connections};
use super::guard;
use super::routes::{self, Shared};

/// The most bytes of a request before its body, and the most headers.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;
/// How long to wait when the system has no room for a connection: those that there are go on.
const RETRY: Duration = Duration::from_millis(100);
/// How often it is looked whether operators are to be told something.
const LOOK: Duration = Duration::from_secs(1);
/// How long connections get at the end.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// How much time clients may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// To send a request.
    pub(super) request: Duration,
    /// To take nothing of an answer.
    pub(super) unread: Duration,
}

/// Serves until it is told to stop.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, connections: Arc<Connections>) {
    let report = shared.report.clone();
    let router = routes::router(&shared);
    let mut stop = shared.stop.clone();
    let mut looks = tokio::time::interval(LOOK);
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match connections.admit(peer, Instant::now()) {
                    Ok(connection) => {
                        tasks.spawn(drive(stream, connection, router.clone(), shared.clone(), report.clone()));
                    }
                    Err(reason) => note(&report, peer, Incident::Refused, reason),
                },
                // The peer was gone before it was let in.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::debug!("no more HTTP connections can be taken for now: {error}");
                    tokio::time::sleep(RETRY).await;
                }
            },
            _ = looks.tick() => {
                let line = report.lock().ok().and_then(|mut report| report.line(Instant::now()));
                line.into_iter().for_each(|line| tracing::warn!("HTTP: {line}"));
            }
            Some(_) = tasks.join_next() => {}
            _ = stop.changed() => break,
        }
    }
    drop(listener);
    let all = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LEAVE_MAX, all).await;
}

fn note(report: &Mutex<Report>, peer: SocketAddr, incident: Incident, reason: &'static str) {
    if let Ok(mut report) = report.lock() {
        report.note(Some(peer.ip().to_canonical()), incident, reason, 1);
    }
}

/// One connection, from its first byte to its last.
async fn drive(
    stream: TcpStream,
    connection: Arc<Connection>,
    router: Router,
    shared: Arc<Shared>,
    report: Arc<Mutex<Report>>,
) {
    let Ok(peer) = stream.peer_addr() else { return };
    // Small answers must not wait for the next ones.
    let _ = stream.set_nodelay(true);
    let mut stop = shared.stop.clone();
    let cut = connection.cut.clone();
    let patience = shared.patience;
    let router = TowerToHyperService::new(router);
    let answer = service_fn(move |request| {
        let (connection, router, shared) = (connection.clone(), router.clone(), shared.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(request, connection, router, &shared).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.request)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Paced::new(stream, patience.unread)), answer);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = cut.notified() => return note(&report, peer, Incident::Dropped, "idle or slow, and others want to come in"),
        _ = stop.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        let reason = reason(&error);
        reason.into_iter().for_each(|reason| note(&report, peer, Incident::Dropped, reason));
    }
}

/// Why a connection ended, if that is anybody's business. Who leaves, or is slow between two requests, is not.
fn reason(error: &hyper::Error) -> Option<&'static str> {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::TimedOut) => Some("takes nothing of its answer"),
        _ if error.is_parse_too_large() => Some("too long a head"),
        _ if error.is_parse() => Some("not HTTP"),
        _ => None,
    }
}

/// Answers a request: who may not come in, or comes too often, is told so before anything is looked at.
async fn answer(
    mut request: hyper::Request<Incoming>,
    connection: Arc<Connection>,
    router: TowerToHyperService<Router>,
    shared: &Shared,
) -> Response {
    let Some(busy) = connection.begin(Instant::now()) else {
        let message = "more than limits.requests_per_second from this connection: try again later";
        let refused = Refused::new(StatusCode::TOO_MANY_REQUESTS, Code::Overloaded, "Too many requests", message);
        let mut response = refused.into_response();
        guard::protect(&mut response);
        shared.metrics.note_status(response.status().as_u16());
        return response;
    };
    let mut response = match guard::admit(request.method(), request.uri(), request.headers(), &shared.hosts) {
        Ok(()) => {
            request.extensions_mut().insert(connection);
            match router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        Err(refused) => refused.into_response(),
    };
    guard::protect(&mut response);
    shared.metrics.note_status(response.status().as_u16());
    response.map(|body| Body::new(Busily { body, _busy: busy }))
}

/// A socket on which a client that takes nothing of what it is sent is given up.
struct Paced<S> {
    stream: S,
    unread_max: Duration,
    /// When it is given up, if something waits for it.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    fn new(stream: S, unread_max: Duration) -> Self {
        Paced { stream, unread_max, deadline: None }
    }

    /// Looks at what became of a write.
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let unread_max = self.unread_max;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(unread_max)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.judge(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        this.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.judge(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.judge(shut, context)
    }
}
