use super::*;

fn read(service_info: &str, ttl: Option<&str>, limits: &Limits) -> Result<Registration, String> {
    let raw = |json| serde_json::from_str::<&RawValue>(json).expect("a test's JSON is valid");
    Registration::read(raw(service_info), ttl.map(raw), limits).map_err(|reply| reply.finish(None).into_text())
}

fn refusal(service_info: &str, ttl: Option<&str>) -> Option<String> {
    read(service_info, ttl, &Limits::default()).err()
}

fn info(more: &str) -> String {
    format!("{{\"name\":\"n\",\"host\":\"h\",\"port\":1,{more}}}")
}

/// The document and the types of a service that has this besides what it needs.
fn document(more: &str) -> (String, Vec<String>) {
    let registration = read(&info(more), None, &Limits::default()).expect("it is accepted");
    let types = registration.types.clone();
    (registration.into_document("i", None, 7).replace(",\"generation\":7", ""), types)
}

/// `serde_json` has names of its own for numbers and for JSON in a string, and looks for them in what clients send.
#[test]
fn nothing_in_a_string_is_taken_for_json() {
    for key in ["$serde_json::private::RawValue", "\\u0024serde_json::pri\\u0076ate::RawValue"] {
        for extra in [format!("{{\"{key}\":\"[[[[]]]]\"}}"), format!("[\"\\\"\",{{\"x\":1, \"{key}\" : \"\"}}]")] {
            let refusal = refusal(&info(&format!("\"metadata\":{{\"m\":{extra}}}")), None);
            assert!(refusal.is_some_and(|refusal| refusal.contains("no key that begins with")), "{extra}");
        }
    }
    let whole =
        "{\"$serde_json::private::RawValue\":\"{\\\"name\\\":\\\"n\\\",\\\"host\\\":\\\"h\\\",\\\"port\\\":1}\"}";
    assert!(refusal(whole, None).is_some_and(|refusal| refusal.contains("no key that begins with")));
    assert!(refusal(&info("\"x\":{\"$serde_json::private::Number\":\"1\"}"), None).is_some());
    let ttl = refusal(&info("\"x\":1"), Some("{\"$serde_json::private::Number\":\"5\"}"));
    assert!(ttl.is_some_and(|refusal| refusal.contains("Invalid value for ttl")));
    // The same as a value is text like any other, and other escapes are no harm.
    for extra in ["\"x\":\"$serde_json::private::Number\"", "\"\\u00e9\":{\"\\u0024serde_json\":\"\\\\u\"}"] {
        assert_eq!(refusal(&info(extra), Some("5")), None, "{extra}");
    }
}

#[test]
fn a_string_that_says_nothing_is_refused_wherever_it_stands() {
    for extra in ["\"x\":\"\\ud800\"", "\"\\uDc00\":1", "\"metadata\":{\"m\":[{\"a\":\"\\ud83d \\ude00\"}]}"] {
        assert!(refusal(&info(extra), None).is_some_and(|refusal| refusal.contains("no lone surrogate")), "{extra}");
    }
    for extra in ["\"x\":\"\\ud83d\\ude00\"", "\"x\":\"\\\\ud800\""] {
        assert_eq!(refusal(&info(extra), None), None, "{extra}");
    }
}

#[test]
fn the_document_says_what_the_client_said_in_its_order() {
    let (found, types) = document(
        r#""b" : [ 1, {"z": 1.50, "z": "a b"} ], "a":1E400, "type":"t", "metadata":{"m":1, "type":"old", "\u006d":2, "n":{}},
        "tags":["x","x"], "health":"mine", "owner_\u006bey":"mine", "b":2, "\u0062":3, "ttl":5, "id":"mine""#,
    );
    let expected = concat!(
        r#"{"id":"i","name":"n","host":"h","port":1,"type":"t","tags":["x","x","t"],"#,
        r#""metadata":{"m":2,"type":"t","n":{}},"ttl":30,"b":3,"a":1E400}"#
    );
    assert_eq!(found, expected);
    assert_eq!(types, ["x", "t"]);
    let (found, types) =
        document(r#""metadata":{"type":"m\u0041"},"tags":["m"],"singleton":true,"nested":[ 1, {"z": "a b"} ]"#);
    let rest = r#""tags":["m"],"metadata":{"type":"m\u0041"},"ttl":30,"singleton":true,"nested":[1,{"z":"a b"}]}"#;
    assert!(
        found.starts_with(r#"{"id":"i","name":"n","host":"h","port":1,"type":"mA","#) && found.ends_with(rest),
        "{found}"
    );
    assert_eq!(types, ["m", "mA"]);
    assert_eq!(document(r#""type":null,"metadata":{"type":""},"tags":[""]"#).1, [""]);
    assert_eq!(document(r#""type":"t","tags":["t"],"metadata":null"#).1, ["t"]);
}

#[test]
fn lengths_and_numbers_have_limits_that_refusals_name() {
    let limits = Limits { id_bytes: 60, name_bytes: 30, type_bytes: 4, types: 3, ..Limits::default() };
    let long = |length: usize| "é".repeat(length / 2);
    let info = |name: &str, more: &str| format!("{{\"name\":\"{name}\",\"host\":\"h\",\"port\":1{more}}}");
    for (refused, accepted, expected) in [
        (
            info("n", &format!(",\"id\":\"{}\"", long(62))),
            info("n", &format!(",\"id\":\"{}\"", long(60))),
            "service_info.id: expected at most 60 bytes, got 62 bytes",
        ),
        (
            info(&long(32), ",\"id\":\"i\""),
            info(&long(30), ",\"id\":\"i\""),
            "service_info.name: expected at most 30 bytes, got 32 bytes",
        ),
        (info(&long(24), ""), info(&long(22), ""), "service_info.name: expected at most 23 bytes, got 24 bytes"),
        (
            info("n", ",\"type\":\"abcde\""),
            info("n", ",\"type\":\"abcd\""),
            "service_info.type: expected at most 4 bytes, got 5 bytes",
        ),
        (
            info("n", ",\"tags\":[\"a\",\"abcde\"]"),
            info("n", ",\"tags\":[\"a\",\"abcd\"]"),
            "service_info.tags: expected at most 4 bytes, got 5 bytes",
        ),
        (
            info("n", ",\"metadata\":{\"type\":\"abcde\"}"),
            info("n", ",\"metadata\":{\"type\":\"abcd\"}"),
            "service_info.metadata.type: expected at most 4 bytes, got 5 bytes",
        ),
        (
            info("n", ",\"tags\":[\"a\",\"b\",\"c\",\"a\"]"),
            info("n", ",\"tags\":[\"a\",\"b\",\"c\"]"),
            "service_info.tags: expected at most 3 types of one service, got 4",
        ),
        (
            info("n", ",\"tags\":[\"a\",\"b\",\"c\"],\"type\":\"d\""),
            info("n", ",\"tags\":[\"a\",\"b\",\"d\"],\"type\":\"d\""),
            "service_info.type: expected at most 3 types of one service, got 4",
        ),
    ] {
        let refusal = read(&refused, None, &limits).expect_err(&refused);
        assert!(refusal.contains(expected) && refusal.contains("invalid_request"), "{refusal}");
        read(&accepted, None, &limits).expect(&accepted);
    }
}

#[test]
fn each_value_is_checked_and_named() {
    for (more, ttl, expected) in [
        (r#""name":"""#, None, r#"service_info.name: expected a non-empty string, got """#),
        (r#""name":null"#, None, "service_info.name: expected a non-empty string, got null"),
        (r#""host":["h"]"#, None, r#"service_info.host: expected a non-empty string, got ["h"]"#),
        (r#""port":0"#, None, "service_info.port: expected an integer from 1 to 65535, got 0"),
        (r#""port":65536"#, None, "service_info.port: expected an integer from 1 to 65535, got 65536"),
        (r#""port":-1"#, None, "service_info.port: expected an integer from 1 to 65535, got -1"),
        (r#""port":80.0"#, None, "service_info.port: expected an integer from 1 to 65535, got 80.0"),
        (r#""port":"80""#, None, r#"service_info.port: expected an integer from 1 to 65535, got "80""#),
        (r#""id":7"#, None, "service_info.id: expected a string, got 7"),
        (r#""type":{}"#, None, "service_info.type: expected a string, got {}"),
        (r#""tags":"web""#, None, r#"service_info.tags: expected a list of strings, got "web""#),
        (r#""tags":["web",1]"#, None, r#"service_info.tags: expected a list of strings, got ["web",1]"#),
        (r#""metadata":[]"#, None, "service_info.metadata: expected an object, got []"),
        (r#""singleton":1"#, None, "service_info.singleton: expected true or false, got 1"),
        (
            r#""allow_duplicate_service_type":"no""#,
            None,
            r#"allow_duplicate_service_type: expected true or false, got "no""#,
        ),
        (
            r#""x":1"#,
            Some("0"),
            "for ttl: expected a positive number of seconds, at most 3153600000 (100 years), got 0",
        ),
        (r#""x":1"#, Some("0.0009"), "for ttl: expected a positive number"),
        (r#""x":1"#, Some("3153600000.1"), "for ttl: expected a positive number"),
        (r#""x":1"#, Some("-1"), "for ttl: expected a positive number"),
        (r#""x":1"#, Some("\"5\""), "for ttl: expected a positive number"),
        (
            r#""singleton":true,"allow_duplicate_service_type":true"#,
            None,
            "\"invalid_service_type_policy\",\"message\":",
        ),
    ] {
        let refusal = refusal(&info(more), ttl).expect(more).replace("\\\"", "\"");
        assert!(refusal.contains(expected), "{more}: {refusal}");
    }
    for field in ["name", "host", "port"] {
        let without = info("\"x\":1").replace(&format!("\"{field}\""), "\"other\"");
        let refusal = refusal(&without, None).expect(field);
        assert!(refusal.contains(&format!("Missing required field in service_info: {field}\"")), "{refusal}");
    }
}

#[test]
fn what_a_service_says_is_read() {
    let limits = Limits::default();
    for (more, ttl, ttl_ms) in [
        ("\"port\":1", None, 30_000),
        ("\"port\":65535", Some("null"), 30_000),
        ("\"id\":\"\"", Some("0.001"), 1),
        ("\"id\":null", Some("3153600000"), 3_153_600_000_000),
        ("\"id\":null", Some("1.2345e1"), 12_345),
    ] {
        let text = info(more);
        let registration = read(&text, ttl, &limits).expect(more);
        assert_eq!((registration.ttl_ms, registration.bytes), (ttl_ms, text.len() + ttl.map_or(0, str::len)));
        assert_eq!((&*registration.name, registration.id, registration.service_type), ("n", None, None));
        assert!(!registration.singleton && !registration.allow_duplicate_service_type);
    }
    let registration =
        read(&info(r#""id":"i","type":"t","metadata":{"type":"m"},"singleton":true"#), None, &limits).unwrap();
    assert_eq!((registration.id.as_deref(), registration.service_type.as_deref()), (Some("i"), Some("t")));
    assert!(registration.singleton && !registration.allow_duplicate_service_type);
    let document = registration.into_document("a\"b", Some("key"), 7);
    let expected = concat!(
        r#"{"id":"a\"b","name":"n","host":"h","port":1,"type":"t","tags":["t"],"metadata":{"type":"t"},"ttl":30,"#,
        r#""singleton":true,"owner_key":"key","generation":7}"#
    );
    assert_eq!(document, expected);
    let registration =
        read(&info(r#""metadata":{"type":"m"},"allow_duplicate_service_type":true"#), None, &limits).unwrap();
    assert_eq!(registration.service_type.as_deref(), Some("m"));
    assert!(registration.allow_duplicate_service_type && !registration.singleton);
}

#[test]
fn long_values_are_cut_where_they_are_shown() {
    assert_eq!(cut("éé", 2), "éé");
    assert_eq!(cut("ééé", 2), "éé...");
    let refusal = refusal(&info(&format!("\"type\":[\"{}\"]", "x".repeat(100))), None).unwrap();
    assert!(refusal.contains(&format!("got [\\\"{}...\"", "x".repeat(78))), "{refusal}");
    assert!(refusal.ends_with("\"field\":\"service_info.type\"}"), "{refusal}");
}

#[test]
fn a_ttl_is_short_and_counted() {
    let text = info("\"x\":1");
    let long = |characters: usize| format!("30.{}", "0".repeat(characters - 3));
    let registration = read(&text, Some(&long(32)), &Limits::default()).unwrap();
    assert_eq!((registration.ttl_ms, registration.bytes), (30_000, text.len() + 32));
    for characters in [33, 1_000_000] {
        let refusal = refusal(&text, Some(&long(characters))).expect("too long");
        let expected = "Invalid value for ttl: expected a number of at most 32 characters, got 30.000";
        assert!(refusal.contains(expected) && refusal.len() < 400, "{refusal}");
    }
}
