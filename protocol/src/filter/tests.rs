use super::*;
use crate::request::{Port, Request, parse};

const DOCUMENT: &str = r#"{"id":"a","name":"N","tags":["web","eu"],"metadata":{"zone":"a","cores":8,"where":{"rack":1,"row":[2]},"esc":"é"},"ttl":30,"version":"1.4.2"}"#;

/// The filter of a `list` request with these fields, or the text that it is refused with.
fn read(fields: &str) -> Result<Filter, String> {
    let limits = Limits { json_depth: 6, type_bytes: 20, ..Limits::default() };
    let request = format!("{{\"action\":\"list\"{fields}}}");
    match parse(request.as_bytes(), Port::Requests, &limits).request {
        Ok(Request::List { filter, .. }) => Ok(filter),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => {
            let reply: serde_json::Value = serde_json::from_str(&refusal.finish(None).into_text()).unwrap();
            assert_eq!(reply["code"], "invalid_request");
            assert!(reply["error"].as_str().unwrap().contains(reply["field"].as_str().unwrap()));
            Err(reply["error"].as_str().unwrap().to_string())
        }
    }
}

fn wants(fields: &str, document: &str) -> bool {
    let types: Vec<Arc<str>> = ["web", "eu"].map(Arc::from).into();
    read(fields).unwrap().matches(&types, document)
}

#[test]
fn all_that_is_asked_for_must_be_true() {
    for (fields, expected) in [
        ("", true),
        (r#","service_type":"web""#, true),
        (r#","service_type":"mail""#, false),
        (r#","tags":["eu","web"]"#, true),
        (r#","tags":["eu","us"]"#, false),
        (r#","service_type":"web","tags":["us"]"#, false),
        (r#","tags":[],"metadata":{},"version":"""#, true),
        (r#","tags":null,"metadata":null,"version":null"#, true),
        (r#","metadata":{"zone":"a"}"#, true),
        (r#","metadata":{"zone":"b"}"#, false),
        (r#","metadata":{"nothing":"a"}"#, false),
        (r#","metadata":{"nothing":null}"#, false),
        (r#","metadata":{"cores":8.0}"#, true),
        (r#","metadata":{"cores":"8"}"#, false),
        (r#","metadata":{"cores":8,"zone":"a","esc":"\u00e9"}"#, true),
        (r#","metadata":{"cores":8,"zone":"c"}"#, false),
        (r#","metadata":{"where":{"row":[2.0],"rack":1}}"#, true),
        (r#","metadata":{"where":{"rack":1}}"#, false),
        (r#","metadata":{"zone":"b","zone":"a"}"#, true),
        (r#","metadata":{"zone":"a","where":{"row":[2],"rack":1},"cores":8}"#, true),
        (r#","version":"^1.2""#, true),
        (r#","version":">=1.0, <1.4""#, false),
        (r#","version":"*","metadata":{"zone":"a"},"tags":["web"],"service_type":"eu""#, true),
        (r#","version":"*","metadata":{"zone":"z"},"tags":["web"],"service_type":"eu""#, false),
    ] {
        assert_eq!(wants(fields, DOCUMENT), expected, "{fields}");
    }
}

#[test]
fn the_version_is_that_of_the_record_or_else_of_its_metadata() {
    for (document, expected) in [
        (r#"{"metadata":{"version":"2.0.1"}}"#, true),
        (r#"{"version":"2.0.1","metadata":{"version":"1.0.0"}}"#, true),
        (r#"{"version":null,"metadata":{"version":"2.0.1"}}"#, true),
        (r#"{"metadata":{"version":"2.0.1"},"version":"1.0.0"}"#, false),
        (r#"{"version":"two","metadata":{"version":"2.0.1"}}"#, false),
        (r#"{"version":2,"metadata":{}}"#, false),
        (r#"{"version":"2.0"}"#, false),
        (r#"{"version":"2.1.0-rc.1"}"#, false),
        (r#"{"metadata":["version","2.0.1"]}"#, false),
        (r#"{"metadata":{"version":["2.0.1"]}}"#, false),
        ("{}", false),
    ] {
        assert_eq!(wants(r#","version":"2""#, document), expected, "{document}");
    }
    assert!(wants(r#","version":">=2.1.0-rc""#, r#"{"version":"2.1.0-rc.1"}"#));
}

#[test]
fn a_filter_by_type_is_known_as_one() {
    for (fields, expected) in [
        ("", true),
        (r#","service_type":"web""#, true),
        (r#","tags":["web"]"#, false),
        (r#","metadata":{"a":1}"#, false),
        (r#","version":"1""#, false),
    ] {
        assert_eq!(read(fields).unwrap().is_type_only(), expected, "{fields}");
    }
}

#[test]
fn filters_that_say_the_same_are_equal() {
    let one = read(r#","tags":["b","a","b"],"metadata":{"x":1.0,"y":{"b":1,"a":2}},"version":" ^1.2""#).unwrap();
    let other = read(r#","metadata":{"y":{"a":2,"b":1},"x":1},"version":"^1.2","tags":["a","b"]"#).unwrap();
    assert_eq!(one, other);
    assert_ne!(one, read(r#","tags":["a"]"#).unwrap());
}

#[test]
fn a_filter_that_is_none_is_refused_by_name() {
    let many = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let tags = |count| format!(",\"tags\":[{}]", many(count, &|i| format!("\"t{i}\"")));
    let metadata = |count| format!(",\"metadata\":{{{}}}", many(count, &|i| format!("\"k{i}\":{i}")));
    assert!(read(&tags(64)).is_ok() && read(&metadata(64)).is_ok());
    for (fields, expected) in [
        (r#","tags":"web""#.to_string(), "tags: expected a list of non-empty strings, got \"web\""),
        (r#","tags":["a",7]"#.into(), "tags: expected a list of non-empty strings, got [\"a\",7]"),
        (r#","tags":[""]"#.into(), "tags: expected a list of non-empty strings"),
        (r#","tags":["\ud800"]"#.into(), "tags: expected a list of non-empty strings"),
        (r#","tags":["xxxxxxxxxxxxxxxxxxxxx"]"#.into(), "tags: expected at most 20 bytes, got 21 bytes"),
        (tags(65), "tags: expected at most 64 tags, got [\"t0\","),
        (tags(100_000), "tags: expected at most 64 tags"),
        (r#","metadata":["a"]"#.into(), "metadata: expected an object, got [\"a\"]"),
        (r#","metadata":{"\ud800":1}"#.into(), "metadata: expected no lone surrogate"),
        (r#","metadata":{"a":["\ud800"]}"#.into(), "metadata: expected no lone surrogate"),
        (r#","metadata":{"a":[[[[[1]]]]]}"#.into(), "metadata: expected at most 6 levels, got 7"),
        (metadata(65), "metadata: expected at most 64 keys, got {\"k0\":0,"),
        (metadata(100_000), "metadata: expected at most 64 keys"),
        (format!(",\"metadata\":{{\"a\":\"{}\"}}", "x".repeat(16_384)), "metadata: expected at most 16384 bytes, got"),
        (r#","version":1"#.into(), "version: expected a SemVer requirement, such as \"^1.2\" or \">=1.0, <3\", got 1"),
        (r#","version":"new""#.into(), "version: expected a SemVer requirement"),
        (format!(",\"version\":\"{}\"", "1".repeat(257)), "version: expected at most 256 bytes, got 257 bytes"),
        (r#","service_type":7"#.into(), "service_type: expected a string, got 7"),
    ] {
        let refused = read(&fields).unwrap_err();
        assert!(refused.starts_with(&format!("Invalid value for {expected}")), "{refused}");
    }
}

#[test]
fn of_equal_keys_in_a_record_the_last_counts_whichever_it_is() {
    let wanted = r#","metadata":{"a":1,"b":2}"#;
    for (metadata, expected) in [
        (r#"{"a":1,"b":2}"#, true),
        (r#"{"a":1,"b":2,"b":3}"#, false),
        (r#"{"a":1,"b":3,"b":2}"#, true),
        (r#"{"a":1,"b":2,"a":3}"#, false),
        (r#"{"b":2,"a":3,"a":1}"#, true),
    ] {
        assert_eq!(wants(wanted, &format!("{{\"metadata\":{metadata}}}")), expected, "{metadata}");
    }
}

#[test]
fn metadata_may_be_as_long_and_as_deep_as_it_says_and_no_more() {
    let long = |bytes: usize| read(&format!(r#","metadata":{{"a":"{}"}}"#, "x".repeat(bytes - r#"{"a":""}"#.len())));
    assert!(long(METADATA_BYTES_MAX).is_ok());
    assert!(long(METADATA_BYTES_MAX + 1).unwrap_err().contains("expected at most 16384 bytes, got 16385 bytes"));
    let deep = |levels: usize| read(&format!(r#","metadata":{{"a":{}1{}}}"#, "[".repeat(levels), "]".repeat(levels)));
    assert!(deep(4).is_ok());
    assert!(deep(5).unwrap_err().contains("expected at most 6 levels, got 7"));
}

#[test]
fn a_filter_takes_memory_by_what_it_says() {
    let bytes = |fields: &str| read(fields).unwrap().bytes() - size_of::<Filter>();
    assert_eq!(bytes(""), 0);
    assert_eq!(bytes(r#","service_type":"web""#), TEXT_BYTES + 3);
    assert_eq!(bytes(r#","service_type":"web","tags":["ab","cdef"]"#), 3 * TEXT_BYTES + 9);
    assert_eq!(bytes(r#","metadata":{"key":"val"}"#), TEXT_BYTES + "key".len() + r#""val""#.len());
}
