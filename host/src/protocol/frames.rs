//! The layouts in which a request can arrive, and in which its reply leaves.
//!
//! Frames are counted here without the routing identity, which is the transport's. A reply mirrors its request:
//!
//! | request | client | reply |
//! |---|---|---|
//! | `["", json]` | REQ | `["", json]` |
//! | `["REQ", json]` | cgse's DEALER | `["RESPONSE", json]` |
//! | `["", "REQ", json]` | REQ that adds the type | `["", "RESPONSE", json]` |
//! | `[json]` | bare DEALER | `[json]` |
//!
//! The types `REQ_NO_REPLY`, `NOTIF` and `HB` in place of `REQ` ask for no reply.

use bytes::Bytes;
use smallvec::SmallVec;

/// How the reply to a request is framed, and whether there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    delimiter: bool,
    typed: bool,
    answered: bool,
}

impl Layout {
    const PLAIN: Layout = Layout { delimiter: false, typed: false, answered: true };
    const REQ: Layout = Layout { delimiter: true, ..Layout::PLAIN };
    const TYPED: Layout = Layout { typed: true, ..Layout::PLAIN };

    /// Whether the client waits for a reply.
    pub fn is_answered(self) -> bool {
        self.answered
    }

    /// The frames of a reply with this body.
    pub fn reply(self, body: &[u8]) -> SmallVec<[&[u8]; 3]> {
        let mut frames = SmallVec::new();
        if self.delimiter {
            frames.push(&[][..]);
        }
        if self.typed {
            frames.push(&b"RESPONSE"[..]);
        }
        frames.push(body);
        frames
    }
}

/// Finds the body of a request, and how to answer it.
///
/// # Errors
/// For frames that fit no layout: the nearest layout, in which to answer, and what is wrong.
pub fn open(frames: &[Bytes]) -> Result<(Layout, &Bytes), (Layout, String)> {
    let (delimiter, rest) = match frames {
        // A lone empty frame is an empty body: there is nothing that it could delimit.
        [first, rest @ ..] if first.is_empty() && !rest.is_empty() => (true, rest),
        _ => (false, frames),
    };
    let bare = if delimiter { Layout::REQ } else { Layout::PLAIN };
    let typed = |answered| Layout { delimiter, answered, ..Layout::TYPED };
    match rest {
        [only] => match is_answered(only) {
            Some(answered) => Err((typed(answered), format!("expected a JSON frame after {}", show(only)))),
            None => Ok((bare, only)),
        },
        [kind, body] => match is_answered(kind) {
            Some(answered) => Ok((typed(answered), body)),
            None => Err((typed(true), format!("unknown message type {}, expected \"REQ\"", show(kind)))),
        },
        _ => {
            let layout = rest.first().and_then(|kind| is_answered(kind)).map_or(bare, typed);
            Err((layout, format!("expected one JSON frame, or a message type and a JSON frame, got {}", rest.len())))
        }
    }
}

/// For a message type: whether it asks for a reply.
fn is_answered(frame: &[u8]) -> Option<bool> {
    match frame {
        b"REQ" => Some(true),
        b"REQ_NO_REPLY" | b"NOTIF" | b"HB" => Some(false),
        _ => None,
    }
}

/// A frame for people: its first bytes, as text if they are text.
fn show(frame: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&frame[..frame.len().min(20)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Frames;

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
        (layout.reply(b"R").into_iter().map(Bytes::from_static).collect(), body)
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
