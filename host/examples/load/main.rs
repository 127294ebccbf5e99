//! Puts load on a registry and measures it: `bench/compare` and `bench/transport` run it, against this host and others.
//!
//! It has to be much cheaper than any server, so that the server is what is measured: it speaks just enough ZMTP 3.0
//! (the NULL mechanism) over plain TCP, all connections on one thread with one `epoll`, and looks at replies only as
//! closely as is needed to know that they are successes. One JSON object on standard output says what was seen;
//! `load_cores` in it is the share of a core that the generator took itself, `other_cores` what others took who have
//! nothing to do with it.

mod ask;
mod churn;
mod cpu;
mod driver;
mod events;
mod requests;
mod zmtp;

use std::error::Error;
use std::net::SocketAddr;

use clap::{Args, Parser};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Load for a service registry.
#[derive(Parser)]
enum Load {
    /// Clients that ask, each over its own connection, with a number of requests outstanding.
    Ask(ask::Plan),
    /// Clients that connect, ask once, read the reply and disconnect.
    Churn(churn::Plan),
    /// Subscribers, and something that makes events for them.
    Events(events::Plan),
}

/// What all loads take.
#[derive(Args)]
struct Common {
    /// Address of the request port, as 127.0.0.1:5556.
    #[arg(long)]
    requests: SocketAddr,
    /// Services that are registered beforehand, each of a type of its own.
    #[arg(long, default_value = "100")]
    services: usize,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Seconds of the same load before that.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Process whose CPU time is read.
    #[arg(long)]
    pid: Option<u32>,
}

fn main() -> Result<()> {
    let report = match Load::parse() {
        Load::Ask(plan) => ask::run(&plan)?,
        Load::Churn(plan) => churn::run(&plan)?,
        Load::Events(plan) => events::run(&plan)?,
    };
    println!("{report}");
    Ok(())
}
