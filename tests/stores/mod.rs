//! What tests of the plugins for database servers share: where the server is, a wire to it that fails, and what is to be
//! seen then with any server.

mod calls;
mod proxy;
mod scenarios;

use std::io::Write;

pub(crate) use calls::{commit, contents, ids, put, remove};
pub(crate) use proxy::{Proxy, Wire};
pub(crate) use scenarios::{given_up, lost};

/// What `scripts/stores` says of a server in a variable. Without it the test cannot run, which is a failure in CI only.
pub(crate) fn server(variable: &str) -> Option<String> {
    let server = std::env::var(variable).ok();
    if server.is_none() {
        let missing = format!("no {variable}: put `scripts/stores run --` before the command");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{missing}");
        let test = std::thread::current().name().unwrap_or("test").to_string();
        // Not by eprintln: that is shown for failing tests only. In one piece, because the tests run side by side.
        let line = format!("NOT RUN: {test}: {missing}\n");
        std::io::stderr().write_all(line.as_bytes()).expect("stderr takes a line");
    }
    server
}
