use super::*;

fn limits() -> Limits {
    Limits { json_depth: 10, ..Limits::default() }
}

/// What a registration of this `service_info` is refused with, if it is.
fn refusal(service_info: &str) -> Option<String> {
    let request = format!("{{\"action\":\"register\",\"service_info\":{service_info}}}");
    parse(request.as_bytes(), Port::Requests, &limits()).request.err().map(|reply| reply.finish(None).into_text())
}

#[test]
fn texts_are_what_their_json_says_with_and_without_escapes() {
    for text in ["a", "é漢", "\"", "\\", "a\\\"b\"", "\n\t\u{1}", "ends with \\", "'"] {
        let request = serde_json::json!({"action": "discover", "service_type": text}).to_string();
        match parse(request.as_bytes(), Port::Requests, &limits()).request {
            Ok(Request::Discover(asked)) => assert_eq!(asked.filter.service_type.as_deref(), Some(text)),
            other => panic!("{request} became {other:?}"),
        }
    }
    let escaped = br#"{"\u0061ction":"\u0067et","service_id":"\u0078"}"#;
    let request = parse(escaped, Port::Requests, &limits()).request;
    assert!(matches!(request, Ok(Request::Get { service_id }) if service_id == "x"));
}

#[test]
fn what_is_not_utf_8_is_refused_wherever_it_stands() {
    for body in [&b"{\"action\":\"list\",\"x\":\"\xff\"}"[..], b"{\"action\":\"list\xff\"}", b"{\"\xff\":1}", b"\xff"] {
        let refusal =
            parse(body, Port::Requests, &limits()).request.map(|_| ()).map_err(|reply| reply.finish(None).into_text());
        assert!(refusal.is_err_and(|refusal| refusal.contains("invalid_json")), "{body:?}");
    }
}

#[test]
fn what_is_kept_may_not_be_nested_too_deep() {
    let register = |levels: usize| {
        let metadata = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        let info = format!("{{\"name\":\"n\",\"host\":\"h\",\"port\":1,\"metadata\":{{\"m\":{metadata}}}}}");
        let request = format!("{{\"action\":\"register\",\"service_info\":{info}}}");
        parse(request.as_bytes(), Port::Requests, &limits())
            .request
            .map(|_| ())
            .map_err(|reply| reply.finish(None).into_text())
    };
    register(7).expect("ten levels are fine");
    let refusal = register(8).unwrap_err();
    assert!(refusal.contains("service_info: nested 11 deep, expected at most 10"), "{refusal}");
}

/// One message keeps nobody else waiting, whatever is in it. To be run by hand:
/// `cargo test --release -p registry-protocol long -- --ignored --nocapture`.
#[test]
#[ignore = "measures, in a release build"]
fn long_messages_are_read_quickly() {
    const BYTES: usize = 1 << 20;
    let fill = |piece: &dyn Fn(usize) -> String| {
        let mut text = String::new();
        (0..)
            .map(piece)
            .take_while(|piece| {
                text.len() + piece.len() < BYTES - 200 && {
                    text += piece;
                    true
                }
            })
            .count();
        text.trim_end_matches(',').to_string()
    };
    let register = |more: String| {
        format!("{{\"action\":\"register\",\"service_info\":{{\"name\":\"n\",\"host\":\"h\",\"port\":1,{more}}}}}")
    };
    let update = |patch: String| format!("{{\"action\":\"update\",\"service_id\":\"i\",\"metadata\":{{{patch}}}}}");
    let nested_60 = |inside: &str| format!("{}{inside}{}", "\"a\":{".repeat(60), "}".repeat(60));
    let [many, deep] = [fill(&|n| format!("\"{n}\":1,")), nested_60(&fill(&|n| format!("\"{n}\":1,")))];
    let patched = format!("{{\"id\":\"i\",\"metadata\":{{{deep},{many}}}}}");
    let nested = BYTES / 2 - 100;
    for (what, request) in [
        ("tags", register(format!("\"tags\":[{}]", fill(&|n| format!("\"{n}\","))))),
        ("equal tags", register(format!("\"tags\":[{}]", fill(&|n| format!("\"{}\",", n % 7))))),
        ("metadata", register(format!("\"metadata\":{{{}}}", fill(&|n| format!("\"{n}\":1,"))))),
        ("fields", register(fill(&|n| format!("\"{n}\":1,")))),
        ("fields with escapes", register(fill(&|n| format!("\"\\u0041{n}\":1,")))),
        ("equal fields", register(fill(&|_| "\"a\":1,".into()))),
        ("fields of the request", format!("{{\"action\":\"list\",{}}}", fill(&|n| format!("\"{n}\":1,")))),
        ("a string", register(format!("\"x\":\"{}\"", "x".repeat(BYTES - 200)))),
        ("escapes", register(format!("\"x\":\"{}\"", "\\ud83d\\ude00".repeat(BYTES / 12 - 20)))),
        ("strings with escapes", register(format!("\"x\":[{}]", fill(&|_| "\"\\ud83d\\ude00\",".into())))),
        ("a name", register(format!("\"name\":\"{}\"", "x".repeat(BYTES - 200)))),
        ("an action", format!("{{\"action\":\"{}\"}}", "x".repeat(BYTES - 200))),
        ("a service_id", format!("{{\"action\":\"get\",\"service_id\":\"{}\"}}", "x".repeat(BYTES - 200))),
        ("numbers", register(format!("\"x\":[{}]", fill(&|_| "1,".into())))),
        ("space", register(format!("\"x\":[{}1]", " ".repeat(BYTES - 200)))),
        ("arrays", register(format!("\"x\":{}1{}", "[".repeat(nested), "]".repeat(nested)))),
        ("a patch", update(many.clone())),
        ("a patch that takes away", update(fill(&|n| format!("\"{n}\":null,")))),
        ("a patch with equal keys", update(fill(&|_| "\"a\":1,".into()))),
        ("a deep patch", update(deep.clone())),
        ("many renewals", format!("{{\"action\":\"renew\",\"services\":[{}]}}", fill(&|n| format!("\"{n}\",")))),
        ("objects", register(format!("\"x\":[{}]", fill(&|_| "{\"a\":{}},".into())))),
    ] {
        let took = (0..5).map(|_| {
            let start = std::time::Instant::now();
            let request = parse(request.as_bytes(), Port::Requests, &Limits::default()).request;
            if let Ok(Request::Register(registration)) = request {
                registration.into_document("i", None, 7);
            } else if let Ok(Request::Update(update)) = request {
                update.metadata.apply(&patched).ok();
            }
            start.elapsed()
        });
        let took = took.min().unwrap_or_default();
        println!("{what}: {:.1} ms", took.as_secs_f64() * 1000.0);
        assert!(took.as_millis() < 50, "{what} took {took:?}");
    }
}

#[test]
fn a_client_that_asks_at_the_heartbeat_port_is_told_so() {
    for (requests_port, expected) in
        [(Some(5556), "requests go to 5556\""), (None, "requests go to the request port\"")]
    {
        let limits = Limits { requests_port, ..limits() };
        for body in ["{\"action\":\"list\"}", "{\"action\":\"renew\",\"service_id\":\"\"}"] {
            let refusal =
                parse(body.as_bytes(), Port::Heartbeats, &limits).request.unwrap_err().finish(None).into_text();
            assert!(
                refusal.contains("\"Missing required field: service_id\",\"code\":\"invalid_request\""),
                "{refusal}"
            );
            assert!(refusal.contains("\"message\":\"this is the heartbeat port; ") && refusal.contains(expected));
        }
    }
}

#[test]
fn what_others_have_to_read_is_valid() {
    for value in
        ["\"a\u{1}\"", "\"\\x\"", "\"\\u12\"", "01", "1.", "[1,]", "{\"a\":1,}", "{\"a\"}", "nul", "\"\\ud800\""]
    {
        let info = format!("{{\"name\":\"n\",\"host\":\"h\",\"port\":1,\"x\":{value}}}");
        assert!(refusal(&info).is_some(), "{value}");
    }
}

/// What a request is, in short, or the text and the word that it is refused with.
fn read(body: &str, port: Port) -> String {
    let Parsed { request, request_id } = parse(body.as_bytes(), port, &limits());
    let read = match request {
        Ok(request) => {
            let right = match request.right() {
                Right::None => "none".to_string(),
                Right::Read => "read".to_string(),
                Right::Register(registration) => format!("register {}", registration.name),
                Right::Change(service_id) => format!("change {service_id}"),
                Right::Operate(what) => what.to_string(),
                Right::RenewEach(renewals) => format!("renew {}", renewals.len()),
            };
            match request {
                Request::Register(registration) => format!("register {:?} for {right}", registration.id),
                Request::List { filter, .. } => format!("List {:?} for {right}", filter.service_type),
                Request::Discover(asked) => format!("Discover {:?} for {right}", asked.filter.service_type),
                Request::Types { .. } => format!("Types for {right}"),
                other => format!("{other:?} for {right}"),
            }
        }
        Err(refusal) => {
            let code = refusal.code().map(Code::as_str).unwrap_or_default();
            let reply: serde_json::Value = serde_json::from_str(&refusal.finish(None).into_text()).unwrap();
            format!("{code}: {}", reply["error"].as_str().unwrap())
        }
    };
    request_id.map_or(read.clone(), |id| format!("{id}: {read}"))
}

#[test]
fn each_request_is_known_and_needs_its_right() {
    let service = r#"{"name":"n","host":"h","port":1,"id":"i"}"#;
    for (body, expected) in [
        (&*format!(r#"{{"action":"register","service_info":{service}}}"#), r#"register Some("i") for register n"#),
        (
            r#"{"action":"deregister","service_id":"x"}"#,
            r#"Deregister { service_id: "x", generation: None } for change x"#,
        ),
        (r#"{"action":"renew","service_id":"x"}"#, r#"Renew { service_id: "x", generation: None } for change x"#),
        (r#"{"action":"get","service_id":"x"}"#, r#"Get { service_id: "x" } for read"#),
        (r#"{"action":"list"}"#, "List None for read"),
        (r#"{"action":"list","service_type":null}"#, "List None for read"),
        (r#"{"action":"list","service_type":"t"}"#, r#"List Some("t") for read"#),
        (r#"{"action":"discover","service_type":"t"}"#, r#"Discover Some("t") for read"#),
        (r#"{"action":"types"}"#, "Types for read"),
        (r#"{"action":"health"}"#, "Health for none"),
        (r#"{"action":"info"}"#, "Info for read"),
        (r#"{"action":"terminate","unknown":{"a":[]}}"#, "Terminate for to stop the server"),
        (r#"{"action":"expiry","mass_expiry":"keep"}"#, "Expiry(Keep) for to end a mass expiry"),
        (r#"{"action":"info","max_stale":1}"#, "Fresh { max_stale_ms: 1000, read: Info } for read"),
        (r#"{"action":"fly","action":"health"}"#, "Health for none"),
        (r#" { "action" : "health" , "request_id" : -1.50 } "#, "-1.50: Health for none"),
        (r#"{"request_id":"a\u00e9","action":"fly"}"#, r#""a\u00e9": unknown_action: Unknown action: fly"#),
        (r#"{"request_id":7}"#, "7: invalid_request: Missing required field: action"),
        (r#"{"request_id":null,"action":"info"}"#, "Info for read"),
        (
            r#"{"action":"deregister","service_id":"x","generation":7}"#,
            r#"Deregister { service_id: "x", generation: Some(7) } for change x"#,
        ),
        (
            r#"{"action":"update","service_id":"x","generation":null,"metadata":{"a":1}}"#,
            concat!(
                r#"Update(Update { service_id: "x", generation: None, "#,
                r#"metadata: Patch { json: "{\"a\":1}", document_bytes_max: 1048576 } }) for change x"#
            ),
        ),
        (r#"{"action":"history","service_id":"x"}"#, r#"History { service_id: "x", limit: None } for read"#),
        (
            r#"{"action":"history","service_id":"x","limit":1000}"#,
            r#"History { service_id: "x", limit: Some(1000) } for read"#,
        ),
    ] {
        assert_eq!(read(body, Port::Requests), expected, "{body}");
    }
    for (body, expected) in [
        (r#"{"service_id":"x","request_id":1}"#, r#"1: Renew { service_id: "x", generation: None } for change x"#),
        (r#"{"service_id":"x","action":"terminate"}"#, r#"Renew { service_id: "x", generation: None } for change x"#),
        (
            r#"{"service_id":"x","generation":0,"services":["y"]}"#,
            r#"Renew { service_id: "x", generation: Some(0) } for change x"#,
        ),
        (
            r#"{"services":["\u0078",{"service_id":"y","generation":9007199254740991,"more":1}]}"#,
            concat!(
                r#"RenewMany([Renewal { service_id: "x", generation: None }, "#,
                r#"Renewal { service_id: "y", generation: Some(9007199254740991) }]) for renew 2"#
            ),
        ),
        (r#"{"services":[]}"#, "invalid_request: Missing required field: service_id"),
        (
            r#"{"services":{"a":1}}"#,
            "invalid_request: Invalid value for services: expected a list of ids, or of objects with service_id and \
             generation, got {\"a\":1}",
        ),
        (
            r#"{"services":["a",""]}"#,
            "invalid_request: Invalid value for services: expected an id, or an object with service_id, got \"\"",
        ),
        (
            r#"{"services":[{"generation":1}]}"#,
            "invalid_request: Invalid value for services: expected an id, or an object with service_id, got \
             {\"generation\":1}",
        ),
        (
            r#"{"services":[{"service_id":"a","generation":"1"}]}"#,
            "invalid_request: Invalid value for services.generation: expected a whole number, as register answered, \
             got \"1\"",
        ),
        (r#"{"service_id":7}"#, "invalid_request: Invalid value for service_id: expected a string, got 7"),
    ] {
        assert_eq!(read(body, Port::Heartbeats), expected, "{body}");
    }
}

#[test]
fn what_is_no_request_is_refused() {
    for (body, expected) in [
        ("", "invalid_json: Invalid JSON format"),
        ("[]", "invalid_json: Invalid JSON format"),
        ("{} {}", "invalid_json: Invalid JSON format"),
        ("{}", "invalid_request: Missing required field: action"),
        (r#"{"action":[]}"#, "invalid_request: Missing required field: action"),
        (r#"{"action":5}"#, "unknown_action: Unknown action: 5"),
        (r#"{"action":["list"]}"#, r#"unknown_action: Unknown action: ["list"]"#),
        (r#"{"action":"List"}"#, "unknown_action: Unknown action: List"),
        (
            r#"{"action":"info","request_id":true}"#,
            "invalid_request: Invalid value for request_id: expected a string or a number, got true",
        ),
        (r#"{"action":"register"}"#, "invalid_request: Missing required field: service_info"),
        (r#"{"action":"update","service_id":"x","metadata":{}}"#, "invalid_request: Missing required field: metadata"),
        (
            r#"{"action":"renew","service_id":"x","generation":-1}"#,
            "invalid_request: Invalid value for generation: expected a whole number, as register answered, got -1",
        ),
        (
            r#"{"action":"history","service_id":"x","limit":0}"#,
            "invalid_request: Invalid value for limit: expected a whole number from 1 to 1000, got 0",
        ),
        (
            r#"{"action":"register","service_info":[]}"#,
            "invalid_request: Invalid value for service_info: expected an object, got []",
        ),
        (r#"{"action":"get","service_id":{}}"#, "invalid_request: Missing required field: service_id"),
        (
            r#"{"action":"get","service_id":[1]}"#,
            "invalid_request: Invalid value for service_id: expected a string, got [1]",
        ),
        (r#"{"action":"discover","service_type":0}"#, "invalid_request: Missing required field: service_type"),
        (
            r#"{"action":"list","service_type":true}"#,
            "invalid_request: Invalid value for service_type: expected a string, got true",
        ),
    ] {
        assert_eq!(read(body, Port::Requests), expected, "{body}");
    }
    for action in Action::ALL {
        let body = format!(r#"{{"action":"{}"}}"#, action.as_str());
        assert!(!read(&body, Port::Requests).contains("unknown_action"), "{body}");
    }
    let long = format!(r#"{{"action":"{}"}}"#, "x".repeat(81));
    assert!(read(&long, Port::Requests).ends_with(&format!(": {}...", "x".repeat(80))));
}

#[test]
fn a_registration_has_the_ttl_that_stands_beside_the_service() {
    for (ttl, expected) in [(r#","ttl":7"#, 7_000), (r#","ttl":7,"ttl":8.5"#, 8_500), ("", 30_000)] {
        let body = format!(r#"{{"action":"register","service_info":{{"name":"n","host":"h","port":1}}{ttl}}}"#);
        match parse(body.as_bytes(), Port::Requests, &limits()).request {
            Ok(Request::Register(registration)) => assert_eq!(registration.ttl_ms, expected, "{body}"),
            other => panic!("{body} became {other:?}"),
        }
    }
}

#[test]
fn who_sends_other_json_is_told_what_was_expected() {
    for body in ["[]", "7", "\"list\"", "null"] {
        let refusal = parse(body.as_bytes(), Port::Requests, &limits()).request.unwrap_err().finish(None).into_text();
        assert!(refusal.contains("expected one JSON object"), "{body}: {refusal}");
    }
}

/// Requests may have to wait, and many of them: nothing that they keep is as long as a message.
#[test]
fn what_a_request_keeps_is_short() {
    let limits = Limits { id_bytes: 70, type_bytes: 20, ..limits() };
    let refusal = |body: &str, port| {
        parse(body.as_bytes(), port, &limits).request.err().map(|refusal| refusal.finish(None).into_text())
    };
    let name = "x".repeat(21);
    for fields in [format!(r#""tags":["{name}"]"#), format!(r#""metadata":{{"a":"{}"}}"#, name.repeat(1000))] {
        let body = format!(r#"{{"action":"list",{fields}}}"#);
        assert!(refusal(&body, Port::Requests).is_some_and(|refusal| refusal.contains(": expected at most ")));
    }
    for (field, most, actions) in [
        ("service_id", 70, &[Action::Get, Action::Renew, Action::Deregister][..]),
        ("service_type", 20, &[Action::List, Action::Discover]),
    ] {
        for action in actions.iter().map(|action| action.as_str()) {
            let body = |bytes| format!(r#"{{"action":"{action}","{field}":"{}"}}"#, "x".repeat(bytes));
            assert_eq!(refusal(&body(most), Port::Requests), None);
            let expected = format!("Invalid value for {field}: expected at most {most} bytes, got {} bytes", most + 1);
            assert!(refusal(&body(most + 1), Port::Requests).is_some_and(|refusal| refusal.contains(&expected)));
        }
    }
    let beat = format!(r#"{{"service_id":"{}"}}"#, "x".repeat(71));
    assert!(refusal(&beat, Port::Heartbeats).is_some_and(|refusal| refusal.contains("at most 70 bytes")));
    let body = |bytes: usize| format!(r#"{{"action":"info","request_id":"{}"}}"#, "x".repeat(bytes - 2));
    assert_eq!(refusal(&body(REQUEST_ID_BYTES_MAX), Port::Requests), None);
    let long = refusal(&body(REQUEST_ID_BYTES_MAX + 1), Port::Requests);
    assert!(long.is_some_and(|refusal| refusal.contains("request_id: expected at most 1024 bytes, got 1025 bytes")));
}
