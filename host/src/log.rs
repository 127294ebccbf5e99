//! The host's log: to stderr, as text or JSON, filtered by `[log] level`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

pub(crate) use crate::text::counted;

/// Starts the log. Only the first call in a process has an effect.
///
/// # Errors
/// The level cannot be read.
pub(crate) fn start(log: &Log) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // The `zeromq` crate tells of every client that leaves: that is not for operators, unless they ask for it.
    let filter = EnvFilter::try_new(format!("zeromq=warn,{}", log.level))
        .map_err(|error| format!("log.level {:?}: {error}", log.level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // When nobody reads the log any more, nobody reads that it cannot be written: saying so would panic.
    let builder = builder.log_internal_errors(false);
    // A second start in one process happens in tests only.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
