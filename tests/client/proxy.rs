//! A network between a client and a host, which a test may hold up.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Forward,
    /// What the host says comes so much later.
    Late(Duration),
    /// Nothing comes through, and no connection ends.
    Hang,
}

/// The network: what was begun in one mode changes with it.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: Arc<watch::Sender<Mode>>,
}

impl Proxy {
    /// To that port of this machine.
    pub(crate) async fn to(target: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(watch::Sender::new(Mode::Forward));
        let modes = mode.clone();
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { continue };
                let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                tokio::spawn(forward(from_near, to_far, modes.subscribe(), false));
                tokio::spawn(forward(from_far, to_near, modes.subscribe(), true));
            }
        });
        Proxy { port, mode }
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut mode: watch::Receiver<Mode>, is_reply: bool) {
    let mut bytes = [0; 4096];
    loop {
        let Ok(count @ 1..) = from.read(&mut bytes).await else { return };
        let now = *mode.wait_for(|mode| *mode != Mode::Hang).await.unwrap();
        match now {
            Mode::Late(time) if is_reply => tokio::time::sleep(time).await,
            _ => {}
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
