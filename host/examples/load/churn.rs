//! Clients that come and go: connect, ask, read the reply, disconnect, again and again, one step after the other as
//! libraries do it.

use std::time::{Duration, Instant};

use clap::Args;
use mio::{Registry, Token};
use serde_json::Value;

use crate::ask;
use crate::cpu::Meter;
use crate::driver::Driver;
use crate::requests::{check, discover, service_type};
use crate::zmtp::{Connection, Kind};
use crate::{Common, Result};

#[derive(Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    common: Common,
    /// Number of clients that do so at the same time.
    #[arg(long, default_value_t = 32)]
    clients: usize,
}

struct Visitor {
    connection: Connection,
    came: Instant,
    has_asked: bool,
}

impl Visitor {
    fn come(plan: &Plan, poll: &Registry, token: usize) -> Result<Self> {
        let came = Instant::now();
        let connection = Connection::open(plan.common.requests, Kind::Dealer, poll, Token(token))?;
        Ok(Visitor { connection, came, has_asked: false })
    }

    /// Takes the next step. Whether the visit is over.
    fn serve(&mut self, buffer: &mut [u8], request: &[u8]) -> Result<bool> {
        let mut is_answered = false;
        self.connection.receive(buffer, |reply| {
            is_answered = true;
            check(reply)
        })?;
        if self.connection.is_ready() && !self.has_asked {
            self.has_asked = true;
            self.connection.queue(request);
        }
        self.connection.flush()?;
        Ok(is_answered)
    }
}

pub(crate) fn run(plan: &Plan) -> Result<Value> {
    let mut driver = Driver::new()?;
    ask::set_up(&mut driver, &plan.common, Kind::Dealer, 1)?;
    let request = Kind::Dealer.message(&discover(&service_type(0)));
    let mut visitors = Vec::new();
    for number in 0..plan.clients {
        visitors.push(Visitor::come(plan, driver.registry(), number)?);
    }
    let mut visit_for = |seconds: f64| {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let mut latencies_ns = Vec::new();
        while Instant::now() < end {
            driver.turn(Some(end), |token, buffer, poll| {
                if visitors[token].serve(buffer, &request)? {
                    let taken = visitors[token].came.elapsed().as_nanos();
                    latencies_ns.push(u32::try_from(taken).unwrap_or(u32::MAX));
                    // The old connection is closed by it.
                    visitors[token] = Visitor::come(plan, poll, token)?;
                }
                Ok(())
            })?;
        }
        Ok::<_, Box<dyn std::error::Error>>(latencies_ns)
    };
    visit_for(plan.common.warmup)?;
    let meter = Meter::start(plan.common.pid)?;
    let mut latencies_ns = visit_for(plan.common.seconds)?;
    meter.report("visits", latencies_ns.len() as u64, &mut latencies_ns)
}
