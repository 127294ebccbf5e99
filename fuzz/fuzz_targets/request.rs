//! A message becomes a request or a refusal, whatever is in it: the reply has the layout of the message; a refusal is
//! one JSON object that says what is wrong, with a code; `request_id` comes back as it was sent; and what is kept of an
//! accepted registration is valid JSON, is not nested deeper than what was sent nor than is allowed, says in every
//! place what the client has said there, and is accepted again when the client sends it back.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::Unstructured;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use registry_fuzz::json;
use registry_host::protocol::filter::Filter;
use registry_host::protocol::frames::{self, Layout};
use registry_host::protocol::registration::Registration;
use registry_host::protocol::reply::{Code, Reply};
use registry_host::protocol::request::{Limits, Port, Request, parse};
use registry_host::protocol::restore::{PART_SERVICES_MAX, Restore};
use registry_zmtp::Frames;
use serde_json::Value;
use serde_json::value::RawValue;

/// The values of a JSON object, of equal keys the last.
type Fields<'a> = BTreeMap<String, &'a RawValue>;

fuzz_target!(|input: &[u8]| {
    let Some(([choice, depth], rest)) = input.split_first_chunk() else { return };
    // As `[limits]` allows.
    let depth_max = 4 + usize::from(depth % 117);
    let port = if choice & 1 == 0 { Port::Requests } else { Port::Heartbeats };
    let frames: Frames = match choice >> 1 & 3 {
        0 | 1 => rest.split(|byte| *byte == 0).map(Bytes::copy_from_slice).collect(),
        2 => Frames::from_vec(vec![Bytes::from(json::request(&mut Unstructured::new(rest)))]),
        _ => [Bytes::from_static(b"REQ"), json::request(&mut Unstructured::new(rest)).into()].into_iter().collect(),
    };
    match frames::open(&frames) {
        Ok((layout, body)) => {
            assert_eq!(body.as_ptr(), frames[frames.len() - 1].as_ptr(), "the body is the last frame");
            check_layout(&frames, layout);
            check_request(body, port, depth_max);
        }
        Err((layout, problem)) => {
            check_layout(&frames, layout);
            check_refusal(Reply::failure(Code::InvalidRequest, &problem), None);
        }
    }
});

/// The reply begins as the message did, up to an empty delimiter, a type, or nothing.
fn check_layout(frames: &[Bytes], layout: Layout) {
    let reply = layout.reply(b"{}");
    let (body, head) = reply.split_last().expect("a reply has a body");
    assert_eq!(*body, b"{}");
    let is_typed = head.last().is_some_and(|frame| *frame == b"RESPONSE");
    let head = &head[..head.len() - usize::from(is_typed)];
    assert!(head.len() < frames.len().max(1));
    assert!(head.iter().zip(frames).all(|(sent, came)| sent == came) || *head == [b""]);
    let is_silent = |frame: &Bytes| ["REQ_NO_REPLY", "NOTIF", "HB"].iter().any(|kind| frame == kind);
    assert!(layout.is_answered() || is_silent(&frames[head.len()]));
}

fn check_request(body: &[u8], port: Port, depth_max: usize) {
    let limits = Limits { json_depth: depth_max, ..Limits::default() };
    let parsed = parse(body, port, &limits);
    let fields = serde_json::from_slice::<Fields>(body);
    let request_id = fields.as_ref().ok().and_then(|fields| fields.get("request_id")).map(|id| id.get());
    let request_id = request_id.filter(|id| !id.starts_with(['{', '[', 'n', 't', 'f']));
    assert_eq!(parsed.request_id.as_deref(), request_id);
    let request = match parsed.request {
        Ok(request) => request,
        Err(refusal) => return check_refusal(refusal, request_id),
    };
    let fields = fields.expect("what is accepted is a JSON object");
    let request = match request {
        Request::Fresh { read, .. } => {
            assert!(fields.contains_key("max_stale"));
            *read
        }
        request => request,
    };
    match request {
        Request::Register(registration) => {
            let ttl = fields.get("ttl").map(|ttl| ttl.get());
            check_registration(*registration, fields["service_info"].get(), ttl, depth_max);
        }
        Request::Deregister { service_id, .. }
        | Request::Renew { service_id, .. }
        | Request::Get { service_id }
        | Request::History { service_id, .. } => {
            assert!(!service_id.is_empty() && is_same(fields["service_id"].get(), &service_id.into()));
        }
        Request::Discover(asked) => {
            assert!(asked.filter.service_type.is_some() && asked.limit.is_none_or(|limit| (1..=1000).contains(&limit)));
            assert!(asked.wait.as_secs() <= 600);
            check_filter(asked.filter, &fields);
        }
        Request::List { filter, page, .. } => {
            assert!(page.is_none_or(|page| (1..=10_000).contains(&page.limit)));
            check_filter(filter, &fields);
        }
        Request::Types { page } => assert!((1..=10_000).contains(&page.limit)),
        Request::Watch(watch) => {
            assert!((1..=1000).contains(&watch.limit) && watch.wait.as_secs() <= 600);
            check_filter(watch.filter, &fields);
        }
        Request::Expiry(_) => assert!(fields.contains_key("mass_expiry")),
        Request::Fresh { .. } => unreachable!("one is enough"),
        Request::Health | Request::Info | Request::Terminate | Request::Reload { .. } => {}
        Request::RenewMany(renewals) => assert!(!renewals.is_empty() && renewals.len() <= 1000),
        Request::Drain(drain) => {
            assert!(!drain.service_id.is_empty() && is_same(fields["service_id"].get(), &drain.service_id.into()));
        }
        Request::Swap(swap) => {
            assert!(!swap.file.is_empty() && is_same(fields["file"].get(), &swap.file.into()));
        }
        Request::Restore(restore) => match *restore {
            Restore::Part { upload, services, .. } => {
                assert!(services.len() <= PART_SERVICES_MAX && is_same(fields["upload"].get(), &upload.into()));
            }
            Restore::End { upload, .. } => {
                assert!(is_same(fields["upload"].get(), &upload.into()) && fields.contains_key("total"));
            }
        },
        Request::Clients(clients) => {
            assert!((1..=10_000).contains(&clients.page.limit));
            assert!(
                clients
                    .principal
                    .is_none_or(|name| name.len() <= 256 && is_same(fields["principal"].get(), &name.into()))
            );
        }
        Request::Update(update) => {
            assert!(!update.service_id.is_empty() && is_same(fields["service_id"].get(), &update.service_id.into()));
        }
    }
}

/// A filter says what the client has said, and a service that is just so is wanted.
fn check_filter(filter: Filter, fields: &Fields) {
    let types: Vec<Arc<str>> = filter.service_type.iter().chain(&filter.tags).map(|name| Arc::from(&**name)).collect();
    if let Some(service_type) = &filter.service_type {
        assert!(!service_type.is_empty() && is_same(fields["service_type"].get(), &service_type.as_str().into()));
    }
    let sent = fields.get("metadata").map_or("{}", |metadata| metadata.get());
    if filter.version.is_none() && sent.starts_with('{') {
        assert!(filter.matches(&types, &format!("{{\"id\":\"i\",\"metadata\":{sent}}}")), "{filter:?}");
    }
    assert_eq!(filter.matches(&types, "{\"id\":\"i\"}"), filter.metadata.is_empty() && filter.version.is_none());
}

fn check_refusal(refusal: Reply, request_id: Option<&str>) {
    let reply = refusal.finish(request_id).into_text();
    let fields: Fields = serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{error}: {reply}"));
    assert_eq!(fields["success"].get(), "false");
    for field in ["error", "code"] {
        assert!(serde_json::from_str::<String>(fields[field].get()).is_ok_and(|text| !text.is_empty()), "{reply}");
    }
    assert_eq!(fields.get("request_id").map(|id| id.get()), request_id);
}

fn check_registration(registration: Registration, service_info: &str, ttl: Option<&str>, depth_max: usize) {
    let sent: Fields = serde_json::from_str(service_info).expect("what is accepted is a JSON object");
    let document = registration.clone().into_document("an id", None, 7);
    let Ok(Value::Object(kept)) = serde_json::from_str(&document) else { panic!("{document}") };
    // The record has lists and objects of its own, two levels with itself, that the client need not have sent.
    let depth = json::depth(&document);
    assert!(depth <= depth_max && depth <= json::depth(service_info).max(2), "nested {depth} deep: {document}");
    assert_eq!(kept["id"], "an id");
    assert!((1..=3_153_600_000_000).contains(&registration.ttl_ms));
    assert!(ttl.is_none_or(|ttl| ttl == "null" || is_same(ttl, &kept["ttl"])), "{ttl:?} became {}", kept["ttl"]);
    for (field, value) in &sent {
        match field.as_str() {
            "id" | "type" | "tags" | "ttl" | "last_heartbeat" | "health" | "owner_key" | "generation" => {}
            "metadata" if value.get() == "null" => {}
            "metadata" => {
                let mut metadata: Fields = serde_json::from_str(value.get()).expect("it is an object");
                metadata.remove("type");
                assert!(metadata.iter().all(|(key, value)| is_same(value.get(), &kept["metadata"][key])), "{document}");
            }
            field => assert!(is_same(value.get(), &kept[field]), "{field}: {} became {}", value.get(), kept[field]),
        }
    }

    let sent_back = |document: &str, ttl: &Value| {
        let [document, ttl] = [document, &ttl.to_string()].map(|json| RawValue::from_string(json.to_string()).unwrap());
        Registration::read(&document, Some(&ttl), &Limits::default())
            .unwrap_or_else(|_| panic!("not accepted again: {document}"))
    };
    let second = sent_back(&document, &kept["ttl"]);
    assert_eq!((&second.types, second.ttl_ms), (&registration.types, registration.ttl_ms));
    assert_eq!((&second.service_type, &second.name), (&registration.service_type, &registration.name));
    let second = second.into_document("an id", None, 7);
    assert_eq!(sent_back(&second, &kept["ttl"]).into_document("an id", None, 7), second);
}

/// Whether a value is what the text says. The text is taken apart level by level, unlike in the code under test.
fn is_same(json: &str, value: &Value) -> bool {
    match value {
        Value::Object(object) => serde_json::from_str::<Fields>(json).is_ok_and(|fields| {
            fields.len() == object.len()
                && fields.iter().all(|(key, json)| object.get(key).is_some_and(|value| is_same(json.get(), value)))
        }),
        Value::Array(array) => serde_json::from_str::<Vec<&RawValue>>(json).is_ok_and(|items| {
            items.len() == array.len() && items.iter().zip(array).all(|(json, value)| is_same(json.get(), value))
        }),
        Value::String(text) => serde_json::from_str::<String>(json).is_ok_and(|json| json == *text),
        Value::Number(_) => json.starts_with(|first: char| first == '-' || first.is_ascii_digit()),
        Value::Bool(flag) => json == if *flag { "true" } else { "false" },
        Value::Null => json == "null",
    }
}
