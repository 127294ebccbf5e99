//! Streams of server-sent events: what they tell, and where they go on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Host, register};
use crate::{MEMORY, Stage};

fn data(text: &str) -> Value {
    serde_json::from_str(text).expect("data is JSON")
}

#[test]
fn a_stream_tells_what_happens_from_now_on() {
    let stage = Stage::new();
    let mut client = stage.host.client();
    client.call(register("before", "web", 60.0));
    let mut all = stage.events("/v1/watch", &[]);
    let mut mail = stage.events("/v1/watch?service_type=mail", &[]);
    let now = all.next().expect("the stream begins");
    assert!(now.kind.is_empty() && now.id.ends_with(":1"), "the position alone: {now:?}");
    assert_eq!(mail.next().as_ref(), Some(&now));
    client.call(register("a", "web", 60.0));
    client.call(register("b", "mail", 60.0));
    client.call(json!({"action": "deregister", "service_id": "a"}));
    for (kind, id) in [("register", "a"), ("register", "b"), ("deregister", "a")] {
        let event = all.change();
        let told = data(&event.data);
        assert_eq!((event.kind.as_str(), &told["data"]["service_id"]), (kind, &json!(id)));
        assert_eq!(event.id, format!("{}:{}", told["epoch"].as_str().unwrap(), told["revision"]));
        assert_eq!(told["type"], kind);
    }
    assert_eq!(data(&mail.change().data)["data"]["service_id"], "b");
}

#[test]
fn a_stream_goes_on_where_it_was_over_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), "");
    let mut client = host.client();
    let mut events = crate::Events::open(host.http(), "/v1/watch", &[]);
    let begin = events.next().unwrap().id;
    client.call(register("a", "web", 60.0));
    let first = events.change();
    client.call(register("b", "web", 60.0));
    let (http, ports) = (host.http(), host.ports());
    host.kill();
    while events.next().is_some() {}
    let config = format!("[http]\nport = {http}\n");
    let host = Host::start_on(directory.path(), &config, ports);
    assert_eq!(host.http(), http, "the port stays");
    host.client().call(register("c", "web", 60.0));
    for (id, expected) in [(&first.id, &["b", "c"][..]), (&begin, &["a", "b", "c"])] {
        let mut again = crate::Events::open(http, "/v1/watch", &[("Last-Event-ID", id)]);
        for service in expected {
            assert_eq!(data(&again.change().data)["data"]["service_id"], *service);
        }
    }
    // The position of a list does as well, and Last-Event-ID counts for more: a browser asks for the same URL again.
    let list = crate::Http::connect(http).get("/v1/services?fields=").json();
    let (epoch, revision) = (list["epoch"].as_str().unwrap(), list["revision"].as_u64().unwrap());
    let target = format!("/v1/watch?epoch={epoch}&after={revision}");
    let mut from_list = crate::Events::open(http, &target, &[]);
    let mut again = crate::Events::open(http, &target, &[("Last-Event-ID", &first.id)]);
    host.client().call(register("d", "web", 60.0));
    assert_eq!(data(&from_list.change().data)["data"]["service_id"], "d");
    assert_eq!(data(&again.change().data)["data"]["service_id"], "b");
}

#[test]
fn what_is_too_old_is_said_and_the_stream_goes_on_from_now() {
    let stage = Stage::new();
    stage.host.client().call(register("a", "web", 60.0));
    let mut events = stage.events("/v1/watch", &[("Last-Event-ID", "another-epoch:7")]);
    let told = events.change();
    assert_eq!((told.kind.as_str(), &data(&told.data)["code"]), ("compacted", &json!("compacted")));
    assert!(told.id.ends_with(":1"), "{told:?}");
    stage.host.client().call(register("b", "web", 60.0));
    assert_eq!(data(&events.change().data)["data"]["service_id"], "b");
    for wrong in ["x", "x:", ":x", "e:-1"] {
        let headers = [("Accept", "text/event-stream"), ("Last-Event-ID", wrong)];
        let refused = stage.http().call("GET", "/v1/watch", &headers, None);
        assert_eq!((refused.status, &refused.json()["error"]), (400, &json!("Invalid Last-Event-ID")), "{wrong}");
    }
}

#[test]
fn a_stop_ends_streams_and_polls() {
    let stage = Stage::with(MEMORY);
    let mut events = stage.events("/v1/watch", &[]);
    events.next().expect("the stream begins");
    let mut poll = stage.http();
    poll.request("GET", "/v1/watch?wait=600", &[], None);
    std::thread::sleep(Duration::from_millis(100));
    stage.host.stop();
    assert_eq!(events.next(), None);
    assert_eq!(poll.response(true).status, 200, "whoever waits is answered");
}
