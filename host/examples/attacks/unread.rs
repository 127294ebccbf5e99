//! Clients that do not read what they get, and an honest one among them.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Client, Reply, frame, message};
use crate::host::Host;
use crate::requests::{LIST, register, register_many};
use crate::witness::Witness;
use crate::{Attack, Report, Result};

/// What the registry may keep waiting, and how much of it memory may grow by.
const BUFFERED_BYTES: &str = "16777216";
const GROWTH_MAX_MB: f64 = 1.5 * 16.777_216;
/// Services that make a list of 4 MB.
const SERVICES: usize = 4_000;
const SERVICE_BYTES: usize = 900;
const READERS: usize = 60;
const SUBSCRIBERS: usize = 40;
const EVENTS: usize = 40;
const EVENT_BYTES: usize = 900_000;
/// What those have room for who do not read.
const ROOM_BYTES: usize = 4_096;
const DURATION: Duration = Duration::from_secs(8);
/// What the honest client registers, in how many pieces.
const HONEST_BYTES: usize = 100_000;
const PIECES: usize = 10;

pub(crate) fn attacks() -> Vec<Attack> {
    let attack = |name, about, run| Attack {
        name,
        about,
        plugins: &["memory"],
        settings: &[("limits.buffered_bytes", BUFFERED_BYTES)],
        growth_max_mb: Some(GROWTH_MAX_MB),
        run,
    };
    vec![
        attack("unread-lists", "60 clients that leave a `list` of 4 MB unread, 16 MB allowed", |host| {
            unread(host, READERS, 0)
        }),
        attack("stuck-subscribers", "40 subscribers that read no event of 0.9 MB, 16 MB allowed", |host| {
            unread(host, 0, SUBSCRIBERS)
        }),
        attack("unread", "both at once", |host| unread(host, READERS, SUBSCRIBERS)),
    ]
}

fn unread(host: &Host, readers: usize, subscribers: usize) -> Result<Report> {
    let (taken, refused) = register_many(host.requests, SERVICES, 3600.0, &json!({"pad": "x".repeat(SERVICE_BYTES)}))?;
    if taken < SERVICES {
        return Err(format!("only {taken} services were taken: {}", refused.unwrap_or_default()).into());
    }
    // The service whose events are large is there before memory is read.
    let event = register("large", "large", 3600.0, json!({"pad": "x".repeat(EVENT_BYTES)}));
    let mut publisher = Honest::default();
    publisher.ask(host.requests, |client| client.ask(&event));
    let witness = Witness::begin(host)?;
    let is_over = AtomicBool::new(false);
    let honest = std::thread::scope(|scope| {
        let honest = scope.spawn(|| register_in_pieces(host.requests, &is_over));
        let mut held = Vec::new();
        for _ in 0..subscribers {
            let mut subscriber = Client::open(host.events, "SUB", Some(ROOM_BYTES))?;
            subscriber.write(&frame(0, b"\x01"))?;
            held.push(subscriber);
        }
        for _ in 0..readers {
            let mut reader = Client::open(host.requests, "DEALER", Some(ROOM_BYTES))?;
            reader.send(LIST)?;
            held.push(reader);
        }
        let start = Instant::now();
        for _ in 0..if subscribers > 0 { EVENTS } else { 0 } {
            publisher.ask(host.requests, |client| client.ask(&event));
            sleep(Duration::from_millis(50));
        }
        sleep(DURATION.saturating_sub(start.elapsed()));
        is_over.store(true, Ordering::Relaxed);
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(honest.join().map_err(|_| "the honest client has panicked")?)
    })?;
    let mut note = format!("a client that registers in pieces: {honest}");
    if subscribers > 0 {
        note += &format!("; the client whose events they are: {publisher}");
    }
    let report = Report::new(witness.end()?, note);
    let is_served = honest.done > 0 && publisher.done > 0;
    Ok(report
        .goal(honest.cut_off + publisher.cut_off == 0, "honest client cut off")
        .goal(is_served, "honest client not served"))
}

/// An honest client, which connects again when it is cut off, and how it fares.
#[derive(Default)]
struct Honest {
    connected: Option<Client>,
    done: usize,
    /// To be told that there is no room is an answer; to be cut off is not.
    refused: usize,
    cut_off: usize,
}

impl Honest {
    /// Asks once, over the connection that there is.
    fn ask(&mut self, port: u16, ask: impl FnOnce(&mut Client) -> Result<Reply>) {
        let connected = self.connected.take().map_or_else(|| Client::connect(port), Ok);
        match connected.and_then(|mut client| Ok((ask(&mut client)?, client))) {
            Ok((reply, client)) => {
                self.done += usize::from(reply.success);
                self.refused += usize::from(!reply.success);
                self.connected = Some(client);
            }
            Err(_) => self.cut_off += 1,
        }
    }
}

impl fmt::Display for Honest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Honest { done, refused, cut_off, .. } = self;
        write!(f, "{done} done, {refused} refused, {cut_off} times cut off")
    }
}

/// Registers a service over and over, each time in pieces, as over a slow line.
fn register_in_pieces(port: u16, until: &AtomicBool) -> Honest {
    let request = message(&register("honest", "honest", 3600.0, json!({"pad": "x".repeat(HONEST_BYTES)})));
    let mut honest = Honest::default();
    while !until.load(Ordering::Relaxed) {
        honest.ask(port, |client| {
            for piece in request.chunks(request.len().div_ceil(PIECES)) {
                client.write(piece)?;
                sleep(Duration::from_millis(10));
            }
            client.reply()
        });
    }
    honest
}
