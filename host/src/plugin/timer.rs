//! The timer that plugins wait by. A plugin may ask from a thread of its own, where the host has no runtime; so this
//! is a small runtime with a thread for itself, made when a plugin first waits.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use registry_plugin_api::abi::load::HostServices;
use tokio::runtime::{Builder, Handle};
use tokio::time;

/// This program, as plugins see it.
pub(super) struct ThisHost;

impl HostServices for ThisHost {
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    async fn sleep(duration: Duration) {
        let Some(timer) = timer() else {
            // No thread to be had. A call of a backend may block its thread, if it must.
            return thread::sleep(duration);
        };
        let sleep = {
            let _context = timer.enter();
            time::sleep(duration)
        };
        sleep.await;
    }
}

fn timer() -> Option<&'static Handle> {
    static TIMER: OnceLock<Option<Handle>> = OnceLock::new();
    TIMER.get_or_init(start).as_ref()
}

fn start() -> Option<Handle> {
    let runtime = Builder::new_current_thread().enable_time().build().ok()?;
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    thread::Builder::new().name("plugin-timer".to_string()).spawn(run).ok()?;
    Some(handle)
}
