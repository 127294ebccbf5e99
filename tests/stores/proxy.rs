//! A wire between a plugin and its server that can be held up, made deaf, and cut.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Passes,
    /// Bytes wait, both ways.
    Frozen,
    /// What the server answers is lost; what it is sent arrives. A connection that has lost something ends after that.
    Deaf,
    /// All connections end, and new ones at once.
    Cut,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    wire: watch::Sender<Wire>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (wire, state) = watch::channel(Wire::Passes);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // Whom the wire is cut for never reaches the server.
                if *state.borrow() == Wire::Cut {
                    continue;
                }
                let server = TcpStream::connect(&server).await.unwrap();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(carry(from_client, to_server, state.clone(), false));
                tokio::spawn(carry(from_server, to_client, state.clone(), true));
            }
        });
        Proxy { port, wire }
    }

    pub(crate) fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

/// Carries bytes one way.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wire: watch::Receiver<Wire>, are_answers: bool) {
    let mut bytes = vec![0; 1 << 16];
    let mut cut = wire.clone();
    let mut has_lost = false;
    let work = async {
        loop {
            let count = from.read(&mut bytes).await.unwrap_or(0);
            if count == 0 {
                return;
            }
            let state = *wire.wait_for(|wire| *wire != Wire::Frozen).await.unwrap();
            if state == Wire::Deaf && are_answers {
                has_lost = true;
                continue;
            }
            if has_lost {
                return;
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = work => {}
        _ = cut.wait_for(|wire| *wire == Wire::Cut) => {}
    }
}
