//! The host's log: to stderr, as text or JSON, filtered by `[log] level`.

pub(crate) mod audit;
mod lines;

use std::error::Error;
use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use lines::{Lines, Stderr};

pub(crate) use crate::text::counted;

/// What is on its way to stderr.
static LINES: Lines = Lines::new();
/// Sets the filter of the log that was started.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();
type SetFilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;
/// How long the last lines get to be written when the host ends.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Starts the log. Only the first call in a process has an effect.
///
/// # Errors
/// The level cannot be read, or there is no thread to be had.
pub(crate) fn start(log: &Log) -> Result<(), Box<dyn Error + Send + Sync>> {
    let filter = filter(&log.level)?;
    std::thread::Builder::new().name("log".into()).spawn(|| LINES.write_to(&mut std::io::stderr()))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Stderr(&LINES));
    // When nobody reads the log any more, nobody reads that it cannot be written: saying so would panic.
    let builder = builder.log_internal_errors(false);
    // A second start in one process happens in tests only.
    let _ = match log.format {
        LogFormat::Text => {
            let builder = builder.with_ansi(std::io::stderr().is_terminal()).with_filter_reloading();
            let handle = builder.reload_handle();
            let set = move |filter| handle.reload(filter).map_err(|error| error.to_string());
            builder.try_init().map(|()| SET_FILTER.set(Box::new(set)))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let set = move |filter| handle.reload(filter).map_err(|error| error.to_string());
            builder.try_init().map(|()| SET_FILTER.set(Box::new(set)))
        }
    };
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, String> {
    // The `zeromq` crate tells of every client that leaves: that is not for operators, unless they ask for it.
    EnvFilter::try_new(format!("zeromq=warn,{level}")).map_err(|error| format!("log.level {level:?}: {error}"))
}

/// Sets the level of the log that was started.
///
/// # Errors
/// The level cannot be read, or there is no log.
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    let filter = filter(level)?;
    SET_FILTER.get().map_or(Ok(()), |set| set(filter))
}

/// Waits until the last lines are written, if somebody reads them.
pub(crate) fn flush() {
    LINES.flush(FLUSH_MAX);
    audit::flush(FLUSH_MAX);
}
