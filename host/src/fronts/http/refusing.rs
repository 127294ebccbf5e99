//! What hyper refuses by itself gets a body as all refusals have one.
//!
//! hyper answers heads that it cannot read with a status alone, and offers no way to add to that. It is told from all
//! else by its moment: what is written while everything that was asked has been answered, and all answers have left, no
//! request has asked for. Where an answer is still on its way, the refusal stays as hyper has it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many requests have come over a connection, and how many of them have been answered whole.
#[derive(Debug, Default)]
pub(super) struct Tally {
    asked: AtomicU64,
    answered: AtomicU64,
}

/// A request that is not answered yet, until this is dropped.
pub(super) struct Asked(Arc<Tally>);

impl Tally {
    /// A request has come.
    pub(super) fn ask(self: &Arc<Self>) -> Asked {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Asked(self.clone())
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn is_all_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed) == self.asked()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// What hyper writes to.
pub(super) struct Refusing<S, F> {
    stream: S,
    tally: Arc<Tally>,
    /// So many requests had come, and been answered, when all that was written had left.
    settled: u64,
    /// What is said in place of a refusal without a body.
    refuse: F,
    /// What is being said so.
    said: Option<Refusal>,
}

/// A refusal on its way.
struct Refusal {
    text: Vec<u8>,
    sent: usize,
    /// How many bytes of hyper's it stands for.
    instead_of: usize,
}

impl<S, F: Fn(StatusCode) -> Response> Refusing<S, F> {
    pub(super) fn new(stream: S, tally: Arc<Tally>, refuse: F) -> Self {
        Refusing { stream, tally, settled: 0, refuse, said: None }
    }

    /// Looks at what is to be written, and what it begins with.
    fn look(&mut self, begin: &[u8], length: usize) {
        if self.said.is_some() || self.tally.asked() != self.settled {
            return;
        }
        let status = begin.strip_prefix(b"HTTP/1.1 ").and_then(|rest| StatusCode::from_bytes(rest.get(..3)?).ok());
        if let Some(status) = status.filter(StatusCode::is_client_error) {
            self.said = Some(Refusal { text: written((self.refuse)(status)), sent: 0, instead_of: length });
        }
    }
}

/// A short response as it is sent, as the last one of its connection.
fn written(response: Response) -> Vec<u8> {
    let (head, body) = response.into_parts();
    // All of it is there.
    let body = to_bytes(body, usize::MAX).now_or_never().and_then(Result::ok).unwrap_or_default();
    let mut text = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        text.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    text.extend(format!("connection: close\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes());
    text.extend(body);
    text
}

impl<S: AsyncWrite + Unpin, F> Refusing<S, F> {
    /// Goes on with the refusal, if there is one.
    fn say(&mut self, context: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        let Refusal { text, sent, instead_of } = self.said.as_mut()?;
        while *sent < text.len() {
            match Pin::new(&mut self.stream).poll_write(context, &text[*sent..]) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(more)) => *sent += more,
                other => return Some(other),
            }
        }
        let instead_of = *instead_of;
        self.said = None;
        Some(Poll::Ready(Ok(instead_of)))
    }
}

impl<S: AsyncRead + Unpin, F: Unpin> AsyncRead for Refusing<S, F> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin, F: Fn(StatusCode) -> Response + Unpin> AsyncWrite for Refusing<S, F> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.look(bytes, bytes.len());
        this.say(context).unwrap_or_else(|| Pin::new(&mut this.stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.look(pieces.first().map_or(&[], |piece| piece), pieces.iter().map(|piece| piece.len()).sum());
        this.say(context).unwrap_or_else(|| Pin::new(&mut this.stream).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) && this.tally.is_all_answered() {
            this.settled = this.tally.asked();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn refused(status: StatusCode) -> Response {
        let mut response = Response::new(Body::from("why"));
        *response.status_mut() = status;
        response
    }

    /// Writes a text and says what has come of all that was written.
    fn write(stream: &mut Refusing<Vec<u8>, fn(StatusCode) -> Response>, text: &str) -> String {
        stream.write_all(text.as_bytes()).now_or_never().unwrap().unwrap();
        String::from_utf8(std::mem::take(&mut stream.stream)).unwrap()
    }

    #[test]
    fn only_what_no_request_has_asked_for_is_said_otherwise() {
        const REFUSAL: &str = "HTTP/1.1 431 Too Large\r\nconnection: close\r\n\r\n";
        const SAID: &str =
            "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nwhy";
        let tally = Arc::<Tally>::default();
        let refuse: fn(StatusCode) -> Response = refused;
        let mut stream = Refusing::new(Vec::new(), tally.clone(), refuse);
        assert_eq!(write(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
        let asked = tally.ask();
        // Answers may begin so, and so may any part of one.
        assert_eq!(write(&mut stream, REFUSAL), REFUSAL);
        stream.flush().now_or_never().unwrap().unwrap();
        assert_eq!(write(&mut stream, REFUSAL), REFUSAL);
        drop(asked);
        assert_eq!(write(&mut stream, REFUSAL), REFUSAL, "not all has left yet");
        stream.flush().now_or_never().unwrap().unwrap();
        assert_eq!(write(&mut stream, REFUSAL), SAID);
    }
}
