//! What clients see at the socket, byte by byte: layouts, replies and events of a running host.

mod harness;

use std::time::Duration;

use harness::{Client, Host, PATIENCE, register};
use serde_json::{Value, json};

fn host(config: &str) -> (tempfile::TempDir, Host) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::start(directory.path(), &format!("[backend]\nplugin = \"memory\"\n{config}"));
    (directory, host)
}

fn parsed(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("a reply is JSON")
}

const HEALTH: &[u8] = br#"{"action":"health"}"#;

/// Sends frames and gives the frames of the reply, all but the body, which has to be JSON.
fn layout_of_reply(client: &mut Client, frames: &[&[u8]]) -> (Vec<Vec<u8>>, Value) {
    client.send(frames);
    let mut reply = client.receive();
    let body = parsed(&reply.pop().expect("a reply has frames"));
    (reply, body)
}

#[test]
fn each_layout_is_answered_in_kind_on_both_ports() {
    let (_directory, host) = host("");
    host.client().call(register("x", "web", 30.0));
    let renew = br#"{"service_id":"x"}"#;
    for (mut client, body) in [(host.client(), HEALTH), (host.heartbeat_client(), &renew[..])] {
        for (request, reply) in [
            (vec![body], vec![]),
            (vec![b"", body], vec![b"".to_vec()]),
            (vec![b"REQ", body], vec![b"RESPONSE".to_vec()]),
            (vec![b"", b"REQ", body], vec![b"".to_vec(), b"RESPONSE".to_vec()]),
            (vec![b"\0abcd", b"", body], vec![b"\0abcd".to_vec(), b"".to_vec()]),
            (vec![b"a", b"b", b"", b"REQ", body], [&b"a"[..], b"b", b"", b"RESPONSE"].map(<[u8]>::to_vec).to_vec()),
        ] {
            let (frames, body) = layout_of_reply(&mut client, &request);
            assert_eq!(frames, reply, "to {request:?}");
            assert_eq!(body["success"], true, "{body}");
        }
    }
}

#[test]
fn a_layout_that_does_not_fit_is_answered_with_an_error() {
    let (_directory, host) = host("");
    for mut client in [host.client(), host.heartbeat_client()] {
        for (request, reply) in [
            (vec![&b"WHAT"[..], HEALTH], vec![b"RESPONSE".to_vec()]),
            (vec![b"", b"WHAT", HEALTH], vec![b"".to_vec(), b"RESPONSE".to_vec()]),
            (vec![b"REQ"], vec![b"RESPONSE".to_vec()]),
            (vec![b"REQ", HEALTH, b"more"], vec![b"RESPONSE".to_vec()]),
            (vec![b"a", b"b", b"c", b"d"], vec![]),
            (vec![b"", b"a", b"b", b"c"], vec![b"".to_vec()]),
            (vec![b""], vec![]),
            (vec![b"", b""], vec![b"".to_vec()]),
            (vec![b"\xff\xfe\x00"], vec![]),
        ] {
            let (frames, body) = layout_of_reply(&mut client, &request);
            assert_eq!((frames, &body["success"]), (reply, &json!(false)), "to {request:?}");
            assert!(body["error"].is_string() && body["code"].is_string(), "{body}");
        }
        assert_eq!(layout_of_reply(&mut client, &[br#"{"service_id":"unknown"}"#]).1["success"], false);
    }
}

#[test]
fn types_that_want_no_reply_are_executed_and_never_answered() {
    let (_directory, host) = host("");
    let mut client = host.client();
    for (kind, id) in [("REQ_NO_REPLY", "a"), ("NOTIF", "b"), ("HB", "c")] {
        client.send(&[kind.as_bytes(), register(id, "web", 30.0).to_string().as_bytes()]);
        client.send(&[b"", kind.as_bytes(), b"garbage"]);
        client.send(&[kind.as_bytes()]);
        // The only reply is the one to the request that wants one.
        let reply = harness::eventually(&mut client, json!({"action": "get", "service_id": id}), |reply| {
            assert!(reply["service"].is_object() || reply["code"] == "not_found", "{reply}");
            reply["success"] == true
        });
        assert_eq!(reply["service"]["id"], id);
    }
    assert_eq!(client.receive_within(Duration::from_millis(100)), None);
}

#[test]
fn the_heartbeat_port_renews_whatever_the_action_says() {
    let (_directory, host) = host("");
    host.client().call(register("x", "web", 30.0));
    let mut client = host.heartbeat_client();
    for body in [json!({"service_id": "x"}), json!({"action": "deregister", "service_id": "x"})] {
        client.send(&[body.to_string().as_bytes()]);
        assert_eq!(parsed(&client.receive()[0])["message"], "Service renewed successfully");
    }
    client.send(&[br#"{"action":"renew","service_id":"y"}"#]);
    assert_eq!(parsed(&client.receive()[0])["error"], "Service not found or could not be renewed");
    client.send(&[br#"{"action":"list"}"#]);
    let reply = parsed(&client.receive()[0]);
    assert_eq!(reply["error"], "Missing required field: service_id");
    assert_eq!(reply["message"], format!("this is the heartbeat port; requests go to {}", host.requests));
}

#[test]
fn what_is_too_long_is_refused_and_nothing_is_echoed_at_length() {
    let (_directory, host) = host("[limits]\nid_bytes = 64\nname_bytes = 20\ntype_bytes = 16\ntypes = 2\n");
    let mut client = host.client();
    for (field, value, expected) in [
        ("id", json!("i".repeat(65)), "id: expected at most 64 bytes, got 65 bytes"),
        ("name", json!("n".repeat(21)), "name: expected at most 20 bytes, got 21 bytes"),
        ("type", json!("t".repeat(17)), "type: expected at most 16 bytes, got 17 bytes"),
        ("tags", json!(["a", "b", "c"]), "tags: expected at most 2 types of one service, got 3"),
    ] {
        let mut info = json!({"name": "n", "host": "h", "port": 1});
        info[field] = value;
        let reply = client.call(json!({"action": "register", "service_info": info}));
        assert_eq!(reply["error"], format!("Invalid value for service_info.{expected}"));
        assert_eq!(reply["field"], format!("service_info.{field}"));
    }
    let long = "x".repeat(500_000);
    for (action, field, most) in [
        ("get", "service_id", 64),
        ("renew", "service_id", 64),
        ("deregister", "service_id", 64),
        ("list", "service_type", 16),
        ("discover", "service_type", 16),
    ] {
        let error = format!("Invalid value for {field}: expected at most {most} bytes, got 500000 bytes");
        assert_eq!(client.call(json!({"action": action, field: long}))["error"], error);
    }
    let error = client.call(json!({"action": long}))["error"].to_string();
    assert_eq!(error, format!("\"Unknown action: {}...\"", "x".repeat(80)));
}

#[test]
fn errors_are_worded_as_old_clients_know_them() {
    let (_directory, host) = host("");
    let mut client = host.client();
    let info = |info: Value| json!({"action": "register", "service_info": info});
    for (request, error, code) in [
        (json!({}), "Missing required field: action", "invalid_request"),
        (json!({"action": ""}), "Missing required field: action", "invalid_request"),
        (json!({"action": "fly"}), "Unknown action: fly", "unknown_action"),
        (json!({"action": "register"}), "Missing required field: service_info", "invalid_request"),
        (info(json!({})), "Missing required field in service_info: name", "invalid_request"),
        (info(json!({"name": "n"})), "Missing required field in service_info: host", "invalid_request"),
        (info(json!({"name": "n", "host": "h"})), "Missing required field in service_info: port", "invalid_request"),
        (json!({"action": "deregister"}), "Missing required field: service_id", "invalid_request"),
        (json!({"action": "renew", "service_id": ""}), "Missing required field: service_id", "invalid_request"),
        (json!({"action": "get", "service_id": null}), "Missing required field: service_id", "invalid_request"),
        (json!({"action": "discover"}), "Missing required field: service_type", "invalid_request"),
        (
            json!({"action": "deregister", "service_id": "x"}),
            "Service not found or could not be deregistered",
            "not_found",
        ),
        (json!({"action": "renew", "service_id": "x"}), "Service not found or could not be renewed", "not_found"),
        (json!({"action": "get", "service_id": "x"}), "Service not found", "not_found"),
        (json!({"action": "discover", "service_type": "web"}), "No healthy service of type web found", "none_healthy"),
    ] {
        let reply = client.call(request.clone());
        assert_eq!(
            (&reply["success"], &reply["error"], &reply["code"]),
            (&json!(false), &json!(error), &json!(code)),
            "to {request}"
        );
    }
    for garbage in [&b"{"[..], b"[1]", b"7", b"\"x\"", b"null", b"{\"action\":\"health\"} x", b"\xc3\x28", b"NaN"] {
        client.send(&[b"REQ", garbage]);
        let reply = parsed(&client.receive()[1]);
        assert_eq!((&reply["error"], &reply["code"]), (&json!("Invalid JSON format"), &json!("invalid_json")));
    }
}

#[test]
fn bad_values_are_refused_by_name_and_the_next_request_is_fine() {
    let (_directory, host) = host("");
    let mut client = host.client();
    let good = json!({"name": "n", "host": "h", "port": 1});
    for (field, bad) in [
        ("name", json!("")),
        ("name", json!(null)),
        ("host", json!(["h"])),
        ("port", json!(0)),
        ("port", json!(65536)),
        ("port", json!(-1)),
        ("port", json!("80")),
        ("port", json!(80.5)),
        ("id", json!(7)),
        ("type", json!({})),
        ("tags", json!("web")),
        ("tags", json!(["web", 1])),
        ("metadata", json!([])),
        ("singleton", json!("yes")),
        ("allow_duplicate_service_type", json!(1)),
    ] {
        let mut info = good.clone();
        info[field] = bad.clone();
        let reply = client.call(json!({"action": "register", "service_info": info}));
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(
            error.starts_with(&format!("Invalid value for service_info.{field}: expected")),
            "{field}: {bad}: {reply}"
        );
        assert_eq!(reply["code"], "invalid_request");
    }
    for bad in [json!(0), json!(-3), json!("30"), json!(true), json!(1e300), json!([30])] {
        let reply = client.call(json!({"action": "register", "service_info": good, "ttl": bad}));
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(error.starts_with("Invalid value for ttl: expected a positive number of seconds"), "{bad}: {reply}");
    }
    for (action, field) in [("get", "service_id"), ("list", "service_type"), ("discover", "service_type")] {
        let reply = client.call(json!({"action": action, field: 5}));
        assert_eq!(reply["error"], format!("Invalid value for {field}: expected a string, got 5"));
    }
    let deep = format!(r#"{{"action":"register","service_info":{}1{}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    client.send(&[b"REQ", deep.as_bytes()]);
    assert_eq!(parsed(&client.receive()[1])["code"], "invalid_request");
    assert_eq!(client.call(json!({"action": "register", "service_info": good}))["success"], true);
}

#[test]
fn the_request_id_comes_back_as_it_was_sent() {
    let (_directory, host) = host("");
    let mut client = host.client();
    for id in [r#""a\u00e9 b""#, "7", "-1.50", "123456789012345678901234567890", "1E+2"] {
        for rest in [r#","action":"health""#, r#","action":"nonsense""#, ""] {
            client.send(&[b"REQ", format!(r#"{{"request_id":{id}{rest}}}"#).as_bytes()]);
            let reply = String::from_utf8(client.receive()[1].clone()).unwrap();
            assert!(reply.ends_with(&format!(r#","request_id":{id}}}"#)), "{reply}");
        }
    }
    client.send(&[b"REQ", br#"{"action":"health","request_id":[1]}"#]);
    assert_eq!(parsed(&client.receive()[1])["code"], "invalid_request");
    client.send(&[b"REQ", br#"{"action":"health","request_id":null}"#]);
    assert!(parsed(&client.receive()[1]).get("request_id").is_none());
}

#[test]
fn a_record_shows_what_the_client_said_and_what_the_registry_knows() {
    let (_directory, host) = host("");
    let mut client = host.client();
    let info = r#"{"name":"My Nice Service","host":"10.0.0.1","port":4001,"type":"camera","tags":["a"],
        "metadata":{"type":"old","serial":123456789012345678901234567890,"gain":1.50},
        "protocol":"tcp","nested":{"b":[1,null]},"ttl":"mine","health":"mine","last_heartbeat":1,"generation":1}"#;
    client
        .send(&[b"REQ", format!(r#"{{"action":"register","ttl":12.5,"unknown":1,"service_info":{info}}}"#).as_bytes()]);
    let reply = parsed(&client.receive()[1]);
    let id = reply["service_id"].as_str().unwrap().to_string();
    let uuid = id.strip_prefix("my-nice-service-").expect("the id begins with the name");
    assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"), "a random UUID: {uuid}");
    client.send(&[b"REQ", json!({"action": "get", "service_id": id}).to_string().as_bytes()]);
    let text = String::from_utf8(client.receive()[1].clone()).unwrap();
    for own in ["\"ttl\":", "\"health\":", "\"last_heartbeat\":", "\"generation\":"] {
        assert_eq!(text.matches(own).count(), 1, "{own} stands once in {text}");
    }
    let mut service = parsed(text.as_bytes())["service"].clone();
    let heartbeat = service["last_heartbeat"].as_u64().expect("whole seconds");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(heartbeat) < 100, "{heartbeat}");
    service["last_heartbeat"] = 0.into();
    assert_eq!(service["generation"], reply["generation"]);
    assert!(service["generation"].as_u64().is_some_and(|generation| generation / 1000 >= now - 100), "{service}");
    service["generation"] = 0.into();
    let expected = format!(
        r#"{{"id":"{id}","name":"My Nice Service","host":"10.0.0.1","port":4001,"type":"camera","tags":["a","camera"],
        "metadata":{{"type":"camera","serial":123456789012345678901234567890,"gain":1.50}},"ttl":12.5,
        "protocol":"tcp","nested":{{"b":[1,null]}},"generation":0,"last_heartbeat":0,"health":"passing"}}"#
    );
    assert_eq!(service, parsed(expected.as_bytes()));
    for shown in ["list", "info"] {
        assert_eq!(client.call(json!({"action": shown}))["services"][0]["id"], id);
    }
    assert_eq!(client.call(json!({"action": "list", "service_type": "camera"}))["services"][0]["id"], id);
    assert_eq!(client.call(json!({"action": "list", "service_type": "Camera"}))["services"], json!([]));
}

#[test]
fn an_empty_id_is_no_id() {
    let (_directory, host) = host("");
    let mut client = host.client();
    for id in [json!(null), json!("")] {
        let info = json!({"id": id, "name": "n", "host": "h", "port": 1});
        let reply = client.call(json!({"action": "register", "service_info": info}));
        assert!(reply["service_id"].as_str().unwrap().starts_with("n-"), "{reply}");
    }
}

#[test]
fn info_names_the_ports_and_the_position() {
    let (_directory, host) = host("[server]\nenforce_unique_service_types = true\n");
    let mut client = host.client();
    client.call(register("x", "web", 30.0));
    let info = client.call(json!({"action": "info"}));
    assert_eq!(info["status"], "ok");
    assert_eq!(info["req_port"], json!(host.requests));
    assert_eq!(info["pub_port"], json!(host.events));
    assert_eq!(info["hb_port"], json!(host.heartbeats));
    assert_eq!(info["enforce_unique_service_types"], true);
    let list = client.call(json!({"action": "list"}));
    assert_eq!((&list["epoch"], &list["revision"]), (&info["epoch"], &json!(1)));
    assert_eq!(client.call(register("y", "web", 30.0))["error"], "duplicate_service_type");
}

#[test]
fn every_change_is_announced_in_order_with_the_whole_record() {
    let (_directory, host) = host("[server]\ncleanup_interval = 0.1\n");
    let mut events = host.subscriber();
    let mut client = host.client();
    let revision = client.call(json!({"action": "list"}))["revision"].as_u64().unwrap();
    client.call(register("x", "web", 30.0));
    client.call(register("x", "mail", 30.0));
    client.call(json!({"action": "renew", "service_id": "x"}));
    client.call(json!({"action": "deregister", "service_id": "x"}));
    client.call(register("y", "web", 0.2));
    let expected = [("register", "x"), ("register", "x"), ("deregister", "x"), ("register", "y"), ("expire", "y")];
    for (position, (kind, id)) in expected.into_iter().enumerate() {
        let (topic, event) = events.next();
        assert_eq!((topic.as_str(), &event["type"], &event["data"]["service_id"]), (kind, &json!(kind), &json!(id)));
        let before = revision + position as u64;
        assert_eq!((&event["previous"], &event["revision"]), (&json!(before), &json!(before + 1)));
        assert!(event["epoch"].is_string() && event["timestamp"].is_u64(), "{event}");
        let info = &event["data"]["service_info"];
        assert_eq!(info["id"], id);
        assert_eq!(info["health"], if kind == "expire" { "critical" } else { "passing" });
        for field in ["name", "host", "port", "type", "tags", "metadata", "ttl", "last_heartbeat"] {
            assert!(info.get(field).is_some(), "no {field} in {event}");
        }
    }
}

#[test]
fn terminate_stops_the_server_if_it_is_allowed_to() {
    let (_directory, refusing) = host("");
    assert_eq!(refusing.client().call(json!({"action": "terminate"}))["code"], "forbidden");
    let (_directory, host) = host("[server]\nallow_terminate = true\n");
    let reply = host.client().call(json!({"action": "terminate"}));
    assert_eq!((&reply["success"], &reply["status"]), (&json!(true), &json!("terminating")));
    let (status, log) = host.wait();
    assert!(status.success(), "{log}");
    assert_eq!(refusing.client().call(json!({"action": "health"}))["status"], "ok");
}

#[test]
fn one_identity_on_both_ports_is_one_client_on_each() {
    let (_directory, host) = host("");
    let mut requests = Client::connect_as(host.requests, b"me");
    let mut heartbeats = Client::connect_as(host.heartbeats, b"me");
    requests.call(register("x", "web", 30.0));
    heartbeats.send(&[br#"{"service_id":"x"}"#]);
    assert_eq!(parsed(&heartbeats.receive()[0])["success"], true);
    assert_eq!(requests.call(json!({"action": "health"}))["success"], true);
}

#[test]
fn clients_that_connect_ask_and_leave_are_served_again_and_again() {
    let (_directory, host) = host("");
    host.client().call(register("x", "web", 30.0));
    for _ in 0..300 {
        let subscriber = harness::Subscriber::connect(host.events);
        let reply = host.client().call(json!({"action": "discover", "service_type": "web"}));
        assert_eq!(reply["service"]["id"], "x");
        drop(subscriber);
    }
}

#[test]
fn a_burst_of_requests_is_answered_in_full_and_in_order() {
    let (_directory, host) = host("");
    let mut client = host.client();
    client.call(register("x", "web", 30.0));
    for number in 0..5000 {
        let request = json!({"action": "renew", "service_id": "x", "request_id": number});
        client.send(&[b"REQ", request.to_string().as_bytes()]);
    }
    for number in 0..5000 {
        let reply = client.receive_within(PATIENCE).expect("every request is answered");
        assert_eq!(parsed(&reply[1])["request_id"], json!(number));
    }
}
