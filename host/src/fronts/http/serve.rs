//! The thread that speaks HTTP: lets connections in, and sees to it that none of them takes its time.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::fronts::zmtp::report::{Incident, Report};
use crate::protocol::reply::Code;

use super::answer::Refused;
use super::certified::Certified;
use super::connections::{Busy, Connection, Connections};
use super::guard;
use super::handshake::{Begun, Handshakes};
use super::holding::Holding;
use super::live::Live;
use super::refusing::{Refusing, Tally};
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
    /// To begin with TLS.
    pub(super) handshake: Duration,
}

/// Serves until it is told to stop.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: Arc<Connections>,
    handshakes: Handshakes,
) {
    let handshakes = Arc::new(handshakes);
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
                        tasks.spawn(drive(stream, connection, router.clone(), shared.clone(), handshakes.clone()));
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
    handshakes: Arc<Handshakes>,
) {
    let Ok(peer) = stream.peer_addr() else { return };
    // Small answers must not wait for the next ones.
    let _ = stream.set_nodelay(true);
    let (mut stop, cut, live) = (shared.stop.clone(), connection.cut.clone(), shared.live());
    let report = &shared.report;
    let begun = tokio::select! {
        begun = handshakes.begin(stream, &live) => begun,
        () = cut.notified() => return note(report, peer, Incident::Dropped, "says nothing, and others want to come in"),
        _ = stop.changed() => return,
    };
    connection.has_begun();
    let speaking = Speaking { peer, connection, router: TowerToHyperService::new(router), shared: &shared };
    match begun {
        Ok(Begun::Plain(stream)) => {
            speaking.connection.is_plain();
            // There may be TLS since it has begun.
            let how = if shared.live().tls.is_some() { How::Misdirected } else { How::Plain };
            speaking.speak(stream, &live, how).await;
        }
        Ok(Begun::Misdirected(stream)) => speaking.speak(stream, &live, How::Misdirected).await,
        Ok(Begun::Tls(stream)) => {
            if let (Some(chain), Some(tls)) = (stream.get_ref().1.peer_certificates(), &live.tls) {
                // It is the only one that sets it.
                let _ = speaking.connection.certified.set(Arc::new(Certified::new(chain, tls, live.version)));
            }
            speaking.speak(*stream, &live, How::Tls).await;
        }
        Err(reason) => reason.into_iter().for_each(|reason| note(report, peer, Incident::Handshake, reason)),
    }
}

/// How it is spoken over a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Plain,
    /// In plain text, where TLS is expected: who does so is told, whatever is asked.
    Misdirected,
    Tls,
}

/// A connection that has begun.
struct Speaking<'a> {
    peer: SocketAddr,
    connection: Arc<Connection>,
    router: TowerToHyperService<Router>,
    shared: &'a Arc<Shared>,
}

impl Speaking<'_> {
    /// Speaks HTTP over it.
    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin, live: &Live, how: How) {
        let Speaking { peer, connection, router, shared } = self;
        let (mut stop, cut, patience) = (shared.stop.clone(), connection.cut.clone(), live.patience);
        let is_misdirected = how == How::Misdirected;
        if is_misdirected {
            note(&shared.report, peer, Incident::Handshake, "speaks no TLS, which is expected here");
        }
        let tally = Arc::<Tally>::default();
        let stream = Refusing::new(stream, tally.clone(), {
            let shared = shared.clone();
            move |status| finished(unreadable(status).into_response(), &shared)
        });
        let answer = service_fn(move |request| {
            let asked = tally.ask();
            let (connection, router, shared) = (connection.clone(), router.clone(), shared.clone());
            async move {
                let (response, busy) = match is_misdirected {
                    false => answer(request, connection, router, &shared).await,
                    true => (misdirected().into_response(), None),
                };
                let held = (busy, asked);
                let held = |body| Body::new(Holding { body, _held: held });
                Ok::<_, std::convert::Infallible>(finished(response, &shared).map(held))
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(patience.request)
            .max_headers(HEADERS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .keep_alive(!is_misdirected)
            .serve_connection(TokioIo::new(stream), answer);
        let mut served = pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = cut.notified() => {
                let reason = match how == How::Plain && shared.live().tls.is_some() {
                    true => "in plain text, and TLS is expected now",
                    false => "idle or slow, and others want to come in",
                };
                return note(&shared.report, peer, Incident::Dropped, reason);
            }
            _ = stop.changed() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            let reason = reason(&error);
            reason.into_iter().for_each(|reason| note(&shared.report, peer, Incident::Dropped, reason));
        }
    }
}

/// What is said to who speaks plain text to a port with TLS.
fn misdirected() -> Refused {
    let message = "this port speaks TLS: expected https:// in place of http://";
    Refused::new(StatusCode::BAD_REQUEST, Code::InvalidRequest, "No TLS", message)
}

/// What is said to who sends what hyper cannot read, and refuses with this status.
fn unreadable(status: StatusCode) -> Refused {
    let (error, message) = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => (
            "Too long a head",
            format!("expected at most {HEAD_BYTES_MAX} bytes before the body, and {HEADERS_MAX} headers"),
        ),
        _ => ("Not HTTP", "expected a request of HTTP/1.1".to_string()),
    };
    Refused::new(status, Code::InvalidRequest, error, &message)
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

/// Answers a request, and keeps its connection busy: who may not come in, or comes too often, is told so before anything
/// is looked at.
async fn answer(
    mut request: hyper::Request<Incoming>,
    connection: Arc<Connection>,
    router: TowerToHyperService<Router>,
    shared: &Shared,
) -> (Response, Option<Busy>) {
    let Some(busy) = connection.begin(Instant::now()) else {
        let message = "more than limits.requests_per_second from this connection: try again later";
        let refused = Refused::new(StatusCode::TOO_MANY_REQUESTS, Code::Overloaded, "Too many requests", message);
        return (refused.into_response(), None);
    };
    let response = match guard::admit(request.method(), request.uri(), request.headers(), &shared.live().hosts) {
        Ok(()) => {
            request.extensions_mut().insert(connection);
            match router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
        Err(refused) => refused.into_response(),
    };
    (response, Some(busy))
}

/// A response as it leaves: with what all have, and counted.
fn finished(mut response: Response, shared: &Shared) -> Response {
    guard::protect(&mut response);
    shared.metrics.note_status(response.status().as_u16());
    response
}
