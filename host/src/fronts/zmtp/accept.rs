//! Lets connections in.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::Entrance;
use super::hub::Hub;
use super::stream::Listener;

/// How long to wait when the system has no room for a connection: those that are connected are served meanwhile.
const RETRY: Duration = Duration::from_millis(100);
/// For how long there has to be room before it is told again that there is none: connections come and go, and there are
/// three ports.
const QUIET: Duration = Duration::from_secs(10);

/// Lets connections in for as long as it is run.
pub async fn accept(listener: Listener, entrance: Entrance, hub: Rc<Hub>) {
    loop {
        match listener.accept().await {
            Ok((reader, writer, address)) => hub.admit(address, entrance, reader, writer),
            // The peer was gone before it was let in.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let now = Instant::now();
                if hub.full_at.replace(Some(now)).is_none_or(|before| now.duration_since(before) > QUIET) {
                    tracing::warn!("no more connections can be taken for now, those that there are go on: {error}");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
