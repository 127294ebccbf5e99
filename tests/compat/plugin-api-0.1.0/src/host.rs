//! The host, as a plugin sees it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use crate::abi::emit;
use crate::abi::load::{HostServices, host_table};
use crate::abi::module::HostTable_Ref;

/// The host, as a plugin sees it: given to [`Backend::open`](crate::Backend::open), to be kept if it is needed.
#[derive(Clone, Copy)]
pub struct Host {
    table: HostTable_Ref,
}

impl Host {
    pub(crate) fn new(table: HostTable_Ref) -> Self {
        Host { table }
    }

    /// A host for a plugin's unit tests: its version is that of plugin-api, and its clock is the real one.
    pub fn for_tests() -> Self {
        Host::new(host_table::<TestHost>(emit::source("tests")))
    }

    /// The version of the host program.
    pub fn version(&self) -> &str {
        self.table.version().as_str()
    }

    /// Waits by the host's timer, which needs no runtime in the plugin.
    pub fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        (self.table.sleep_ns())(nanoseconds)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("version", &self.version()).finish()
    }
}

/// What stands behind [`Host::for_tests`].
struct TestHost;

impl HostServices for TestHost {
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        let state = Arc::new(Mutex::new(Alarm::Waiting(None)));
        let ringing = Arc::clone(&state);
        thread::spawn(move || {
            thread::sleep(duration);
            let mut alarm = ringing.lock().unwrap_or_else(PoisonError::into_inner);
            if let Alarm::Waiting(Some(waker)) = std::mem::replace(&mut *alarm, Alarm::Rang) {
                waker.wake();
            }
        });
        Sleep(state)
    }
}

enum Alarm {
    Waiting(Option<Waker>),
    Rang,
}

struct Sleep(Arc<Mutex<Alarm>>);

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Alarm::Rang => Poll::Ready(()),
            Alarm::Waiting(waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
