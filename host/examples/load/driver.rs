//! All connections on one thread: whoever has something to read is served, one after the other.

use std::time::{Duration, Instant};

use mio::{Events, Poll, Registry};

use crate::Result;

/// Longer than any message of these loads, and than what a socket holds for its reader as a rule.
const BUFFER_BYTES: usize = 256 * 1024;
const EVENTS_MAX: usize = 1024;
/// If nothing comes from any server for so long, the run fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for all connections at once.
pub(crate) struct Driver {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
}

impl Driver {
    /// One that waits for nobody yet.
    pub(crate) fn new() -> Result<Self> {
        let buffer = vec![0; BUFFER_BYTES];
        Ok(Driver { poll: Poll::new()?, events: Events::with_capacity(EVENTS_MAX), buffer })
    }

    /// Where connections are registered.
    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Waits until something comes, but no longer than until `end`, and has those connections served, which are named
    /// by their tokens. `serve` gets working space too.
    ///
    /// # Errors
    /// What `serve` says, or that nothing has come for too long.
    pub(crate) fn turn(
        &mut self,
        end: Option<Instant>,
        mut serve: impl FnMut(usize, &mut [u8], &Registry) -> Result<()>,
    ) -> Result<()> {
        let wait = end.map_or(PATIENCE, |end| end.saturating_duration_since(Instant::now()).min(PATIENCE));
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            polled => polled?,
        }
        if self.events.is_empty() && wait == PATIENCE {
            return Err(format!("nothing has come from the server for {PATIENCE:?}").into());
        }
        for event in &self.events {
            serve(event.token().0, &mut self.buffer, self.poll.registry())?;
        }
        Ok(())
    }
}
