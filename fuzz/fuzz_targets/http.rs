//! Path, query and body become a request or a refusal, whatever is in them: a request is of the action that its route
//! says, and of the service that its path says, whatever else is said; a refusal is one JSON object that says what is
//! wrong, with a code.
#![no_main]

use std::mem::discriminant;

use arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use registry_fuzz::json;
use registry_host::fronts::http::asked;
use registry_host::protocol::reply::{Code, Reply};
use registry_host::protocol::request::{Action, Limits, Port, Request, parse};
use serde_json::{Value, json};

fuzz_target!(|input: &[u8]| {
    let Some(([choice, row], rest)) = input.split_first_chunk() else { return };
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (place, query) = (text(), text());
    let body = parts.next().unwrap_or_default();
    let body = match choice % 3 {
        0 => body.to_vec(),
        1 => json::request(&mut Unstructured::new(body)).into(),
        _ => Vec::new(),
    };
    let limits = Limits::default();
    let Some((action, request)) = asked(usize::from(*row), &place, &query, &body, &limits) else { return };
    match request {
        Ok(request) => check(action, &place, request),
        Err(refusal) => check_refusal(refusal),
    }
});

/// A request of an action that says the least.
fn least(action: Action) -> Request {
    let mut request = json!({"action": action.as_str(), "service_id": "a", "service_type": "a", "mass_expiry": "keep",
        "metadata": {"a": 1}, "service_info": {"name": "n", "host": "h", "port": 1}});
    if action == Action::List || action == Action::Watch {
        request["service_type"] = Value::Null;
    }
    parse(request.to_string().as_bytes(), Port::Requests, &Limits::default())
        .request
        .expect("it says all that it has to")
}

fn check(action: Action, place: &str, request: Request) {
    let request = match request {
        Request::Fresh { read, .. } => *read,
        request => request,
    };
    let is_many = matches!(request, Request::RenewMany(_)) && action == Action::Renew;
    assert!(is_many || discriminant(&least(action)) == discriminant(&request), "{action:?}: {request:?}");
    match request {
        Request::Get { service_id } | Request::History { service_id, .. } => assert_eq!(service_id, place),
        Request::Deregister { service_id, .. } | Request::Renew { service_id, .. } => assert_eq!(service_id, place),
        Request::Update(update) => assert_eq!(update.service_id, place),
        Request::Discover(discover) => assert_eq!(discover.filter.service_type.as_deref(), Some(place)),
        _ => {}
    }
}

fn check_refusal(refusal: Reply) {
    let code = refusal.code().expect("a refusal has a code");
    let text = refusal.finish(None).into_text();
    let reply: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((&reply["success"], &reply["code"]), (&json!(false), &json!(code.as_str())), "{text}");
    assert!(reply["error"].as_str().is_some_and(|error| !error.is_empty()), "{text}");
    let is_of_requests = [Code::InvalidJson, Code::InvalidRequest, Code::InvalidServiceTypePolicy].contains(&code);
    assert!(is_of_requests, "{text}");
}
