//! The tokio runtime that a plugin owns.
//!
//! tokio keeps its context in thread-locals, and every library has its own copy of them: what the host polls in a
//! plugin has no tokio around it, unless the plugin enters a runtime of its own each time.

use std::sync::OnceLock;

use tokio::runtime::{Builder, EnterGuard, Runtime};

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Makes tokio work on this thread until the guard is dropped. The runtime is made at the first call.
///
/// # Panics
/// If no thread can be started for the runtime. Callers are inside [`catch`](super::guard::catch).
pub(super) fn enter() -> EnterGuard<'static> {
    RUNTIME
        .get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("plugin-tokio")
                .enable_all()
                .build()
                .unwrap_or_else(|error| panic!("cannot start the plugin's tokio runtime: {error}"))
        })
        .enter()
}
