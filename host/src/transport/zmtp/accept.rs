//! Lets connections in.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::connection::Entrance;
use super::hub::Hub;
use super::stream::Listener;

/// How long to wait when the system has no room for a connection: whoever is connected is served meanwhile.
const RETRY: Duration = Duration::from_millis(100);

/// Lets connections in for as long as it is run.
pub async fn accept(listener: Listener, entrance: Entrance, hub: Rc<Hub>) {
    let mut was_full = false;
    loop {
        match listener.accept().await {
            Ok((reader, writer, address)) => {
                was_full = false;
                hub.admit(address, entrance, reader, writer);
            }
            // The peer was gone before it was let in.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !was_full {
                    tracing::warn!("no more connections can be taken for now, those that there are go on: {error}");
                }
                was_full = true;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
