//! Panics stop here. Every library has its own copy of the standard library, so a panic must be caught in the plugin
//! that it began in: on the host's side it could only abort the process.
//!
//! All of an author's code is called through [`catch`]: a call's start, each poll, the drop of a call that was given
//! up, and the drop of the backend. The plugin's own panic hook adds file and line.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll};

use super::log;
use crate::{Error, ErrorKind, Result};

thread_local! {
    /// What the hook has seen of the latest panic on this thread.
    static LATEST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes the plugin's panics known to the host's log, under the plugin's name, and to [`catch`]. This is the hook of
/// the plugin's copy of the standard library: the host's own is another.
pub(super) fn install_hook(plugin: &'static str) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| panic::set_hook(Box::new(move |info| report(plugin, info))));
}

fn report(plugin: &str, info: &PanicHookInfo<'_>) {
    let message = payload_text(info.payload());
    let place = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_string();
    let mut fields = vec![("at", place.clone()), ("thread", thread)];
    // Captured only if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        fields.push(("backtrace", backtrace.to_string()));
    }
    log::error(plugin, &format!("panicked: {message}"), &fields);
    LATEST.set(Some(format!("panicked: {message} (at {place})")));
}

fn payload_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_string())
}

/// Calls into an author's code. A panic becomes an error with its message, file and line.
///
/// # Errors
/// [`ErrorKind::Panicked`].
pub fn catch<T>(call: impl FnOnce() -> T) -> Result<T> {
    LATEST.set(None);
    // What shares state with the call is called again after a panic: the contract tells the author so.
    panic::catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        // `resume_unwind` calls no hook, and before the hook is installed there is none.
        let message = LATEST.take().unwrap_or_else(|| format!("panicked: {}", payload_text(&*payload)));
        // A payload is any value, and may panic when dropped.
        if let Err(worse) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(worse);
        }
        Error::new(ErrorKind::Panicked, message)
    })
}

/// [`catch`] with the plugin's tokio runtime around the call.
pub(super) fn enter<T>(call: impl FnOnce() -> T) -> Result<T> {
    catch(|| {
        #[cfg(feature = "tokio")]
        let _runtime = super::runtime::enter();
        call()
    })
}

/// A call of a backend, polled and dropped through [`enter`].
pub(super) struct Guarded<'a, T> {
    /// `None` after the call has ended.
    call: Option<Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>>,
}

impl<'a, T> Guarded<'a, T> {
    pub(super) fn new(call: impl Future<Output = Result<T>> + Send + 'a) -> Self {
        Guarded { call: Some(Box::pin(call)) }
    }

    /// The error, if there is one, has been logged by the hook: a drop has nobody to hand it to.
    fn end(&mut self) {
        if let Some(call) = self.call.take() {
            let _ = enter(|| drop(call));
        }
    }
}

impl<T> Future for Guarded<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = self.call.as_mut() else {
            return Poll::Ready(Err(Error::internal("a call was polled after its end")));
        };
        let result = match enter(|| call.as_mut().poll(context)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result,
            Err(panicked) => Err(panicked),
        };
        self.end();
        Poll::Ready(result)
    }
}

impl<T> Drop for Guarded<'_, T> {
    fn drop(&mut self) {
        self.end();
    }
}

/// A backend, dropped through [`enter`].
pub(super) struct GuardedBackend<B>(Option<B>);

impl<B> GuardedBackend<B> {
    pub(super) fn new(backend: B) -> Self {
        GuardedBackend(Some(backend))
    }

    pub(super) fn get(&self) -> Result<&B> {
        // `None` only in the course of the drop, when nobody can call any more.
        self.0.as_ref().ok_or_else(|| Error::internal("the backend was called after its end"))
    }
}

impl<B> Drop for GuardedBackend<B> {
    fn drop(&mut self) {
        if let Some(backend) = self.0.take() {
            let _ = enter(|| drop(backend));
        }
    }
}
