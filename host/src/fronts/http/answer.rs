//! From replies to HTTP: statuses, headers, and bodies that are sent without being copied.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::protocol::reply::{self, Code, Reply};

use super::budget::{Account, Held};

/// The type of what is answered.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What a client has to show.
const PROOF: HeaderValue = HeaderValue::from_static("Bearer realm=\"registry\"");
/// After so many seconds it makes sense to try again.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// A reply as it came from the core.
#[derive(Debug)]
pub(super) struct Answer {
    /// Why it is a failure, if it is.
    pub(super) code: Option<Code>,
    /// In how many milliseconds it makes sense to ask again, if that is known.
    retry_after_ms: Option<u64>,
    /// Its JSON.
    pub(super) body: reply::Body,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Answer { code: reply.code(), retry_after_ms: reply.retry_after_ms(), body: reply.finish(None) }
    }
}

impl Answer {
    /// The status that says the same as the reply.
    pub(super) fn status(&self) -> StatusCode {
        self.code.map_or(StatusCode::OK, status)
    }

    /// After how many seconds to try again, if that is known.
    fn retry_after(&self) -> Option<HeaderValue> {
        self.retry_after_ms.map(|ms| HeaderValue::from(ms.div_ceil(1000).max(1)))
    }

    /// Its JSON, in one piece.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match self.body.shared() {
            [] => Cow::Borrowed(self.body.rest().as_bytes()),
            shared => Cow::Owned([&shared.concat()[..], self.body.rest().as_bytes()].concat()),
        }
    }

    /// The response: the reply's JSON, if there is room for it.
    pub(super) fn into_response(self, account: &Account) -> Response {
        let (status, retry_after) = (self.status(), self.retry_after());
        let Some(held) = account.hold(self.body.kept(), self.body.rest().len()) else {
            return no_room().into_response();
        };
        waiting(response(status, Body::new(Pieces::of(self.body, Some(held)))), retry_after)
    }
}

/// Why a request is not done: a reply that is short, with a status that may say more than its code does.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    answer: Answer,
}

impl Refused {
    /// What is refused before the protocol has its say.
    pub(super) fn new(status: StatusCode, code: Code, error: &str, message: &str) -> Self {
        Refused { status, answer: Reply::failure(code, error).text("message", message).into() }
    }

    /// The response.
    pub(super) fn into_response(self) -> Response {
        let retry_after = self.answer.retry_after();
        let mut response = waiting(response(self.status, Body::new(Pieces::of(self.answer.body, None))), retry_after);
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, PROOF);
        }
        response
    }
}

impl From<Answer> for Refused {
    fn from(answer: Answer) -> Self {
        Refused { status: answer.status(), answer }
    }
}

impl From<Reply> for Refused {
    fn from(reply: Reply) -> Self {
        Answer::from(reply).into()
    }
}

/// A response that shows this JSON.
pub(super) fn shown(json: String) -> Response {
    response(StatusCode::OK, Body::from(json))
}

/// A response with a text of some type, for which there is room until it has left.
pub(super) fn text(content_type: HeaderValue, text: Vec<Bytes>, held: Held) -> Response {
    let left = text.iter().map(Bytes::len).sum();
    let pieces = Pieces { shared: Some(text.into()), sent: 0, rest: None, left, _held: Some(held) };
    let mut response = response(StatusCode::OK, Body::new(pieces));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// What is said when so much waits for clients that nothing more may.
pub(super) fn no_room() -> Refused {
    let message = "too much waits for HTTP clients, http.buffered_bytes: try again later";
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, "Too many requests", message)
}

fn response(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(RETRY_AFTER, RETRY_SECONDS);
    }
    response
}

/// The same response, which says when to try again if that is known.
fn waiting(mut response: Response, retry_after: Option<HeaderValue>) -> Response {
    retry_after.into_iter().for_each(|after| drop(response.headers_mut().insert(RETRY_AFTER, after)));
    response
}

/// The status of a failure.
pub(super) fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidJson | Code::InvalidRequest | Code::InvalidServiceTypePolicy => StatusCode::BAD_REQUEST,
        Code::Forbidden | Code::QuotaExceeded => StatusCode::FORBIDDEN,
        Code::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        Code::UnknownAction | Code::NotFound | Code::NoneHealthy => StatusCode::NOT_FOUND,
        Code::DuplicateServiceType | Code::Replaced => StatusCode::CONFLICT,
        Code::Deregistered | Code::Compacted => StatusCode::GONE,
        Code::BackendRefused | Code::ConfigRefused => StatusCode::UNPROCESSABLE_ENTITY,
        Code::BackendUnavailable | Code::Overloaded | Code::Starting | Code::Stale => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// A reply's JSON on its way.
struct Pieces {
    shared: Option<Arc<[Bytes]>>,
    /// How many of the shared pieces have left.
    sent: usize,
    rest: Option<Bytes>,
    left: usize,
    /// Keeps the room until all has left.
    _held: Option<Held>,
}

impl Pieces {
    fn of(body: reply::Body, held: Option<Held>) -> Self {
        let shared = body.kept().cloned();
        let rest = Bytes::from(body.into_rest());
        let left = rest.len() + shared.iter().flat_map(|pieces| pieces.iter()).map(Bytes::len).sum::<usize>();
        Pieces { shared, sent: 0, rest: Some(rest), left, _held: held }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let next = match this.shared.as_deref().and_then(|pieces| pieces.get(this.sent)) {
            Some(piece) => {
                this.sent += 1;
                Some(piece.clone())
            }
            None => this.rest.take(),
        };
        this.left -= next.as_ref().map_or(0, Bytes::len);
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    // That it is at its end it says only when it is asked for more, which hyper does once the last piece has nearly left:
    // until then there is room to be kept for it.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;

    use super::super::budget::Budget;
    use super::*;

    fn account(max: usize) -> Account {
        Budget::new(max).account(Arc::default())
    }

    #[test]
    fn each_failure_has_a_status_and_what_passes_says_when_to_try_again() {
        let account = account(1 << 20);
        for code in Code::ALL {
            let response = Answer::from(Reply::failure(code, "no")).into_response(&account);
            assert!(response.status().is_client_error() || response.status().is_server_error(), "{code:?}");
            let may_pass = response.status() == 503 || response.status() == 429;
            assert_eq!(response.headers().contains_key(RETRY_AFTER), may_pass, "{code:?}");
        }
        assert_eq!(Answer::from(Reply::success()).into_response(&account).status(), 200);
        for (ms, seconds) in [(0, "1"), (900, "1"), (1001, "2"), (90_000, "90")] {
            let refusal = Reply::failure(Code::TooManyRequests, "no").retry_after(ms);
            for response in
                [Answer::from(refusal.clone()).into_response(&account), Refused::from(refusal).into_response()]
            {
                assert_eq!(response.headers()[RETRY_AFTER], seconds);
            }
        }
    }

    #[test]
    fn a_body_is_the_reply_in_its_pieces_and_holds_its_room_until_it_has_left() {
        let account = account(1 << 20);
        let long = "1,".repeat(10_000);
        let pieces: Arc<[Bytes]> =
            [r#"{"success":true"#, r#","a":["#, &long, "2]"].map(|text| text.to_string().into()).into();
        let reply = Reply::with_shared(pieces.clone()).number("revision", 7);
        let expected = format!(r#"{{"success":true,"a":[{long}2],"revision":7}}"#);
        let mut body = Answer::from(reply).into_response(&account).into_body();
        assert_eq!(body.size_hint().exact(), Some(expected.len() as u64));
        let mut come = Vec::new();
        let next =
            |body: &mut Body| poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).now_or_never().unwrap();
        while come.len() < expected.len() {
            assert!(!body.is_end_stream());
            come.extend(next(&mut body).unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(String::from_utf8(come).unwrap(), expected);
        let (half, rest) = (1 << 19, (1 << 19) - 10_000);
        let _half = account.hold(None, half).unwrap();
        assert!(account.hold(None, rest).is_none() && !body.is_end_stream(), "who sends it still has it");
        assert!(next(&mut body).is_none());
        drop(body);
        let _full = account.hold(None, rest).expect("all has left");
        let refused = Answer::from(Reply::with_shared(pieces)).into_response(&account);
        assert_eq!(refused.status(), 503);
    }
}
