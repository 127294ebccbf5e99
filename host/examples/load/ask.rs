//! Clients that ask: requests per second, and how long each took.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use mio::{Registry, Token};
use serde_json::Value;

use crate::cpu::Meter;
use crate::driver::Driver;
use crate::requests::{self, check, service_id, service_type};
use crate::zmtp::{Connection, Kind};
use crate::{Common, Result};

/// How many ids each client registers over and over.
const IDS_PER_CLIENT: usize = 100;

#[derive(Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    common: Common,
    /// Address of the heartbeat port.
    #[arg(long)]
    heartbeats: Option<SocketAddr>,
    /// What the clients ask.
    #[arg(long)]
    action: Action,
    /// How they ask: `dealer` sends ["REQ", json], `req` sends ["", json]. Renewals go to the heartbeat port as [json].
    #[arg(long, default_value = "dealer")]
    framing: Kind,
    /// Number of clients.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Requests that each has outstanding.
    #[arg(long, default_value_t = 1)]
    outstanding: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Action {
    Discover,
    Renew,
    Register,
}

pub(crate) fn run(plan: &Plan) -> Result<Value> {
    let mut driver = Driver::new()?;
    set_up(&mut driver, &plan.common, plan.framing, plan.outstanding)?;
    let (address, kind) = match plan.action {
        Action::Renew => (plan.heartbeats.ok_or("renewals need --heartbeats")?, Kind::Bare),
        _ => (plan.common.requests, plan.framing),
    };
    let shared = encoded(
        kind,
        (0..plan.common.services).map(|number| match plan.action {
            Action::Renew => requests::renew(&service_id(number)),
            _ => requests::discover(&service_type(number)),
        }),
    );
    let mut clients = Vec::new();
    for number in 0..plan.clients {
        let requests = match plan.action {
            Action::Register => own_registrations(kind, number),
            _ => shared.clone(),
        };
        let mut client = Client::open(address, kind, driver.registry(), clients.len(), requests, plan.outstanding)?;
        // Clients start at different services, so that they do not walk in step.
        client.next = number * client.requests.len() / plan.clients;
        clients.push(client);
    }

    let mut latencies_ns = Vec::with_capacity(1 << 20);
    ask_for(&mut driver, &mut clients, plan.common.warmup, &mut latencies_ns)?;
    latencies_ns.clear();
    let meter = Meter::start(plan.common.pid)?;
    ask_for(&mut driver, &mut clients, plan.common.seconds, &mut latencies_ns)?;
    let mut report = meter.report("requests", latencies_ns.len() as u64, &mut latencies_ns)?;
    report["reply_bytes"] = clients[0].reply_bytes.into();
    clients.iter_mut().for_each(|client| client.left = 0);
    finish(&mut driver, &mut clients)?;
    Ok(report)
}

/// Registers the services that the load is to find.
pub(crate) fn set_up(driver: &mut Driver, common: &Common, kind: Kind, outstanding: usize) -> Result<()> {
    let registers = (0..common.services).map(|number| requests::register(&service_id(number), &service_type(number)));
    let requests = encoded(kind, registers);
    let mut client = Client::open(common.requests, kind, driver.registry(), 0, requests, outstanding)?;
    client.left = common.services as u64;
    finish(driver, &mut [client])
}

/// The registrations that one client makes over and over.
pub(crate) fn own_registrations(kind: Kind, client: usize) -> Rc<[Vec<u8>]> {
    let ids = (0..IDS_PER_CLIENT).map(|index| format!("load-{client:06}-{index:02}"));
    encoded(kind, ids.map(|id| requests::register(&id, &format!("type-{id}"))))
}

fn encoded(kind: Kind, requests: impl Iterator<Item = Vec<u8>>) -> Rc<[Vec<u8>]> {
    requests.map(|request| kind.message(&request)).collect()
}

/// Has the clients ask for so long. The latencies of what was answered meanwhile are added.
fn ask_for(driver: &mut Driver, clients: &mut [Client], seconds: f64, latencies_ns: &mut Vec<u32>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        driver.turn(Some(end), |token, buffer, _| clients[token].serve(buffer, latencies_ns))?;
    }
    Ok(())
}

/// Waits until all that was to be asked is answered.
fn finish(driver: &mut Driver, clients: &mut [Client]) -> Result<()> {
    while clients.iter().any(|client| !client.is_done()) {
        driver.turn(None, |token, buffer, _| clients[token].serve(buffer, &mut Vec::new()))?;
    }
    Ok(())
}

/// One client: a connection and the requests that it sends over it, in turn.
pub(crate) struct Client {
    connection: Connection,
    requests: Rc<[Vec<u8>]>,
    /// Which one is the next.
    next: usize,
    /// How many it has still to send.
    pub(crate) left: u64,
    outstanding: usize,
    /// When those were sent that are not answered.
    asked: VecDeque<Instant>,
    /// How long the last reply was.
    reply_bytes: usize,
}

impl Client {
    /// Connects. It asks without end, unless `left` is set.
    pub(crate) fn open(
        address: SocketAddr,
        kind: Kind,
        poll: &Registry,
        token: usize,
        requests: Rc<[Vec<u8>]>,
        outstanding: usize,
    ) -> Result<Self> {
        let connection = Connection::open(address, kind, poll, Token(token))?;
        let asked = VecDeque::with_capacity(outstanding);
        Ok(Client { connection, requests, next: 0, left: u64::MAX, outstanding, asked, reply_bytes: 0 })
    }

    /// Takes the replies that have come, checks them, and asks again. How long each took is added.
    pub(crate) fn serve(&mut self, buffer: &mut [u8], latencies_ns: &mut Vec<u32>) -> Result<()> {
        let Client { connection, asked, reply_bytes, .. } = self;
        let mut now = None;
        connection.receive(buffer, |reply| {
            check(reply)?;
            *reply_bytes = reply.len();
            let asked = asked.pop_front().ok_or("a reply has come that nobody asked for")?;
            let taken = now.get_or_insert_with(Instant::now).duration_since(asked);
            latencies_ns.push(u32::try_from(taken.as_nanos()).unwrap_or(u32::MAX));
            Ok(())
        })?;
        self.ask()
    }

    /// Sends as many requests as may be outstanding.
    pub(crate) fn ask(&mut self) -> Result<()> {
        if self.connection.is_ready() && self.left > 0 && self.asked.len() < self.outstanding {
            let now = Instant::now();
            while self.left > 0 && self.asked.len() < self.outstanding {
                self.connection.queue(&self.requests[self.next]);
                self.next = (self.next + 1) % self.requests.len();
                self.left -= 1;
                self.asked.push_back(now);
            }
        }
        self.connection.flush()
    }

    /// Whether all is asked and answered.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0 && self.asked.is_empty()
    }
}
