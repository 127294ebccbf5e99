//! HTTP over the real program: every route, what browsers may be made to send, what clients may cost, and streams over
//! restarts.

mod authority;
mod client;
mod doc;
mod document;
#[path = "../harness/mod.rs"]
mod harness;
mod hostile;
mod limits;
mod metrics;
mod page;
mod reload;
mod routes;
mod spoofed;
mod starting;
mod streams;
mod tls;
mod tokens;

use client::{Events, Http};
use harness::Host;

const MEMORY: &str = "[backend]\nplugin = \"memory\"\n";

/// A host, and the directory that it runs in.
struct Stage {
    host: Host,
    _directory: tempfile::TempDir,
}

impl Stage {
    fn with(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let host = Host::start(directory.path(), config);
        Stage { host, _directory: directory }
    }

    fn new() -> Self {
        Stage::with(MEMORY)
    }

    fn http(&self) -> Http {
        Http::connect(self.host.http())
    }

    fn events(&self, target: &str, headers: &[(&str, &str)]) -> Events {
        Events::open(self.host.http(), target, headers)
    }
}

/// A record with an id.
fn record(id: &str, more: &str) -> String {
    format!("{{\"id\":\"{id}\",\"name\":\"N\",\"host\":\"127.0.0.1\",\"port\":4000{more}}}")
}
