//! What operators can ask for over HTTP: the second part of the [`table`](super::table).

use crate::protocol::reply::Code;
use crate::protocol::request::Action;

use super::prometheus;
use super::table::{
    CURSOR, GENERATION, ID, Kind, MESSAGE, METADATA, Method, NEXT, OF_A_CHANGE, Operation, Payload, TAGS, VERSION,
    asking, member, optional, query,
};

/// All of them.
pub(super) static OPERATIONS: &[Operation] = &[
    Operation {
        body: Payload::Members(&[
            optional("seconds", Kind::Number, "For how long; until it is undrained, if nothing is said"),
            optional("reason", Kind::Text, "What everybody is told about it"),
        ]),
        ..asking(
            (Method::Put, "/v1/services/{service_id}/drain", "drain"),
            Action::Drain,
            "Takes a service out of discovery: it stays registered and listed",
            &[ID, GENERATION],
            &[MESSAGE],
            OF_A_CHANGE,
        )
    },
    asking(
        (Method::Delete, "/v1/services/{service_id}/drain", "undrain"),
        Action::Undrain,
        "Has a drained service discovered again",
        &[ID, GENERATION],
        &[MESSAGE],
        OF_A_CHANGE,
    ),
    Operation {
        body: Payload::Members(&[optional("dry_run", Kind::Boolean, "Only say what would be changed")]),
        ..asking(
            (Method::Post, "/v1/reload", "reload"),
            Action::Reload,
            "Has the registry read its configuration again and take over what it can without a restart",
            &[],
            &[
                ("swap", Kind::Text),
                ("in_charge", Kind::Text),
                ("file", Kind::Text),
                ("dry_run", Kind::Boolean),
                ("changed", Kind::List),
                ("needs_restart", Kind::List),
            ],
            &[Code::ConfigRefused],
        )
    },
    Operation {
        body: Payload::Members(&[
            member(
                "file",
                Kind::Text,
                "A configuration file on the registry's machine, whose [backend] names the storage",
            ),
            optional("hold", Kind::Number, "How long changes may wait at a time, in seconds; 0.2 if nothing is said"),
            optional("abandon", Kind::Boolean, "Leave the storage in charge even if its last write cannot be made"),
        ]),
        ..asking(
            (Method::Post, "/v1/swap", "swap"),
            Action::Swap,
            "Has the registry move to another storage while it serves",
            &[],
            &[
                ("plugin", Kind::Text),
                ("storage", Kind::Text),
                ("services", Kind::Whole),
                ("held_ms", Kind::Whole),
                ("closed", Kind::Boolean),
                MESSAGE,
            ],
            &[Code::BackendUnavailable],
        )
    },
    asking(
        (Method::Get, "/v1/clients", "clients"),
        Action::Clients,
        "Who is connected, over ZeroMQ and HTTP, in pages: the connections that are oldest come first",
        &[
            query("address", Kind::Text, "Only those from this IP address, or \"ipc\" for Unix sockets"),
            query("principal", Kind::Text, "Only those that have proved to be this one: a key, or a name"),
            query("limit", Kind::Whole, "The most of a page"),
            CURSOR,
        ],
        &[("clients", Kind::List), ("connected", Kind::Object), NEXT],
        &[Code::Compacted, Code::Overloaded],
    ),
    Operation {
        body: Payload::Members(&[
            member("upload", Kind::Text, "A name that the client has made up"),
            optional("part", Kind::Whole, "Which part it is, from 0 on"),
            optional("services", Kind::List, "The services of a part, as a list shows them: at most 1000"),
            optional("total", Kind::Whole, "At the end, in place of a part: how many services there are in all"),
            optional("replace", Kind::Boolean, "At the end: even if the registry has services"),
        ]),
        ..asking(
            (Method::Post, "/v1/restore", "restore"),
            Action::Restore,
            "Takes a part of a backup, or in the end has it take the place of all services",
            &[],
            &[
                ("upload", Kind::Text),
                ("part", Kind::Whole),
                ("services", Kind::Whole),
                ("epoch", Kind::Text),
                ("revision", Kind::Whole),
                ("held_ms", Kind::Whole),
            ],
            &[Code::BackendUnavailable, Code::NotFound],
        )
    },
    Operation {
        handler: |call, body| Box::pin(prometheus::metrics(call, body)),
        action: None,
        ..asking(
            (Method::Get, "/metrics", "metrics"),
            Action::Watch,
            "What the registry tells of itself in numbers, in the text that Prometheus reads: see docs/metrics.md",
            &[],
            &[],
            &[],
        )
    },
    Operation {
        handler: |call, body| Box::pin(prometheus::targets(call, body)),
        ..asking(
            (Method::Get, "/sd/prometheus", "targets"),
            Action::List,
            "The services that can be discovered, as Prometheus' http_sd_configs reads them",
            &[query("type", Kind::Text, "Only services that are discovered by this type"), TAGS, METADATA, VERSION],
            &[],
            &[Code::Compacted],
        )
    },
];
