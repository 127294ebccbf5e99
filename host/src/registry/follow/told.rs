//! What is told of a change, and what a store that keeps history keeps of that: enough to tell the same again after a
//! restart, word for word.
//!
//! A change is told when the store has it, but what the store keeps is written before. So what moves with heartbeats is
//! told as it was when the change was sent. What is known only later, the revision of the change before, follows from
//! the order of what is kept.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ring::{Before, Entry};
use crate::protocol::event::{Event, EventKind};
use crate::protocol::json::{Shown, push_number, push_text};
use crate::registry::changes::Amendment;
use crate::registry::moment::Now;
use crate::registry::service::{Moving, Service};
use crate::registry::trail::{Cause, push_by};
use crate::security::key::PublicKey;
use crate::security::origin::{Address, Origin};
use crate::security::principal::{Name, Principal};

/// What is told of a change, but for the service's document: as it was when the change was sent to the store.
#[derive(Clone, Copy, Default)]
pub(in crate::registry) struct Told {
    pub(super) unix_seconds: u64,
    pub(super) moving: Moving,
    /// What is kept, and not told.
    cause: Cause,
}

impl Told {
    /// What is told of a change to this service, if there is one, that is sent now.
    pub(in crate::registry) fn of(service: Option<&Service>, cause: Cause, now: Now) -> Self {
        let moving = service.map(|service| service.moving(now.uptime_ms)).unwrap_or_default();
        Told { unix_seconds: now.unix_seconds(), moving, cause }
    }

    /// What the store keeps. `before` is the service that is replaced; `None` if it cannot be known yet.
    pub(in crate::registry) fn text(
        self,
        kind: EventKind,
        service: &Service,
        before: Option<Option<&Service>>,
    ) -> String {
        let mut text = String::with_capacity(service.shown_bytes() + 256);
        text.push_str("{\"type\":\"");
        text.push_str(kind.as_str());
        text.push_str("\",\"timestamp\":");
        push_number(&mut text, self.unix_seconds);
        text.push_str(",\"types\":");
        push_types(&mut text, service);
        match before {
            None => {}
            Some(None) => text.push_str(",\"was\":false"),
            Some(Some(before)) => {
                text.push_str(",\"was\":");
                push_types(&mut text, before);
            }
        }
        push_by(&mut text, self.cause.by.as_ref());
        if let Some(amendment) = self.cause.amended {
            text.push_str(",\"amended\":\"");
            text.push_str(amendment.word());
            text.push('"');
        }
        text.push_str(",\"service\":");
        service.with(self.moving).show(&mut text);
        text.push('}');
        text
    }
}

fn push_types(text: &mut String, service: &Service) {
    text.push('[');
    for (place, name) in service.types().iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        push_text(text, name);
    }
    text.push(']');
}

/// What the store keeps of a change.
#[derive(Deserialize)]
struct Kept<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    timestamp: u64,
    types: Vec<String>,
    /// The types of what was replaced; `false` if there was nothing, and absent if that is not known.
    #[serde(borrow)]
    was: Option<&'a RawValue>,
    #[serde(borrow)]
    by: Option<By<'a>>,
    /// The action that has changed the registration, if it was none itself.
    #[serde(borrow)]
    amended: Option<Cow<'a, str>>,
    #[serde(borrow)]
    service: &'a RawValue,
}

#[derive(Deserialize)]
struct By<'a> {
    #[serde(borrow)]
    address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    certificate: Option<Cow<'a, str>>,
}

impl By<'_> {
    fn origin(&self) -> Origin {
        let key: Option<PublicKey> = self.key.as_ref().and_then(|key| key.parse().ok());
        let named = |name: &Option<Cow<'_, str>>| name.as_ref().and_then(|name| Name::new(name));
        let token = named(&self.token).map(Principal::Token);
        let certificate = named(&self.certificate).map(Principal::Certificate);
        let address = self.address.as_ref().map(|address| Address::read(address)).unwrap_or_default();
        Origin { principal: token.or(certificate).unwrap_or(key.into()), address }
    }
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    generation: Option<&'a RawValue>,
}

/// A record as it stands there.
struct Verbatim<'a>(&'a str);

impl Shown for Verbatim<'_> {
    fn show(&self, json: &mut String) {
        json.push_str(self.0);
    }
}

/// A change that a store has kept.
pub(super) struct Read {
    pub(super) kind: EventKind,
    pub(super) id: Arc<str>,
    pub(super) unix_seconds: u64,
    pub(super) cause: Cause,
    /// Of the service, if it has one.
    pub(super) generation: Option<u64>,
    /// Ready to be told again.
    pub(super) entry: Entry,
}

/// The change that a store has kept. `None` if the text is none of ours.
pub(super) fn read(text: &str, epoch: &str, (revision, previous): (u64, u64)) -> Option<Read> {
    let kept: Kept<'_> = serde_json::from_str(text).ok()?;
    let kind: EventKind = kept.kind.parse().ok()?;
    let before = match kept.was.map(RawValue::get) {
        None => Before::Unknown,
        Some("false") => Before::Nothing,
        Some(types) => Before::Types(shared(serde_json::from_str(types).ok()?)),
    };
    let service = kept.service.get();
    let Named { id, generation } = serde_json::from_str(service).ok()?;
    let id: Arc<str> = id.into();
    let generation = generation.and_then(|generation| generation.get().parse().ok());
    let event = Event::new(kind, &id, &Verbatim(service), kept.timestamp, epoch, (revision, previous));
    let entry = Entry::new(&event, revision, shared(kept.types), before);
    let amended = Amendment::ALL.into_iter().find(|amendment| kept.amended.as_deref() == Some(amendment.word()));
    let cause = Cause { by: kept.by.map(|by| by.origin()), amended };
    Some(Read { kind, id, unix_seconds: kept.timestamp, cause, generation, entry })
}

fn shared(types: Vec<String>) -> Arc<[Arc<str>]> {
    types.into_iter().map(Arc::from).collect()
}
