//! All that can be asked for over HTTP: the table that routes, requests and the OpenAPI document are made from.
//!
//! A new route is a row here, and a handler if none of those that there are will do. `tests/http` walks the document
//! and calls each operation.

use std::future::Future;
use std::pin::Pin;

use axum::body::Body;
use axum::response::Response;

use crate::protocol::lives::{ENTRIES_MAX, GENERATION_MAX};
use crate::protocol::page::{DISCOVER_LIMIT_MAX, PAGE_LIMIT_MAX, WAIT_SECONDS_MAX};
use crate::protocol::reply::Code;
use crate::protocol::request::{Action, MAX_STALE_SECONDS_MAX};
use crate::protocol::watch::CHANGES_MAX;

use super::routes::{self, Call};
use super::{openapi, operators, probes, sse};

/// One row: an operation.
pub(super) struct Operation {
    pub(super) method: Method,
    /// As axum and OpenAPI write it: `/v1/services/{id}`.
    pub(super) path: &'static str,
    /// Its `operationId`.
    pub(super) name: &'static str,
    /// What it does, in one line.
    pub(super) about: &'static str,
    /// What stands in the path and the query.
    pub(super) parameters: &'static [Parameter],
    pub(super) body: Payload,
    /// What the reply has besides `success`.
    pub(super) reply: &'static [Field],
    /// Why it may fail, besides what everything may fail for.
    pub(super) fails: &'static [Code],
    /// What a client must have proved.
    pub(super) needs: Needs,
    /// What is asked of the core, if it is one thing.
    pub(super) action: Option<Action>,
    pub(super) handler: Handler,
}

/// Answers a call, whose body has not been read yet.
pub(super) type Handler = fn(Call, Body) -> Pin<Box<dyn Future<Output = Response> + Send>>;

/// How it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// Who may call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Everybody who reaches the port.
    Nothing,
    /// If clients have to prove who they are, those that have. What each may do is for the core to say.
    Proof,
}

/// Something that is said with a request, under a name that the protocol knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) kind: Kind,
    pub(super) about: &'static str,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    /// In the body, which is an object.
    Member,
    /// There, too, and may be left out.
    Optional,
}

/// What may stand there. The protocol judges it; this says how text becomes JSON, and what the document says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// One for each time that it is said.
    Texts,
    /// Names with commas between them.
    Names,
    /// A whole number.
    Whole,
    /// One from the first to the second.
    Between(u64, u64),
    Number,
    /// A number from 0 to this.
    UpTo(u64),
    Boolean,
    Object,
    List,
    /// One of these.
    Word(&'static [&'static str]),
    /// A service's record.
    Service,
    /// A list of them.
    Services,
    /// A list of changes.
    Changes,
}

/// What the body has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload {
    None,
    /// A service's record, with its `ttl`.
    Service,
    /// An object with these members and no others.
    Members(&'static [Parameter]),
}

/// Something in a reply.
pub(super) type Field = (&'static str, Kind);

const fn parameter(place: Place, name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, place, kind, about }
}

pub(super) const fn query(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    parameter(Place::Query, name, kind, about)
}

pub(super) const fn member(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    parameter(Place::Member, name, kind, about)
}

pub(super) const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    parameter(Place::Optional, name, kind, about)
}

/// How many of something, where so many are the most.
const fn limit(max: u64, about: &'static str) -> Parameter {
    query("limit", Kind::Between(1, max), about)
}

pub(super) const ID: Parameter = parameter(Place::Path, "service_id", Kind::Text, "The service's id");
pub(super) const GENERATION: Parameter =
    query("generation", Kind::Between(0, GENERATION_MAX), "Only if the service is of this generation");
const TYPE: Parameter = query("service_type", Kind::Text, "Only services that are discovered by this type");
pub(super) const TAGS: Parameter = query("tags", Kind::Texts, "Only services with this type or tag; may be repeated");
pub(super) const METADATA: Parameter =
    query("metadata", Kind::Object, "Only services whose metadata has these values: JSON");
pub(super) const VERSION: Parameter = query("version", Kind::Text, "Only services whose version meets this: ^1.2");
const FIELDS: Parameter = query("fields", Kind::Names, "Which fields of the records are shown");
pub(super) const CURSOR: Parameter = query("cursor", Kind::Text, "Where the page before has ended");
const MAX_STALE: Parameter =
    query("max_stale", Kind::UpTo(MAX_STALE_SECONDS_MAX as u64), "How old the answer may be, in seconds");
const WAIT: Parameter =
    query("wait", Kind::UpTo(WAIT_SECONDS_MAX as u64), "For how many seconds to wait if there is none");

const REVISION: Field = ("revision", Kind::Whole);
const EPOCH: Field = ("epoch", Kind::Text);
pub(super) const MESSAGE: Field = ("message", Kind::Text);
pub(super) const NEXT: Field = ("cursor", Kind::Text);
const STALE: Field = ("stale_seconds", Kind::Number);

/// What a change may fail for when it comes to the storage.
const OF_CHANGES: [Code; 3] = [Code::Overloaded, Code::BackendUnavailable, Code::BackendRefused];
pub(super) const OF_A_CHANGE: &[Code] =
    &[Code::NotFound, Code::Replaced, Code::Deregistered, OF_CHANGES[0], OF_CHANGES[1], OF_CHANGES[2]];
const OF_A_REGISTRATION: &[Code] = &[
    Code::InvalidServiceTypePolicy,
    Code::DuplicateServiceType,
    Code::QuotaExceeded,
    OF_CHANGES[0],
    OF_CHANGES[1],
    OF_CHANGES[2],
];

/// One that asks the core for one thing.
pub(super) const fn asking(
    (method, path, name): (Method, &'static str, &'static str),
    action: Action,
    about: &'static str,
    parameters: &'static [Parameter],
    reply: &'static [Field],
    fails: &'static [Code],
) -> Operation {
    let (body, needs, action) = (Payload::None, Needs::Proof, Some(action));
    let handler: Handler = |call, body| Box::pin(routes::ask(call, body));
    Operation { method, path, name, about, parameters, body, reply, fails, needs, action, handler }
}

/// One for those who look after the host.
const fn probe(path: &'static str, name: &'static str, about: &'static str, handler: Handler) -> Operation {
    let reply = &[
        ("status", Kind::Text),
        ("timestamp", Kind::Whole),
        ("backend", Kind::Object),
        ("alive", Kind::Boolean),
        ("ready", Kind::Boolean),
        ("not_ready", Kind::List),
        ("keys", Kind::Object),
        ("mass_expiry", Kind::Object),
        ("silence", Kind::Object),
    ];
    let (method, parameters, body, action) = (Method::Get, &[], Payload::None, Some(Action::Health));
    let (fails, needs) = (&[Code::Starting], Needs::Nothing);
    Operation { method, path, name, about, parameters, body, reply, fails, needs, action, handler }
}

/// All operations.
pub(super) fn operations() -> impl Iterator<Item = &'static Operation> {
    OPERATIONS.iter().chain(operators::OPERATIONS)
}

static OPERATIONS: &[Operation] = &[
    Operation {
        handler: |call, body| Box::pin(routes::list(call, body)),
        ..asking(
            (Method::Get, "/v1/services", "list"),
            Action::List,
            "All services, or those that all of the parameters are true of; in pages with limit",
            &[
                TYPE,
                TAGS,
                METADATA,
                VERSION,
                FIELDS,
                limit(PAGE_LIMIT_MAX as u64, "The most of a page"),
                CURSOR,
                MAX_STALE,
            ],
            &[("services", Kind::Services), REVISION, EPOCH, NEXT, STALE],
            &[Code::Compacted, Code::Stale, Code::Overloaded],
        )
    },
    Operation {
        body: Payload::Service,
        ..asking(
            (Method::Post, "/v1/services", "register"),
            Action::Register,
            "Registers a service; one without an id gets one that is made from its name",
            &[],
            &[("service_id", Kind::Text), MESSAGE, ("generation", Kind::Whole)],
            OF_A_REGISTRATION,
        )
    },
    asking(
        (Method::Get, "/v1/services/{service_id}", "get"),
        Action::Get,
        "One service, healthy or not",
        &[ID, MAX_STALE],
        &[("service", Kind::Service), STALE],
        &[Code::NotFound, Code::Stale],
    ),
    Operation {
        body: Payload::Service,
        ..asking(
            (Method::Put, "/v1/services/{service_id}", "register_as"),
            Action::Register,
            "Registers a service with this id, or replaces the one that has it",
            &[ID],
            &[("service_id", Kind::Text), MESSAGE, ("generation", Kind::Whole)],
            OF_A_REGISTRATION,
        )
    },
    Operation {
        body: Payload::Members(&[member(
            "metadata",
            Kind::Object,
            "A merge patch (RFC 7396) of the service's metadata",
        )]),
        ..asking(
            (Method::Patch, "/v1/services/{service_id}", "update"),
            Action::Update,
            "Changes the metadata of a service, and nothing else",
            &[ID, GENERATION],
            &[MESSAGE],
            OF_A_CHANGE,
        )
    },
    asking(
        (Method::Delete, "/v1/services/{service_id}", "deregister"),
        Action::Deregister,
        "Removes a service",
        &[ID, GENERATION],
        &[MESSAGE],
        OF_A_CHANGE,
    ),
    asking(
        (Method::Post, "/v1/services/{service_id}/renew", "renew"),
        Action::Renew,
        "A heartbeat: the service is healthy for another ttl",
        &[ID, GENERATION],
        &[MESSAGE],
        &[Code::NotFound, Code::Replaced, Code::Deregistered],
    ),
    Operation {
        body: Payload::Members(&[member("services", Kind::List, "Ids, or objects with service_id and generation")]),
        ..asking(
            (Method::Post, "/v1/renew", "renew_many"),
            Action::Renew,
            "Heartbeats of many services",
            &[],
            &[("renewed", Kind::Whole), ("failed", Kind::List)],
            &[],
        )
    },
    asking(
        (Method::Get, "/v1/services/{service_id}/history", "history"),
        Action::History,
        "What has happened to a service, also to one that is no more",
        &[ID, limit(ENTRIES_MAX, "Only the last so many entries")],
        &[("service_id", Kind::Text), ("history", Kind::List)],
        &[],
    ),
    asking(
        (Method::Get, "/v1/discover/{service_type}", "discover"),
        Action::Discover,
        "A healthy service of a type; several with limit",
        &[
            parameter(Place::Path, "service_type", Kind::Text, "The type; case matters"),
            TAGS,
            METADATA,
            VERSION,
            FIELDS,
            limit(DISCOVER_LIMIT_MAX as u64, "How many at most: they come as the list services"),
            WAIT,
            MAX_STALE,
        ],
        &[("service", Kind::Service), ("services", Kind::Services), STALE],
        &[Code::NoneHealthy, Code::Stale, Code::Overloaded],
    ),
    asking(
        (Method::Get, "/v1/types", "types"),
        Action::Types,
        "The types that services are discovered by, and how many are healthy of each",
        &[limit(PAGE_LIMIT_MAX as u64, "The most of a page"), CURSOR],
        &[("types", Kind::Object), REVISION, EPOCH, NEXT],
        &[Code::Compacted],
    ),
    Operation {
        handler: |call, body| Box::pin(sse::watch(call, body)),
        ..asking(
            (Method::Get, "/v1/watch", "watch"),
            Action::Watch,
            "The changes after a revision, or the next ones; a stream of them with Accept: text/event-stream",
            &[
                query("epoch", Kind::Text, "The history that the client knows"),
                query("after", Kind::Whole, "The revision up to which it knows everything"),
                TYPE,
                TAGS,
                METADATA,
                VERSION,
                limit(CHANGES_MAX as u64, "The most changes in the reply"),
                WAIT,
            ],
            &[EPOCH, REVISION, ("changes", Kind::Changes)],
            &[Code::Compacted, Code::Overloaded],
        )
    },
    asking(
        (Method::Get, "/v1/info", "info"),
        Action::Info,
        "The registry's ports, settings and version, the state of its storage, and all services",
        &[MAX_STALE],
        &[
            ("status", Kind::Text),
            ("req_port", Kind::Whole),
            ("pub_port", Kind::Whole),
            ("hb_port", Kind::Whole),
            ("http_port", Kind::Whole),
            ("enforce_unique_service_types", Kind::Boolean),
            ("version", Kind::Text),
            ("backend", Kind::Object),
            ("services", Kind::Services),
            REVISION,
            EPOCH,
            STALE,
        ],
        &[Code::Stale, Code::Overloaded],
    ),
    Operation {
        body: Payload::Members(&[member(
            "mass_expiry",
            Kind::Word(&["remove", "keep"]),
            "Whether the services that have run out are gone, or get a full ttl to be heard of",
        )]),
        ..asking(
            (Method::Post, "/v1/expiry", "expiry"),
            Action::Expiry,
            "Ends a mass expiry",
            &[],
            &[("mass_expiry", Kind::Text), ("critical", Kind::Whole)],
            &[Code::NotFound],
        )
    },
    asking(
        (Method::Post, "/v1/terminate", "terminate"),
        Action::Terminate,
        "Stops the registry, if server.allow_terminate says that clients may do so",
        &[],
        &[("status", Kind::Text), ("timestamp", Kind::Whole)],
        &[],
    ),
    probe("/live", "live", "200 as long as the registry answers: else it should be started anew", |call, _| {
        Box::pin(probes::live(call))
    }),
    probe("/ready", "ready", "200 if the registry can do all that it is for, 503 if not", |call, _| {
        Box::pin(probes::ready(call))
    }),
    probe("/health", "health", "How the registry and its storage are; 503 only while it starts", |call, _| {
        Box::pin(probes::health(call))
    }),
    Operation {
        reply: &[],
        action: None,
        fails: &[],
        needs: Needs::Proof,
        ..probe("/openapi.json", "openapi", "This document", |_, _| Box::pin(openapi::document()))
    },
];
