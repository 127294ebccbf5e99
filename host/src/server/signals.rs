//! The signals that a host gets: which stop it, and which do not.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Has the signals that ask for nothing end nothing, and tells operators of them. To be called within a runtime, as
/// early as possible: until then the system's default holds, which ends the process.
///
/// # Errors
/// A signal cannot be listened to.
pub(super) fn ignore_others() -> io::Result<()> {
    // Who listens to SIGHUP later is told of none that comes before; nor does it end the process from now on.
    drop(signal(SignalKind::hangup())?);
    let [mut first, mut second] = [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?];
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = first.recv() => tracing::warn!("SIGUSR1: ignored"),
                _ = second.recv() => tracing::warn!("SIGUSR2: ignored"),
            }
        }
    });
    Ok(())
}

/// The signals that stop the server.
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Takes the signals from the system. To be called within a runtime.
    ///
    /// # Errors
    /// A signal cannot be listened to.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Stop { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the first signal. A second one ends the process at once.
    pub(super) async fn wait(mut self) -> String {
        let name = self.next().await;
        tokio::spawn(async move {
            let name = self.next().await;
            tracing::warn!("{name} again: ending at once");
            crate::log::flush();
            std::process::exit(1);
        });
        format!("{name} received")
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
