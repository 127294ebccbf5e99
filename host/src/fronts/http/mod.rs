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
//! | `budget` | how many bytes wait, and whether there is room for more | |
//! | `connections` | who is connected, and how many may be | |
//! | `serve` | connections, and what they may take of time | yes |
//! | `front` | what stands between the two threads | |

mod answer;
mod budget;
mod connections;
mod fields;
pub mod front;
mod guard;
mod openapi;
mod operators;
mod page;
mod probes;
mod prometheus;
mod routes;
mod serve;
mod sse;
mod table;

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use crate::config::Config;
use crate::fronts::zmtp::report::Report;
use crate::fronts::zmtp::stream::BACKLOG;
use crate::metrics::Metrics;
use crate::protocol::reply::Reply;
use crate::protocol::request::{self, Action, Request};
use budget::Budget;
use connections::Connections;
use fields::Fields;
pub use front::Http;
use front::Serving;
use guard::Hosts;
use routes::Shared;
use serve::{Patience, serve};
use sse::LastTold;

impl Http {
    /// Serves HTTP on a thread of its own. `limits` are those of requests, and `has_keys` says that clients of other
    /// fronts have to prove who they are. What it counts, and what it shows of all that is counted, is in `metrics`.
    ///
    /// # Errors
    /// The listener cannot be used, or there is no thread.
    pub fn serve(
        listener: TcpListener,
        config: &Config,
        (limits, has_keys): (request::Limits, bool),
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let (front, Serving { core, stop, ended }) = Http::new();
        let (http, all) = (&config.http, &config.limits);
        let shared = Arc::new(Shared {
            core,
            budget: Budget::new(http.buffered_bytes as usize),
            limits,
            body_bytes_max: all.message_bytes as usize,
            patience: Patience { request: http.request_timeout(), unread: all.unread_timeout() },
            hosts: Hosts::new(&http.hosts),
            asks_for_proof: has_keys || !http.tokens.is_empty(),
            tokens: http.tokens(),
            report: Arc::new(Mutex::new(Report::counted_by(metrics.http.incidents.clone()))),
            metrics,
            targets: Semaphore::new(1),
            told: LastTold::default(),
            stop,
        });
        let (connections, per_address) = (http.connections as usize, http.connections_per_address as usize);
        let connections = Connections::new(connections, per_address, all.requests_per_second);
        listener.set_nonblocking(true)?;
        // Those who come together wait to be let in: none of them has to try again, which takes a second.
        socket2::SockRef::from(&listener).listen(BACKLOG)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _within = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        std::thread::Builder::new().name("http".into()).spawn(move || {
            run(&runtime, serve(listener, shared, connections));
            runtime.shutdown_background();
            drop(ended);
        })?;
        Ok(front)
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
