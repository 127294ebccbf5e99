//! The layouts in which a request can arrive, and in which its reply leaves.
//!
//! Frames are counted here without the routing identity of the connection, which is the transport's. A reply mirrors
//! its request:
//!
//! | request | client | reply |
//! |---|---|---|
//! | `["", json]` | REQ | `["", json]` |
//! | `["REQ", json]` | cgse's DEALER | `["RESPONSE", json]` |
//! | `["", "REQ", json]` | REQ that adds the type | `["", "RESPONSE", json]` |
//! | `[json]` | bare DEALER | `[json]` |
//!
//! The types `REQ_NO_REPLY`, `NOTIF` and `HB` in place of `REQ` ask for no reply.
//!
//! Frames before the empty delimiter are an *envelope*, which goes back as it came: a REQ socket with
//! `ZMQ_REQ_CORRELATE` numbers its requests there, and each ZeroMQ proxy on the way notes whom it has the request from.
//! A request without a delimiter can have an envelope too if it is typed: the type shows where the request begins. A bare
//! `[json]` cannot: its envelope would look like a type that nobody knows.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// The longest envelope, in bytes: it is kept until the reply leaves. A proxy's routing identity has five bytes, or up to
/// 255 that somebody chose.
const ENVELOPE_BYTES_MAX: usize = 4096;

/// How the reply to a request is framed, and whether there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    envelope: Option<Box<[Bytes]>>,
    delimiter: bool,
    typed: bool,
    answered: bool,
}

impl Layout {
    /// Whether the client waits for a reply.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// The frames of a reply that stand before its body.
    pub fn head(&self) -> SmallVec<[&[u8]; 3]> {
        let mut frames = SmallVec::new();
        frames.extend(self.envelope.iter().flatten().map(|frame| &frame[..]));
        if self.delimiter {
            frames.push(&[][..]);
        }
        if self.typed {
            frames.push(&b"RESPONSE"[..]);
        }
        frames
    }

    /// The frames of a reply with this body.
    pub fn reply<'a>(&'a self, body: &'a [u8]) -> SmallVec<[&'a [u8]; 3]> {
        let mut frames = self.head();
        frames.push(body);
        frames
    }
}

/// Finds the body of a request, and how to answer it.
///
/// # Errors
/// For frames that fit no layout: the nearest layout, in which to answer, and what is wrong.
pub fn open(frames: &[Bytes]) -> Result<(Layout, &Bytes), (Layout, String)> {
    let Split { envelope, delimiter, request } = split(frames);
    let layout = |typed, answered| Layout { envelope: keep(envelope), delimiter, typed, answered };
    let bytes: usize = envelope.iter().map(Bytes::len).sum();
    if bytes > ENVELOPE_BYTES_MAX {
        let problem = format!("expected an envelope of at most {ENVELOPE_BYTES_MAX} bytes, got {bytes}");
        let (typed, answered) = nearest(request);
        return Err((Layout { envelope: None, delimiter, typed, answered }, problem));
    }
    match request {
        [only] => match is_answered(only) {
            Some(answered) => Err((layout(true, answered), format!("expected a JSON frame after {}", show(only)))),
            None => Ok((layout(false, true), only)),
        },
        [kind, body] => match is_answered(kind) {
            Some(answered) => Ok((layout(true, answered), body)),
            None => Err((layout(true, true), format!("unknown message type {}, expected \"REQ\"", show(kind)))),
        },
        _ => {
            let (typed, answered) = nearest(request);
            Err((
                layout(typed, answered),
                format!("expected one JSON frame, or a message type and a JSON frame, got {}", request.len()),
            ))
        }
    }
}

/// A message and its parts.
struct Split<'a> {
    envelope: &'a [Bytes],
    delimiter: bool,
    request: &'a [Bytes],
}

fn split(frames: &[Bytes]) -> Split<'_> {
    // If the last frame is empty, it is an empty body: there is nothing that it could delimit.
    let before_last = frames.split_last().map_or(&[][..], |(_, before)| before);
    if let Some(position) = before_last.iter().position(Bytes::is_empty) {
        return Split { envelope: &frames[..position], delimiter: true, request: &frames[position + 1..] };
    }
    let envelope = match before_last {
        [envelope @ .., kind] if is_answered(kind).is_some() => envelope,
        _ => &[],
    };
    Split { envelope, delimiter: false, request: &frames[envelope.len()..] }
}

/// A copy of an envelope: the frames themselves hold the whole message in memory.
fn keep(envelope: &[Bytes]) -> Option<Box<[Bytes]>> {
    if envelope.is_empty() {
        return None;
    }
    let mut copy = BytesMut::with_capacity(envelope.iter().map(Bytes::len).sum());
    envelope.iter().for_each(|frame| copy.extend_from_slice(frame));
    let mut copy = copy.freeze();
    Some(envelope.iter().map(|frame| copy.split_to(frame.len())).collect())
}

/// For a message type: whether it asks for a reply.
fn is_answered(frame: &[u8]) -> Option<bool> {
    match frame {
        b"REQ" => Some(true),
        b"REQ_NO_REPLY" | b"NOTIF" | b"HB" => Some(false),
        _ => None,
    }
}

/// For a request that fits no layout: whether it begins with a message type, and whether it asks for a reply.
fn nearest(request: &[Bytes]) -> (bool, bool) {
    let kind = request.first().and_then(|kind| is_answered(kind));
    (kind.is_some(), kind.unwrap_or(true))
}

/// How a frame looks in an error text: its first bytes, as text if they are text.
fn show(frame: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&frame[..frame.len().min(20)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Frames = Vec<Bytes>;

    fn frames(parts: &[&'static str]) -> Frames {
        parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect()
    }

    /// The reply's frames to a request, with `R` as its body, and the body that was found.
    fn round(parts: &[&'static str]) -> (Frames, Option<Bytes>) {
        let request = frames(parts);
        let (layout, body) = match open(&request) {
            Ok((layout, body)) => (layout, Some(body.clone())),
            Err((layout, _)) => (layout, None),
        };
        (layout.reply(b"R").into_iter().map(Bytes::copy_from_slice).collect(), body)
    }

    #[test]
    fn each_layout_is_answered_in_kind() {
        let body = Some(Bytes::from_static(b"{}"));
        assert_eq!(round(&["", "{}"]), (frames(&["", "R"]), body.clone()));
        assert_eq!(round(&["REQ", "{}"]), (frames(&["RESPONSE", "R"]), body.clone()));
        assert_eq!(round(&["", "REQ", "{}"]), (frames(&["", "RESPONSE", "R"]), body.clone()));
        assert_eq!(round(&["{}"]), (frames(&["R"]), body));
    }

    #[test]
    fn a_layout_that_does_not_fit_is_answered_in_the_nearest() {
        assert_eq!(round(&["FOO", "{}"]), (frames(&["RESPONSE", "R"]), None));
        assert_eq!(round(&["", "FOO", "{}"]), (frames(&["", "RESPONSE", "R"]), None));
        assert_eq!(round(&["REQ"]), (frames(&["RESPONSE", "R"]), None));
        assert_eq!(round(&["", "REQ"]), (frames(&["", "RESPONSE", "R"]), None));
        assert_eq!(round(&["REQ", "{}", "x"]), (frames(&["RESPONSE", "R"]), None));
        assert_eq!(round(&["", "a", "b", "c"]), (frames(&["", "R"]), None));
        assert_eq!(round(&["a", "b", "c", "d"]), (frames(&["R"]), None));
        assert_eq!(round(&[]), (frames(&["R"]), None));
        assert_eq!(round(&["", "", "{}"]), (frames(&["", "RESPONSE", "R"]), None));
        assert_eq!(round(&["{}", "REQ"]), (frames(&["RESPONSE", "R"]), None));
    }

    #[test]
    fn what_is_wrong_is_said_in_few_words() {
        for (request, problem) in [
            (&["FOO", "{}"][..], "unknown message type \"FOO\", expected \"REQ\""),
            (
                &["a", "", "0123456789012345678901234", "{}"],
                "unknown message type \"01234567890123456789\", expected \"REQ\"",
            ),
            (&["REQ"], "expected a JSON frame after \"REQ\""),
            (&["", "a", "b", "c"], "expected one JSON frame, or a message type and a JSON frame, got 3"),
            (&[], "expected one JSON frame, or a message type and a JSON frame, got 0"),
        ] {
            assert_eq!(open(&frames(request)).unwrap_err().1, problem);
        }
    }

    #[test]
    fn an_envelope_goes_back_as_it_came() {
        let body = Some(Bytes::from_static(b"{}"));
        for envelope in [&["\0\0\0\u{7}"][..], &["\0abcd"], &["\0abcd", "name"], &["REQ"], &["a", "b", "c", "d", "e"]] {
            let around = |rest: &[&'static str]| [envelope, rest].concat();
            let reply = |rest: &[&'static str]| frames(&around(rest));
            assert_eq!(round(&around(&["", "{}"])), (reply(&["", "R"]), body.clone()));
            assert_eq!(round(&around(&["", "REQ", "{}"])), (reply(&["", "RESPONSE", "R"]), body.clone()));
            assert_eq!(round(&around(&["REQ", "{}"])), (reply(&["RESPONSE", "R"]), body.clone()));
            assert_eq!(round(&around(&["", ""])), (reply(&["", "R"]), Some(Bytes::new())));
            // What follows the delimiter and fits no layout is refused in the same envelope.
            assert_eq!(round(&around(&["", "FOO", "{}"])), (reply(&["", "RESPONSE", "R"]), None));
            assert_eq!(round(&around(&["", "REQ"])), (reply(&["", "RESPONSE", "R"]), None));
            assert_eq!(round(&around(&["", "a", "b", "c"])), (reply(&["", "R"]), None));
            assert_eq!(round(&around(&["", "", "{}"])), (reply(&["", "RESPONSE", "R"]), None));
            for kind in ["REQ_NO_REPLY", "NOTIF", "HB"] {
                assert!(!open(&frames(&around(&["", kind, "{}"]))).unwrap().0.is_answered());
                assert!(!open(&frames(&around(&[kind, "{}"]))).unwrap().0.is_answered());
            }
        }
    }

    #[test]
    fn an_envelope_is_copied_and_bounded() {
        let message = Bytes::from(vec![b'x'; ENVELOPE_BYTES_MAX + 3]);
        let around = |bytes: usize| [message.slice(1..=bytes), Bytes::new(), Bytes::from_static(b"{}")];
        let request = around(ENVELOPE_BYTES_MAX);
        let (layout, _) = open(&request).unwrap();
        assert_eq!(layout.head()[0], request[0]);
        assert_ne!(layout.head()[0].as_ptr(), request[0].as_ptr(), "it holds the message in memory");
        let (layout, problem) = open(&around(ENVELOPE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(layout.head()[..], [b""]);
        assert_eq!(problem, "expected an envelope of at most 4096 bytes, got 4097");
    }

    #[test]
    fn a_request_with_too_long_an_envelope_is_answered_by_its_type() {
        let around = |rest: &[&'static str]| {
            let mut request = vec![Bytes::from(vec![b'x'; ENVELOPE_BYTES_MAX + 1])];
            request.extend(frames(rest));
            request
        };
        let refused = |rest: &[&'static str]| open(&around(rest)).unwrap_err().0;
        for kind in ["REQ_NO_REPLY", "NOTIF", "HB"] {
            assert!(!refused(&["", kind, "{}"]).is_answered());
            assert!(!refused(&["", kind]).is_answered());
            assert!(!refused(&[kind, "{}"]).is_answered());
        }
        assert!(refused(&["", "REQ", "{}"]).is_answered());
        assert_eq!(refused(&["", "REQ", "{}"]).head()[..], [&b""[..], b"RESPONSE"]);
        assert_eq!(refused(&["REQ", "{}"]).head()[..], [b"RESPONSE"]);
        assert_eq!(refused(&["", "{}"]).head()[..], [b""]);
    }

    #[test]
    fn an_empty_body_is_a_body() {
        assert_eq!(round(&[""]), (frames(&["R"]), Some(Bytes::new())));
        assert_eq!(round(&["", ""]), (frames(&["", "R"]), Some(Bytes::new())));
        assert_eq!(round(&["REQ", ""]), (frames(&["RESPONSE", "R"]), Some(Bytes::new())));
    }

    #[test]
    fn types_that_want_no_reply_get_none() {
        for kind in ["REQ_NO_REPLY", "NOTIF", "HB"] {
            assert!(!open(&frames(&[kind, "{}"])).unwrap().0.is_answered());
            assert!(!open(&frames(&["", kind, "{}"])).unwrap().0.is_answered());
            assert!(!open(&frames(&[kind])).unwrap_err().0.is_answered());
        }
        assert!(open(&frames(&["REQ", "{}"])).unwrap().0.is_answered());
    }
}
