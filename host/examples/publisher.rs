//! This host's publisher alone: `bench/transport` sets it beside libzmq's PUB.
//!
//! The registry's transport without the registry: a request whose body is the number n has it publish n events of the
//! same bytes, as many at once as the server does after a full batch of changes.
//!
//! usage: publisher TRANSPORT REQUESTS_PORT EVENTS_PORT HEARTBEATS_PORT EVENT_BYTES

use std::error::Error;
use std::net::TcpListener;
use std::sync::Arc;

use bytes::Bytes;
use registry_host::config::{Limits, Server};
use registry_host::fronts::zeromq::ZeroMq;
use registry_host::fronts::zmtp::Zmtp;
use registry_host::fronts::{Listeners, Transport};
use registry_host::protocol::frames;
use registry_host::security::guard::Guard;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [transport, ports @ .., event_bytes] = &arguments[..] else { return Err("five arguments are needed".into()) };
    let [requests, events, heartbeats] = ports else { return Err("three ports are needed".into()) };
    let listen = |port: &str| -> Result<TcpListener> { Ok(TcpListener::bind(("127.0.0.1", port.parse()?))?) };
    let listeners =
        Listeners { requests: listen(requests)?, events: listen(events)?, heartbeats: listen(heartbeats)?, ipc: None };
    let event = Bytes::from(vec![b'x'; event_bytes.parse()?]);
    let server = Server::default();
    let batch = server.receive_high_water_mark as usize;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        match &**transport {
            "zmtp" => {
                // A burst may wait as a whole, as with libzmq's high-water mark at 0.
                let limits = Limits { event_queue_bytes: 1 << 30, ..Limits::default() }.for_transport(&server);
                publish(Zmtp::serve(listeners, limits, Guard::Null, Arc::default())?, event, batch).await
            }
            "zeromq" => publish(ZeroMq::serve(listeners, batch).await?, event, batch).await,
            other => Err(format!("no transport {other}").into()),
        }
    })
}

/// Publishes what it is asked to, without end.
async fn publish<T: Transport>(mut transport: T, event: Bytes, batch: usize) -> Result<()> {
    let mut requests = Vec::new();
    loop {
        transport.receive(&mut requests).await;
        for request in requests.drain(..) {
            let (layout, body) = frames::open(&request.frames).map_err(|(_, problem)| problem)?;
            let count: usize = std::str::from_utf8(body)?.parse()?;
            for number in 1..=count {
                transport.publish("register", event.clone());
                if number % batch == 0 {
                    transport.flush();
                    tokio::task::yield_now().await;
                }
            }
            if let Some((body, first)) = layout.reply(b"{\"success\":true}").split_last() {
                transport.reply(request.peer, first, None, body);
            }
            transport.flush();
        }
    }
}
