//! What Prometheus is told: the registry in numbers, and services to be scraped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Http;
use crate::harness::{Host, PATIENCE, workspace};
use crate::tokens::{call, token};
use crate::{MEMORY, Stage, record};

/// What is shown under one name.
#[derive(Debug)]
struct Family {
    kind: String,
    help: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    /// With its suffix, if it is of a histogram.
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// All families. Panics if the text is not what Prometheus reads.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut current, mut series) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("there is a text");
            current = name.to_string();
            let family = Family { kind: String::new(), help: help.into(), samples: Vec::new() };
            assert!(families.insert(current.clone(), family).is_none(), "{name} comes twice");
            continue;
        }
        let family = families.get_mut(&current).expect("a family begins with its HELP");
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("there is a type");
            assert_eq!((name, &*family.kind), (&*current, ""), "{line}");
            family.kind = kind.into();
            continue;
        }
        let sample = sample(line);
        let suffix = sample.name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} within {current}"));
        let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{line}");
        assert!(sample.value.is_finite() && sample.value >= 0.0, "{line}");
        assert!(family.kind != "counter" || current.ends_with("_total"), "{current}");
        assert!(series.insert((sample.name.clone(), sample.labels.clone())), "{line} comes twice");
        family.samples.push(sample);
    }
    families
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).expect("a sample has a value");
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    while let Some(inside) = rest.strip_prefix(['{', ',']) {
        let (label, quoted) = inside.split_once("=\"").expect("a label has a value");
        let (mut value, mut chars) = (String::new(), quoted.char_indices());
        let end = loop {
            match chars.next().expect("a value ends") {
                (place, '"') => break place,
                (_, '\\') => value.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, c @ ('"' | '\\'))) => c,
                    other => panic!("{other:?} is no escape: {line}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(label.to_string(), value).is_none(), "{line}");
        rest = &quoted[end + 1..];
    }
    let value = rest.strip_prefix('}').unwrap_or(rest).strip_prefix(' ').expect("a blank comes before the value");
    Sample { name: name.into(), labels, value: value.parse().unwrap_or_else(|_| panic!("{line}")) }
}

fn families(http: &mut Http) -> BTreeMap<String, Family> {
    let response = http.get("/metrics");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    parse(str::from_utf8(&response.body).expect("it is text"))
}

/// The sum of all samples of this name that have these labels.
fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |sample: &&Sample| {
        sample.name == name && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
    };
    families.values().flat_map(|family| &family.samples).filter(has).map(|sample| sample.value).sum()
}

/// Waits until it is as expected: what only the core knows is up to a second old.
fn wait_for(http: &mut Http, what: &str, is_so: impl Fn(&BTreeMap<String, Family>) -> bool) {
    let began = Instant::now();
    loop {
        let families = families(http);
        if is_so(&families) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: {families:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn labels_of(family: &Family) -> BTreeSet<&str> {
    let labels = family.samples.iter().flat_map(|sample| sample.labels.keys());
    labels.map(String::as_str).filter(|label| *label != "le").collect()
}

#[test]
fn what_the_running_host_shows_is_what_is_documented() {
    let quota = "[[limits.quotas]]\nname = \"each\"\nclients = [\"*\"]\nservices = 1\n";
    let stage = Stage::with(&format!("{MEMORY}{quota}"));
    let mut http = stage.http();
    http.call("PUT", "/v1/services/a", &[], Some(&record("a", ",\"type\":\"web\"")));
    assert_eq!(http.call("PUT", "/v1/services/b", &[], Some(&record("b", ""))).status, 403);
    // Somebody who speaks no ZeroMQ: what went too far has a reason.
    stage.host.wait_for_log("requests on tcp://");
    let mut stranger = Http::connect(stage.host.ports()[0]);
    stranger.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(stranger.closes_within(PATIENCE));
    wait_for(&mut http, "all have samples", |families| {
        value(families, "registry_services_by_type", &[("type", "web"), ("state", "passing")]) == 1.0
            && value(families, "registry_client_incidents_total", &[("incident", "handshake_failed")]) == 1.0
            && value(families, "registry_quota_refused_total", &[("quota", "each"), ("limit", "services")]) == 1.0
    });
    let shown = families(&mut http);
    let document = std::fs::read_to_string(workspace().join("docs/metrics.md")).expect("there is a document");
    let table = document.split_once("|---|---|---|---|\n").expect("there is a table").1;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .take_while(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    for row in &rows {
        let [name, kind, labels, help] = row[..] else { panic!("{row:?}") };
        let family = shown.get(name.trim_matches('`')).unwrap_or_else(|| panic!("{name} is not shown"));
        assert_eq!((kind, help), (&*family.kind, &*family.help), "{name}");
        let labels: BTreeSet<&str> =
            labels.split(", ").map(|label| label.trim_matches('`')).filter(|label| !label.is_empty()).collect();
        assert!(!family.samples.is_empty(), "{name} has no sample");
        assert_eq!(labels_of(family), labels, "{name}");
    }
    assert_eq!(rows.len(), shown.len(), "each has a row");
}

#[test]
fn counters_move_with_what_happens() {
    let stage = Stage::new();
    let (mut http, mut client) = (stage.http(), stage.host.client());
    let service = json!({"id": "a", "name": "A", "host": "h", "port": 1, "type": "web"});
    assert_eq!(client.call(json!({"action": "register", "service_info": service}))["success"], true);
    for _ in 0..3 {
        client.call(json!({"action": "renew", "service_id": "a"}));
        client.call(json!({"action": "get", "service_id": "b"}));
    }
    http.get("/v1/discover/web");
    http.get("/v1/nothing");
    client.call(json!({"action": "drain", "service_id": "a"}));
    let families = families(&mut http);
    let requests =
        |action: &str, code: &str| value(&families, "registry_requests_total", &[("action", action), ("code", code)]);
    assert_eq!((requests("register", "ok"), requests("renew", "ok"), requests("get", "not_found")), (1.0, 3.0, 3.0));
    assert_eq!((requests("discover", "ok"), requests("drain", "ok"), requests("swap", "ok")), (1.0, 1.0, 0.0));
    assert_eq!(value(&families, "registry_changes_total", &[("change", "register")]), 2.0);
    assert_eq!(value(&families, "registry_http_responses_total", &[("status", "404")]), 1.0);
    let count = |kind: &str| value(&families, "registry_request_seconds_count", &[("kind", kind)]);
    assert_eq!((count("renew"), count("change")), (3.0, 2.0));
    assert!(count("read") >= 4.0 && value(&families, "registry_request_seconds_sum", &[("kind", "read")]) > 0.0);
    assert!(value(&families, "registry_storage_commit_seconds_count", &[]) >= 2.0);
    assert!(value(&families, "registry_storage_group_changes_sum", &[]) >= 2.0);
    assert_eq!(value(&families, "registry_connections", &[("front", "requests")]), 1.0);
    assert_eq!(value(&families, "registry_connections", &[("front", "http")]), 1.0);
    assert!(value(&families, "process_resident_memory_bytes", &[]) > 1e6);
    assert!(value(&families, "process_open_fds", &[]) > 5.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((0.0..600.0).contains(&(now - value(&families, "process_start_time_seconds", &[]))));
    wait_for(&mut http, "it is drained", |families| {
        value(families, "registry_services", &[("state", "drained")]) == 1.0
            && value(families, "registry_services", &[("state", "passing")]) == 0.0
            && value(families, "registry_history_changes", &[]) == 2.0
            && value(families, "registry_ready", &[]) == 1.0
    });
    client.call(json!({"action": "deregister", "service_id": "a"}));
    drop(client);
    wait_for(&mut http, "it is gone, and so is the client", |families| {
        value(families, "registry_services", &[]) == 0.0
            && value(families, "registry_connections", &[("front", "requests")]) == 0.0
            && value(families, "registry_changes_total", &[("change", "deregister")]) == 1.0
    });
}

#[test]
fn what_fails_is_counted_and_so_is_what_operators_do() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[server]\nallow_swap = true\n[backend]\nplugin = \"moody\"\noptions.outage = \"outage\"\n";
    let host = Host::start(directory.path(), config);
    let (mut http, mut client) = (Http::connect(host.http()), host.client());
    std::fs::write(directory.path().join("outage"), "").unwrap();
    let service = json!({"id": "a", "name": "A", "host": "h", "port": 1});
    let refused = client.call(json!({"action": "register", "service_info": service}));
    assert_eq!(refused["code"], "backend_unavailable", "{refused}");
    wait_for(&mut http, "the storage fails", |families| {
        value(families, "registry_storage_failing_seconds", &[]) > 0.0
            && value(families, "registry_storage_failures_total", &[]) >= 1.0
            && value(families, "registry_ready", &[]) == 0.0
    });
    std::fs::remove_file(directory.path().join("outage")).unwrap();
    wait_for(&mut http, "it works again", |families| {
        value(families, "registry_storage_failing_seconds", &[]) == 0.0 && value(families, "registry_ready", &[]) == 1.0
    });
    assert_eq!(http.call("POST", "/v1/reload", &[], Some("{\"dry_run\":false}")).status, 200);
    assert_eq!(http.call("POST", "/v1/swap", &[], Some("{\"file\":\"nowhere.toml\"}")).status, 503);
    let shown = families(&mut http);
    for (name, results) in [("registry_config_reloads_total", [1.0, 0.0]), ("registry_storage_swaps_total", [0.0, 1.0])]
    {
        assert_eq!(["ok", "failed"].map(|result| value(&shown, name, &[("result", result)])), results, "{name}");
    }
}

#[test]
fn histograms_are_cumulative_and_end_with_all() {
    let stage = Stage::new();
    let mut http = stage.http();
    (0..20).for_each(|_| drop(http.get("/v1/types")));
    let families = families(&mut http);
    let buckets: Vec<&Sample> = families["registry_request_seconds"]
        .samples
        .iter()
        .filter(|sample| sample.name.ends_with("_bucket") && sample.labels["kind"] == "read")
        .collect();
    assert!(buckets.windows(2).all(|pair| pair[0].value <= pair[1].value), "{buckets:?}");
    let bounds: Vec<&str> = buckets.iter().map(|bucket| &*bucket.labels["le"]).collect();
    assert_eq!(bounds.last(), Some(&"+Inf"));
    assert!(bounds.iter().rev().skip(1).rev().map(|bound| bound.parse::<f64>().unwrap()).is_sorted(), "{bounds:?}");
    let count = value(&families, "registry_request_seconds_count", &[("kind", "read")]);
    assert!(count >= 20.0 && buckets.last().unwrap().value == count, "{buckets:?}");
}

#[test]
fn no_client_makes_labels_without_end() {
    let stage = Stage::new();
    let (mut http, mut client) = (stage.http(), stage.host.client());
    let series = |http: &mut Http| families(http).values().map(|family| family.samples.len()).sum::<usize>();
    for number in 0..300 {
        client.call(json!({"action": format!("action-{number}")}));
        http.get(&format!("/v1/nothing-{number}"));
        let name = if number == 0 { "a\"\\\nb".to_string() } else { format!("type-{number}") };
        let members = if number == 0 { 2 } else { 1 };
        for member in 0..members {
            let service =
                json!({"id": format!("{number}-{member}"), "name": "n", "host": "h", "port": 1, "type": name});
            client.call(json!({"action": "register", "service_info": service}));
        }
    }
    let long = json!({"id": "long", "name": "n", "host": "h", "port": 1, "type": "x".repeat(200)});
    client.call(json!({"action": "register", "service_info": long}));
    wait_for(&mut http, "all are counted", |families| {
        let named = value(families, "registry_services_by_type", &[("state", "passing")]);
        let others = value(families, "registry_services_of_other_types", &[("state", "passing")]);
        named == 101.0 && others == 201.0
    });
    let shown = families(&mut http);
    assert_eq!(value(&shown, "registry_services_by_type", &[("type", "a\"\\\nb"), ("state", "passing")]), 2.0);
    assert_eq!(
        value(&shown, "registry_requests_total", &[("action", "unreadable"), ("code", "unknown_action")]),
        300.0
    );
    assert_eq!(value(&shown, "registry_service_types", &[]), 301.0);
    let before = series(&mut http);
    (0..200).for_each(|number| drop(client.call(json!({"action": format!("other-{number}")}))));
    assert_eq!(series(&mut http), before);
    assert!(before < 600, "{before}");
}

#[test]
fn who_may_not_read_is_shown_nothing() {
    let (reader, mut tokens) = token(&["prometheus", "--allow", "read"]);
    let (writer, lines) = token(&["writer", "--allow", "register"]);
    tokens += &lines;
    let stage = Stage::with(&format!("{MEMORY}[http]\nport = 0\n{tokens}"));
    stage.host.wait_for_log("requests on tcp://");
    let mut http = stage.http();
    for target in ["/metrics", "/sd/prometheus"] {
        assert_eq!(http.get(target).status, 401, "{target}");
        assert_eq!(call(&mut http, &writer, "GET", target, None).status, 403, "{target}");
        assert_eq!(call(&mut http, &reader, "GET", target, None).status, 200, "{target}");
    }
    assert_eq!(call(&mut http, &reader, "GET", "/metrics?x=1", None).status, 400);
}

#[test]
fn who_is_discovered_is_found_by_prometheus() {
    let stage = Stage::new();
    let mut http = stage.http();
    assert_eq!(http.get("/sd/prometheus").json(), json!([]));
    for (id, more) in [
        ("a", ",\"type\":\"web\",\"tags\":[\"blue\"],\"metadata\":{\"metrics-port\":9100}"),
        ("b", ",\"type\":\"web\""),
        ("c", ",\"type\":\"db\""),
        ("d", ",\"type\":\"web\""),
    ] {
        assert_eq!(http.call("PUT", &format!("/v1/services/{id}"), &[], Some(&record(id, more))).status, 200);
    }
    assert_eq!(http.call("PUT", "/v1/services/d/drain", &[], Some("{}")).status, 200);
    let mut ids = |target: &str| {
        let groups = http.get(target).json();
        let ids = groups.as_array().expect("a list").iter().map(|group| group["labels"]["__meta_registry_id"].clone());
        let mut ids: Vec<String> = ids.map(|id| id.as_str().expect("an id").to_string()).collect();
        ids.sort();
        ids.join(",")
    };
    assert_eq!(ids("/sd/prometheus"), "a,b,c");
    assert_eq!(ids("/sd/prometheus?type=web"), "a,b");
    assert_eq!(ids("/sd/prometheus?tags=blue"), "a");
    assert_eq!(ids("/sd/prometheus?type=nothing"), "");
    let group = http.get("/sd/prometheus?tags=blue").json()[0].clone();
    assert_eq!(group["targets"], json!(["127.0.0.1:4000"]));
    assert_eq!(group["labels"]["__meta_registry_type"], "web");
    assert_eq!(group["labels"]["__meta_registry_metadata_metrics_port"], "9100");
    assert_eq!(http.get("/sd/prometheus?kind=web").status, 400);
}

#[test]
fn a_large_registry_is_listed_whole_each_service_once() {
    let stage = Stage::new();
    let mut client = stage.host.client();
    for number in 0..1201 {
        let service = json!({"id": format!("s{number}"), "name": "n", "host": "h", "port": 1});
        client.call(json!({"action": "register", "ttl": 300, "service_info": service}));
    }
    let groups = stage.http().get("/sd/prometheus").json();
    let ids: BTreeSet<&str> =
        groups.as_array().unwrap().iter().filter_map(|group| group["labels"]["__meta_registry_id"].as_str()).collect();
    assert_eq!((ids.len(), groups.as_array().unwrap().len()), (1201, 1201));
}
