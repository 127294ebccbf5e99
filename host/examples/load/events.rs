//! Subscribers to everything, and something that makes events for them: deliveries per second.
//!
//! Events are made in bursts, and a burst is over when every subscriber has got every event of it: so nothing may be
//! lost, and no queue grows beyond one burst.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use mio::Token;
use serde_json::Value;

use crate::ask::{Client, own_registrations};
use crate::cpu::Meter;
use crate::driver::Driver;
use crate::zmtp::{Connection, Kind};
use crate::{Common, Result};

/// How long the subscribers may take until all of them get events.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait for an event that may have been published too early.
const QUIET: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    common: Common,
    /// Address of the port for events.
    #[arg(long)]
    events: SocketAddr,
    /// Number of subscribers.
    #[arg(long, default_value_t = 32)]
    subscribers: usize,
    /// How events are made: by `register` requests, one event each; or by one request whose body is a number, which
    /// `host/examples/publisher.rs` and `bench/libzmq.c` understand as so many events at once.
    #[arg(long, default_value = "register")]
    by: By,
    /// Events per burst.
    #[arg(long, default_value_t = 4096)]
    burst: u64,
    /// Number of clients that register, and how many requests each has outstanding.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    #[arg(long, default_value_t = 32)]
    outstanding: usize,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum By {
    Register,
    Burst,
}

pub(crate) fn run(plan: &Plan) -> Result<Value> {
    let mut fans = Fans::open(plan)?;
    fans.subscribe()?;
    fans.bursts_for(plan.common.warmup)?;
    let meter = Meter::start(plan.common.pid)?;
    let mut latencies_ns = fans.bursts_for(plan.common.seconds)?;
    let deliveries = latencies_ns.len() as u64 * plan.burst * plan.subscribers as u64;
    let mut report = meter.report("deliveries", deliveries, &mut latencies_ns)?;
    report["event_bytes"] = fans.event_bytes.into();
    Ok(report)
}

/// Everybody who is connected: the subscribers first, as far as tokens go.
struct Fans<'a> {
    plan: &'a Plan,
    driver: Driver,
    subscribers: Vec<Connection>,
    got: Vec<u64>,
    /// How many subscribers have got all.
    complete: usize,
    expected: u64,
    askers: Vec<Client>,
    event_bytes: usize,
}

impl<'a> Fans<'a> {
    fn open(plan: &'a Plan) -> Result<Self> {
        let driver = Driver::new()?;
        let mut askers = Vec::new();
        let askers_wanted = if plan.by == By::Burst { 1 } else { plan.clients };
        for number in 0..askers_wanted {
            let requests = match plan.by {
                By::Register => own_registrations(Kind::Dealer, number),
                By::Burst => Rc::from(vec![Kind::Dealer.message(plan.burst.to_string().as_bytes())]),
            };
            let token = plan.subscribers + number;
            let address = plan.common.requests;
            let mut asker = Client::open(address, Kind::Dealer, driver.registry(), token, requests, plan.outstanding)?;
            asker.left = 0;
            askers.push(asker);
        }
        let mut subscribers = Vec::new();
        for number in 0..plan.subscribers {
            subscribers.push(Connection::open(plan.events, Kind::Sub, driver.registry(), Token(number))?);
        }
        let got = vec![0; plan.subscribers];
        Ok(Fans { plan, driver, subscribers, got, complete: 0, expected: 0, askers, event_bytes: 0 })
    }

    /// Waits until each subscriber gets events.
    fn subscribe(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            self.expected = u64::MAX;
            self.ask(1)?;
            let mut heard = Instant::now();
            while heard.elapsed() < QUIET || !self.askers.iter().all(Client::is_done) {
                if self.turn(Some(heard + QUIET))? > 0 {
                    heard = Instant::now();
                }
                if start.elapsed() > SUBSCRIBE_TIMEOUT {
                    return Err("the first events are not over".into());
                }
            }
            if !self.got.contains(&0) {
                return Ok(());
            }
            if start.elapsed() > SUBSCRIBE_TIMEOUT {
                let deaf = self.got.iter().filter(|got| **got == 0).count();
                return Err(format!("{deaf} of {} subscribers get no events", self.got.len()).into());
            }
        }
    }

    /// Makes bursts for so long. How long each took.
    fn bursts_for(&mut self, seconds: f64) -> Result<Vec<u32>> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let mut latencies_ns = Vec::new();
        while Instant::now() < end {
            let start = Instant::now();
            self.burst()?;
            latencies_ns.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
        Ok(latencies_ns)
    }

    fn burst(&mut self) -> Result<()> {
        self.got.fill(0);
        self.complete = 0;
        self.expected = self.plan.burst;
        match self.plan.by {
            By::Register => self.ask(self.plan.burst)?,
            By::Burst => self.ask(1)?,
        }
        while self.complete < self.subscribers.len() || !self.askers.iter().all(Client::is_done) {
            self.turn(None).map_err(|error| {
                let least = self.got.iter().min().copied().unwrap_or_default();
                format!("{error}: one subscriber has got {least} of {} events", self.expected)
            })?;
        }
        Ok(())
    }

    /// Has the askers send so many requests, shared out among them.
    fn ask(&mut self, requests: u64) -> Result<()> {
        let count = self.askers.len() as u64;
        for (number, asker) in (0..).zip(&mut self.askers) {
            asker.left += requests / count + u64::from(number < requests % count);
            asker.ask()?;
        }
        Ok(())
    }

    /// Takes what has come. How many events that were.
    fn turn(&mut self, end: Option<Instant>) -> Result<u64> {
        let mut events = 0;
        let Fans { driver, subscribers, askers, got, complete, expected, event_bytes, .. } = self;
        driver.turn(end, |token, buffer, _| {
            let Some(subscriber) = subscribers.get_mut(token) else {
                return askers[token - subscribers.len()].serve(buffer, &mut Vec::new());
            };
            let before = got[token];
            subscriber.receive(buffer, |event| {
                got[token] += 1;
                *event_bytes = event.len();
                Ok(())
            })?;
            subscriber.flush()?;
            events += got[token] - before;
            if got[token] > *expected {
                return Err("a subscriber has got more events than there were".into());
            }
            if got[token] == *expected && before < *expected {
                *complete += 1;
            }
            Ok(())
        })?;
        Ok(events)
    }
}
