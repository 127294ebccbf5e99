//! The host's log: to stderr, as text or JSON, filtered by `[log] level`.

mod lines;

use std::error::Error;
use std::io::IsTerminal;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};
use lines::{Lines, Stderr};

pub(crate) use crate::text::counted;

/// What is on its way to stderr.
static LINES: Lines = Lines::new();
/// How long the last lines get to be written when the host ends.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Starts the log. Only the first call in a process has an effect.
///
/// # Errors
/// The level cannot be read, or there is no thread to be had.
pub(crate) fn start(log: &Log) -> Result<(), Box<dyn Error + Send + Sync>> {
    // The `zeromq` crate tells of every client that leaves: that is not for operators, unless they ask for it.
    let filter = EnvFilter::try_new(format!("zeromq=warn,{}", log.level))
        .map_err(|error| format!("log.level {:?}: {error}", log.level))?;
    std::thread::Builder::new().name("log".into()).spawn(|| LINES.write_to(&mut std::io::stderr()))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Stderr(&LINES));
    // When nobody reads the log any more, nobody reads that it cannot be written: saying so would panic.
    let builder = builder.log_internal_errors(false);
    // A second start in one process happens in tests only.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Waits until the last lines are written, if somebody reads them.
pub(crate) fn flush() {
    LINES.flush(FLUSH_MAX);
}
