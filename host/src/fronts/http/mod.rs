//! The front that speaks HTTP, beside the one for ZeroMQ: the same requests and replies, as JSON over HTTP/1.1.
//!
//! It has a thread of its own, so that heads, bodies and slow clients cost those of ZeroMQ nothing. A request that has
//! been read whole goes over to the serving thread, where `front` hands it to the core, and its reply comes back in
//! the pieces that it was made of.
//!
//! | module | what it does | does I/O |
//! |---|---|---|
//! | `table`, `operators` | all operations: routes and the document are made from it | |
//! | `fields` | path, query and body into a request of the protocol | |
//! | `guard` | who is let in: hosts, sites, types, proofs | |
//! | `routes` | from the table to routes, and what most of them do | |
//! | `sse`, `probes`, `openapi`, `prometheus` | the others | |
//! | `page` | the web page | |
//! | `answer` | replies into responses | |
//! | `budget` | how many bytes and clients wait, and whether there is room for more | |
//! | `connections` | who is connected, and how many may be | |
//! | `certified` | who has shown a certificate | |
//! | `live` | what can change while it is served | |
//! | `handshake` | how a connection begins: with TLS, if that is configured | yes |
//! | `serve` | connections, and what they may take of time | yes |
//! | `paced` | how long clients may take for what they are sent | yes |
//! | `refusing` | what hyper refuses by itself, said as all else | yes |
//! | `front` | what stands between the two threads | |

mod answer;
mod budget;
mod certified;
mod connections;
mod fields;
pub mod front;
mod guard;
mod handshake;
mod holding;
pub mod live;
mod openapi;
mod operators;
mod paced;
mod page;
mod probes;
mod prometheus;
mod refusing;
mod routes;
mod serve;
mod sse;
mod table;

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::Semaphore;

use crate::config::Config;
use crate::fronts::zmtp::report::Report;
use crate::fronts::zmtp::stream::BACKLOG;
use crate::metrics::Metrics;
use crate::protocol::reply::Reply;
use crate::protocol::request::{self, Action, Request};
use crate::security::tls::Tls;
use budget::Budget;
use connections::Connections;
use fields::Fields;
pub use front::Http;
use front::Serving;
use handshake::Handshakes;
use live::{Basis, Live, Steering};
use routes::Shared;
use serve::serve;
use sse::LastTold;

impl Http {
    /// Serves HTTP on a thread of its own. What it counts, and what it shows of all that is counted, is in `metrics`. What
    /// comes back second changes what holds.
    ///
    /// # Errors
    /// The listener cannot be used, or there is no thread.
    pub fn serve(
        listener: TcpListener,
        config: &Config,
        tls: Option<Arc<Tls>>,
        basis: Basis,
        metrics: Arc<Metrics>,
    ) -> io::Result<(Self, Steering)> {
        let http = &config.http;
        let connections = Connections::new(http, config.limits.requests_per_second);
        let (front, Serving { core, version, stop, ended }) = Http::new(connections.clone());
        let live = Live::of(config, tls, 0, &basis);
        metrics.certificate_until.set(live.certificate_until());
        let shared = Arc::new(Shared {
            core,
            budget: Budget::new(http.buffered_bytes as usize),
            live: RwLock::new(Arc::new(live)),
            report: Arc::new(Mutex::new(Report::counted_by(metrics.http.incidents.clone()))),
            metrics,
            targets: Semaphore::new(1),
            told: LastTold::default(),
            stop,
        });
        let steering = Steering { shared: shared.clone(), connections: connections.clone(), version, basis };
        let handshakes = Handshakes::start()?;
        listener.set_nonblocking(true)?;
        // Those who come together wait to be let in: none of them has to try again, which takes a second.
        socket2::SockRef::from(&listener).listen(BACKLOG)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _within = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        std::thread::Builder::new().name("http".into()).spawn(move || {
            run(&runtime, serve(listener, shared, connections, handshakes));
            runtime.shutdown_background();
            drop(ended);
        })?;
        Ok((front, steering))
    }
}

/// What a request over HTTP asks for: fuzzing reaches in here. `row` is one of the table, `place` what stands in its path,
/// decoded. `None` if there is no such row, or it asks for nothing.
pub fn asked(
    row: usize,
    place: &str,
    query: &str,
    body: &[u8],
    limits: &request::Limits,
) -> Option<(Action, Result<Request, Reply>)> {
    let operation = table::operations().nth(row)?;
    let action = operation.action?;
    let path = operation.parameters.first().map(|parameter| (parameter.name, place));
    let fields = Fields::read(operation, path.as_slice(), query, body);
    Some((action, fields.and_then(|fields| fields.request(action, limits))))
}

#[expect(clippy::disallowed_methods, reason = "on a thread of its own")]
fn run(runtime: &tokio::runtime::Runtime, serving: impl Future<Output = ()>) {
    runtime.block_on(serving);
}
