//! What hyper writes on its way to the socket: who takes nothing of it is given up, and what hyper itself refuses gets a
//! body as all refusals have one.
//!
//! hyper answers heads that it cannot read by itself, with a status alone, and offers no way to add to that. It is told
//! from all else by its place: the first that is written on a connection without any request. Where others came before,
//! it stays as hyper has it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A socket on which a client that takes nothing of what it is sent is given up.
pub(super) struct Paced<S, F> {
    stream: S,
    unread_max: Duration,
    /// When it is given up, if something waits for it.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Set when there is a request that can be read.
    asked: Arc<OnceLock<()>>,
    /// What is said in place of a refusal without a body.
    refuse: F,
    /// What is being said so.
    said: Said,
}

/// What has been written.
enum Said {
    Nothing,
    /// A part of this, in place of so many bytes.
    Refusal {
        rest: Vec<u8>,
        sent: usize,
        instead_of: usize,
    },
    /// What hyper writes is written.
    All,
}

impl<S, F: Fn(StatusCode) -> Response> Paced<S, F> {
    pub(super) fn new(stream: S, unread_max: Duration, asked: Arc<OnceLock<()>>, refuse: F) -> Self {
        Paced { stream, unread_max, deadline: None, asked, refuse, said: Said::Nothing }
    }

    /// Looks at what is written first: while there was no request, it is hyper that refuses.
    fn look(&mut self, first: &[u8], length: usize) {
        if !matches!(self.said, Said::Nothing) {
            return;
        }
        let refused = first.strip_prefix(b"HTTP/1.1 ").filter(|_| self.asked.get().is_none());
        let status = refused.and_then(|rest| StatusCode::from_bytes(rest.get(..3)?).ok());
        self.said = match status.filter(StatusCode::is_client_error) {
            Some(status) => Said::Refusal { rest: written((self.refuse)(status)), sent: 0, instead_of: length },
            None => Said::All,
        };
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

impl<S: AsyncWrite + Unpin, F> Paced<S, F> {
    /// Goes on with the refusal, if there is one.
    fn say(&mut self, context: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        let Said::Refusal { rest, sent, instead_of } = &mut self.said else { return None };
        while *sent < rest.len() {
            match Pin::new(&mut self.stream).poll_write(context, &rest[*sent..]) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(more)) => *sent += more,
                other => return Some(other),
            }
        }
        let instead_of = *instead_of;
        self.said = Said::All;
        Some(Poll::Ready(Ok(instead_of)))
    }
}

impl<S, F> Paced<S, F> {
    /// Looks at what became of a write.
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let unread_max = self.unread_max;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(unread_max)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin, F: Unpin> AsyncRead for Paced<S, F> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin, F: Fn(StatusCode) -> Response + Unpin> AsyncWrite for Paced<S, F> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.look(bytes, bytes.len());
        let written = this.say(context).unwrap_or_else(|| Pin::new(&mut this.stream).poll_write(context, bytes));
        this.judge(written, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.look(pieces.first().map_or(&[], |piece| piece), pieces.iter().map(|piece| piece.len()).sum());
        let written =
            this.say(context).unwrap_or_else(|| Pin::new(&mut this.stream).poll_write_vectored(context, pieces));
        this.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.judge(flushed, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(context);
        this.judge(shut, context)
    }
}
