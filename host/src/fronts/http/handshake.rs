//! How a connection begins: with TLS, if that is configured, and with nothing else then.
//!
//! What a handshake takes of the processor it takes on a thread of its own, so that those who are connected are answered
//! meanwhile; what it waits for, it waits for with its connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::live::Live;
use super::paced::Paced;

/// What TLS begins with: a record of the handshake.
const TLS: u8 = 0x16;
/// How long, and for how many bytes, it is waited for a client to hear why it is refused.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: u64 = 64 * 1024;

/// A connection that has begun.
pub(super) enum Begun {
    /// In plain text.
    Plain(Paced<TcpStream>),
    /// In plain text, where TLS is expected: it is told so, and nothing else.
    Misdirected(Paced<TcpStream>),
    /// With TLS.
    Tls(Box<TlsStream<Paced<TcpStream>>>),
}

/// The thread on which handshakes are made, until this is dropped.
pub(super) struct Handshakes {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl Handshakes {
    /// Starts it.
    ///
    /// # Errors
    /// There is no thread to be had.
    #[expect(clippy::disallowed_methods, reason = "on a thread of its own")]
    pub(super) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new().name("tls".into()).spawn(move || runtime.block_on(ended))?;
        Ok(Handshakes { handle, _end: end })
    }

    /// Begins a connection.
    ///
    /// # Errors
    /// Why it comes to nothing; nothing, if that is nobody's business.
    pub(super) async fn begin(&self, stream: TcpStream, live: &Live) -> Result<Begun, Option<&'static str>> {
        let patience = if live.tls.is_some() { live.patience.handshake } else { live.patience.request };
        let deadline = Instant::now() + patience;
        let mut first = [0];
        let peeked = timeout_at(deadline, stream.peek(&mut first)).await;
        let is_tls = match peeked {
            Ok(Ok(1..)) => first == [TLS],
            Ok(_) => return Err(None),
            Err(_) => return Err(live.tls.is_some().then_some("no TLS handshake in time")),
        };
        let stream = Paced::new(stream, live.patience.unread);
        match (&live.tls, is_tls) {
            (None, false) => Ok(Begun::Plain(stream)),
            (None, true) => Err(Some("speaks TLS, and http.certificate_file is not set")),
            (Some(_), false) => Ok(Begun::Misdirected(stream)),
            (Some(tls), true) => {
                let mut under_way = JoinSet::new();
                under_way.spawn_on(accept(stream, tls.server(), deadline), &self.handle);
                under_way.join_next().await.and_then(Result::ok).unwrap_or(Err(None))
            }
        }
    }
}

async fn accept(
    stream: Paced<TcpStream>,
    server: Arc<ServerConfig>,
    deadline: Instant,
) -> Result<Begun, Option<&'static str>> {
    match timeout_at(deadline, TlsAcceptor::from(server).accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => Ok(Begun::Tls(Box::new(stream))),
        Ok(Err((error, mut stream))) => {
            // It has been sent an alert. If the connection is closed while something is unread, that may be lost.
            let _ = stream.shutdown().await;
            let read = async { tokio::io::copy(&mut stream.take(LINGER_BYTES_MAX), &mut tokio::io::sink()).await };
            let _ = timeout(LINGER, read).await;
            Err(Some(reason(&error)))
        }
        Err(_) => Err(Some("no TLS handshake in time")),
    }
}

/// Why a handshake has failed, in one of a few words.
fn reason(error: &io::Error) -> &'static str {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    match cause {
        None => "left during the TLS handshake",
        Some(TlsError::InvalidCertificate(problem)) => match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has run out",
            CertificateError::Revoked => "its certificate is revoked",
            CertificateError::UnknownIssuer => "its certificate is of an authority that is not trusted",
            _ => "its certificate is not trusted",
        },
        Some(TlsError::AlertReceived(alert)) => match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown => "does not trust the registry's certificate",
            _ => "gave up the TLS handshake",
        },
        Some(TlsError::PeerIncompatible(_) | TlsError::NoApplicationProtocol) => "speaks no TLS that both know",
        Some(_) => "not TLS",
    }
}
