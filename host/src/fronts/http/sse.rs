//! Changes as they come: by long poll, which is the protocol's own `watch`, and as a stream of server-sent events,
//! which is one such request after the other.
//!
//! The id of each event is the position behind it, `epoch:revision`. A client that was cut off says it in
//! `Last-Event-ID`, as browsers do, and goes on there. If that is too old, it is told so by an event `compacted`, and
//! the stream goes on from now.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde_json::value::RawValue;

use crate::protocol::reply::Code;
use crate::protocol::request::Action;

use super::answer::{Answer, Refused};
use super::budget::Held;
use super::connections::Aside;
use super::fields::Fields;
use super::routes::Call;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const STREAM: &str = "text/event-stream";
/// After so many seconds without a change a comment says that the stream still lives: proxies give up after a minute.
const QUIET_SECONDS: &str = "15";
const QUIET: &str = ": nothing new\n\n";
/// After so many milliseconds a client that was cut off comes back.
const RETRY: &str = "retry: 1000\n\n";

/// Changes by long poll, or as a stream if the client accepts one.
pub(super) async fn watch(mut call: Call, body: Body) -> Response {
    let (fields, _held) = match call.fields(body).await {
        Ok(fields) => fields,
        Err(refused) => return refused.into_response(),
    };
    let accepts = call.parts.headers.get_all(ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let mut kinds = accepts.flat_map(|accept| accept.split(',')).map(|kind| kind.split(';').next().unwrap_or_default());
    if !kinds.any(|kind| kind.trim().eq_ignore_ascii_case(STREAM)) || call.parts.method == Method::HEAD {
        return call.ask_for(Action::Watch, &fields).await;
    }
    events(call, fields).await.unwrap_or_else(Refused::into_response)
}

async fn events(call: Call, mut fields: Fields) -> Result<Response, Refused> {
    if let Some(id) = call.parts.headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
        let position = id.to_str().ok().and_then(|id| id.rsplit_once(':'));
        let Some((epoch, revision)) = position.filter(|(_, revision)| revision.parse::<u64>().is_ok()) else {
            let message = "expected epoch:revision, the id of an event";
            let error = "Invalid Last-Event-ID";
            return Err(Refused::new(StatusCode::BAD_REQUEST, Code::InvalidRequest, error, message));
        };
        fields.set("epoch", serde_json::Value::from(epoch).to_string());
        fields.set("after", revision.to_string());
    }
    ["limit", "wait"].into_iter().for_each(|name| fields.remove(name));
    let waiting = call.may_wait()?;
    let (answer, _) = call.answer_to(Action::Watch, &fields).await?;
    let Some(first) = call.shared.told.of(&answer) else { return Err(answer.into()) };
    let begin = [Bytes::from_static(RETRY.as_bytes())].into();
    let next = [begin, first.text].into();
    fields.set("wait", QUIET_SECONDS.to_string());
    let stream = Stream { call, fields, next, position: first.position, held: None, _waiting: waiting };
    let body = Body::from_stream(stream::unfold(stream, |mut stream| async {
        let chunk = stream.chunk().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), stream))
    }));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(STREAM));
    headers.insert(axum::http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy that gathers what it hands on would keep events for itself.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// A stream under way.
struct Stream {
    call: Call,
    fields: Fields,
    /// What is sent before anything is asked.
    next: VecDeque<Text>,
    position: (String, u64),
    /// Keeps the room for what has been handed on last.
    held: Option<Held>,
    _waiting: Aside,
}

impl Stream {
    /// What is sent next; `None` at the end. Nothing more is asked for before the last has been taken.
    async fn chunk(&mut self) -> Option<Bytes> {
        self.held = None;
        let text = match self.next.pop_front() {
            Some(text) => text,
            None => self.ask().await?,
        };
        self.held = Some(self.call.account.hold(Some(&text), 0)?);
        text.first().cloned()
    }

    async fn ask(&mut self) -> Option<Text> {
        let (epoch, revision) = &self.position;
        self.fields.set("epoch", serde_json::Value::from(epoch.as_str()).to_string());
        self.fields.set("after", revision.to_string());
        let request = self.fields.request(Action::Watch, &self.call.shared.live().limits).ok()?;
        let mut stop = self.call.shared.stop.clone();
        let answer = tokio::select! {
            answer = self.call.ask(request) => answer.ok()?,
            _ = stop.wait_for(|is_stopping| *is_stopping) => return None,
        };
        // What else may be wrong, the client hears when it comes back.
        let Told { text, position } = self.call.shared.told.of(&answer)?;
        let is_new = position != self.position;
        self.position = position;
        Some(if is_new { text } else { [Bytes::from_static(QUIET.as_bytes())].into() })
    }
}

/// What is sent: one piece, that several may wait for.
type Text = Arc<[Bytes]>;

/// What streams were told last. All who follow alike are given the same reply, and so the same bytes, which are made once
/// however many they are.
#[derive(Default)]
pub(super) struct LastTold(Mutex<Option<Known>>);

/// A reply, its end, and what it was told as, for as long as somebody has them.
struct Known {
    reply: Weak<[Bytes]>,
    rest: String,
    text: Weak<[Bytes]>,
    position: (String, u64),
}

impl LastTold {
    /// An answer as events; `None` if it refuses.
    fn of(&self, answer: &Answer) -> Option<Told> {
        let Some(reply) = answer.body.kept() else { return Told::of(answer) };
        let mut last = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(Known { reply: known, rest, text, position }) = &*last
            && known.upgrade().is_some_and(|known| Arc::ptr_eq(&known, reply))
            && rest == answer.body.rest()
            && let Some(text) = text.upgrade()
        {
            return Some(Told { text, position: position.clone() });
        }
        let told = Told::of(answer)?;
        let (reply, rest) = (Arc::downgrade(reply), answer.body.rest().to_string());
        *last = Some(Known { reply, rest, text: Arc::downgrade(&told.text), position: told.position.clone() });
        Some(told)
    }
}

/// An answer as events.
struct Told {
    text: Text,
    /// Where to go on.
    position: (String, u64),
}

#[derive(serde::Deserialize)]
struct Changes<'a> {
    epoch: String,
    revision: u64,
    #[serde(borrow, default)]
    changes: Vec<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct Change<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    revision: u64,
}

impl Told {
    /// What an answer tells; `None` if it refuses.
    fn of(answer: &Answer) -> Option<Self> {
        let json = answer.bytes();
        let Changes { epoch, revision, changes } = match answer.code {
            None | Some(Code::Compacted) => serde_json::from_slice(&json).ok()?,
            Some(_) => return None,
        };
        let mut text = String::with_capacity(json.len() + 64);
        if answer.code == Some(Code::Compacted) {
            push_event(&mut text, (&epoch, revision), "compacted", str::from_utf8(&json).ok()?);
            return Some(Told { text: piece(text), position: (epoch, revision) });
        }
        let mut last = None;
        for change in changes {
            let Change { kind, revision } = serde_json::from_str(change.get()).ok()?;
            push_event(&mut text, (&epoch, revision), &kind, change.get());
            last = Some(revision);
        }
        if last != Some(revision) {
            // An id alone is no event, and is remembered all the same.
            text.push_str(&format!("id: {epoch}:{revision}\n\n"));
        }
        Some(Told { text: piece(text), position: (epoch, revision) })
    }
}

fn piece(text: String) -> Text {
    [text.into()].into()
}

fn push_event(text: &mut String, (epoch, revision): (&str, u64), kind: &str, json: &str) {
    text.push_str(&format!("id: {epoch}:{revision}\nevent: {kind}\n"));
    // Line breaks between the parts of a value mean nothing to JSON, and all to the stream.
    for line in json.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::reply::Reply;

    fn text(told: &Told) -> &str {
        str::from_utf8(&told.text[0]).unwrap()
    }

    #[test]
    fn an_answer_becomes_events_with_the_positions_behind_them() {
        let changes =
            "[{\"type\":\"register\",\"data\":{\"a\":\n1},\"revision\":5},{\"type\":\"leave\",\"revision\":7}]";
        let reply =
            |revision| Reply::success().text("epoch", "e").number("revision", revision).written("changes", changes);
        let told = Told::of(&reply(9).into()).unwrap();
        let expected = "id: e:5\nevent: register\ndata: {\"type\":\"register\",\"data\":{\"a\":\ndata: 1},\"revision\":5}\n\n\
                        id: e:7\nevent: leave\ndata: {\"type\":\"leave\",\"revision\":7}\n\n\
                        id: e:9\n\n";
        assert_eq!((text(&told), told.position.clone()), (expected, ("e".to_string(), 9)));
        assert!(!text(&Told::of(&reply(7).into()).unwrap()).ends_with("id: e:7\n\n"), "the last event has said it");
    }

    #[test]
    fn what_is_too_old_is_an_event_and_other_failures_are_none() {
        let refused = Reply::failure(Code::Compacted, "too old").text("epoch", "e").number("revision", 3);
        let told = Told::of(&refused.into()).unwrap();
        assert!(text(&told).starts_with("id: e:3\nevent: compacted\ndata: {\"success\":false"), "{}", text(&told));
        assert!(Told::of(&Reply::failure(Code::Starting, "no").into()).is_none());
    }

    #[test]
    fn who_is_given_the_same_reply_is_told_in_the_same_bytes() {
        let last = LastTold::default();
        let pieces = |revision: u64| -> Arc<[Bytes]> {
            let json = format!(r#"{{"success":true,"epoch":"e","revision":{revision},"changes":[]"#);
            [json.into()].into()
        };
        let (seventh, eighth) = (pieces(7), pieces(8));
        let tell = |pieces: &Arc<[Bytes]>| last.of(&Reply::with_shared(pieces.clone()).into()).unwrap();
        let (first, second) = (tell(&seventh), tell(&seventh));
        assert!(Arc::ptr_eq(&first.text, &second.text) && first.position == second.position);
        assert_eq!(text(&tell(&eighth)), "id: e:8\n\n");
        let stale: Answer = Reply::with_shared(eighth.clone()).number("stale_seconds", 3).into();
        assert!(!Arc::ptr_eq(&last.of(&stale).unwrap().text, &tell(&eighth).text), "another end is another reply");
        let gone = tell(&eighth).position;
        assert_eq!((gone, text(&tell(&eighth))), (("e".to_string(), 8), "id: e:8\n\n"), "made anew when nobody has it");
    }
}
